/**
 * The effect of each verdict, as a table of constants: a row for each object that a verdict can be given on, a column
 * for each kind of verdict. Filters, filters in observe mode, and limits of the configuration have a table each.
 * `conversation.ts` carries the effects out.
 */
import { PHASES, type PhaseInfo, type Scope } from "../protocol/phases.ts";
import type { VerdictKind } from "../protocol/verdicts.ts";
import type { Fallback } from "./fallback.ts";
import { type EncodedVerdict, plainVerdict } from "./verdict.ts";

/** The giver of a verdict. */
export type Giver = "enforce" | "observe" | "limit";

/**
 * The object of a verdict: the scope of its phase, where `none` is a command that belongs to no message. Two kinds of
 * recipient have their own rows: recipients that the mail server rejects itself, and recipients in a session that
 * Postfix made up for local mail, where a single recipient cannot be refused.
 */
export type Place = Scope | "rejected recipient" | "local recipient";

/** How far a filter's part is over. */
export type Left = "nothing" | "body" | "message" | "connection";

export interface Effect {
  /** The part of the session that the filter sees no more of. */
  readonly leaves: Left;
  /** The filter has accepted. A message, or connection, that no filter has work left for is then accepted at once. */
  readonly accepts: boolean;
  /**
   * The object that is decided for all filters, which ends the phase; null if nothing is decided and the next filter
   * runs.
   */
  readonly decides: "connection" | "message" | "recipient" | "command" | null;
  /** The reply to the event at hand is about something else, so the verdict is pending until another reply can carry it. */
  readonly waits: boolean;
  /** In observe mode, the object that would have been decided, for the log; null if there is nothing to log. */
  readonly observed: "connection" | "message" | "recipient" | "command" | null;
}

const NOTHING: Effect = { leaves: "nothing", accepts: false, decides: null, waits: false, observed: null };

const LEAVE_BODY: Effect = { ...NOTHING, leaves: "body" };
const LEAVE_MESSAGE: Effect = { ...NOTHING, leaves: "message", accepts: true };
const LEAVE_CONNECTION: Effect = { ...NOTHING, leaves: "connection", accepts: true };

const DECIDE_CONNECTION: Effect = { ...NOTHING, decides: "connection" };
const DECIDE_MESSAGE: Effect = { ...NOTHING, decides: "message" };
const DECIDE_MESSAGE_LATER: Effect = { ...DECIDE_MESSAGE, waits: true };
const DECIDE_RECIPIENT: Effect = { ...NOTHING, decides: "recipient" };
const DECIDE_COMMAND: Effect = { ...NOTHING, decides: "command" };

// An observing filter sees no more of a message or connection that it would have ended. Refusing a recipient or a
// command ends nothing.
const OBSERVE_CONNECTION: Effect = { ...NOTHING, leaves: "connection", observed: "connection" };
const OBSERVE_MESSAGE: Effect = { ...NOTHING, leaves: "message", observed: "message" };
const OBSERVE_RECIPIENT: Effect = { ...NOTHING, observed: "recipient" };
const OBSERVE_COMMAND: Effect = { ...NOTHING, observed: "command" };

type Row = Readonly<Record<VerdictKind, Effect>>;

/** `reject` and `tempfail` do the same; so does `discard`, unless it is given. */
function row(accept: Effect, refuse: Effect, discard: Effect = refuse): Row {
  return { accept, reject: refuse, tempfail: refuse, discard, skip: LEAVE_BODY };
}

/** The mail server's own rejection of a recipient stands, whatever a filter returns. */
const STANDS: Row = { ...row(NOTHING, NOTHING), skip: NOTHING };

const RULES: Readonly<Record<Giver, Readonly<Record<Place, Row>>>> = {
  enforce: {
    connection: row(LEAVE_CONNECTION, DECIDE_CONNECTION),
    message: row(LEAVE_MESSAGE, DECIDE_MESSAGE),
    recipient: row(LEAVE_MESSAGE, DECIDE_RECIPIENT, DECIDE_MESSAGE),
    "local recipient": row(LEAVE_MESSAGE, DECIDE_MESSAGE_LATER, DECIDE_MESSAGE),
    "rejected recipient": STANDS,
    none: row(NOTHING, DECIDE_COMMAND),
  },
  observe: {
    connection: row(LEAVE_CONNECTION, OBSERVE_CONNECTION),
    message: row(LEAVE_MESSAGE, OBSERVE_MESSAGE),
    recipient: row(LEAVE_MESSAGE, OBSERVE_RECIPIENT, OBSERVE_MESSAGE),
    "local recipient": row(LEAVE_MESSAGE, OBSERVE_RECIPIENT, OBSERVE_MESSAGE),
    "rejected recipient": STANDS,
    none: row(NOTHING, OBSERVE_COMMAND),
  },
  // A limit is about the whole message, whichever recipient passed it, and has no filter that could leave.
  limit: {
    connection: row(DECIDE_CONNECTION, DECIDE_CONNECTION),
    message: row(DECIDE_MESSAGE, DECIDE_MESSAGE),
    recipient: row(DECIDE_MESSAGE, DECIDE_MESSAGE_LATER),
    "local recipient": row(DECIDE_MESSAGE, DECIDE_MESSAGE_LATER),
    "rejected recipient": row(DECIDE_MESSAGE, DECIDE_MESSAGE_LATER),
    none: row(NOTHING, NOTHING),
  },
};

/** The effect of a verdict. */
export function effectOf(giver: Giver, place: Place, kind: VerdictKind): Effect {
  return RULES[giver][place][kind];
}

/** The object of a phase's verdict. */
export function placeOf({ scope }: PhaseInfo, isRejectedRecipient: boolean, isLocal: boolean): Place {
  if (scope !== "recipient") return scope;
  if (isRejectedRecipient) return "rejected recipient";
  return isLocal ? "local recipient" : "recipient";
}

/**
 * Whether the reply to an event of this phase can carry a pending verdict on the message. A reply to RCPT is about a
 * recipient; in a session that Postfix made up for local mail all of the message is there at `eom` alone.
 */
export function carriesPending(phase: PhaseInfo, isLocal: boolean): boolean {
  return phase === PHASES.eom || (phase.scope === "message" && !isLocal);
}

/** The fallback of a handler or a limit that fails at this phase; `none` where a phase decides nothing. */
export function fallbackAt({ scope }: PhaseInfo, fallback: Fallback): Fallback | "none" {
  return scope === "none" ? "none" : fallback;
}

/** The verdict of each fallback. With `continue`, and where there is none, the next filter runs. */
export const FALLBACK_VERDICTS: Readonly<Record<Fallback | "none", EncodedVerdict | null>> = {
  accept: plainVerdict("accept"),
  reject: plainVerdict("reject"),
  tempfail: plainVerdict("tempfail"),
  continue: null,
  none: null,
};
