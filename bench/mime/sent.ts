/**
 * An edit of a large message in the server, with the sending of the new body to the mail server: processor time from the end
 * of the message to its last reply, and the longest turn of the worker's event loop, which is how long others wait.
 */
import { startPmilter } from "../../test/support/pmilter.ts";
import { CONNECT, DATA, EOH, EOM, HELO, MAIL, OPTNEG_DEFER, packet, RawClient, RCPT } from "../../test/server/wire.ts";
import { cpuMicros, growthBytes, residentBytes, startPeak } from "../support/process.ts";
import { spreadOf } from "../support/stats.ts";

/** What the filter does at the end of the message. */
export const SENT_EDITS = {
  "nothing, the body collected": "",
  "the parts looked at": "message.mime().parts.length;",
  "a part replaced": 'message.mime().parts.at(-1).replaceWith({ text: "It was taken out.", filename: "removed.txt" });',
  "a footer added": 'message.mime().footer({ text: "Example Ltd", html: "<p>Example Ltd</p>" });',
  "a part of 2 MB set": "message.mime().parts.at(-1).setContent(NEW);",
  "the body replaced as a whole": "message.replaceBody(BODY);",
} as const;
export type SentEdit = keyof typeof SENT_EDITS;

export interface SentMeasurement {
  /** Of all threads of the server, for a message. */
  readonly cpuMs: number;
  readonly turnMs: number;
  /** Of body that the mail server got. */
  readonly sentBytes: number;
  /** The greatest memory of the server, less its memory before. */
  readonly grownBytes: number;
}

/** Refuses the recipient that asks for it with the longest turn since the end of the last message, in milliseconds. */
const FILTER = (edit: SentEdit) => `import { defineFilter, reject } from "pmilter";
const NEW = Buffer.alloc(2e6, "new ");
const BODY = Buffer.alloc(${edit === "the body replaced as a whole" ? 25e6 : 0}, "${"b".repeat(76)}\\r\\n");
let longest = 0;
let last = 0;
let timer: ReturnType<typeof setInterval> | undefined;
const look = () => {
  const now = performance.now();
  longest = Math.max(longest, now - last);
  last = now;
};
export default defineFilter({
  collectBody: true,
  envrcpt(session, recipient) {
    if (timer === undefined || !recipient.startsWith("<turn@")) return;
    clearInterval(timer);
    return reject("550 5.7.1 " + longest.toFixed(3));
  },
  eom({ message }) {
    longest = 0;
    last = performance.now();
    timer = setInterval(look, 2);
    ${SENT_EDITS[edit]}
  },
});
`;

const NO_REPLY = { code: "", payload: Buffer.alloc(0) };

/** A message as a mail server sends it, up to its end. */
function commandsOf(message: Uint8Array): readonly Buffer[] {
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.length);
  const end = bytes.indexOf("\r\n\r\n");
  const fields = bytes.toString("latin1", 0, end).split(/\r\n(?![ \t])/);
  const headers = fields.map((field) => {
    const colon = field.indexOf(":");
    const value = field.slice(colon + 1).replaceAll("\r\n", "\n");
    return packet("L", Buffer.from(`${field.slice(0, colon)}\0${value}\0`, "latin1"));
  });
  const chunks: Buffer[] = [];
  for (let at = end + 4; at < bytes.length; at += 65_535) chunks.push(packet("B", bytes.subarray(at, at + 65_535)));
  return [...headers, EOH, ...chunks];
}

/** @param times messages that are measured, after one that has the code compiled */
export async function measureSent(edit: SentEdit, message: Uint8Array, times: number): Promise<SentMeasurement> {
  await using server = await startPmilter({
    server: { workers: 1, control: "pmilter.ctl" },
    config: '[limits]\nbody = "100MB"\n[[filter]]\npath = "filter.ts"\n',
    files: { "filter.ts": FILTER(edit) },
  });
  const { pid } = server.process;
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OPTNEG_DEFER, CONNECT, HELO);
  const commands = commandsOf(message);
  const one = async (): Promise<Omit<SentMeasurement, "grownBytes">> => {
    await client.ask(MAIL, RCPT, DATA, ...commands);
    const began = cpuMicros(pid);
    await client.send(EOM);
    let sentBytes = 0;
    for (let code = ""; code !== "c";) {
      const reply = await client.reply();
      ({ code } = reply);
      if (code === "b") sentBytes += reply.payload.length;
      else if (!"hipc".includes(code)) throw new Error(`expected changes and CONTINUE, got ${code}`);
    }
    const cpuMs = (cpuMicros(pid) - began) / 1000;
    // What it keeps of the body is dropped.
    for (let at = 0; at < client.replies.length; at++) client.replies[at] = NO_REPLY;
    await client.ask(MAIL);
    await client.send(packet("R", "<turn@example.com>\0"));
    const { payload } = await client.reply();
    return { cpuMs, sentBytes, turnMs: Number(payload.toString("latin1").split(" ")[2]?.replace("\0", "")) };
  };
  await one();
  const before = residentBytes(pid);
  startPeak(pid);
  const all: Omit<SentMeasurement, "grownBytes">[] = [];
  for (let time = 0; time < times; time++) all.push(await one());
  const median = (value: (each: Omit<SentMeasurement, "grownBytes">) => number) => spreadOf(all.map(value)).median;
  return {
    cpuMs: median(({ cpuMs }) => cpuMs),
    turnMs: median(({ turnMs }) => turnMs),
    sentBytes: all[0]!.sentBytes,
    grownBytes: growthBytes(pid, before),
  };
}
