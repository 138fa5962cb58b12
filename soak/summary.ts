/** The result of a run, as data and in words. Pure. */
import { type Account, type Comparison, type Example, PROBLEM_KINDS, type ProblemKind } from "./account.ts";
import type { SoakArguments } from "./args.ts";
import type { Memory, Sample } from "./resources.ts";

export interface Summary {
  readonly seed: number;
  readonly faults: string;
  readonly seconds: number;
  readonly problems: Readonly<Record<ProblemKind, number>>;
  readonly examples: readonly Example[];
  /** Counts of actions and replies, by name. */
  readonly tally: Readonly<Record<string, number>>;
  readonly worst: Account["worst"];
  readonly incidents: number;
  readonly reloads: { readonly taken: number; readonly broken: number };
  readonly comparisons: readonly Comparison[];
  readonly counters: Readonly<Record<string, number>>;
  readonly memory: Memory;
  readonly descriptors: { readonly start: number; readonly peak: number; readonly end: number };
  readonly threads: { readonly start: number; readonly peak: number; readonly end: number };
  /** Seconds of processor time. */
  readonly cpu: { readonly server: number; readonly driver: number };
  /** The last lines of the server's log that tell of no verdict. */
  readonly log: readonly string[];
}

export function rangeOf(samples: readonly Sample[], key: "descriptors" | "threads", start: Sample, end: Sample) {
  return { start: start[key], peak: Math.max(...samples.map((sample) => sample[key])), end: end[key] };
}

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

export function describeExample({ at, kind, session, text }: Example): string {
  return `${kind} at ${(at / 1000).toFixed(1)} s, session ${session}: ${text}`;
}

export function formatSummary(summary: Summary, { allowanceMs }: SoakArguments): string {
  const { comparisons, counters, descriptors, memory, problems, reloads, tally, threads, worst } = summary;
  const list = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .filter(([, count]) => count > 0)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ");
  const share = (used: number): string => `${Math.round((100 * used) / summary.seconds)} %`;
  const off = comparisons.filter(({ isRight }) => !isRight);
  return [
    `soak: ${Math.round(summary.seconds)} s, faults ${summary.faults}, seed ${summary.seed}`,
    `problems      ${PROBLEM_KINDS.map((kind) => `${kind} ${problems[kind]}`).join(", ")}`,
    `driver        ${list(tally)}`,
    `server        ${list(counters)}`,
    `counters      ${off.length === 0 ? "all within what the driver saw" : off.map(({ counted, least, most, name }) => `${name} ${counted}, expected ${least} to ${most}`).join("; ")}`,
    `worst answer  ${Object.entries(worst)
      .map(([waiting, { ms, what }]) => `${waiting} ${Math.round(ms)} ms (${what})`)
      .join(", ")}; allowed beyond what is promised: ${allowanceMs} ms`,
    `lost workers  ${summary.incidents} times by a fault; reloads ${reloads.taken} taken, ${reloads.broken} broken`,
    `memory        warm ${mebibytes(memory.warmBytes)}, end ${mebibytes(memory.endBytes)}, peak ${mebibytes(memory.peakBytes)}, ${(memory.bytesPerMinute / 1024).toFixed(0)} KiB a minute over the second half, which is ${mebibytes(memory.riseBytes)} of ${mebibytes(memory.allowedBytes)} that pass for flat`,
    `descriptors   start ${descriptors.start}, peak ${descriptors.peak}, end ${descriptors.end}`,
    `threads       start ${threads.start}, peak ${threads.peak}, end ${threads.end}`,
    `processor     server ${share(summary.cpu.server)}, driver ${share(summary.cpu.driver)} of a core`,
    ...summary.examples.flatMap((example) => [
      "",
      describeExample(example),
      ...example.conversation.map((line) => `    ${line}`),
      ...example.log.map((line) => `  log: ${line}`),
    ]),
    ...(summary.examples.length === 0
      ? []
      : ["", "the server's last log lines that tell of no verdict:", ...summary.log]),
    "",
  ].join("\n");
}
