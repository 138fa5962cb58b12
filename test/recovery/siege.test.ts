/** Handlers that block again and again: what a session may cost, and what the sessions beside it get. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { besiege, isSound, KINDS, startBesieged } from "../../soak/siege.ts";
import { MAX_COST } from "../../src/server/policy.ts";
import { descriptorsAtRest, descriptorsSettle } from "../server/wire.ts";
import { IS_LINUX } from "../support/available.ts";
import { waitFor } from "../support/temp.ts";
import {
  ABORT,
  begin,
  connect,
  expectCodes,
  helo,
  mail,
  OPTNEG,
  pass,
  RawClient,
  rcpt,
  RCPT,
  startFaulty,
  statusOf,
} from "./support.ts";

setDefaultTimeout(120_000);

const LOOP = mail("<loop@example.com>");

/** A second filter, which sees each message that it is asked about. */
const SECOND = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  name: "second",
  envfrom: (_, sender) => (sender.includes("second") ? reject("550 5.7.1 second") : undefined),
});
`;

describe("repeats", () => {
  test("repeats: a session that costs one worker too many gets the fallback, and no handler is asked any more", async () => {
    await using server = await startFaulty();
    using between = await begin(server, { name: "between.example.net" });
    using session = await begin(server);
    for (let loss = 0; loss < MAX_COST; loss++) {
      expectCodes(await session.ask(LOOP), "t");
      await session.send(ABORT);
      await pass(session);
    }
    expectCodes(await session.ask(LOOP), "t");
    await session.send(ABORT);
    // It would be accepted.
    for (let message = 0; message < 3; message++) {
      expectCodes(await session.ask(mail(), RCPT), "tt");
      await session.send(ABORT);
    }
    expectCodes(await session.ask(LOOP), "t");
    await pass(between, "between.example.net");
    const { counters } = await statusOf(server);
    expect(counters).toMatchObject({ blocked: MAX_COST + 1, sessionsLost: 0, connectionsRefused: 1 });
    await server.log.next(new RegExp(`tempfail connection: .*reason="its handlers have cost ${MAX_COST + 1} workers"`));
  });

  test("repeats: another session of the same connection begins without a debt", async () => {
    await using server = await startFaulty();
    using session = await begin(server);
    for (let round = 0; round < MAX_COST + 2; round++) {
      expectCodes(await session.ask(LOOP), "t");
      await session.send(Buffer.from([0, 0, 0, 1, "K".charCodeAt(0)]));
      expectCodes(await session.ask(connect(), helo()), "cc");
      await pass(session);
    }
  });

  test.each(["accept", "continue"])(
    "repeats: under on_timeout = %s only that filter's part is over",
    async (fallback) => {
      await using server = await startFaulty({
        config: `on_timeout = "${fallback}"\n[[filter]]\npath = "second.ts"\non_timeout = "continue"`,
        files: { "second.ts": SECOND },
      });
      using session = await begin(server);
      for (let round = 0; round <= MAX_COST; round++) {
        expectCodes(await session.ask(LOOP), "c");
        await session.send(ABORT);
      }
      // The filter that blocks is asked no more, and no other one has anything to say of the recipient.
      expectCodes(await session.ask(LOOP, rcpt("<refuse@example.com>")), "ca");
      await session.send(ABORT);
      expectCodes(await session.ask(mail("<second@example.com>")), "y");
      const { counters } = await statusOf(server);
      expect(counters).toMatchObject({ blocked: MAX_COST + 1, sessionsLost: 0, connectionsRefused: 0 });
    },
  );
});

describe("reinforced", () => {
  test("reinforced: after a worker was lost others are there beside those that were asked for, for a while", async () => {
    await using server = await startFaulty({ server: { block_timeout: 5 } });
    using first = await begin(server);
    expectCodes(await first.ask(LOOP), "t");
    await waitFor(async () => (await statusOf(server)).workers.length > 1, { what: "a further worker" });
    // The one worker that was asked for would be blocked now.
    using second = await begin(server);
    await second.send(LOOP);
    await waitFor(async () => (await statusOf(server)).workers.some(({ blockedMs }) => blockedMs > 0), {
      what: "a blocked worker",
    });
    const answers = Array.from({ length: 8 }, async () => {
      using other = await begin(server);
      await pass(other);
    });
    await Promise.all(answers);
    expect(second.replies.map(({ code }) => code)).toEqual(["O", "c", "c"]);
    expect((await statusOf(server)).counters.blocked).toBe(1);
  });

  test("reinforced: they end once nothing has blocked for a while, and nothing is left of them", async () => {
    await using server = await startFaulty();
    using session = await begin(server);
    const before = IS_LINUX ? await descriptorsAtRest(server) : 0;
    expectCodes(await session.ask(LOOP), "t");
    await waitFor(async () => (await statusOf(server)).workers.length > 1, { what: "a further worker" });
    await waitFor(async () => (await statusOf(server)).workers.length === 1, { what: "its end", timeoutMs: 60_000 });
    await session.send(ABORT);
    await pass(session);
    if (IS_LINUX) await descriptorsSettle(server, before, 30_000);
  });
});

describe("siege", () => {
  test.each(KINDS)("siege: clients that send only what blocks (%s) do not stop the others", async (kind) => {
    await using server = await startBesieged(2);
    const result = await besiege(server, { seconds: 15, kind, bad: 3, good: 12, reconnects: false, pauseMs: 100 });
    expect(result.own).toBeGreaterThan(20);
    expect({ ...result, times: [], isSound: isSound(result) }).toMatchObject({ closed: 0, wrong: [], isSound: true });
  });

  test("siege: also where each message has a connection of its own", async () => {
    await using server = await startBesieged(1);
    const result = await besiege(server, {
      seconds: 15,
      kind: "loop",
      bad: 2,
      good: 12,
      reconnects: true,
      pauseMs: 100,
    });
    expect({ ...result, times: [], isSound: isSound(result) }).toMatchObject({ closed: 0, wrong: [], isSound: true });
    expect((await RawClient.connect(server.addresses[0]!).then((client) => client.ask(OPTNEG))).length).toBe(1);
  });
});
