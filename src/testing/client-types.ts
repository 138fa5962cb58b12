/** The types of the arguments and results of `MilterClient`. */
import type { FinalReply, ModificationReply } from "../protocol/replies.ts";
import type { ClientInfo, ConnectionFacts } from "./address.ts";
import type { EventPhase, Habit, Offer } from "./habits.ts";
import type { Macros } from "./macros.ts";
import type { Negotiated } from "./negotiation.ts";
import type { Modification } from "./outcome.ts";

export interface ClientOptions {
  /** The mail server whose habits the client has. */
  readonly as: Habit;
  /** The offer, by default version 6 with all flags; the masks default to those that both servers offer for `version`. */
  readonly offer?: Partial<Offer> | undefined;
  /** For connecting, and for each wait for a reply, in milliseconds; PROGRESS restarts it. Default 10000. */
  readonly timeoutMs?: number | undefined;
  /** Macros that override the derived macros or are added to them; see `MilterClient.macros`. */
  readonly macros?: Macros | undefined;
}

/** There is no reply: the event was sent and the filter had negotiated not to answer, or it was not sent at all. */
export interface NoReply {
  readonly kind: "none";
  /**
   * False: not sent, since the filter had switched it off (NO*), had skipped it, or had ended its part of the message
   * or connection. True: sent, with NR_* in force.
   */
  readonly sent: boolean;
}

export type EventReply = FinalReply | NoReply;

/** The reply to the end of the message, with the modifications before it. */
export type EomReply = EventReply & {
  /** In the words of handlers. */
  readonly modifications: readonly Modification[];
  /** The same as it was on the wire. */
  readonly received: readonly ModificationReply[];
};

/** A recipient that the mail server refuses itself; filters with RCPT_REJ are told. */
export interface Refusal {
  /** Enhanced status code, `5.1.1`. */
  readonly status: string;
  readonly text: string;
}

/** The events of a `MilterClient`, each sent by a call of its own. */
export interface EventClient {
  readonly habit: Habit;
  macros: Macros;
  readonly negotiated: Negotiated | undefined;
  readonly progress: ReadonlyMap<EventPhase, number>;
  readonly connection: ConnectionFacts | undefined;
  readonly heloName: string | undefined;
  readonly connectionVerdict: FinalReply | undefined;
  negotiate(): Promise<Negotiated>;
  connect(client?: ClientInfo): Promise<EventReply>;
  helo(hostname: string): Promise<EventReply>;
  envfrom(sender: string, params?: readonly string[]): Promise<EventReply>;
  envrcpt(recipient: string, params?: readonly string[], refusal?: Refusal): Promise<EventReply>;
  data(): Promise<EventReply>;
  header(name: string, value: string): Promise<EventReply>;
  eoh(): Promise<EventReply>;
  body(body: Uint8Array): Promise<EventReply>;
  eom(lastPiece?: Uint8Array): Promise<EomReply>;
  abort(): Promise<NoReply>;
  quitNc(): Promise<NoReply>;
}
