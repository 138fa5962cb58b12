/** Messages a second over a unix socket: the real server process, the limits, and other filters. */
import { tempDir } from "../../test/support/temp.ts";
import { packageVersions } from "../support/machine.ts";
import { preparePeers } from "../support/peers.ts";
import { formatNumber } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { Figures, loadName, type Measured, type WireLoad } from "./figures.ts";
import { measureLoad, MESSAGES_PER_CONNECTION } from "./load.ts";
import { mixedMail } from "./mixed-mail.ts";
import { loadTable, mainTables, plotsOf } from "./tables.ts";
import { targetsOf } from "./targets.ts";
import { BARE_TEN, OURS, peerVariant, TEN, type Variant, warmUpOf } from "./variants.ts";

/** How long and how often a load is measured, at most: there are many loads, and all take ten minutes. */
interface Effort {
  readonly rounds: number;
  readonly settleMs: number;
  readonly peerWarmMs: number;
  readonly measureMs: number;
}

/**
 * A step of the processor's clock is below half a percent of a server's processor time in the measured time of the main
 * load.
 */
const MAIN: Effort = {
  rounds: Number.POSITIVE_INFINITY,
  settleMs: Number.POSITIVE_INFINITY,
  peerWarmMs: 300,
  measureMs: 2000,
};
const FURTHER: Effort = { rounds: 3, settleMs: 3000, peerWarmMs: 200, measureMs: 1000 };

export async function runWire(plan: Plan): Promise<SuiteResult> {
  await using folder = await tempDir("bench-peers");
  const { peers, missing } = await preparePeers(plan.peers, plan.isQuick, folder.path, plan.signal);
  for (const reason of missing) plan.note(reason);
  plan.note(`wire: the mail of mixed sizes is that of --seed ${plan.seed}`);
  const others = peers.map(peerVariant);
  const main: WireLoad = {
    connections: plan.connections,
    messagesPerConnection: MESSAGES_PER_CONNECTION,
    seed: null,
  };
  const further = plan.points.map((point): WireLoad => ({ ...point, seed: null }));
  const mixed: WireLoad = { ...main, seed: plan.seed };
  const commands = new Set<string>();
  const field = [TEN, BARE_TEN, ...others];
  const measured = [
    ...(await measureAll(plan, MAIN, [...OURS, ...others], [main], commands)),
    ...(await measureAll(plan, FURTHER, field, [mixed, ...further], commands)),
  ];
  const figures = new Figures(measured);
  const nameOf = (name: string) => peers.find((peer) => peer.name === name)?.title ?? null;
  const libmilter = nameOf("libmilter");
  const fixed = [main, ...further];
  return {
    commands: [...commands],
    raw: {
      missing,
      seed: plan.seed,
      measured: measured.map(({ variant, load, rounds }) => ({ variant: variant.name, load, rounds })),
    },
    tables: [
      ...mainTables(plan, figures, main, libmilter, missing),
      ...[mixed, ...further].map((load) => loadTable(figures, load)),
    ],
    plots: plotsOf(figures, main, fixed),
    targets: targetsOf(figures, main, fixed, { libmilter, bareC: nameOf("bare-c") }),
    versions: packageVersions(peers.flatMap(({ packages }) => packages)),
  };
}

/** Every server under every load, all of them in turn. */
async function measureAll(
  plan: Plan,
  effort: Effort,
  variants: readonly Variant[],
  loads: readonly WireLoad[],
  commands: Set<string>,
): Promise<readonly Measured[]> {
  const rounds = Math.min(plan.rounds, effort.rounds);
  const jobs = loads.flatMap((load) => variants.map((variant) => ({ variant, load })));
  const results = await interleave({ ...plan, rounds }, jobs, async ({ variant, load }, round) => {
    await using server = await variant.start(plan);
    commands.add(server.command);
    const { connections, messagesPerConnection, seed } = load;
    const measurement = await measureLoad(timed(plan, effort, variant), server, {
      kind: "mail",
      connections,
      messagesPerConnection,
      changes: variant.changes,
      ...(seed !== null && { mails: mixedMail(seed) }),
    });
    plan.note(
      `wire ${round + 1}/${rounds} ${loadName(load)}, ${variant.name}: ${formatNumber(measurement.perSecond)} messages/s`,
    );
    return measurement;
  });
  return [...results].map(([{ variant, load }, rounds]) => ({ variant, load, rounds }));
}

function timed(plan: Plan, effort: Effort, variant: Variant): Plan {
  const bounded = {
    ...plan,
    settleMs: Math.min(plan.settleMs, effort.settleMs),
    measureMs: Math.min(plan.measureMs, effort.measureMs),
  };
  return { ...bounded, ...warmUpOf(bounded, variant, effort.peerWarmMs) };
}
