/**
 * The figure that counts: a private Postfix that takes mail and throws it away, without a filter and with one. What
 * Postfix itself costs is most of it, so the ratio to no filter is what to look at.
 */
import { postfixTool } from "../../test/support/postfix.ts";
import { tempDir } from "../../test/support/temp.ts";
import type { PeerName } from "../args.ts";
import { preparePeers } from "../support/peers.ts";
import { cpuMicros } from "../support/process.ts";
import { type RunningServer, startBare, startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import { startGenerators } from "../wire/load.ts";
import { DISK, MailServer, memoryPlace, type Place } from "./mail-server.ts";
import { BODY_BYTES, postal, postalSender, type Sender, smtpSource, smtpSourceOf } from "./senders.ts";

/** What Postfix has for a filter. */
interface Variant {
  readonly name: string;
  /** Null: none. */
  readonly start: ((plan: Plan) => Promise<RunningServer>) | null;
  /** Its code is compiled while it runs: it needs the whole time before a measurement. */
  readonly isCompiling: boolean;
}

const NO_FILTER: Variant = { name: "no filter", start: null, isCompiling: false };
const TEN: Variant = {
  name: "pmilter, ten handlers",
  start: ({ workers, signal }) => startReal({ handlers: "ten", workers, signal }),
  isCompiling: true,
};
const EOM: Variant = {
  name: "pmilter, eom only",
  start: ({ workers, signal }) => startReal({ handlers: "eom", workers, signal }),
  isCompiling: true,
};
const LIMITS: readonly Variant[] = [
  {
    name: "bare loop, as for ten",
    start: ({ workers, signal }) => startBare({ handlers: "ten", workers, signal }),
    isCompiling: true,
  },
  {
    name: "bare loop, as for eom only",
    start: ({ workers, signal }) => startBare({ handlers: "eom", workers, signal }),
    isCompiling: true,
  },
];

/** One table: mail from one sender, a queue in one place. */
interface Scene {
  readonly sender: Sender;
  readonly place: Place;
  readonly variants: readonly Variant[];
  readonly rounds: number;
  readonly notes: readonly string[];
}

interface Measurement {
  readonly messages: number;
  readonly perSecond: number;
  /** Processor time of the filter for a message, in microseconds; 0 without one. */
  readonly cpuMicros: number;
}

const SESSIONS = [1, 10, 50];
/** The one that all variants are compared with. */
const FULL_SESSIONS = 10;
/** The other tables take fewer rounds, so that all of them fit into minutes. */
const MOST_ROUNDS = 3;
/** Code that was compiled before, or is only interpreted, has settled by then. */
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
  const others = peers.map(({ name, title, start }) => ({
    name,
    variant: { name: title, start: ({ signal }: Plan) => start(signal), isCompiling: false },
  }));
  const all: readonly Variant[] = [NO_FILTER, TEN, EOM, ...LIMITS, ...others.map(({ variant }) => variant)];
  const libmilter = others.flatMap(({ name, variant }) => (name === "libmilter" ? [variant] : []));
  const some: readonly Variant[] = plan.isQuick ? [NO_FILTER, TEN] : [NO_FILTER, TEN, EOM, ...libmilter];

  const memory = await memoryPlace();
  const skipped = [
    ...missing,
    ...(typeof memory === "string" ? [`queue in memory: not measured, ${memory}`] : []),
    ...(postal.available ? [] : [`postal: not measured, ${postal.reason} (Debian: postal)`]),
  ];
  for (const reason of skipped) plan.note(reason);

  const places = typeof memory === "string" ? [DISK] : [memory, DISK];
  const rounds = Math.min(plan.rounds, MOST_ROUNDS);
  const scenes = places.flatMap((place) =>
    SESSIONS.map((sessions): Scene => {
      const isFull = place === places[0] && sessions === FULL_SESSIONS;
      const sender = smtpSourceOf(sessions);
      return isFull
        ? { sender, place, variants: all, rounds: plan.rounds, notes: skipped }
        : { sender, place, variants: some, rounds, notes: [] };
    }),
  );
  if (postal.available) {
    scenes.push({
      sender: postalSender,
      place: DISK,
      variants: some,
      rounds,
      notes: [
        "postal writes a message in three pieces, and TCP keeps the last back until the first is acknowledged, about 42 ms",
        "later, for each message: it hides most of what a filter costs",
      ],
    });
  }

  const commands = new Set<string>();
  const tables: Table[] = [];
  const raw: unknown[] = [];
  for (const scene of scenes) {
    const results = await measureScene(plan, scene, commands);
    const { sender, place, variants } = scene;
    raw.push({
      sender: sender.name,
      queue: place.name,
      variants: variants.map((variant) => ({ variant: variant.name, rounds: results.get(variant) })),
    });
    tables.push(tableOf(scene, results));
  }
  return { commands: [...commands], tables, raw: { missing: skipped, scenes: raw } };
}

async function measureScene(
  plan: Plan,
  { sender, place, variants, rounds }: Scene,
  commands: Set<string>,
): Promise<Map<Variant, Measurement[]>> {
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
  return await interleave({ ...plan, rounds }, variants, async (variant, round) => {
    await using server = (await variant.start?.(plan)) ?? null;
    if (server !== null) {
      commands.add(server.command);
      await warmUp(plan, variant, server);
      await mail.filterBy(server.socket);
    }
    const port = server === null ? mail.port : mail.filteredPort;
    await send(port, plan.measureMs / 5);
    const before = server === null ? 0 : cpuMicros(server.pid);
    const { messages, perSecond } = await send(port, plan.measureMs);
    const cpu = server === null ? 0 : cpuMicros(server.pid) - before;
    plan.note(
      `mta ${round + 1}/${rounds} ${sender.name}, ${place.name}, ${variant.name}: ${formatNumber(perSecond)} messages/s`,
    );
    return { messages, perSecond, cpuMicros: cpu / messages };
  });
}

/** A server that runs for days has its code compiled; Postfix would take minutes to bring a fresh one there. */
async function warmUp(plan: Plan, { isCompiling }: Variant, server: RunningServer): Promise<void> {
  const warmMs = isCompiling ? plan.warmMs : Math.min(plan.warmMs, PEER_WARM_MS);
  await using _ = await startGenerators({ ...plan, warmMs }, server, {
    kind: "mail",
    connections: WARM_CONNECTIONS,
    changes: 1,
  });
}

function tableOf({ sender, place, variants, notes }: Scene, results: ReadonlyMap<Variant, Measurement[]>): Table {
  const of = (variant: Variant, key: keyof Measurement) => results.get(variant)!.map((measurement) => measurement[key]);
  return {
    title: `mta: ${sender.name}, queue ${place === DISK ? "on" : "in"} ${place.name}`,
    columns: ["Postfix with", "messages/s", "ratio to no filter", "CPU µs/message of the filter"],
    rows: variants.map((variant) => [
      variant.name,
      formatSpread(spreadOf(of(variant, "perSecond"))),
      variant === NO_FILTER ? "1" : formatSpread(ratioOf(of(variant, "perSecond"), of(NO_FILTER, "perSecond"))),
      variant === NO_FILTER ? "-" : formatSpread(spreadOf(of(variant, "cpuMicros"))),
    ]),
    notes: [
      `${sender === postalSender ? "up to 1 KiB" : `${BODY_BYTES} bytes`} of body, a connection for each message; delivery to the discard transport, in_flow_delay = 0`,
      ...notes,
    ],
  };
}
