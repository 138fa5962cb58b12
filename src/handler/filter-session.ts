/**
 * `session`: an SMTP connection as a filter sees it. The same object serves all phases; the types in `types.ts` have
 * the members of each phase. `FilterPart` is the chain's own side of it.
 */
import type { Client } from "../protocol/client.ts";
import type { ChainFilter } from "./chain.ts";
import type { CollectBodySetting } from "./collect-body.ts";
import { FilterChanges } from "./message/changes.ts";
import { UsageError } from "../usage-error.ts";
import type { LoadedFilter } from "./filter.ts";
import type { ReceivedMessage } from "./message/received.ts";
import type { TraceFacts } from "./message/received-field.ts";
import { MessageView, type ViewOwner } from "./message/view.ts";
import { type Services, servicesOf } from "./services.ts";
import type { Dns } from "../dns/types.ts";
import type { Store } from "../store/types.ts";
import { logTo, type NoteLevel } from "./notes.ts";
import type { Auth, CallPhase, Log, MacroLookup, Tls } from "./types.ts";

/** The parts of a conversation that sessions read. */
export interface SessionSource {
  readonly client: Client;
  readonly helo: string;
  readonly phase: CallPhase;
  readonly macros: MacroLookup;
  readonly message: ReceivedMessage | null;
  /** Granted actions. */
  readonly actions: number;
  /** Whether the mail server sends the headers. */
  readonly hasHeaders: boolean;
  /** The mail server is a Sendmail. */
  readonly isSendmail: boolean;
  readonly isLocal: boolean;
  /** Why nothing waits for the call at hand any more; null while something does. */
  readonly whyLeft: string | null;
  /** A handler logs something. */
  note(filter: ChainFilter, level: NoteLevel, text: unknown, fields: unknown): void;
  /** No mail is at stake: see {@link FilterSession.trial}. */
  readonly isTrial: boolean;
  /** DNS and store. */
  readonly services: Services;
  /** Changes of the filters before this one that count, in chain order: a new list. */
  changesBefore(filter: { readonly index: number }): FilterChanges[];
  /** Counts the headers that filters added. */
  addedHeaders: number;
}

/** The reasons with which signals of calls were aborted. */
const GIVEN_UP = new WeakSet<object>();

/**
 * Whether an error is the reason of a call's own signal: what the handler waited for has ended since nothing waits for the
 * handler any more, and the handler has done nothing wrong.
 */
export function isGivenUp(error: unknown): boolean {
  return typeof error === "object" && error !== null && GIVEN_UP.has(error);
}

/** How far a filter's part in a session is over. */
export type Done = "no" | "message" | "connection";

/** A filter's part in a connection. */
export class FilterPart implements ViewOwner {
  readonly filter: ChainFilter;
  readonly session: FilterSession;
  done: Done = "no";
  /** It wants no more chunks of this message's body. */
  skipsBody = false;
  /** The body of this message is larger than it collects, and it goes on without. */
  lacksBody = false;
  /** Its changes to this message. */
  changes: FilterChanges | null = null;
  readonly #source: SessionSource;
  /** Of the call at hand, or of the last call if that was given up; made when a handler first asks for its signal. */
  #controller: AbortController | null = null;
  #view: MessageView | null = null;
  #viewed: ReceivedMessage | null = null;
  readonly #viewBefore: MessageView | null;

  /** @param before its part in the session that has ended a message, for `outcome` */
  constructor(filter: ChainFilter, source: SessionSource, before: FilterPart | null = null) {
    this.filter = filter;
    this.#source = source;
    this.session = new FilterSession(source, this, before === null ? null : before.session);
    this.#viewBefore = before === null ? null : before.message();
  }

  /** The message is over: nothing of it is left, and a handler still running cannot change the next one. */
  endMessage(): void {
    if (this.done === "message") this.done = "no";
    this.skipsBody = false;
    this.lacksBody = false;
    this.changes = null;
    this.#view = null;
    this.#viewed = null;
  }

  /** The filter failed: its changes and results do not count. */
  dropChanges(): void {
    this.changes = null;
    this.#source.message?.results?.drop(this.filter);
  }

  /** A handler is about to be called. */
  beginCall(): void {
    this.#controller = null;
  }

  /** The handler that was called looks at its signal. */
  get isWatched(): boolean {
    return this.#controller !== null;
  }

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      const why = this.#source.whyLeft;
      if (why !== null) this.giveUp(why);
    }
    return this.#controller.signal;
  }

  /** Nothing waits for the call at hand any more. A second reason changes nothing. */
  giveUp(why: string, name: "AbortError" | "TimeoutError" = "AbortError"): void {
    this.#controller ??= new AbortController();
    const reason = new DOMException(why, name);
    GIVEN_UP.add(reason);
    this.#controller.abort(reason);
  }

  note(level: NoteLevel, text: unknown, fields: unknown): void {
    this.#source.note(this.filter, level, text, fields);
  }

  // Read by views: see `ViewOwner`.
  get actions(): number {
    return this.#source.actions;
  }
  get hasHeaders(): boolean {
    return this.#source.hasHeaders;
  }
  get isSendmail(): boolean {
    return this.#source.isSendmail;
  }
  get collectBody(): CollectBodySetting | null {
    return this.filter.loaded.collectBody;
  }

  changesOf(received: ReceivedMessage): readonly FilterChanges[] {
    if (this.#source.message !== received) return [];
    const layers = this.#source.changesBefore(this.filter);
    if (this.changes !== null) layers.push(this.changes);
    return layers;
  }

  isOpen(received: ReceivedMessage): boolean {
    return this.#source.message === received;
  }

  checkOpen(received: ReceivedMessage): void {
    if (this.#source.message === received && this.done === "no") return;
    throw new UsageError("PMILTER_ERR_OVER", "the message is over for this filter, it cannot be changed any more");
  }

  change(received: ReceivedMessage): FilterChanges {
    this.checkOpen(received);
    return (this.changes ??= new FilterChanges());
  }

  newState(): unknown {
    if (this.#viewBefore !== null) return this.#viewBefore.state;
    return newState(this.filter.loaded, "messageState");
  }

  get phase(): CallPhase {
    return this.#source.phase;
  }

  traceOf(received: ReceivedMessage): TraceFacts {
    if (this.#source.message !== received) {
      throw new UsageError("PMILTER_ERR_OVER", "the message is over: its session's values are no longer known");
    }
    const { client, helo, myHostname, queueId, tls, auth } = this.session;
    return {
      client,
      helo,
      myHostname,
      queueId,
      sender: received.sender.address,
      isEncrypted: tls.version !== "",
      isAuthenticated: auth.authen !== "",
      at: received.receivedAt ?? new Date(),
    };
  }

  newHeaderId(): number {
    return -++this.#source.addedHeaders;
  }

  message(): MessageView {
    const received = this.#source.message;
    if (received === null) {
      throw new UsageError("PMILTER_ERR_NOT_HERE", `there is no message in phase ${this.#source.phase}`);
    }
    if (this.#view === null || this.#viewed !== received) {
      this.#viewed = received;
      this.#view = new MessageView(received, this);
    }
    return this.#view;
  }
}

function newState(filter: LoadedFilter, kind: "state" | "messageState"): unknown {
  return filter[kind] === null ? {} : filter[kind].call(filter.self);
}

/** The object that handlers get; its members are documented in `types.ts`. */
export class FilterSession {
  /** Most handlers keep nothing. */
  #state: unknown = null;
  #log: Log | null = null;
  #services: ReturnType<typeof servicesOf> | null = null;
  readonly #source: SessionSource;
  readonly #part: FilterPart;
  /** The session whose state it has; null if it has its own. */
  readonly #before: FilterSession | null;

  constructor(source: SessionSource, part: FilterPart, before: FilterSession | null) {
    this.#source = source;
    this.#part = part;
    this.#before = before;
  }

  get state(): unknown {
    if (this.#before !== null) return this.#before.state;
    return (this.#state ??= newState(this.#part.filter.loaded, "state"));
  }
  get own(): unknown {
    return this.#part.filter.own;
  }
  get log(): Log {
    return (this.#log ??= logTo((level, text, fields) => this.#part.note(level, text, fields)));
  }
  get signal(): AbortSignal {
    return this.#part.signal;
  }
  get dns(): Dns {
    return this.#ownServices.dns;
  }
  get store(): Store {
    return this.#ownServices.store;
  }
  get #ownServices(): ReturnType<typeof servicesOf> {
    const { filter } = this.#part;
    return (this.#services ??= servicesOf(this.#source.services, filter.loaded.name, () => this.signal));
  }
  get isLocal(): boolean {
    return this.#source.isLocal;
  }
  get trial(): boolean {
    return this.#source.isTrial;
  }
  get client(): Client {
    return this.#source.client;
  }
  get daemonName(): string {
    return this.#macro("{daemon_name}");
  }
  get myHostname(): string {
    return this.#macro("j");
  }
  get queueId(): string {
    return this.#macro("i");
  }
  get phase(): CallPhase {
    return this.#source.phase;
  }
  get macros(): MacroLookup {
    return this.#source.macros;
  }
  get options(): unknown {
    return this.#part.filter.options;
  }
  get helo(): string {
    return this.#source.helo;
  }
  get tls(): Tls {
    return {
      version: this.#macro("{tls_version}"),
      cipher: this.#macro("{cipher}"),
      cipherBits: this.#macro("{cipher_bits}"),
      certSubject: this.#macro("{cert_subject}"),
      certIssuer: this.#macro("{cert_issuer}"),
    };
  }
  get auth(): Auth {
    return {
      type: this.#macro("{auth_type}"),
      authen: this.#macro("{auth_authen}"),
      author: this.#macro("{auth_author}"),
    };
  }
  get message(): MessageView {
    return this.#part.message();
  }

  #macro(name: string): string {
    return this.#source.macros.get(name) ?? "";
  }
}
