/** A worker that ends by itself, or eats memory: its sessions go on in another. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { MEMORY_MS } from "../../src/server/policy.ts";
import { waitFor } from "../support/temp.ts";
import {
  ABORT,
  begin,
  BODY,
  body,
  connect,
  DATA,
  EOH,
  EOM,
  expectCodes,
  HEADER,
  header,
  mail,
  OFFERS,
  OPTNEG,
  OPTNEG_DEFER,
  pass,
  RawClient,
  RCPT,
  startFaulty,
  statusOf,
} from "./support.ts";

setDefaultTimeout(120_000);

describe("exit: a handler that ends its worker", () => {
  test("the fallback for its message; who shares the worker goes on", async () => {
    await using server = await startFaulty();
    using between = await begin(server, { name: "between.example.net" });
    using within = await begin(server, { name: "within.example.net" });
    expectCodes(await within.ask(mail(), RCPT), "cc");
    using session = await begin(server);
    expectCodes(await session.ask(mail("<exit@example.com>")), "t");
    await pass(between, "between.example.net");
    expectCodes(await within.ask(DATA), "t");
    await within.send(ABORT);
    await pass(within, "within.example.net");
    await pass(session);
    expect(await server.log.next(/a worker with 3 connections ended/)).toContain("a handler called process.exit(3)");
    const { counters } = await statusOf(server);
    expect(counters).toMatchObject({ workersDied: 1, blocked: 0, sessionsLost: 0, sessionsMoved: 3, tempfailed: 2 });
  });

  test("at content, with a reply of its own and deferred to the end: the same", async () => {
    await using server = await startFaulty({ server: { on_error: "reject", on_timeout: "continue" } });
    for (const offer of OFFERS) {
      for (const [name, commands] of [
        ["client.example.net", [header(" exit")]],
        ["exit-eoh", [HEADER, EOH]],
        ["client.example.net", [HEADER, EOH, body("exit")]],
      ] as const) {
        using session = await begin(server, { name, offer });
        expectCodes(await session.ask(mail(), RCPT, DATA), "ccc");
        if (commands.length > 1) await session.ask(...commands.slice(0, -1));
        const commandsAndEnd = offer === OPTNEG_DEFER ? [commands.at(-1)!, EOM] : [commands.at(-1)!];
        expectCodes(await session.ask(...commandsAndEnd), "r");
        await session.send(ABORT);
        if (name !== "exit-eoh") await pass(session);
      }
    }
    expect((await statusOf(server)).counters).toMatchObject({
      workersDied: 6,
      rejected: 6,
      fallbacks: 6,
      sessionsLost: 0,
    });
  });

  test("on_error rules, not on_timeout", async () => {
    await using server = await startFaulty({ server: { on_error: "reject", on_timeout: "continue" } });
    using session = await begin(server);
    expectCodes(await session.ask(mail("<exit@example.com>")), "r");
  });

  test("at connect: the connection gets the fallback, and its handlers are not asked again", async () => {
    await using server = await startFaulty();
    using session = await RawClient.connect(server.addresses[0]!);
    expectCodes(await session.ask(OPTNEG), "O");
    expectCodes(await session.ask(connect("exit")), "t");
    expectCodes(await session.ask(mail()), "t");
    expect((await statusOf(server)).counters).toMatchObject({ workersDied: 1, connectionsRefused: 1 });
  });

  test("again and again: each time the fallback, and never a tight loop", async () => {
    await using server = await startFaulty();
    using session = await begin(server);
    const before = performance.now();
    for (let round = 0; round < 5; round++) expectCodes(await session.ask(mail("<exit@example.com>")), "t");
    // Five deaths in a row: 0, 100, 200, 300 ms are waited before a worker is started.
    expect(performance.now() - before).toBeGreaterThan(600);
    await pass(session);
    expect((await statusOf(server)).counters).toMatchObject({ workersDied: 5, sessionsLost: 0 });
  });
});

const EATING = `
import { defineFilter } from "pmilter";
const kept: unknown[] = [];
export default defineFilter({
  envfrom(_, sender) {
    const megabytes = Number(/^<(\\d+)@/.exec(sender)?.[1] ?? 0);
    for (let count = 0; count < megabytes; count++) kept.push(new Uint8Array(2 ** 20).fill(1));
    if (sender.includes("slow")) Bun.sleepSync(1200);
    if (sender.includes("waste")) kept.length = 20;
    if (sender.startsWith("<all@")) for (;;) kept.push(new Uint8Array(2 ** 20).fill(1));
  },
  eom(session) { session.message.addHeader("X-Seen", session.helo + " " + session.message.sender.raw); },
});
`;

describe("a handler that holds memory", () => {
  // How long it takes to fill memory is the machine's business: nobody here is to be lost for it.
  const start = () =>
    startFaulty({
      server: { block_timeout: 30 },
      config: "[limits]\nworker_memory = 67108864\n",
      files: { "faulty.ts": EATING },
    });

  test("eats-memory: over twice the bound its worker is ended, and its sessions go on in another", async () => {
    await using server = await start();
    using between = await begin(server, { name: "between.example.net" });
    using session = await begin(server);
    expectCodes(await session.ask(mail("<200@example.com>")), "c");
    expect(await server.log.next(/holds too much memory/)).toMatch(/\[crit\]: a worker with 2 connections/);
    expectCodes(await session.ask(RCPT), "t");
    await session.send(ABORT);
    await pass(session);
    await pass(between, "between.example.net");
    const { counters, workers } = await statusOf(server);
    expect(counters).toMatchObject({ workersRecycled: 1, sessionsLost: 0, tempfailed: 1 });
    expect(workers.every(({ heapBytes }) => heapBytes < 67_108_864)).toBe(true);
  });

  test("what nobody holds any more is collected first, and costs no worker", async () => {
    await using server = await start();
    using session = await begin(server);
    // One message after the other, for longer than a worker may be over its bound.
    for (const until = performance.now() + 2 * MEMORY_MS; performance.now() < until;) {
      expectCodes(await session.ask(mail("<150@waste.example.com>"), RCPT), "cc");
      await session.send(ABORT);
    }
    const heapOf = async () => (await statusOf(server)).workers[0]!.heapBytes;
    await waitFor(async () => (await heapOf()) < 67_108_864, { what: "the worker to say what it holds" });
    await pass(session);
    expect((await statusOf(server)).counters).toMatchObject({ workersRecycled: 0, tempfailed: 0 });
  });

  test("what a handler needs for one message costs no worker, however slowly it is filled", async () => {
    await using server = await start();
    using session = await begin(server);
    expectCodes(await session.ask(mail("<200@slow-waste.example.com>"), RCPT), "cc");
    await session.send(ABORT);
    await pass(session);
    expect((await statusOf(server)).counters).toMatchObject({ workersRecycled: 0, tempfailed: 0 });
  });

  test("grows: over the bound its worker is replaced, finishes the message at hand, and gives up the rest", async () => {
    await using server = await start();
    using between = await begin(server, { name: "between.example.net" });
    using session = await begin(server);
    expectCodes(await session.ask(mail("<90@example.com>")), "c");
    // A worker that has lived for less than ten seconds is not replaced for the bound alone.
    await server.log.next(/a worker holds \d+ MiB, more than limits.worker_memory/);
    expectCodes(await session.ask(RCPT, DATA, HEADER, EOH, BODY), "ccccc");
    await session.send(EOM);
    expect((await session.reply()).payload.toString()).toContain("<90@example.com>");
    expectCodes(await session.codes(1), "c");
    await pass(between, "between.example.net");
    await pass(session);
    await waitFor(async () => (await statusOf(server)).workers.length === 1, { what: "the old worker to end" });
    expect((await statusOf(server)).counters).toMatchObject({ workersRecycled: 1, sessionsLost: 0, tempfailed: 0 });
  });

  test("eats-memory: in a loop that does not return, before the process dies of it", async () => {
    await using server = await start();
    using session = await begin(server);
    // Before block_timeout by far: the client waits for its reply for less.
    expectCodes(await session.ask(mail("<all@example.com>")), "t");
    expect(await server.log.next(/holds too much memory/)).toContain("MiB more since then");
    await pass(session);
    expect((await statusOf(server)).counters).toMatchObject({ workersRecycled: 1, sessionsLost: 0 });
  });
});
