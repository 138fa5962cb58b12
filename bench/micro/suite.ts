/** Microbenchmarks of the protocol and the conversation, in memory. Each file runs in fresh processes. */
import { join } from "node:path";
import { BenchChild } from "../support/child.ts";
import { mitataVersion, ROOT } from "../support/machine.ts";
import { formatNumber, formatSpread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { type CaseResult, type Mode, NO_COLLECTOR } from "./cases.ts";

export const FILES = ["reader.ts", "decode.ts", "writer.ts", "negotiation.ts", "macros.ts", "conversation.ts"] as const;
/** Enough to see the spread; mitata repeats within each. */
const MAX_ROUNDS = 3;

/** A tree, and the benchmark's folder in it. */
export interface Place {
  readonly root: string;
  readonly folder: string;
}

const HERE: Place = { root: ROOT, folder: "bench" };

/** Runs a file of microbenchmarks in a process of its own. */
export async function runFile({ root, folder }: Place, file: string, mode: Mode, signal: AbortSignal) {
  await using child = new BenchChild<never, readonly CaseResult[]>(join(root, folder, "micro", file), {
    root,
    signal,
    args: [mode],
    ...(mode === "memory" && { env: NO_COLLECTOR }),
  });
  const results = await child.next();
  return { results, command: mode === "memory" ? `BUN_JSC_useGC=0 ${child.command}` : child.command };
}

export async function runMicro(plan: Plan): Promise<SuiteResult> {
  const rounds = Math.min(plan.rounds, MAX_ROUNDS);
  const commands = new Set<string>();
  const run = async (file: string, mode: Mode): Promise<readonly CaseResult[]> => {
    const { results, command } = await runFile(HERE, file, mode, plan.signal);
    commands.add(command);
    return results;
  };
  const timed = await interleave({ ...plan, rounds }, FILES, async (file, round) => {
    const results = await run(file, plan.isQuick ? "quick" : "time");
    plan.note(`micro ${round + 1}/${rounds} ${file}`);
    return results;
  });
  const raw: { file: string; time: readonly (readonly CaseResult[])[]; memory: readonly CaseResult[] }[] = [];
  const rows: string[][] = [];
  for (const file of FILES) {
    const memory = await run(file, "memory");
    const time = timed.get(file)!;
    raw.push({ file, time, memory });
    memory.forEach(({ name, unit, bytes }, at) => {
      const all = time.map((results) => results[at]!);
      rows.push([
        name,
        unit,
        formatSpread(spreadOf(all.map((result) => result.ns))),
        formatNumber(spreadOf(all.map((result) => result.nsP99)).median),
        formatNumber(Math.round(bytes)),
      ]);
    });
  }
  return {
    commands: [...commands],
    raw,
    tables: [
      {
        title: `micro: mitata ${mitataVersion()}, ${rounds} round(s)`,
        columns: ["what", "unit", "ns/unit", "p99", "bytes allocated/unit"],
        rows,
        notes: ["bytes: growth of resident memory with the collector switched off, in a process of its own"],
      },
    ],
  };
}
