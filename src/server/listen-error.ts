/** Why an address cannot be listened on, in an administrator's words. */
import { PlainError } from "../plain-error.ts";

/** An address cannot be listened on. The message is for the administrator; `cause` is the system's error. */
export class ListenError extends PlainError {
  override readonly name = "ListenError";
  readonly code = "PMILTER_ERR_LISTEN";
}

/** The code of a system error. */
export function codeOf(cause: unknown): unknown {
  return (cause as { code?: unknown } | null)?.code;
}

/** Bun names the path in its message, but not the error; the code is what helps. */
export function reason(cause: unknown): string {
  const { message } = toError(cause);
  const code = codeOf(cause);
  return typeof code === "string" && !message.includes(code) ? `${message} (${code})` : message;
}

export function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
