/** `bun run bench --compare REV`: the working tree against another revision, interleaved, with a verdict on each figure. */
import type { ComparedSuite } from "../args.ts";
import { formatNumber, formatSpread, spreadOf } from "../support/stats.ts";
import type { Plan } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import { compareMicro } from "./micro.ts";
import { checkOut } from "./revision.ts";
import { type Compared, type Judged, judgeAll, roundsNeeded } from "./verdict.ts";
import { compareWire } from "./wire.ts";

export interface Comparison {
  readonly table: Table;
  /** In words: how many figures differ, and how. */
  readonly summary: string;
  readonly judged: readonly Judged[];
}

const COMPARE: Readonly<Record<ComparedSuite, (plan: Plan, root: string) => Promise<Compared>>> = {
  micro: compareMicro,
  wire: compareWire,
};

export async function compare(plan: Plan, suites: readonly ComparedSuite[], name: string): Promise<Comparison> {
  await using revision = await checkOut(name, plan.signal);
  const compared: Compared[] = [];
  for (const suite of suites) compared.push(await COMPARE[suite](plan, revision.root));
  const judged = judgeAll(compared.flatMap(({ figures }) => figures));
  const notes = compared.flatMap(({ notes }) => notes);
  return { table: tableOf(plan, revision.name, judged, notes), summary: summaryOf(revision.name, judged), judged };
}

function tableOf(plan: Plan, revision: string, judged: readonly Judged[], notes: readonly string[]): Table {
  const needed = roundsNeeded(judged.length);
  return {
    title: `the working tree against ${revision}, ${plan.rounds} rounds in pairs`,
    columns: ["figure", "there", "here", "here / there", "p", "verdict"],
    rows: judged.map(({ figure, ratio, p, verdict }) => [
      figure.name,
      formatNumber(spreadOf(figure.there).median),
      formatNumber(spreadOf(figure.here).median),
      formatSpread(ratio),
      p < 0.001 ? "<0.001" : p.toFixed(3),
      verdict,
    ]),
    notes: [
      "medians; the ratio is taken round by round, with the least and the greatest",
      "p: Wilcoxon's signed-rank test on the paired ratios, exact, corrected for the number of figures (Holm)",
      "a verdict needs p of at most 0.05 and a median ratio that is at least 1% off",
      ...(plan.rounds < needed
        ? [
            `${plan.rounds} rounds are too few for any verdict on ${judged.length} figures, at least ${needed} are needed`,
          ]
        : []),
      ...notes,
    ],
  };
}

function summaryOf(revision: string, judged: readonly Judged[]): string {
  const told = judged.filter(({ verdict }) => verdict !== "no difference seen");
  if (told.length === 0) return `against ${revision}: no difference seen in ${judged.length} figures`;
  const lines = told.map(
    ({ figure, ratio, verdict }) => `  ${verdict}: ${figure.name} × ${formatNumber(ratio.median)}`,
  );
  return [`against ${revision}, of ${judged.length} figures ${told.length} differ:`, ...lines].join("\n");
}
