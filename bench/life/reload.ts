/** What those who wait for a reply notice of a reload: reply times at half of what the server can, with and without one. */
import { askServer } from "../../src/server/control.ts";
import { startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, type Spread, spreadOf } from "../support/stats.ts";
import type { Plan, SuiteResult } from "../support/suite.ts";
import { type Load, measureGenerators, measureLoad, type Measurement, startGenerators } from "../wire/load.ts";

/** The reload is asked for in the middle of a second that is measured. */
const SECOND_MS = 1000;
const BEFORE_MS = 300;
/** Between two seconds: what a reload leaves behind is over. */
const REST_MS = 500;
const PAIRS = 10;
const QUICK_PAIRS = 1;
const SATURATION_MS = 2000;
const TARGET = 2;

export async function measureReload(plan: Plan): Promise<SuiteResult> {
  const load: Load = { kind: "mail", connections: plan.connections, changes: 1 };
  await using server = await startReal({ handlers: "ten", workers: plan.workers, signal: plan.signal });
  const saturated = await measureLoad({ ...plan, measureMs: Math.min(plan.measureMs, SATURATION_MS) }, server, load);
  const perSecond = saturated.perSecond / 2;
  await using generators = await startGenerators(plan, server, { ...load, perSecond });
  const quiet: Measurement[] = [];
  const around: Measurement[] = [];
  const reloads: number[] = [];
  const second = () => measureGenerators(generators, SECOND_MS);
  const disturbed = async () => {
    const measured = second();
    await Bun.sleep(BEFORE_MS);
    const began = performance.now();
    const result = (await askServer(server.control!, { command: "reload" })) as { ok: boolean; message: string };
    if (!result.ok) throw new Error(`the reload failed: ${result.message}`);
    reloads.push(performance.now() - began);
    return measured;
  };
  const pairs = plan.isQuick ? QUICK_PAIRS : PAIRS;
  for (let pair = 0; pair < pairs; pair++) {
    // In turns, so that what changes slowly meets both.
    for (const isDisturbed of pair % 2 === 0 ? [false, true] : [true, false]) {
      plan.signal.throwIfAborted();
      if (isDisturbed) around.push(await disturbed());
      else quiet.push(await second());
      await Bun.sleep(REST_MS);
    }
    plan.note(
      `life reload ${pair + 1}/${pairs}: p99 ${formatNumber(quiet.at(-1)!.p99)} µs undisturbed, ${formatNumber(around.at(-1)!.p99)} µs around a reload of ${formatNumber(reloads.at(-1)!)} ms`,
    );
  }
  const of = (all: readonly Measurement[], key: keyof Measurement) => all.map((measurement) => measurement[key]);
  const columns = ["perSecond", "p50", "p99", "p999"] as const;
  const row = (name: string, spread: (key: (typeof columns)[number]) => Spread) => [
    name,
    ...columns.map((key) => formatSpread(spread(key))),
  ];
  return {
    commands: [`${server.command}; pmilter reload`],
    raw: { saturated, perSecond, quiet, around, reloads },
    tables: [
      {
        title: `life: reply times over a second, ${formatNumber(perSecond)} messages/s (half of saturation), ten handlers, ${plan.connections} connections`,
        columns: ["second", "messages/s", "p50 µs", "p99 µs", "p99.9 µs"],
        rows: [
          row("undisturbed", (key) => spreadOf(of(quiet, key))),
          row("around a reload", (key) => spreadOf(of(around, key))),
          row("ratio", (key) => ratioOf(of(around, key), of(quiet, key))),
        ],
        notes: [
          `target: p99 at most ${TARGET} times the undisturbed one; a reload took ${formatSpread(spreadOf(reloads))} ms`,
          "the reply to OPTNEG is among them; a message that no connection was free for waits from when it was due",
          "on few cores the load generator competes with the workers that load, and what it loses is counted as well",
        ],
      },
    ],
  };
}
