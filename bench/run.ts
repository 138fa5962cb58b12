/** `bun run bench`: runs the suites that the command line names, prints their tables, writes the raw figures. */
import { writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { BenchUsageError, type BenchArguments, HELP, parseBenchArguments, type SuiteName } from "./args.ts";
import { runCores } from "./cores/suite.ts";
import { runHold } from "./hold/suite.ts";
import { runLife } from "./life/suite.ts";
import { runMemory } from "./memory/suite.ts";
import { runMicro } from "./micro/suite.ts";
import { runMta } from "./mta/suite.ts";
import { describeMachine, type Machine } from "./support/machine.ts";
import type { Plan, SuiteResult } from "./support/suite.ts";
import { formatTable } from "./support/table.ts";
import { runSkip } from "./skip/suite.ts";
import { runWire } from "./wire/suite.ts";

const RUN: Readonly<Record<SuiteName, (plan: Plan) => Promise<SuiteResult>>> = {
  micro: runMicro,
  wire: runWire,
  hold: runHold,
  skip: runSkip,
  memory: runMemory,
  life: runLife,
  cores: runCores,
  mta: runMta,
};

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

const MAX_GENERATORS = 4;

function planOf(args: BenchArguments, signal: AbortSignal): Plan {
  const { isQuick } = args;
  return {
    isQuick,
    rounds: args.rounds ?? (isQuick ? 1 : 5),
    warmMs: isQuick ? 200 : 1000,
    measureMs: isQuick ? 500 : 3000,
    connections: args.connections ?? 20,
    // Half the cores: the server needs the others.
    generators: args.generators ?? Math.max(1, Math.min(MAX_GENERATORS, availableParallelism() >> 1)),
    workers: args.workers ?? "auto",
    peers: args.peers,
    isLong: args.isLong,
    signal,
    note: (text) => void process.stderr.write(`  ${text}\n`),
  };
}

function machineText(machine: Machine): string {
  return [
    `machine   ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.kernel}, load ${machine.load.toFixed(2)}`,
    `versions  pmilter ${machine.pmilter} (${machine.commit}), Bun ${machine.bun}`,
    `command   bun run bench ${process.argv.slice(2).join(" ")}`.trimEnd(),
    "",
  ].join("\n");
}

async function checkWritable(file: string): Promise<void> {
  try {
    await writeFile(file, "");
  } catch (error) {
    throw new BenchUsageError(`--json: ${error instanceof Error ? error.message : String(error)}`);
  }
}

async function run(args: BenchArguments, signal: AbortSignal): Promise<void> {
  if (process.platform !== "linux") throw new Error("the benchmark reads /proc: it runs on Linux only");
  // What cannot be written is better known before the minutes than after them.
  if (args.json !== null) await checkWritable(args.json);
  const plan = planOf(args, signal);
  const machine = describeMachine();
  const began = performance.now();
  const results: Partial<Record<SuiteName, SuiteResult>> = {};
  process.stdout.write(`${machineText(machine)}\n`);
  for (const name of args.suites) {
    const result = await RUN[name](plan);
    results[name] = result;
    if (result.skipped !== undefined) process.stdout.write(`${name}: skipped, ${result.skipped}\n\n`);
    for (const table of result.tables) process.stdout.write(`${formatTable(table)}\n`);
    if (result.commands.length > 0) {
      process.stdout.write(`${result.commands.map((command) => `  $ ${command}`).join("\n")}\n\n`);
    }
  }
  const seconds = Math.round((performance.now() - began) / 1000);
  if (args.isQuick) process.stdout.write("--quick: this shows that everything runs; the figures mean little.\n");
  process.stdout.write(`${seconds} s\n`);
  if (args.json !== null) {
    const { signal: _, note: __, ...settings } = plan;
    const document = { machine, arguments: process.argv.slice(2), settings, seconds, results };
    await writeFile(args.json, `${JSON.stringify(document, null, 2)}\n`);
  }
}

const interrupt = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => interrupt.abort(new Error(`interrupted by ${signal}`)));
}

try {
  const args = parseBenchArguments(process.argv.slice(2));
  if (args.isHelp) process.stdout.write(HELP);
  else await run(args, interrupt.signal);
  process.exit(0);
} catch (error) {
  if (error instanceof BenchUsageError) {
    process.stderr.write(`bench: ${error.message}\nTry: bun run bench --help\n`);
    process.exit(EXIT_USAGE);
  }
  if (interrupt.signal.aborted) {
    process.stderr.write(`bench: ${String(interrupt.signal.reason?.message)}\n`);
    process.exit(EXIT_INTERRUPTED);
  }
  process.stderr.write(`bench: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(EXIT_FAILED);
}
