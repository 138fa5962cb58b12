/** Memory of connections that rest, and that each of them still takes a message. */
import { openFilesLimit } from "../support/process.ts";
import { type RunningServer, type ServerOptions, startBare, startReal, startShared } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { LONG, sendRound, startGenerators } from "../wire/load.ts";
import { settledBytes } from "./settle.ts";

interface Variant {
  readonly name: string;
  readonly start: (options: ServerOptions) => Promise<RunningServer>;
}

interface Held {
  /** Bytes a connection after HELO, and after a message each. */
  readonly idle: number;
  readonly used: number;
}

const OURS: Variant = { name: "pmilter, ten handlers", start: startReal };
const SHARED: Variant = { name: "the same workers on a shared listener", start: startShared };
const BARE: Variant = { name: "bare loop", start: startBare };

const CONNECTIONS = 9000;
const QUICK_CONNECTIONS = 1000;
/** Two descriptors each in the server, and some for everything else. */
const SPARE_DESCRIPTORS = 500;
/** Before the memory is looked at, so many connections come, have a message, and go: code is compiled by then. */
const WARM_CONNECTIONS = 500;
const MAX_ROUNDS = 2;
const TARGET = "at most 4,000 bytes a connection more than the bare loop";

export async function measureIdle(plan: Plan): Promise<SuiteResult> {
  const connections = Math.min(
    plan.isQuick ? QUICK_CONNECTIONS : CONNECTIONS,
    Math.floor((openFilesLimit() - SPARE_DESCRIPTORS) / 2),
  );
  const commands = new Set<string>();
  // Memory is noisy by its steps only: two rounds show it.
  const rounds = { ...plan, rounds: Math.min(plan.rounds, MAX_ROUNDS) };
  const results = await interleave(rounds, [OURS, SHARED, BARE], async (variant, round) => {
    await using server = await variant.start({ handlers: "ten", workers: plan.workers, signal: plan.signal });
    commands.add(server.command);
    const held = await hold(plan, server, connections);
    plan.note(
      `memory idle ${round + 1}/${rounds.rounds} ${variant.name}: ${formatNumber(held.idle)} bytes/connection, ${formatNumber(held.used)} after a message each`,
    );
    return held;
  });
  const of = (variant: Variant, key: keyof Held) => results.get(variant)!.map((held) => held[key]);
  const overBare = (variant: Variant, key: keyof Held) =>
    formatSpread(spreadOf(of(variant, key).map((bytes, round) => bytes - of(BARE, key)[round]!)));
  return {
    commands: [...commands],
    raw: { connections, bytesPerConnection: Object.fromEntries([...results].map(([{ name }, all]) => [name, all])) },
    tables: [
      {
        title: `memory: ${connections} connections held, each of which then had a message; resident bytes a connection`,
        columns: ["server", "after HELO", "more than bare", "after a message", "more than bare", "to bare"],
        rows: [OURS, SHARED, BARE].map((variant) => [
          variant.name,
          formatSpread(spreadOf(of(variant, "idle"))),
          variant === BARE ? "-" : overBare(variant, "idle"),
          formatSpread(spreadOf(of(variant, "used"))),
          variant === BARE ? "-" : overBare(variant, "used"),
          variant === BARE ? "-" : formatSpread(ratioOf(of(variant, "used"), of(BARE, "used"))),
        ]),
        notes: [
          `target: ${TARGET}`,
          "shared memory included: 1.25 KiB of session record a connection, which the bare loop has not",
          "a connection takes two descriptors of pmilter, one of the others",
        ],
      },
    ],
  };
}

async function hold(plan: Plan, server: RunningServer, connections: number): Promise<Held> {
  const load = { kind: "idle", messagesPerConnection: LONG, changes: 1 } as const;
  {
    await using warm = await startGenerators(plan, server, { ...load, connections: WARM_CONNECTIONS });
    await sendRound(warm);
  }
  const before = await settledBytes(plan, server.pid);
  await using generators = await startGenerators(plan, server, { ...load, connections });
  const idle = await settledBytes(plan, server.pid);
  await sendRound(generators);
  const used = await settledBytes(plan, server.pid);
  return { idle: (idle - before) / connections, used: (used - before) / connections };
}
