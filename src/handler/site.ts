/** Where in a handler's source something happened: read from stack traces, which show the TypeScript lines. */
import { fileURLToPath } from "node:url";
import { bundledSource } from "../shipped.ts";

export interface Site {
  readonly file: string;
  /** From 1; 0 if only the file is known. */
  readonly line: number;
  /** From 1; 0 if not known. */
  readonly column: number;
}

/** Frames of pmilter's own sources are passed over: in the repository they are below this folder. */
const OWN_SOURCES = fileURLToPath(new URL("..", import.meta.url));
/** The run-time code of Ruby handlers; in a binary it lies among our own files. */
const OPAL = "/node_modules/opal-runtime/";

/** Code that was made from another language, by the name that its frames have: where its places lie in the source. */
const compiled = new Map<string, (line: number, column: number) => Site>();

/** From now on, frames of `name` stand for what `locate` says. */
export function placeCompiled(name: string, locate: (line: number, column: number) => Site): void {
  compiled.set(name, locate);
}

/** Frames that are looked at. */
const MAX_FRAMES = 50;
/** Characters of a line that can be a frame. */
const MAX_FRAME_LENGTH = 1000;

/** The first frame of an error's stack that is not pmilter's own, null if there is none. */
export function siteOf(error: unknown): Site | null {
  for (const site of sitesOf(error)) return site;
  return null;
}

/** The frames of an error's stack that are not pmilter's own, innermost first. */
export function* sitesOf(error: unknown): Generator<Site> {
  for (const line of framesOf(error)) {
    const match = /^ {4}at (?:async )?(?:.* \()?(?:file:\/\/)?(\/.*?|handlers\/.*?):(\d+)(?::(\d+))?\)?$/.exec(line);
    if (match === null) continue;
    const file = match[1]!.startsWith("/") ? match[1]! : bundledSource(match[1]!);
    if (file.startsWith(OWN_SOURCES) || file.includes(OPAL)) continue;
    const place = { file, line: Number(match[2]), column: Number(match[3] ?? 0) };
    yield compiled.get(file)?.(place.line, place.column) ?? place;
  }
}

/**
 * The frames of a stack. In front of them stands the error's message, which may have text from a client: it is never
 * taken for a frame, whatever it looks like, and however long it is.
 */
function framesOf(error: unknown): string[] {
  try {
    if (!(error instanceof Error) || typeof error.stack !== "string") return [];
    const head = `${error.name}: ${error.message}`;
    const frames = error.stack.startsWith(head) ? error.stack.slice(head.length) : error.stack;
    const lines = frames.split("\n");
    const first = lines.findLastIndex((line) => !line.startsWith("    at ")) + 1;
    return lines.slice(first, first + MAX_FRAMES).filter((line) => line.length <= MAX_FRAME_LENGTH);
  } catch {
    // A getter of the handler's own making.
    return [];
  }
}

/** An exception in words. Anything can be thrown, also a value that cannot be turned into text. */
export function describeThrown(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : `thrown: ${String(error)}`;
  } catch {
    return "thrown: a value that cannot be shown";
  }
}
