/**
 * The cost of connections that can outlive their worker, and of an even share for each worker (docs/design.md), against
 * workers that only accept from a shared listening socket.
 */
import { type RunningServer, type ServerOptions, startReal, startShared } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import { type Load, LONG, measureLoad, type Measurement } from "../wire/load.ts";

interface Variant {
  readonly name: string;
  readonly start: (options: ServerOptions) => Promise<RunningServer>;
}

const HOLD: Variant = { name: "pmilter", start: startReal };
const SHARED: Variant = { name: "shared listener", start: startShared };

const MAX_ROUNDS = 3;

export async function runHold(whole: Plan): Promise<SuiteResult> {
  const plan: Plan = { ...whole, rounds: Math.min(whole.rounds, MAX_ROUNDS) };
  const commands = new Set<string>();
  const start = async (variant: Variant, workers: Plan["workers"]) => {
    const server = await variant.start({ handlers: "ten", workers, signal: plan.signal });
    commands.add(server.command);
    return server;
  };

  const loaded = async (title: string, unit: string, load: Load, workers: Plan["workers"]) => {
    const results = await interleave(plan, [HOLD, SHARED], async (variant, round) => {
      await using server = await start(variant, workers);
      const measurement = await measureLoad(plan, server, load);
      plan.note(
        `${title} ${round + 1}/${plan.rounds} ${variant.name}: ${formatNumber(measurement.perSecond)} ${unit}/s`,
      );
      return measurement;
    });
    return { results, table: loadTable(title, unit, results) };
  };
  const mail: Load = {
    kind: "mail",
    connections: plan.connections,
    messagesPerConnection: LONG,
    changes: 1,
  };
  const long = await loaded(
    `hold: long connections, ten handlers, ${plan.connections} connections, workers = ${plan.workers}`,
    "message",
    mail,
    plan.workers,
  );
  const single = await loaded(
    `hold: long connections, ten handlers, ${plan.connections} connections, workers = 1`,
    "message",
    mail,
    1,
  );
  const visits = await loaded(
    `hold: connect, negotiate, QUIT; ${plan.connections} at a time, workers = ${plan.workers}`,
    "connection",
    { kind: "visits", connections: plan.connections, changes: 0 },
    plan.workers,
  );

  return {
    commands: [...commands],
    tables: [long.table, single.table, visits.table],
    raw: {
      long: rawOf(long.results),
      longOneWorker: rawOf(single.results),
      visits: rawOf(visits.results),
    },
  };
}

function rawOf<R>(results: Map<Variant, R[]>): unknown {
  return Object.fromEntries([...results].map(([{ name }, rounds]) => [name, rounds]));
}

function loadTable(title: string, unit: string, results: Map<Variant, Measurement[]>): Table {
  const of = (variant: Variant, key: keyof Measurement) => results.get(variant)!.map((measurement) => measurement[key]);
  const columns: (keyof Measurement)[] = ["perSecond", "cpuMicros", "p50", "p99", "generatorShare"];
  return {
    title,
    columns: ["server", `${unit}s/s`, `CPU µs/${unit}`, "p50 µs", "p99 µs", "generator"],
    rows: [
      [HOLD.name, ...columns.map((key) => formatSpread(spreadOf(of(HOLD, key))))],
      [SHARED.name, ...columns.map((key) => formatSpread(spreadOf(of(SHARED, key))))],
      ["pmilter / shared", ...columns.map((key) => formatSpread(ratioOf(of(HOLD, key), of(SHARED, key))))],
    ],
  };
}
