/**
 * Whether one worker holds too much memory, as several looks agree. What counts is amounts, and its own word where it has
 * one: what a handler needs for a single message costs no worker, however slow the machine is. Pure.
 *
 * Bun 1.4.5 has no limit of its own for a worker's heap: it ignores `resourceLimits` (docs/bun.md, "Threads").
 */
import { MEMORY_AT_MOST, MEMORY_MS } from "../policy.ts";

/** One look at a worker. */
export interface MemoryLook {
  readonly elapsedMs: number;
  /** It has returned to its event loop since the look before. */
  readonly hasReturned: boolean;
  /** It has not for a while: what it said last is old. */
  readonly isSilent: boolean;
  /** As it said last. */
  readonly heapBytes: number;
  /** Of the whole process. */
  readonly residentBytes: number;
  /** That is more than all workers together may hold. */
  readonly isShort: boolean;
  /** `limits.worker_memory`. */
  readonly limit: number;
}

export class WorkerMemory {
  /** What the process held when this worker last returned to its event loop. */
  #residentThen = 0;
  #residentNow = 0;
  /** For how long it has said that it holds more than the limit, and more than twice that. */
  #overMs = 0;
  #farOverMs = 0;
  /** Looks in a row that found it over all bounds. */
  #looks = 0;

  look({ elapsedMs, hasReturned, isSilent, heapBytes, residentBytes, isShort, limit }: MemoryLook): void {
    this.#residentNow = residentBytes;
    if (hasReturned) this.#residentThen = residentBytes;
    const most = MEMORY_AT_MOST * limit;
    const isEating = isSilent && isShort && heapBytes + this.grownBytes > most;
    this.#looks = isEating || heapBytes > most ? this.#looks + 1 : 0;
    // What was said before it fell silent is not said again: nobody knows whether it still holds.
    if (isSilent) return;
    this.#overMs = heapBytes > limit ? this.#overMs + elapsedMs : 0;
    this.#farOverMs = heapBytes > 2 * limit ? this.#farOverMs + elapsedMs : 0;
  }

  /** By how much the process has grown since this worker last returned to its event loop. */
  get grownBytes(): number {
    return Math.max(0, this.#residentNow - this.#residentThen);
  }

  /** More than the limit: it is to be replaced. */
  get isMuch(): boolean {
    return this.#overMs >= MEMORY_MS;
  }

  /** It is to be ended, whatever it has at hand. */
  get isTooMuch(): boolean {
    return this.#farOverMs >= MEMORY_MS || this.#looks > 1;
  }

  /** Another worker was ended for its memory: whether this one is over all bounds is found by new looks. */
  lookAgain(): void {
    this.#looks = 0;
  }
}
