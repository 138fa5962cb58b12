/** Microbenchmarks of the protocol and the conversation, in memory. Each file runs in fresh processes. */
import { join } from "node:path";
import { BenchChild } from "../support/child.ts";
import { mitataVersion } from "../support/machine.ts";
import { formatNumber, formatSpread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { type CaseResult, type Mode, NO_COLLECTOR } from "./cases.ts";

const FILES = ["reader.ts", "writer.ts", "conversation.ts"] as const;
/** Enough to see the spread; mitata repeats within each. */
const MAX_ROUNDS = 3;

export async function runMicro(plan: Plan): Promise<SuiteResult> {
  const rounds = Math.min(plan.rounds, MAX_ROUNDS);
  const commands = new Set<string>();
  const run = async (file: string, mode: Mode): Promise<readonly CaseResult[]> => {
    await using child = new BenchChild<never, readonly CaseResult[]>(join(import.meta.dir, file), {
      signal: plan.signal,
      args: [mode],
      ...(mode === "memory" && { env: NO_COLLECTOR }),
    });
    commands.add(mode === "memory" ? `BUN_JSC_useGC=0 ${child.command}` : child.command);
    // Awaited here: the child is disposed of when this function is left.
    return await child.next();
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
