/** The types for authors of handlers: the session as each phase has it, the message, handlers, filters. */
import type { MacroStage } from "../protocol/negotiate.ts";
import type { Phase, VerdictOf } from "../protocol/phases.ts";
import type { Client } from "../protocol/client.ts";
import type { Verdict } from "./verdict.ts";

/** The result of a handler: nothing to continue, or a verdict that its phase has. */
export type Result<P extends Phase> = Verdict<VerdictOf<P>> | undefined | void;

/** An address of the envelope. */
export interface Address {
  /** As sent, angle brackets included. */
  readonly raw: string;
  /** Without brackets; `""` for the null sender. */
  readonly address: string;
  /** The ESMTP arguments, such as `SIZE=1234`. */
  readonly params: readonly string[];
}

/** A header field; the value comes without the space that follows the colon, folded lines are separated by LF. */
export interface Header {
  readonly name: string;
  readonly value: string;
}

/** The headers so far, in order, with the changes so far. Names match in any case. */
export interface Headers extends Iterable<Header> {
  readonly length: number;
  /** The value of the first header of that name, undefined if there is none. */
  get(name: string): string | undefined;
  /** The values of all headers of that name, in order. */
  getAll(name: string): string[];
}

export interface Tls {
  /** `TLSv1.3`; `""` without TLS, as all of these. */
  readonly version: string;
  readonly cipher: string;
  /** Bits of the cipher, as the mail server writes them. */
  readonly cipherBits: string;
  readonly certSubject: string;
  readonly certIssuer: string;
}

export interface Auth {
  /** SASL mechanism; `""` without authentication. */
  readonly type: string;
  /** SASL login name. */
  readonly authen: string;
  /** The MAIL command's AUTH= sender. */
  readonly author: string;
}

/** Where the macros of a session are looked up. */
export interface MacroLookup {
  /** The value of a macro, such as `i` or `{auth_type}`; the latest phase that brought it wins. */
  get(name: string): string | undefined;
}

/**
 * Changes to a message: kept, visible to later reads, and sent at `eom`; dropped if the message is refused or
 * discarded. Each throws UsageError PMILTER_ERR_NOT_GRANTED if the mail server did not grant it, and
 * PMILTER_ERR_ARGUMENT for a value that cannot be sent, or would not arrive as it is written.
 */
export interface Changes {
  /** Adds a header at the end of the block (`smfi_addheader`). */
  addHeader(name: string, value: string): void;
  /** Inserts a header before the header at `index`, 0 for the top; a later call goes above (`smfi_insheader`). */
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

interface FromEnvelope {
  readonly sender: Address;
  /** Accepted recipients; at `envrcpt` the current recipient is the last. */
  readonly recipients: readonly Address[];
}
interface FromHeader extends FromEnvelope {
  /** The headers, at `header` including the current header. */
  readonly headers: Headers;
}
interface AtEnd extends FromHeader {
  /** When the end of the message came. */
  readonly receivedAt: Date;
  /** The whole body, with CRLF line ends. Needs `collectBody: true` in the filter. */
  body(): Uint8Array;
}

/** The message, as each phase has it. */
export type Message<P extends Phase = "envfrom"> = P extends "eom"
  ? AtEnd & Changes
  : P extends "header" | "eoh" | "body"
    ? FromHeader & Changes
    : P extends "abort"
      ? FromHeader
      : P extends "envfrom" | "envrcpt" | "data"
        ? FromEnvelope & Changes
        : never;

interface Everywhere<P extends Phase, S, O> {
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
  /** An object of this session and filter, empty at `connect`. */
  readonly state: S;
  /** `[filter.options]`. */
  readonly options: O;
}
interface FromHelo {
  /** The name that the client gave in HELO or EHLO. */
  readonly helo: string;
  readonly tls: Tls;
}
interface FromMail<P extends Phase> extends FromHelo {
  readonly auth: Auth;
  readonly message: Message<P>;
}

/** Values of a handler's own, by name. */
export type State = Record<string, unknown>;

/**
 * An SMTP connection, as a phase has it; plain `Session` has only the members that every phase has.
 * @template S the type of `state`, O of `options`
 */
export type Session<P extends Phase = Phase, S = State, O = State> = [Phase] extends [P]
  ? Everywhere<Phase, S, O>
  : P extends "connect" | "unknown"
    ? Everywhere<P, S, O>
    : P extends "helo" | "close"
      ? Everywhere<P, S, O> & FromHelo
      : Everywhere<P, S, O> & FromMail<P>;

/** The arguments of a phase's handler besides the session. */
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
export type Handler<P extends Phase, S = State, O = State> = (
  session: Session<P, S, O>,
  ...rest: PhaseArguments[P]
) => Result<P> | Promise<Result<P>>;

/** A filter: handlers for any of the phases, and their needs. Written with `defineFilter`. */
export type Filter<S = State, O = State> = {
  [P in Phase]?: (session: Session<P, S, O>, ...rest: PhaseArguments[P]) => Result<P> | Promise<Result<P>>;
} & {
  /** Its name in logs; by default that of the file. */
  name?: string;
  /** Collect the body, for `message.body()` at `eom`; bounded by `limits.body`. */
  collectBody?: boolean;
  /** Also call `envrcpt` for recipients that the mail server rejects itself; its result then changes nothing. */
  rejectedRecipients?: boolean;
  /** Macros to ask for beyond both servers' defaults, by phase. */
  macros?: Partial<Record<MacroPhase, readonly string[]>>;
  /**
   * Awaited in each worker before it takes sessions: the place to check options, and to open files and connections.
   */
  start?(options: O, home: FilterHome): void | Promise<void>;
  /** Awaited in each worker when it ends. */
  stop?(): void | Promise<void>;
};

/** Where a filter lives. */
export interface FilterHome {
  /** The folder of the configuration file: paths in `[filter.options]` are best taken as relative to it. */
  readonly folder: string;
  /** `pmilter check` runs it: nothing will be served, so write and send nothing. */
  readonly isCheck: boolean;
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
