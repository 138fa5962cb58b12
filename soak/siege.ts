#!/usr/bin/env bun
/**
 * `bun run siege`: a few clients send nothing but messages that block a handler, and many clients send good messages. To see
 * the cost for the good clients, it counts their verdicts, measures the time of each reply, and compares the descriptors of
 * the server before and after.
 */
import { parseArgs } from "node:util";
import {
  ABORT,
  BODY,
  CONNECT,
  DATA,
  descriptorsAtRest,
  descriptorsOf,
  EOH,
  EOM,
  HEADER,
  HELO,
  OPTNEG_DEFER,
  packet,
  QUIT,
  RawClient,
  RCPT,
} from "../test/server/wire.ts";
import { type Pmilter, startPmilter } from "../test/support/pmilter.ts";

/** `loop`: JavaScript that never returns; `native`: a call that JavaScript cannot interrupt, for `NATIVE_S` seconds. */
export const KINDS = ["loop", "native"] as const;
export type Kind = (typeof KINDS)[number];

/** How long a reply may take at the most, in milliseconds. */
export const LATEST_MS = 9000;

const NATIVE_S = 20;

const FILTER = `
import { defineFilter } from "pmilter";

export default defineFilter({
  name: "rule",
  envfrom(_session, sender) {
    if (sender.includes("loop")) for (;;) {}
    if (sender.includes("native")) Bun.sleepSync(${NATIVE_S * 1000});
  },
  eom(session) {
    session.message.addHeader("X-Seen", session.message.sender.raw);
  },
});
`;

export interface SiegeOptions {
  readonly seconds: number;
  readonly kind: Kind;
  /** Clients that send messages which block the handler. */
  readonly bad: number;
  /** Clients that send good messages. */
  readonly good: number;
  /** Each message has a connection of its own, as behind Postfix. */
  readonly reconnects: boolean;
  /** Milliseconds that a good client waits between two messages, on average. */
  readonly pauseMs: number;
}

/** The results of the good clients. */
export interface SiegeResult {
  /** Messages with the verdict of the filter. */
  own: number;
  /** Messages that got the fallback. */
  fallback: number;
  /** Connections that the server closed. */
  closed: number;
  /** Answers that are neither. */
  readonly wrong: string[];
  /** How long each reply took, in milliseconds, in order. */
  readonly times: number[];
  /** Messages of the bad clients, and the time of their slowest reply. */
  bad: number;
  badMs: number;
}

export function startBesieged(workers: number | "auto"): Promise<Pmilter> {
  return startPmilter({
    // The default, which the tests' servers do not have.
    server: { workers, block_timeout: 2 },
    config: '[[filter]]\npath = "rule.ts"\n',
    files: { "rule.ts": FILTER },
  });
}

/** Plays for so long; settles when the last client is through. */
export async function besiege(server: Pmilter, options: SiegeOptions): Promise<SiegeResult> {
  const result: SiegeResult = { own: 0, fallback: 0, closed: 0, wrong: [], times: [], bad: 0, badMs: 0 };
  const until = performance.now() + options.seconds * 1000;
  await Promise.all([
    ...Array.from({ length: options.good }, (_, index) => goodClient(server, options, until, index, result)),
    ...Array.from({ length: options.bad }, () => badClient(server, options, until, result)),
  ]);
  result.times.sort((a, b) => a - b);
  return result;
}

/** The connection was closed, or could not be made. */
class Closed extends Error {}

async function ask(client: RawClient, command: Uint8Array, took: (ms: number) => void): Promise<string> {
  const before = performance.now();
  await client.send(command);
  for (;;) {
    const reply = await client.reply(60_000).catch(() => {
      throw new Closed();
    });
    // Changes and progress come before the reply.
    if (reply.code === "h" || reply.code === "p") continue;
    took(performance.now() - before);
    return reply.code;
  }
}

/** A connection up to HELO; null if it was refused on the way. */
async function begin(server: Pmilter, took: (ms: number) => void): Promise<RawClient | null> {
  const client = await RawClient.connect(server.addresses[0]!).catch(() => {
    throw new Closed();
  });
  for (const command of [OPTNEG_DEFER, CONNECT, HELO]) {
    const code = await ask(client, command, took);
    if (code === "c" || code === "O") continue;
    client[Symbol.dispose]();
    return null;
  }
  return client;
}

async function goodClient(
  server: Pmilter,
  { pauseMs, reconnects }: SiegeOptions,
  until: number,
  index: number,
  result: SiegeResult,
): Promise<void> {
  const took = (ms: number) => void result.times.push(ms);
  const mail = packet("M", `<good${index}@example.com>\0`);
  let client: RawClient | null = null;
  while (performance.now() < until) {
    try {
      client ??= await begin(server, took);
      if (client === null) {
        result.fallback += 1;
        continue;
      }
      let code = "c";
      for (const command of [mail, RCPT, DATA]) if (code === "c") code = await ask(client, command, took);
      if (code === "c") {
        await client.send(HEADER, EOH, BODY);
        code = await ask(client, EOM, took);
      } else await client.send(ABORT);
      if (code === "c") result.own += 1;
      else if (code === "t") result.fallback += 1;
      else result.wrong.push(code);
      if (reconnects) {
        await client.send(QUIT);
        client[Symbol.dispose]();
        client = null;
      }
      if (pauseMs > 0) await Bun.sleep(pauseMs * (0.5 + Math.random()));
    } catch (error) {
      if (!(error instanceof Closed)) throw error;
      result.closed += 1;
      client?.[Symbol.dispose]();
      client = null;
    }
  }
  client?.[Symbol.dispose]();
}

async function badClient(
  server: Pmilter,
  { kind, reconnects }: SiegeOptions,
  until: number,
  result: SiegeResult,
): Promise<void> {
  const took = (ms: number) => void (result.badMs = Math.max(result.badMs, ms));
  let client: RawClient | null = null;
  while (performance.now() < until) {
    try {
      client ??= await begin(server, took);
      if (client === null) continue;
      await ask(client, packet("M", `<${kind}@example.com>\0`), took);
      result.bad += 1;
      await client.send(ABORT);
      // A client that is refused at once tries no more than ten times a second.
      await Bun.sleep(100);
      if (!reconnects) continue;
      await client.send(QUIT);
    } catch (error) {
      if (!(error instanceof Closed)) throw error;
    }
    client?.[Symbol.dispose]();
    client = null;
  }
  client?.[Symbol.dispose]();
}

const HELP = `Usage: bun run siege [options]

A few clients send nothing but messages that block a handler, others send good ones, to a server with default settings.
Prints a row for each number of workers: messages of the good clients with a verdict of their own and with the fallback,
connections closed, how long their replies took, and descriptors before and after. Exit code 1 if a reply took longer than
${LATEST_MS / 1000} s, fewer than half of the good messages had a verdict of their own, or a connection was closed.

Options:
  --seconds N      for each number of workers (default 60)
  --workers LIST   such as 1,2,4 (default auto,1,2,4)
  --kind KIND      loop (default), native
  --bad N          clients that block (default 4)
  --good N         clients that do not (default 40)
  --reconnect      each message has a connection of its own
  --pause MS       between two messages of a good client (default 500)
  -h, --help       this text
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "60" },
      workers: { type: "string", default: "auto,1,2,4" },
      kind: { type: "string", default: "loop" },
      bad: { type: "string", default: "4" },
      good: { type: "string", default: "40" },
      reconnect: { type: "boolean", default: false },
      pause: { type: "string", default: "500" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const kind = KINDS.find((known) => known === values.kind);
  if (values.help || kind === undefined) {
    process.stdout.write(HELP);
    return values.help ? 0 : 2;
  }
  const options: SiegeOptions = {
    seconds: Number(values.seconds),
    kind,
    bad: Number(values.bad),
    good: Number(values.good),
    reconnects: values.reconnect,
    pauseMs: Number(values.pause),
  };
  let isRight = true;
  console.log("workers    own  fallback  closed  wrong  p50 ms  p99 ms  max ms  bad messages  their max  descriptors");
  for (const workers of values.workers.split(",")) {
    await using server = await startBesieged(workers === "auto" ? "auto" : Number(workers));
    const before = await descriptorsAtRest(server);
    const result = await besiege(server, options);
    const { bad, badMs, closed, fallback, own, times, wrong } = result;
    const at = (share: number) => Math.round(times[Math.floor((times.length - 1) * share)] ?? 0);
    const after = await settledDescriptors(server, before);
    const cells = [own, fallback, closed, wrong.length, at(0.5), at(0.99), at(1), bad, Math.round(badMs)];
    const widths = [6, 9, 7, 6, 7, 7, 7, 13, 10];
    console.log(
      `${workers.padEnd(7)} ${cells.map((cell, index) => String(cell).padStart(widths[index]!)).join(" ")}  ${before} to ${after}`,
    );
    isRight &&= isSound(result);
  }
  return isRight ? 0 : 1;
}

/** The promises for a siege (docs/failures.md). */
export function isSound({ closed, fallback, own, times, wrong }: SiegeResult): boolean {
  return closed === 0 && wrong.length === 0 && own >= fallback && (times.at(-1) ?? 0) <= LATEST_MS;
}

/** The number of descriptors once it is as before, or after a minute. */
async function settledDescriptors(server: Pmilter, before: number): Promise<number> {
  for (let second = 0; second < 60 && descriptorsOf(server) > before; second++) await Bun.sleep(1000);
  return descriptorsOf(server);
}

if (import.meta.main) process.exit(await main());
