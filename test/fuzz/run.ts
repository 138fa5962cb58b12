/** `bun run fuzz`: runs the fuzzer as its command line says; see `args.ts`. */
import { FuzzUsageError, type FuzzArguments, HELP, parseFuzzArguments } from "./args.ts";
import { type Count, formatFailure, fuzz, repeat } from "./runner.ts";
import type { Target } from "./target.ts";
import { MAKE } from "./targets/all.ts";

const EXIT_FAULT = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;

function table(counts: readonly Count[]): string {
  const rows = counts.map(({ target, iterations, bytes, ms }) => {
    const rate = Math.round(iterations / Math.max(ms / 1000, 0.001));
    return [target, String(iterations), String(bytes), (ms / 1000).toFixed(1), String(rate)];
  });
  const all = [["target", "iterations", "bytes", "s", "iterations/s"], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all
    .map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("  "),
    )
    .join("\n");
}

async function run(args: FuzzArguments, targets: readonly Target[], signal: AbortSignal): Promise<number> {
  if (args.repeat !== null) {
    const [target] = targets;
    const failure = await repeat(target!, args.repeat, args.input ?? undefined);
    if (failure === null) {
      process.stdout.write(`${target!.name}: no fault in the iteration with seed ${args.repeat}\n`);
      return 0;
    }
    process.stderr.write(formatFailure(failure));
    return EXIT_FAULT;
  }
  const seed = args.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
  const names = targets.map(({ name }) => name).join(" ");
  process.stdout.write(`fuzz: seed ${seed}, ${args.seconds} s: ${names}\n`);
  const { failure, counts, notes } = await fuzz({ targets, seconds: args.seconds, seed, signal });
  process.stdout.write(`${table(counts)}\n`);
  for (const note of notes) process.stdout.write(`${note}\n`);
  // ru_maxrss is in KiB on Linux, and Bun gives it as such on every system.
  process.stdout.write(`peak memory of the fuzzer: ${Math.round(process.resourceUsage().maxRSS / 1024)} MiB\n`);
  if (failure !== null) {
    process.stderr.write(formatFailure(failure));
    return EXIT_FAULT;
  }
  return signal.aborted ? EXIT_INTERRUPTED : 0;
}

const interrupt = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => interrupt.abort());

let args: FuzzArguments;
try {
  args = parseFuzzArguments(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof FuzzUsageError)) throw error;
  process.stderr.write(`fuzz: ${error.message}\nTry: bun run fuzz --help\n`);
  process.exit(EXIT_USAGE);
}
if (args.isHelp) {
  process.stdout.write(HELP);
  process.exit(0);
}
const targets = args.targets.map((name) => MAKE[name]());
let exitCode = EXIT_FAULT;
try {
  exitCode = await run(args, targets, interrupt.signal);
} catch (error) {
  process.stderr.write(`fuzz: ${error instanceof Error ? error.stack : String(error)}\n`);
} finally {
  for (const target of targets) await target[Symbol.asyncDispose]?.();
}
process.exit(exitCode);
