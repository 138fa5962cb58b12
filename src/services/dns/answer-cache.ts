/** Answers that are kept for their time: bounded in number and in bytes, the least recently used go first. */
import type { Answer } from "../../dns/answer.ts";

/** Bytes for each answer that may be kept, on average: most have less than 300. */
const BYTES_EACH = 2048;
/** Bytes of an answer and its key beside its records. */
const BYTES_BESIDE = 200;

interface Kept {
  readonly answer: Answer;
  /** In milliseconds on the clock of the cache. */
  readonly until: number;
  readonly bytes: number;
}

export class AnswerCache {
  readonly #size: number;
  readonly #now: () => number;
  /** The least recently used first. */
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;

  /**
   * @param size answers that are kept
   * @param now milliseconds on a clock that never goes back
   */
  constructor(size: number, now: () => number) {
    this.#size = size;
    this.#now = now;
  }

  get entries(): number {
    return this.#kept.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: string): Answer | null {
    const kept = this.#take(key);
    if (kept === null) return null;
    const left = (kept.until - this.#now()) / 1000;
    if (left <= 0) return null;
    this.#put(key, kept);
    return { ...kept.answer, ttl: Math.floor(left) };
  }

  keep(key: string, answer: Answer): void {
    const bytes = BYTES_BESIDE + key.length + sizeOf(answer);
    const most = this.#size * BYTES_EACH;
    if (answer.ttl <= 0 || bytes > most) return;
    this.#take(key);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size < this.#size && this.#bytes + bytes <= most) break;
      this.#take(oldest);
    }
    this.#put(key, { answer, until: this.#now() + answer.ttl * 1000, bytes });
  }

  clear(): void {
    this.#kept.clear();
    this.#bytes = 0;
  }

  #take(key: string): Kept | null {
    const kept = this.#kept.get(key);
    if (kept === undefined) return null;
    this.#kept.delete(key);
    this.#bytes -= kept.bytes;
    return kept;
  }

  #put(key: string, kept: Kept): void {
    this.#kept.set(key, kept);
    this.#bytes += kept.bytes;
  }
}

function sizeOf({ records }: Answer): number {
  let bytes = 0;
  for (const record of records) {
    if (typeof record === "string") bytes += 32 + record.length;
    else for (const field of Object.values(record)) bytes += 32 + (typeof field === "string" ? field.length : 0);
  }
  return bytes;
}
