/**
 * The verdicts that handlers return, checked and encoded where they are written: a constant verdict costs nothing a
 * message.
 */
import { encodeReplyCode } from "../protocol/encode.ts";
import type { PhaseInfo } from "../protocol/phases.ts";
import { isVerdictKind, type VerdictKind, VERDICTS } from "../protocol/verdicts.ts";
import { formatReplyText, parseReplyText, type ReplyText } from "../protocol/reply-text.ts";
import { UsageError } from "./errors.ts";

declare const kindBrand: unique symbol;

/** What a handler returns to decide; made by {@link accept}, {@link reject} and the others, never by hand. */
export interface Verdict<K extends VerdictKind = VerdictKind> {
  readonly kind: K;
  readonly [kindBrand]: K;
}

/** Shared by all copies of this module, should a handler's folder bring one of its own. */
const BRAND = Symbol.for("pmilter.verdict");

/** A verdict with what it is on the wire. Internal: handlers see {@link Verdict}. */
export interface Decision {
  readonly kind: VerdictKind;
  /** The SMTP reply, null for the mail server's own text. */
  readonly reply: ReplyText | null;
  /** The whole reply packet. */
  readonly packet: Uint8Array;
  /** Where it was written; its stack is made only if someone logs it. Null for verdicts that nobody needs to find. */
  readonly origin: Error | null;
}

class DecisionValue implements Decision {
  readonly [BRAND] = true;
  /** Only a value that this module made has it: no proxy and no heir of one. */
  // oxlint-disable-next-line no-unused-private-class-members -- `#isOurs in value` is its use
  readonly #isOurs = true;
  readonly kind: VerdictKind;
  readonly reply: ReplyText | null;
  readonly packet: Uint8Array;
  readonly origin: Error | null;

  constructor(kind: VerdictKind, reply: ReplyText | null, origin: Error | null) {
    this.kind = kind;
    this.reply = reply;
    this.packet = reply === null ? VERDICTS[kind].packet : encodeReplyCode(formatReplyText(reply));
    this.origin = origin;
    Object.freeze(this);
  }

  static isOurs(value: object): value is DecisionValue {
    return #isOurs in value;
  }
}

/**
 * The verdict that a handler returned. Reading a value that this module did not make may run code of the handler's, so
 * whatever is thrown here is a failure of the handler.
 *
 * @throws UsageError PMILTER_ERR_VERDICT for a value that is no verdict, and for one that the phase does not have
 */
export function verdictIn(value: unknown, phase: PhaseInfo): Decision {
  const decision = typeof value === "object" && value !== null ? decisionOf(value) : null;
  if (decision === null) {
    const expected = "expected nothing or a verdict such as reject()";
    throw new UsageError("PMILTER_ERR_VERDICT", `the ${phase.name} handler returned ${typeof value}, ${expected}`);
  }
  if (phase.verdicts.includes(decision.kind)) return decision;
  const error = new UsageError(
    "PMILTER_ERR_VERDICT",
    `${decision.kind}() is no verdict of phase ${phase.name}; it has ${phase.verdicts.join(", ") || "none"}`,
  );
  if (decision.origin !== null) Object.defineProperty(error, "stack", { value: decision.origin.stack });
  throw error;
}

/** Null if the value is no verdict. */
function decisionOf(value: object): Decision | null {
  if (DecisionValue.isOurs(value)) return value;
  return BRAND in value ? copyOf(value as Partial<Decision>) : null;
}

/** A verdict of another copy of this module: its members are read once and checked as if they were written here. */
function copyOf({ kind, origin, reply }: Partial<Decision>): Decision {
  if (kind === undefined || !isVerdictKind(kind)) {
    throw new UsageError("PMILTER_ERR_VERDICT", "the handler returned a verdict of a kind that is not known");
  }
  const text =
    reply == null ? undefined : [`${reply.code} ${reply.enhanced} ${reply.lines[0]}`, ...reply.lines.slice(1)];
  return decide(kind, text?.join("\n"), origin instanceof Error ? origin : null);
}

/** The plain decision of a fallback: no text, no place in a handler. */
export function plainDecision(kind: VerdictKind): Decision {
  return new DecisionValue(kind, null, null);
}

/** A decision of pmilter's own with a text. */
export function textDecision(kind: "reject" | "tempfail", text: string): Decision {
  return decide(kind, text, null);
}

/**
 * What handlers have made of verdicts in this thread. A call that ends without a verdict, and after which there are more,
 * has made one that it did not return.
 */
export const made: { count: number; last: Decision } = { count: 0, last: plainDecision("accept") };

function make<K extends VerdictKind>(kind: K, text: string | undefined, origin: Error | null): Verdict<K> {
  const decision = decide(kind, text, origin);
  made.count += 1;
  made.last = decision;
  return decision as unknown as Verdict<K>;
}

/** Runs `make`, whose verdict reaches the chain by another way than being returned. */
export function withoutCounting<T>(make: () => T): T {
  const { count } = made;
  try {
    return make();
  } finally {
    made.count = count;
  }
}

/** @throws UsageError PMILTER_ERR_REPLY_TEXT */
function decide(kind: VerdictKind, text: string | undefined, origin: Error | null): Decision {
  let reply: ReplyText | null = null;
  if (text !== undefined) {
    if (typeof text !== "string") {
      throw new UsageError("PMILTER_ERR_REPLY_TEXT", `${kind}(text): expected a string, got ${typeof text}`);
    }
    try {
      reply = parseReplyText(text, kind === "reject" ? 5 : 4);
    } catch (error) {
      throw new UsageError("PMILTER_ERR_REPLY_TEXT", error instanceof Error ? error.message : String(error));
    }
  }
  return new DecisionValue(kind, reply, origin);
}

/**
 * Verdicts without a text are constants: they are made for many messages that pass. The first few are made with their place
 * nevertheless, and again after one was not returned, so that the log can say where that was.
 */
const CONSTANTS = { accept: new DecisionValue("accept", null, null), skip: new DecisionValue("skip", null, null) };
const PLACED = 100;
let placedLeft = PLACED;

/** The next of these verdicts tell where they were made. */
export function placeNext(): void {
  placedLeft = PLACED;
}

/** A verdict that is shared by all who give it: nothing tells which call made it. */
export function isShared(decision: Decision): boolean {
  return decision === CONSTANTS.accept || decision === CONSTANTS.skip;
}

function plain<K extends keyof typeof CONSTANTS>(kind: K): Verdict<K> {
  if (placedLeft > 0) {
    placedLeft -= 1;
    return make(kind, undefined, new Error());
  }
  made.count += 1;
  made.last = CONSTANTS[kind];
  return CONSTANTS[kind] as unknown as Verdict<K>;
}

/**
 * Ends this filter's part: it sees no more of the message (at `connect` and `helo`: of the connection), and its
 * changes stay. Other filters go on. (`SMFIS_ACCEPT`)
 */
export function accept(): Verdict<"accept"> {
  return plain("accept");
}

/** The message is thrown away, and the SMTP client is told that it was taken. (`SMFIS_DISCARD`) */
export function discard(): Verdict<"discard"> {
  return make("discard", undefined, new Error());
}

/** From `body`: no more chunks of this message for this filter. (`SMFIS_SKIP`) */
export function skip(): Verdict<"skip"> {
  return plain("skip");
}

/**
 * Refuses for good: the connection at `connect` and `helo`, the recipient at `envrcpt`, else the message.
 * (`SMFIS_REJECT`, `smfi_setreply`)
 *
 * @param text the SMTP reply: a code 5yz, optionally an enhanced code 5.y.z (else 5.7.1), then text; further lines
 *   after `\n` or `\r\n`. Without it the mail server uses its own words.
 * @throws UsageError PMILTER_ERR_REPLY_TEXT
 * @example return reject("550 5.7.1 Not welcome here");
 */
export function reject(text?: string): Verdict<"reject"> {
  return make("reject", text, new Error());
}

/**
 * Refuses for now: the client is to try again later. What it is about is as with {@link reject}.
 * (`SMFIS_TEMPFAIL`, `smfi_setreply`)
 *
 * @param text as with {@link reject}, with codes 4yz and 4.y.z (else 4.7.0); 421 also closes the SMTP connection
 * @throws UsageError PMILTER_ERR_REPLY_TEXT
 * @example return tempfail("451 4.7.1 Greylisted, try again in five minutes");
 */
export function tempfail(text?: string): Verdict<"tempfail"> {
  return make("tempfail", text, new Error());
}
