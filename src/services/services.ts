/** The services of a server: one resolver and one store for all workers, asked over their ports. */
import { reason } from "../errors.ts";
import type {
  DnsCall,
  FromServices,
  ServiceCall,
  ServiceResult,
  ServicesLevel,
  StoreCall,
  ToServices,
} from "../shared/service-messages.ts";
import type { DnsSettings } from "../dns/servers.ts";
import type { StoreSettings } from "../store/settings.ts";
import type { Resolver } from "./dns/resolver.ts";
import { resolverOf } from "./dns/system-resolver.ts";
import { StoreKeeper, type StoreHost } from "./store/keeper.ts";

export interface ServicesHost extends StoreHost {
  log(level: ServicesLevel, text: string): void;
}

export class Services {
  readonly #resolver: Resolver;
  readonly #store: StoreKeeper;

  constructor(dns: DnsSettings, store: StoreSettings, host: ServicesHost) {
    this.#resolver = resolverOf(dns, host.log);
    this.#store = new StoreKeeper(store, host);
  }

  /** Serves a worker until its port is closed. */
  serve(port: MessagePort): void {
    const client = new Client(port);
    port.onmessage = ({ data }: { readonly data: ToServices }) => this.#take(client, data);
    port.addEventListener("close", () => client.end());
  }

  close(): void {
    this.#store.close();
  }

  #take(client: Client, calls: readonly ServiceCall[]): void {
    const stored: StoreCall[] = [];
    const results: ServiceResult[] = [];
    let isTaken = false;
    for (const call of calls) {
      if (call.kind === "dns") void this.#resolve(client, call);
      else if (call.kind === "store") stored.push(call);
      else client.cancel(call.id);
    }
    const operations = stored.map(({ operation }) => operation);
    if (stored.length > 0) {
      this.#store.run(operations, (at, outcome) => {
        const result = { id: stored[at]!.id, ...outcome };
        if (isTaken) client.give(result);
        else results.push(result);
      });
    }
    isTaken = true;
    client.taken(results);
  }

  async #resolve(client: Client, { id, name, type }: DnsCall): Promise<void> {
    const signal = client.begin(id);
    try {
      const answer = await this.#resolver.resolve({ name, type }, signal);
      client.give({ id, answer });
    } catch (error) {
      // Nobody waits for it.
      if (!signal.aborted) {
        client.give({ id, answer: { status: "failed", records: [], ttl: 0, reason: reason(error) } });
      }
    } finally {
      client.ended(id);
    }
  }
}

/** A worker, as the services see it. Results of a turn of the event loop go in one message. */
class Client {
  readonly #port: MessagePort;
  readonly #running = new Map<number, AbortController>();
  #results: ServiceResult[] = [];
  #isScheduled = false;
  #isOver = false;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  begin(id: number): AbortSignal {
    const controller = new AbortController();
    this.#running.set(id, controller);
    return controller.signal;
  }

  ended(id: number): void {
    this.#running.delete(id);
  }

  cancel(id: number): void {
    this.#running.get(id)?.abort();
  }

  taken(results: readonly ServiceResult[]): void {
    this.#post({ taken: true, results });
  }

  give(result: ServiceResult): void {
    this.#results.push(result);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      const results = this.#results;
      this.#results = [];
      this.#post({ taken: false, results });
    });
  }

  end(): void {
    this.#isOver = true;
    for (const controller of this.#running.values()) controller.abort();
  }

  #post(message: FromServices): void {
    if (!this.#isOver) this.#port.postMessage(message);
  }
}
