/** The results page is made of what suites give, whatever they measured. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { drawPlot } from "../../bench/page/draw.ts";
import { pageOf, type Run, writePage } from "../../bench/page/page.ts";
import type { Plot } from "../../bench/support/plot.ts";
import { spreadOf } from "../../bench/support/stats.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const BARS: Plot = {
  name: "engine-cpu",
  title: "CPU of the engine",
  kind: "bars",
  scale: "linear",
  unit: "µs",
  categories: ["looms & engines", "mills"],
  series: [{ name: "µs", values: [spreadOf([8, 9, 12]), null] }],
};
const LINES: Plot = {
  name: "engine-lines",
  title: "Lines of the engine",
  kind: "lines",
  scale: "log",
  unit: "cards/s",
  axis: "looms",
  categories: ["1", "20"],
  series: [
    { name: "first", values: [spreadOf([10]), spreadOf([100])] },
    { name: "second", values: [null, spreadOf([50])] },
  ],
};

const RUN: Run = {
  machine: {
    date: "2026-11-25T21:00:00.000Z",
    cpu: "Analytical Engine",
    cores: 2,
    memoryGiB: 24,
    kernel: "linux 6",
    load: 0.1,
    bun: "1.4.5",
    pmilter: "0.1.0",
    commit: "abc1234",
  },
  arguments: ["micro", "--seed", "7"],
  seconds: 61,
  isQuick: false,
  results: {
    micro: {
      tables: [{ title: "cards", columns: ["card", "ns"], rows: [["a|b", "1"]], notes: ["a note"] }],
      plots: [BARS, LINES],
      targets: [{ what: "cards a second", bound: ["at least", 6], figure: spreadOf([7, 8]), note: "of the mill" }],
      raw: null,
      commands: ["bun run engine"],
      versions: ["loom 1.2-3"],
    },
    mta: { tables: [], raw: null, commands: [], skipped: "there is no mill" },
  },
};

test("pageOf: machine, versions, command lines, date, targets, tables, plots, and why a suite is missing", () => {
  const page = pageOf(RUN, "results");
  for (const part of [
    "`bun run bench micro --seed 7` on 2026-11-25 in 2 min",
    "Analytical Engine, 2 cores, 24 GiB, linux 6; load 0.10",
    "pmilter 0.1.0 (abc1234), Bun 1.4.5",
    "loom 1.2-3",
    "| cards a second | at least 6.00 | 7.50 (7.00–8.00) | reached | of the mill |",
    "![CPU of the engine](results/engine-cpu.svg)",
    "### cards",
    "| a\\|b | 1 |",
    "- a note",
    "bun run engine",
    "Skipped: there is no mill",
  ]) {
    expect(page).toContain(part);
  }
  expect(page).not.toContain("--quick");
  expect(pageOf({ ...RUN, isQuick: true }, "results")).toContain("the figures mean little");
});

test("drawPlot: bars with their medians, and lines with what they are, as small SVG", async () => {
  const bars = await drawPlot(BARS);
  expect(bars).toStartWith("<svg");
  for (const text of ["CPU of the engine", "looms &amp; engines", "mills", "9.00", "µs"]) expect(bars).toContain(text);
  const lines = await drawPlot(LINES);
  for (const text of ["Lines of the engine", "first", "second", "cards/s", "looms"]) expect(lines).toContain(text);
  for (const svg of [bars, lines]) expect(svg.length).toBeLessThan(20_000);
});

test("writePage: the page, and each plot in results beside it", async () => {
  await using dir = await tempDir("page");
  const file = join(dir.path, "RESULTS.md");
  await writePage(file, RUN);
  const lines = (text: string) => text.split("\n").map((line) => line.replaceAll(/ {2,}|-{2,}/g, " "));
  expect(lines(await readFile(file, "utf8"))).toEqual(lines(pageOf(RUN, "results")));
  expect(await readdir(join(dir.path, "results"))).toEqual(["engine-cpu.svg", "engine-lines.svg"]);
});
