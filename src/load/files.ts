/** Looks at files that may not be there, or not be reachable: links that lead to themselves, folders that are closed. */
import { realpathSync, type Stats, statSync } from "node:fs";
import { readRegularFile } from "../regular-file.ts";

export function statOf(path: string): Stats | null {
  try {
    // For a missing file, the most frequent case, this costs no exception.
    return statSync(path, { throwIfNoEntry: false }) ?? null;
  } catch {
    return null;
  }
}

export function isFile(path: string): boolean {
  return statOf(path)?.isFile() === true;
}

/** Where a path leads once all links in it are followed. */
export function realPath(path: string): string | null {
  if (statOf(path) === null) return null;
  try {
    return realpathSync.native(path);
  } catch {
    return null;
  }
}

export function readText(path: string): string | null {
  try {
    return readRegularFile(path).toString("utf8");
  } catch {
    return null;
  }
}
