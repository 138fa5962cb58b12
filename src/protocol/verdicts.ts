/**
 * The verdicts: one table from a verdict's kind to its packet and to its counter. The log and the configuration name a
 * verdict by its kind. Which phase has which verdicts is in `phases.ts`.
 */
import { PLAIN_REPLIES } from "./encode.ts";

/**
 * A verdict that a handler can return.
 * @example const counts = new Map<VerdictKind, number>();
 */
export type VerdictKind = "accept" | "reject" | "tempfail" | "discard" | "skip";

interface VerdictInfo {
  /** The reply without a text of its own, a whole packet. */
  readonly packet: Uint8Array;
  /** The counter of messages with this verdict (`src/counters.ts`); null for a verdict that does not end a message. */
  readonly counter: string | null;
}

export const VERDICTS = {
  /** No handler objects: at its end the message is accepted. A handler says so by returning nothing. */
  continue: { packet: PLAIN_REPLIES.CONTINUE, counter: "accepted" },
  accept: { packet: PLAIN_REPLIES.ACCEPT, counter: "accepted" },
  reject: { packet: PLAIN_REPLIES.REJECT, counter: "rejected" },
  tempfail: { packet: PLAIN_REPLIES.TEMPFAIL, counter: "tempfailed" },
  discard: { packet: PLAIN_REPLIES.DISCARD, counter: "discarded" },
  skip: { packet: PLAIN_REPLIES.SKIP, counter: null },
} as const satisfies Readonly<Record<VerdictKind | "continue", VerdictInfo>>;

export function isVerdictKind(kind: string): kind is VerdictKind {
  return kind !== "continue" && Object.hasOwn(VERDICTS, kind);
}

export const VERDICT_KINDS: readonly VerdictKind[] = Object.keys(VERDICTS).filter(isVerdictKind);
