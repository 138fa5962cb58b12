/** Messages a second over a unix socket: the real server process, the limits, and what others use. */
import { tempDir } from "../../test/support/temp.ts";
import { type Peer, preparePeers } from "../support/peers.ts";
import { type HandlerSet, type RunningServer, startBare, startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import { measureLoad, MESSAGES_PER_CONNECTION, type Measurement } from "./load.ts";

interface Variant {
  readonly name: string;
  readonly start: (plan: Plan) => Promise<RunningServer>;
  /** Changes that it makes to each message. */
  readonly changes: number;
  /** Its code is compiled while it runs: it needs the whole time before a measurement. */
  readonly isCompiling: boolean;
  /** The name of the variant that it is compared with: the bare loop of the same negotiation. */
  readonly limit: string | null;
}

/** Code that was compiled before, or is only interpreted, has settled by then. */
const PEER_WARM_MS = 300;
/** So that all the variants fit into minutes; a step of the processor's clock is still below half a percent. */
const MEASURE_MS = 2500;

const REAL = (handlers: HandlerSet) => (plan: Plan) =>
  startReal({ handlers, workers: plan.workers, signal: plan.signal });
const BARE = (handlers: HandlerSet) => (plan: Plan) =>
  startBare({ handlers, workers: plan.workers, signal: plan.signal });

const OURS: readonly Variant[] = [
  { name: "pmilter, ten handlers", start: REAL("ten"), changes: 1, isCompiling: true, limit: "bare loop, as for ten" },
  { name: "pmilter, ten in Ruby", start: REAL("ruby"), changes: 1, isCompiling: true, limit: "bare loop, as for ten" },
  { name: "pmilter, eom only", start: REAL("eom"), changes: 1, isCompiling: true, limit: "bare loop, as for eom only" },
  { name: "pmilter, no filter", start: REAL("none"), changes: 0, isCompiling: true, limit: null },
  { name: "bare loop, as for ten", start: BARE("ten"), changes: 1, isCompiling: true, limit: null },
  { name: "bare loop, as for eom only", start: BARE("eom"), changes: 1, isCompiling: true, limit: null },
];

export async function runWire(plan: Plan): Promise<SuiteResult> {
  await using folder = await tempDir("bench-peers");
  const { peers, missing } = await preparePeers(plan.peers, plan.isQuick, folder.path, plan.signal);
  for (const reason of missing) plan.note(reason);
  const variants = [...OURS, ...peers.map(variantOf)];
  const libmilter = peers.find((peer) => peer.name === "libmilter")?.title ?? null;
  const commands = new Set<string>();
  const results = await interleave(plan, variants, async (variant, round) => {
    await using server = await variant.start(plan);
    commands.add(server.command);
    const measurement = await measureLoad(timed(plan, variant), server, {
      kind: "mail",
      connections: plan.connections,
      changes: variant.changes,
    });
    plan.note(`wire ${round + 1}/${plan.rounds} ${variant.name}: ${formatNumber(measurement.perSecond)} messages/s`);
    return measurement;
  });
  return {
    commands: [...commands],
    raw: {
      missing,
      variants: variants.map((variant) => ({ variant: variant.name, rounds: results.get(variant) })),
    },
    tables: tablesOf(plan, variants, results, libmilter, missing),
  };
}

function variantOf({ title, start }: Peer): Variant {
  return { name: title, start: (plan) => start(plan.signal), changes: 1, isCompiling: false, limit: null };
}

function timed(plan: Plan, { isCompiling }: Variant): Plan {
  return {
    ...plan,
    warmMs: isCompiling ? plan.warmMs : Math.min(plan.warmMs, PEER_WARM_MS),
    measureMs: Math.min(plan.measureMs, MEASURE_MS),
  };
}

function tablesOf(
  plan: Plan,
  variants: readonly Variant[],
  results: ReadonlyMap<Variant, readonly Measurement[]>,
  libmilter: string | null,
  missing: readonly string[],
): readonly Table[] {
  const of = (name: string, key: keyof Measurement) =>
    results.get(variants.find((variant) => variant.name === name)!)!.map((measurement) => measurement[key]);
  const spread = (name: string, key: keyof Measurement) => formatSpread(spreadOf(of(name, key)));
  const ratio = (name: string, key: keyof Measurement, base: string | null) =>
    base === null ? "-" : formatSpread(ratioOf(of(name, key), of(base, key)));
  const title = `wire: ${plan.connections} connections, ${MESSAGES_PER_CONNECTION} messages each, 12 headers, 2 KB body`;
  return [
    {
      title,
      columns: [
        "server",
        "messages/s",
        "CPU µs/message",
        "CPU / bare loop",
        "CPU / libmilter",
        "messages/s / libmilter",
        "generator",
      ],
      rows: variants.map(({ name, limit }) => [
        name,
        spread(name, "perSecond"),
        spread(name, "cpuMicros"),
        ratio(name, "cpuMicros", limit),
        ratio(name, "cpuMicros", libmilter),
        ratio(name, "perSecond", libmilter),
        spread(name, "generatorShare"),
      ]),
      notes: [
        `workers = ${plan.workers}; the bare loops have one thread; ${plan.generators} generator process(es)`,
        "generator: share of a core that it used; near 1, messages/s is the generator's limit and CPU is what counts",
        ...missing,
      ],
    },
    {
      title: "wire: replies and memory of the same measurements",
      columns: ["server", "reply p50 µs", "p99 µs", "p99.9 µs", "peak memory MiB"],
      rows: variants.map(({ name }) => [
        name,
        spread(name, "p50"),
        spread(name, "p99"),
        spread(name, "p999"),
        formatSpread(spreadOf(of(name, "peakBytes").map((bytes) => bytes / 2 ** 20))),
      ]),
      notes: [
        "peak memory: of all processes of the server; what they share is counted in each (Sendmail::PMilter forks)",
      ],
    },
  ];
}
