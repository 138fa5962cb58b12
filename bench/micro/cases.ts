/** The form of a microbenchmark, and how its process runs it: `mitata` for the time, a run without collector for memory. */
import { measure } from "mitata";
import { onParentGone, tellParent } from "../support/child.ts";
import { residentBytes } from "../support/process.ts";

export interface Case {
  readonly name: string;
  /** The number of packets or messages in a call of `run`, for figures by packet or message. */
  readonly unit: string;
  readonly count: number;
  run(): void;
}

/** The arguments of a process of microbenchmarks. */
export const MODES = ["time", "quick", "memory"] as const;
export type Mode = (typeof MODES)[number];

/** Switches JavaScriptCore's collector off: allocated memory then stays, and can be counted. */
export const NO_COLLECTOR = { BUN_JSC_useGC: "0" } as const;

export interface CaseResult {
  readonly name: string;
  readonly unit: string;
  /** Nanoseconds a unit: median, 25th and 99th percentile of mitata's samples. In mode `memory`, 0. */
  readonly ns: number;
  readonly nsP25: number;
  readonly nsP99: number;
  /** Bytes allocated a unit; in the other modes, 0. */
  readonly bytes: number;
}

const MIN_CPU_NS = { time: 600e6, quick: 60e6 } as const;
/**
 * Calls that mitata measures together where a call is short. Our calls take microseconds, so a few are enough for the clock;
 * mitata's default of 4096 would take seconds at 12 samples.
 */
const BATCH_CALLS = 64;
/**
 * Units before anything is counted: code that is not compiled yet and buffers that are reused are not what is looked for.
 */
const WARM_UNITS = 20_000;
const COUNTED_UNITS = 40_000;

/** Runs the cases in the mode of the command line and sends the results to the parent process. */
export async function runCases(cases: readonly Case[]): Promise<void> {
  const mode = MODES.find((known) => known === process.argv[2]);
  if (mode === undefined) throw new Error(`expected one of ${MODES.join(", ")}`);
  const results: CaseResult[] = [];
  for (const each of cases) {
    const { name, unit, count } = each;
    for (let done = 0; done < WARM_UNITS; done += count) each.run();
    if (mode === "memory") {
      results.push({ name, unit, ns: 0, nsP25: 0, nsP99: 0, bytes: bytesOf(each) });
      continue;
    }
    const stats = await measure(() => each.run(), { min_cpu_time: MIN_CPU_NS[mode], batch_samples: BATCH_CALLS });
    const nsOf = (value: number) => value / count;
    results.push({ name, unit, ns: nsOf(stats.p50), nsP25: nsOf(stats.p25), nsP99: nsOf(stats.p99), bytes: 0 });
  }
  onParentGone(() => process.exit(0));
  tellParent(results);
}

function bytesOf({ run, count }: Case): number {
  const before = residentBytes(process.pid);
  let counted = 0;
  for (; counted < COUNTED_UNITS; counted += count) run();
  return Math.max(0, residentBytes(process.pid) - before) / counted;
}
