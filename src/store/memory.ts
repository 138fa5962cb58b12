/** A store in the memory of one thread: for the testing kit, `check` and `try`. */
import type { StoreSource } from "./client.ts";
import {
  added,
  isBehind,
  type Json,
  type LocalStore,
  pageOf,
  type Operation,
  type Result,
  type ResultOf,
  StoreFailure,
  takenOf,
} from "./operations.ts";
import { StoreError } from "./types.ts";

interface Kept<V> {
  value: V;
  /** Unix time in milliseconds; Infinity without an end. */
  until: number;
}

export class MemoryStore implements LocalStore {
  readonly #values = new Map<string, Kept<Json>>();
  readonly #windows = new Map<string, Kept<number>>();

  run(operations: readonly Operation[], now: number): readonly (Result | StoreFailure)[] {
    return operations.map((operation) => {
      try {
        return this.#do(operation, now);
      } catch (error) {
        if (error instanceof StoreFailure) return error;
        throw error;
      }
    });
  }

  close(): void {
    this.#values.clear();
    this.#windows.clear();
  }

  #do(operation: Operation, now: number): Result {
    if (operation.kind === "entries") return this.#entries(operation, now);
    const at = `${operation.filter}\0${operation.key}`;
    switch (operation.kind) {
      case "get":
        return live(this.#values, at, now)?.value ?? null;
      case "set":
        this.#values.set(at, { value: operation.value, until: end(operation.ttl, now) });
        return null;
      case "delete": {
        const wasThere = live(this.#values, at, now) !== undefined;
        this.#values.delete(at);
        return wasThere;
      }
      case "increment": {
        const kept = live(this.#values, at, now);
        const after = added(operation.key, kept === undefined ? 0 : JSON.parse(kept.value), operation.by);
        const value = JSON.stringify(after);
        if (kept === undefined) this.#values.set(at, { value, until: end(operation.ttl, now) });
        else kept.value = value;
        return after;
      }
      case "claim":
        if (live(this.#values, at, now) !== undefined) return false;
        this.#values.set(at, { value: "true", until: end(operation.ttl, now) });
        return true;
      case "take": {
        const { cost, limit, per } = operation;
        const window = live(this.#windows, at, now);
        // The clock may have gone back.
        if (window !== undefined) window.until = Math.min(window.until, now + per);
        const used = window?.value ?? 0;
        if (used + cost > limit) return takenOf(used, limit, false, (window?.until ?? now + per) - now);
        if (window === undefined) this.#windows.set(at, { value: cost, until: now + per });
        else window.value += cost;
        return takenOf(used + cost, limit, true, 0);
      }
      case "giveBack": {
        const window = live(this.#windows, at, now);
        if (window !== undefined) window.value = Math.max(0, window.value - operation.cost);
        return null;
      }
      default:
        return operation satisfies never;
    }
  }

  #entries({ after, filter, limit, prefix }: Extract<Operation, { kind: "entries" }>, now: number): Result {
    const from = `${filter}\0${prefix}`;
    const entries = [...this.#values]
      .filter(([at, { until }]) => at.startsWith(from) && until > now)
      .map(([at, { value }]) => [at.slice(filter.length + 1), value] as const)
      .filter(([key]) => after === null || isBehind(key, after))
      .sort(([one], [other]) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
    return pageOf(entries, limit);
  }
}

function end(ttl: number | null, now: number): number {
  return ttl === null ? Infinity : now + ttl;
}

function live<V>(kept: Map<string, Kept<V>>, at: string, now: number): Kept<V> | undefined {
  const found = kept.get(at);
  if (found === undefined || found.until > now) return found;
  kept.delete(at);
  return undefined;
}

/** A store in memory, for handlers. @param now Unix time in milliseconds */
export function sourceOf(store: MemoryStore, now: () => number): StoreSource {
  return {
    async run<O extends Operation>(operation: O, signal: AbortSignal) {
      signal.throwIfAborted();
      const result = store.run([operation], now())[0]!;
      if (result instanceof StoreFailure) throw new StoreError(`store: ${result.message}`);
      return result as ResultOf[O["kind"]];
    },
  };
}
