/**
 * Whether a worker holds too much memory. Several looks have to agree, and a worker's own report counts as long as it
 * reports: the memory that a handler needs for a single message costs no worker, however slow the machine is. Pure.
 *
 * Bun 1.4.5 has no limit of its own for a worker's heap: it ignores `resourceLimits` (docs/bun.md, "Threads").
 */
import { MEMORY_AT_MOST, MEMORY_MS } from "../policy.ts";

/** A look at a worker. */
export interface MemoryLook {
  readonly elapsedMs: number;
  /** It has returned to its event loop since the look before. */
  readonly hasReturned: boolean;
  /** It has not for a while: its last report is old. */
  readonly isSilent: boolean;
  /** Bytes of its heap, as it reported last. */
  readonly heapBytes: number;
  /** Resident bytes of the whole process. */
  readonly residentBytes: number;
  /** They are more than all workers together may hold. */
  readonly isShort: boolean;
  /** `limits.worker_memory`. */
  readonly limit: number;
}

export class WorkerMemory {
  /** Resident bytes of the process when this worker last returned to its event loop. */
  #residentThen = 0;
  #residentNow = 0;
  /** Milliseconds for which it has reported more than the limit, and more than twice the limit. */
  #overMs = 0;
  #farOverMs = 0;
  /** Number of looks in a row that found it over `MEMORY_AT_MOST` times the limit. */
  #looks = 0;

  look({ elapsedMs, hasReturned, isSilent, heapBytes, residentBytes, isShort, limit }: MemoryLook): void {
    this.#residentNow = residentBytes;
    if (hasReturned) this.#residentThen = residentBytes;
    const most = MEMORY_AT_MOST * limit;
    const isEating = isSilent && isShort && heapBytes + this.grownBytes > most;
    this.#looks = isEating || heapBytes > most ? this.#looks + 1 : 0;
    // The report from before it fell silent is not counted again: it may not be true any more.
    if (isSilent) return;
    this.#overMs = heapBytes > limit ? this.#overMs + elapsedMs : 0;
    this.#farOverMs = heapBytes > 2 * limit ? this.#farOverMs + elapsedMs : 0;
  }

  /** Bytes by which the process has grown since this worker last returned to its event loop. */
  get grownBytes(): number {
    return Math.max(0, this.#residentNow - this.#residentThen);
  }

  /** It holds more than the limit: it is to be replaced, and may finish its sessions. */
  get isMuch(): boolean {
    return this.#overMs >= MEMORY_MS;
  }

  /** It holds so much that it is to be ended at once. */
  get isTooMuch(): boolean {
    return this.#farOverMs >= MEMORY_MS || this.#looks > 1;
  }

  /** Another worker was ended for its memory: the growth of the process counts against this worker from new looks only. */
  lookAgain(): void {
    this.#looks = 0;
  }
}
