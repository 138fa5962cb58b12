/**
 * The thread behind a worker: starts it, turns its messages into calls, and ends it within a time limit. The purpose of a
 * worker is not known here.
 */
import type { FromWorker, ToWorker } from "../../shared/messages.ts";
import { sizeOf } from "../../shared/outbox.ts";
import { NATIVE_MS } from "../policy.ts";
import { within } from "../../within.ts";
import { Life, THREAD_TRANSITIONS, type ThreadState } from "./life.ts";

export interface WorkerEvents {
  message(message: FromWorker): void;
  /** The thread has ended, asked to or not. Called once. */
  gone(reason: string): void;
}

/** A worker is told how much of its text was taken each time that so much has been. */
const TAKEN_BYTES = 64 * 1024;

export class WorkerThread {
  /** Number of threads that are stuck: each is in a native call that has not returned. */
  static stuck = 0;
  /** Number of threads that were told to end and have not yet, stuck or not. */
  static ending = 0;
  readonly #worker: Worker;
  readonly #life = new Life<ThreadState>("a thread", THREAD_TRANSITIONS, "running");
  readonly #gone = Promise.withResolvers<void>();
  /** Text that it has sent since it was last told how much was taken. */
  #takenBytes = 0;
  #reason = "it ended by itself";

  constructor(url: URL, events: WorkerEvents) {
    // Without it, Bun 1.4.5 gives a worker the environment that the process began with (docs/bun.md, "Threads").
    this.#worker = new Worker(url.href, { env: { ...process.env } as Record<string, string> });
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => {
      events.message(event.data);
      this.#takenBytes += sizeOf(event.data);
      if (this.#takenBytes < TAKEN_BYTES) return;
      this.post({ kind: "taken", size: this.#takenBytes });
      this.#takenBytes = 0;
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#reason = event.message.split("\n")[0] ?? "an error";
    };
    this.#worker.addEventListener("close", () => {
      if (this.isGone) return;
      if (this.#life.is("stuck")) WorkerThread.stuck -= 1;
      if (this.#life.is("ending", "stuck")) WorkerThread.ending -= 1;
      this.#life.to("gone");
      this.#gone.resolve();
      events.gone(this.#reason);
    });
  }

  get isGone(): boolean {
    return this.#life.is("gone");
  }

  /** @param transfer the ports in it */
  post(message: ToWorker, transfer: MessagePort[] = []): void {
    if (!this.isGone) this.#worker.postMessage(message, transfer);
  }

  /** Ends the thread; settles when it has ended, or after {@link NATIVE_MS}: a blocking native call cannot be ended. */
  async terminate(): Promise<void> {
    if (this.#life.is("running")) {
      this.#life.to("ending");
      WorkerThread.ending += 1;
    }
    if (!this.#life.is("ending")) return;
    // In Bun 1.4.5 the promise of `terminate` settles before the thread has ended, or never: only the close event counts
    // (docs/bun.md, "Threads").
    this.#worker.terminate();
    await within(this.#gone.promise, NATIVE_MS);
    // Another call may have waited for the same end.
    if (!this.#life.is("ending")) return;
    this.#life.to("stuck");
    WorkerThread.stuck += 1;
  }
}
