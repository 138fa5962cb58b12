/**
 * Reads files that a configuration names. They must be regular files: opening a named pipe waits for a writer, and a device
 * may never end.
 */
import { readFileSync, type Stats, statSync } from "node:fs";

/**
 * @param maxBytes the largest file that is read
 * @throws the system's error; Error if the path leads to something else, or to a file that is too large
 */
export function readRegularFile(path: string, maxBytes = Number.POSITIVE_INFINITY): Buffer {
  checkRegular(statSync(path), maxBytes);
  return readFileSync(path);
}

/** @throws Error with the code that a read of a folder has; Error for a pipe, socket or device, or a file that is too large */
export function checkRegular(stats: Stats, maxBytes = Number.POSITIVE_INFINITY): void {
  if (stats.isDirectory()) throw Object.assign(new Error("expected a file, got a folder"), { code: "EISDIR" });
  if (!stats.isFile()) throw new Error(`expected a file, got ${kindOf(stats)}`);
  if (stats.size > maxBytes) throw new Error(`expected at most ${maxBytes} bytes, got ${stats.size}`);
}

function kindOf(stats: Stats): string {
  if (stats.isFIFO()) return "a named pipe";
  return stats.isSocket() ? "a socket" : "a device";
}
