/** The resolver against a name server that answers as it is told. */
import { describe, expect, test } from "bun:test";
import dnsPacket from "dns-packet";
import type { RecordType } from "../../../src/dns/answer.ts";
import { Resolver, type ResolverSettings } from "../../../src/services/dns/resolver.ts";
import { encodeAnswer, startNameServer, type TestAnswer, type TestNameServer } from "./server.ts";

const forever = new AbortController().signal;
const soa = {
  type: "SOA",
  name: "example",
  ttl: 60,
  data: { mname: "a", rname: "b", serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 30 },
};
const a = (name: string, data: string, ttl = 60) => ({ type: "A", name, ttl, data });
const cname = (name: string, data: string, ttl = 60) => ({ type: "CNAME", name, ttl, data });

function resolver(
  servers: readonly { readonly address: string; readonly port: number }[],
  settings: Partial<ResolverSettings> = {},
): Resolver {
  return new Resolver({ servers: () => servers, timeoutMs: 60_000, attempts: 1, cacheSize: 100, ...settings });
}

/** What a server that answers one thing to everything gives. */
async function answered(answer: TestAnswer, type: RecordType = "A", settings: Partial<ResolverSettings> = {}) {
  await using server = await startNameServer(() => answer);
  return await resolver([server], settings).resolve({ name: "x.example", type }, forever);
}

describe("statuses", () => {
  test("records, no records of the type, no such name, and a failure are four things", async () => {
    expect(await answered({ answers: [a("x.example", "192.0.2.1"), a("X.Example", "192.0.2.2", 7)] })).toEqual({
      status: "found",
      records: ["192.0.2.1", "192.0.2.2"],
      ttl: 7,
    });
    expect(await answered({ authorities: [soa] })).toEqual({ status: "empty", records: [], ttl: 30 });
    expect(await answered({ rcode: 3, authorities: [soa] })).toEqual({ status: "missing", records: [], ttl: 30 });
    expect(await answered({ rcode: 3 })).toEqual({ status: "missing", records: [], ttl: 0 });
    expect(await answered({ rcode: 2 })).toMatchObject({
      status: "failed",
      reason: expect.stringContaining("SERVFAIL"),
    });
    expect(await answered({ rcode: 5 })).toMatchObject({
      status: "failed",
      reason: expect.stringContaining("REFUSED"),
    });
  });

  test("the strings of a TXT record are one text", async () => {
    const strings = ["a", "b", "c"].map((letter) => Buffer.from(letter.repeat(255)));
    const { records } = await answered({ answers: [{ type: "TXT", name: "x.example", ttl: 1, data: strings }] }, "TXT");
    expect(records).toEqual(["a".repeat(255) + "b".repeat(255) + "c".repeat(255)]);
  });

  test("an answer that does not fit comes by TCP", async () => {
    const answers = Array.from({ length: 200 }, (_, index) => a("x.example", `192.0.2.${index}`));
    await using server = await startNameServer(() => ({ answers, isCut: true }));
    const { records } = await resolver([server]).resolve({ name: "x.example", type: "A" }, forever);
    expect(records).toHaveLength(200);
    expect(server.asked).toEqual(["udp x.example A", "tcp x.example A"]);
  });

  test("a server that does not know EDNS is asked without", async () => {
    expect(await answered({ answers: [a("x.example", "192.0.2.1")], lacksEdns: true })).toMatchObject({
      status: "found",
    });
  });
});

describe("aliases", () => {
  test("are followed within an answer, and asked for where the answer ends", async () => {
    await using server = await startNameServer((name) =>
      name === "x.example"
        ? { answers: [cname("x.example", "Y.example"), cname("y.EXAMPLE", "z.test", 5)] }
        : { answers: [a(name, "192.0.2.9")] },
    );
    expect(await resolver([server]).resolve({ name: "x.example", type: "A" }, forever)).toEqual({
      status: "found",
      records: ["192.0.2.9"],
      ttl: 5,
    });
    expect(server.asked).toEqual(["udp x.example A", "udp z.test A"]);
  });

  test("a loop is a failure", async () => {
    expect(
      await answered({ answers: [cname("x.example", "y.example"), cname("y.example", "x.example")] }),
    ).toMatchObject({
      status: "failed",
      reason: expect.stringContaining("aliases"),
    });
    await using server = await startNameServer((name) => ({ answers: [cname(name, `a${name}`)] }));
    expect(await resolver([server]).resolve({ name: "x.example", type: "A" }, forever)).toMatchObject({
      status: "failed",
    });
    expect(server.asked.length).toBeLessThan(20);
  });
});

describe("answers of others", () => {
  const wrong: Readonly<Record<string, (query: dnsPacket.DecodedPacket) => readonly Uint8Array[]>> = {
    "another id": (query) => [
      encodeAnswer({ ...query, id: query.id! ^ 1 }, { answers: [a("x.example", "203.0.113.1")] }),
    ],
    "another question": (query) => [
      encodeAnswer(
        { ...query, questions: [{ name: "y.example", type: "A", class: "IN" }] },
        { answers: [a("x.example", "203.0.113.1")] },
      ),
    ],
    "another type": (query) => [
      encodeAnswer(
        { ...query, questions: [{ name: "x.example", type: "AAAA", class: "IN" }] },
        { answers: [a("x.example", "203.0.113.1")] },
      ),
    ],
    "no question": (query) => [encodeAnswer({ ...query, questions: [] }, { answers: [a("x.example", "203.0.113.1")] })],
    "the question itself": (query) => [dnsPacket.encode(query as dnsPacket.Packet)],
    "bytes that are no packet": () => [Buffer.from("no packet"), Buffer.alloc(12), Buffer.alloc(0)],
    "a pointer to itself": (query) => {
      const bytes = encodeAnswer(query, {});
      bytes.writeUInt16BE(0xc00c, 12);
      return [bytes];
    },
  };
  test.each(Object.entries(wrong))("%s is not taken", async (_, before) => {
    expect(await answered({ answers: [a("x.example", "192.0.2.1")], before })).toMatchObject({
      records: ["192.0.2.1"],
    });
  });
});

describe("servers", () => {
  test("a closed port, a silent server and one that refuses: the next is asked, in this order, again and again", async () => {
    await using silent = await startNameServer(() => ({ isSilent: true }));
    await using refusing = await startNameServer(() => ({ rcode: 5 }));
    let times = 0;
    await using late = await startNameServer(() =>
      ++times < 2 ? { rcode: 2 } : { answers: [a("x.example", "192.0.2.1")] },
    );
    const closed = await startNameServer(() => ({}));
    await closed[Symbol.asyncDispose]();
    const servers: TestNameServer[] = [closed, silent, refusing, late];
    const answer = await resolver(servers, { timeoutMs: 50, attempts: 2 }).resolve(
      { name: "x.example", type: "A" },
      forever,
    );
    expect(answer).toMatchObject({ status: "found" });
    expect([silent, refusing, late].map(({ asked }) => asked.length)).toEqual([2, 2, 2]);
  });

  test("the reason names the server", async () => {
    await using server = await startNameServer(() => ({ isSilent: true }));
    const answer = await resolver([server], { timeoutMs: 20 }).resolve({ name: "x.example", type: "A" }, forever);
    expect(answer).toMatchObject({ status: "failed", reason: `127.0.0.1:${server.port}: no answer in 20 ms` });
    expect(await resolver([]).resolve({ name: "x.example", type: "A" }, forever)).toMatchObject({
      status: "failed",
      reason: "there is no name server to ask",
    });
  });
});

describe("equal questions", () => {
  test("a hundred at once are one packet; later ones come from the cache until its time is over", async () => {
    let now = 0;
    await using server = await startNameServer(() => ({ answers: [a("x.example", "192.0.2.1", 10)], delay: 20 }));
    const one = resolver([server], { now: () => now });
    const ask = (name = "x.example") => one.resolve({ name, type: "A" }, forever);
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) => ask(index % 2 === 0 ? "x.example" : "X.EXAMPLE")),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set(["found"]));
    expect(server.asked).toHaveLength(1);
    now = 4000;
    expect(await ask()).toMatchObject({ ttl: 6 });
    now = 10_000;
    await ask();
    expect(server.asked).toHaveLength(2);
    expect(one.counts).toMatchObject({ found: 102, cached: 1, failed: 0 });
  });

  test("the cache is bounded: what was not asked for goes first", async () => {
    await using server = await startNameServer((name) => ({ answers: [a(name, "192.0.2.1")] }));
    const one = resolver([server], { cacheSize: 2 });
    for (const name of ["a", "b", "a", "c", "a", "b"]) await one.resolve({ name, type: "A" }, forever);
    expect(server.asked.map((line) => line.split(" ")[1])).toEqual(["a", "b", "c", "b"]);
  });

  test("one who leaves does not take the others' answer along; when all have left the question ends", async () => {
    const asked = Promise.withResolvers<void>();
    await using server = await startNameServer(() => {
      asked.resolve();
      return { answers: [a("x.example", "192.0.2.1")], delay: 50 };
    });
    const one = resolver([server]);
    const leaving = new AbortController();
    const left = one.resolve({ name: "x.example", type: "A" }, leaving.signal);
    const stays = one.resolve({ name: "x.example", type: "A" }, forever);
    await asked.promise;
    leaving.abort(new Error("gone"));
    expect(left).rejects.toThrow("gone");
    expect(await stays).toMatchObject({ status: "found" });

    await using silent = await startNameServer(() => ({ isSilent: true }));
    const two = resolver([silent]);
    const all = new AbortController();
    const waiting = two.resolve({ name: "y.example", type: "A" }, all.signal);
    all.abort(new Error("all gone"));
    expect(waiting).rejects.toThrow("all gone");
    expect(two.counts.failed).toBe(0);
  });

  test("thousands of questions are asked some at a time, and all are answered", async () => {
    await using server = await startNameServer((name) => ({ answers: [a(name, "192.0.2.1")] }));
    const one = resolver([server], { timeoutMs: 60_000 });
    const answers = await Promise.all(
      Array.from({ length: 3000 }, (_, index) => one.resolve({ name: `n${index}.example`, type: "A" }, forever)),
    );
    expect(answers.filter(({ status }) => status !== "found")).toEqual([]);
  });
});
