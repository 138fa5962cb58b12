/** The results page: the measurements of a run as Markdown, with its plots beside it. Made of the suites' results alone. */
import { mkdir, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { SuiteName } from "../args.ts";
import { type Machine, ROOT } from "../support/machine.ts";
import type { SuiteResult } from "../support/suite.ts";
import { markdownTable } from "../support/table.ts";
import { targetTable } from "../support/target.ts";
import { drawPlot } from "./draw.ts";

export interface Run {
  readonly machine: Machine;
  /** As they were typed. */
  readonly arguments: readonly string[];
  readonly seconds: number;
  readonly isQuick: boolean;
  readonly results: Readonly<Partial<Record<SuiteName, SuiteResult>>>;
}

/** @param plots the folder of the plots, as the page names it */
export function pageOf(run: Run, plots: string): string {
  const { machine } = run;
  const suites = Object.entries(run.results);
  const results = suites.map(([, result]) => result);
  const versions = [...new Set(results.flatMap((result) => result.versions ?? []))].toSorted();
  const command = ["bun run bench", ...run.arguments].join(" ");
  const targets = results.flatMap((result) => result.targets ?? []);
  const parts = [
    "# Results",
    `Made by \`${command}\` on ${machine.date.slice(0, 10)} in ${Math.ceil(run.seconds / 60)} min. What the figures mean, and what they do not show: [the benchmark](README.md). Each is the median of its rounds with the least and the greatest.`,
    ...(run.isQuick ? ["**`--quick`: this shows that everything runs; the figures mean little.**"] : []),
    [
      `- machine: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.kernel}; load ${machine.load.toFixed(2)} when it began`,
      `- pmilter ${machine.pmilter} (${machine.commit}), Bun ${machine.bun}`,
      ...(versions.length > 0 ? [`- beside it: ${versions.join(", ")}`] : []),
    ].join("\n"),
  ];
  if (targets.length > 0) parts.push("## Targets of the project", markdownTable(targetTable(targets)).trimEnd());
  for (const [name, result] of suites) {
    parts.push(`## ${name}`);
    if (result.skipped !== undefined) parts.push(`Skipped: ${result.skipped}`);
    for (const plot of result.plots ?? []) parts.push(`![${plot.title}](${plots}/${plot.name}.svg)`);
    for (const table of result.tables) parts.push(`### ${table.title}`, markdownTable(table).trimEnd());
    if (result.commands.length > 0) parts.push(["```sh", ...result.commands, "```"].join("\n"));
  }
  return `${parts.join("\n\n")}\n`;
}

/** Writes the page, and its plots into a folder `results` beside it. */
export async function writePage(file: string, run: Run): Promise<void> {
  const folder = join(dirname(file), "results");
  await mkdir(folder, { recursive: true });
  for (const result of Object.values(run.results)) {
    for (const plot of result.plots ?? []) await writeFile(join(folder, `${plot.name}.svg`), await drawPlot(plot));
  }
  await writeFile(file, await formatted(pageOf(run, basename(folder))));
}

/** As `bun run check` wants all Markdown: with the columns of its tables in line. */
async function formatted(text: string): Promise<string> {
  const child = Bun.spawn([process.execPath, "fmt", "--no-script", "--stdin-filepath=RESULTS.md"], {
    cwd: ROOT,
    stdin: new Blob([text]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [page, errors, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (exitCode !== 0) throw new Error(`bun fmt ended with exit code ${exitCode}: ${errors}`);
  return page;
}
