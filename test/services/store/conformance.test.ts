/** All stores do the same: lists of operations, and what each gives. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { RedisStore } from "../../../src/services/store/redis.ts";
import { SqliteStore } from "../../../src/services/store/sqlite.ts";
import { MemoryStore } from "../../../src/store/memory.ts";
import {
  type LocalStore,
  type Operation,
  type Page,
  type Result,
  StoreFailure,
} from "../../../src/store/operations.ts";
import { describeWith } from "../../support/available.ts";
import { redisTool, startRedis } from "../../support/redis.ts";
import { tempDir } from "../../support/temp.ts";

setDefaultTimeout(60_000);

/** A store under test. */
interface OneStore extends AsyncDisposable {
  run(operation: Operation): Promise<Result | StoreFailure>;
  /** Lets so many milliseconds pass. */
  pass(ms: number): Promise<void>;
}

function local(store: LocalStore, end: () => PromiseLike<void>): OneStore {
  let now = 1_800_000_000_000;
  return {
    run: async (operation) => store.run([operation], now)[0]!,
    pass: async (ms) => {
      now += ms;
    },
    [Symbol.asyncDispose]: async () => {
      store.close();
      await end();
    },
  };
}

const STORES: Readonly<Record<string, () => Promise<OneStore>>> = {
  memory: async () => local(new MemoryStore(), async () => {}),
  sqlite: async () => {
    const dir = await tempDir("store");
    const store = new SqliteStore({
      file: join(dir.path, "store.db"),
      maxBytes: 2 ** 31,
      timeoutMs: 2000,
      dropped: () => {},
    });
    return local(store, () => dir[Symbol.asyncDispose]());
  },
};

async function redis(): Promise<OneStore> {
  const server = await startRedis();
  const store = new RedisStore({ url: server.url, timeoutMs: 30_000 });
  return {
    run: (operation) =>
      store.run(operation).catch((error: unknown) => {
        if (error instanceof StoreFailure) return error;
        throw error;
      }),
    // Its clock is its own.
    pass: (ms) => Bun.sleep(ms),
    [Symbol.asyncDispose]: async () => {
      store.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

function conforms(begin: () => Promise<OneStore>): void {
  let store: OneStore;
  beforeAll(async () => {
    store = await begin();
  });
  afterAll(() => store[Symbol.asyncDispose]());

  /** What each of some operations on one key gives. */
  const on = (key: string, filter = "f") => {
    const run = (operation: object) => store.run({ filter, key, ...operation } as Operation);
    return {
      get: () => run({ kind: "get" }),
      set: (value: string, ttl: number | null = null) => run({ kind: "set", value, ttl }),
      delete: () => run({ kind: "delete" }),
      increment: (by = 1, ttl: number | null = null) => run({ kind: "increment", by, ttl }),
      claim: (ttl = 60_000) => run({ kind: "claim", ttl }),
      take: (limit: number, cost = 1, per = 60_000) => run({ kind: "take", limit, per, cost }),
      giveBack: (cost: number) => run({ kind: "giveBack", cost }),
    };
  };
  const entries = async (prefix: string, limit = 1000, filter = "f", after: string | null = null) =>
    (await store.run({ kind: "entries", filter, prefix, after, limit })) as Page;

  test("get, set, delete", async () => {
    const one = on("a");
    expect(await one.get()).toBeNull();
    expect(await one.set('{"x":"\\u0000ü"}')).toBeNull();
    expect(await one.get()).toBe('{"x":"\\u0000ü"}');
    expect(await on("a", "g").get()).toBeNull();
    expect(await one.set("2")).toBeNull();
    expect(await one.get()).toBe("2");
    expect(await one.delete()).toBe(true);
    expect(await one.delete()).toBe(false);
    expect(await one.get()).toBeNull();
  });

  test("a value expires, and one that is set again has the new time", async () => {
    const one = on("ttl");
    await one.set("1", 80);
    expect(await one.get()).toBe("1");
    await store.pass(100);
    expect(await one.get()).toBeNull();
    expect(await one.delete()).toBe(false);
    await one.set("1", 80);
    await one.set("2");
    await store.pass(100);
    expect(await one.get()).toBe("2");
  });

  test("increment counts from 0; its time to live counts from the making", async () => {
    const one = on("n");
    expect(await one.increment()).toBe(1);
    expect(await one.increment(41)).toBe(42);
    expect(await one.increment(-0.5)).toBe(41.5);
    expect(await one.get()).toBe("41.5");
    const timed = on("nt");
    expect(await timed.increment(1, 150)).toBe(1);
    await store.pass(80);
    expect(await timed.increment(1, 150)).toBe(2);
    await store.pass(90);
    expect(await timed.increment(1, 150)).toBe(1);
    const text = on("text");
    await text.set('"x"');
    expect(await text.increment()).toBeInstanceOf(StoreFailure);
    expect(await text.get()).toBe('"x"');
    const large = on("large");
    await large.set("9007199254740990");
    expect(await large.increment()).toBe(9007199254740991);
    expect(await large.get()).toBe("9007199254740991");
  });

  test("claim is true the first time, until it expires or is deleted", async () => {
    const one = on("claim");
    expect(await one.claim(80)).toBe(true);
    expect(await one.claim(80)).toBe(false);
    expect(await one.get()).toBe("true");
    await store.pass(100);
    expect(await one.claim()).toBe(true);
    await one.delete();
    expect(await one.claim()).toBe(true);
  });

  test("take: all or nothing, in a window that begins with its first use", async () => {
    const one = on("t");
    expect(await one.take(3, 2, 300)).toEqual({ ok: true, remaining: 1, retryAfter: 0 });
    expect(await one.take(3, 2, 300)).toMatchObject({ ok: false, remaining: 1 });
    await store.pass(100);
    const refused = (await one.take(3, 2, 300)) as { retryAfter: number };
    expect(refused.retryAfter).toBeGreaterThan(0);
    expect(refused.retryAfter).toBeLessThanOrEqual(200);
    expect(await one.take(3, 1, 300)).toEqual({ ok: true, remaining: 0, retryAfter: 0 });
    await store.pass(250);
    expect(await one.take(3, 3, 60_000)).toEqual({ ok: true, remaining: 0, retryAfter: 0 });
    // What can never be taken begins no window.
    expect(await on("never").take(1, 2, 60_000)).toEqual({ ok: false, remaining: 1, retryAfter: 60_000 });
    expect(await on("never").take(1)).toMatchObject({ ok: true });
    expect(await on("zero").take(0)).toMatchObject({ ok: false, remaining: 0 });
  });

  test("a window and a value of one key are apart", async () => {
    const one = on("both");
    await one.set("5");
    expect(await one.take(2)).toMatchObject({ ok: true, remaining: 1 });
    expect(await one.get()).toBe("5");
    await one.delete();
    expect(await one.take(2)).toMatchObject({ ok: true, remaining: 0 });
    expect(await one.get()).toBeNull();
  });

  test("giveBack gives at most what was taken in this window, and begins none", async () => {
    const one = on("back");
    await one.giveBack(5);
    expect(await one.take(3, 2, 150)).toMatchObject({ remaining: 1 });
    await one.giveBack(1);
    expect(await one.take(3, 2, 150)).toMatchObject({ ok: true, remaining: 0 });
    await one.giveBack(100);
    expect(await one.take(3, 3, 150)).toMatchObject({ ok: true, remaining: 0 });
    // The window's end stays.
    await store.pass(200);
    await one.giveBack(3);
    expect(await one.take(3, 1, 150)).toMatchObject({ remaining: 2 });
  });

  test("entries: by prefix, in the order of their bytes, without windows, other filters and what has expired", async () => {
    for (const key of ["p:b", "p:a", "p:ü", "q:a", "p", "p:*", "p:\u{1f600}"])
      await on(key, "e").set(JSON.stringify(key));
    await on("p:late", "e").set("1", 50);
    await on("p:w", "e").take(1);
    await on("p:other", "x").set("1");
    await store.pass(80);
    const keys = async (prefix: string, limit?: number) =>
      (await entries(prefix, limit, "e")).found.map(([key]) => key);
    expect(await keys("p:")).toEqual(["p:*", "p:a", "p:b", "p:ü", "p:\u{1f600}"]);
    expect(await keys("p:*")).toEqual(["p:*"]);
    expect(await keys("p:[ab]")).toEqual([]);
    expect(await keys("", 2)).toEqual(["p", "p:*"]);
    expect(await entries("q", 10, "e")).toEqual({ found: [["q:a", '"q:a"']], isFull: false });
    expect(await entries("q", 1, "e")).toMatchObject({ isFull: true });
    const behind = async (after: string, limit = 10) =>
      (await entries("p:", limit, "e", after)).found.map(([key]) => key);
    const all = await keys("p:");
    expect(all.length).toBeGreaterThan(2);
    expect(await behind(all[0]!, 1)).toEqual([all[1]!]);
    expect(await behind(`${all[0]!}\u0001`)).toEqual(all.slice(1));
    expect(await behind(all.at(-1)!)).toEqual([]);
  });

  test("entries of large values come in pages", async () => {
    const value = JSON.stringify("v".repeat(64 * 1024 - 2));
    const keys = Array.from({ length: 40 }, (_, at) => `l${String(at).padStart(2, "0")}`);
    for (const key of keys) await on(key, "large").set(value);
    const first = await entries("l", 1000, "large");
    expect(first).toMatchObject({ isFull: true });
    expect(first.found.map(([key]) => key)).toEqual(keys.slice(0, 16));
    const last = await entries("l", 1000, "large", "l31");
    expect(last.found.map(([key]) => key)).toEqual(keys.slice(32));
    expect(last.isFull).toBe(false);
  });

  test("keys of any text are apart, and so are filters", async () => {
    const keys = [
      "a",
      "a:b",
      ":",
      "a%3Ab",
      "a*",
      "a?",
      "[a]",
      "\\",
      "a\n",
      "\u{10ffff}",
      "\u{10ffff}x",
      "'; --",
      "A",
      "ü",
      "u\u0308",
    ];
    for (const [at, key] of keys.entries()) await on(key, "any").set(String(at));
    for (const [at, key] of keys.entries()) expect(await on(key, "any").get()).toBe(String(at));
    const all = (await entries("", 1000, "any")).found.map(([key]) => key);
    expect(all.toSorted()).toEqual(keys.toSorted());
    expect((await entries("\u{10ffff}", 1000, "any")).found.map(([key]) => key)).toEqual(["\u{10ffff}", "\u{10ffff}x"]);
    await on("v:x", "one").set("1");
    expect(await on("x", "one:v").get()).toBeNull();
    expect((await entries("", 1000, "one:v")).found).toEqual([]);
    expect(await on("x", "any").get()).toBeNull();
  });

  test("increment beyond what is exact changes nothing", async () => {
    const one = on("exact");
    await one.set(String(Number.MAX_SAFE_INTEGER));
    expect(await one.increment()).toBeInstanceOf(StoreFailure);
    expect(await one.increment(Number.MAX_SAFE_INTEGER)).toBeInstanceOf(StoreFailure);
    expect(await one.get()).toBe(String(Number.MAX_SAFE_INTEGER));
    expect(await one.increment(-1)).toBe(Number.MAX_SAFE_INTEGER - 1);
    for (const value of ["null", "true", '"5"', "[1]", "{}"]) {
      await one.set(value);
      expect(await one.increment()).toBeInstanceOf(StoreFailure);
      expect(await one.get()).toBe(value);
    }
  });

  test("increment of a value keeps the value's end, and claim leaves a value as it is", async () => {
    const one = on("keeps");
    await one.set("5", 80);
    expect(await one.increment(1, 60_000)).toBe(6);
    await store.pass(100);
    expect(await one.get()).toBeNull();
    await one.set("7");
    expect(await one.claim()).toBe(false);
    expect(await one.get()).toBe("7");
  });

  test("take of nothing, of all, and with a lower limit than what was taken", async () => {
    const one = on("edge");
    expect(await one.take(5, 0)).toMatchObject({ ok: true, remaining: 5 });
    expect(await one.take(5, 5)).toMatchObject({ ok: true, remaining: 0 });
    expect(await one.take(5, 0)).toMatchObject({ ok: true, remaining: 0 });
    expect(await one.take(2, 1)).toMatchObject({ ok: false, remaining: 0 });
    expect(await one.take(6, 1)).toMatchObject({ ok: true, remaining: 0 });
    const part = on("part");
    expect(await part.take(1, 0.5)).toMatchObject({ ok: true, remaining: 0.5 });
    expect(await part.take(1, 0.5)).toMatchObject({ ok: true, remaining: 0 });
    expect(await part.take(1, 0.5)).toMatchObject({ ok: false });
  });

  test("a window never lasts longer from now than its period", async () => {
    const one = on("shorter");
    expect(await one.take(1, 1, 3_600_000)).toMatchObject({ ok: true });
    const refused = (await one.take(1, 1, 60)) as { ok: boolean; retryAfter: number };
    expect(refused.ok).toBe(false);
    expect(refused.retryAfter).toBeLessThanOrEqual(60);
    await store.pass(90);
    expect(await one.take(1, 1, 60_000)).toMatchObject({ ok: true });
  });

  test("operations at once: each is done as a whole", async () => {
    const one = on("many");
    const taken = await Promise.all(Array.from({ length: 200 }, () => one.take(50, 1)));
    expect(taken.filter((result) => (result as { ok: boolean }).ok)).toHaveLength(50);
    const counted = await Promise.all(Array.from({ length: 200 }, () => one.increment()));
    expect(new Set(counted).size).toBe(200);
    expect(
      (await Promise.all(Array.from({ length: 50 }, () => on("only").claim()))).filter((x) => x === true),
    ).toHaveLength(1);
  });

  test("a key and a value of the greatest size", async () => {
    const one = on("k".repeat(512));
    const value = JSON.stringify("v".repeat(64 * 1024 - 2));
    await one.set(value);
    expect(await one.get()).toBe(value);
  });
}

for (const [name, begin] of Object.entries(STORES)) describe(name, () => conforms(begin));
describeWith(redisTool(), "redis", () => conforms(redis));
