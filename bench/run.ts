/** `bun run bench`: runs the suites that the command line names, prints their tables, writes the raw figures. */
import { existsSync } from "node:fs";
import { access, constants, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import {
  BenchUsageError,
  type BenchArguments,
  COMPARED,
  HELP,
  parseBenchArguments,
  type SuiteName,
  SUITES,
} from "./args.ts";
import { compare } from "./compare/compare.ts";
import { runCores } from "./cores/suite.ts";
import { runHold } from "./hold/suite.ts";
import { runLife } from "./life/suite.ts";
import { runMemory } from "./memory/suite.ts";
import { runMicro } from "./micro/suite.ts";
import { runMime } from "./mime/suite.ts";
import { runMta } from "./mta/suite.ts";
import { writePage } from "./page/page.ts";
import { runProfile } from "./profile/suite.ts";
import { runScale } from "./scale/suite.ts";
import { runServices } from "./services/suite.ts";
import { describeMachine, type Machine, ROOT } from "./support/machine.ts";
import type { LoadPoint, Plan, SuiteResult } from "./support/suite.ts";
import { formatTable } from "./support/table.ts";
import { runSkip } from "./skip/suite.ts";
import { targetTable } from "./support/target.ts";
import { MESSAGES_PER_CONNECTION } from "./wire/load.ts";
import { runWire } from "./wire/suite.ts";

const RUN: Readonly<Record<SuiteName, (plan: Plan) => Promise<SuiteResult>>> = {
  micro: runMicro,
  wire: runWire,
  hold: runHold,
  skip: runSkip,
  memory: runMemory,
  life: runLife,
  cores: runCores,
  profile: runProfile,
  mta: runMta,
  scale: runScale,
  mime: runMime,
  services: runServices,
};

const PAGE = join(ROOT, "bench", "RESULTS.md");

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

const MAX_GENERATORS = 4;

const CONNECTIONS = 20;
/** The table of `wire`, without its middle, which is measured with more care. */
const POINTS: readonly LoadPoint[] = [1, CONNECTIONS, 200]
  .flatMap((connections) =>
    [1, MESSAGES_PER_CONNECTION, 100].map((messagesPerConnection) => ({ connections, messagesPerConnection })),
  )
  .filter((point) => point.connections !== CONNECTIONS || point.messagesPerConnection !== MESSAGES_PER_CONNECTION);
/** Its corners of least and most load. */
const QUICK_POINTS: readonly LoadPoint[] = [POINTS[0]!, POINTS.at(-1)!];

/** Of a comparison: enough for a verdict on some dozens of figures, see `compare/verdict.ts`. */
const COMPARE_ROUNDS = 12;

function roundsOf({ rounds, compare, isQuick }: BenchArguments): number {
  return rounds ?? (compare !== null ? COMPARE_ROUNDS : isQuick ? 1 : 5);
}

function pointsOf({ connections, isQuick }: BenchArguments): readonly LoadPoint[] {
  if (connections !== null) return [];
  return isQuick ? QUICK_POINTS : POINTS;
}

function planOf(args: BenchArguments, signal: AbortSignal): Plan {
  const { isQuick } = args;
  return {
    isQuick,
    rounds: roundsOf(args),
    warmMs: isQuick ? 200 : 1000,
    settleMs: isQuick ? 0 : 6000,
    measureMs: isQuick ? 500 : 3000,
    connections: args.connections ?? CONNECTIONS,
    points: pointsOf(args),
    seed: args.seed ?? Math.floor(Math.random() * 0xffff_ffff) + 1,
    // Half the cores: the server needs the rest.
    generators: args.generators ?? Math.max(1, Math.min(MAX_GENERATORS, availableParallelism() >> 1)),
    workers: args.workers ?? "auto",
    peers: args.peers,
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

/** Finds out before the run, which takes minutes, whether the results can be written. */
async function checkWritable(option: string, file: string): Promise<void> {
  try {
    await access(existsSync(file) ? file : dirname(file), constants.W_OK);
  } catch (error) {
    throw new BenchUsageError(`${option}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The page's file: where it was asked for, and else of a full run. */
function pageFile({ results, suites, isQuick, compare }: BenchArguments): string | null {
  const isFull = !isQuick && compare === null && suites.length === SUITES.length;
  return results ?? (isFull ? PAGE : null);
}

function print(name: SuiteName, result: SuiteResult): void {
  const lines = result.skipped === undefined ? [] : [`${name}: skipped, ${result.skipped}\n`];
  lines.push(...result.tables.map(formatTable));
  if (result.commands.length > 0) lines.push(`${result.commands.map((command) => `  $ ${command}`).join("\n")}\n`);
  process.stdout.write(lines.map((line) => `${line}\n`).join(""));
}

async function measure(args: BenchArguments, plan: Plan, machine: Machine): Promise<void> {
  const page = pageFile(args);
  if (args.json !== null) await checkWritable("--json", args.json);
  if (page !== null) await checkWritable("--results", page);
  const began = performance.now();
  const results: Partial<Record<SuiteName, SuiteResult>> = {};
  for (const name of args.suites) {
    const suiteBegan = performance.now();
    const result = await RUN[name](plan);
    plan.note(`${name}: ${secondsSince(suiteBegan)} s`);
    results[name] = result;
    print(name, result);
  }
  const targets = Object.values(results).flatMap((result) => result.targets ?? []);
  if (targets.length > 0) process.stdout.write(`${formatTable(targetTable(targets))}\n`);
  const seconds = secondsSince(began);
  if (args.isQuick) process.stdout.write("--quick: this shows that everything runs; the figures mean little.\n");
  process.stdout.write(`${seconds} s\n`);
  const { isQuick } = plan;
  const typed = process.argv.slice(2);
  if (args.json !== null) {
    const { signal: _, note: __, ...settings } = plan;
    await writeJson(args.json, { machine, arguments: typed, settings, seconds, results });
  }
  if (page !== null) {
    await writePage(page, { machine, arguments: typed, seconds, isQuick, results });
    process.stdout.write(`written: ${page}\n`);
  }
}

const secondsSince = (began: number) => Math.round((performance.now() - began) / 1000);

/** @returns the exit code */
async function compareWith(revision: string, args: BenchArguments, plan: Plan, machine: Machine): Promise<number> {
  if (args.json !== null) await checkWritable("--json", args.json);
  const suites = COMPARED.filter((suite) => args.suites.includes(suite));
  const { table, summary, judged } = await compare(plan, suites, revision);
  process.stdout.write(`${formatTable(table)}\n${summary}\n`);
  if (args.json !== null) await writeJson(args.json, { machine, arguments: process.argv.slice(2), judged });
  return args.failsOnSlower && judged.some(({ isWorse }) => isWorse) ? EXIT_FAILED : 0;
}

async function writeJson(file: string, document: unknown): Promise<void> {
  await writeFile(file, `${JSON.stringify(document, null, 2)}\n`);
}

/** @returns the exit code */
async function run(args: BenchArguments, signal: AbortSignal): Promise<number> {
  if (process.platform !== "linux") throw new Error("the benchmark reads /proc: it runs on Linux only");
  const plan = planOf(args, signal);
  const machine = describeMachine();
  process.stdout.write(`${machineText(machine)}\n`);
  if (args.compare !== null) return await compareWith(args.compare, args, plan, machine);
  await measure(args, plan, machine);
  return 0;
}

const interrupt = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => interrupt.abort(new Error(`interrupted by ${signal}`)));
}

try {
  const args = parseBenchArguments(process.argv.slice(2));
  if (args.isHelp) process.stdout.write(HELP);
  process.exit(args.isHelp ? 0 : await run(args, interrupt.signal));
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
