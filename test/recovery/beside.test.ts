/** Sessions that lose their worker to another's handler at odd moments: each still gets its own right answers, or the fallback. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { ABORT, OPTNEG, packet, RawClient } from "../server/wire.ts";
import { waitFor } from "../support/temp.ts";
import { begin, connect, expectCodes, helo, mail, pass, startFaulty, statusOf } from "./support.ts";

setDefaultTimeout(120_000);

const macros = (command: string, pairs: Readonly<Record<string, string>>) =>
  packet(
    "D",
    command +
      Object.entries(pairs)
        .map(([name, value]) => `${name}\0${value}\0`)
        .join(""),
  );

/** Loops at MAIL where the sender says so; refuses by a macro of MAIL. */
const BY_MACRO = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  envfrom(session, sender) {
    if (sender.includes("loop")) for (;;) {}
    if (session.macros.get("{auth_authen}") === "spammer") return reject("550 5.7.1 refused");
  },
  eom(session) { session.message.addHeader("X-Seen", session.helo + " " + session.message.sender.raw); },
});
`;

/** Has the worker lost to another session. */
async function lose(blocker: RawClient): Promise<void> {
  expectCodes(await blocker.ask(mail("<loop@example.com>")), "t");
}

test.each([
  ["whole", { i: "4ZB1", "{auth_authen}": "spammer" }, Number.POSITIVE_INFINITY],
  ["in part", { i: "4ZB1", "{auth_authen}": "spammer" }, 12],
  ["in a part that is too large to be kept", { x: "y".repeat(3000), "{auth_authen}": "spammer" }, 1500],
] as const)("bystander: the macros of its MAIL had come %s: no message passes without them", async (_, pairs, upTo) => {
  await using server = await startFaulty({ files: { "faulty.ts": BY_MACRO } });
  using session = await begin(server);
  using blocker = await begin(server);
  const all = macros("M", pairs);
  await session.send(all.subarray(0, upTo));
  // It is read by then: commands of one worker's connections are worked on in turn.
  await pass(blocker);
  await lose(blocker);
  if (upTo < all.length) await session.send(all.subarray(upTo));
  // What was kept in part is whole again, and the handler sees it; else the message gets the fallback.
  const [code = ""] = await session.ask(mail());
  expect(code).toBe(upTo === 12 ? "y" : "t");
  await session.send(ABORT);
  await pass(session);
});

test("blocked: macros in a read of their own went with the MAIL that was lost: the next message is asked about", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": BY_MACRO } });
  using guilty = await begin(server);
  using other = await begin(server);
  await guilty.send(macros("M", { i: "4ZB1" }));
  // As Sendmail writes them: they are read by then.
  await pass(other);
  await lose(guilty);
  await guilty.send(ABORT);
  await pass(guilty);
});

test("bystander: a session that is to be released keeps the macros of its MAIL", async () => {
  await using server = await startFaulty({ server: { drain_timeout: 0.1 }, files: { "faulty.ts": BY_MACRO } });
  using session = await begin(server);
  using other = await begin(server);
  await session.send(macros("M", { "{auth_authen}": "spammer" }));
  await pass(other);
  await Bun.write(`${server.dir}/faulty.ts`, `${BY_MACRO}// Another version.\n`);
  await server.log.next(/reload: generation 2 serves/);
  await waitFor(async () => (await statusOf(server)).counters.sessionsMoved > 0, { what: "the other session to move" });
  expect(await session.ask(mail())).toBe("y");
  await session.send(ABORT);
  await pass(session);
});

/** Its connect handler takes its time. */
const SLOW_CONNECT = BY_MACRO.replace("eom(", "async connect() { await Bun.sleep(300); },\n  eom(");

test.each([false, true])(
  "bystander: a second loss while CONNECT is worked on again (MAIL there by then: %p)",
  async (isThere) => {
    await using server = await startFaulty({ files: { "faulty.ts": SLOW_CONNECT } });
    using innocent = await begin(server);
    using first = await begin(server);
    using second = await RawClient.connect(server.addresses[0]!);
    expect(await second.ask(OPTNEG)).toBe("O");
    await lose(first);
    if (isThere) await innocent.send(mail());
    // Without a CONNECT of its own it is worked on at once, in the worker where the other waits for its connect handler.
    await lose(second);
    if (isThere) {
      // A further worker may have taken it in before, where nothing is lost: then MAIL has its own answer.
      const answer = await innocent.codes(1);
      expect(["t", "c"]).toContain(answer);
      if (answer === "c") await innocent.send(ABORT);
    }
    await pass(innocent);
    expect((await statusOf(server)).counters).toMatchObject({ blocked: 2, sessionsLost: 0, connectionsRefused: 0 });
  },
);

test("bystander: a filter that was passed over is asked again once another session begins on the connection", async () => {
  const code = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  connect(session) { if (session.client.hostname.includes("loop")) for (;;) {} },
  envfrom(_, sender) { if (sender.includes("loop")) for (;;) {} return sender.includes("spam") ? reject("550 5.7.1 spam") : undefined; },
  eom() {},
});
`;
  const lenient = 'on_timeout = "accept"\n';
  await using server = await startFaulty({
    config: `${lenient}[[filter]]\npath = "other.ts"\n${lenient}`,
    files: {
      "faulty.ts": code,
      // With work of its own left, so that the connection is not accepted as a whole.
      "other.ts": 'import { defineFilter } from "pmilter";\nexport default defineFilter({ envrcpt() {} });\n',
    },
  });
  using session = await RawClient.connect(server.addresses[0]!);
  expect(await session.ask(OPTNEG)).toBe("O");
  expect(await session.ask(connect("loop.example.net"))).toBe("c");
  expect(await session.ask(helo())).toBe("c");
  await session.send(packet("K", ""));
  expect(await session.ask(connect("good.example.net"))).toBe("c");
  expect(await session.ask(helo())).toBe("c");
  using blocker = await begin(server);
  expect(await blocker.ask(mail("<loop@example.com>"))).toBe("c");
  expect(await session.ask(mail("<spam@example.com>"))).toBe("y");
});

test("many sessions with slow handlers at once are no stuck worker", async () => {
  const code = `
import { defineFilter } from "pmilter";
export default defineFilter({
  envfrom() { const since = performance.now(); while (performance.now() - since < 25); },
  eom(session) { session.message.addHeader("X-Seen", session.helo + " " + session.message.sender.raw); },
});
`;
  await using server = await startFaulty({ files: { "faulty.ts": code } });
  // Together four times as long as a worker may be stuck.
  const sessions = await Promise.all(Array.from({ length: 80 }, () => begin(server)));
  try {
    await Promise.all(sessions.map((session) => session.send(mail())));
    const codes = await Promise.all(sessions.map((session) => session.codes(1)));
    expect(codes.join("")).toBe("c".repeat(80));
    expect((await statusOf(server)).counters).toMatchObject({ blocked: 0, fallbacks: 0 });
  } finally {
    for (const session of sessions) session[Symbol.dispose]();
  }
});
