/**
 * Lines to a descriptor without ever blocking this thread: a single write is under way at a time, further lines wait in a
 * bounded queue. A line that finds no room there, or cannot be written, is dropped and counted; the count is written with
 * the next line that can be written.
 */
import { write } from "node:fs";

/** Bytes that may wait. */
const MAX_QUEUED_BYTES = 4 * 1024 * 1024;
const NEWLINE = 0x0a;

export class Output {
  readonly #descriptor: number;
  readonly #maxQueuedBytes: number;
  /** Makes the line that says how many lines were dropped. */
  readonly #describeDropped: (lines: number) => string;
  #queue: string[] = [];
  #queuedBytes = 0;
  #isWriting = false;
  /** Lines dropped that nothing was said of yet. */
  #dropped = 0;
  /** Those that the batch under way tells of, in its last line. */
  #announced = 0;
  #droppedInAll = 0;
  /** The last write ended within a line. */
  #isLineCut = false;
  #idle: (() => void)[] = [];

  constructor(descriptor: number, describeDropped: (lines: number) => string, maxQueuedBytes = MAX_QUEUED_BYTES) {
    this.#descriptor = descriptor;
    this.#describeDropped = describeDropped;
    this.#maxQueuedBytes = maxQueuedBytes;
  }

  /** Lines that were dropped since the start. */
  get dropped(): number {
    return this.#droppedInAll;
  }

  /** Queues whole lines. */
  push(text: string): void {
    if (this.#queuedBytes + text.length > this.#maxQueuedBytes) {
      this.#drop(countLines(text));
      return;
    }
    this.#queue.push(text);
    this.#queuedBytes += text.length;
    if (!this.#isWriting) this.#write();
  }

  /** Settles when all is written, or after `timeoutMs`. */
  async flush(timeoutMs: number): Promise<void> {
    if (!this.#isWriting) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idle.push(resolve);
    const timer = setTimeout(resolve, timeoutMs);
    await promise;
    clearTimeout(timer);
  }

  #drop(lines: number): void {
    this.#dropped += lines;
    this.#droppedInAll += lines;
  }

  #write(): void {
    if (this.#dropped > 0) {
      this.#queue.push(this.#describeDropped(this.#dropped));
      this.#announced = this.#dropped;
      this.#dropped = 0;
    }
    if (this.#queue.length === 0) {
      this.#rest();
      return;
    }
    this.#isWriting = true;
    const bytes = Buffer.from((this.#isLineCut ? "\n" : "") + this.#queue.join(""));
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#writeFrom(bytes, 0);
  }

  #writeFrom(bytes: Buffer, from: number): void {
    write(this.#descriptor, bytes, from, bytes.length - from, null, (error, written) => {
      if (error !== null && error.code === "EAGAIN") {
        // The descriptor is shared with a program that made it non-blocking: there is no event to wait for.
        setTimeout(() => this.#writeFrom(bytes, from), 10);
        return;
      }
      if (error !== null) {
        this.#failed(bytes, from);
        return;
      }
      if (from + written < bytes.length) {
        this.#writeFrom(bytes, from + written);
        return;
      }
      this.#isWriting = false;
      this.#isLineCut = false;
      this.#announced = 0;
      this.#write();
    });
  }

  /** The reader is gone (EPIPE) or the disk is full: this cannot be reported now, and mail goes on. */
  #failed(bytes: Buffer, from: number): void {
    this.#isWriting = false;
    // A line end in front, which was to end a cut line, is none of a line that is lost.
    const isEndMissing = this.#isLineCut && from === 0;
    if (from > 0) this.#isLineCut = bytes[from - 1] !== NEWLINE;
    let lost = countLines(bytes.subarray(from)) - (isEndMissing ? 1 : 0);
    // The last line was that with the count: it does not count itself, and its count is still to be reported.
    if (this.#announced > 0) lost -= 1;
    this.#dropped += this.#announced;
    this.#announced = 0;
    this.#drop(lost);
    // Lines that came meanwhile are tried once; if there are none, the next line tries again.
    if (this.#queue.length > 0) this.#write();
    else this.#rest();
  }

  /** Nothing is left that could be written. */
  #rest(): void {
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

function countLines(text: string | Buffer): number {
  let count = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) count += 1;
  return count;
}
