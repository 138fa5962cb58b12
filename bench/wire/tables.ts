/** Tables and plots of `wire`. Pure. */
import { barPlot, type Plot } from "../support/plot.ts";
import { formatNumber, formatSpread, type Spread, spreadOf } from "../support/stats.ts";
import type { Plan } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import type { MailShape } from "../support/traffic.ts";
import { type Figures, loadName, type WireLoad } from "./figures.ts";
import type { Measurement } from "./load.ts";
import { mixedMail } from "./mixed-mail.ts";

const MIB = 2 ** 20;

/** The table that figures are quoted from, with replies and memory of the same measurements. */
export function mainTables(
  plan: Plan,
  figures: Figures,
  load: WireLoad,
  libmilter: string | null,
  missing: readonly string[],
): readonly Table[] {
  const variants = figures.variants(load);
  return [
    {
      title: `wire: ${loadName(load)}, 12 headers, 2 KB body`,
      columns: [
        "server",
        "messages/s",
        "CPU µs/message",
        "CPU / bare loop",
        "CPU / libmilter",
        "messages/s / libmilter",
        "generator",
      ],
      rows: variants.map(({ name, limit }) => {
        const ratio = (base: string | null, key: keyof Measurement) =>
          textOf(base === null ? null : figures.ratio(name, base, load, key));
        return [
          name,
          textOf(figures.spread(name, load, "perSecond")),
          textOf(figures.spread(name, load, "cpuMicros")),
          ratio(limit, "cpuMicros"),
          ratio(libmilter, "cpuMicros"),
          ratio(libmilter, "perSecond"),
          textOf(figures.spread(name, load, "generatorShare")),
        ];
      }),
      notes: [
        `workers = ${plan.workers}; the bare loops have one thread; ${plan.generators} generator process(es)`,
        "generator: share of a core that it used; near 1, messages/s is the generator's limit and CPU is what counts",
        "printing examples: as pmilter.toml names them, standard output to /dev/null",
        ...missing,
      ],
    },
    {
      title: "wire: replies and memory of the same measurements",
      columns: ["server", "reply p50 µs", "p99 µs", "p99.9 µs", "peak memory MiB"],
      rows: variants.map(({ name }) => [name].concat(restOf(figures, name, load))),
      notes: [
        "peak memory: of all processes of the server; what they share is counted in each (Sendmail::PMilter forks)",
      ],
    },
  ];
}

/** All figures of the servers under a further load. */
export function loadTable(figures: Figures, load: WireLoad): Table {
  const { seed } = load;
  return {
    title: `wire: ${loadName(load)}`,
    columns: [
      "server",
      "messages/s",
      "CPU µs/message",
      "reply p50 µs",
      "p99 µs",
      "p99.9 µs",
      "peak memory MiB",
      "generator",
    ],
    rows: figures.variants(load).map(({ name }) => {
      const of = (key: keyof Measurement) => textOf(figures.spread(name, load, key));
      return [name, of("perSecond"), of("cpuMicros")].concat(restOf(figures, name, load), of("generatorShare"));
    }),
    ...(seed !== null && { notes: [mailNote(seed)] }),
  };
}

function mailNote(seed: number): string {
  const mails = mixedMail(seed);
  const mean = (of: (mail: MailShape) => number) => mails.reduce((sum, mail) => sum + of(mail), 0) / mails.length;
  const headers = formatNumber(mean((mail) => mail.headers));
  const kilobytes = formatNumber(mean((mail) => mail.bodyBytes) / 1024);
  return `${mails.length} mails of --seed ${seed}, on average ${headers} headers and ${kilobytes} KB of body`;
}

export function plotsOf(figures: Figures, main: WireLoad, loads: readonly WireLoad[]): readonly Plot[] {
  const bars = (key: keyof Measurement) =>
    figures.variants(main).map(({ name }) => [name, figures.spread(name, main, key)] as const);
  const plots = [
    barPlot(
      {
        name: "wire-cpu",
        title: `Server CPU per message, ${loadName(main)}`,
        scale: "linear",
        unit: "µs (less is better)",
      },
      bars("cpuMicros"),
    ),
    barPlot(
      { name: "wire-p99", title: `Reply p99, ${loadName(main)}`, scale: "log", unit: "µs (less is better)" },
      bars("p99"),
    ),
  ];
  const line = linesByConnections(figures, main, loads);
  return line === null ? plots : [...plots, line];
}

/** Messages a second against connections, with the main load's number of messages a connection. */
function linesByConnections(figures: Figures, main: WireLoad, loads: readonly WireLoad[]): Plot | null {
  const { messagesPerConnection } = main;
  const points = loads
    .filter((load) => load.messagesPerConnection === messagesPerConnection)
    .toSorted((a, b) => a.connections - b.connections);
  if (points.length < 2) return null;
  const names = figures
    .variants(main)
    .map(({ name }) => name)
    .filter((name) => points.every((load) => figures.spread(name, load, "perSecond") !== null));
  return {
    name: "wire-connections",
    title: `Messages/s against connections, ${messagesPerConnection} messages each`,
    kind: "lines",
    scale: "log",
    unit: "messages/s",
    axis: "connections",
    categories: points.map(({ connections }) => String(connections)),
    series: names.map((name) => ({
      name,
      values: points.map((load) => figures.spread(name, load, "perSecond")),
    })),
  };
}

/** Reply latencies and peak memory. */
function restOf(figures: Figures, name: string, load: WireLoad): string[] {
  const replies = (["p50", "p99", "p999"] as const).map((key) => textOf(figures.spread(name, load, key)));
  const peak = figures.spread(name, load, "peakBytes");
  return [...replies, textOf(peak === null ? null : spreadOf(peak.all.map((bytes) => bytes / MIB)))];
}

function textOf(spread: Spread | null): string {
  return spread === null ? "-" : formatSpread(spread);
}
