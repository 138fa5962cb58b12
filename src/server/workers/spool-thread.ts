/**
 * The thread that writes large bodies to the spool, for all workers. It is started for the first
 * large body. It is never ended for being slow: a disk may be.
 */
import type { LogLevel } from "../../admin/log-level.ts";
import { toError } from "../../errors.ts";
import type { NoSpoolLine, SpoolAssignment, SpoolLine } from "../../shared/spool-messages.ts";

export interface SpoolHost {
  /** The folder for the files; asked for at the start of the thread. */
  folder(): string;
  /** The thread is about to be started. @throws Error if no descriptors are left for it */
  starting(): void;
  log(level: LogLevel, text: string): void;
}

export class SpoolThread {
  readonly #url: URL;
  readonly #host: SpoolHost;
  readonly #openFiles = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  #thread: Worker | null = null;
  #folder = "";
  #isClosed = false;

  /** @param url of `src/spool/entry.ts` */
  constructor(url: URL, host: SpoolHost) {
    this.#url = url;
    this.#host = host;
  }

  /** Descriptors that it has open. */
  get openFiles(): number {
    return Atomics.load(this.#openFiles, 0);
  }

  /** A line for a worker, whose files end with it. */
  connect(): SpoolLine | NoSpoolLine {
    try {
      this.#thread ??= this.#start();
    } catch (error) {
      const failure = { code: "", message: `its thread cannot be started: ${toError(error).message}` };
      return { port: null, folder: this.#folder, failure };
    }
    const { port1, port2 } = new MessageChannel();
    const assignment: SpoolAssignment = { port: port1, folder: this.#folder, openFiles: this.#openFiles };
    this.#thread.postMessage(assignment, [port1]);
    return { port: port2, folder: this.#folder };
  }

  close(): void {
    this.#isClosed = true;
    this.#thread?.terminate();
  }

  #start(): Worker {
    this.#folder = this.#host.folder();
    this.#host.starting();
    const thread = new Worker(this.#url.href, { name: "spool", smol: true });
    let reason = "it ended by itself";
    thread.onerror = (event) => {
      event.preventDefault();
      reason = event.message.split("\n").find((line) => /^\w*error: /i.test(line)) ?? "an error";
    };
    thread.addEventListener("close", () => {
      this.#thread = null;
      // Its descriptors stay open: nobody knows their numbers any more.
      if (!this.#isClosed) this.#host.log("crit", `the thread of the spool has ended, another is started: ${reason}`);
    });
    thread.unref();
    return thread;
  }
}
