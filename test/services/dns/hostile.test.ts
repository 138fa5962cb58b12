/** Name servers that lie, drip, point to others, or are not there: what the resolver makes of each, and that each question ends. */
import { describe, expect, test } from "bun:test";
import dnsPacket from "dns-packet";
import { Resolver, type ResolverSettings } from "../../../src/services/dns/resolver.ts";
import { encodeAnswer, startNameServer, type TestAnswer } from "./server.ts";

const forever = new AbortController().signal;
const QUESTION = { name: "x.example", type: "A" } as const;
const a = (name: string, data = "192.0.2.1", ttl = 60) => ({ type: "A", name, ttl, data });

interface Address {
  readonly address: string;
  readonly port: number;
}
function resolver(servers: readonly Address[], settings: Partial<ResolverSettings> = {}): Resolver {
  return new Resolver({ servers: () => servers, timeoutMs: 60_000, attempts: 1, cacheSize: 100, ...settings });
}
async function answered(answer: TestAnswer, settings: Partial<ResolverSettings> = {}) {
  await using server = await startNameServer(() => answer);
  return await resolver([server], settings).resolve(QUESTION, forever);
}

describe("forged answers", () => {
  test("a right answer from another address or port is none", async () => {
    // The system tells it that nobody takes its packet.
    const other = await Bun.udpSocket({ hostname: "127.0.0.1", port: 0, socket: { error() {} } });
    await using server = await startNameServer((_, __, { address, port, query }) => {
      other.send(encodeAnswer(query, { answers: [a("x.example", "203.0.113.1")] }), port, address);
      return { answers: [a("x.example")], delay: 20 };
    });
    const one = resolver([server]);
    expect(await one.resolve(QUESTION, forever)).toMatchObject({ records: ["192.0.2.1"] });
    other.close();
  });

  test("each question has an id and a port of its own", async () => {
    const ports = new Set<number>();
    const ids = new Set<number>();
    await using server = await startNameServer((name, _, { port, query }) => {
      ports.add(port);
      ids.add(query.id!);
      return { answers: [a(name)] };
    });
    const one = resolver([server]);
    for (let at = 0; at < 30; at++) await one.resolve({ name: `n${at}.example`, type: "A" }, forever);
    expect(ports.size).toBeGreaterThan(25);
    expect(ids.size).toBeGreaterThan(25);
  });

  test("packets of others are counted; after some of them TCP is asked, where guessing is of no use", async () => {
    const guesses = (count: number) => (query: dnsPacket.DecodedPacket) =>
      Array.from({ length: count }, (_, at) =>
        encodeAnswer({ ...query, id: (query.id! + at + 1) & 0xffff }, { answers: [a("x.example", "203.0.113.1")] }),
      );
    await using server = await startNameServer((_, __, { how }) => ({
      answers: [a("x.example")],
      ...(how === "udp" && { before: guesses(5) }),
    }));
    const one = resolver([server]);
    expect(await one.resolve(QUESTION, forever)).toMatchObject({ records: ["192.0.2.1"] });
    expect(one.counts.stray).toBe(5);
    expect(server.asked).toEqual(["udp x.example A"]);

    await using flooded = await startNameServer((_, __, { how }) => ({
      answers: [a("x.example", how === "udp" ? "203.0.113.1" : "192.0.2.1")],
      ...(how === "udp" && { before: guesses(50) }),
    }));
    expect(await resolver([flooded]).resolve(QUESTION, forever)).toMatchObject({ records: ["192.0.2.1"] });
    expect(flooded.asked).toEqual(["udp x.example A", "tcp x.example A"]);
  });

  test("records of other names in an answer are not believed", async () => {
    expect(await answered({ answers: [a("y.example", "203.0.113.1"), a("x.example")] })).toMatchObject({
      records: ["192.0.2.1"],
    });
    expect(await answered({ answers: [a("y.example", "203.0.113.1")] })).toMatchObject({ status: "empty" });
    const chaos = { ...a("x.example", "203.0.113.1"), class: "CH" };
    expect(await answered({ answers: [chaos, a("x.example")] })).toMatchObject({ records: ["192.0.2.1"] });
  });
});

describe("servers that cannot help", () => {
  test("a server that points to others is passed over: it is no empty answer", async () => {
    const referral = {
      isRecursive: false,
      authorities: [{ type: "NS", name: "example", ttl: 60, data: "ns.example" }],
    };
    expect(await answered(referral)).toMatchObject({ status: "failed", code: "EBADRESP" });
    expect(await answered({ ...referral, isRecursive: true })).toMatchObject({ status: "empty" });
  });

  test.each([
    [1, "EFORMERR"],
    [2, "ESERVFAIL"],
    [4, "ENOTIMP"],
    [5, "EREFUSED"],
    [9, "EBADRESP"],
  ])("code %p is the failure %s", async (rcode, code) => {
    expect(await answered({ rcode })).toMatchObject({ status: "failed", code });
  });

  test("an answer whose only record cannot be read is a failure, not an empty one", async () => {
    await using server = await startNameServer((_, __, { query }) => {
      const bytes = encodeAnswer(query, { answers: [a("x.example")] });
      // An address of three bytes: the length stands before the last four.
      bytes.writeUInt16BE(3, bytes.length - 6);
      return { isSilent: false, before: () => [bytes.subarray(0, -1)] };
    });
    expect(await resolver([server]).resolve(QUESTION, forever)).toMatchObject({ status: "failed", code: "EBADRESP" });
  });

  test("one that did not answer is asked last for half a minute; then one question tries it first", async () => {
    let now = 0;
    await using dead = await startNameServer(() => ({ isSilent: true }));
    await using other = await startNameServer((name) => ({ answers: [a(name)], delay: 5 }));
    const one = resolver([dead, other], { timeoutMs: 30, now: () => now });
    const ask = (name: string) => one.resolve({ name, type: "A" }, forever);
    for (const name of ["a.example", "b.example", "c.example"]) {
      expect(await ask(name)).toMatchObject({ status: "found" });
    }
    expect([dead.asked.length, other.asked.length]).toEqual([1, 3]);
    now = 31_000;
    await Promise.all(["d.example", "e.example", "f.example"].map(ask));
    expect([dead.asked.length, other.asked.length]).toEqual([2, 6]);
  });

  test("the log has a line when a server is silent, and one when it answers again, not one for each question", async () => {
    const lines: string[] = [];
    let isSilent = true;
    await using server = await startNameServer((name) => (isSilent ? { isSilent } : { answers: [a(name)] }));
    const one = resolver([server], { timeoutMs: 5, log: (level, text) => void lines.push(`${level} ${text}`) });
    for (let at = 0; at < 12; at++) await one.resolve({ name: `n${at}.example`, type: "A" }, forever);
    const name = `127.0.0.1:${server.port}`;
    expect(lines).toEqual([`warn dns: a name server does not answer: ${name}: no answer in 5 ms`]);
    isSilent = false;
    while (lines.length === 1) await one.resolve({ name: `m${Math.random()}.example`, type: "A" }, forever);
    expect(lines[1]).toBe(`info dns: ${name} answers again`);
  });

  test("each question begins with another server if the system says so", async () => {
    await using first = await startNameServer((name) => ({ answers: [a(name)] }));
    await using second = await startNameServer((name) => ({ answers: [a(name)] }));
    const one = resolver([first, second], { rotates: () => true });
    for (let at = 0; at < 6; at++) await one.resolve({ name: `n${at}.example`, type: "A" }, forever);
    expect([first.asked.length, second.asked.length]).toEqual([3, 3]);
  });
});

describe("TCP", () => {
  const whole = (query: dnsPacket.DecodedPacket, answers: readonly unknown[]): Buffer => {
    const reply = encodeAnswer(query, { answers });
    return Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 0xff]), reply]);
  };

  test("an answer that drips, byte by byte, is taken; one that goes on after its end costs nothing", async () => {
    await using server = await startNameServer((_, __, { query }) => {
      const bytes = whole(query, [a("x.example")]);
      return { isCut: true, tcp: { pieces: [...Array.from(bytes, (byte) => Uint8Array.of(byte)), Buffer.alloc(99)] } };
    });
    expect(await resolver([server]).resolve(QUESTION, forever)).toMatchObject({ records: ["192.0.2.1"] });
  });

  test("the largest answer is read, and its records are bounded", async () => {
    const answers = Array.from({ length: 1600 }, (_, at) => a("x.example", `192.0.${at >> 8}.${at & 255}`));
    await using server = await startNameServer((_, __, { query }) => ({
      isCut: true,
      tcp: { pieces: [whole(query, answers)] },
    }));
    const { records, status } = await resolver([server]).resolve(QUESTION, forever);
    expect([status, records.length]).toEqual(["found", 1000]);
  });

  test.each([
    ["closes at once", { pieces: [], closes: true }, "EBADRESP"],
    ["closes within the answer", { pieces: [Uint8Array.of(0, 99, 1)], closes: true }, "EBADRESP"],
    ["sends an empty answer", { pieces: [Uint8Array.of(0, 0)] }, "EBADRESP"],
    ["sends no answer", { pieces: [Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(3000))] }, "EBADRESP"],
    ["sends half of it", { pieces: [Uint8Array.of(0, 99, 1)] }, "ETIMEOUT"],
  ])("a server that %s by TCP has not answered", async (_, tcp, code) => {
    expect(await answered({ isCut: true, tcp }, { timeoutMs: 100 })).toMatchObject({ status: "failed", code });
  });

  test("a server that does not know EDNS is asked without by TCP as well", async () => {
    await using server = await startNameServer(() => ({ answers: [a("x.example")], isCut: true, lacksEdns: true }));
    expect(await resolver([server]).resolve(QUESTION, forever)).toMatchObject({ status: "found" });
    expect(server.asked).toEqual(["udp x.example A", "udp x.example A", "tcp x.example A"]);
  });
});

describe("bounds", () => {
  test("a question ends after the time of all its tries, also if each answer is one more alias", async () => {
    let now = 0;
    await using server = await startNameServer((name) => {
      now += 1000;
      return { answers: [{ type: "CNAME", name, ttl: 60, data: `a.${name}` }] };
    });
    const one = resolver([server], { timeoutMs: 2000, attempts: 2, now: () => now });
    expect(await one.resolve(QUESTION, forever)).toMatchObject({ status: "failed", code: "ETIMEOUT" });
    expect(server.asked.length).toBe(4);
  });

  test("the cache is bounded in bytes: a few huge answers, or many small ones", async () => {
    const txt = (name: string, bytes: number) => ({ type: "TXT", name, ttl: 60, data: [Buffer.alloc(bytes, 65)] });
    await using server = await startNameServer((name) => ({
      answers: name.startsWith("huge") ? Array.from({ length: 200 }, () => txt(name, 250)) : [txt(name, 5)],
      isCut: true,
    }));
    const one = resolver([server], { cacheSize: 100 });
    for (let at = 0; at < 10; at++) await one.resolve({ name: `huge${at}.example`, type: "TXT" }, forever);
    expect(one.kept.entries).toBe(3);
    for (let at = 0; at < 200; at++) await one.resolve({ name: `n${at}.example`, type: "TXT" }, forever);
    expect(one.kept.entries).toBe(100);
    expect(one.kept.bytes).toBeLessThan(100 * 2048);
    one.forget();
    expect(one.kept).toEqual({ entries: 0, bytes: 0 });
  });

  test("those who leave while they wait for their turn make room", async () => {
    await using server = await startNameServer(() => ({ isSilent: true }));
    const one = resolver([server]);
    const leaving = new AbortController();
    const asking: Promise<unknown>[] = [];
    const ask = (name: string, signal: AbortSignal) => one.resolve({ name, type: "A" }, signal);
    for (let at = 0; at < 10_200; at++) asking.push(ask(`n${at}.example`, leaving.signal));
    expect(await ask("late.example", forever)).toMatchObject({ status: "failed", code: "ECANCELLED" });
    expect(one.counts).toMatchObject({ failed: 1, refused: 1 });
    leaving.abort(new Error("gone"));
    expect(new Set((await Promise.allSettled(asking)).map(({ status }) => status))).toEqual(new Set(["rejected"]));
    await using answering = await startNameServer((name) => ({ answers: [a(name)] }), 0);
    const two = resolver([answering]);
    expect(await two.resolve(QUESTION, forever)).toMatchObject({ status: "found" });
    const end = new AbortController();
    const after = ask("after.example", end.signal);
    while (!server.asked.includes("udp after.example A")) await Bun.sleep(1);
    end.abort();
    expect(after).rejects.toThrow();
    expect(one.counts.refused).toBe(1);
  });
});
