/**
 * The thread behind a worker: starts it, turns its messages into calls, and ends it within a bound. What a worker is
 * for is not known here.
 */
import type { FromWorker, ToWorker } from "../../shared/messages.ts";
import { sizeOf } from "../../shared/outbox.ts";
import { NATIVE_MS } from "../policy.ts";
import { within } from "../../shared/within.ts";

export interface WorkerEvents {
  message(message: FromWorker): void;
  /** The thread is gone, asked to or not. Called once. */
  gone(reason: string): void;
}

/** A worker is told after so much of its text has been taken. */
const TAKEN_AT_ONCE = 64 * 1024;

export class WorkerThread {
  readonly #worker: Worker;
  readonly #gone = Promise.withResolvers<void>();
  /** Threads that were told to end and have not: each is in a native call that has not returned. */
  static stuck = 0;
  /** Threads that were told to end and have not yet, stuck or not. */
  static ending = 0;
  #isEnding = false;
  #isStuck = false;
  /** Text that it sent and has not been told of. */
  #takenText = 0;
  #isGone = false;
  #reason = "it ended by itself";

  constructor(url: URL, events: WorkerEvents) {
    // Without it, Bun 1.4.5 gives a worker the environment that the process began with (docs/bun.md, "Threads").
    this.#worker = new Worker(url.href, { env: { ...process.env } as Record<string, string> });
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => {
      events.message(event.data);
      this.#takenText += sizeOf(event.data);
      if (this.#takenText < TAKEN_AT_ONCE) return;
      this.post({ kind: "taken", size: this.#takenText });
      this.#takenText = 0;
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#reason = event.message.split("\n")[0] ?? "an error";
    };
    this.#worker.addEventListener("close", () => {
      if (this.#isGone) return;
      this.#isGone = true;
      if (this.#isStuck) WorkerThread.stuck -= 1;
      if (this.#isEnding) WorkerThread.ending -= 1;
      this.#gone.resolve();
      events.gone(this.#reason);
    });
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  post(message: ToWorker): void {
    if (!this.#isGone) this.#worker.postMessage(message);
  }

  /** Ends the thread; settles when it is gone, or after {@link NATIVE_MS}: a blocking native call cannot be ended. */
  async terminate(): Promise<void> {
    if (this.#isGone || this.#isStuck) return;
    if (!this.#isEnding) WorkerThread.ending += 1;
    this.#isEnding = true;
    // In Bun 1.4.5 its promise settles before the thread is gone, or never: the close event counts (docs/bun.md, "Threads").
    this.#worker.terminate();
    await within(this.#gone.promise, NATIVE_MS);
    // Another call may have waited for the same end.
    if (this.#isGone || this.#isStuck) return;
    this.#isStuck = true;
    WorkerThread.stuck += 1;
  }
}
