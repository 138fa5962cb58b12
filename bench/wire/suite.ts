/** Messages a second over a unix socket, against the real server process and against the limit. */
import { type RunningServer, type ServerOptions, startBare, startReal, type HandlerSet } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { measureLoad, MESSAGES_PER_CONNECTION, type Measurement } from "./load.ts";

interface Variant {
  readonly name: string;
  readonly handlers: HandlerSet;
  readonly start: (options: ServerOptions) => Promise<RunningServer>;
  /** The name of the variant that it is compared with: the bare loop of the same negotiation. */
  readonly limit: string | null;
}

const VARIANTS: readonly Variant[] = [
  { name: "pmilter, ten handlers", handlers: "ten", start: startReal, limit: "bare loop, as for ten" },
  { name: "pmilter, eom only", handlers: "eom", start: startReal, limit: "bare loop, as for eom only" },
  { name: "pmilter, no filter", handlers: "none", start: startReal, limit: null },
  { name: "bare loop, as for ten", handlers: "ten", start: startBare, limit: null },
  { name: "bare loop, as for eom only", handlers: "eom", start: startBare, limit: null },
];

export async function runWire(plan: Plan): Promise<SuiteResult> {
  const commands = new Set<string>();
  const results = await interleave(plan, VARIANTS, async (variant, round) => {
    await using server = await variant.start({
      handlers: variant.handlers,
      workers: plan.workers,
      signal: plan.signal,
    });
    commands.add(server.command);
    const measurement = await measureLoad(plan, server, {
      kind: "mail",
      connections: plan.connections,
      changes: variant.handlers === "none" ? 0 : 1,
    });
    plan.note(`wire ${round + 1}/${plan.rounds} ${variant.name}: ${formatNumber(measurement.perSecond)} messages/s`);
    return measurement;
  });
  const of = (name: string, key: keyof Measurement) =>
    results.get(VARIANTS.find((variant) => variant.name === name)!)!.map((measurement) => measurement[key]);
  const spread = (name: string, key: keyof Measurement) => formatSpread(spreadOf(of(name, key)));
  return {
    commands: [...commands],
    raw: VARIANTS.map((variant) => ({ variant: variant.name, rounds: results.get(variant) })),
    tables: [
      {
        title: `wire: ${plan.connections} connections, ${MESSAGES_PER_CONNECTION} messages each, 12 headers, 2 KB body`,
        columns: ["server", "messages/s", "CPU µs/message", "CPU / bare loop", "reply p50 µs", "p99 µs", "generator"],
        rows: VARIANTS.map(({ name, limit }) => [
          name,
          spread(name, "perSecond"),
          spread(name, "cpuMicros"),
          limit === null ? "-" : formatSpread(ratioOf(of(name, "cpuMicros"), of(limit, "cpuMicros"))),
          spread(name, "p50"),
          spread(name, "p99"),
          spread(name, "generatorShare"),
        ]),
        notes: [
          `workers = ${plan.workers}; the bare loop has one thread; ${plan.generators} generator process(es)`,
          "generator: share of a core that it used; near 1, messages/s is the generator's limit and CPU is what counts",
        ],
      },
    ],
  };
}
