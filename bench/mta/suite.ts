/**
 * The figure that counts: a private Postfix that takes mail and throws it away, with and without a filter. Most of the cost
 * is Postfix's own, so the ratio to the run without a filter matters.
 */
import { postfixTool } from "../../test/support/postfix.ts";
import { tempDir } from "../../test/support/temp.ts";
import type { PeerName } from "../args.ts";
import { packageVersions } from "../support/machine.ts";
import { preparePeers } from "../support/peers.ts";
import { barPlot, type Plot } from "../support/plot.ts";
import { cpuMicros } from "../support/process.ts";
import type { RunningServer } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, type Spread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import type { Target } from "../support/target.ts";
import { startGenerators } from "../wire/load.ts";
import { BARE_EOM, BARE_TEN, EOM_ONLY, peerVariant, TEN, type Variant, warmUpOf } from "../wire/variants.ts";
import { DISK, MailServer, memoryPlace, type Place } from "./mail-server.ts";
import { BODY_BYTES, postal, postalSender, type Sender, smtpSource, smtpSourceOf } from "./senders.ts";

/** The filter of Postfix, null for none. */
type Filter = Variant | null;

/** A table: the mail of a sender, with a queue in a place. */
interface Scene {
  readonly sender: Sender;
  readonly place: Place;
  readonly filters: readonly Filter[];
  readonly rounds: number;
  readonly measureMs: number;
  readonly notes: readonly string[];
}

interface Measurement {
  readonly messages: number;
  readonly perSecond: number;
  /** Processor time of the filter for a message, in microseconds; 0 without a filter. */
  readonly cpuMicros: number;
}

const SESSIONS = [1, 10, 50];
/** The variant that all variants are compared with. */
const FULL_SESSIONS = 10;
/** The other tables take fewer and shorter rounds, so that all of them fit into minutes. */
const MOST_ROUNDS = 2;
const MOST_MS = 2000;
const PEER_WARM_MS = 300;
/** Connections that bring a filter to its speed before Postfix comes. */
const WARM_CONNECTIONS = 10;
/** Of `--quick`, the peers that are built in a moment. */
const QUICK_PEERS: readonly PeerName[] = ["libmilter", "bare-c"];

export async function runMta(plan: Plan): Promise<SuiteResult> {
  const needed = [postfixTool, smtpSource].filter((tool) => !tool.available).map((tool) => tool.reason);
  if (needed.length > 0) return { tables: [], raw: null, commands: [], skipped: needed.join("; ") };

  await using folder = await tempDir("bench-peers");
  const names = plan.peers ?? (plan.isQuick ? QUICK_PEERS : null);
  const { peers, missing } = await preparePeers(names, plan.isQuick, folder.path, plan.signal);
  const all: readonly Filter[] = [null, TEN, EOM_ONLY, BARE_TEN, BARE_EOM, ...peers.map(peerVariant)];
  const libmilter = peers.filter(({ name }) => name === "libmilter").map(peerVariant);
  const some: readonly Filter[] = plan.isQuick ? [null, TEN] : [null, TEN, EOM_ONLY, ...libmilter];

  const memory = await memoryPlace();
  const skipped = [
    ...missing,
    ...(typeof memory === "string" ? [`queue in memory: not measured, ${memory}`] : []),
    ...(postal.available ? [] : [`postal: not measured, ${postal.reason} (Debian: postal)`]),
  ];
  for (const reason of skipped) plan.note(reason);

  const places = typeof memory === "string" ? [DISK] : [memory, DISK];
  const rounds = Math.min(plan.rounds, MOST_ROUNDS);
  const measureMs = Math.min(plan.measureMs, MOST_MS);
  const scenes = places.flatMap((place) =>
    SESSIONS.map((sessions): Scene => {
      const isFull = place === places[0] && sessions === FULL_SESSIONS;
      const sender = smtpSourceOf(sessions);
      return isFull
        ? { sender, place, filters: all, rounds: plan.rounds, measureMs: plan.measureMs, notes: skipped }
        : { sender, place, filters: some, rounds, measureMs, notes: [] };
    }),
  );
  if (postal.available) {
    scenes.push({
      sender: postalSender,
      place: DISK,
      filters: some,
      rounds,
      measureMs,
      notes: [
        "postal writes a message in three pieces, and TCP keeps the last back until the first is acknowledged, about 42 ms",
        "later, for each message: it hides most of what a filter costs",
      ],
    });
  }

  const commands = new Set<string>();
  const tables: Table[] = [];
  const raw: unknown[] = [];
  let [plots, targets]: [readonly Plot[], readonly Target[]] = [[], []];
  for (const scene of scenes) {
    const figures = new Figures(await measureScene(plan, scene, commands));
    const { sender, place, filters } = scene;
    raw.push({
      sender: sender.name,
      queue: place.name,
      filters: filters.map((filter) => ({ filter: nameOf(filter), rounds: figures.rounds(filter) })),
    });
    tables.push(tableOf(scene, figures));
    if (filters === all) [plots, targets] = [[plotOf(scene, figures)], targetsOf(scene, figures)];
  }
  return {
    commands: [...commands],
    tables,
    plots,
    targets,
    versions: packageVersions(["postfix", "postal"]),
    raw: { missing: skipped, scenes: raw },
  };
}

/** The measurements of a scene. */
class Figures {
  readonly #results: ReadonlyMap<Filter, readonly Measurement[]>;

  constructor(results: ReadonlyMap<Filter, readonly Measurement[]>) {
    this.#results = results;
  }

  rounds(filter: Filter): readonly Measurement[] {
    return this.#results.get(filter)!;
  }

  of(filter: Filter, key: keyof Measurement): readonly number[] {
    return this.rounds(filter).map((measurement) => measurement[key]);
  }

  /** Messages a second, to those without a filter. */
  ratio(filter: Filter): Spread {
    return ratioOf(this.of(filter, "perSecond"), this.of(null, "perSecond"));
  }
}

function nameOf(filter: Filter): string {
  return filter?.name ?? "no filter";
}

async function measureScene(
  plan: Plan,
  { sender, place, filters, rounds, measureMs }: Scene,
  commands: Set<string>,
): Promise<Map<Filter, Measurement[]>> {
  await using mail = await MailServer.start(place);
  const send = async (port: number, ms: number) => {
    const sending = await sender.send(mail, port, ms, plan.signal);
    await mail.emptied();
    return sending;
  };
  commands.add(sender.command);
  // Twice: Postfix starts its daemons, then it is seen how fast they are.
  await send(mail.port, plan.warmMs);
  await send(mail.port, plan.warmMs);
  return await interleave({ ...plan, rounds }, filters, async (filter, round) => {
    await using server = (await filter?.start(plan)) ?? null;
    if (filter !== null && server !== null) {
      commands.add(server.command);
      await warmUp(plan, filter, server);
      await mail.filterBy(server.socket);
    }
    const port = server === null ? mail.port : mail.filteredPort;
    await send(port, measureMs / 5);
    const before = server === null ? 0 : cpuMicros(server.pid);
    const { messages, perSecond } = await send(port, measureMs);
    const cpu = server === null ? 0 : cpuMicros(server.pid) - before;
    plan.note(
      `mta ${round + 1}/${rounds} ${sender.name}, ${place.name}, ${nameOf(filter)}: ${formatNumber(perSecond)} messages/s`,
    );
    return { messages, perSecond, cpuMicros: cpu / messages };
  });
}

/**
 * A server that runs for days has its code compiled; Postfix would take minutes to bring a fresh server there. As from
 * Postfix, each message has a connection of its own.
 */
async function warmUp(plan: Plan, filter: Variant, server: RunningServer): Promise<void> {
  await using _ = await startGenerators({ ...plan, ...warmUpOf(plan, filter, PEER_WARM_MS) }, server, {
    kind: "mail",
    connections: WARM_CONNECTIONS,
    messagesPerConnection: 1,
    changes: filter.changes,
  });
}

function titleOf({ sender, place }: Scene): string {
  return `${sender.name}, queue ${place === DISK ? "on" : "in"} ${place.name}`;
}

function tableOf(scene: Scene, figures: Figures): Table {
  const { sender, filters, notes } = scene;
  return {
    title: `mta: ${titleOf(scene)}`,
    columns: ["Postfix with", "messages/s", "ratio to no filter", "CPU µs/message of the filter"],
    rows: filters.map((filter) => [
      nameOf(filter),
      formatSpread(spreadOf(figures.of(filter, "perSecond"))),
      filter === null ? "1" : formatSpread(figures.ratio(filter)),
      filter === null ? "-" : formatSpread(spreadOf(figures.of(filter, "cpuMicros"))),
    ]),
    notes: [
      `${sender === postalSender ? "up to 1 KiB" : `${BODY_BYTES} bytes`} of body, a connection for each message; delivery to the discard transport, in_flow_delay = 0`,
      ...notes,
    ],
  };
}

function plotOf(scene: Scene, figures: Figures): Plot {
  return barPlot(
    {
      name: "mta-ratio",
      title: `Messages/s through Postfix, to no filter: ${titleOf(scene)}`,
      scale: "linear",
      unit: "ratio to no filter (more is better)",
    },
    scene.filters.map((filter) => [nameOf(filter), figures.ratio(filter)]),
  );
}

function targetsOf(scene: Scene, figures: Figures): readonly Target[] {
  const ten = figures.ratio(TEN);
  const lead = (filter: Variant) => {
    const ratio = figures.ratio(filter);
    return spreadOf(ten.all.map((value, round) => value - ratio.all[round]!));
  };
  const note = titleOf(scene);
  // Programs that answer everything: the peers, and their limit.
  const rivals = scene.filters.flatMap((filter) =>
    filter === null || filter.role === "pmilter" || filter === BARE_TEN || filter === BARE_EOM ? [] : [filter],
  );
  return [
    {
      what: "Postfix: ratio to no filter, ten handlers less the bare Bun loop of the same negotiation",
      bound: ["at least", -0.03],
      figure: lead(BARE_TEN),
      note,
    },
    ...rivals.map((rival): Target => ({
      what: `Postfix: ratio to no filter, ten handlers less ${rival.name}`,
      bound: ["above", 0],
      figure: lead(rival),
      note,
    })),
  ];
}
