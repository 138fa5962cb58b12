/** Puts a server under the load of generator processes and returns a measurement. */
import { join } from "node:path";
import { BenchChild } from "../support/child.ts";
import { compilersRest } from "../support/compilers.ts";
import type { RunningServer } from "../support/servers.ts";
import type { Plan } from "../support/suite.ts";
import { type MailShape, ORDINARY_MAIL } from "../support/traffic.ts";
import { percentile } from "./latency.ts";
import type { FromGenerator, LoadKind, LoadResult, ToGenerator } from "./messages.ts";

const GENERATOR = join(import.meta.dir, "generator.ts");
/** As many as an SMTP client that reuses its connections sends. */
export const MESSAGES_PER_CONNECTION = 10;
/** Messages on a long connection: it is not renewed while it is measured. */
export const LONG = 1_000_000_000;
/** Connections on the way of all generators together: half of pmilter's `listen_backlog`. */
const OPENING = 64;
/** The generators have this long to report, beyond the time of the load itself. */
const PATIENCE_MS = 30_000;

export interface Load {
  readonly kind: LoadKind;
  readonly connections: number;
  readonly messagesPerConnection?: number;
  /** Default: ordinary mail alone. */
  readonly mails?: readonly MailShape[];
  /** Changes that the filter makes to each message. */
  readonly changes: number;
  /** Messages begun a second, of all generators together; by default as many as go. */
  readonly perSecond?: number;
}

export interface Measurement {
  /** Messages, or of `visits` connections, that were completed. */
  readonly completed: number;
  /** The same a second. */
  readonly perSecond: number;
  /** Processor time of the server for each, in microseconds. */
  readonly cpuMicros: number;
  /** Of each reply; of `visits`, from connecting to the end of the connection. Microseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  /** Share of a core that each generator used: near 1, and it was the limit. */
  readonly generatorShare: number;
  /** VmHWM of the server, of all its processes together, at the end of the measurement. */
  readonly peakBytes: number;
}

/** @throws Error if any reply was wrong */
export async function measureLoad(plan: Plan, server: RunningServer, load: Load): Promise<Measurement> {
  const generators = await startGenerators(plan, server, load);
  await using _ = generators;
  return await measureGenerators(generators, plan.measureMs);
}

/** Measures from now on for so long; the load goes on. */
export async function measureGenerators({ children }: Generators, measureMs: number): Promise<Measurement> {
  for (const child of children) child.send({ kind: "measure", ms: measureMs });
  const results: LoadResult[] = [];
  for (const child of children) {
    const message = await nextOf(child, measureMs);
    if (message.kind === "result") results.push(message.result);
  }
  // Each saw the whole server for about the same time.
  const cpu = results.reduce((sum, result) => sum + result.serverCpuMicros, 0) / results.length;
  const completed = results.reduce((sum, result) => sum + result.completed, 0);
  const latencies = results.map((result) => result.latencies);
  return {
    completed,
    perSecond: results.reduce((sum, result) => sum + result.completed / result.seconds, 0),
    cpuMicros: cpu / completed,
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
    p999: percentile(latencies, 0.999),
    generatorShare: Math.max(...results.map((result) => result.ownCpuMicros / 1e6 / result.seconds)),
    peakBytes: Math.max(...results.map((result) => result.serverPeakBytes)),
  };
}

export interface Generators extends AsyncDisposable {
  readonly children: readonly BenchChild<ToGenerator, FromGenerator>[];
}

/** Starts the load and waits until the server is warm; of `idle`, until all connections are open. */
export async function startGenerators(plan: Plan, server: RunningServer, load: Load): Promise<Generators> {
  await using stack = new AsyncDisposableStack();
  const count = Math.min(plan.generators, load.connections);
  const children = Array.from({ length: count }, () =>
    stack.use(new BenchChild<ToGenerator, FromGenerator>(GENERATOR, { signal: plan.signal })),
  );
  children.forEach((child, index) => {
    child.send({
      kind: "start",
      request: {
        kind: load.kind,
        socket: server.socket,
        pid: server.pid,
        connections: Math.floor((load.connections + index) / count),
        opening: Math.max(1, Math.floor(OPENING / count)),
        messagesPerConnection: load.messagesPerConnection ?? MESSAGES_PER_CONNECTION,
        mails: load.mails ?? [ORDINARY_MAIL],
        changes: load.changes,
        answersQuit: server.answersQuit ?? false,
        warmMs: plan.warmMs,
        perSecond: load.perSecond === undefined ? null : load.perSecond / count,
      },
    });
  });
  for (const child of children) await nextOf(child, plan.warmMs);
  if (load.kind !== "idle") await compilersRest(server.pid, plan.settleMs, plan.signal);
  const owned = stack.move();
  return { children, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Of idle connections: a message on each. */
export async function sendRound({ children }: Generators): Promise<void> {
  for (const child of children) child.send({ kind: "round" });
  for (const child of children) await nextOf(child, 0);
}

async function nextOf(child: BenchChild<ToGenerator, FromGenerator>, ms: number): Promise<FromGenerator> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("a load generator does not report")), ms + PATIENCE_MS);
  try {
    const message = await Promise.race([child.next(), late]);
    if (message.kind === "failed") throw new Error(`load generator: ${message.message}`);
    return message;
  } finally {
    clearTimeout(timer);
  }
}
