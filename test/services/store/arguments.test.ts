/** Wrong arguments of `session.store` and `session.dns`: each is an error that shows them, whatever they are. */
import { expect, test } from "bun:test";
import { dnsOf } from "../../../src/dns/client.ts";
import { UsageError } from "../../../src/usage-error.ts";
import { MemoryStore, sourceOf } from "../../../src/store/memory.ts";
import { storeOf } from "../../../src/store/client.ts";

const signal = () => new AbortController().signal;
const store = storeOf(
  sourceOf(new MemoryStore(), () => 0),
  "f",
  signal,
);
const dns = dnsOf(
  {
    resolve: () => {
      throw new Error("asked");
    },
  },
  signal,
);

const circle: unknown[] = [];
circle.push(circle);
const ODD: readonly (readonly [shown: string, value: unknown])[] = [
  ["-1", -1],
  ["NaN", NaN],
  ["5", 5n],
  ["an object", circle],
  ["an object", Object.create(null)],
  [
    "an object",
    {
      toJSON() {
        throw new Error("its own");
      },
    },
  ],
  ["a function", () => 0],
  ["Symbol(odd)", Symbol("odd")],
  ["null", null],
];

test.each(ODD)("%s", async (shown, value) => {
  const odd = value as never;
  const calls = {
    limit: store.take("k", { limit: odd, per: 60 }),
    per: store.take("k", { limit: 1, per: odd }),
    cost: store.giveBack("k", odd),
    ttl: store.set("k", 1, { ttl: odd }),
    entries: store.entries("", { limit: odd }),
    timeout: dns.txt("x.example", { timeout: odd }),
    type: dns.resolve("x.example", odd),
    zone: dns.listed("192.0.2.1", odd),
    "looked up": dns.listed(odd, "zen.example"),
    name: dns.addresses(odd),
    "node's type": dns.promises.resolve("x.example", odd),
  };
  for (const call of Object.values(calls)) call.catch(() => null);
  for (const [name, call] of Object.entries(calls)) {
    const error: unknown = await call.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error, name).toBeInstanceOf(UsageError);
    expect((error as UsageError).message, name).toEndWith(`got ${shown}`);
  }
});
