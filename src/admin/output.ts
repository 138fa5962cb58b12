/**
 * Lines to a descriptor without ever blocking this thread: one write is under way at a time, the rest waits in a
 * bounded queue. When the reader is too slow for it, lines are dropped and counted, and the count is written as soon as
 * there is room.
 */
import { write } from "node:fs";

/** Bytes that may wait. */
const MAX_QUEUED_BYTES = 4 * 1024 * 1024;

export class Output {
  readonly #descriptor: number;
  readonly #maxQueuedBytes: number;
  /** Makes the line that tells of dropped ones. */
  readonly #describeDropped: (lines: number) => string;
  #queue: string[] = [];
  #queuedBytes = 0;
  #isWriting = false;
  #dropped = 0;
  #droppedInAll = 0;
  #idle: (() => void)[] = [];

  constructor(descriptor: number, describeDropped: (lines: number) => string, maxQueuedBytes = MAX_QUEUED_BYTES) {
    this.#descriptor = descriptor;
    this.#describeDropped = describeDropped;
    this.#maxQueuedBytes = maxQueuedBytes;
  }

  /** Pieces of text that were dropped since the start: mostly one line each. */
  get dropped(): number {
    return this.#droppedInAll;
  }

  /** Queues whole lines. */
  push(text: string): void {
    if (this.#queuedBytes + text.length > this.#maxQueuedBytes) {
      this.#dropped += 1;
      this.#droppedInAll += 1;
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

  #write(): void {
    if (this.#dropped > 0) {
      this.#queue.push(this.#describeDropped(this.#dropped));
      this.#dropped = 0;
    }
    if (this.#queue.length === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    this.#isWriting = true;
    const bytes = Buffer.from(this.#queue.join(""));
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
      if (error === null && from + written < bytes.length) {
        this.#writeFrom(bytes, from + written);
        return;
      }
      // A reader that is gone (EPIPE) or a full disk: there is nobody to tell; the mail goes on.
      this.#isWriting = false;
      this.#write();
    });
  }
}
