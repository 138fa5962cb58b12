/**
 * How a session goes on whose worker is lost: stuck in a handler, dead, or ended for its memory. From the record that the
 * worker has left, and what the configuration says, to what the mail server is answered and how the next worker begins.
 * Pure: no socket is touched here.
 */
import { type Fallback, type FallbackVerdict, strictest } from "../../handler/fallback.ts";
import type { SkippedFilter } from "../../handler/filter-parts.ts";
import type { SlotRecord } from "../../shared/ledger.ts";
import { COMMAND, LENGTH_BYTES } from "../../protocol/constants.ts";
import { PLAIN_REPLIES } from "../../protocol/encode.ts";
import { isOfMessage, PHASES, PHASE_LIST } from "../../protocol/phases.ts";
import type { SessionState } from "../../protocol/state.ts";
import type { ResumedSession } from "../../shared/messages.ts";
import type { LossCause } from "../workers/member.ts";

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
  readonly skippedFilters: readonly SkippedFilter[];
  /** Its handlers have cost more workers than one session may: the rest of it gets the fallback. */
  readonly isOffender: boolean;
}

/** A decision as the wire has it, without a text of its own. */
export type PlainVerdict = FallbackVerdict | "accept" | "discard";

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
  const { owed, state, version } = record;
  if (record.isOver) return { kind: "end", reason: "its session was over", isFailure: false };
  if (record.isHalfSent) return end("a reply had left in part");
  if (version === 0 && owed > 0) return end("its negotiation was lost");
  const situation = situationOf(record, circumstances);
  const { cut } = situation;
  // No verdict can be kept for a session whose CONNECT is still to come: that would begin it without what is lost.
  if (situation.isBeginningLost && state === "idle" && owed === 0) return end("macros of its next session were lost");
  const ruling = rule(situation);
  if (cut !== null && !mayPass(cut, record.due, ruling)) return end("a packet of it was lost in part");
  const { connection, message } = ruling;
  const outcome = connection ?? message;
  const due = dueVerdict(situation, ruling);
  const verdict = outcome ?? due;
  const isNew = ruling.isNew || (due !== null && outcome === null && situation.standing === null);
  const scope = connection === null ? "message" : "connection";
  return {
    kind: "resume",
    replies: ruling.replies.length === 0 ? NOTHING : Buffer.concat(ruling.replies.map((reply) => PACKETS[reply])),
    session: {
      version,
      actions: record.actions,
      protocol: record.protocol,
      context: record.context ?? NOTHING,
      answersContext: ruling.answersContext,
      waitedMs: record.waitedMs,
      ruling: outcome === null ? null : { scope, packet: PACKETS[outcome] },
      due: due === null || due === "continue" ? null : PACKETS[due],
      begun: cut === null ? record.begun : NOTHING,
      lost: cut === null ? null : { due: record.due, code: cut === COMMAND.MACRO ? 0 : cut },
      skippedFilters: ruling.skippedFilters,
    },
    verdict: isNew && verdict !== null ? { scope, outcome: verdict, isFallback: verdict !== situation.standing } : null,
  };
}

/** A session that is to go on, and what follows from its record and the configuration before anything is decided. */
interface Situation {
  readonly record: SlotRecord;
  readonly circumstances: Circumstances;
  /** The code of the packet that has come in part and was not kept, 0 if that was lost as well; null if there is none. */
  readonly cut: number | null;
  /** CONNECT or HELO, or macros of theirs, are lost before any handler was asked about them. */
  readonly isBeginningLost: boolean;
  /** The packets that began it were being worked on again, and had their replies before. */
  readonly isBegun: boolean;
  readonly standing: PlainVerdict | null;
  /** The strictest fallback of all filters. */
  readonly common: FallbackVerdict;
  /** The filter that the worker may have been lost to. */
  readonly culprit: FilterPolicy | undefined;
  /** Its fallback; null where it is not known, or is only observed. */
  readonly own: Fallback | null;
}

function situationOf(record: SlotRecord, circumstances: Circumstances): Situation {
  const { begun, call } = record;
  const { cause, filters, isSuspect } = circumstances;
  const fallbackOf = ({ onError, onTimeout }: FilterPolicy) => (cause === "died" ? onError : onTimeout);
  const cut = record.hasAllBegun || begun.length === 0 ? null : (begun[LENGTH_BYTES] ?? 0);
  const culprit = isSuspect && call !== null ? filters[call.filter] : undefined;
  return {
    record,
    circumstances,
    cut,
    isBeginningLost: record.isBeginningAhead || (cut === COMMAND.MACRO && isForBeginning(begun)),
    isBegun: record.isInContext && !record.answersContext,
    standing: verdictOf(record.standing),
    common: strictest(filters.filter(({ isObserved }) => !isObserved).map(fallbackOf)),
    culprit,
    own: culprit === undefined || culprit.isObserved ? null : fallbackOf(culprit),
  };
}

/** What holds from now on, and what those commands are answered that wait. */
interface Ruling {
  /** On the connection; with it there is none on a message. */
  readonly connection: PlainVerdict | null;
  readonly message: PlainVerdict | null;
  readonly replies: readonly PlainVerdict[];
  /** It was not known before. */
  readonly isNew: boolean;
  /** The next worker asks the handlers of the connection again, and gives the reply that waits for them. */
  readonly answersContext: boolean;
  readonly skippedFilters: readonly SkippedFilter[];
}

function rule(situation: Situation): Ruling {
  const { common, culprit, isBegun, isBeginningLost, own, record, standing } = situation;
  const { call, firstOwed, owed, state } = record;
  // What was decided on the connection stays so; asking its handlers again might decide otherwise.
  if (state === "refused" && !isBeginningLost && standing !== null) return ofConnection(situation, standing, false);
  const anew = state === "refused" ? stricter(standing, common) : common;
  const isBeginning =
    call === null
      ? owed > 0 && (firstOwed === COMMAND.CONNECT || firstOwed === COMMAND.HELO)
      : PHASES[call.phase].scope === "connection";
  // Without the packets that began it no handler can be asked again.
  if (record.context === null || (isBeginningLost && !isBeginning)) return ofConnection(situation, anew, true);
  if (situation.circumstances.isOffender) return ofOffender(situation);
  if (!isBeginning) return ofMessage(situation);
  const skippedFilters = skippedBefore(situation);
  const { isSuspect } = situation.circumstances;
  // It waited beside the one that failed: the next worker asks its handlers again, and answers.
  if (call !== null && !isSuspect && !isBeginningLost && (isBegun || record.untaken === 0)) {
    return ofBeginning(situation, true, skippedFilters);
  }
  const lets = own === "accept" || own === "continue" || culprit?.isObserved === true || common === "continue";
  if (!lets || isBeginningLost) return ofConnection(situation, own === "reject" ? own : anew, true);
  if (call === null || culprit === undefined) return ofBeginning(situation, false, skippedFilters);
  return ofBeginning(situation, false, [...skippedFilters, { filter: call.filter, isOver: own === "accept" }]);
}

/**
 * A session that goes on costing workers: it gets the fallback of the filter that they were lost to. A refusal is for the
 * connection. A fallback that lets pass ends that filter's part, and the others go on with the session.
 */
function ofOffender(situation: Situation): Ruling {
  const { common, own, record, standing } = situation;
  const fallback = own ?? common;
  if (fallback === "tempfail" || fallback === "reject") {
    return ofConnection(situation, stricter(standing, fallback), true);
  }
  const ruling = ofMessage(situation);
  if (record.call === null) return ruling;
  return { ...ruling, skippedFilters: [...ruling.skippedFilters, { filter: record.call.filter, isOver: true }] };
}

/** All that is owed, and all that comes, gets this. */
function ofConnection({ circumstances, record }: Situation, connection: PlainVerdict, isNew: boolean): Ruling {
  return {
    connection,
    message: null,
    replies: fill(record.owed, connection),
    isNew,
    answersContext: false,
    // Who is refused anyway is not asked about again: that may be what the worker was lost to.
    skippedFilters: circumstances.filters.map((_, filter) => ({ filter, isOver: false })),
  };
}

/** It was lost in what began the session, which goes on. Commands behind that are lost, and with them their message. */
function ofBeginning(situation: Situation, isAskedAgain: boolean, skippedFilters: readonly SkippedFilter[]): Ruling {
  const { common, isBegun, record, standing } = situation;
  const { owed, state, untaken } = record;
  const behind = isBegun ? owed : Math.max(0, owed - 1);
  const held = isBegun && state === "decided" ? standing : null;
  const message = behind > 0 || untaken > 0 ? withStanding(situation, common) : held;
  return {
    connection: null,
    message,
    replies: [...fill(isAskedAgain ? 0 : owed - behind, "continue"), ...fill(behind, message ?? "continue")],
    isNew: message !== null && message !== standing,
    answersContext: isAskedAgain && owed > behind,
    skippedFilters,
  };
}

/** It was lost in a message, between two, or in a command that is of none. */
function ofMessage(situation: Situation): Ruling {
  const { common, cut, own, record, standing } = situation;
  const { call, firstOwed, owed, state, untaken } = record;
  const scope = call === null ? null : PHASES[call.phase].scope;
  const isUnknown = call?.phase === "unknown" || (call === null && firstOwed === COMMAND.UNKNOWN);
  // The message, or the session, is over when these run.
  const isAfter = call?.phase === "abort" || call?.phase === "close";
  const isOpen =
    !isAfter && (state === "message" || state === "decided" || scope === "message" || scope === "recipient");
  const isLostCommand = untaken > 0 || owed > (isUnknown ? 1 : 0);
  const isCutMessage = cut !== null && MESSAGE_COMMANDS.has(cut) && cut !== COMMAND.MAIL;
  let message: PlainVerdict | null = null;
  let isNew = false;
  if (isOpen && standing !== null && !(state === "decided" && isLostCommand)) {
    message = standing;
    isNew = state === "message";
  } else if (isOpen || isLostCommand || isCutMessage) {
    message = withStanding(situation, own === "tempfail" || own === "reject" ? own : common);
    isNew = true;
  }
  const first = isUnknown ? "continue" : (message ?? "continue");
  return {
    connection: null,
    message,
    replies: [...fill(Math.min(owed, 1), first), ...fill(Math.max(0, owed - 1), message ?? "continue")],
    isNew,
    answersContext: false,
    skippedFilters: skippedBefore(situation),
  };
}

function skippedBefore({ circumstances, record }: Situation): readonly SkippedFilter[] {
  return record.isAnew ? [] : circumstances.skippedFilters;
}

/** The verdict on a message that begins, since macros for it are lost; null if none are. */
function dueVerdict({ common, cut, record, standing }: Situation, ruling: Ruling): PlainVerdict | null {
  // Who asked without the macros might let a message pass that they would have had refused.
  const areLost = record.hasMacrosAhead || (cut === COMMAND.MACRO && isForMessage(record.begun, record.state));
  if (!areLost || ruling.connection !== null) return null;
  return (ruling.message === null ? standing : null) ?? common;
}

/** Whether the rest of a packet that was lost in part can be passed over, whatever it said. */
function mayPass(cut: number, due: number, { connection, message }: Ruling): boolean {
  if (due <= 0) return false;
  if (connection !== null || cut === COMMAND.MACRO) return true;
  return message !== null && MESSAGE_COMMANDS.has(cut) && cut !== COMMAND.MAIL;
}

/** A fallback, for the rest of a message that was decided without its mail server having been told: not for another's beginning. */
function withStanding({ record, standing }: Situation, fallback: FallbackVerdict): PlainVerdict {
  const isRest = record.state === "decided" && record.firstOwed !== COMMAND.MAIL;
  return isRest ? stricter(standing, fallback) : fallback;
}

/** What holds where a verdict stands, and what it stands on was lost in part: the fallback may not let pass what it refused. */
function stricter(standing: PlainVerdict | null, fallback: FallbackVerdict): PlainVerdict {
  const isRefusal = standing === "tempfail" || standing === "reject" || standing === "discard";
  return isRefusal && fallback !== "tempfail" ? standing : fallback;
}

/** Whether the beginning of a MACRO packet is, or may be, of macros for another message than the one that is open. */
function isForMessage(begun: Uint8Array, state: SessionState): boolean {
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
  skippedFilters: readonly SkippedFilter[],
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
    skippedFilters: isAnew ? [] : skippedFilters,
  };
}

/** A session that goes on with the stand-in: what it began with was answered elsewhere, and is not refused now. */
export function forStandIn(session: ResumedSession | null): ResumedSession | null {
  return session === null ? null : { ...session, skippedFilters: [{ filter: 0, isOver: false }] };
}

/** A session that goes on in another generation: what failed were filters of the one before, which are others there. */
export function forOthers(session: ResumedSession | null): ResumedSession | null {
  return session === null || session.ruling?.scope === "connection" ? session : { ...session, skippedFilters: [] };
}

function end(reason: string): Recovery {
  return { kind: "end", reason, isFailure: true };
}
