/** Where in a handler's source something happened: read from stack traces, which show the TypeScript lines. */

export interface Site {
  readonly file: string;
  /** From 1; 0 if only the file is known. */
  readonly line: number;
  /** From 1; 0 if not known. */
  readonly column: number;
}

/** Frames of pmilter's own sources are passed over: they are below this folder, in the repository and in a binary. */
const OWN_SOURCES = new URL("..", import.meta.url).pathname;

/** The first frame of an error's stack that is not pmilter's own, null if there is none. */
export function siteOf(error: unknown): Site | null {
  const stack = stackOf(error);
  for (const match of stack.matchAll(/^\s*at (?:.*\()?(?:file:\/\/)?(\/[^\n]*?):(\d+)(?::(\d+))?\)?$/gm)) {
    const file = match[1]!;
    if (!file.startsWith(OWN_SOURCES)) return { file, line: Number(match[2]), column: Number(match[3] ?? 0) };
  }
  return null;
}

function stackOf(error: unknown): string {
  try {
    const stack = error instanceof Error ? error.stack : undefined;
    return typeof stack === "string" ? stack : "";
  } catch {
    // A getter of the handler's own making.
    return "";
  }
}

/** What was thrown, in words. Anything can be thrown: a value that has no words for itself must do no harm here. */
export function describeThrown(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : `thrown: ${String(error)}`;
  } catch {
    return "thrown: a value that cannot be shown";
  }
}
