/** docs/failures.md, "Mail servers and whoever can connect": what a peer does wrong costs its own connection, and one line at most. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import type { Counts } from "../../src/counters.ts";
import type { Pmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import {
  ABORT,
  BODY,
  CONNECT,
  DATA,
  descriptorsAtRest,
  descriptorsOf,
  descriptorsSettle,
  EOH,
  EOM,
  HEADER,
  HELO,
  MAIL,
  OFFERS,
  OPTNEG,
  packet,
  QUIT,
  RawClient,
  RCPT,
  residentBytes,
  UNKNOWN,
  words,
} from "../server/wire.ts";
import { complaints, countersOf, cpuMs, expectCounters, expectLogged, expectLoggedTimes, start } from "./support.ts";

setDefaultTimeout(120_000);

const FILTER = `connect() {}, helo() {}, envrcpt() {},
envfrom(_, sender) { if (sender === "<refused@example.com>") return reject("550 5.7.1 refused"); }, header() {}, body() {}, unknown() {},
eom({ message }) { if (message.sender.address === "spam@example.com") return reject("550 5.7.1 spam"); },
abort(session) { console.log("abort", session.client.hostname); },
close(session) { console.log("close", session.client.hostname); }`;
const MiB = 2 ** 20;

const named = (name: string) => packet("C", `${name}\0U`);

// One worker: everything happens beside the bystander.
let server: Pmilter;
let bystander: RawClient;
let before: Counts;
let from: number;
/** Open with the bystander alone. */
let descriptors: number;

beforeAll(async () => {
  server = await start(FILTER);
  bystander = await RawClient.connect(server.addresses[0]!);
  expect(await bystander.ask(OPTNEG, CONNECT, HELO)).toBe("Occ");
  if (IS_LINUX) descriptors = await descriptorsAtRest(server);
});

afterAll(async () => {
  bystander[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

/** Notes where the log and the counters stand. */
async function note(): Promise<void> {
  from = server.log.all.length;
  before = await countersOf(server);
}

/** The bystander's message is looked at and answered as ever. */
async function expectUndisturbed(): Promise<void> {
  expect(await bystander.ask(MAIL, RCPT, HEADER, BODY, EOM)).toBe("ccccc");
  expect(bystander.isEnded).toBe(false);
  expect(complaints(server, from)).toEqual([]);
}

describe("what breaks the protocol", () => {
  const random = (size: number): Buffer => {
    let seed = 20170725;
    return Buffer.from(Array.from({ length: size }, () => (seed = (seed * 1103515245 + 12345) % 2147483648) >> 16));
  };

  /** One connection: what it sends, the replies before it is closed, and the one line of it. */
  async function expectClosed(sent: readonly Uint8Array[], replies: string, reason: RegExp): Promise<void> {
    await note();
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(...sent);
    await client.ended(2000);
    expect(client.replies.map(({ code }) => code).join("")).toBe(replies);
    const [line] = await expectLogged(server, "garbage", { from });
    expect(line).toMatch(reason);
    await expectUndisturbed();
    expect(server.log.all.slice(from)).toHaveLength(1);
    await expectCounters(server, { protocolErrors: 1, internalErrors: 0 }, before);
  }

  test.each<[string, readonly Uint8Array[], string, RegExp]>([
    ["HTTP", [Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")], "", /packet of 1195725856 bytes/],
    ["SMTP in a session", [OPTNEG, CONNECT, Buffer.from("EHLO x\r\n")], "Oc", /packet of \d+ bytes/],
    ["random bytes", [random(1000)], "", /packet of \d+ bytes|before OPTNEG|command/],
    ["length 0 first of all", [words(0)], "", /packet of length 0/],
    ["length 0 in a message", [OPTNEG, CONNECT, MAIL, words(0)], "Occ", /packet of length 0/],
    ["HELO without its end", [OPTNEG, packet("H", "no end")], "O", /HELO name does not end with NUL/],
    ["MAIL without its end", [OPTNEG, packet("M", "<a@b>")], "O", /MAIL does not end with NUL/],
    ["an argument without its end", [OPTNEG, packet("R", "<a@b>\0NOTIFY")], "O", /RCPT does not end with NUL/],
    ["HEADER with one string", [OPTNEG, packet("L", "Subject\0")], "O", /string 2 of HEADER/],
    ["CONNECT without its family", [OPTNEG, packet("C", "host\0")], "O", /before its address family/],
    ["CONNECT cut in its port", [OPTNEG, packet("C", "host\x004\0")], "O", /before its port/],
    ["an unknown command", [OPTNEG, CONNECT, MAIL, packet("z")], "Occ", /unknown command 0x7A/],
    ["a NUL as a command", [OPTNEG, packet("\0")], "O", /unknown command 0x00/],
    ["a reply as a command", [OPTNEG, packet("c")], "O", /unknown command 0x63/],
    ["a second OPTNEG", [OPTNEG, CONNECT, OPTNEG], "Oc", /a second OPTNEG/],
    ["CONNECT before OPTNEG", [CONNECT], "", /CONNECT before OPTNEG/],
    ["MACRO before OPTNEG", [packet("D", "Cj\0mx\0")], "", /MACRO before OPTNEG/],
    ["version 1", [packet("O", words(1, 0x1f, 0x3f))], "", /version 1, expected at least 2/],
    ["version 0", [packet("O", words(0, 0x1f, 0x3f))], "", /version 0, expected at least 2/],
    ["half an OPTNEG", [packet("O", words(6, 0x1f))], "", /OPTNEG of 8 bytes, expected 12/],
  ])("garbage: %s", (_, sent, replies, reason) => expectClosed(sent, replies, reason));

  test("garbage: length 0xFFFFFFFF, of which nothing is reserved", async () => {
    const resident = IS_LINUX ? residentBytes(server) : 0;
    for (let count = 0; count < 20; count++) {
      await expectClosed([OPTNEG, words(0xffff_ffff)], "O", /packet of 4294967295 bytes/);
    }
    if (IS_LINUX) expect(residentBytes(server) - resident).toBeLessThan(32 * MiB);
  });

  test("version-99: is served as version 6", async () => {
    await note();
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(packet("O", words(99, 0xffff_ffff, 0x100000)));
    const { code, payload } = await client.reply();
    expect([code, payload.readUInt32BE(0)]).toEqual(["O", 6]);
    expect(await client.ask(CONNECT, MAIL, RCPT, EOM)).toBe("cccc");
    expect(server.log.all.slice(from)).toEqual([]);
    await expectCounters(server, { protocolErrors: 0, accepted: 1 }, before);
  });
});

test("vanishes: in the middle of a command, orderly or by a reset: abort and close run, nothing is kept", async () => {
  await note();
  for (const [index, offer] of OFFERS.entries()) {
    for (const end of ["fin", "reset"]) {
      const name = `${end}${index}.example.net`;
      {
        using client = await RawClient.connect(server.addresses[0]!);
        expect(await client.ask(offer, named(name), MAIL)).toBe("Occ");
        await client.send(HEADER, BODY.subarray(0, BODY.length - 1));
        if (end === "fin") {
          client.end();
          await client.ended();
        }
      }
      await server.prints.next(new RegExp(`^close ${name}$`));
      expect(server.prints.all.filter((line) => line.endsWith(name))).toEqual([`abort ${name}`, `close ${name}`]);
    }
  }
  await expectUndisturbed();
  if (IS_LINUX) {
    const what = "the descriptors of connections that are gone";
    await waitFor(() => descriptorsOf(server) <= descriptors, { what });
  }
  expect(server.log.all.slice(from)).toEqual([]);
  await expectCounters(server, { protocolErrors: 0, sessionsLost: 0 }, before);
});

test("out-of-order: each command gets an answer, and no order passes a message by the handlers", async () => {
  await note();
  using client = await RawClient.connect(server.addresses[0]!);
  const odd = [
    EOM,
    RCPT,
    BODY,
    EOM,
    HEADER,
    DATA,
    EOH,
    EOM,
    HELO,
    CONNECT,
    EOH,
    MAIL,
    MAIL,
    EOM,
    RCPT,
    HELO,
    BODY,
    EOM,
  ];
  expect(await client.ask(OPTNEG, ...odd)).toBe(`O${"c".repeat(odd.length)}`);
  await client.send(ABORT, ABORT);
  // What went before has no part in the next message.
  const spam = packet("M", "<spam@example.com>\0");
  expect(await client.ask(spam, RCPT, EOM, MAIL, RCPT, EOM)).toBe("ccyccc");
  expect(await client.ask(spam, EOM, RCPT, EOM, spam, BODY, EOM)).toBe("cyccccy");
  // A message that was refused stays so, whatever more of it is sent.
  const refused = packet("M", "<refused@example.com>\0");
  expect(await client.ask(refused, RCPT, DATA, BODY, EOM, MAIL, EOM)).toBe("yyyyycc");
  await expectUndisturbed();
  await expectCounters(server, { protocolErrors: 0, internalErrors: 0 }, before);
});

test("pipelines: 10,000 packets in one write get 10,000 replies in order, in bounded memory", async () => {
  await note();
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OPTNEG, CONNECT);
  const resident = IS_LINUX ? residentBytes(server) : 0;
  const spam = packet("M", "<spam@example.com>\0");
  const packets = Array.from({ length: 2500 }, () => [spam, RCPT, EOM, UNKNOWN]).flat();
  await client.send(Buffer.concat(packets));
  expect(await client.codes(10_000)).toBe("ccyc".repeat(2500));
  if (IS_LINUX) expect(residentBytes(server) - resident).toBeLessThan(64 * MiB);
  expect(await client.ask(MAIL, RCPT, EOM)).toBe("ccc");
  await expectUndisturbed();
  await expectCounters(server, { rejected: 2500, accepted: 2, internalErrors: 0 }, before);
});

test("never-reads: the server reads no more of it, its memory stays, others are served", async () => {
  await note();
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OPTNEG, CONNECT, MAIL);
  client.pause();
  const resident = IS_LINUX ? residentBytes(server) : 0;
  // What gets into the sockets' buffers; the bystander's answers are the clock.
  const sent = await client.stuff(UNKNOWN, async () => expect(await bystander.ask(UNKNOWN)).toBe("c"));
  expect(sent).toBeLessThan(64 * MiB);
  if (IS_LINUX) {
    expect(residentBytes(server) - resident).toBeLessThan(64 * MiB);
    // Compilers and the collector may still be at work on what came before.
    await waitFor(
      async () => {
        const cpu = cpuMs(server.process.pid);
        await Bun.sleep(300);
        return cpuMs(server.process.pid) - cpu < 150;
      },
      { what: "the server to rest" },
    );
  }
  // It reads again: everything whole that it sent is answered.
  client.resume();
  const whole = Math.floor(sent / UNKNOWN.length);
  expect(await client.codes(whole)).toBe("c".repeat(whole));
  await expectUndisturbed();
  await expectCounters(server, { sessionsLost: 0, protocolErrors: 0 }, before);
});

test("never-reads: one that goes on so is given up after server.timeout", async () => {
  await using short = await start("envrcpt() {}, envfrom() {}", { server: { timeout: 0.3 } });
  const open = IS_LINUX ? await descriptorsAtRest(short) : 0;
  using client = await RawClient.connect(short.addresses[0]!);
  await client.ask(OPTNEG, CONNECT, MAIL);
  client.pause();
  await client.stuff(UNKNOWN, () => new Promise(setImmediate));
  await expectLogged(short, "never-reads");
  if (IS_LINUX) await descriptorsSettle(short, open, 3000);
});

/** One that says no more is cut after `server.timeout`, and an active one beside it is not. */
async function expectCut(id: string, sent: readonly Uint8Array[], replies: string): Promise<void> {
  await using short = await start(FILTER, { server: { timeout: 0.4 } });
  const open = IS_LINUX ? await descriptorsAtRest(short) : 0;
  using active = await RawClient.connect(short.addresses[0]!);
  await active.ask(OPTNEG);
  const asking = setInterval(() => void active.send(UNKNOWN), 100);
  using client = await RawClient.connect(short.addresses[0]!);
  if (sent.length > 0) await client.send(...sent);
  await client.ended(3000);
  clearInterval(asking);
  expect(client.replies.map(({ code }) => code).join("")).toBe(replies);
  await expectLoggedTimes(short, id, 1);
  expect(active.isEnded).toBe(false);
  await active.send(QUIT);
  await active.ended();
  if (IS_LINUX) await descriptorsSettle(short, open, 3000);
  await expectCounters(short, { protocolErrors: 0, sessionsLost: 0 });
}

test("stalls: one that stalls in a packet is cut after server.timeout", () =>
  expectCut("stalls", [OPTNEG, CONNECT, MAIL, BODY.subarray(0, 7)], "Occ"));

test("silent: one that sends nothing is cut after server.timeout", () => expectCut("silent", [], ""));

test("not-allowed: an address outside of server.allow is closed at once", async () => {
  await using closed = await start(FILTER, { listen: "inet:127.0.0.1:0", server: { allow: ["192.0.2.0/24"] } });
  using client = await RawClient.connect(closed.addresses[0]!);
  await client.ended();
  expect(client.replies).toEqual([]);
  await expectLoggedTimes(closed, "not-allowed", 1);
  expect(closed.process.exitCode).toBeNull();
});
