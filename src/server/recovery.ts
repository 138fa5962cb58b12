/**
 * How a session goes on whose worker is lost: stuck in a handler, dead, or ended for its memory. From the record that the
 * worker has left, and what the configuration says, to what the mail server is answered and how the next worker begins.
 * Pure: no socket is touched here.
 */
import { type Fallback, type Outcome, strictest } from "../handler/fallback.ts";
import type { PassedOver } from "../handler/conversation.ts";
import type { SlotRecord } from "../ledger.ts";
import { COMMAND, LENGTH_BYTES } from "../protocol/constants.ts";
import { PLAIN_REPLIES } from "../protocol/encode.ts";
import { isOfMessage, PHASES, PHASE_LIST } from "../protocol/phases.ts";
import type { State } from "../protocol/state.ts";
import type { ResumedSession } from "../worker/messages.ts";

/** Why a worker was lost: it did not return to its event loop, ended by itself, or held too much memory. */
export type LossCause = "blocked" | "died" | "memory";

export interface FilterPolicy {
  readonly onError: Fallback;
  readonly onTimeout: Fallback;
  readonly isObserved: boolean;
}

/** What the main thread knows of a session besides its record. */
export interface Circumstances {
  readonly cause: LossCause;
  /** The handler on record may be what the worker was lost to. */
  readonly isSuspect: boolean;
  readonly filters: readonly FilterPolicy[];
  /** From earlier losses: filters that failed in the packets which began the session. */
  readonly passedOver: readonly PassedOver[];
}

/** A decision as the wire has it, without a text of its own. */
export type PlainVerdict = Outcome | "accept" | "discard";

export type Recovery =
  /** The connection is to be ended. */
  | { readonly kind: "end"; readonly reason: string; readonly isFailure: boolean }
  | {
      readonly kind: "resume";
      /** To be written to the mail server at once: it waits for them. */
      readonly replies: Uint8Array;
      readonly session: ResumedSession;
      /** What was decided by it, null if nothing was under way, or what was is not new. */
      readonly verdict: {
        readonly scope: "message" | "connection";
        readonly outcome: PlainVerdict;
        /** False where the handlers had decided it, and it only remained to be given. */
        readonly isFallback: boolean;
      } | null;
    };

const NOTHING = new Uint8Array(0);
const PACKETS: Readonly<Record<PlainVerdict, Uint8Array>> = {
  tempfail: PLAIN_REPLIES.TEMPFAIL,
  reject: PLAIN_REPLIES.REJECT,
  continue: PLAIN_REPLIES.CONTINUE,
  accept: PLAIN_REPLIES.ACCEPT,
  discard: PLAIN_REPLIES.DISCARD,
};

/** The verdict behind a reply byte of the record, null for 0. */
function verdictOf(code: number): PlainVerdict | null {
  return (Object.keys(PACKETS) as PlainVerdict[]).find((verdict) => PACKETS[verdict][LENGTH_BYTES] === code) ?? null;
}

/** Commands of a message: one that was lost gets the message's verdict, whatever it said. */
const MESSAGE_COMMANDS: ReadonlySet<number> = new Set(PHASE_LIST.filter(isOfMessage).map((phase) => phase.command));

export function recover(record: SlotRecord, circumstances: Circumstances): Recovery {
  const { begun, call, due, firstOwed, owed, state } = record;
  if (record.isOver) return { kind: "end", reason: "its session was over", isFailure: false };
  if (record.isHalfSent) return end("a reply had left in part");
  if (record.version === 0 && owed > 0) return end("its negotiation was lost");

  const cut = record.hasAllBegun || begun.length === 0 ? null : (begun[LENGTH_BYTES] ?? 0);
  const isBeginningLost = record.isBeginningAhead || (cut === COMMAND.MACRO && isForBeginning(begun));
  // No verdict can be kept for a session whose CONNECT is still to come: that would begin it without what is lost.
  if (isBeginningLost && state === "idle" && owed === 0) return end("macros of its next session were lost");
  const filters = circumstances.filters.filter(({ isObserved }) => !isObserved);
  const fallbackOf = ({ onError, onTimeout }: FilterPolicy) => (circumstances.cause === "died" ? onError : onTimeout);
  const common = strictest(filters.map(fallbackOf));
  const culprit = circumstances.isSuspect && call !== null ? circumstances.filters[call.filter] : undefined;
  const own = culprit === undefined || culprit.isObserved ? null : fallbackOf(culprit);
  const standing = verdictOf(record.standing);
  let passedOver = record.isAnew ? [] : circumstances.passedOver;
  // What was decided on the connection stays so; asking its handlers again might decide otherwise.
  let connection: PlainVerdict | null = state === "refused" && !isBeginningLost ? standing : null;
  let message: PlainVerdict | null = null;
  let replies: PlainVerdict[] = [];
  let isNew = false;
  let answersContext = false;
  const anew = state === "refused" ? stricter(standing, common) : common;
  // The rest of a message that was decided without its mail server having been told, unless it is another's beginning.
  const isRest = state === "decided" && firstOwed !== COMMAND.MAIL;
  const withStanding = (fallback: Outcome) => (isRest ? stricter(standing, fallback) : fallback);

  const scope = call === null ? null : PHASES[call.phase].scope;
  const isOfConnection =
    call === null ? owed > 0 && (firstOwed === COMMAND.CONNECT || firstOwed === COMMAND.HELO) : scope === "connection";
  // The packets that began it were being worked on again, and had their replies before.
  const isBegun = record.isInContext && !record.answersContext;
  const held = isBegun && state === "decided" ? standing : null;
  // Of a call for the connection: replies to the commands behind it.
  const behind = isBegun ? owed : Math.max(0, owed - 1);
  if (connection !== null) {
    replies = fill(owed, connection);
  } else if (record.context === null || (isBeginningLost && !isOfConnection)) {
    // Without the packets that began it no handler can be asked again.
    connection = anew;
    isNew = true;
    replies = fill(owed, connection);
  } else if (
    isOfConnection &&
    call !== null &&
    !circumstances.isSuspect &&
    !isBeginningLost &&
    (isBegun || record.untaken === 0)
  ) {
    // It waited beside the one that failed: the next worker asks its handlers again, and answers.
    answersContext = owed > behind;
    if (behind > 0 || record.untaken > 0) {
      message = withStanding(common);
      isNew = message !== standing;
    } else message = held;
    replies = fill(behind, message ?? common);
  } else if (isOfConnection) {
    const lets = own === "accept" || own === "continue" || culprit?.isObserved === true || common === "continue";
    if (!lets || isBeginningLost) {
      connection = own === "reject" ? own : anew;
      isNew = true;
    } else if (call !== null && culprit !== undefined) {
      passedOver = [...passedOver, { filter: call.filter, isOver: own === "accept" }];
    }
    // Commands behind the one that was worked on are lost.
    if (connection === null && (behind > 0 || record.untaken > 0)) message = withStanding(common);
    else if (connection === null) message = held;
    const first = connection ?? "continue";
    replies = [...fill(owed - behind, first), ...fill(behind, message ?? first)];
    isNew ||= message !== null && message !== standing;
  } else {
    const isUnknown = call?.phase === "unknown" || (call === null && firstOwed === COMMAND.UNKNOWN);
    // The message, or the session, is over when these run.
    const isAfter = call?.phase === "abort" || call?.phase === "close";
    const isOpen =
      !isAfter && (state === "message" || state === "decided" || scope === "message" || scope === "recipient");
    const isLostCommand = record.untaken > 0 || owed > (isUnknown ? 1 : 0);
    const isCutMessage = cut !== null && MESSAGE_COMMANDS.has(cut) && cut !== COMMAND.MAIL;
    if (isOpen && standing !== null && !(state === "decided" && isLostCommand)) {
      message = standing;
      isNew = state === "message";
    } else if (isOpen || isLostCommand || isCutMessage) {
      message = withStanding(own === "tempfail" || own === "reject" ? own : common);
      isNew = true;
    }
    const first = isUnknown ? "continue" : (message ?? "continue");
    replies = [...fill(Math.min(owed, 1), first), ...fill(Math.max(0, owed - 1), message ?? "continue")];
  }

  // Who asked without the macros might let a message pass that they would have had refused.
  const areMacrosLost = record.hasMacrosAhead || (cut === COMMAND.MACRO && isForMessage(begun, state));
  const next = areMacrosLost && connection === null ? ((message === null ? standing : null) ?? common) : null;
  isNew ||= next !== null && message === null && standing === null;

  if (cut !== null) {
    const isHarmless = cut === COMMAND.MACRO || connection !== null || (message !== null && MESSAGE_COMMANDS.has(cut));
    if (!isHarmless || (cut === COMMAND.MAIL && connection === null) || due <= 0) {
      return end("a packet of it was lost in part");
    }
  }
  // Who is refused anyway is not asked about again: that may be what the worker was lost to.
  if (connection !== null) passedOver = circumstances.filters.map((_, filter) => ({ filter, isOver: false }));
  const outcome = connection ?? message;
  const verdict = outcome ?? next;
  const decidedScope = connection === null ? "message" : "connection";
  return {
    kind: "resume",
    replies: replies.length === 0 ? NOTHING : Buffer.concat(replies.map((verdict) => PACKETS[verdict])),
    session: {
      version: record.version,
      actions: record.actions,
      protocol: record.protocol,
      context: record.context ?? NOTHING,
      answersContext,
      waitedMs: record.waitedMs,
      ruling: outcome === null ? null : { scope: decidedScope, packet: PACKETS[outcome] },
      due: next === null || next === "continue" ? null : PACKETS[next],
      begun: cut === null ? begun : NOTHING,
      lost: cut === null ? null : { due, code: cut === COMMAND.MACRO ? 0 : cut },
      passedOver,
    },
    verdict:
      isNew && verdict !== null ? { scope: decidedScope, outcome: verdict, isFallback: verdict !== standing } : null,
  };
}

/** What holds where a verdict stands, and what it stands on was lost in part: the fallback may not let pass what it refused. */
function stricter(standing: PlainVerdict | null, fallback: Outcome): PlainVerdict {
  const isRefusal = standing === "tempfail" || standing === "reject" || standing === "discard";
  return isRefusal && fallback !== "tempfail" ? standing : fallback;
}

/** Whether the beginning of a MACRO packet is, or may be, of macros for another message than the one that is open. */
function isForMessage(begun: Uint8Array, state: State): boolean {
  const command = begun[LENGTH_BYTES + 1];
  if (state === "message") return command === undefined || command === COMMAND.MAIL;
  return !isForBeginning(begun) && command !== COMMAND.UNKNOWN;
}

/** Whether it is of macros for CONNECT or HELO. */
function isForBeginning(begun: Uint8Array): boolean {
  const command = begun[LENGTH_BYTES + 1];
  return command === COMMAND.CONNECT || command === COMMAND.HELO;
}

function fill(count: number, verdict: PlainVerdict): PlainVerdict[] {
  return new Array<PlainVerdict>(count).fill(verdict);
}

/** A session between messages that goes on elsewhere as it is: of a message that is decided the rest may be still to come. */
export function handOver(
  { actions, context, isAnew, protocol, standing, state, version }: SlotRecord,
  passedOver: readonly PassedOver[],
): ResumedSession {
  const verdict = state === "decided" ? verdictOf(standing) : null;
  return {
    version,
    actions,
    protocol,
    context: context ?? NOTHING,
    answersContext: false,
    waitedMs: 0,
    ruling: verdict === null ? null : { scope: "message", packet: PACKETS[verdict] },
    due: null,
    begun: NOTHING,
    lost: null,
    passedOver: isAnew ? [] : passedOver,
  };
}

/** A session that goes on in another generation: what failed were filters of the one before, which are others there. */
export function forOthers(session: ResumedSession | null): ResumedSession | null {
  return session === null || session.ruling?.scope === "connection" ? session : { ...session, passedOver: [] };
}

function end(reason: string): Recovery {
  return { kind: "end", reason, isFailure: true };
}
