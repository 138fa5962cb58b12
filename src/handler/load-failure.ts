/** Why a handler could not be loaded, and where in which file, from the exception of its import. */
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { describeThrown, siteOf } from "./site.ts";
import { PlainError, whyNotRead } from "../errors.ts";
import { checkRegular } from "../regular-file.ts";

/** Why a handler could not be loaded; plain data, it travels between threads. */
export interface LoadFailure {
  readonly file: string;
  /** From 1; 0 if not known. */
  readonly line: number;
  /** From 1; 0 if not known. */
  readonly column: number;
  readonly message: string;
  /** Further problems, each with its place: a load can fail for several. */
  readonly further?: readonly string[];
}

export class LoadError extends PlainError {
  override readonly name = "LoadError";
  readonly failure: LoadFailure;

  override get problems(): readonly string[] {
    return problemsOf(this.failure);
  }

  constructor(failure: LoadFailure, cause: unknown) {
    super(formatFailure(failure), { cause });
    this.failure = failure;
  }
}

/** `file:line:column: message`, as compilers write it; further problems on lines of their own. */
export function formatFailure(failure: LoadFailure): string {
  return problemsOf(failure).join("\n");
}

/** Several failures as one. @param failures at least one */
export function joined([first, ...others]: readonly LoadFailure[]): LoadFailure {
  return { ...first!, further: [...(first!.further ?? []), ...others.flatMap(problemsOf)] };
}

function problemsOf({ file, line, column, message, further = [] }: LoadFailure): string[] {
  const place = line > 0 ? `:${line}${column > 0 ? `:${column}` : ""}` : "";
  return [`${file}${place}: ${message}`, ...further];
}

/** Where an error of loading or starting lies: a syntax error's position, else the first line of a handler's stack. */
export function failureOf(error: unknown, file: string): LoadFailure {
  const syntax = error instanceof AggregateError ? error.errors[0] : error;
  const position = positionOf(syntax) ?? importOf(syntax, file);
  if (position !== null) return { ...position, message: messageOf(syntax) };
  const site = siteOf(error);
  return { file: site?.file ?? file, line: site?.line ?? 0, column: site?.column ?? 0, message: messageOf(error) };
}

/** Bun's BuildMessage and ResolveMessage carry a position. */
function positionOf(error: unknown): Omit<LoadFailure, "message"> | null {
  if (typeof error !== "object" || error === null || !("position" in error)) return null;
  const position = error.position as { file?: unknown; line?: unknown; column?: unknown } | null;
  if (position === null || typeof position.file !== "string" || typeof position.line !== "number") return null;
  const column = typeof position.column === "number" ? position.column : 0;
  return { file: position.file, line: position.line, column };
}

/**
 * Why an entry file cannot be read, null if that did not go wrong: Bun 1.4.5 says "Cannot find module" whatever the reason
 * (docs/bun.md, "Modules").
 */
export function unreadable(file: string, error: unknown): LoadFailure | null {
  if (typeof error !== "object" || error === null || !("specifier" in error) || error.specifier !== file) return null;
  const message = whyUnreadable(file);
  return message === null ? null : { file, line: 0, column: 0, message };
}

/** Why a file cannot be read, null if it can. */
export function whyUnreadable(file: string): string | null {
  try {
    accessSync(file, constants.R_OK);
    checkRegular(statSync(file));
    return null;
  } catch (cause) {
    return whyNotRead(cause, {
      denied: `no permission to read it, or a folder above it, as uid ${process.geteuid?.()}`,
    });
  }
}

/** The place of an import that leads nowhere: Bun 1.4.5 names the importing file and the specifier, but not the place. */
function importOf(error: unknown, entry: string): Omit<LoadFailure, "message"> | null {
  if (typeof error !== "object" || error === null || !("referrer" in error) || !("specifier" in error)) return null;
  const { referrer: file, specifier } = error;
  if (typeof file !== "string" || typeof specifier !== "string" || specifier === entry) return null;
  try {
    return { file, ...placeOfSpecifier(readFileSync(file, "utf8"), specifier) };
  } catch {
    return null;
  }
}

/** Where a module is imported in a source text: the line and column of its quoted specifier, 0 if it is not found. */
export function placeOfSpecifier(text: string, specifier: string): { line: number; column: number } {
  const at = text.search(new RegExp(`["']${RegExp.escape(specifier)}["']`));
  if (at === -1) return { line: 0, column: 0 };
  const before = text.slice(0, at).split("\n");
  return { line: before.length, column: before.at(-1)!.length + 1 };
}

export function messageOf(error: unknown): string {
  try {
    if (error instanceof Error) return error.message === "" ? error.name : String(error.message);
    // Bun's build and resolve messages are no errors, and have a message.
    if (typeof error === "object" && error !== null && "message" in error) return String(error.message);
  } catch {
    // As for any odd value.
  }
  return describeThrown(error);
}
