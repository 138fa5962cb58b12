/** The services of a server: one resolver and one store for all workers, asked over their ports. */
import { isAbsolute, join } from "node:path";
import { reason } from "../errors.ts";
import type {
  DnsCall,
  FromServices,
  ServiceCall,
  ServiceResult,
  StoreCall,
  ToServices,
} from "../shared/service-messages.ts";
import type { DnsSettings } from "../dns/servers.ts";
import { type LocalStore, StoreFailure } from "../store/operations.ts";
import { sqlitePath, type StoreSettings } from "../store/settings.ts";
import type { Resolver } from "./dns/resolver.ts";
import { resolverOf } from "./dns/system-resolver.ts";
import type { RedisStore } from "./store/redis.ts";

export interface ServicesHost {
  /** The state folder, for a store whose path is relative. */
  readonly folder: string;
  log(level: "warn" | "error" | "info", text: string): void;
}

/** Opened when a worker first uses it: a store that cannot be opened is tried again with the next call. */
type OpenStore = { readonly local: LocalStore } | { readonly remote: RedisStore };

export class Services {
  readonly #resolver: Resolver;
  readonly #storeSettings: StoreSettings;
  readonly #host: ServicesHost;
  #store: OpenStore | null = null;
  #dropped = 0;

  constructor(dns: DnsSettings, store: StoreSettings, host: ServicesHost) {
    this.#resolver = resolverOf(dns, host.log);
    this.#storeSettings = store;
    this.#host = host;
  }

  /** Serves a worker until its port is closed. */
  serve(port: MessagePort): void {
    const client = new Client(port);
    port.onmessage = ({ data }: { readonly data: ToServices }) => this.#take(client, data);
    port.addEventListener("close", () => client.end());
  }

  close(): void {
    if (this.#store === null) return;
    if ("local" in this.#store) this.#store.local.close();
    else this.#store.remote.close();
    this.#store = null;
  }

  #take(client: Client, calls: readonly ServiceCall[]): void {
    const stored: StoreCall[] = [];
    for (const call of calls) {
      if (call.kind === "dns") void this.#resolve(client, call);
      else if (call.kind === "store") stored.push(call);
      else client.cancel(call.id);
    }
    client.taken(stored.length === 0 ? [] : this.#runStore(client, stored));
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

  /** @returns the results that are known at once */
  #runStore(client: Client, calls: readonly StoreCall[]): readonly ServiceResult[] {
    let store: OpenStore;
    try {
      store = this.#store ??= this.#open();
    } catch (error) {
      return calls.map(({ id }) => ({ id, problem: reason(error) }));
    }
    if ("remote" in store) {
      for (const call of calls) void this.#askRemote(client, store.remote, call);
      return [];
    }
    try {
      const results = store.local.run(
        calls.map(({ operation }) => operation),
        Date.now(),
      );
      return results.map((result, at) => {
        const { id } = calls[at]!;
        return result instanceof StoreFailure ? { id, problem: result.message } : { id, result };
      });
    } catch (error) {
      // Nothing of the list was done.
      return calls.map(({ id }) => ({ id, problem: `${this.#storeSettings.url}: ${reason(error)}` }));
    }
  }

  async #askRemote(client: Client, remote: RedisStore, { id, operation }: StoreCall): Promise<void> {
    try {
      client.give({ id, result: await remote.run(operation) });
    } catch (error) {
      client.give({ id, problem: reason(error) });
    }
  }

  #open(): OpenStore {
    const { maxBytes, timeoutMs, url } = this.#storeSettings;
    const path = sqlitePath(url);
    if (path === null) {
      const { RedisStore: Remote } = require("./store/redis.ts") as typeof import("./store/redis.ts");
      return { remote: new Remote({ url, timeoutMs }) };
    }
    const { SqliteStore } = require("./store/sqlite.ts") as typeof import("./store/sqlite.ts");
    const file = isAbsolute(path) ? path : join(this.#host.folder, path);
    const dropped = (count: number): void => {
      // Each time ten times as many: a full store must not fill the log.
      const before = this.#dropped;
      this.#dropped += count;
      if (before === 0 || String(before).length < String(this.#dropped).length) {
        this.#host.log("warn", `store: ${file} is full (store.max_size), ${this.#dropped} values were dropped so far`);
      }
    };
    return { local: new SqliteStore({ file, maxBytes, dropped }) };
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
