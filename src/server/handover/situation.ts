/**
 * The facts about a session whose worker is lost, from its record, the configuration and the circumstances, in the words of
 * the rules of recovery. Nothing is decided here.
 */
import { type Fallback, type FallbackVerdict, strictest } from "../../handler/fallback.ts";
import type { SkippedFilter } from "../../handler/filter-parts.ts";
import { COMMAND, LENGTH_BYTES } from "../../protocol/constants.ts";
import { isOfMessage, PHASES, PHASE_LIST } from "../../protocol/phases.ts";
import type { SessionState } from "../../protocol/state.ts";
import { VERDICTS } from "../../protocol/verdicts.ts";
import type { SlotRecord } from "../../shared/session-records.ts";
import type { LossCause } from "../workers/member.ts";

/** Verdicts on a message or a connection, without a text of their own. */
const PLAIN_VERDICTS = ["tempfail", "reject", "continue", "accept", "discard"] as const;
export type PlainVerdict = (typeof PLAIN_VERDICTS)[number];

export interface FilterPolicy {
  readonly onError: Fallback;
  readonly onTimeout: Fallback;
  readonly isObserved: boolean;
}

/** Facts about a session that are not in its record. */
export interface Circumstances {
  readonly cause: LossCause;
  /** The worker may have been lost to the handler on record. */
  readonly isSuspect: boolean;
  readonly filters: readonly FilterPolicy[];
  /** From earlier losses: filters that failed in the opening. */
  readonly skippedFilters: readonly SkippedFilter[];
  /** Its handlers have cost more workers than a session may cost: the rest of the session gets the fallback. */
  readonly isOffender: boolean;
}

/** The verdict behind a reply byte of the record, null for 0. */
export function verdictOf(code: number): PlainVerdict | null {
  return PLAIN_VERDICTS.find((verdict) => VERDICTS[verdict].packet[LENGTH_BYTES] === code) ?? null;
}

/** Commands of a message. If one is lost, the message's verdict covers it, whatever it said. */
export const MESSAGE_COMMANDS: ReadonlySet<number> = new Set(
  PHASE_LIST.filter(isOfMessage).map((phase) => phase.command),
);

/** See the top of the file. */
export interface Situation {
  readonly record: SlotRecord;
  readonly circumstances: Circumstances;
  /** The verdict that was found and is to be sent, or to be sent again. */
  readonly pending: PlainVerdict | null;

  readonly isNegotiationLost: boolean;
  /** CONNECT or HELO, or macros of theirs, are lost before any handler was asked about them. */
  readonly isOpeningLost: boolean;
  /** The opening of a session that has not begun is lost, and no reply is owed. */
  readonly isNextOpeningLost: boolean;
  /** The worker was lost at CONNECT or HELO. */
  readonly isOpening: boolean;
  /** The opening was being replayed: its commands had their replies before. */
  readonly isReplayed: boolean;
  /** The whole connection has its verdict. */
  readonly isDecided: boolean;
  /** The handlers of the opening can be asked again, by the worker that gives their answer. */
  readonly mayAskAgain: boolean;
  /** The session has cost too many workers. */
  readonly isOffender: boolean;

  /** The code of the partial packet, if it was not kept, 0 if the code was lost as well; null if there is no such packet. */
  readonly cut: number | null;
  /** The first owed reply is for UNKNOWN, which belongs to no message. */
  readonly isUnknown: boolean;
  /** The pending verdict of the message covers all that was read. */
  readonly isPendingInForce: boolean;
  /** A message, or a command or packet of a message, is lost. */
  readonly isMessageLost: boolean;

  /** The filter that the worker may have been lost to. */
  readonly suspect: FilterPolicy | null;
  /** The strictest of all filters' fallbacks. */
  readonly chainFallback: FallbackVerdict;
  /** The suspect's, else the chain's. */
  readonly fallback: Fallback;
  /** That fallback refuses. */
  readonly isRefused: boolean;
  /** The fallback lets the opening pass, and none of it is lost unseen. */
  readonly isLetPass: boolean;
  /** The suspect's if it refuses, else the chain's. */
  readonly messageFallback: FallbackVerdict;
  /** The chain's, or the pending verdict if it refuses and the chain's does not. */
  readonly connectionFallback: PlainVerdict;
  /** The suspect's if it rejects, else the connection's. */
  readonly openingFallback: PlainVerdict;
  /** From earlier losses; also an offender's filter, whose part is over. */
  readonly skippedFilters: readonly SkippedFilter[];
}

export function situationOf(record: SlotRecord, circumstances: Circumstances): Situation {
  const { call, firstOwed, owed, partial, state, untaken } = record;
  const { cause, filters, isOffender, isSuspect } = circumstances;
  const pending = verdictOf(record.pendingCode);
  const cut = record.isPartialKept || partial.length === 0 ? null : (partial[LENGTH_BYTES] ?? 0);

  const isOpeningLost = record.isOpeningAhead || (cut === COMMAND.MACRO && isForOpening(partial));
  const isOpeningOwed = owed > 0 && (firstOwed === COMMAND.CONNECT || firstOwed === COMMAND.HELO);
  const isReplayed = record.isInOpening && !record.answersOpening;

  const isUnknown = call?.phase === "unknown" || (call === null && firstOwed === COMMAND.UNKNOWN);
  const isCommandLost = untaken > 0 || owed > (isUnknown ? 1 : 0);
  const isMessageCut = cut !== null && MESSAGE_COMMANDS.has(cut) && cut !== COMMAND.MAIL;
  const isOpen = isMessageOpen(record);

  const suspect = (isSuspect && call !== null ? filters[call.filter] : null) ?? null;
  const fallbackOf = ({ onError, onTimeout }: FilterPolicy) => (cause === "died" ? onError : onTimeout);
  const chainFallback = strictest(filters.filter(({ isObserved }) => !isObserved).map(fallbackOf));
  const own = suspect === null || suspect.isObserved ? null : fallbackOf(suspect);
  const connectionFallback = state === "refused" ? stricter(pending, chainFallback) : chainFallback;
  const letsPass =
    own === "accept" || own === "continue" || suspect?.isObserved === true || chainFallback === "continue";
  const skippedBefore = record.isAnew ? [] : circumstances.skippedFilters;

  return {
    record,
    circumstances,
    pending,
    isNegotiationLost: record.version === 0 && owed > 0,
    isOpeningLost,
    isNextOpeningLost: isOpeningLost && state === "idle" && owed === 0,
    isOpening: call === null ? isOpeningOwed : PHASES[call.phase].scope === "connection",
    isReplayed,
    isDecided: state === "refused" && pending !== null,
    mayAskAgain: call !== null && !isSuspect && !isOpeningLost && (isReplayed || untaken === 0),
    isOffender,
    cut,
    isUnknown,
    isPendingInForce: isOpen && pending !== null && !(state === "decided" && isCommandLost),
    isMessageLost: isOpen || isCommandLost || isMessageCut,
    suspect,
    chainFallback,
    fallback: own ?? chainFallback,
    isRefused: refuses(own ?? chainFallback),
    isLetPass: letsPass && !isOpeningLost,
    messageFallback: own !== null && refuses(own) ? own : chainFallback,
    connectionFallback,
    openingFallback: own === "reject" ? own : connectionFallback,
    skippedFilters:
      isOffender && call !== null ? [...skippedBefore, { filter: call.filter, isOver: true }] : skippedBefore,
  };
}

/** A message is open, or is decided and its commands may still come. It is over when `abort` and `close` handlers run. */
function isMessageOpen({ call, state }: SlotRecord): boolean {
  if (call?.phase === "abort" || call?.phase === "close") return false;
  const scope = call === null ? null : PHASES[call.phase].scope;
  return state === "message" || state === "decided" || scope === "message" || scope === "recipient";
}

function refuses(fallback: Fallback): fallback is "tempfail" | "reject" {
  return fallback === "tempfail" || fallback === "reject";
}

/** The pending verdict if it refuses and the fallback is not `tempfail`; else the fallback. */
export function stricter<F extends Fallback>(pending: PlainVerdict | null, fallback: F): PlainVerdict | F {
  const isRefusal = pending === "tempfail" || pending === "reject" || pending === "discard";
  return isRefusal && fallback !== "tempfail" ? pending : fallback;
}

/** Whether a partial MACRO packet is, or may be, of macros for another message than the open one. */
export function isForMessage(partial: Uint8Array, state: SessionState): boolean {
  const command = partial[LENGTH_BYTES + 1];
  if (state === "message") return command === undefined || command === COMMAND.MAIL;
  return !isForOpening(partial) && command !== COMMAND.UNKNOWN;
}

/** Whether it is of macros for CONNECT or HELO. */
function isForOpening(partial: Uint8Array): boolean {
  const command = partial[LENGTH_BYTES + 1];
  return command === COMMAND.CONNECT || command === COMMAND.HELO;
}
