/** Memory that grows at its end. */
import { decodeText, EMPTY, freeBytes } from "../../protocol/bytes.ts";

/** Enough for most envelopes with their headers; up to here a buffer lies in the collector's heap, and costs half as much. */
const INITIAL_BYTES = 1000;
const LF = 0x0a;
const CR = 0x0d;

/** Bytes in a row, appended at the end. */
export class Arena {
  #bytes: Uint8Array = EMPTY;
  #used = 0;

  get used(): number {
    return this.#used;
  }

  /** Copies `bytes[start, end)` behind the rest and gives its offset. */
  append(bytes: Uint8Array, start: number, end: number): number {
    const offset = this.#used;
    const needed = offset + end - start;
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#bytes.length, INITIAL_BYTES));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    // The same as `set(bytes.subarray(start, end))`, without the view.
    Buffer.prototype.copy.call(bytes, this.#bytes, offset, start, end);
    this.#used = needed;
    return offset;
  }

  /** Drops the bytes from `offset` on. */
  truncate(offset: number): void {
    this.#used = offset;
  }

  text(start: number, end: number): string {
    return decodeText(this.#bytes, start, end);
  }

  copy(target: Uint8Array, offset: number, start: number, end: number): void {
    Buffer.prototype.copy.call(this.#bytes, target, offset, start, end);
  }

  byteAt(at: number): number {
    return this.#bytes[at]!;
  }

  indexOf(byte: number, from: number): number {
    return this.#bytes.indexOf(byte, from);
  }

  /** Gives the memory back now: a collector would wait. No view of it may be left. */
  free(): void {
    freeBytes(this.#bytes);
    this.#bytes = EMPTY;
    this.#used = 0;
  }

  /** Somebody who has a view has given the memory away. */
  get isTransferred(): boolean {
    return this.#used > 0 && this.#bytes.length === 0;
  }

  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#used);
  }

  /** Number of line ends from `start` on that are a bare LF. */
  bareLinesFrom(start: number): number {
    let count = 0;
    for (let at = this.#bytes.indexOf(LF, start); at !== -1 && at < this.#used; at = this.#bytes.indexOf(LF, at + 1)) {
      if (this.#bytes[at - 1] !== CR) count += 1;
    }
    return count;
  }
}
