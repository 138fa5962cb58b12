/** The types for authors of handlers: the session as each phase has it, the message, handlers, filters. */
import type { Dns } from "../dns/types.ts";
import type { JsonValue } from "../json.ts";
import type { HeaderAddress } from "../mime/addresses.ts";
import type { Mime } from "../mime/types.ts";
import type { MacroStage } from "../protocol/negotiate.ts";
import type { Phase, VerdictOf } from "../protocol/phases.ts";
import type { Store } from "../store/types.ts";
import type { Client } from "../protocol/client.ts";
import type { ReplyText } from "../protocol/reply-text.ts";
import type { Verdict } from "./verdict.ts";

/**
 * The result of a handler: nothing to continue, or a verdict that its phase has.
 * @example const judge = (score: number): Result<"eom"> => (score > 5 ? reject() : undefined);
 */
export type Result<P extends Phase> = Verdict<VerdictOf<P>> | undefined | void;

/**
 * An address of the envelope. A client chooses its spelling: `<@relay.test:"jane"@EXAMPLE.org.>` and `<jane@example.org>`
 * are one mailbox. Compare `mailbox` or `domain`, not `raw` and `address`.
 * @example if (message.sender.domain === "example.org") return accept();
 */
export interface Address {
  /** As sent, angle brackets included. */
  readonly raw: string;
  /** Without brackets; `""` for the null sender. */
  readonly address: string;
  /** The local part without quotes and backslashes, in the case of the client; `""` for the null sender. */
  readonly local: string;
  /**
   * The domain in lower case and A-labels, without a dot at its end; an address literal as `[192.0.2.1]` or
   * `[ipv6:2001:db8::1]`. `""` if there is none: for the null sender, and for `<postmaster>`.
   */
  readonly domain: string;
  /**
   * The same text for all spellings of a mailbox: `local@domain` without brackets, source route and needless quotes;
   * `local` if there is no domain, `""` for the null sender.
   */
  readonly mailbox: string;
  /** The ESMTP arguments, such as `SIZE=1234`. */
  readonly params: readonly string[];
}

/**
 * A header field as it was when it was read. The object names the header for `changeHeader`, `deleteHeader`,
 * `insertBefore` and `insertAfter`, also in a later phase and after other changes; it does not show later changes itself.
 * @example for (const { name, text } of message.headers) console.log(`${name}: ${text}`);
 */
export interface Header {
  readonly name: string;
  /** Without the space that follows the colon; folded lines are separated by LF. */
  readonly value: string;
  /**
   * The text that people see: one line, encoded words decoded (RFC 2047), without white space at its ends. Bytes that are no
   * UTF-8 are as in `value`, encoded words that cannot be decoded stay as they are. Nothing throws.
   */
  readonly text: string;
  /**
   * The bytes behind the colon, white space included, without the line end at the end; folded lines are separated by LF. A
   * copy. They are the client's bytes if the mail server grants HDR_LEADSPC, as Postfix and Sendmail do; else it has taken
   * away a space, and one is put back. Of a changed or added header: the bytes that will be sent.
   */
  readonly bytes: Uint8Array;
}

/**
 * The headers so far, in order, with the changes so far. Names match in any case.
 * @example const subject = message.headers.text("Subject") ?? "";
 */
export interface Headers extends Iterable<Header> {
  readonly length: number;
  /** The value of the first header of that name, undefined if there is none. */
  get(name: string): string | undefined;
  /** The values of all headers of that name, in order. */
  getAll(name: string): string[];
  /** The text of the first header of that name (see `Header.text`), undefined if there is none. */
  text(name: string): string | undefined;
  /**
   * The addresses of all headers of that name, in order, groups flattened: at most 2,000, from at most 64 KB. Nothing
   * throws: a broken value gives what can be read of it.
   * @example const isForged = message.headers.addresses("From").some(({ domain }) => domain === "example.org");
   */
  addresses(name: string): HeaderAddress[];
  /** The first header of that name, undefined if there is none. */
  first(name: string): Header | undefined;
  /** All headers of that name, in order. */
  all(name: string): Header[];
  /** The header at `index`, from 0; a negative index counts from the end. At `header`, -1 is the header at hand. */
  at(index: number): Header | undefined;
}

/**
 * The TLS connection of the client, from the mail server's macros.
 * @example if (session.tls.version === "") return reject("530 5.7.0 Use TLS");
 */
export interface Tls {
  /** `TLSv1.3`; `""` without TLS, as all of these. */
  readonly version: string;
  readonly cipher: string;
  /** Bits of the cipher, as the mail server writes them. */
  readonly cipherBits: string;
  readonly certSubject: string;
  readonly certIssuer: string;
}

/**
 * The client's authentication, from the mail server's macros.
 * @example const isOurUser = ({ authen }: Auth) => authen.endsWith("@example.org");
 */
export interface Auth {
  /** SASL mechanism; `""` without authentication. */
  readonly type: string;
  /** SASL login name. */
  readonly authen: string;
  /** The MAIL command's AUTH= sender. */
  readonly author: string;
}

/**
 * Where the macros of a session are looked up.
 * @example const size = session.macros.get("{msg_size}");
 */
export interface MacroLookup {
  /** The value of a macro, such as `i` or `{auth_type}`; the latest phase that brought it wins. */
  get(name: string): string | undefined;
}

/**
 * Changes to a message: kept, visible to later reads, and sent at `eom`; dropped if the message is refused or
 * discarded. Each throws UsageError PMILTER_ERR_NOT_GRANTED if the mail server did not grant it, and
 * PMILTER_ERR_ARGUMENT for a value that cannot be sent, or would not arrive as it is written. A change that changes
 * nothing sends nothing.
 * @example message.addHeader("X-Checked", "yes");
 */
export interface Changes {
  /** Adds a header at the end of the block (`smfi_addheader`). */
  addHeader(name: string, value: string): void;
  /**
   * Inserts a header before the header at `index`; 0 is the top, above the mail server's own Received; a later call goes
   * above (`smfi_insheader`).
   */
  insertHeader(index: number, name: string, value: string): void;
  /**
   * Changes the `index`th header of that name, from 1. Past the last of them it is added; `""` deletes; its present
   * value changes nothing (`smfi_chgheader`).
   */
  changeHeader(name: string, value: string, index?: number): void;
  /** Deletes the `index`th header of that name, from 1; without an index all, those still to come included. */
  deleteHeader(name: string, index?: number): void;
  /** Changes the sender; `""` is the null sender (`smfi_chgfrom`). */
  changeFrom(address: string, params?: readonly string[]): void;
  /** Adds a recipient, if the message does not have that mailbox (`smfi_addrcpt`, `smfi_addrcpt_par`). */
  addRecipient(address: string, params?: readonly string[]): void;
  /** Removes a recipient: the mailbox, however the client spelled it (`smfi_delrcpt`). */
  deleteRecipient(address: string): void;
  /** Replaces the body; LF becomes CRLF, in text a lone CR too (`smfi_replacebody`). */
  replaceBody(body: string | Uint8Array): void;
  /** Has the mail server hold the message for inspection (`smfi_quarantine`). */
  quarantine(reason: string): void;
}

/**
 * Changes by a header itself: an object that `message.headers` gave, in this phase or an earlier one. Each throws
 * UsageError PMILTER_ERR_OVER for a header of another message, and PMILTER_ERR_ARGUMENT for a value that is no header, or
 * that this filter does not see: a later filter added it, or the filter that added it has failed.
 * @example for (const header of message.headers.all("X-Spam-Flag")) message.deleteHeader(header);
 */
export interface ChangesByHeader {
  /**
   * Changes a header; `""` deletes it, its present value changes nothing. Throws PMILTER_ERR_ARGUMENT if the header was
   * deleted.
   * @example const subject = message.headers.first("Subject");
   * if (subject !== undefined) message.changeHeader(subject, `[list] ${subject.value}`);
   */
  changeHeader(header: Header, value: string): void;
  /**
   * Deletes a header; if it was deleted already, nothing happens.
   * @example for (const header of message.headers) if (header.name.startsWith("X-Spam-")) message.deleteHeader(header);
   */
  deleteHeader(header: Header): void;
  /**
   * Inserts a header directly above another one, or where that one was deleted. Above the first header that the mail
   * server shows, it comes below the mail server's own Received.
   * @example message.insertBefore(message.headers.first("From")!, "Sender", "<list@example.org>");
   */
  insertBefore(header: Header, name: string, value: string): void;
  /**
   * Inserts a header directly below another one, or where that one was deleted.
   * @example message.insertAfter(message.headers.at(0)!, "X-Checked", "yes");
   */
  insertAfter(header: Header, name: string, value: string): void;
}

/**
 * Options of `rawHeaders` and `raw`.
 * @example scanner.write(message.rawHeaders({ withReceived: true }));
 */
export interface RawOptions {
  /**
   * Puts a Received field on top, made from the session. Both mail servers hide their own, and a program that is given the
   * message, such as a scanner, learns the client's address and name from it. Default false.
   */
  readonly withReceived?: boolean;
}

/**
 * Values that the filters of the chain leave for later ones, and for the record of the message, by name. The value that
 * was set last counts; the values of a filter that fails do not, and those of a filter in observe mode count for itself
 * alone. At most 50 in a message, each with at most 16 KB as JSON.
 * @example message.results.set("spf", { result: "pass", domain: message.sender.domain });
 */
export interface Results {
  /** The value of that name, frozen; undefined if there is none. */
  get(name: string): JsonValue | undefined;
  /**
   * @param name letters, digits and `.`, `_`, `-`, at most 64
   * @throws UsageError PMILTER_ERR_ARGUMENT for a value that is not JSON or over the bounds, PMILTER_ERR_OVER if the
   *   message is over
   */
  set(name: string, value: JsonValue): void;
}

interface FromEnvelope<M> {
  readonly sender: Address;
  /** Accepted recipients; at `envrcpt` the current recipient is the last. */
  readonly recipients: readonly Address[];
  /** An object of this message and filter: what `messageState()` returns, else empty; new at `envfrom`. */
  readonly state: M;
  readonly results: Results;
}
interface FromHeader<M> extends FromEnvelope<M> {
  /** The headers, at `header` including the current header. */
  readonly headers: Headers;
}
interface FromEoh<M> extends FromHeader<M> {
  /**
   * The header block as bytes: the fields as the mail server shows them, with the changes so far, each with its CRLF; lines
   * of folded fields end with CRLF, too. Without the empty line that follows. A new array each time.
   * @example const signed = Buffer.concat([message.rawHeaders(), Buffer.from("\r\n"), message.body()]);
   */
  rawHeaders(options?: RawOptions): Uint8Array;
}
interface AtEnd<M, Over> extends FromEoh<M> {
  /** When the end of the message came. */
  readonly receivedAt: Date;
  /**
   * The whole body, with CRLF line ends. Needs `collectBody` in the filter. Valid until the message ends: a body of more than
   * 1 MB is empty afterwards. The later filters read the same memory: give a thread a copy, and do not transfer it.
   */
  body(): "skip" extends Over ? Uint8Array | null : Uint8Array;
  /**
   * The whole message as bytes, as the mail server shows it, with the changes of earlier filters and this one: `rawHeaders`,
   * an empty line, and `body`. Needs `collectBody` in the filter. Like the body, it is valid until the message ends: bytes
   * that are kept longer are to be copied.
   * @example const verdict = await scan(message.raw({ withReceived: true }));
   */
  raw(options?: RawOptions): "skip" extends Over ? Uint8Array | null : Uint8Array;
  /**
   * The parts of the message, with the changes of earlier filters and this one. Needs `collectBody` in the filter. The same
   * object each time, until the body or a Content-* header of the message is changed by other means. Like the body, it is
   * valid until the message ends.
   * @example const names = message.mime().attachments.map(({ filename }) => filename);
   */
  mime(): "skip" extends Over ? Mime | null : Mime;
}

/**
 * What happens to a message whose body is larger than a filter collects.
 * @example defineFilter({ collectBody: { max: "10MB", over: "skip" }, … })
 */
export type OverBody = "reject" | "skip" | "fallback";

/**
 * How a filter collects bodies.
 * @example defineFilter({ collectBody: { max: "1MB", over: "fallback" }, eom: ({ message }) => judge(message.body()) });
 */
export interface CollectBody<Over extends OverBody = OverBody> {
  /**
   * The largest body: bytes, or text such as `"64KB"`, `"10MB"`, `"1GB"` (1 KB is 1,024 bytes). At most `limits.body`, which
   * is the default.
   */
  readonly max?: number | string;
  /**
   * What happens to a message with a larger body. `reject`, the default: it is refused with `552 5.3.4`. `skip`: the filter
   * goes on, and `message.body()`, `raw()` and `mime()` are null. `fallback`: it gets the filter's `on_error`.
   */
  readonly over?: Over;
}

/**
 * The message, as each phase has it.
 * @example const mark = (message: Message<"eom">) => message.addHeader("X-Checked", "yes");
 * @template M the type of `state`, Over of `collectBody.over`
 */
export type Message<P extends Phase = "envfrom", M = State, Over extends OverBody = "reject"> = P extends "eom"
  ? AtEnd<M, Over> & Changes & ChangesByHeader
  : P extends "eoh" | "body"
    ? FromEoh<M> & Changes & ChangesByHeader
    : P extends "header"
      ? FromHeader<M> & Changes & ChangesByHeader
      : P extends "abort"
        ? FromHeader<M>
        : P extends "envfrom" | "envrcpt" | "data"
          ? FromEnvelope<M> & Changes
          : never;

/** The phase of a call: that of a handler, or `outcome`, after the end of a message. */
export type CallPhase = Phase | "outcome";

interface Everywhere<P extends CallPhase, S, O, Own> {
  /** The SMTP client. */
  readonly client: Client;
  /** The macro `{daemon_name}`. */
  readonly daemonName: string;
  /** The macro `j`. */
  readonly myHostname: string;
  /** The macro `i`; Postfix has it from `data` on, Sendmail from `envfrom` on. */
  readonly queueId: string;
  readonly phase: P;
  readonly macros: MacroLookup;
  /** An object of this session and filter, new at `connect`: what the filter's `state()` returns, else empty. */
  readonly state: S;
  /** `[filter.options]`. */
  readonly options: O;
  /** What this filter's `start()` returned in this worker; each `[[filter]]` table has its own. */
  readonly own: Own;
  /** True in `pmilter try`: write nothing, send nothing, ask no service that charges. */
  readonly trial: boolean;
  /**
   * The mail server made this session up for mail that did not come by SMTP, such as that of Postfix's `sendmail`
   * command. False behind Sendmail, which does not tell.
   */
  readonly isLocal: boolean;
  /**
   * Aborts once nothing waits for this call any more: its time is over (`TimeoutError`), the mail server has aborted the
   * message, or the connection is gone (`AbortError`). Each call has its own: read it before the first `await`.
   */
  readonly signal: AbortSignal;
  /** Questions to the DNS; they end with this call. */
  readonly dns: Dns;
  /** What this filter remembers, in all workers and after a restart. */
  readonly store: Store;
  /** Writes a line to the log, with the queue id, the client, the filter, the phase, and file and line of the call. */
  readonly log: Log;
}

/**
 * Logs at `info`; `warn`, `error` and `debug` log at theirs. `server.log_level` decides which are written. Values are
 * escaped, and a line is cut at 1 KB; it never throws. The first 20 lines of a message are notes of its record.
 * @example session.log.warn("the list does not answer", { zone, ms });
 */
export interface Log {
  (text: string, fields?: LogFields): void;
  debug(text: string, fields?: LogFields): void;
  warn(text: string, fields?: LogFields): void;
  error(text: string, fields?: LogFields): void;
}

/**
 * Values by name; those that are undefined are left out, objects are written as JSON.
 * @example session.log("looked up", { zone: "zen.example", ms: 12, codes: ["127.0.0.2"] });
 */
export type LogFields = Readonly<Record<string, unknown>>;

interface FromHelo {
  /** The name that the client gave in HELO or EHLO. */
  readonly helo: string;
  readonly tls: Tls;
}
interface FromMail<P extends Phase, M, Over extends OverBody> extends FromHelo {
  readonly auth: Auth;
  readonly message: Message<P, M, Over>;
}

/**
 * Values of a handler's own, by name.
 * @example session.state["greeted"] = true;
 */
export type State = Record<string, unknown>;

/**
 * An SMTP connection, as a phase has it; plain `Session` has only the members that every phase has.
 * @example export default function connect(session: Session<"connect">) { session.log(session.client.address); }
 * @template S the type of `state`, O of `options`, Own of `own`, M of `message.state`, Over of `collectBody.over`:
 *   with `"skip"` in it, `message.body()` may be null
 */
export type Session<
  P extends Phase = Phase,
  S = State,
  O = State,
  Own = unknown,
  M = State,
  Over extends OverBody = "reject",
> = [Phase] extends [P]
  ? Everywhere<Phase, S, O, Own>
  : P extends "connect" | "unknown"
    ? Everywhere<P, S, O, Own>
    : P extends "helo" | "close"
      ? Everywhere<P, S, O, Own> & FromHelo
      : Everywhere<P, S, O, Own> & FromMail<P, M, Over>;

/**
 * The message in `outcome`: as it ended, with the changes that were sent. It is only to be read.
 * @example const subject = (message: EndedMessageView) => message.headers.text("Subject") ?? "";
 */
export interface EndedMessageView<M = State> extends Omit<FromHeader<M>, "results"> {
  readonly results: Pick<Results, "get">;
}

/**
 * The session in `outcome`, with the values that it had when the message ended.
 * @example const report = (session: OutcomeSession, { verdict }: MessageOutcome) => session.log(verdict);
 * @template S the type of `state`, O of `options`, Own of `own`, M of `message.state`
 */
export interface OutcomeSession<S = State, O = State, Own = unknown, M = State>
  extends Everywhere<"outcome", S, O, Own>, FromHelo {
  readonly auth: Auth;
  readonly message: EndedMessageView<M>;
}

/**
 * The verdict of the whole chain on a message; `aborted`: the client gave it up before it had one.
 * @example const counts: Partial<Record<OutcomeVerdict, number>> = {};
 */
export type OutcomeVerdict = "accept" | "reject" | "tempfail" | "discard" | "quarantine" | "aborted";

/**
 * What became of a recipient.
 * @example const isRefused = ({ verdict }: RecipientVerdict) => verdict === "reject" || verdict === "tempfail";
 */
export interface RecipientVerdict {
  /** Without brackets. */
  readonly address: string;
  /** Its own, if it was refused; else that of the message. */
  readonly verdict: OutcomeVerdict;
}

/**
 * What pmilter answered about a message, for all filters together. What the mail server did afterwards is not known.
 * @example
 * outcome(session, { verdict, recipients }) {
 *   const refused = recipients.filter((recipient) => recipient.verdict !== "accept");
 *   session.log(verdict, { refused: refused.length });
 * }
 */
export interface MessageOutcome {
  readonly verdict: OutcomeVerdict;
  /** The SMTP reply that a filter gave with its verdict; null for the mail server's own words. */
  readonly reply: ReplyText | null;
  /** The filter that decided; null for a message that all let pass, for a limit, and for `aborted`. */
  readonly filter: string | null;
  /** In the order of RCPT: those that were accepted, and of those that filters refused the first 1,000. */
  readonly recipients: readonly RecipientVerdict[];
  /** How many changes were sent. */
  readonly changes: number;
}

/**
 * The arguments of a phase's handler besides the session.
 * @example const onHeader = (...[name, value]: PhaseArguments["header"]) => console.log(name, value);
 */
export interface PhaseArguments {
  connect: [];
  helo: [hostname: string];
  envfrom: [sender: string, params: readonly string[]];
  envrcpt: [recipient: string, params: readonly string[]];
  data: [];
  header: [name: string, value: string];
  eoh: [];
  /** The chunk is valid until the handler settles: copy bytes that you keep longer. */
  body: [chunk: Uint8Array];
  eom: [];
  unknown: [command: string];
  abort: [];
  close: [];
}

/**
 * A handler of a phase, for `satisfies`.
 * @example export default ((session) => reject()) satisfies Handler<"connect">;
 */
export type Handler<
  P extends Phase,
  S = State,
  O = State,
  Own = unknown,
  M = State,
  Over extends OverBody = "reject",
> = (session: Session<P, S, O, Own, M, Over>, ...rest: PhaseArguments[P]) => Result<P> | Promise<Result<P>>;

/**
 * A schema for options: any that follows Standard Schema 1 (https://standardschema.dev), such as those of
 * `pmilter/options`, Valibot, Zod and ArkType.
 * @example const options: OptionsSchema<{ limit: number }> = table({ limit: optional(number(), 10) });
 * @template O the type of the checked options
 */
export interface OptionsSchema<O = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => CheckedOptions<O> | Promise<CheckedOptions<O>>;
    readonly types?: { readonly input: unknown; readonly output: O } | undefined;
  };
}

/** The result of a schema: the options, or what is wrong with them. */
export type CheckedOptions<O> =
  { readonly value: O; readonly issues?: undefined } | { readonly issues: readonly OptionsIssue[] };

export interface OptionsIssue {
  readonly message: string;
  /** Where in the options. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/**
 * A filter: handlers for any of the phases, and their needs. Written with `defineFilter`.
 * @example const filters: readonly Filter[] = [defineFilter({ connect: () => accept() })];
 * @template S the type of `session.state`, O of `session.options`, Own of `session.own`, M of `message.state`, Over of
 *   `collectBody.over`
 */
export type Filter<S = State, O = State, Own = unknown, M = State, Over extends OverBody = "reject"> = {
  // A method's type: a function that asks for a plain `Filter` takes filters of all types.
  [P in Phase]?: { call(...all: Parameters<Handler<P, S, O, Own, M, Over>>): ReturnType<Handler<P>> }["call"];
} & FilterMembers<S, O, Own, M, Over>;

/** A filter of any types. */
export type AnyFilter = Filter<unknown, unknown, unknown, unknown, OverBody>;

/** A filter as it is written: a handler whose session has a written type does not widen the types that `start` and others give. */
export type FilterDefinition<S, O, Own, M, Over extends OverBody> = {
  [P in Phase]?: Handler<P, S, O, NoInfer<Own>, NoInfer<M>, NoInfer<Over>>;
} & FilterMembers<S, O, Own, M, Over>;

/** What a filter has besides its handlers. */
export interface FilterMembers<S, O, Own, M, Over extends OverBody> {
  /** Its name in logs; by default that of the file. */
  name?: string;
  /**
   * Collect the body, for `message.body()` at `eom`. `true` collects up to `limits.body` and rejects a message with a
   * larger body.
   */
  collectBody?: boolean | CollectBody<Over>;
  /** Also call `envrcpt` for recipients that the mail server rejects itself; its result then changes nothing. */
  rejectedRecipients?: boolean;
  /** Macros to ask for beyond both servers' defaults, by phase. */
  macros?: Partial<Record<MacroPhase, readonly string[]>>;
  /** Checks `[filter.options]` at load and in `pmilter check`; `session.options` is its result. */
  options?: OptionsSchema<O>;
  /**
   * What the filter has no use for with these options: phases whose handlers are not called then, and `"collectBody"`. It is
   * asked once for each load. `isTooEarly` says of a phase that the filter's conditions, `[filter.when]`, are not known
   * there: a handler that only prepares can be left out then, while any other makes the load fail.
   */
  leaveOut?(options: O, isTooEarly: (phase: Phase) => boolean): readonly (Phase | "collectBody")[];
  /** Makes `session.state`, when a handler of the session first reads it. */
  state?: () => S;
  /** Makes `session.message.state`, when a handler of the message first reads it. */
  messageState?: () => M;
  /**
   * Awaited in each worker before it takes sessions: the place to open files and connections. `session.own` is its
   * result; for that to have its type, write `start` before the handlers that use it.
   */
  start?(options: O, home: FilterHome): Own | Promise<Own>;
  /**
   * Called once for each message, after its end: also for messages that were refused, at a limit too, and aborted. It
   * decides nothing, has the time of `handler_timeout`, and runs beside the next message. Not called for connections that
   * were refused at `connect` or `helo`, for messages of a connection that this filter has accepted there, and for the
   * messages of a worker that is lost.
   */
  outcome?(session: OutcomeSession<S, O, NoInfer<Own>, NoInfer<M>>, outcome: MessageOutcome): void | Promise<void>;
  /** Awaited in each worker when it ends, with the result of `start`. */
  stop?(own: Own): void | Promise<void>;
}

/**
 * Where a filter lives.
 * @example start: (options, home) => openList(join(home.folder, options.list)),
 */
export interface FilterHome {
  /** The folder of the configuration file: paths in `[filter.options]` are best taken as relative to it. */
  readonly folder: string;
  /** `pmilter check` runs it: nothing will be served, so write and send nothing. */
  readonly isCheck: boolean;
  /** As `session.store`; in `check` and `try` a store in memory. */
  readonly store: Store;
  /** As `session.dns`. */
  readonly dns: Dns;
}

/** The phases that macros can be asked for. */
export type MacroPhase = "connect" | "helo" | "envfrom" | "envrcpt" | "data" | "eoh" | "eom";

/** The protocol's name for a phase's macro stage. */
export const MACRO_STAGES: Readonly<Record<MacroPhase, MacroStage>> = {
  connect: "CONNECT",
  helo: "HELO",
  envfrom: "MAIL",
  envrcpt: "RCPT",
  data: "DATA",
  eoh: "EOH",
  eom: "EOM",
};
