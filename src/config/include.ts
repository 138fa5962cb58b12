/**
 * The files that `include` names: found by pattern, in the order in which their filters run, and read. What is in them is
 * for load.ts to judge.
 */
import { readdirSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { whyNotRead } from "../errors.ts";
import { readRegularFile } from "../regular-file.ts";
import { show } from "./errors.ts";

/** A file that `include` names. */
export interface IncludedFile {
  /** Absolute. */
  readonly path: string;
  /** As messages show it: beside the configuration's name as it was given. */
  readonly name: string;
  /** The entry of `include` that names it. */
  readonly pattern: string;
}

/** Why a pattern of `include` cannot be used. */
export interface IncludeFault {
  /** Its place in the list of patterns. */
  readonly index: number;
  readonly text: string;
  readonly cause?: unknown;
}

/** Characters that make a file name a pattern. */
const WILDCARD = /[*?[\]{}]/;

/** Why a text is no pattern, in words; null if it is one. */
export function problemOfPattern(pattern: string): string | null {
  if (pattern.endsWith("/")) return `it names a folder; its files are ${show(`${pattern}*.toml`)}`;
  const folder = dirname(pattern);
  return WILDCARD.test(folder) ? "only the file name may have wildcards, not its folder" : null;
}

/**
 * The files of some patterns: in the order of the patterns, those of one pattern by name, byte by byte; a file that
 * several patterns name counts where it is named first.
 * @param file the configuration, as messages name it
 */
export function findIncluded(
  patterns: readonly string[],
  file: string,
): { readonly files: readonly IncludedFile[]; readonly faults: readonly IncludeFault[] } {
  const own = resolve(file);
  const found = new Map<string, IncludedFile>();
  const faults: IncludeFault[] = [];
  for (const [index, pattern] of patterns.entries()) {
    const folder = dirname(pattern);
    try {
      for (const each of namesOf(resolve(dirname(own), folder), basename(pattern))) {
        const path = join(resolve(dirname(own), folder), each);
        const name = isAbsolute(pattern) ? path : join(dirname(file), folder, each);
        if (path === own) {
          const text = `${show(pattern)} names this file as well; expected files of a folder of their own`;
          faults.push({ index, text });
        } else if (!found.has(path)) found.set(path, { path, name, pattern });
      }
    } catch (cause) {
      const why = whyNotRead(cause, { denied: "permission denied" });
      faults.push({ index, text: `the folder of ${show(pattern)} cannot be read: ${why}`, cause });
    }
  }
  return { files: [...found.values()], faults };
}

/** The names in a folder that a pattern matches. A name without wildcards is taken as it is, there or not. */
function namesOf(folder: string, pattern: string): string[] {
  if (!WILDCARD.test(pattern)) return [pattern];
  const glob = new Bun.Glob(pattern.replace(/^!/, "\\!"));
  // Hidden files, such as an editor's, are matched by patterns that begin with a dot only.
  const mayMatch = (name: string) => name.startsWith(".") === pattern.startsWith(".") && glob.match(name);
  const names = entriesOf(folder).filter(mayMatch);
  return names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/** A folder that is not there has no files. */
function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return [];
    throw error;
  }
}

/** More than any configuration has: a pattern may lead to other files. */
const MAX_BYTES = 16 * 1024 * 1024;

/** @throws the system's error; Error if it is no file, or too large */
export function readIncluded({ path }: IncludedFile): Uint8Array {
  return readRegularFile(path, MAX_BYTES);
}
