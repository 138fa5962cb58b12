/**
 * The verdicts that handlers return, checked and encoded where they are written: a constant verdict costs nothing a
 * message.
 */
import { encodeReplyCode } from "../protocol/encode.ts";
import type { PhaseInfo } from "../protocol/phases.ts";
import { isVerdictKind, type VerdictKind, VERDICTS } from "../protocol/verdicts.ts";
import { formatReplyText, parseReplyText, type ReplyText } from "../protocol/reply-text.ts";
import { UsageError } from "../usage-error.ts";

declare const kindBrand: unique symbol;

/**
 * What a handler returns to decide; made by {@link accept}, {@link reject} and the others, never by hand.
 * @example const BUSY: Verdict<"tempfail"> = tempfail("451 4.7.1 Try again later");
 */
export interface Verdict<K extends VerdictKind = VerdictKind> {
  readonly kind: K;
  readonly [kindBrand]: K;
}

/** Shared by all copies of this module, in case a handler's folder has its own copy. */
const BRAND = Symbol.for("pmilter.verdict");

/** A verdict with its reply packet. Internal: handlers see {@link Verdict}. */
export interface EncodedVerdict {
  readonly kind: VerdictKind;
  /** The SMTP reply, null for the mail server's own text. */
  readonly reply: ReplyText | null;
  /** The whole reply packet. */
  readonly packet: Uint8Array;
  /**
   * Has the stack of the call that made it; the text of the stack is made only if it is logged. Null for verdicts
   * without a place in a handler.
   */
  readonly origin: Error | null;
}

class VerdictValue implements EncodedVerdict {
  readonly [BRAND] = true;
  /** Only a value that this module made has it; a proxy or an heir of such a value has not. */
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

  static isOurs(value: object): value is VerdictValue {
    return #isOurs in value;
  }
}

/**
 * The verdict that a handler returned. Reading a value that this module did not make may run code of the handler's, so
 * an exception here is a failure of the handler.
 *
 * @throws UsageError PMILTER_ERR_VERDICT for a value that is no verdict, and for a verdict that the phase does not have
 */
export function verdictIn(value: unknown, phase: PhaseInfo): EncodedVerdict {
  const verdict = typeof value === "object" && value !== null ? encodedIn(value) : null;
  if (verdict === null) {
    const expected = "expected nothing or a verdict such as reject()";
    throw new UsageError("PMILTER_ERR_VERDICT", `the ${phase.name} handler returned ${typeof value}, ${expected}`);
  }
  if (phase.verdicts.includes(verdict.kind)) return verdict;
  const error = new UsageError(
    "PMILTER_ERR_VERDICT",
    `${verdict.kind}() is no verdict of phase ${phase.name}; it has ${phase.verdicts.join(", ") || "none"}`,
  );
  if (verdict.origin !== null) Object.defineProperty(error, "stack", { value: verdict.origin.stack });
  throw error;
}

/** Null if the value is no verdict. */
function encodedIn(value: object): EncodedVerdict | null {
  if (VerdictValue.isOurs(value)) return value;
  return BRAND in value ? copyOf(value as Partial<EncodedVerdict>) : null;
}

/** A verdict of another copy of this module: its members are read once and checked as if they were written here. */
function copyOf({ kind, origin, reply }: Partial<EncodedVerdict>): EncodedVerdict {
  if (kind === undefined || !isVerdictKind(kind)) {
    throw new UsageError("PMILTER_ERR_VERDICT", "the handler returned a verdict of a kind that is not known");
  }
  const text =
    reply == null ? undefined : [`${reply.code} ${reply.enhanced} ${reply.lines[0]}`, ...reply.lines.slice(1)];
  return encode(kind, text?.join("\n"), origin instanceof Error ? origin : null);
}

/** The plain verdict of a fallback: no text, no place in a handler. */
export function plainVerdict(kind: VerdictKind): EncodedVerdict {
  return new VerdictValue(kind, null, null);
}

/** A verdict that code of a handler made in another thread. @param origin has the place in its stack */
export function verdictFrom(kind: VerdictKind, origin: Error): EncodedVerdict {
  return new VerdictValue(kind, null, origin);
}

/** A verdict of pmilter's own with a text. */
export function verdictWithText(kind: "reject" | "tempfail", text: string): EncodedVerdict {
  return encode(kind, text, null);
}

/**
 * The verdicts that handlers have made in this thread. If a call ends without a verdict and the count has grown, the
 * call did not return the verdict that it made.
 */
export const made: { count: number; last: EncodedVerdict } = { count: 0, last: plainVerdict("accept") };

function make<K extends VerdictKind>(kind: K, text: string | undefined, origin: Error | null): Verdict<K> {
  const verdict = encode(kind, text, origin);
  made.count += 1;
  made.last = verdict;
  return verdict as unknown as Verdict<K>;
}

/** Runs `make`, whose verdict reaches the chain without being returned. */
export function withoutCounting<T>(make: () => T): T {
  const { count } = made;
  try {
    return make();
  } finally {
    made.count = count;
  }
}

/** @throws UsageError PMILTER_ERR_REPLY_TEXT */
function encode(kind: VerdictKind, text: string | undefined, origin: Error | null): EncodedVerdict {
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
  return new VerdictValue(kind, reply, origin);
}

/**
 * Verdicts without a text are constants: they are made for many messages that pass. The first hundred are made with
 * their place all the same, and again a hundred after a verdict that was not returned, so that the log can say where.
 */
const CONSTANTS = { accept: new VerdictValue("accept", null, null), skip: new VerdictValue("skip", null, null) };
const PLACED = 100;
let placedLeft = PLACED;

/** The next of these verdicts tell where they were made. */
export function placeNext(): void {
  placedLeft = PLACED;
}

/** A constant verdict: nothing tells which call made it. */
export function isShared(verdict: EncodedVerdict): boolean {
  return verdict === CONSTANTS.accept || verdict === CONSTANTS.skip;
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
 * @example if (session.auth.authen !== "") return accept();
 */
export function accept(): Verdict<"accept"> {
  return plain("accept");
}

/**
 * The message is thrown away, and the SMTP client is told that it was taken. (`SMFIS_DISCARD`)
 * @example if (message.headers.text("Subject") === "monitoring probe") return discard();
 */
export function discard(): Verdict<"discard"> {
  return make("discard", undefined, new Error());
}

/**
 * From `body`: no more chunks of this message for this filter. (`SMFIS_SKIP`)
 * @example if (++message.state.chunks === 4) return skip();
 */
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
