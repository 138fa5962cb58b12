/** A verdict that stands, and what it stands on, after a second loss, a move, or a loss within one read: no message passes by it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { ABORT, BODY, DATA, EOH, EOM, HEADER, OPTNEG, packet, RawClient, RCPT, words } from "../server/wire.ts";
import { waitFor } from "../support/temp.ts";
import {
  begin,
  connect,
  expectCodes,
  helo,
  mail,
  pass,
  OPTNEG_DEFER,
  rcpt,
  startFaulty,
  statusOf,
  unknown,
} from "./support.ts";

setDefaultTimeout(120_000);

/** Loops at MAIL and UNKNOWN where they say so; its connect handler takes its time; tells who the message is from. */
const SLOW = `
import { defineFilter, reject } from "pmilter";
const loop = (_, text) => { if (text.includes("loop")) for (;;) {} };
export default defineFilter({
  async connect() { await Bun.sleep(300); },
  envfrom: loop,
  unknown: loop,
  header: (_, name, value) => (value.includes("spam") ? reject("550 5.7.1 spam") : undefined),
  eoh() {},
  body() {},
  eom(session) { session.message.addHeader("X-Seen", session.helo + " " + session.message.sender.raw); },
});
`;
const QUICK = SLOW.replace("async connect() { await Bun.sleep(300); },", "");

/** Has the worker lost to another session. */
async function lose(blocker: RawClient, code = "t"): Promise<void> {
  expectCodes(await blocker.ask(mail("<loop@example.com>")), code);
}

/** Negotiated and nothing more: its MAIL is worked on at once. */
async function negotiated(server: { addresses: readonly string[] }): Promise<RawClient> {
  const client = await RawClient.connect(server.addresses[0]!);
  expectCodes(await client.ask(OPTNEG), "O");
  return client;
}

const TELLS = `
import { defineFilter } from "pmilter";
export default defineFilter({
  envfrom(_, sender) { if (sender.includes("loop")) for (;;) {} },
  async outcome({ message }, { verdict }) { await Bun.sleep(1); console.log("told", message.sender.address, verdict); },
});
`;

test("bystander: each message is told of once by outcome, and the lost one not at all", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": TELLS } });
  using session = await begin(server);
  using blocker = await begin(server);
  await session.ask(mail("<before@c.test>"), rcpt(), EOM);
  await server.prints.next(/^told before@c\.test accept$/);
  expectCodes(await session.ask(mail("<open@c.test>"), rcpt()), "cc");
  await lose(blocker);
  await session.ask(EOM, mail("<after@c.test>"), rcpt(), EOM);
  await server.prints.next(/^told after@c\.test accept$/);
  // The messages of the worker that was lost are not told of, and those that it had told of are not told of again.
  await session.ask(mail("<last@c.test>"));
  await session.send(ABORT);
  await server.prints.next(/^told last@c\.test aborted$/);
  expect(server.prints.all.filter((line) => line.startsWith("told"))).toEqual([
    "told before@c.test accept",
    "told after@c.test accept",
    "told last@c.test aborted",
  ]);
});

test("bystander: the verdict on its message stands through a second loss before the rest of it has come", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": SLOW } });
  using session = await begin(server, { offer: OPTNEG_DEFER });
  using first = await negotiated(server);
  using second = await negotiated(server);
  expectCodes(await session.ask(mail(), RCPT, DATA), "ccc");
  await session.send(HEADER, EOH, BODY);
  await lose(first);
  await lose(second);
  expect(await session.ask(BODY, EOM)).toBe("t");
  await pass(session);
});

test("bystander: what a handler had decided stands through a second loss, however lenient the fallback", async () => {
  await using server = await startFaulty({ server: { on_timeout: "accept" }, files: { "faulty.ts": SLOW } });
  using session = await begin(server, { offer: OPTNEG_DEFER });
  using other = await begin(server);
  using first = await negotiated(server);
  using second = await negotiated(server);
  expectCodes(await session.ask(mail(), RCPT, DATA), "ccc");
  await session.send(packet("L", "Subject\0 spam\0"), EOH, BODY);
  await pass(other);
  await lose(first, "c");
  await session.send(BODY, EOM);
  await lose(second, "c");
  expect(await session.codes(1)).toBe("r");
  await pass(session);
});

test("bystander: the verdict on its message stands where its session moves before the rest of it has come", async () => {
  await using server = await startFaulty({ server: { drain_timeout: 0.1 }, files: { "faulty.ts": QUICK } });
  using session = await begin(server, { offer: OPTNEG_DEFER });
  using first = await negotiated(server);
  expectCodes(await session.ask(mail(), RCPT, DATA), "ccc");
  await session.send(HEADER, EOH, BODY);
  await lose(first);
  await session.send(BODY);
  await first.send(packet("Q"));
  const before = (await statusOf(server)).counters.sessionsMoved;
  await Bun.write(`${server.dir}/faulty.ts`, `${QUICK}// Another version.\n`);
  await server.log.next(/reload: generation 2 serves/);
  await waitFor(async () => (await statusOf(server)).counters.sessionsMoved > before, { what: "the session to move" });
  expect(await session.ask(EOM)).toBe("t");
  await pass(session);
});

test("bystander: two losses while a packet that is too large to be kept comes in", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": QUICK } });
  using session = await begin(server, { offer: OPTNEG_DEFER });
  using other = await begin(server);
  using first = await negotiated(server);
  using second = await negotiated(server);
  expectCodes(await session.ask(mail(), RCPT, DATA), "ccc");
  const large = packet("B", Buffer.alloc(6000));
  await session.send(HEADER, EOH, large.subarray(0, 2000));
  await pass(other);
  await lose(first);
  await session.send(large.subarray(2000, 4000));
  await pass(other);
  await lose(second);
  await session.send(large.subarray(4000));
  expect(await session.ask(EOM)).toBe("t");
  await pass(session);
});

test("blocked: MAIL without a reply before an unknown command that does not return: its message does not lose its sender", async () => {
  const code = `
import { defineFilter } from "pmilter";
export default defineFilter({
  unknown(_, line) { if (line.includes("loop")) for (;;) {} },
  envrcpt(session) { if (session.message.sender.raw === "") throw new Error("a message without a sender"); },
});
`;
  await using server = await startFaulty({ files: { "faulty.ts": code } });
  using session = await RawClient.connect(server.addresses[0]!);
  expect(await session.ask(packet("O", words(6, 0x1ff, 0x1fffff)))).toBe("O");
  await session.send(connect(), helo());
  expect(await session.ask(unknown("WHO"))).toBe("c");
  await session.send(Buffer.concat([mail(), unknown("loop")]));
  expect(await session.codes(1)).toBe("c");
  expect(await session.ask(RCPT)).toBe("t");
  expect((await statusOf(server)).counters).toMatchObject({ blocked: 1, errors: 0 });
});

const AT_ABORT = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  envfrom(session, sender) {
    if (sender.includes("loop")) for (;;) {}
    if (session.helo !== "good") return reject("550 5.7.1 not good");
    if (session.macros.get("{auth_authen}") === "spammer") return reject("550 5.7.1 refused");
  },
  abort(session) { if (session.message.sender.raw.includes("abort")) for (;;) {} },
  eom() {},
});
`;

test("blocked: the macros of the next MAIL come with an ABORT whose handler does not return: it gets the fallback", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": AT_ABORT } });
  using session = await begin(server, { name: "good" });
  expectCodes(await session.ask(mail("<abort@example.com>")), "c");
  await session.send(Buffer.concat([ABORT, packet("D", "M{auth_authen}\0spammer\0")]));
  await server.log.next(/handler did not return/);
  expect(await session.ask(mail())).toBe("t");
  await session.send(ABORT);
  expect(await session.ask(mail())).toBe("c");
});

test("blocked: another HELO comes with an ABORT whose handler does not return: nobody is asked with the one before", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": AT_ABORT } });
  using session = await RawClient.connect(server.addresses[0]!);
  // HELO without a reply.
  expect(await session.ask(packet("O", words(6, 0x1ff, 0x100000 | 0x2000)))).toBe("O");
  await session.ask(connect());
  await session.send(helo("good"));
  expectCodes(await session.ask(mail("<abort@example.com>")), "c");
  await session.send(Buffer.concat([ABORT, helo("bad")]));
  await server.log.next(/handler did not return/);
  expect(await session.ask(mail())).not.toBe("c");
  await session.send(ABORT);
  expect(await session.ask(mail())).not.toBe("c");
});

test("blocked: a filter that was passed over does not have another passed over in the next generation", async () => {
  const loops = `
import { defineFilter } from "pmilter";
export default defineFilter({ connect() { for (;;) {} }, envrcpt() {} });
`;
  const refuses = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({ connect() {}, envrcpt: () => reject("550 5.7.1 refused") });
`;
  const other = 'import { defineFilter } from "pmilter";\nexport default defineFilter({ envrcpt() {} });\n';
  await using server = await startFaulty({
    server: { drain_timeout: 0.1, on_timeout: "accept" },
    config: '[[filter]]\npath = "other.ts"\n',
    files: { "faulty.ts": loops, "other.ts": other },
  });
  using session = await begin(server);
  const before = (await statusOf(server)).counters.sessionsMoved;
  await Bun.write(`${server.dir}/faulty.ts`, refuses);
  await server.log.next(/reload: generation 2 serves/);
  await waitFor(async () => (await statusOf(server)).counters.sessionsMoved > before, { what: "the session to move" });
  expectCodes(await session.ask(mail()), "c");
  expect(await session.ask(RCPT)).toBe("y");
});

test("blocked: the verdict on the message before one that was pipelined is given as it was found", async () => {
  const code = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  envfrom(_, sender) { if (sender.includes("loop")) for (;;) {} },
  eom: () => reject("550 5.7.1 refused"),
});
`;
  await using server = await startFaulty({ server: { on_timeout: "accept" }, files: { "faulty.ts": code } });
  using session = await begin(server);
  expectCodes(await session.ask(mail(), RCPT, DATA), "ccc");
  await session.send(Buffer.concat([EOM, mail("<loop@example.com>")]));
  expect(await session.codes(2)).toBe("yc");
});

test("blocked: the verdict on the recipient before one that was pipelined is given as it was found", async () => {
  await using server = await startFaulty({ server: { on_timeout: "accept" } });
  using session = await begin(server);
  expectCodes(await session.ask(mail()), "c");
  await session.send(Buffer.concat([rcpt("<refuse@example.com>"), rcpt("<loop@example.com>")]));
  expect(await session.codes(2)).toBe("yc");
});

test("bystander: macros of its next session were lost behind a slow close handler: no session begins without them", async () => {
  const code = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  connect: (session) => (session.daemonName === "closed" ? reject("550 5.7.1 refused") : undefined),
  envfrom(_, sender) { if (sender.includes("loop")) for (;;) {} },
  async close() { await Bun.sleep(500); },
});
`;
  await using server = await startFaulty({ files: { "faulty.ts": code } });
  using session = await begin(server);
  using blocker = await negotiated(server);
  await session.send(packet("K", ""), packet("D", "C{daemon_name}\0closed\0"));
  await waitFor(async () => (await statusOf(server)).workers[0]!.connections === 2, { what: "both to be there" });
  await lose(blocker);
  await server.log.next(/macros of its next session were lost/);
  await session.ended();
});
