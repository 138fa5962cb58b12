/** Errors that are said to users as they are, and the reading of errors that the system gives. */

/** Said to the user without a stack: a configuration, a handler, an address, a file is wrong. */
export class PlainError extends Error {
  /** What is wrong, one by one; the message has them all. */
  get problems(): readonly string[] {
    return [this.message];
  }
}

export function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** The code of a system error, such as `ENOENT`. */
export function codeOf(cause: unknown): unknown {
  return (cause as { code?: unknown } | null)?.code;
}

/** The message of an error, with its code: Bun names the path in its message, but not the error. */
export function reason(cause: unknown): string {
  const { message } = toError(cause);
  const code = codeOf(cause);
  return typeof code === "string" && !message.includes(code) ? `${message} (${code})` : message;
}

/** Why a file cannot be read, from the error of trying; a caller may say more of what it expected, or of the permission. */
export function whyNotRead(
  cause: unknown,
  words: { readonly expected?: string; readonly denied?: string } = {},
): string {
  switch (codeOf(cause)) {
    case "ENOENT":
    case "ENOTDIR":
    case "ELOOP":
      return "there is no such file";
    case "EISDIR":
      return `expected ${words.expected ?? "a file"}, got a folder`;
    case "EACCES":
    case "EPERM":
      return words.denied ?? `no permission to read it as uid ${process.geteuid?.()}`;
    default:
      return reason(cause);
  }
}
