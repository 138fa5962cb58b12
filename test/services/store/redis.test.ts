/** A Redis that hangs, is killed, comes back, is full, or refuses: each operation ends in its time, and it goes on by itself. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { RedisStore } from "../../../src/services/store/redis.ts";
import { type Operation, StoreFailure } from "../../../src/store/operations.ts";
import { nameOfStore } from "../../../src/store/settings.ts";
import { describeWith } from "../../support/available.ts";
import { redisTool, startRedis, type TestRedis } from "../../support/redis.ts";
import { waitFor } from "../../support/temp.ts";

setDefaultTimeout(120_000);
const TIMEOUT_MS = 200;

describeWith(redisTool(), "redis", () => {
  let redis: TestRedis;
  let store: RedisStore;
  beforeEach(async () => {
    redis = await startRedis();
    store = new RedisStore({ url: redis.url, timeoutMs: TIMEOUT_MS });
  });
  afterEach(async () => {
    store.close();
    await redis[Symbol.asyncDispose]();
  });

  const run = (operation: object, of = store) =>
    of.run(Object.assign({ filter: "f", key: "k" }, operation) as Operation);
  const problem = (operation: object, of = store): Promise<string> =>
    run(operation, of).then(
      () => "no problem",
      (error: unknown) => (error instanceof StoreFailure ? error.message : `not a StoreFailure: ${String(error)}`),
    );
  const take = { kind: "take", limit: 10, per: 3_600_000, cost: 1 };
  const works = () =>
    waitFor(async () => (await problem({ kind: "get" })) === "no problem", { what: "the store to be back" });
  /** How many of some takes at once were allowed. */
  const allowed = async (times: number): Promise<number> => {
    const taken = await Promise.allSettled(Array.from({ length: times }, () => run(take)));
    return taken.filter((each) => each.status === "fulfilled" && (each.value as { ok: boolean }).ok).length;
  };

  test("one that hangs: each operation fails in its time, and no more is let through than the limit", async () => {
    let passed = await allowed(4);
    process.kill(redis.pid, "SIGSTOP");
    try {
      expect(await problem(take)).toBe(`no answer of ${redis.url} in ${TIMEOUT_MS} ms`);
      passed += await allowed(20);
      expect(passed).toBe(4);
    } finally {
      process.kill(redis.pid, "SIGCONT");
    }
    await works();
    passed += await allowed(20);
    expect(passed).toBeLessThanOrEqual(10);
  });

  test("one that is killed and started again: it goes on by itself, with what it kept", async () => {
    await run({ kind: "set", value: "5", ttl: null });
    expect(await allowed(10)).toBe(10);
    await redis.kill("SIGKILL");
    expect(await problem({ kind: "get" })).toStartWith(redis.url);
    await redis.start();
    await works();
    expect(await run({ kind: "get" })).toBe("5");
    expect(await allowed(5)).toBe(0);
  });

  test("one that is full refuses to write, and is read", async () => {
    await run({ kind: "set", value: "5", ttl: null });
    const client = new Bun.RedisClient(redis.url);
    await client.send("CONFIG", ["SET", "maxmemory", "1"]);
    await client.send("CONFIG", ["SET", "maxmemory-policy", "noeviction"]);
    expect(await problem({ kind: "set", value: "6", ttl: null })).toContain("OOM");
    expect(await problem(take)).toContain("OOM");
    expect(await run({ kind: "get" })).toBe("5");
    await client.send("CONFIG", ["SET", "maxmemory", "0"]);
    client.close();
    expect(await run(take)).toMatchObject({ ok: true });
  });

  test("a wrong password: the reason, without the password", async () => {
    const client = new Bun.RedisClient(redis.url);
    await client.send("CONFIG", ["SET", "requirepass", "right"]);
    client.close();
    const url = redis.url.replace("redis://", "redis://:secret-word@");
    using closing = { store: new RedisStore({ url, timeoutMs: 2000 }), [Symbol.dispose]: () => closing.store.close() };
    const said = await problem({ kind: "get" }, closing.store);
    expect(said).toStartWith(redis.url);
    expect(said).not.toContain("secret-word");
    expect(nameOfStore("redis://user:secret-word@host:1/2")).toBe("redis://host:1/2");
    const right = new RedisStore({ url: redis.url.replace("redis://", "redis://:right@"), timeoutMs: 2000 });
    expect(await run({ kind: "get" }, right)).toBeNull();
    right.close();
  });

  test("databases are apart", async () => {
    const other = new RedisStore({ url: `${redis.url}/3`, timeoutMs: 2000 });
    await run({ kind: "set", value: "5", ttl: null });
    expect(await run({ kind: "get" }, other)).toBeNull();
    other.close();
  });
});
