/** The effect of a reload on replies: reply times at half of the server's full load, with and without a reload. */
import { askServer } from "../../src/server/control/control.ts";
import { RELOAD_AGAIN_MS } from "../../src/server/policy.ts";
import { startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, type Spread, spreadOf } from "../support/stats.ts";
import type { Plan, SuiteResult } from "../support/suite.ts";
import { type Load, measureGenerators, measureLoad, type Measurement, startGenerators } from "../wire/load.ts";

/** The reload is asked for in the middle of a measured second; further seconds follow until the reload is over. */
const SECOND_MS = 1000;
const BEFORE_MS = 300;
/**
 * Before a second that nothing disturbs: what a reload leaves behind is over, and another one is none of those again and
 * again.
 */
const REST_MS = RELOAD_AGAIN_MS;
const PAIRS = 4;
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
  /** For each reload the second in which it is asked for, and those that follow. */
  const around: Measurement[][] = [];
  const reloads: number[] = [];
  const second = () => measureGenerators(generators, SECOND_MS);
  const ask = async () => {
    await Bun.sleep(BEFORE_MS);
    const began = performance.now();
    const result = (await askServer(server.control!, { command: "reload" })) as { ok: boolean; message: string };
    if (!result.ok) throw new Error(`the reload failed: ${result.message}`);
    reloads.push(performance.now() - began);
  };
  const disturbed = async () => {
    const { length } = reloads;
    const asked = ask();
    const measured = [await second()];
    while (reloads.length === length) measured.push(await second());
    await asked;
    return [...measured, await second()];
  };
  const pairs = plan.isQuick ? QUICK_PAIRS : PAIRS;
  for (let pair = 0; pair < pairs; pair++) {
    if (!plan.isQuick) await Bun.sleep(REST_MS);
    plan.signal.throwIfAborted();
    quiet.push(await second());
    around.push(await disturbed());
    plan.note(
      `life reload ${pair + 1}/${pairs}: p99 ${formatNumber(quiet.at(-1)!.p99)} µs undisturbed, ${around
        .at(-1)!
        .map(({ p99 }) => formatNumber(p99))
        .join(", ")} µs in the seconds around a reload of ${formatNumber(reloads.at(-1)!)} ms`,
    );
  }
  const first = around.map((seconds) => seconds[0]!);
  const worst = around.map((seconds) => seconds.toSorted((a, b) => b.p99 - a.p99)[0]!);
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
          row("a reload is asked for", (key) => spreadOf(of(first, key))),
          row("the worst until it is over", (key) => spreadOf(of(worst, key))),
          row("ratio, asked for", (key) => ratioOf(of(first, key), of(quiet, key))),
          row("ratio, the worst", (key) => ratioOf(of(worst, key), of(quiet, key))),
        ],
        notes: [
          `target: p99 at most ${TARGET} times the undisturbed one; a reload took ${formatSpread(spreadOf(reloads))} ms, since on a busy server the new version takes over step by step`,
          "the reply to OPTNEG is among them; a message that no connection was free for waits from when it was due",
          "on few cores the load generator competes with the workers that load, and what it loses is counted as well",
        ],
      },
    ],
  };
}
