/**
 * Shared memory between the main thread and its workers, a row for each worker: the lock of its writes, the beat that
 * shows that it returns to its event loop, the slot whose handler runs, its heap and its counters.
 *
 * A worker writes to a peer only while it holds the lock of its row, and brings the session's record up to date before it
 * releases the lock. So once the main thread has claimed the lock, the records agree with what the peers received.
 */
import { COUNTER_INDEX, WORKER_COUNTERS, type WorkerCounter } from "../counters.ts";

/** Bytes of a row: words, then counters as 64 bit floats. */
const ROW_BYTES = 256;
const COUNTERS_AT = 64;
const ROW = {
  LOCK: 0,
  /** The slot whose handler runs, plus 1; 0 while none does. */
  BUSY_SLOT: 1,
  /** Counts up while the worker returns to its event loop, and with each read that it has worked on. */
  BEAT: 2,
  /** Mebibytes of the worker's heap. */
  HEAP: 3,
} as const;

/** The lock of a row. */
const FREE = 0;
const WRITING = 1;
/** The main thread has taken the worker's connections from it. */
const CLAIMED = 2;

/** How often a worker's timer beats, in milliseconds. */
export const BEAT_MS = 100;

export interface WorkerRowsLayout {
  readonly buffer: SharedArrayBuffer;
  readonly rows: number;
}

export class WorkerRows {
  readonly layout: WorkerRowsLayout;
  readonly #words: Int32Array;
  readonly #counters: Float64Array;

  static create(rows: number): WorkerRows {
    return new WorkerRows({ buffer: new SharedArrayBuffer(rows * ROW_BYTES), rows });
  }

  constructor(layout: WorkerRowsLayout) {
    this.layout = layout;
    this.#words = new Int32Array(layout.buffer);
    this.#counters = new Float64Array(layout.buffer);
  }

  /** Clears a row for a new worker. */
  open(row: number): void {
    this.#words.fill(0, rowAt(row), rowAt(row + 1));
  }

  /** Taken by the worker before it writes to a peer. @returns false if the main thread has claimed its connections */
  lock(row: number): boolean {
    return Atomics.compareExchange(this.#words, rowAt(row) + ROW.LOCK, FREE, WRITING) === FREE;
  }

  unlock(row: number): void {
    Atomics.store(this.#words, rowAt(row) + ROW.LOCK, FREE);
  }

  isClaimed(row: number): boolean {
    return Atomics.load(this.#words, rowAt(row) + ROW.LOCK) === CLAIMED;
  }

  /** Takes the worker's connections from it, permanently. @returns false while it is writing: try again */
  claim(row: number): boolean {
    return Atomics.compareExchange(this.#words, rowAt(row) + ROW.LOCK, FREE, CLAIMED) !== WRITING;
  }

  /** Blocks the calling worker until its thread is ended: the main thread has claimed its connections, or is about to. */
  park(row: number): never {
    const at = rowAt(row) + ROW.LOCK;
    for (;;) Atomics.wait(this.#words, at, Atomics.load(this.#words, at), 1000);
  }

  /** A timer of the worker has run. */
  beat(row: number, heapBytes: number): void {
    const at = rowAt(row);
    Atomics.add(this.#words, at + ROW.BEAT, 1);
    this.#words[at + ROW.HEAP] = heapBytes / 2 ** 20;
  }

  /** Number of beats: it changes between two looks as long as the worker returns to its event loop. */
  beats(row: number): number {
    return Atomics.load(this.#words, rowAt(row) + ROW.BEAT);
  }

  heapBytes(row: number): number {
    return this.#words[rowAt(row) + ROW.HEAP]! * 2 ** 20;
  }

  /** A handler of the slot's session begins to run. */
  enter(row: number, slot: number): void {
    Atomics.store(this.#words, rowAt(row) + ROW.BUSY_SLOT, slot + 1);
  }

  /**
   * No handler runs any more, though one may be awaited. It counts as a beat: as long as a poll finds more than 1,024
   * sockets ready, Bun 1.4.5 polls again at once, and no timer runs (docs/bun.md, "Sockets").
   */
  leave(row: number): void {
    const at = rowAt(row);
    Atomics.store(this.#words, at + ROW.BUSY_SLOT, 0);
    Atomics.add(this.#words, at + ROW.BEAT, 1);
  }

  /** The slot whose handler runs in that worker; null if no handler runs. */
  busySlot(row: number): number | null {
    const slot = Atomics.load(this.#words, rowAt(row) + ROW.BUSY_SLOT);
    return slot === 0 ? null : slot - 1;
  }

  count(row: number, counter: WorkerCounter): void {
    this.#counters[countersAt(row) + COUNTER_INDEX[counter]]! += 1;
  }

  counters(row: number): number[] {
    const from = countersAt(row);
    return [...this.#counters.subarray(from, from + WORKER_COUNTERS.length)];
  }
}

function rowAt(row: number): number {
  return (row * ROW_BYTES) / 4;
}

function countersAt(row: number): number {
  return (row * ROW_BYTES + COUNTERS_AT) / 8;
}
