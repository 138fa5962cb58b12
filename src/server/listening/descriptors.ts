/** The descriptors of this process: their limit, and the number of connections that it leaves room for. */
import { readFileSync } from "node:fs";
import { close, dup } from "../../net/libc.ts";

/** A connection takes two: the main thread's and the worker's. */
const PER_CONNECTION = 2;
/** Default maximum number of connections. */
export const MAX_CONNECTIONS = 10_000;
/** Descriptors for everything else: listeners, files, the runtime, handlers. */
const RESERVED = 200;

/** Number of descriptors that are kept back. */
const SPARE = 32;
/** With fewer free descriptors besides, no connection is accepted. */
const FREE_AT_LEAST = 8;
/** Maximum number of descriptors that Bun opens while it starts a worker, with its sources. */
const WORKER_NEEDS = 16;
/** Time that a worker has to start, in milliseconds. */
const WORKER_START_MS = 2000;

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

/** Number of connections that fit into a descriptor limit: at most `wanted`, at least 1. */
export function connectionsThatFit(wanted: number, limit: number | null): number {
  if (limit === null) return wanted;
  return Math.max(1, Math.min(wanted, Math.floor((limit - RESERVED) / PER_CONNECTION)));
}

/**
 * Number of connections that there is room for: fewer while bodies are in the spool, and while threads that do not end keep
 * descriptors. A lost worker keeps a
 * descriptor for each connection that it had until its thread has ended, and a thread in a native call may never end.
 */
export class ConnectionRoom {
  readonly #wanted: number;
  readonly #limit: number | null;
  /** Descriptors by the row of the worker that keeps them. */
  readonly #kept = new Map<number, number>();
  /** Descriptors of bodies in the spool. */
  spooled = 0;

  /** @param wanted the number that fits while no thread keeps any */
  constructor(wanted: number, limit: number | null) {
    this.#wanted = wanted;
    this.#limit = limit;
  }

  /** A lost worker keeps so many further descriptors. */
  keep(row: number, count: number): void {
    if (count > 0) this.#kept.set(row, (this.#kept.get(row) ?? 0) + count);
  }

  /** The thread of a lost worker has ended, and its descriptors are closed. */
  giveBack(row: number): void {
    this.#kept.delete(row);
  }

  /** Number of descriptors that lost workers keep. */
  get kept(): number {
    return this.#kept.values().reduce((sum, count) => sum + count, 0);
  }

  get connections(): number {
    return connectionsThatFit(this.#wanted, this.#limit === null ? null : this.#limit - this.kept - this.spooled);
  }
}

/**
 * Whether so many more can be opened now.
 *
 * @param source any open descriptor: duplicates of it are made and closed
 */
export function canOpen(source: number, count: number): boolean {
  const opened: number[] = [];
  try {
    while (opened.length < count) opened.push(dup(source));
    return true;
  } catch {
    return false;
  } finally {
    for (const descriptor of opened) close(descriptor);
  }
}

/**
 * Descriptors that are kept back, for when handlers or connections have used up all others: Bun 1.4.5 ends the process if
 * it cannot open what the start of a worker needs (docs/bun.md, "Threads").
 */
export class SpareDescriptors {
  readonly #source: number;
  #reserve: number[] = [];
  #releasedAt = Number.NEGATIVE_INFINITY;

  /** @param source any open descriptor: they are duplicates of it */
  constructor(source: number) {
    this.#source = source;
    this.#fill();
  }

  /**
   * A worker is about to be started: it may use them.
   * @throws Error if there are none
   */
  release(): void {
    for (const descriptor of this.#reserve.splice(0)) close(descriptor);
    if (!canOpen(this.#source, WORKER_NEEDS)) throw new Error("no file descriptors are left to start a worker with");
    this.#releasedAt = performance.now();
  }

  /** Keeps them back again once a worker has had its time. @returns false if no descriptors are left besides */
  look(): boolean {
    const isInUse = performance.now() - this.#releasedAt < WORKER_START_MS;
    return (isInUse || this.#fill()) && canOpen(this.#source, FREE_AT_LEAST);
  }

  close(): void {
    for (const descriptor of this.#reserve.splice(0)) close(descriptor);
  }

  #fill(): boolean {
    try {
      while (this.#reserve.length < SPARE) this.#reserve.push(dup(this.#source));
      return true;
    } catch {
      return false;
    }
  }
}
