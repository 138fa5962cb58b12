/** How much the resident memory grows, at its peak, while a large message passes. */
import { join } from "node:path";
import { MilterClient } from "../../src/testing/index.ts";
import { growthBytes, residentBytes, startPeak } from "../support/process.ts";
import { handlerConfig, type RunningServer, startBare, startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { settledBytes } from "./settle.ts";

interface Variant {
  readonly name: string;
  readonly start: (plan: Plan) => Promise<RunningServer>;
}

const FILTERS = import.meta.dir;
const LARGE_BYTES = 50_000_000;
const QUICK_BYTES = 10_000_000;
/** Messages before, of a size that exercises everything: code is compiled, buffers have their size. */
const WARM_MESSAGES = 50;
const WARM_BYTES = 500_000;
const MAX_ROUNDS = 2;

const filter = (file: string) => `[[filter]]\npath = ${JSON.stringify(join(FILTERS, file))}`;
const real = (config: string) => (plan: Plan) =>
  startReal({ handlers: "empty", config, workers: 1, signal: plan.signal });

const VARIANTS: readonly Variant[] = [
  { name: "ten handlers (skip after the first chunk)", start: real(handlerConfig("ten")) },
  { name: "a body handler that reads every chunk", start: real(filter("read-all.ts")) },
  { name: "an async body handler, 1 ms a chunk", start: real(filter("read-slowly.ts")) },
  { name: "collectBody", start: real(filter("collect.ts")) },
  {
    name: "bare loop, as for ten",
    start: (plan) => startBare({ handlers: "ten", workers: 1, signal: plan.signal }),
  },
];

export async function measureLarge(plan: Plan): Promise<SuiteResult> {
  const bytes = plan.isQuick ? QUICK_BYTES : LARGE_BYTES;
  const commands = new Set<string>();
  const rounds = { ...plan, rounds: Math.min(plan.rounds, MAX_ROUNDS) };
  const results = await interleave(rounds, VARIANTS, async ({ name, start }, round) => {
    await using server = await start(plan);
    commands.add(server.command);
    await using client = await MilterClient.connect(`unix:${server.socket}`, { as: "postfix" });
    await client.negotiate();
    await client.connect({ hostname: "mail.example.net", address: "192.0.2.25" });
    await client.helo("mail.example.net");
    for (let message = 0; message < WARM_MESSAGES; message++) await send(client, WARM_BYTES);
    const before = await settledBytes(plan, server.pid);
    startPeak(server.pid);
    await send(client, bytes);
    const mebibytes = growthBytes(server.pid, before) / 2 ** 20;
    plan.note(`memory large ${round + 1}/${rounds.rounds} ${name}: ${formatNumber(mebibytes)} MiB more at the peak`);
    return { mebibytes, before: before / 2 ** 20, after: residentBytes(server.pid) / 2 ** 20 };
  });
  return {
    commands: [...commands],
    raw: { bytes, variants: VARIANTS.map((variant) => ({ variant: variant.name, rounds: results.get(variant) })) },
    tables: [
      {
        title: `memory: one message of ${formatNumber(bytes / 1e6)} MB, in body packets of 65,535 bytes`,
        columns: ["filter", "resident MiB before", "more at the peak"],
        rows: VARIANTS.map((variant) => [
          variant.name,
          formatSpread(spreadOf(results.get(variant)!.map(({ before }) => before))),
          formatSpread(spreadOf(results.get(variant)!.map(({ mebibytes }) => mebibytes))),
        ]),
        notes: [
          "target without collectBody: a few chunks",
          "one worker; the peak is the kernel's VmHWM, begun anew before the message",
          "the bare loop keeps nothing: what it grows by are reads that the garbage collector has not taken yet",
        ],
      },
    ],
  };
}

const LINE = "The engine weaves algebraic patterns just as the loom weaves flowers and leaves.\r\n";

async function send(client: MilterClient, bytes: number): Promise<void> {
  await client.envfrom("<ada@example.net>");
  await client.envrcpt("<charles@example.com>");
  await client.data();
  await client.header("Subject", " The engine");
  await client.eoh();
  await client.body(Buffer.alloc(bytes, LINE));
  const { kind } = await client.eom();
  if (kind !== "continue" && kind !== "accept") throw new Error(`a message was not accepted: ${kind}`);
}
