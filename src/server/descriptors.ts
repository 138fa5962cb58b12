/** The descriptors of this process: how many it may have, how many connections that leaves room for, which are the same. */
import { fstatSync, readFileSync } from "node:fs";

/** A connection takes two: the main thread's and the worker's. */
const PER_CONNECTION = 2;
/** Kept for everything else: listeners, files, the runtime, what handlers open. */
const RESERVED = 200;

/** The soft limit of open files; null where it cannot be read (no /proc). */
export function descriptorLimit(): number | null {
  let limits: string;
  try {
    limits = readFileSync("/proc/self/limits", "utf8");
  } catch {
    return null;
  }
  const match = /^Max open files\s+(\d+)/m.exec(limits);
  return match === null ? null : Number(match[1]);
}

/** The connections that fit into a descriptor limit, at most `wanted`, at least one. */
export function connectionsThatFit(wanted: number, limit: number | null): number {
  if (limit === null) return wanted;
  return Math.max(1, Math.min(wanted, Math.floor((limit - RESERVED) / PER_CONNECTION)));
}

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
