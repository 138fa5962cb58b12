/** Filters in memory: several messages in one session, observe mode, a clock that the test moves, and what is reported. */
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { defineFilter, reject } from "../../src/index.ts";
import { openSession, runFilter, TestClock, TestStore } from "../../src/testing/index.ts";

const EML = "From: a@example.com\nTo: b@example.com\nSubject: x\n\nHello\n";

let printed: string[];
let spy: ReturnType<typeof spyOn<Console, "error">>;
beforeEach(() => {
  printed = [];
  spy = spyOn(console, "error").mockImplementation((line: unknown) => void printed.push(String(line)));
});
afterEach(() => spy.mockRestore());

describe("openSession", () => {
  /** Refuses the third message of a session, and says what it is told. */
  const counting = () => {
    const calls: string[] = [];
    const filter = defineFilter({
      name: "counting",
      start: () => calls.push("start"),
      state: () => ({ messages: 0 }),
      connect({ client }) {
        calls.push(`connect ${client.address}`);
      },
      helo(_, name) {
        calls.push(`helo ${name}`);
      },
      eom({ log, message, state }) {
        state.messages += 1;
        log(`message ${state.messages}`);
        message.results.set("count", state.messages);
        if (state.messages === 2) throw new Error("boom");
        if (state.messages === 3) return reject("550 5.7.1 Enough");
        return undefined;
      },
      close() {
        calls.push("close");
        throw new Error("at close");
      },
      stop() {
        calls.push("stop");
      },
    });
    return { calls, filter };
  };

  test("messages of one session share its state, and each has its own reports", async () => {
    const { calls, filter } = counting();
    const session = await openSession(filter, { client: { address: "192.0.2.7" }, helo: "mx.example.net" });
    const outcomes = [
      await session.send({ eml: EML }),
      await session.send({ eml: EML }),
      await session.send({ eml: EML }),
    ];
    expect(outcomes.map(({ verdict }) => verdict)).toEqual(["accept", "tempfail", "reject"]);
    expect(outcomes.map(({ failures }) => failures.map(({ message }) => message))).toEqual([[], ["Error: boom"], []]);
    expect(outcomes.map(({ notes }) => notes.map(({ text }) => text))).toEqual([
      ["message 1"],
      ["message 2"],
      ["message 3"],
    ]);
    // A filter that failed leaves no result.
    expect(outcomes.map(({ results }) => results)).toEqual([{ count: 1 }, {}, { count: 3 }]);
    expect(calls).toEqual(["start", "connect 192.0.2.7", "helo mx.example.net"]);
    await session.close();
    await session.close();
    expect(calls.slice(3)).toEqual(["close", "stop"]);
    expect(session.reports.failures.map(({ message, phase }) => [phase, message])).toEqual([
      ["eom", "Error: boom"],
      ["close", "Error: at close"],
    ]);
    expect(session.reports.notes).toHaveLength(3);
  });

  test("another client is another session", async () => {
    const { calls, filter } = counting();
    {
      await using session = await openSession(filter);
      await session.send({ eml: EML });
      const { results } = await session.send({ eml: EML, client: { address: "192.0.2.8" } });
      expect(results).toEqual({ count: 1 });
    }
    expect(calls).toEqual([
      "start",
      "connect 127.0.0.1",
      "helo localhost",
      "close",
      "connect 192.0.2.8",
      "helo localhost",
      "close",
      "stop",
    ]);
  });

  test("events one by one, by its client", async () => {
    await using session = await openSession(
      defineFilter({ helo: (_, name) => (name === "x" ? reject("550 5.7.1 No") : undefined) }),
    );
    await session.client.negotiate();
    await session.client.connect();
    expect(await session.client.helo("x")).toMatchObject({ kind: "replycode", code: 550 });
  });
});

describe("mode", () => {
  const filter = defineFilter({
    name: "rules",
    envrcpt: (_, to) => (to === "<no@example.com>" ? reject("550 5.1.1 No such user") : undefined),
    eom({ message }) {
      message.addHeader("X-A", "1");
      message.results.set("seen", true);
    },
  });
  const mail = { eml: EML, to: ["no@example.com", "b@example.com"] };

  test("observe: nothing is applied, and what would have been is told", async () => {
    const { message, modifications, observed, recipients, results, verdict } = await runFilter(filter, {
      ...mail,
      mode: "observe",
    });
    expect({ verdict, modifications, results }).toEqual({ verdict: "accept", modifications: [], results: {} });
    expect(recipients.map((each) => each.verdict)).toEqual(["accept", "accept"]);
    expect(message).not.toContain("X-A");
    expect(observed.map((each) => [each.phase, each.verdict, each.scope, each.recipient, each.changes])).toEqual([
      ["envrcpt", "reject", "recipient", "<no@example.com>", 0],
      ["eom", "accept", "message", null, 1],
    ]);
  });

  test("enforce, the default", async () => {
    const { message, observed, recipients, results } = await runFilter(filter, mail);
    expect(recipients.map(({ verdict }) => verdict)).toEqual(["reject", "accept"]);
    expect(message).toContain("X-A: 1");
    expect({ observed, results }).toEqual({ observed: [], results: { seen: true } });
  });
});

test("a large body in place of the one that came is whole, between the other changes", async () => {
  const body = "0123456789abcdef\n".repeat(100_000);
  const filter = defineFilter({
    eom({ message }) {
      message.addHeader("X-A", "1");
      message.replaceBody(body);
      message.quarantine("held");
    },
  });
  const { message, modifications } = await runFilter(filter, { eml: EML });
  const kinds = modifications.map(({ kind }) => kind);
  expect([kinds[0], new Set(kinds.slice(1, -1)), kinds.at(-1)]).toEqual([
    "addHeader",
    new Set(["replaceBody"]),
    "quarantine",
  ]);
  expect(message.replaceAll("\r\n", "\n").endsWith(`X-A: 1\n\n${body}`)).toBe(true);
});

test("trial is session.trial", async () => {
  const seen: boolean[] = [];
  const filter = defineFilter({ envfrom: ({ trial }) => void seen.push(trial) });
  await runFilter(filter, { eml: EML });
  await runFilter(filter, { eml: EML, trial: true });
  expect(seen).toEqual([false, true]);
});

describe("TestClock", () => {
  const never = new Promise<never>(() => {});

  test("the time limit of a phase, without waiting", async () => {
    const clock = new TestClock();
    const running = runFilter(defineFilter({ name: "slow", envfrom: () => never }), { eml: EML, clock });
    await clock.advance(7_999);
    expect(printed).toEqual([]);
    await clock.advance(1);
    const { failures, verdict } = await running;
    expect(verdict).toBe("tempfail");
    expect(failures).toMatchObject([{ cause: "timeout", phase: "envfrom", message: "Error: not settled after 8 s" }]);
    expect(clock.now()).toBe(8_000);
  });

  test("in the middle of an advance: the next filter has the rest of the phase's time", async () => {
    const clock = new TestClock();
    const aborted: number[] = [];
    const slow = (name: string) =>
      defineFilter({
        name,
        eom({ signal }) {
          signal.addEventListener("abort", () => aborted.push(clock.now()));
          return never;
        },
      });
    const running = runFilter([slow("first"), slow("second")], { eml: EML, clock });
    await clock.advance(3_600_000);
    const { failures, phases } = await running;
    expect(failures.map(({ filter }) => filter)).toEqual(["first"]);
    expect(aborted).toHaveLength(1);
    expect(clock.now()).toBe(3_600_000);
    // Progress is sent meanwhile, every three seconds.
    expect(phases.at(-1)).toMatchObject({ phase: "eom", progress: Math.ceil(aborted[0]! / 3000) - 1 });
  });

  test("a handler that settles has not taken any time", async () => {
    const clock = new TestClock();
    const { promise, resolve } = Promise.withResolvers<void>();
    const running = runFilter(defineFilter({ eom: () => promise }), { eml: EML, clock });
    await clock.advance(1000);
    resolve();
    const { failures, verdict } = await running;
    expect({ failures, verdict }).toEqual({ failures: [], verdict: "accept" });
  });
});

describe("when", () => {
  const eml = "Subject: x\r\n\r\nHello\r\n";
  const stamp = defineFilter({ eom: ({ message }) => message.addHeader("X-Ran", "yes") });
  const ran = async (when: Record<string, unknown>, mail: object = {}) =>
    (await runFilter(stamp, { eml, when, ...mail })).modifications.length > 0;

  test("a filter runs where its conditions hold", async () => {
    expect(await ran({ senders: "example.com" }, { from: "a@example.com" })).toBe(true);
    expect(await ran({ senders: ["example.com"] }, { from: "a@example.org" })).toBe(false);
    expect(await ran({ share: "1%", listeners: ["inet:192.0.2.1:1"] })).toBe(true);
    await using session = await openSession(stamp, { when: { not_recipients: "b@example.org" } });
    expect((await session.send({ eml, to: ["b@example.org"] })).modifications).toEqual([]);
    expect((await session.send({ eml, to: ["c@example.org"] })).modifications).toHaveLength(1);
  });

  test("a mistake, and a handler that runs too early, are told", async () => {
    await expect(ran({ sender: "example.com" })).rejects.toThrow('when.sender: unknown key; did you mean "senders"?');
    const early = defineFilter({ helo() {} });
    await expect(runFilter(early, { eml, when: { tls: true } })).rejects.toThrow(
      "the helo handler may run before its condition tls is known, which is at envfrom; remove one of them",
    );
  });
});

test("a clock of several sessions: what a store keeps is over when its time has passed on it", async () => {
  const store = new TestStore();
  const clock = new TestClock();
  const filter = defineFilter({
    async envfrom({ store }) {
      return (await store.claim("x", { ttl: "1h" })) ? undefined : reject("550 5.7.1 Again");
    },
  });
  const verdicts: string[] = [];
  for (const ms of [0, 3_599_000, 1000, 1000]) {
    await clock.pass(ms);
    verdicts.push((await runFilter(filter, { eml: EML, clock, store })).verdict);
  }
  expect(verdicts).toEqual(["accept", "reject", "accept", "reject"]);
});
