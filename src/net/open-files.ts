/** Facts about an open file, by its descriptor. */
import { fstatSync, lstatSync } from "node:fs";

/** Whether two descriptors are open and lead to the same socket or file. */
export function isSameFile(first: number, second: number): boolean {
  try {
    const [a, b] = [fstatSync(first, { bigint: true }), fstatSync(second, { bigint: true })];
    return a.ino === b.ino && a.dev === b.dev;
  } catch {
    // Not open.
    return false;
  }
}

/** A path to an open folder that cannot be redirected by a link; null where the system has none (macOS, no /proc). */
export function byDescriptor(fd: number): string | null {
  const path = `/proc/self/fd/${fd}`;
  try {
    lstatSync(path);
    return path;
  } catch {
    return null;
  }
}
