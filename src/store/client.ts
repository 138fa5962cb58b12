/** `session.store`: operations of a filter, over a source that does them. */
import { jsonCopy, type JsonValue } from "../json.ts";
import { MAX_DURATION_MS, readDuration } from "../quantity.ts";
import { shownArgument, UsageError } from "../usage-error.ts";
import { MAX_ENTRIES, type Operation, type ResultOf } from "./operations.ts";
import type { EntriesOptions, KeepOptions, Store, TakeOptions, TakeResult } from "./types.ts";

/** Does operations, in the order in which they are asked for. It rejects with StoreError, or the signal's reason. */
export interface StoreSource {
  run<O extends Operation>(operation: O, signal: AbortSignal): Promise<ResultOf[O["kind"]]>;
}

const MAX_KEY_BYTES = 512;
const MAX_VALUE_BYTES = 64 * 1024;

/** The store of one filter. @param signal of the call at hand */
export function storeOf(source: StoreSource, filter: string, signal: () => AbortSignal): Store {
  return new FilterStore(source, filter, signal);
}

class FilterStore implements Store {
  readonly #source: StoreSource;
  readonly #filter: string;
  readonly #signal: () => AbortSignal;

  constructor(source: StoreSource, filter: string, signal: () => AbortSignal) {
    this.#source = source;
    this.#filter = filter;
    this.#signal = signal;
  }

  async get(key: string): Promise<JsonValue | undefined> {
    const value = await this.#run({ kind: "get", ...this.#at(key) });
    return value === null ? undefined : (JSON.parse(value) as JsonValue);
  }

  async set(key: string, value: JsonValue, options: KeepOptions = {}): Promise<void> {
    const at = this.#at(key);
    const text = JSON.stringify(jsonCopy(value, "value", `the value of ${JSON.stringify(key)}`, MAX_VALUE_BYTES));
    await this.#run({ kind: "set", ...at, value: text, ttl: ttlOf(options) });
  }

  async delete(key: string): Promise<boolean> {
    return this.#run({ kind: "delete", ...this.#at(key) });
  }

  async increment(key: string, by = 1, options: KeepOptions = {}): Promise<number> {
    if (!Number.isFinite(by))
      wrong(`increment adds a number, got ${shownArgument(by)}; options stand behind it: increment(key, 1, { ttl })`);
    if (Math.abs(by) > Number.MAX_SAFE_INTEGER) wrong(`increment adds at most 2^53 - 1, got ${by}`);
    return this.#run({ kind: "increment", ...this.#at(key), by, ttl: ttlOf(options) });
  }

  async claim(key: string, options: Required<KeepOptions>): Promise<boolean> {
    const ttl = ttlOf(options ?? {});
    if (ttl === null) return wrong("claim needs { ttl }: how long it holds");
    return this.#run({ kind: "claim", ...this.#at(key), ttl });
  }

  async take(key: string, options: TakeOptions): Promise<TakeResult> {
    const at = this.#at(key);
    if (typeof options !== "object" || options === null) return wrong("take needs { limit, per }");
    const { cost = 1, limit, per } = options;
    const taken = await this.#run({
      kind: "take",
      ...at,
      limit: amount("limit", limit),
      per: duration("per", per),
      cost: amount("cost", cost),
    });
    return { ...taken, retryAfter: Math.ceil(taken.retryAfter / 1000) };
  }

  async giveBack(key: string, cost = 1): Promise<void> {
    await this.#run({ kind: "giveBack", ...this.#at(key), cost: amount("cost", cost) });
  }

  async entries(
    prefix = "",
    { after, limit = MAX_ENTRIES }: EntriesOptions = {},
  ): Promise<readonly (readonly [string, JsonValue])[]> {
    checkKey(prefix, "a prefix");
    if (after !== undefined) checkKey(after, "after");
    if (!Number.isSafeInteger(limit) || limit < 1) wrong(`limit is a whole number from 1, got ${shownArgument(limit)}`);
    const most = Math.min(limit, MAX_ENTRIES);
    const entries: (readonly [string, JsonValue])[] = [];
    let last = after ?? null;
    for (;;) {
      const { found, isFull } = await this.#run({
        kind: "entries",
        filter: this.#filter,
        prefix,
        after: last,
        limit: most - entries.length,
      });
      for (const [key, value] of found) entries.push([key, JSON.parse(value) as JsonValue]);
      last = found.at(-1)?.[0] ?? last;
      if (!isFull || entries.length >= most) return entries;
    }
  }

  #at(key: string): { readonly filter: string; readonly key: string } {
    checkKey(key, "a key");
    if (key === "") wrong('a key has at least one character, got ""');
    return { filter: this.#filter, key };
  }

  #run<O extends Operation>(operation: O): Promise<ResultOf[O["kind"]]> {
    return this.#source.run(operation, this.#signal());
  }
}

function checkKey(key: unknown, what: string): void {
  if (typeof key !== "string") return wrong(`${what} is a string, got ${typeof key}`);
  const bytes = Buffer.byteLength(key);
  if (bytes > MAX_KEY_BYTES) wrong(`${what} has at most ${MAX_KEY_BYTES} bytes, got ${bytes}`);
  if (!key.isWellFormed() || key.includes("\0")) {
    wrong(`${what} is text without NUL and lone surrogates, got ${JSON.stringify(key.slice(0, 80))}`);
  }
}

function amount(what: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER) return value;
  return wrong(`${what} is a number from 0 to 2^53 - 1, got ${shownArgument(value)}`);
}

function duration(what: string, value: unknown): number {
  const ms = readDuration(value);
  if (ms > 0 && ms <= MAX_DURATION_MS) return ms;
  return wrong(
    `${what} is seconds or text such as "500ms", "10m", "2h" or "7d", above 0 and at most 100 years, got ${shownArgument(value)}`,
  );
}

function ttlOf({ ttl }: KeepOptions): number | null {
  return ttl === undefined ? null : duration("ttl", ttl);
}

function wrong(message: string): never {
  throw new UsageError("PMILTER_ERR_ARGUMENT", `store: ${message}`);
}
