/** The pools of `Cache` in the store: texts by key. Keys that the store does not take go by their hash. */
import type { JsonValue } from "../../json.ts";
import type { Store } from "../../store/types.ts";
import type { PoolName } from "./questions.ts";

/** Bytes of a key, and characters of a pool's name, that are kept as they are. */
const MAX_KEY = 380;
const MAX_POOL = 100;
/** Bytes of a value, as JSON with its key. */
const MAX_VALUE = 65_000;
const PAGE = 500;

/** Behind the pool's name: a key as it is, or its hash. */
const [PLAIN, HASHED] = [":", "#"];

export class Caches {
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
  }

  async get(pool: PoolName, key: string): Promise<string | null> {
    const value = await this.#store.get(keyOf(pool, key));
    return value === undefined ? null : textOf(value);
  }

  /** False if the value is too large. */
  async set(pool: PoolName, key: string, value: string): Promise<boolean> {
    const kept = isPlain(key) ? value : [key, value];
    if (Buffer.byteLength(JSON.stringify(kept)) > MAX_VALUE) return false;
    await this.#store.set(keyOf(pool, key), kept);
    return true;
  }

  async delete(pool: PoolName, key: string): Promise<boolean> {
    return this.#store.delete(keyOf(pool, key));
  }

  async clear(pool: PoolName): Promise<null> {
    for (const kind of [PLAIN, HASHED]) {
      const prefix = prefixOf(pool) + kind;
      for (;;) {
        const found = await this.#store.entries(prefix, { limit: PAGE });
        await Promise.all(found.map(([key]) => this.#store.delete(key)));
        if (found.length < PAGE) break;
      }
    }
    return null;
  }

  /** @param cursor a key of the store; null begins */
  async pairs(pool: PoolName, cursor: string | null): Promise<[[string, string][], string | null]> {
    const prefix = prefixOf(pool);
    const kind = cursor?.[prefix.length] ?? PLAIN;
    const after = cursor === null || cursor === prefix + HASHED ? {} : { after: cursor };
    const found = await this.#store.entries(prefix + kind, { limit: PAGE, ...after });
    const pairs = found.map(([key, value]): [string, string] =>
      kind === PLAIN ? [key.slice(prefix.length + 1), textOf(value)] : [(value as string[])[0]!, textOf(value)],
    );
    // Another may delete while it is listed: only an empty part is the last.
    if (found.length > 0) return [pairs, found.at(-1)![0]];
    return [pairs, kind === PLAIN ? prefix + HASHED : null];
  }
}

function textOf(value: JsonValue): string {
  return Array.isArray(value) ? (value as string[])[1]! : String(value);
}

function prefixOf([kind, name]: PoolName): string {
  const encoded = encodeURIComponent(name.toWellFormed());
  return `ruby ${kind} ${encoded.length > MAX_POOL ? hash(name) : encoded}`;
}

function isPlain(key: string): boolean {
  return Buffer.byteLength(key) <= MAX_KEY && key.isWellFormed() && !key.includes("\0");
}

function keyOf(pool: PoolName, key: string): string {
  return prefixOf(pool) + (isPlain(key) ? PLAIN + key : HASHED + hash(key));
}

function hash(text: string): string {
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(text)).digest("hex");
}
