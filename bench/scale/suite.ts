/** The cost of pmilter against size: in each sweep a single parameter grows in geometric steps, the rest is as in `wire`. */
import { openFilesLimit, raiseOpenFilesLimit } from "../support/process.ts";
import type { Plot } from "../support/plot.ts";
import { type RealOptions, startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, lineThrough, ratioOf, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import { type MailShape, ORDINARY_MAIL } from "../support/traffic.ts";
import { type Load, LONG, measureLoad, type Measurement } from "../wire/load.ts";

interface Sweep {
  /** The name of the parameter that grows, in the plural and the singular. */
  readonly name: string;
  readonly unit: string;
  readonly sizes: readonly number[];
  /** The differences to ordinary mail to the ten handlers. */
  readonly load: (size: number) => Partial<Load>;
  readonly server?: (size: number) => Pick<RealOptions, "filters">;
}

type Results = ReadonlyMap<number, readonly Measurement[]>;

const KIB = 1024;
const THOUSAND = [1, 3, 10, 30, 100, 300, 1000];

function mailOf(shape: Partial<MailShape>): Partial<Load> {
  return { mails: [{ ...ORDINARY_MAIL, ...shape }] };
}

const SWEEPS: readonly Sweep[] = [
  { name: "recipients", unit: "recipient", sizes: THOUSAND, load: (recipients) => mailOf({ recipients }) },
  { name: "headers", unit: "header", sizes: THOUSAND, load: (headers) => mailOf({ headers }) },
  {
    name: "KiB of body",
    unit: "KiB",
    sizes: [1, 10, 100, 1000, 10_000, 50_000],
    load: (size) => mailOf({ bodyBytes: size * KIB }),
  },
  {
    name: "filters",
    unit: "filter",
    sizes: [1, 2, 5, 10, 20],
    load: (changes) => ({ changes }),
    server: (filters) => ({ filters }),
  },
];

const CONNECTIONS: Sweep = {
  name: "connections",
  unit: "connection",
  sizes: [10, 30, 100, 300, 1000, 3000, 9000],
  load: (connections) => ({ connections, messagesPerConnection: LONG }),
};

/** So that all the points fit into minutes. */
const MOST_ROUNDS = 2;
const WARM_MS = 700;
const MEASURE_MS = 800;
/** More for each connection: thousands take turns, and each is to send some messages. */
const MS_PER_CONNECTION = 0.4;

/** A connection takes two descriptors of the server, and it has more to open. */
const PER_CONNECTION = 2;
const OTHER_DESCRIPTORS = 500;

export async function runScale(plan: Plan): Promise<SuiteResult> {
  const timed: Plan = {
    ...plan,
    rounds: Math.min(plan.rounds, MOST_ROUNDS),
    warmMs: Math.min(plan.warmMs, WARM_MS),
    settleMs: 0,
    measureMs: Math.min(plan.measureMs, MEASURE_MS),
  };
  raiseOpenFilesLimit(PER_CONNECTION * CONNECTIONS.sizes.at(-1)! + OTHER_DESCRIPTORS);
  const allowed = openFilesLimit();
  const most = Math.floor((allowed - OTHER_DESCRIPTORS) / PER_CONNECTION);
  const connections = { ...CONNECTIONS, sizes: CONNECTIONS.sizes.filter((size) => size <= most) };

  const commands = new Set<string>();
  const raw: Record<string, unknown> = {};
  const tables: Table[] = [];
  const plots: Plot[] = [];
  for (const sweep of [...SWEEPS, connections]) {
    const results = await measureSweep(timed, sweep, commands);
    raw[sweep.name] = [...results].map(([size, rounds]) => ({ size, rounds }));
    tables.push(sweep === connections ? connectionsTable(results, allowed) : sweepTable(sweep, results));
    plots.push(plotOf(sweep, results));
  }
  return { commands: [...commands], raw: { openFiles: allowed, sweeps: raw }, tables, plots };
}

async function measureSweep(plan: Plan, sweep: Sweep, commands: Set<string>): Promise<Results> {
  const { name, load, server: options } = sweep;
  const sizes = plan.isQuick ? [sweep.sizes[0]!, sweep.sizes.at(-1)!] : sweep.sizes;
  return interleave(plan, sizes, async (size, round) => {
    await using server = await startReal({
      handlers: "ten",
      workers: plan.workers,
      signal: plan.signal,
      ...options?.(size),
    });
    commands.add(server.command);
    const point: Load = { kind: "mail", connections: plan.connections, changes: 1, ...load(size) };
    const leastMs = point.connections * MS_PER_CONNECTION;
    const measurement = await measureLoad(
      { ...plan, warmMs: Math.max(plan.warmMs, leastMs), measureMs: Math.max(plan.measureMs, leastMs) },
      server,
      point,
    );
    plan.note(
      `scale ${round + 1}/${plan.rounds} ${size} ${name}: ${formatNumber(measurement.cpuMicros)} µs/message, ${formatNumber(measurement.perSecond)} messages/s`,
    );
    return measurement;
  });
}

function sweepTable({ name, unit }: Sweep, results: Results): Table {
  const fit = lineOf(results, ({ cpuMicros }) => cpuMicros);
  return {
    title: `scale: ${name}`,
    columns: [name, "messages/s", "CPU µs/message", `CPU µs/${unit}`, "CPU / line"],
    rows: [...results].map(([size, rounds]) => {
      const cpu = rounds.map(({ cpuMicros }) => cpuMicros);
      return [
        size.toLocaleString("en-US"),
        formatSpread(spreadOf(rounds.map(({ perSecond }) => perSecond))),
        formatSpread(spreadOf(cpu)),
        formatNumber(spreadOf(cpu).median / size),
        formatNumber(fit.ratioAt(size)),
      ];
    }),
    notes: [`line: ${fit.text(`µs`, unit)}`],
  };
}

/** A message costs the same however many connections there are; memory grows with them. */
function connectionsTable(results: Results, allowed: number): Table {
  const base = [...results.values()][0]!.map(({ cpuMicros }) => cpuMicros);
  const memory = lineOf(results, ({ peakBytes }) => peakBytes / KIB);
  return {
    title: "scale: connections, each with one message after the other",
    columns: [
      "connections",
      "messages/s",
      "CPU µs/message",
      `CPU / at ${[...results.keys()][0]}`,
      "reply p99 µs",
      "peak memory MiB",
      "memory / line",
    ],
    rows: [...results].map(([size, rounds]) => {
      const of = (key: keyof Measurement) => rounds.map((measurement) => measurement[key]);
      return [
        size.toLocaleString("en-US"),
        formatSpread(spreadOf(of("perSecond"))),
        formatSpread(spreadOf(of("cpuMicros"))),
        formatSpread(ratioOf(of("cpuMicros"), base)),
        formatSpread(spreadOf(of("p99"))),
        formatSpread(spreadOf(of("peakBytes").map((bytes) => bytes / KIB ** 2))),
        formatNumber(memory.ratioAt(size)),
      ];
    }),
    notes: [
      "a reply takes longer with more of them, since all are at work and each waits for its turn",
      `memory: ${memory.text("KiB", "connection")}`,
      `this machine allows ${allowed.toLocaleString("en-US")} open files, the server takes ${PER_CONNECTION} for a connection`,
    ],
  };
}

function plotOf({ name, unit }: Sweep, results: Results): Plot {
  return {
    name: `scale-${unit.toLowerCase()}`,
    title: `What a message costs, against ${name}`,
    kind: "lines",
    scale: "log",
    unit: "server CPU µs/message",
    axis: name,
    categories: [...results.keys()].map((size) => size.toLocaleString("en-US")),
    series: [
      {
        name: "CPU µs/message",
        values: [...results.values()].map((rounds) => spreadOf(rounds.map(({ cpuMicros }) => cpuMicros))),
      },
    ],
  };
}

/** How near to a straight line the medians are. */
function lineOf(results: Results, valueOf: (measurement: Measurement) => number) {
  const points = [...results].map(([size, rounds]) => [size, spreadOf(rounds.map(valueOf)).median] as const);
  const { base, slope } = lineThrough(points);
  const ratios = new Map(points.map(([size, value]) => [size, value / (base + slope * size)]));
  const [least, greatest] = [Math.min(...ratios.values()), Math.max(...ratios.values())];
  return {
    ratioAt: (size: number): number => ratios.get(size)!,
    text: (what: string, unit: string): string => {
      const line = `${formatNumber(base)} ${what} and ${formatNumber(slope)} ${what} for each ${unit}`;
      return points.length > 2
        ? `${line}; measured is ${formatNumber(least)} to ${formatNumber(greatest)} of it`
        : `${line}; two points make a line, so it shows nothing`;
    },
  };
}
