/** DNS and store for the handlers of a worker: asked from the services thread, or for a trial within the worker. */
import type { Config } from "../config/config.ts";
import type { Services } from "../handler/services.ts";
import type { Resolver } from "../services/dns/resolver.ts";
import { MemoryStore, sourceOf } from "../store/memory.ts";
import type { Operation, ResultOf } from "../store/operations.ts";
import { StoreError } from "../store/types.ts";
import { ServiceProblem, type WorkerServices } from "./services.ts";

/** Those of the services thread. */
export function sharedServices(worker: WorkerServices, { store }: Config): Services {
  return {
    dns: {
      async resolve(name, type, signal) {
        try {
          return await worker.resolve(name, type, signal);
        } catch (error) {
          if (!(error instanceof ServiceProblem)) throw error;
          return { status: "failed", records: [], ttl: 0, reason: error.message };
        }
      },
    },
    store: {
      async run<O extends Operation>(operation: O, signal: AbortSignal) {
        try {
          return (await worker.run(operation, signal, store.timeoutMs)) as ResultOf[O["kind"]];
        } catch (error) {
          throw error instanceof ServiceProblem ? new StoreError(`store: ${error.message}`) : error;
        }
      },
    },
  };
}

/** Where nothing may be written: a store in memory, and the DNS as it is. */
export function trialServices({ dns }: Config): Services {
  let resolver: Resolver | null = null;
  return {
    dns: {
      async resolve(name, type, signal) {
        const { resolverOf } = await import("../services/dns/system-resolver.ts");
        resolver ??= resolverOf(dns);
        return resolver.resolve({ name, type }, signal);
      },
    },
    store: sourceOf(new MemoryStore(), () => Date.now()),
  };
}
