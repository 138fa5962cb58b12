/**
 * Sessions whose worker is lost: handlers that fail on demand, and a mail server by hand that can stop anywhere in a
 * session. The words that make a handler fail stand in what the client sends at its phase.
 */
import { askServer } from "../../src/server/control/control.ts";
import type { Status } from "../../src/server/control/status.ts";
import { PHASE_NAMES } from "../../src/protocol/phases.ts";
import { type Pmilter, type PmilterOptions, startPmilter } from "../support/pmilter.ts";
import {
  ABORT,
  BODY,
  DATA,
  EOH,
  EOM,
  HEADER,
  MAIL,
  OFFERS,
  OPTNEG,
  OPTNEG_DEFER,
  packet,
  QUIT,
  RawClient,
  RCPT,
  UNKNOWN,
  words,
} from "../server/wire.ts";

/** Seconds that a worker may be blocked in these tests. */
export const BLOCK_S = 0.5;

/**
 * A filter with a handler at every phase. Each fails as the word says that it finds: in the argument of its phase, or
 * where it has none, in the HELO name as `WORD-PHASE`.
 */
export const FAULTY = `
import { defineFilter, reject } from "pmilter";

function fail(word: string): unknown {
  if (word.includes("loop")) for (;;) {}
  if (word.includes("nati")) Bun.sleepSync(word.includes("long") ? 600_000 : 4000);
  if (word.includes("exit")) process.exit(3);
  if (word.includes("late")) return Bun.sleep(1).then(() => { for (;;) {} });
  if (word.includes("slow")) return Bun.sleep(3000);
  if (word.includes("refuse")) return reject("550 5.7.1 refused");
  return undefined;
}
const at = (session: { helo: string; phase: string }) =>
  session.helo.endsWith("-" + session.phase) ? fail(session.helo) : undefined;

export default defineFilter({
  name: "faulty",
  connect: (session) => fail(session.client.hostname),
  helo: (session, name) => (name.includes("-") ? undefined : fail(name)),
  envfrom: (_, sender) => fail(sender),
  envrcpt: (_, recipient) => fail(recipient),
  data: at,
  header: (_, name, value) => fail(value),
  eoh: at,
  body: (session, chunk) => fail(new TextDecoder().decode(chunk)),
  eom(session) {
    const result = at(session);
    session.message.addHeader("X-Seen", session.helo + " " + session.message.sender.raw);
    return result;
  },
  abort: at,
  close: at,
  unknown: (_, line) => fail(line),
} as never);
`;

export const PHASES_THAT_FAIL = PHASE_NAMES;

export function startFaulty(options: PmilterOptions = {}): Promise<Pmilter> {
  return startPmilter({
    ...options,
    server: { workers: 1, block_timeout: BLOCK_S, handler_timeout: 8, ...options.server },
    config: `[[filter]]\npath = "faulty.ts"\n${options.config ?? ""}`,
    files: { "faulty.ts": FAULTY, ...options.files },
  });
}

export async function statusOf(server: Pmilter): Promise<Status> {
  return (await askServer(server.control, { command: "status" })) as Status;
}

export const connect = (hostname = "mx.example.net") => packet("C", `${hostname}\x004\x9c\x40192.0.2.7\0`);
export const helo = (name = "client.example.net") => packet("H", `${name}\0`);
export const mail = (sender = "<from@example.com>") => packet("M", `${sender}\0`);
export const rcpt = (recipient = "<to@example.com>") => packet("R", `${recipient}\0`);
export const header = (value = " Hello") => packet("L", `Subject\0${value}\0`);
export const body = (text = "Hello\r\n") => packet("B", text);
export const unknown = (line: string) => packet("U", `${line}\0`);

/** A session up to HELO, with the replies checked: as mail servers do, no command before the reply to the one before. */
export async function begin(
  server: Pmilter,
  { client = "mx.example.net", name = "client.example.net", offer = OPTNEG } = {},
) {
  const session = await RawClient.connect(server.addresses[0]!);
  for (const [command, code] of [
    [offer, "O"],
    [connect(client), "c"],
    [helo(name), "c"],
  ] as const) {
    expectCodes(await session.ask(command), code);
  }
  return session;
}

export function expectCodes(codes: string, expected: string): void {
  if (codes !== expected) throw new Error(`expected the replies ${expected}, got ${codes}`);
}

/** A whole message that is accepted, with the one header that shows that the session's context is as it was. */
export async function pass(session: RawClient, helo = "client.example.net", sender = "<from@example.com>") {
  const codes = await session.ask(mail(sender), RCPT, DATA, HEADER, EOH, BODY);
  expectCodes(codes, "c".repeat(codes.length));
  await session.send(EOM);
  const added = await session.reply();
  const text = added.payload.toString("latin1").replaceAll("\0", "|");
  if (added.code !== "h" || text !== `X-Seen| ${helo} ${sender}|`) {
    throw new Error(`expected the header X-Seen of ${helo} and ${sender}, got ${added.code} ${text}`);
  }
  expectCodes(await session.codes(1), "c");
}

export {
  ABORT,
  BODY,
  DATA,
  EOH,
  EOM,
  HEADER,
  MAIL,
  OFFERS,
  OPTNEG,
  OPTNEG_DEFER,
  packet,
  QUIT,
  RawClient,
  RCPT,
  UNKNOWN,
  words,
};
