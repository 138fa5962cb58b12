/**
 * How work spreads over the workers, the cost of the main thread for each message and connection, and the gain of a second
 * core: by thread, from /proc/PID/task.
 */
import { availableParallelism } from "node:os";
import { askServer } from "../../src/server/control/control.ts";
import type { Status } from "../../src/server/control/status.ts";
import { startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, type Spread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import { pin, type Thread, threadsOf, whyNotPinned, WORKER } from "../support/threads.ts";
import {
  type Generators,
  type Load,
  LONG,
  measureGenerators,
  type Measurement,
  startGenerators,
} from "../wire/load.ts";

const SPREAD_CONNECTIONS = 200;
const SPREAD_WORKERS = 4;
const MAX_ROUNDS = 3;
const MEASURE_MS = 2500;
/** Generators have cores of their own only where this many are left beside two workers. */
const CORES_APART = 4;
const TARGET = 1.8;

const LONG_MAIL: Load = { kind: "mail", connections: 20, messagesPerConnection: LONG, changes: 1 };
const KINDS: readonly { readonly name: string; readonly load: Load }[] = [
  { name: "message on a long connection", load: LONG_MAIL },
  { name: "message, 10 a connection", load: { kind: "mail", connections: 20, changes: 1 } },
  { name: "connection without a message", load: { kind: "visits", connections: 20, changes: 0 } },
];

export async function runCores(plan: Plan): Promise<SuiteResult> {
  const timed = {
    ...plan,
    rounds: Math.min(plan.rounds, MAX_ROUNDS),
    measureMs: Math.min(plan.measureMs, MEASURE_MS),
  };
  const spread = await measureSpread(timed);
  const threads = await measureThreads(timed);
  const scaling = await measureScaling(timed);
  return {
    commands: [...new Set([...spread.commands, ...threads.commands, ...scaling.commands])],
    tables: [...spread.tables, ...threads.tables, ...scaling.tables],
    raw: { spread: spread.raw, threads: threads.raw, scaling: scaling.raw },
  };
}

/** Processor time of each thread while something is measured. */
async function byThread(
  plan: Plan,
  pid: number,
  generators: Generators,
): Promise<{ readonly measurement: Measurement; readonly threads: readonly Thread[] }> {
  const before = threadsOf(pid);
  const measurement = await measureGenerators(generators, plan.measureMs);
  const threads = threadsOf(pid, before);
  return { measurement, threads };
}

const share = (values: readonly number[]) => {
  const sum = values.reduce((total, value) => total + value, 0);
  return values.map((value) => value / sum);
};
const percent = (value: number) => `${(value * 100).toFixed(1)} %`;

/** Connections and work of each worker. */
async function measureSpread(plan: Plan): Promise<SuiteResult> {
  await using server = await startReal({ handlers: "ten", workers: SPREAD_WORKERS, signal: plan.signal });
  const load = { ...LONG_MAIL, connections: SPREAD_CONNECTIONS };
  await using generators = await startGenerators(plan, server, load);
  const { generation } = (await askServer(server.control!, { command: "status" })) as Status;
  const { threads } = await byThread(plan, server.pid, generators);
  const work = share(threads.filter(({ name }) => name === WORKER).map(({ cpuMicros }) => cpuMicros));
  const connections = generation.workers;
  plan.note(`cores spread: connections ${connections.join(" ")}, work ${work.map(percent).join(" ")}`);
  return {
    commands: [server.command],
    raw: { connections, work },
    tables: [
      {
        title: `cores: ${SPREAD_CONNECTIONS} long connections under load, ${SPREAD_WORKERS} workers`,
        columns: ["of each worker", ...connections.map((_, worker) => String(worker + 1)), "most / least"],
        rows: [
          ["connections", ...connections.map(String), (Math.max(...connections) / Math.min(...connections)).toFixed(2)],
          ["processor time", ...work.map(percent), (Math.max(...work) / Math.min(...work)).toFixed(2)],
        ],
      },
    ],
  };
}

interface Split {
  readonly worker: number;
  readonly main: number;
  readonly others: number;
}

/** Processor time of each kind of thread for a message, and for a connection. */
async function measureThreads(plan: Plan): Promise<SuiteResult> {
  const commands = new Set<string>();
  const results = await interleave(plan, KINDS, async ({ name, load }, round) => {
    await using server = await startReal({ handlers: "ten", workers: plan.workers, signal: plan.signal });
    commands.add(server.command);
    await using generators = await startGenerators(plan, server, load);
    const { measurement, threads } = await byThread(plan, server.pid, generators);
    const of = (isOne: (thread: Thread) => boolean) =>
      threads.filter(isOne).reduce((sum, { cpuMicros }) => sum + cpuMicros, 0) / measurement.completed;
    const split: Split = {
      worker: of((thread) => thread.name === WORKER),
      main: of((thread) => thread.isMain),
      others: of((thread) => thread.name !== WORKER && !thread.isMain),
    };
    plan.note(`cores threads ${round + 1}/${plan.rounds} ${name}: main ${formatNumber(split.main)} µs`);
    return { ...split, all: threads };
  });
  const spread = (kind: (typeof KINDS)[number], key: keyof Split) =>
    formatSpread(spreadOf(results.get(kind)!.map((split) => split[key])));
  return {
    commands: [...commands],
    raw: KINDS.map((kind) => ({ kind: kind.name, rounds: results.get(kind) })),
    tables: [
      {
        title: `cores: CPU µs by thread, ten handlers, workers = ${plan.workers}`,
        columns: ["for each", "workers", "main thread", "others (compilers, garbage collector)"],
        rows: KINDS.map((kind) => [kind.name, spread(kind, "worker"), spread(kind, "main"), spread(kind, "others")]),
        notes: [
          "target: nothing of the main thread for a message on a long connection; what is left is its look at the workers, ten times a second",
        ],
      },
    ],
  };
}

/** A worker on a core, and two workers on a core each. */
async function measureScaling(plan: Plan): Promise<SuiteResult> {
  const cores = availableParallelism();
  const reason = cores < 2 ? "there is one core" : whyNotPinned();
  if (reason !== null) return skippedScaling(reason);
  const isApart = cores >= CORES_APART;
  const apart = Array.from({ length: Math.max(1, cores - 2) }, (_, index) => (isApart ? index + 2 : 1));
  const commands = new Set<string>();
  const results = await interleave(plan, [1, 2] as const, async (workers, round) => {
    await using server = await startReal({ handlers: "ten", workers, signal: plan.signal });
    commands.add(server.command);
    const generatorsPlan = isApart ? { ...plan, generators: Math.min(plan.generators, apart.length) } : plan;
    // The same load for each worker: a worker with less to do sleeps more often, and waking costs as well.
    const load = { ...LONG_MAIL, connections: workers * LONG_MAIL.connections };
    await using generators = await startGenerators(generatorsPlan, server, load);
    const { children } = generators;
    // Without a core of its own the generator stays off the first core while a single worker runs there.
    if (isApart || workers === 1) {
      for (const [index, { pid }] of children.entries()) pin(pid, apart[index % apart.length]!, true);
    }
    const pinned = threadsOf(server.pid).filter(({ name }) => name === WORKER);
    if (pinned.length !== workers) throw new Error(`${pinned.length} worker threads were found, expected ${workers}`);
    for (const [core, { id }] of pinned.entries()) pin(id, core);
    const { measurement, threads } = await byThread(plan, server.pid, generators);
    const workerMicros =
      threads.filter(({ name }) => name === WORKER).reduce((sum, { cpuMicros }) => sum + cpuMicros, 0) /
      measurement.completed;
    plan.note(
      `cores scaling ${round + 1}/${plan.rounds} workers = ${workers}: ${formatNumber(measurement.perSecond)} messages/s, ${formatNumber(workerMicros)} µs of worker`,
    );
    return { perSecond: measurement.perSecond, generatorShare: measurement.generatorShare, workerMicros };
  });
  return {
    commands: [...commands],
    raw: { isApart, one: results.get(1), two: results.get(2) },
    tables: [scalingTable(isApart, results)],
  };
}

interface Scaled {
  readonly perSecond: number;
  readonly generatorShare: number;
  /** Of the workers together, for a message. */
  readonly workerMicros: number;
}

function scalingTable(isApart: boolean, results: ReadonlyMap<1 | 2, readonly Scaled[]>): Table {
  const of = (workers: 1 | 2, key: keyof Scaled) => results.get(workers)!.map((scaled) => scaled[key]);
  const row = (workers: 1 | 2) => [
    workers === 1 ? "one worker on a core" : "two workers on a core each",
    formatSpread(spreadOf(of(workers, "perSecond"))),
    formatSpread(spreadOf(of(workers, "workerMicros"))),
    formatSpread(spreadOf(of(workers, "generatorShare"))),
  ];
  // Two workers with the cost for a message of a single worker are twice as fast, if they get their cores.
  const twice = ratioOf(of(1, "workerMicros"), of(2, "workerMicros"));
  const byCpu: Spread = { ...twice, median: 2 * twice.median, min: 2 * twice.min, max: 2 * twice.max };
  return {
    title: `cores: one worker and two, pinned, ${LONG_MAIL.connections} long connections each, ten handlers`,
    columns: ["workers", "messages/s", "worker CPU µs/message", "generator"],
    rows: [
      row(1),
      row(2),
      ["scaling", formatSpread(ratioOf(of(2, "perSecond"), of(1, "perSecond"))), formatSpread(byCpu), "-"],
    ],
    notes: [
      `target: at least ${TARGET} ${isApart ? "by messages/s: the generators have cores of their own" : "by CPU: there is no core for the generator, so messages/s compares the machine with itself"}`,
      "scaling by CPU: twice the processor time of a message with one worker, by that with two",
    ],
  };
}

function skippedScaling(reason: string): SuiteResult {
  return {
    commands: [],
    raw: { skipped: reason },
    tables: [{ title: `cores: one worker and two: not measured, ${reason}`, columns: ["-"], rows: [] }],
  };
}
