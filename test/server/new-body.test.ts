/**
 * A large body in place of the one that came, on its way to a mail server that reads slowly, not at all, or goes: other
 * sessions of the worker are answered meanwhile, it takes no memory, and nothing of it is left.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { tempDir, type TempDir, waitFor } from "../support/temp.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { begin, EOM, mail, packet, rcpt, statusOf } from "../recovery/support.ts";
import { expectLogged } from "../failures/support.ts";
import { DATA, EOH, OPTNEG_DEFER, QUIT, type RawClient, UNKNOWN } from "./wire.ts";

setDefaultTimeout(120_000);

const MiB = 1024 * 1024;

/** The first part is replaced; the sender may make the handler loop. */
const FILTER = `import { defineFilter } from "pmilter";
export default defineFilter({
  name: "edits",
  collectBody: { max: "100MB" },
  envfrom({ message }) { if (message.sender.address.startsWith("loop")) for (;;); },
  unknown() {},
  eom({ message }) {
    message.addHeader("X-Before", "1");
    message.mime().parts[0].replaceWith({ text: "taken out", filename: "note.txt" });
    message.quarantine("held");
  },
});
`;
const TYPE = packet("L", 'Content-Type\0 multipart/mixed; boundary="b"\0');
const PART = "--b\r\nContent-Type: application/octet-stream\r\n\r\n";

/** A body whose second part has so many bytes, each line another one. */
function bodyOf(bytes: number): Buffer {
  const lines = Buffer.alloc(bytes, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abc\r\n");
  for (let at = 0; at + 8 < bytes; at += 63) lines.write(String(at).padStart(8, "0"), at, "latin1");
  return Buffer.concat([Buffer.from(`${PART}first\r\n${PART}`), lines, Buffer.from("\r\n--b--\r\n")]);
}

function editedOf(body: Buffer): Buffer {
  const note =
    "--b\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\nContent-Disposition: attachment; filename=note.txt\r\n\r\ntaken out";
  return Buffer.concat([Buffer.from(note), body.subarray(PART.length + "first".length)]);
}

interface Setting extends AsyncDisposable {
  readonly server: Pmilter;
  readonly dir: TempDir;
}

async function start(server: Readonly<Record<string, unknown>> = {}): Promise<Setting> {
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await tempDir("spool"));
  const pmilter = stack.use(
    await startPmilter({
      server: { workers: 1, spool: dir.path, ...server },
      config: '[limits]\nbody = "100MB"\n[[filter]]\npath = "edits.ts"\n',
      files: { "edits.ts": FILTER },
    }),
  );
  const owned = stack.move();
  return { server: pmilter, dir, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Sends all of a message; its replies are to be read. */
async function send(session: RawClient, body: Buffer, reads = true): Promise<void> {
  await session.ask(mail(), rcpt(), DATA, TYPE, EOH);
  for (let at = 0; at < body.length; at += 65_535) await session.send(packet("B", body.subarray(at, at + 65_535)));
  if (!reads) session.pause();
  await session.send(EOM);
}

/** The replies to the end of a message but progress: their codes, runs of the body as one, and the body. */
async function received(session: RawClient): Promise<{ codes: string; body: Buffer }> {
  let codes = "";
  const chunks: Buffer[] = [];
  for (;;) {
    const { code, payload } = await session.reply();
    if (code === "p") continue;
    if (code === "b") chunks.push(payload);
    if (code !== "b" || !codes.endsWith("b")) codes += code;
    if (!"hbq".includes(code)) return { codes, body: Buffer.concat(chunks) };
  }
}

/** Descriptors and mappings of the spool. */
function held({ dir, server }: Setting): number {
  return readFileSync(`/proc/${server.process.pid}/maps`, "utf8")
    .split("\n")
    .filter((line) => line.includes(dir.path)).length;
}

/** The first part of a new body is in the sockets' buffers. */
async function underWay(setting: Setting, sessions = 1): Promise<void> {
  const { counters } = await statusOf(setting.server);
  await waitFor(async () => (await statusOf(setting.server)).counters.quarantined >= sessions, {
    what: `${sessions} messages to be decided, ${counters.quarantined} are`,
  });
}

function anonymousBytes({ server }: Setting): number {
  const line = /^Anonymous:\s+(\d+) kB/m.exec(readFileSync(`/proc/${server.process.pid}/smaps_rollup`, "utf8"));
  return Number(line![1]) * 1024;
}

test("25 MB arrive in order and to the byte; another session of the worker is answered all along", async () => {
  await using setting = await start();
  const body = bodyOf(25_000_000);
  using other = await begin(setting.server);
  using session = await begin(setting.server, { offer: OPTNEG_DEFER });
  await send(session, body);
  const seen = { whole: false };
  const message = received(session).finally(() => (seen.whole = true));
  let answers = 0;
  while (!seen.whole) {
    expect(await other.ask(UNKNOWN)).toBe("c");
    answers += 1;
  }
  const { body: edited, codes } = await message;
  expect(codes).toBe("hbqc");
  expect(edited.equals(editedOf(body))).toBe(true);
  // A worker that writes the body in one turn answers once or twice.
  expect(answers).toBeGreaterThan(20);
  await waitFor(() => held(setting) === 0, { what: "the file to be given back" });
  expect(await session.ask(mail())).toBe("c");
  expect(await statusOf(setting.server)).toMatchObject({ counters: { quarantined: 1, internalErrors: 0 } });
});

test("mail servers that do not read hold up no other message, and take no memory for their bodies", async () => {
  await using setting = await start();
  const { server } = setting;
  const body = bodyOf(8 * MiB);
  using first = await begin(server, { offer: OPTNEG_DEFER });
  await send(first, body);
  expect((await received(first)).codes).toBe("hbqc");
  await waitFor(() => held(setting) === 0, { what: "the file to be given back" });
  const before = anonymousBytes(setting);
  // More than bodies that can be read at a time.
  await using stack = new AsyncDisposableStack();
  const slow: RawClient[] = [];
  for (let at = 0; at < 8; at++) {
    const session = stack.use(await begin(server, { offer: OPTNEG_DEFER }));
    slow.push(session);
    await send(session, body, false);
    await underWay(setting, at + 2);
  }
  expect(held(setting)).toBeGreaterThanOrEqual(8);
  // Of each there would be one copy or two.
  expect(anonymousBytes(setting) - before).toBeLessThan(4 * 8 * MiB);
  await send(first, body);
  expect((await received(first)).codes).toBe("hbqc");
  const edited = editedOf(body);
  for (const session of slow) {
    session.resume();
    const message = await received(session);
    expect([message.codes, message.body.equals(edited)]).toEqual(["hbqc", true]);
  }
  await waitFor(() => held(setting) === 0, { what: "the files to be given back" });
  expect(readdirSync(setting.dir.path)).toEqual([]);
});

test("body-sending: what is left is given back when its mail server goes, or is given up after server.timeout", async () => {
  await using setting = await start({ timeout: 1 });
  const { server } = setting;
  const body = bodyOf(8 * MiB);
  {
    using gone = await begin(server, { offer: OPTNEG_DEFER });
    await send(gone, body, false);
    await underWay(setting);
    expect(held(setting)).toBeGreaterThan(0);
  }
  await waitFor(() => held(setting) === 0, { what: "the file of one that went to be given back" });
  using still = await begin(server, { offer: OPTNEG_DEFER });
  await send(still, body, false);
  await underWay(setting, 2);
  await server.log.next(/nothing came for 1 s \(server\.timeout\), connection closed/);
  await waitFor(() => held(setting) === 0, { what: "the file of one that does not read to be given back" });
  still.resume();
  await still.ended();
  expect(still.replies.at(-1)!.code).toBe("b");
  expect((await statusOf(server)).counters).toMatchObject({ internalErrors: 0, sessionsLost: 0 });
});

test("body-sending: its worker is lost: the mail server gets no reply that it could take for the end, others go on", async () => {
  await using setting = await start({ block_timeout: 0.5 });
  const { server } = setting;
  using bystander = await begin(server);
  using session = await begin(server, { offer: OPTNEG_DEFER });
  await send(session, bodyOf(8 * MiB), false);
  await underWay(setting);
  using killer = await begin(server);
  await killer.send(mail("<loop@example.com>"));
  expect((await killer.reply()).code).toBe("t");
  session.resume();
  await session.ended();
  expect(session.replies.some(({ code }) => code === "b")).toBe(true);
  expect(session.replies.some(({ code }) => code === "q")).toBe(false);
  await expectLogged(server, "body-sending");
  expect(await bystander.ask(UNKNOWN)).toBe("c");
  expect((await statusOf(server)).counters).toMatchObject({ blocked: 1, sessionsLost: 1 });
  await waitFor(() => held(setting) === 0, { what: "the file to be given back" });
});

test("a server that stops meanwhile ends", async () => {
  await using setting = await start({ stop_timeout: 0.2 });
  using session = await begin(setting.server, { offer: OPTNEG_DEFER });
  await send(session, bodyOf(8 * MiB), false);
  await underWay(setting);
  expect(await setting.server.stop()).toBe(0);
});

test("a server that stops waits for the mail server that takes the rest", async () => {
  await using setting = await start({ stop_timeout: 60 });
  using session = await begin(setting.server, { offer: OPTNEG_DEFER });
  const body = bodyOf(8 * MiB);
  await send(session, body, false);
  await underWay(setting);
  const stopped = setting.server.stop();
  await setting.server.log.next(/stop/);
  session.resume();
  const message = await received(session);
  expect([message.codes, message.body.equals(editedOf(body))]).toEqual(["hbqc", true]);
  await session.send(QUIT);
  expect(await stopped).toBe(0);
});
