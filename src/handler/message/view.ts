/**
 * `session.message`: a message as a filter sees and changes it. A view is the received message under the changes of the
 * filters before it in the chain and its own.
 */
import { ByteWriter } from "../../protocol/bytes.ts";
import { ACTION, type ActionName } from "../../protocol/constants.ts";
import {
  checkBody,
  checkDeletion,
  checkHeaderName,
  checkHeaderSize,
  checkHeaderValue,
  checkIndex,
  checkReason,
  checkRecipient,
  checkRecipientParams,
  checkSender,
  checkSenderParams,
  type FilterChanges,
  type NewBody,
  quote,
  type RecipientChange,
  withLineEnds,
} from "./changes.ts";
import { GivenAddress } from "./envelope-address.ts";
import type { CollectBodySetting } from "../collect-body.ts";
import { UsageError } from "../../usage-error.ts";
import { joined } from "./collected-body.ts";
import { type HeaderChange, type HeaderEntry, HeaderList, ReadHeader } from "./header-list.ts";
import { Layered, type ListKind } from "./layered.ts";
import type { ReceivedMessage } from "./received.ts";
import { MessageMime, type MimeOwner, type SeenMessage } from "./message-mime.ts";
import { receivedField, type TraceFacts } from "./received-field.ts";
import { isSame, RecipientList } from "./recipient-list.ts";
import type { Mime } from "../../mime/types.ts";
import { MessageResults } from "../results.ts";
import type { Address, CallPhase, Changes, ChangesByHeader, Header, Headers, RawOptions, Results } from "../types.ts";

/**
 * The filter that the view belongs to. A handler may keep a view past its message: it then has no changes any more, and
 * does not reach the next message.
 */
export interface ViewOwner {
  /** Granted actions, see `ACTION`. */
  readonly actions: number;
  /** Whether the mail server sends the headers. */
  readonly hasHeaders: boolean;
  /** The mail server is a Sendmail. */
  readonly isSendmail: boolean;
  /** How it collects bodies; null if it does not. */
  readonly collectBody: CollectBodySetting | null;
  /** The body is larger than it collects, and it goes on without. */
  readonly lacksBody: boolean;
  /** The changes of a message that count, in chain order: those of the filters before, and the filter's own. */
  changesOf(received: ReceivedMessage): readonly FilterChanges[];
  /** The filter's own changes; throws UsageError PMILTER_ERR_OVER if it may not change that message any more. */
  change(received: ReceivedMessage): FilterChanges;
  /** The message is not over. */
  isOpen(received: ReceivedMessage): boolean;
  /** A new `message.state`. */
  newState(): unknown;
  readonly filter: { readonly index: number; readonly isObserved: boolean };
  /** Throws UsageError PMILTER_ERR_OVER if the filter may not change that message any more. */
  checkOpen(received: ReceivedMessage): void;
  /** An id for an added header, unique in the message. */
  newHeaderId(): number;
  readonly phase: CallPhase;
  /** The session's facts about a message; throws UsageError PMILTER_ERR_OVER once it is over. */
  traceOf(received: ReceivedMessage): TraceFacts;
}

const CRLF = Buffer.from("\r\n");

const HEADERS: ListKind<HeaderList, HeaderChange> = {
  make: (received) => new HeaderList(received),
  changesOf: (changes) => changes.headers,
};
/** The phases in which the header block may not have come whole. */
const BEFORE_EOH: ReadonlySet<CallPhase> = new Set<CallPhase>(["envfrom", "envrcpt", "data", "header"]);

const RECIPIENTS: ListKind<RecipientList, RecipientChange> = {
  make: (received) => new RecipientList(received),
  changesOf: (changes) => changes.recipients,
};

export class MessageView implements Changes, ChangesByHeader {
  readonly #received: ReceivedMessage;
  readonly #owner: ViewOwner;
  /** Most handlers keep nothing. */
  #state: unknown = null;
  #results: Results | null = null;
  /** Made at the first look. */
  #headers: Layered<HeaderList, HeaderChange> | null = null;
  #recipients: Layered<RecipientList, RecipientChange> | null = null;
  #mime: MessageMime | null = null;
  /**
   * Number of recipients whose spelling is in `#spellings`. A received spelling may be used again where it would be
   * refused for a new recipient.
   */
  #spelled = 0;
  readonly #spellings = new Set<string>();

  constructor(received: ReceivedMessage, owner: ViewOwner) {
    this.#received = received;
    this.#owner = owner;
  }

  get state(): unknown {
    return (this.#state ??= this.#owner.newState());
  }

  get results(): Results {
    return (this.#results ??= resultsOf(this.#received, this.#owner));
  }

  get sender(): Address {
    const changed = senderUnder(this.#received, this.#layers);
    return changed === null ? this.#received.sender : new GivenAddress(`<${changed.address}>`, changed.params);
  }

  get recipients(): readonly Address[] {
    this.#recipients ??= new Layered(this.#received, RECIPIENTS);
    return this.#recipients.under(this.#layers).all;
  }

  get headers(): Headers {
    return this.#list();
  }

  get receivedAt(): Date {
    const { receivedAt } = this.#received;
    if (receivedAt === null) throw new UsageError("PMILTER_ERR_NOT_HERE", "message.receivedAt is there from eom on");
    // Filters share the message, and a Date can be set.
    return new Date(receivedAt);
  }

  rawHeaders({ withReceived = false }: RawOptions = {}): Uint8Array {
    if (BEFORE_EOH.has(this.#owner.phase)) {
      throw new UsageError("PMILTER_ERR_NOT_HERE", "message.rawHeaders() is there from eoh on");
    }
    const writer = new ByteWriter();
    if (withReceived) writer.text(`${receivedField(this.#owner.traceOf(this.#received))}\n`);
    this.#list().writeFields(writer);
    return new Uint8Array(withLineEnds(writer.buffer.subarray(0, writer.length)));
  }

  body(): Uint8Array | null {
    const replaced = this.#replacedBody;
    if (replaced === null) return this.#receivedBody("body");
    // A copy: a filter that writes into it, or gives its memory away, must not change what is sent.
    const { bytes } = replaced;
    return this.#ifCollected(bytes) === null ? null : new Uint8Array(bytes);
  }

  raw(options?: RawOptions): Uint8Array | null {
    const received = this.#receivedBody("raw");
    const replaced = this.#replacedBody;
    const body = replaced === null ? received : this.#ifCollected(replaced.bytes);
    if (body === null) return null;
    const head = joined(this.rawHeaders(options), CRLF);
    if (replaced !== null) return joined(head, body);
    return this.#received.collected?.withHead(head) ?? head;
  }

  mime(): Mime | null {
    const received = this.#receivedBody("mime");
    this.#mime ??= new MessageMime(this.#mimeOwner());
    const { current } = this.#mime;
    if (current !== null) return current;
    const replaced = this.#replacedBody;
    const bytes = replaced === null ? received : this.#ifCollected(replaced.bytes);
    return bytes === null ? null : this.#mime.make(bytes);
  }

  #mimeOwner(): MimeOwner {
    const seen = (): SeenMessage => ({ replaced: this.#replacedBody, list: this.#list() });
    return {
      get seen() {
        return seen();
      },
      checkOpen: () => {
        if (this.#owner.isOpen(this.#received)) return;
        throw new UsageError("PMILTER_ERR_OVER", "the message is over: the memory of its body was given back");
      },
      check: (method, { body, header }) => {
        void this.#change;
        if (body) this.#require("CHGBODY", method);
        if (!header) return;
        this.#require("CHGHDRS", method);
        this.#require("ADDHDRS", method);
      },
      checkHeader: checkNewHeader,
      setHeader: (name, value) => this.#setHeader(name, value),
      replaceBody: (body) => {
        this.#change.body = body;
      },
    };
  }

  /** An edit sets a header. Of one that says what the body is there is a single one then. */
  #setHeader(name: string, value: string): void {
    const isDescribing = /^content-|^mime-version$/i.test(name);
    const others = isDescribing ? this.#list().named(name).slice(1) : [];
    for (const { id } of others) this.#changeHeader({ kind: "delete", id });
    this.changeHeader(name, value);
  }

  /** The body that a filter has put in place of the received body; null if none has. */
  get #replacedBody(): NewBody | null {
    return this.#layers.findLast(({ body }) => body !== null)?.body ?? null;
  }

  /** @returns null for a body that is larger than this filter collects, if it goes on without */
  #ifCollected(body: Uint8Array): Uint8Array | null {
    const { collectBody } = this.#owner;
    const isTooLarge = collectBody?.over === "skip" && collectBody.max !== null && body.length > collectBody.max;
    return isTooLarge ? null : body;
  }

  /** @returns null if it is larger than this filter collects */
  #receivedBody(method: string): Uint8Array | null {
    const { collectBody, lacksBody } = this.#owner;
    if (collectBody === null) {
      throw new UsageError("PMILTER_ERR_NOT_HERE", `message.${method}() needs collectBody in the filter`);
    }
    if (this.#owner.phase === "outcome") {
      throw new UsageError(
        "PMILTER_ERR_NOT_HERE",
        `message.${method}() is not there in outcome: the body is given back before`,
      );
    }
    if (this.#received.receivedAt === null) {
      throw new UsageError("PMILTER_ERR_NOT_HERE", `message.${method}() is there at eom, when all of it has come`);
    }
    return lacksBody ? null : this.#received.body();
  }

  addHeader(name: string, value: string): void {
    const checked = checkNewHeader(name, value);
    this.#require("ADDHDRS", "addHeader");
    this.#changeHeader({ kind: "add", id: this.#owner.newHeaderId(), name, value: checked });
  }

  insertHeader(index: number, name: string, value: string): void {
    checkIndex(index, 0);
    const checked = checkNewHeader(name, value);
    this.#require("ADDHDRS", "insertHeader");
    if (index > 0) this.#requireHeaders("insertHeader below the top");
    const added = { id: this.#owner.newHeaderId(), name, value: checked };
    if (index === 0) {
      this.#changeHeader({ kind: "addOnTop", ...added });
      return;
    }
    const live = this.#list().live();
    if (index >= live.length) this.#changeHeader({ kind: "add", ...added });
    else this.#changeHeader({ kind: "insertAfter", ...added, anchor: live[index - 1]!.id });
  }

  insertBefore(header: Header, name: string, value: string): void {
    this.#insertBeside("insertBefore", header, name, value);
  }

  insertAfter(header: Header, name: string, value: string): void {
    this.#insertBeside("insertAfter", header, name, value);
  }

  #insertBeside(kind: "insertBefore" | "insertAfter", header: Header, name: string, value: string): void {
    const anchor = this.#entryOf(header, kind).id;
    const checked = checkNewHeader(name, value);
    this.#require("ADDHDRS", kind);
    this.#changeHeader({ kind, id: this.#owner.newHeaderId(), name, value: checked, anchor });
  }

  changeHeader(header: Header, value: string): void;
  changeHeader(name: string, value: string, index?: number): void;
  changeHeader(which: Header | string, value: string, index = 1): void {
    if (typeof which !== "string") {
      const entry = this.#entryOf(which, "changeHeader");
      if (entry.isDeleted) {
        throw new UsageError("PMILTER_ERR_ARGUMENT", `changeHeader: the header ${quote(entry.name)} was deleted`);
      }
      this.#changeEntry(entry, value);
      return;
    }
    checkHeaderName(which);
    checkIndex(index, 1);
    const entry = this.#owner.hasHeaders ? this.#list().named(which)[index - 1] : undefined;
    if (entry !== undefined) {
      this.#changeEntry(entry, value);
      return;
    }
    const checked = checkHeaderValue(value);
    this.#requireHeaders("changeHeader");
    if (checked !== "") this.addHeader(which, checked);
  }

  /** Changes a header that is there. */
  #changeEntry(entry: HeaderEntry, value: string): void {
    const list = this.#list();
    const before = list.valueOf(entry);
    this.#require("CHGHDRS", "changeHeader");
    // Writing back the value that was read changes nothing, an empty value included.
    if (value === before) return;
    const checked = checkHeaderValue(value, before);
    if (checked === before) return;
    if (checked === "") {
      this.#changeHeader({ kind: "delete", id: entry.id });
      return;
    }
    const raw = list.respaced(entry, checked);
    checkHeaderSize(entry.name, raw, list.rawOf(entry));
    this.#changeHeader({ kind: "change", id: entry.id, raw });
  }

  deleteHeader(header: Header): void;
  deleteHeader(name: string, index?: number): void;
  deleteHeader(which: Header | string, index?: number): void {
    if (typeof which !== "string") {
      const entry = this.#entryOf(which, "deleteHeader");
      this.#require("CHGHDRS", "deleteHeader");
      if (!entry.isDeleted) this.#changeHeader({ kind: "delete", id: entry.id });
      return;
    }
    checkHeaderName(which);
    this.#requireHeaders("deleteHeader");
    this.#require("CHGHDRS", "deleteHeader");
    if (index === undefined) {
      this.#changeHeader({ kind: "deleteAll", name: which.toLowerCase() });
      return;
    }
    checkIndex(index, 1);
    const entry = this.#list().named(which)[index - 1];
    if (entry !== undefined) this.#changeHeader({ kind: "delete", id: entry.id });
  }

  /** The entry of a header that the handler has read, deleted or not. */
  #entryOf(header: Header, method: string): HeaderEntry {
    const identity = ReadHeader.identify(header);
    if (identity === null) {
      throw new UsageError(
        "PMILTER_ERR_ARGUMENT",
        `${method} takes a header that message.headers gave, got ${quote(header)}`,
      );
    }
    if (identity.received !== this.#received) {
      throw new UsageError("PMILTER_ERR_OVER", `${method}: the header ${quote(header.name)} is of another message`);
    }
    const entry = this.#list().find(identity.id);
    if (entry !== undefined) return entry;
    // Of a message that is over, no change is known any more.
    void this.#change;
    throw new UsageError(
      "PMILTER_ERR_ARGUMENT",
      `${method}: this filter does not see the header ${quote(header.name)}: a later filter added it, or the filter that added it failed`,
    );
  }

  changeFrom(address: string, params?: readonly string[]): void {
    const checked = { address: checkSender(address, this.#owner.isSendmail), params: checkSenderParams(params) };
    this.#require("CHGFROM", "changeFrom");
    this.#change.sender = checked;
  }

  addRecipient(address: string, params?: readonly string[]): void {
    const checked = { address: checkRecipient(address, this.#owner.isSendmail), params: checkRecipientParams(params) };
    if (checked.params.length === 0) this.#require("ADDRCPT", "addRecipient");
    else this.#require("ADDRCPT_PAR", "addRecipient with ESMTP arguments");
    this.#change.recipients.push({ kind: "add", ...checked });
  }

  deleteRecipient(address: string): void {
    const checked = checkDeletion(address, (text) => this.#hasReceived(text));
    this.#require("DELRCPT", "deleteRecipient");
    this.#change.recipients.push({ kind: "delete", address: checked });
  }

  replaceBody(body: string | Uint8Array): void {
    const checked = checkBody(body);
    this.#require("CHGBODY", "replaceBody");
    this.#change.body = { bytes: checked, pieces: [checked] };
  }

  quarantine(reason: string): void {
    const checked = checkReason(reason);
    this.#require("QUARANTINE", "quarantine");
    this.#change.quarantine = { reason: checked, origin: new Error() };
  }

  /** Whether a recipient was received with that very spelling, with or without its brackets. */
  #hasReceived(text: string): boolean {
    const { recipients } = this.#received;
    // The recipient may have been refused since, and another may have its place.
    for (let at = Math.max(0, this.#spelled - 1); at < recipients.length; at++) {
      this.#spellings.add(recipients[at]!.raw).add(recipients[at]!.address);
    }
    this.#spelled = recipients.length;
    return this.#spellings.has(text);
  }

  get #layers(): readonly FilterChanges[] {
    return this.#owner.changesOf(this.#received);
  }

  get #change(): FilterChanges {
    return this.#owner.change(this.#received);
  }

  #list(): HeaderList {
    this.#headers ??= new Layered(this.#received, HEADERS);
    return this.#headers.under(this.#layers);
  }

  #changeHeader(change: HeaderChange): void {
    this.#change.headers.push(change);
  }

  /** Only events that some handler reads are asked for; a change to headers that never come would be lost in silence. */
  #requireHeaders(method: string): void {
    if (this.#owner.hasHeaders) return;
    throw new UsageError(
      "PMILTER_ERR_NOT_HERE",
      `${method} needs the headers, and no filter has a handler that has them sent: add one at eoh or eom`,
    );
  }

  #require(action: ActionName, method: string): void {
    if ((this.#owner.actions & ACTION[action]) === 0) {
      throw new UsageError(
        "PMILTER_ERR_NOT_GRANTED",
        `${method} needs the action ${action}, which the mail server did not grant`,
      );
    }
  }
}

/** The results of a message, as a filter reads and sets them. */
function resultsOf(received: ReceivedMessage, owner: ViewOwner): Results {
  return {
    get: (name) => received.results?.get(name, owner.filter),
    set(name, value) {
      owner.checkOpen(received);
      received.results ??= new MessageResults();
      received.results.set(name, value, owner.filter);
    },
  };
}

/** @returns the value as it is sent */
function checkNewHeader(name: string, value: string): string {
  checkHeaderName(name);
  const checked = checkHeaderValue(value);
  checkHeaderSize(name, ` ${checked}`);
  return checked;
}

/** The sender that the changes of some filters give a message; null if it is the sender that the message has. */
export function senderUnder(received: ReceivedMessage, layers: readonly FilterChanges[]): FilterChanges["sender"] {
  const given = layers.findLast(({ sender }) => sender !== null)?.sender ?? null;
  return given !== null && received.hasSender && isSame(given, received.sender) ? null : given;
}

/** The headers of a message under the changes of some filters. */
export function headersUnder(received: ReceivedMessage, layers: readonly FilterChanges[]): HeaderList {
  return new Layered(received, HEADERS).under(layers);
}

/** The recipients of a message under the changes of some filters. */
export function recipientsUnder(received: ReceivedMessage, layers: readonly FilterChanges[]): RecipientList {
  return new Layered(received, RECIPIENTS).under(layers);
}
