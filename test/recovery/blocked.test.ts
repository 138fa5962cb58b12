/** A handler that does not return, at each phase: the answer comes from outside, and nobody else loses anything. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { BEAT_MS } from "../../src/shared/worker-rows.ts";
import { WATCHDOG_MS } from "../../src/server/policy.ts";
import type { Pmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import {
  ABORT,
  begin,
  BLOCK_S,
  body,
  BODY,
  connect,
  DATA,
  EOH,
  EOM,
  expectCodes,
  header,
  HEADER,
  helo,
  mail,
  OFFERS,
  OPTNEG,
  OPTNEG_DEFER,
  packet,
  pass,
  QUIT,
  RawClient,
  RCPT,
  rcpt,
  startFaulty,
  statusOf,
  unknown,
  words,
} from "./support.ts";

setDefaultTimeout(120_000);

/** `block_timeout`, a beat, and two looks, one of which may be late: then the server sees it, by its own clock. */
const SEEN_S = BLOCK_S + BEAT_MS / 1000 + (2 * WATCHDOG_MS) / 1000;

/** For how long the server saw each of its workers silent before it took it for lost. */
function expectSeenInTime(server: Pmilter, count: number): void {
  const seconds = server.log.all.flatMap(
    (line) => /not returned to its event loop for ([\d.]+) s/.exec(line)?.[1] ?? [],
  );
  expect(seconds).toHaveLength(count);
  expect(Math.max(...seconds.map(Number))).toBeLessThanOrEqual(SEEN_S);
}

interface Case {
  readonly phase: string;
  /** What is answered before. */
  readonly before: readonly Uint8Array[];
  /** What the handler does not return from. */
  readonly guilty: Uint8Array;
  /** The HELO name that makes it so where the phase has no argument. */
  readonly helo?: string;
}

const ANSWERED: readonly Case[] = [
  { phase: "envfrom", before: [], guilty: mail("<WORD@example.com>") },
  { phase: "envrcpt", before: [mail()], guilty: rcpt("<WORD@example.com>") },
  { phase: "data", before: [mail(), RCPT], guilty: DATA, helo: "WORD-data" },
  { phase: "header", before: [mail(), RCPT, DATA], guilty: header(" WORD") },
  { phase: "eoh", before: [mail(), RCPT, DATA, HEADER], guilty: EOH, helo: "WORD-eoh" },
  { phase: "body", before: [mail(), RCPT, DATA, HEADER, EOH], guilty: body("WORD") },
  { phase: "eom", before: [mail(), RCPT, DATA, HEADER, EOH, BODY], guilty: EOM, helo: "WORD-eom" },
];

/** The same for content that gets no reply: nothing is owed until the end is sent. */
const DEFERRED: readonly Case[] = ANSWERED.filter(({ phase }) => ["header", "eoh", "body"].includes(phase));

const IN_MESSAGE = [
  ...ANSWERED.map((each) => [each.phase, OPTNEG, each] as const),
  ...DEFERRED.map((each) => [`${each.phase}, deferred`, OPTNEG_DEFER, each] as const),
];

/** The same bytes with the word in place, which has as many letters. */
const saying = (word: string, bytes: Uint8Array) =>
  Buffer.from(Buffer.from(bytes).toString("latin1").replace("WORD", word), "latin1");

// `loop` never returns; `nati` is a native call, which the end of its worker does not end; `late` loops after an await.
describe.each([
  ["blocked", "loop"],
  ["blocked-native", "nati"],
  ["blocked-later", "late"],
])("%s: a handler that does not return", (_, word) => {
  test.each(IN_MESSAGE)(
    "at %s: the fallback in time, then the session and its neighbours go on",
    async (_at, offer, each) => {
      await using server = await startFaulty();
      using between = await begin(server, { name: "between.example.net" });
      using within = await begin(server, { name: "within.example.net" });
      expectCodes(await within.ask(mail(), RCPT), "cc");
      const name = each.helo?.replace("WORD", word) ?? "client.example.net";
      using session = await begin(server, { name, offer });
      if (each.before.length > 0) await session.ask(...each.before);

      const commands = [saying(word, each.guilty), ...(offer === OPTNEG_DEFER ? [EOM] : [])];
      expect(await session.ask(...commands)).toBe("t");
      // Between messages: as if nothing had happened. Within one: the fallback for that message, then the next.
      await pass(between, "between.example.net");
      expectCodes(await within.ask(DATA), "t");
      await within.send(ABORT);
      await pass(within, "within.example.net");
      await session.send(ABORT);
      if (each.helo === undefined) await pass(session, name);

      if (word !== "late") {
        await server.log.next(
          new RegExp(`handler did not return: .*filter=faulty phase=${each.phase} at=faulty.ts fallback=tempfail`),
        );
      }
      const { counters, stuckThreads } = await statusOf(server);
      expect(counters).toMatchObject({ blocked: 1, sessionsLost: 0, sessionsMoved: 3, tempfailed: 2, fallbacks: 2 });
      expect(stuckThreads).toBe(word === "nati" ? 1 : 0);
      expectSeenInTime(server, 1);
    },
  );

  test("at connect and at helo: the fallback for the connection, and its handlers are not asked again", async () => {
    await using server = await startFaulty();
    using between = await begin(server, { name: "between.example.net" });
    for (const commands of [[connect(word)], [connect(), helo(word)]]) {
      using session = await RawClient.connect(server.addresses[0]!);
      for (const command of [OPTNEG, ...commands.slice(0, -1)]) await session.ask(command);
      expect(await session.ask(commands.at(-1)!)).toBe("t");
      expectCodes(await session.ask(mail(), RCPT), "tt");
      await pass(between, "between.example.net");
    }
    const { counters } = await statusOf(server);
    expect(counters).toMatchObject({ blocked: 2, sessionsLost: 0, connectionsRefused: 2, fallbacks: 2 });
    expectSeenInTime(server, 2);
  });

  test("at abort, close and unknown: nothing is refused for it", async () => {
    await using server = await startFaulty();
    using between = await begin(server, { name: "between.example.net" });

    using aborted = await begin(server, { name: `${word}-abort` });
    expectCodes(await aborted.ask(mail()), "c");
    await aborted.send(ABORT);
    await waitFor(async () => (await statusOf(server)).counters.blocked === 1, { what: "the worker to be replaced" });
    expectCodes(await aborted.ask(mail()), "c");
    using asking = await begin(server);
    expectCodes(await asking.ask(unknown(word)), "c");
    await pass(asking);
    using closing = await begin(server, { name: `${word}-close` });
    await closing.send(QUIT);
    await closing.ended();

    await pass(between, "between.example.net");
    const { counters } = await statusOf(server);
    expect(counters).toMatchObject({ sessionsLost: 0, connectionsRefused: 0 });
    expect(counters.blocked).toBeGreaterThanOrEqual(3);
  });
});

test("blocked: at content that nobody awaits a reply to: the fallback at the end of the message, whenever that comes", async () => {
  await using server = await startFaulty({ server: { on_timeout: "reject" } });
  using session = await begin(server, { offer: OPTNEG_DEFER });
  expectCodes(await session.ask(mail(), RCPT, DATA), "ccc");
  await session.send(header(" loop"));
  await waitFor(async () => (await statusOf(server)).counters.blocked === 1, { what: "the worker to be replaced" });
  await session.send(EOH, BODY);
  expectCodes(await session.ask(unknown("nothing")), "c");
  expectCodes(await session.ask(EOM), "r");
  await pass(session);
  expect((await statusOf(server)).counters).toMatchObject({ blocked: 1, rejected: 1, fallbacks: 1, accepted: 1 });
});

describe("bystander: beside a handler that does not return", () => {
  test("a session that waits at connect for an answer gets its own, from another worker", async () => {
    await using server = await startFaulty();
    using waiting = await RawClient.connect(server.addresses[0]!);
    expectCodes(await waiting.ask(OPTNEG), "O");
    await waiting.send(connect("slow"));
    using session = await begin(server);
    expectCodes(await session.ask(mail("<loop@example.com>")), "t");
    expectCodes(await waiting.codes(1), "c");
    expectCodes(await waiting.ask(helo("waiting.example.net")), "c");
    await pass(waiting, "waiting.example.net");
  });

  test("a session that waits at connect has its time once, however many workers are lost beside it", async () => {
    await using server = await startFaulty({ server: { handler_timeout: 1.5 } });
    using waiting = await RawClient.connect(server.addresses[0]!);
    expectCodes(await waiting.ask(OPTNEG), "O");
    await waiting.send(connect("slow"));
    const answered = waiting.replies.length;
    let rounds = 0;
    // Would its time begin anew with each of them, it would never be over.
    for (; waiting.replies.length === answered && rounds < 20; rounds++) {
      using session = await begin(server);
      expectCodes(await session.ask(mail("<loop@example.com>")), "t");
    }
    expect(rounds).toBeLessThan(20);
    expectCodes(await waiting.codes(1), "t");
  });

  test("what was sent meanwhile is answered by the next worker, whole or in pieces", async () => {
    await using server = await startFaulty();
    using other = await begin(server, { name: "other.example.net" });
    const stream = mail("<other@example.com>");
    await other.send(stream.subarray(0, 9));
    using session = await begin(server);
    await session.send(mail("<loop@example.com>"));
    await other.send(stream.subarray(9, 15));
    expectCodes(await session.codes(1), "t");
    await other.send(stream.subarray(15));
    expectCodes(await other.codes(1), "c");
    expectCodes(await other.ask(RCPT, DATA, HEADER, EOH, BODY), "ccccc");
    await other.send(EOM);
    expect((await other.reply()).payload.toString()).toContain("other.example.net <other@example.com>");
  });

  test.each([...OFFERS])(
    "a body that is half here is passed over, and its message gets the fallback",
    async (offer) => {
      await using server = await startFaulty();
      using other = await begin(server, { name: "other.example.net", offer });
      await other.ask(mail(), RCPT, DATA, HEADER, EOH);
      const chunk = packet("B", "y".repeat(60_000));
      await other.send(chunk.subarray(0, 30_000));
      using session = await begin(server);
      expectCodes(await session.ask(mail("<loop@example.com>")), "t");
      await other.send(chunk.subarray(30_000));
      if (offer === OPTNEG) expectCodes(await other.codes(1), "t");
      expectCodes(await other.ask(EOM), "t");
      await pass(other, "other.example.net");
    },
  );

  test("a verdict that was found and not given yet is given: nothing passes that a handler refused", async () => {
    await using server = await startFaulty({ server: { on_timeout: "continue" } });
    using refused = await RawClient.connect(server.addresses[0]!);
    // All that Postfix offers: header, eoh and body come without replies.
    expectCodes(await refused.ask(packet("O", words(6, 0x1ff, 0x1fffff))), "O");
    for (const command of [connect(), helo(), mail(), RCPT, DATA]) expectCodes(await refused.ask(command), "c");
    await refused.send(header(" refuse"));
    // It has been worked on when another command after it was answered.
    expectCodes(await refused.ask(unknown("nothing")), "c");
    using session = await begin(server);
    expectCodes(await session.ask(mail("<loop@example.com>")), "c");
    await refused.send(EOH, BODY);
    expectCodes(await refused.ask(EOM), "r");
    await refused.send(ABORT);
    for (const command of [mail(), RCPT, DATA]) expectCodes(await refused.ask(command), "c");
    expect((await statusOf(server)).counters).toMatchObject({ rejected: 1, fallbacks: 1, sessionsLost: 0 });
  });

  test("a connection that was refused stays refused", async () => {
    await using server = await startFaulty({ server: { on_timeout: "continue" } });
    using refused = await RawClient.connect(server.addresses[0]!);
    expectCodes(await refused.ask(OPTNEG), "O");
    expectCodes(await refused.ask(connect("refuse")), "y");
    using session = await begin(server);
    expectCodes(await session.ask(mail("<loop@example.com>")), "c");
    expectCodes(await refused.ask(mail()), "r");
  });

  test("peer-gone: a peer that goes away meanwhile, orderly or not, costs nobody anything", async () => {
    await using server = await startFaulty({ listen: ["inet:127.0.0.1:0"] });
    using between = await begin(server, { name: "between.example.net" });
    const leaving = [await begin(server), await begin(server), await begin(server)];
    for (const each of leaving) expectCodes(await each.ask(mail()), "c");
    using session = await begin(server);
    await session.send(mail("<loop@example.com>"));
    leaving[0]!.end();
    for (const each of leaving.slice(1)) {
      // What is unread on either side makes it a reset.
      await each.send(RCPT);
      each[Symbol.dispose]();
    }
    expectCodes(await session.codes(1), "t");
    await pass(between, "between.example.net");
    await pass(session);
    await waitFor(async () => (await statusOf(server)).connections === 2, { what: "the others to be forgotten" });
    leaving[0]![Symbol.dispose]();
  });

  test("connections that come meanwhile are served", async () => {
    await using server = await startFaulty();
    using session = await begin(server);
    await session.send(mail("<loop@example.com>"));
    const others = await Promise.all(
      Array.from({ length: 20 }, (_, index) => begin(server, { name: `n${index}.test` })),
    );
    expectCodes(await session.codes(1), "t");
    for (const [index, other] of others.entries()) {
      await pass(other, `n${index}.test`);
      other[Symbol.dispose]();
    }
  });

  test("all-blocked: with every worker stuck at once, each waiting command is answered in time", async () => {
    await using server = await startFaulty({ server: { workers: 3 } });
    const sessions: RawClient[] = [];
    // One after the other: two on each worker, one of which gets stuck.
    for (let index = 0; index < 6; index++) sessions.push(await begin(server, { name: `n${index}.test` }));
    const stuck = sessions.slice(0, 3);
    await Promise.all(
      stuck.map((session, index) => session.send(mail(`<${index === 0 ? "nati" : "loop"}@example.com>`))),
    );
    const late = sessions.slice(3).map((session) => session.ask(mail()));
    for (const session of stuck) expectCodes(await session.codes(1), "t");
    expect(await Promise.all(late)).toEqual(["c", "c", "c"]);
    expectSeenInTime(server, 3);
    for (const session of sessions) session[Symbol.dispose]();
  });

  test("blocked-old: an old generation is looked after as well", async () => {
    await using server = await startFaulty();
    using session = await begin(server, { name: "loop-eom" });
    using between = await begin(server, { name: "between.example.net" });
    await Bun.write(
      `${server.dir}/faulty.ts`,
      (await Bun.file(`${server.dir}/faulty.ts`).text()).replace("X-Seen", "X-New"),
    );
    await server.log.next(/reload: generation 2 serves/);
    expectCodes(await session.ask(mail(), RCPT, DATA, HEADER, EOH, BODY), "cccccc");
    expectCodes(await session.ask(EOM), "t");
    expectCodes(await between.ask(mail(), RCPT, DATA, HEADER, EOH, BODY), "cccccc");
    await between.send(EOM);
    expect((await between.reply()).payload.toString()).toContain("between.example.net");
    await waitFor(async () => (await statusOf(server)).ending.length === 0, { what: "the old generation to end" });
  });

  test.each(["loop", "nati-long"])("blocked-stop: a stop is not held up (%s)", async (word) => {
    await using server = await startFaulty({ server: { stop_timeout: 1 } });
    using session = await begin(server);
    await session.send(mail(`<${word}@example.com>`));
    await server.log.next(/ready/);
    expect(await server.stop()).toBe(0);
    expectCodes(await session.codes(1), "t");
    await session.ended();
  });
});

test("stuck-threads: threads that stay stuck are bounded: with too many, connections get the fallback until one returns", async () => {
  await using server = await startFaulty({ server: { workers: 8, block_timeout: 0.1, stop_timeout: 0 } });
  const answers: Promise<string>[] = [];
  const sessions: RawClient[] = [];
  for (let index = 0; index < 40; index++) {
    const session = await RawClient.connect(server.addresses[0]!);
    sessions.push(session);
    answers.push(
      (async () => {
        await session.ask(OPTNEG);
        if ((await session.ask(connect())) !== "c") return "t";
        if ((await session.ask(helo())) !== "c") return "t";
        return session.ask(mail("<nati@example.com>"));
      })(),
    );
  }
  expect(new Set(await Promise.all(answers))).toEqual(new Set(["t"]));
  const { counters, stuckThreads } = await statusOf(server);
  expect(stuckThreads).toBeLessThanOrEqual(32);
  expect(counters).toMatchObject({ sessionsLost: 0, connections: 40 });
  for (const session of sessions) session[Symbol.dispose]();
});

describe("blocked: the fallback for a handler that does not return", () => {
  const ALL = [mail("<loop@example.com>"), RCPT, DATA, HEADER, EOH, BODY, EOM];

  test.each([
    ["reject", "rrrrrrr"],
    ["tempfail", "ttttttt"],
    ["accept", "ccccccc"],
    ["continue", "ccccccc"],
  ] as const)("%s rules for the whole message", async (fallback, codes) => {
    await using server = await startFaulty({ server: { on_timeout: fallback } });
    using session = await begin(server);
    expectCodes(await session.ask(...ALL), codes);
    await pass(session);
  });

  test.each(["accept", "continue"] as const)("%s at connect: the session goes on", async (fallback) => {
    await using server = await startFaulty({ server: { on_timeout: fallback } });
    using session = await RawClient.connect(server.addresses[0]!);
    for (const command of [OPTNEG, connect("loop"), helo()]) await session.ask(command);
    // After `accept` the filter sees no more of the connection, and there is no other.
    if (fallback === "accept") expectCodes(await session.ask(mail(), RCPT), "aa");
    else await pass(session);
  });

  test("lets nothing pass that another filter was to decide: the strictest of the chain rules", async () => {
    await using server = await startFaulty({
      server: { on_timeout: "continue" },
      config: '[[filter]]\npath = "second.ts"\non_timeout = "reject"\n',
      files: { "second.ts": 'export default { name: "second", eom() {} };' },
    });
    using session = await begin(server);
    expectCodes(await session.ask(...ALL), "rrrrrrr");
  });
});
