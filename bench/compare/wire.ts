/** The servers of two trees, under the load and with the handlers of the working tree. */
import { join } from "node:path";
import { ROOT } from "../support/machine.ts";
import { startReal } from "../support/servers.ts";
import { formatNumber } from "../support/stats.ts";
import { interleave, type Plan } from "../support/suite.ts";
import { measureLoad, type Measurement } from "../wire/load.ts";
import type { Compared, Figure } from "./verdict.ts";

const HANDLERS = { ten: "ten handlers", eom: "eom only" } as const;

const FIGURES = [
  { key: "cpuMicros", name: "CPU µs/message", kind: "speed", better: "less" },
  { key: "perSecond", name: "messages/s", kind: "speed", better: "more" },
  { key: "p99", name: "reply p99 µs", kind: "speed", better: "less" },
  { key: "peakBytes", name: "peak memory", kind: "amount", better: "less" },
] as const satisfies readonly (Pick<Figure, "name" | "kind" | "better"> & { key: keyof Measurement })[];

export async function compareWire(plan: Plan, root: string): Promise<Compared> {
  const roots = { here: ROOT, there: root };
  const handlers = Object.keys(HANDLERS) as (keyof typeof HANDLERS)[];
  const jobs = handlers.flatMap((handlers) => (["here", "there"] as const).map((tree) => ({ tree, handlers })));
  const results = await interleave(plan, jobs, async ({ tree, handlers }, round) => {
    await using server = await startReal({
      handlers,
      workers: plan.workers,
      main: join(roots[tree], "src", "main.ts"),
      signal: plan.signal,
    });
    const measurement = await measureLoad(plan, server, { kind: "mail", connections: plan.connections, changes: 1 });
    plan.note(
      `wire ${round + 1}/${plan.rounds} ${tree}, ${HANDLERS[handlers]}: ${formatNumber(measurement.perSecond)} messages/s`,
    );
    return measurement;
  });
  const of = (tree: "here" | "there", set: keyof typeof HANDLERS, key: keyof Measurement) =>
    results.get(jobs.find((job) => job.tree === tree && job.handlers === set)!)!.map((measurement) => measurement[key]);
  return {
    figures: handlers.flatMap((set) =>
      FIGURES.map(({ key, name, kind, better }) => ({
        name: `wire, ${HANDLERS[set]}: ${name}`,
        kind,
        resolution: 0,
        better,
        here: of("here", set, key),
        there: of("there", set, key),
      })),
    ),
    notes: [],
  };
}
