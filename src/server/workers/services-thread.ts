/**
 * The thread that owns DNS and store, for all workers and all generations. It is started when a worker first asks something.
 * It is never ended for being busy, and a new one starts only after the end of the old one: two must not own one store.
 */
import type { LogLevel } from "../../admin/log-level.ts";
import type { DnsSettings } from "../../dns/servers.ts";
import { toError } from "../../errors.ts";
import type { StoreSettings } from "../../store/settings.ts";
import type { FromServicesThread, ServicesLine, ToServicesThread } from "../../shared/service-messages.ts";

export interface ServicesHost {
  readonly dns: DnsSettings;
  readonly store: StoreSettings;
  /** The folder for a store with a relative path; asked for at the start of the thread. @throws Error if there is none */
  folder(): string;
  /** The thread is about to be started. @throws Error if no descriptors are left for it */
  starting(): void;
  /** Values were dropped from a store that is full. */
  dropped(count: number): void;
  log(level: LogLevel, text: string): void;
}

export class ServicesThread {
  readonly #url: URL;
  readonly #host: ServicesHost;
  #thread: Worker | null = null;
  #isClosed = false;

  /** @param url of `src/services/entry.ts` */
  constructor(url: URL, host: ServicesHost) {
    this.#url = url;
    this.#host = host;
  }

  get isRunning(): boolean {
    return this.#thread !== null;
  }

  /** A line for a worker. */
  connect(): ServicesLine {
    let thread: Worker;
    try {
      thread = this.#thread ??= this.#start();
    } catch (error) {
      return { port: null, problem: `the services thread cannot be started: ${toError(error).message}` };
    }
    const { port1, port2 } = new MessageChannel();
    thread.postMessage({ kind: "worker", port: port1 } satisfies ToServicesThread, [port1]);
    return { port: port2 };
  }

  close(): void {
    this.#isClosed = true;
    this.#thread?.terminate();
  }

  #start(): Worker {
    const { dns, store } = this.#host;
    const settings = { kind: "settings", dns, store, folder: this.#host.folder() } satisfies ToServicesThread;
    this.#host.starting();
    const thread = new Worker(this.#url.href, { name: "services", smol: true });
    let reason = "it ended by itself";
    thread.onmessage = ({ data }: { readonly data: FromServicesThread }) => {
      if (data.kind === "log") this.#host.log(data.level, data.text);
      else this.#host.dropped(data.count);
    };
    thread.onerror = (event) => {
      event.preventDefault();
      reason = event.message.split("\n").find((line) => /^\w*error: /i.test(line)) ?? "an error";
    };
    thread.addEventListener("close", () => {
      this.#thread = null;
      if (!this.#isClosed)
        this.#host.log("crit", `the services thread has ended, another is started when it is needed: ${reason}`);
    });
    thread.postMessage(settings);
    thread.unref();
    return thread;
  }
}
