/**
 * The recovery of a session whose worker is lost (stuck in a handler, dead, or ended for its memory), as a table of rules:
 * the replies that the mail server gets, and how the next worker resumes the session. Pure: no socket is touched here.
 */
import type { FallbackVerdict } from "../../handler/fallback.ts";
import type { SkippedFilter } from "../../handler/filter-parts.ts";
import { COMMAND } from "../../protocol/constants.ts";
import { VERDICTS } from "../../protocol/verdicts.ts";
import type { ResumedSession } from "../../shared/messages.ts";
import type { SlotRecord } from "../../shared/session-records.ts";
import {
  type Circumstances,
  isForMessage,
  MESSAGE_COMMANDS,
  type PlainVerdict,
  type Situation,
  situationOf,
  stricter,
  verdictOf,
} from "./situation.ts";

export type Recovery =
  /** The connection is to be ended. */
  | { readonly kind: "end"; readonly reason: string; readonly isFailure: boolean }
  | {
      readonly kind: "resume";
      /** To be written to the mail server at once: it waits for them. */
      readonly replies: Uint8Array;
      readonly session: ResumedSession;
      /** The verdict that the recovery gave; null if nothing was under way, or the verdict was counted before. */
      readonly verdict: {
        readonly scope: "message" | "connection";
        readonly outcome: PlainVerdict;
        /** False if handlers had found the verdict, and it only had to be sent. */
        readonly isFallback: boolean;
      } | null;
    };

const NOTHING = new Uint8Array(0);

type Condition = (situation: Situation) => boolean;
type Consequence = (situation: Situation) => Decided | Ended;
/** Its name, its condition, its consequence. Where docs/failures.md has a row for it, the name is that of the row. */
type Rule = readonly [name: string, when: Condition, then: Consequence];

const always: Condition = () => true;

/** The first rule that applies decides. A comment says why, where the condition does not. */
const RULES: readonly Rule[] = [
  ["session over", (s) => s.record.isOver, () => ended("its session was over", false)],
  ["reply sent in part", (s) => s.record.isHalfSent, () => ended("a reply had left in part")],
  ["negotiation lost", (s) => s.isNegotiationLost, () => ended("its negotiation was lost")],
  // No verdict can be kept for a session whose CONNECT is still to come: that would open it without the lost packets.
  ["next opening lost", (s) => s.isNextOpeningLost, () => ended("macros of its next session were lost")],
  // Its handlers, asked again, might decide otherwise.
  ["connection decided", (s) => s.isDecided && !s.isOpeningLost, (s) => onConnection(s, s.pending!, false)],
  // Without the packets that opened it no handler can be asked again.
  ["opening too long", (s) => s.record.opening === null, (s) => onConnection(s, s.connectionFallback)],
  ["opening unseen", (s) => s.isOpeningLost && !s.isOpening, (s) => onConnection(s, s.connectionFallback)],
  ["repeats", (s) => s.isOffender && s.isRefused, (s) => onConnection(s, stricter(s.pending, s.fallback))],
  // Its fallback lets pass: the filter's part is over, and the other filters go on with the session.
  ["repeats, let pass", (s) => s.isOffender, onMessage],
  ["bystander at the opening", (s) => s.isOpening && s.mayAskAgain, (s) => onOpening(s, { isAskedAgain: true })],
  ["blocked at the opening", (s) => s.isOpening && !s.isLetPass, (s) => onConnection(s, s.openingFallback)],
  ["blocked at the opening, let pass", (s) => s.isOpening, (s) => onOpening(s, { isAskedAgain: false })],
  ["message", always, onMessage],
];

/** In a message, between two, or in a command that is of none. */
const MESSAGE_RULES: readonly Rule[] = [
  ["verdict found", (s) => s.isPendingInForce, (s) => decided(s, s.pending, s.record.state === "message")],
  ["blocked", (s) => s.isMessageLost && s.suspect !== null, (s) => decided(s, rest(s, s.messageFallback), true)],
  ["bystander", (s) => s.isMessageLost, (s) => decided(s, rest(s, s.chainFallback), true)],
  ["no message", always, (s) => decided(s, null, false)],
];

function onMessage(situation: Situation): Decided | Ended {
  return ruleFor(MESSAGE_RULES, situation)[2](situation);
}

function ruleFor(rules: readonly Rule[], situation: Situation): Rule {
  return rules.find(([, when]) => when(situation))!;
}

/** Every name that {@link rulesFor} may give. */
export const RULE_NAMES: readonly string[] = [...RULES, ...MESSAGE_RULES].map(([name]) => name);

/** The names of the rules that decide on a session: a rule of the session, and after `onMessage` a rule of its message. */
export function rulesFor(record: SlotRecord, circumstances: Circumstances): string[] {
  const situation = situationOf(record, circumstances);
  const [name, , then] = ruleFor(RULES, situation);
  return then === onMessage ? [name, ruleFor(MESSAGE_RULES, situation)[0]] : [name];
}

export function recover(record: SlotRecord, circumstances: Circumstances): Recovery {
  const situation = situationOf(record, circumstances);
  const { cut, pending } = situation;
  const found = ruleFor(RULES, situation)[2](situation);
  if ("reason" in found) return found;
  if (cut !== null && !mayPass(cut, record.missing, found)) return ended("a packet of it was lost in part");
  const { connection, message } = found;
  const outcome = connection ?? message;
  const nextMessage = nextMessageVerdict(situation, found);
  const verdict = outcome ?? nextMessage;
  const isNew = found.isNew || (nextMessage !== null && outcome === null && pending === null);
  const scope = connection === null ? "message" : "connection";
  return {
    kind: "resume",
    replies: found.replies.length === 0 ? NOTHING : Buffer.concat(found.replies.map((reply) => VERDICTS[reply].packet)),
    session: {
      version: record.version,
      actions: record.actions,
      protocol: record.protocol,
      opening: record.opening ?? NOTHING,
      answersOpening: found.answersOpening,
      waitedMs: record.waitedMs,
      pending: outcome === null ? null : { scope, packet: VERDICTS[outcome].packet },
      nextMessage: nextMessage === null || nextMessage === "continue" ? null : VERDICTS[nextMessage].packet,
      partial: cut === null ? record.partial : NOTHING,
      lost: cut === null ? null : { missing: record.missing, code: cut === COMMAND.MACRO ? 0 : cut },
      skippedFilters: found.skippedFilters,
    },
    verdict: isNew && verdict !== null ? { scope, outcome: verdict, isFallback: verdict !== pending } : null,
  };
}

type Ended = Extract<Recovery, { kind: "end" }>;

/** The verdict that is in force from now on, and the replies to the commands that wait. */
interface Decided {
  /** On the connection; with it there is none on a message. */
  readonly connection: PlainVerdict | null;
  readonly message: PlainVerdict | null;
  readonly replies: readonly PlainVerdict[];
  /** The verdict was not known before. */
  readonly isNew: boolean;
  /** The next worker asks the handlers of the connection again, and gives the reply that waits for them. */
  readonly answersOpening: boolean;
  readonly skippedFilters: readonly SkippedFilter[];
}

function ended(reason: string, isFailure = true): Ended {
  return { kind: "end", reason, isFailure };
}

/** The verdict is the reply to all that is owed, and to all that comes. */
function onConnection({ circumstances, record }: Situation, connection: PlainVerdict, isNew = true): Decided {
  return {
    connection,
    message: null,
    replies: fill(record.owed, connection),
    isNew,
    answersOpening: false,
    // Handlers are not asked about a connection that is refused anyway: the worker may have been lost to that.
    skippedFilters: circumstances.filters.map((_, filter) => ({ filter, isOver: false })),
  };
}

/** The session goes on from its opening. Commands behind that are lost, and with them their message. */
function onOpening(situation: Situation, { isAskedAgain }: { readonly isAskedAgain: boolean }): Decided {
  const { chainFallback, isReplayed, pending, record, skippedFilters, suspect } = situation;
  const { call, owed, state, untaken } = record;
  const behind = isReplayed ? owed : Math.max(0, owed - 1);
  const kept = isReplayed && state === "decided" ? pending : null;
  const message = behind > 0 || untaken > 0 ? rest(situation, chainFallback) : kept;
  const isOver = suspect !== null && !suspect.isObserved && situation.fallback === "accept";
  return {
    connection: null,
    message,
    replies: [...fill(isAskedAgain ? 0 : owed - behind, "continue"), ...fill(behind, message ?? "continue")],
    isNew: message !== null && message !== pending,
    answersOpening: isAskedAgain && owed > behind,
    skippedFilters: suspect === null ? skippedFilters : [...skippedFilters, { filter: call!.filter, isOver }],
  };
}

function decided(
  { isUnknown, record, skippedFilters }: Situation,
  message: PlainVerdict | null,
  isNew: boolean,
): Decided {
  const { owed } = record;
  const first = isUnknown ? "continue" : (message ?? "continue");
  return {
    connection: null,
    message,
    replies: [...fill(Math.min(owed, 1), first), ...fill(Math.max(0, owed - 1), message ?? "continue")],
    isNew,
    answersOpening: false,
    skippedFilters,
  };
}

/** The verdict on a message that begins, since macros for it are lost; null if none are. */
function nextMessageVerdict(
  { chainFallback, cut, pending, record }: Situation,
  { connection, message }: Decided,
): PlainVerdict | null {
  // Without the macros, a filter might accept a message that it would otherwise have rejected.
  const areLost = record.hasMacrosAhead || (cut === COMMAND.MACRO && isForMessage(record.partial, record.state));
  if (!areLost || connection !== null) return null;
  return (message === null ? pending : null) ?? chainFallback;
}

/** Whether the rest of a packet that was lost in part can be passed over, whatever it said. */
function mayPass(cut: number, missing: number, { connection, message }: Decided): boolean {
  if (missing <= 0) return false;
  if (connection !== null || cut === COMMAND.MACRO) return true;
  return message !== null && MESSAGE_COMMANDS.has(cut) && cut !== COMMAND.MAIL;
}

/**
 * A fallback for the rest of a message. If that was decided, and its mail server does not know it yet, the fallback may not
 * let the message pass if it was refused. A MAIL that is owed begins another message.
 */
function rest({ pending, record }: Situation, fallback: FallbackVerdict): PlainVerdict {
  const isDecided = record.state === "decided" && record.firstOwed !== COMMAND.MAIL;
  return isDecided ? stricter(pending, fallback) : fallback;
}

function fill(count: number, verdict: PlainVerdict): PlainVerdict[] {
  return new Array<PlainVerdict>(count).fill(verdict);
}

/** A session between messages that goes on elsewhere as it is: of a message that is decided the rest may be still to come. */
export function handOver(
  { actions, opening, isAnew, pendingCode, protocol, state, version }: SlotRecord,
  skippedFilters: readonly SkippedFilter[],
): ResumedSession {
  const verdict = state === "decided" ? verdictOf(pendingCode) : null;
  return {
    version,
    actions,
    protocol,
    opening: opening ?? NOTHING,
    answersOpening: false,
    waitedMs: 0,
    pending: verdict === null ? null : { scope: "message", packet: VERDICTS[verdict].packet },
    nextMessage: null,
    partial: NOTHING,
    lost: null,
    skippedFilters: isAnew ? [] : skippedFilters,
  };
}

/** A session that the stand-in resumes: its opening was answered before, and is not refused now. */
export function forStandIn(session: ResumedSession | null): ResumedSession | null {
  return session === null ? null : { ...session, skippedFilters: [{ filter: 0, isOver: false }] };
}

/** A session that another generation resumes: the filters that failed were those of its last generation. */
export function forOthers(session: ResumedSession | null): ResumedSession | null {
  return session === null || session.pending?.scope === "connection" ? session : { ...session, skippedFilters: [] };
}
