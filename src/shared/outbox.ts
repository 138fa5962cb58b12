/**
 * What a worker sends to the main thread. Text (log lines and prints) is bounded: a handler that prints without an end
 * must not fill the memory of the process with messages that wait. What is over the bound is dropped, counted, and told
 * of once there is room.
 */
import type { FromWorker } from "./messages.ts";

/** Characters that may be on their way. */
const MAX_PENDING = 4 * 1024 * 1024;

export class Outbox {
  readonly #send: (message: FromWorker) => void;
  readonly #maxPending: number;
  #pending = 0;
  #dropped = 0;
  /** Called for each piece of text that is dropped. */
  onDropped: () => void = () => {};

  constructor(send: (message: FromWorker) => void, maxPending = MAX_PENDING) {
    this.#send = send;
    this.#maxPending = maxPending;
  }

  post(message: FromWorker): void {
    const size = sizeOf(message);
    if (size > 0 && this.#pending + size > this.#maxPending) {
      this.#dropped += 1;
      this.onDropped();
      return;
    }
    this.#pending += size;
    this.#send(message);
  }

  /** The main thread has taken so much text. */
  taken(size: number): void {
    this.#pending -= size;
    if (this.#dropped === 0) return;
    const text = `${this.#dropped} lines of a worker were dropped: they came faster than they could be taken`;
    // Told once there is room for that as well: else the count would be lost with the line.
    if (this.#pending + text.length > this.#maxPending) return;
    this.#dropped = 0;
    this.post({ kind: "log", level: "warn", text, fields: {}, of: "lines of a worker were dropped" });
  }
}

/** Characters of text in a message; 0 for what is not text. */
export function sizeOf(message: FromWorker): number {
  if (message.kind === "print" || message.kind === "log") return message.text.length;
  return 0;
}
