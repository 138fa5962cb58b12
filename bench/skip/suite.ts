/**
 * A body of 50 MB for a filter that wants none of it. Where BODY has a reply, SKIP stops the mail server; where the
 * verdict is deferred there is no reply, and all of it comes (docs/design.md).
 */
import { writeFileSync } from "node:fs";
import { startPmilter } from "../../test/support/pmilter.ts";
import { CONNECT, EOH, EOM, HEADER, HELO, MAIL, packet, RawClient, RCPT, words } from "../../test/server/wire.ts";
import { cpuMicros, peakBytes, residentBytes } from "../support/process.ts";
import { formatNumber, formatSpread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";

const BODY_BYTES = 50 * 2 ** 20;
/** As Postfix cuts a body. */
const CHUNK = packet("B", Buffer.alloc(65_535, "x"));
const CHUNKS = Math.ceil(BODY_BYTES / (CHUNK.length - 5));
/** Offered: leading space, SKIP, and content without replies. The server decides which of these it uses. */
const OFFER = packet("O", words(6, 0x1ff, 0x100000 | 0x400 | 0x80 | 0x40000 | 0x80000));

const HANDLERS = { skips: "body() { return skip(); }", reads: "body() {}" } as const;

interface Variant {
  readonly name: string;
  readonly handler: keyof typeof HANDLERS;
  readonly defersContent: boolean;
}

const VARIANTS: readonly Variant[] = [
  { name: "skip(), deferred", handler: "skips", defersContent: true },
  { name: "skip(), answered", handler: "skips", defersContent: false },
  { name: "reads all, deferred", handler: "reads", defersContent: true },
  { name: "reads all, answered", handler: "reads", defersContent: false },
];

/** Of a message. */
interface Measurement {
  /** Of body, as packets. */
  readonly sentBytes: number;
  /** From the first chunk to the reply to the end of the message. */
  readonly ms: number;
  readonly cpuMs: number;
  /** The greatest memory of the server during all of them, less its memory before. */
  readonly grownBytes: number;
}

export async function runSkip(plan: Plan): Promise<SuiteResult> {
  const commands = new Set<string>();
  const results = await interleave(plan, VARIANTS, async (variant, round) => {
    const measurement = await measure(variant, plan.isQuick ? 2 : 10);
    commands.add(
      `bun src/main.ts -c pmilter.toml   # ${HANDLERS[variant.handler]}, defer_content = ${variant.defersContent}`,
    );
    plan.note(`skip ${round + 1}/${plan.rounds} ${variant.name}: ${formatNumber(measurement.ms)} ms`);
    return measurement;
  });
  return {
    commands: [...commands],
    raw: VARIANTS.map(({ name }, at) => ({ variant: name, rounds: results.get(VARIANTS[at]!) })),
    tables: [
      {
        title: "skip: a message with a body of 50 MiB",
        columns: ["filter", "body sent, bytes", "ms", "CPU ms", "memory, MiB more"],
        rows: VARIANTS.map((variant) => {
          const of = (value: (measurement: Measurement) => number) =>
            formatSpread(spreadOf(results.get(variant)!.map(value)));
          return [
            variant.name,
            // The same in every round.
            formatNumber(results.get(variant)![0]!.sentBytes),
            of(({ ms }) => ms),
            of(({ cpuMs }) => cpuMs),
            of(({ grownBytes }) => grownBytes / 2 ** 20),
          ];
        }),
        notes: ["one worker; the mail server's side is a loop that awaits each reply and stops at SKIP"],
      },
    ],
  };
}

async function measure({ handler, defersContent }: Variant, messages: number): Promise<Measurement> {
  await using server = await startPmilter({
    server: { workers: 1, defer_content: defersContent, control: "pmilter.ctl" },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: {
      "filter.ts": `import { defineFilter, skip } from "pmilter";\nexport default defineFilter({ ${HANDLERS[handler]}, eom() {} });\n`,
    },
  });
  const { pid } = server.process;
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OFFER, CONNECT, HELO);
  // The first message has the code compiled and the buffers made.
  await sendMessage(client);
  const before = residentBytes(pid);
  // The peak is counted from here on (proc(5)).
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  const cpu = cpuMicros(pid);
  let sentBytes = 0;
  let ms = 0;
  for (let message = 0; message < messages; message++) {
    const sent = await sendMessage(client);
    sentBytes = sent.bytes;
    ms += sent.ms;
  }
  return {
    sentBytes,
    ms: ms / messages,
    cpuMs: (cpuMicros(pid) - cpu) / 1000 / messages,
    grownBytes: peakBytes(pid) - before,
  };
}

async function sendMessage(client: RawClient): Promise<{ bytes: number; ms: number }> {
  await client.ask(MAIL, RCPT, HEADER, EOH);
  const began = performance.now();
  let bytes = 0;
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    const code = await client.ask(CHUNK);
    bytes += CHUNK.length;
    if (code === "s") break;
    if (code !== "" && code !== "c") throw new Error(`expected CONTINUE or SKIP to BODY, got ${code}`);
  }
  const code = await client.ask(EOM);
  if (code !== "c") throw new Error(`expected CONTINUE to the end of the message, got ${code}`);
  return { bytes, ms: performance.now() - began };
}
