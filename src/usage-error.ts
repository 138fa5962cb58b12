/** The errors of handlers, thrown where a handler makes a mistake or where it is loaded. */

/** Codes are stable; messages are for people. */
export const USAGE_ERRORS = {
  PMILTER_ERR_REPLY_TEXT: "a reply text that no mail server would take, or of the wrong class",
  PMILTER_ERR_VERDICT: "a verdict that the phase does not have, or a value that is no verdict",
  PMILTER_ERR_ARGUMENT: "a value that cannot be sent: a header name or value, an address, a reason",
  PMILTER_ERR_NOT_GRANTED: "a change that the mail server did not grant",
  PMILTER_ERR_NOT_HERE: "a member that the phase does not have",
  PMILTER_ERR_OVER:
    "a change to a message that is over for this filter, or by a header of another message; a body whose memory a handler gave away",
  PMILTER_ERR_SEALED: "an edit of what is signed or encrypted, without `breakSeal`",
  PMILTER_ERR_MODULE: "a module that does not export what pmilter needs",
  PMILTER_ERR_OPTIONS: "options that the filter's schema refuses",
} as const;

/**
 * The codes of `UsageError`.
 * @example const code: UsageErrorCode = "PMILTER_ERR_NOT_GRANTED";
 */
export type UsageErrorCode = keyof typeof USAGE_ERRORS;

/**
 * A handler, or a program that embeds pmilter, made a mistake. Thrown where it was made.
 * @example if (error instanceof UsageError && error.code === "PMILTER_ERR_NOT_GRANTED") session.log.warn(error.message);
 */
export class UsageError extends Error {
  override readonly name = "UsageError";
  readonly code: UsageErrorCode;

  constructor(code: UsageErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** A wrong argument, for a message: no code of the value is run, and long text is cut. */
export function shownArgument(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 80));
  if (typeof value === "object" && value !== null) return "an object";
  return typeof value === "function" ? "a function" : String(value);
}
