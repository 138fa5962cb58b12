#!/usr/bin/env bun
/**
 * `bun run soak`: the real server under mixed traffic with reloads, failing handlers, lost workers and vanishing clients.
 * Every message in and every answer out is counted and judged.
 */
import { Account, type CountName, PROBLEM_KINDS } from "./account.ts";
import { HELP, parseSoakArguments, type SoakArguments, SoakUsageError } from "./args.ts";
import { Incidents } from "./incidents.ts";
import { bodyStore } from "./plan.ts";
import type { PlayerHome } from "./player.ts";
import { cpuSeconds, memoryOf, type Sample, sampleOf } from "./resources.ts";
import { SoakServer, WORKERS } from "./server.ts";
import type { Status } from "../src/server/control/status.ts";
import { describeExample, formatSummary, rangeOf, type Summary } from "./summary.ts";
import { drive, Pace } from "./traffic.ts";
import { Versions } from "./versions.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_INTERRUPTED = 130;
const SAMPLE_MS = 1000;
const NOTE_MS = 10_000;
const RELOAD_MS = 4000;
/** Every nth version does not load. */
const BROKEN_EACH = 10;
/** How long after a handler has eaten memory until the memory is the server's own again. */
const DIGEST_MS = 8000;
/** The server keeps descriptors back once its first workers have started. */
const SETTLE_MS = 3000;
/** Of the server's log, with each problem. */
const LINES_BEFORE = 20;
/** How long until the server has given back the memory of a status reply. */
const ANSWERED_MS = 100;
/** Bun keeps the event loops of the first two threads that have ended after a review of handlers: two descriptors each. */
const LOOPS = 4;
/** Threads that help, such as a compiler's, come and go. */
const HELPERS = 8;
/** How long everything that the run has begun may take to end. */
const END_MS = 30_000;
/** Incidents are asked about this far back. */
const KEEP_MS = 120_000;

/** Counters that the driver can tell. */
const COMPARED: readonly CountName[] = [
  "connections",
  "messages",
  "accepted",
  "rejected",
  "tempfailed",
  "discarded",
  "recipientsRefused",
  "connectionsRefused",
  "fallbacks",
  "errors",
  "timeouts",
  "late",
  "limits",
  "protocolErrors",
  "internalErrors",
  "blocked",
  "workersDied",
  "sessionsLost",
];

/** Options of a run besides its arguments. */
export interface SoakOptions {
  /** Takes a line now and then: how it goes. */
  readonly note?: (line: string) => void;
  /** Ends the run at once, and the server with it. */
  readonly signal?: AbortSignal;
  /** A mistake in the filter, to see that it is found. */
  readonly editFilter?: (text: string) => string;
  /** A proxy between the driver and the server that makes mistakes, to see that they are found. */
  readonly through?: (targets: SoakServer["targets"]) => SoakServer["targets"];
}

export async function soak(args: SoakArguments, options: SoakOptions = {}): Promise<Summary> {
  const { editFilter, note, through } = options;
  const signal = options.signal ?? new AbortController().signal;
  if (process.platform !== "linux") throw new Error("the soak reads /proc: it runs on Linux only");
  const account = new Account(() => server.log.serious.slice(-LINES_BEFORE));
  const incidents = new Incidents(KEEP_MS);
  const versions = new Versions();
  const samples: Sample[] = [];
  await using server = await SoakServer.start(args.log, editFilter);
  await Bun.sleep(SETTLE_MS);
  const started = performance.now();
  const ownBefore = process.cpuUsage();
  const now = () => performance.now() - started;
  let eatingUntil = 0;
  const sample = (): Sample => sampleOf(server.pid, now(), now() < eatingUntil);
  const first = sample();
  versions.written(1, false);
  versions.serves(1, 0);

  const over = Promise.withResolvers<void>();
  let isOver = false;
  const pace = new Pace(args.rate);
  const home: PlayerHome = {
    account,
    incidents,
    versions,
    bodies: bodyStore(args.seed),
    targets: through?.(server.targets) ?? server.targets,
    allowanceMs: args.allowanceMs,
    get isOver() {
      return isOver;
    },
    pace: () => pace.wait(),
    rest: (ms) => (ms === 0 ? Promise.resolve() : Promise.race([Bun.sleep(ms), over.promise])),
    now,
    eats: () => (eatingUntil = now() + DIGEST_MS),
  };

  let noted = 0;
  let shown = 0;
  const sampling = setInterval(() => {
    if (server.hasEnded) return;
    const current = sample();
    samples.push(current);
    for (; shown < account.examples.length; shown++) note?.(describeExample(account.examples[shown]!));
    if (current.at - noted < NOTE_MS) return;
    noted = current.at;
    const { problems } = account;
    note?.(
      `${Math.round(current.at / 1000)} s: ${account.get("messages")} messages, ${account.get("answers")} answers, ${incidents.count} lost workers, ${Math.round(current.residentBytes / 2 ** 20)} MiB, ${current.descriptors} descriptors; ${PROBLEM_KINDS.map((kind) => `${kind} ${problems[kind]}`).join(", ")}`,
    );
  }, SAMPLE_MS);
  const end = (): void => {
    isOver = true;
    over.resolve();
  };
  const timer = setTimeout(end, args.seconds * 1000);
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => {
    end();
    aborted.reject(signal.reason);
  };
  signal.addEventListener("abort", abort, { once: true });
  try {
    signal.throwIfAborted();
    await Promise.race([Promise.all([drive(home, args), reload(server, home)]), aborted.promise]);
  } finally {
    end();
    clearTimeout(timer);
    clearInterval(sampling);
    signal.removeEventListener("abort", abort);
  }

  const seconds = now() / 1000;
  const wrong = (text: string) => account.problem("server", now(), 0, text);
  const { user, system } = process.cpuUsage(ownBefore);
  const driver = (user + system) / 1e6;
  const summary = (comparisons: Summary["comparisons"], counters: Summary["counters"], last: Sample, cpu: number) => {
    const all = [first, ...samples];
    return {
      seed: args.seed,
      faults: args.faults,
      seconds,
      problems: account.problems,
      examples: account.examples,
      tally: account.tally,
      worst: account.worst,
      incidents: incidents.count,
      reloads: { taken: versions.reloads, broken: versions.broken },
      comparisons,
      counters,
      memory: memoryOf(all),
      descriptors: rangeOf(all, "descriptors", first, last),
      threads: rangeOf(all, "threads", first, last),
      cpu: { server: cpu, driver },
      log: server.log.serious,
    };
  };
  if (server.hasEnded) {
    wrong(`the server has ended:\n${server.log.last.slice(-20).join("\n")}`);
    return summary([], {}, first, 0);
  }
  const counters = await settled(server, sample, first, wrong);
  // A worker may be lost to several at once, but to none that did nothing.
  const told = (...kinds: string[]) => kinds.reduce((sum, kind) => sum + account.get(`fault ${kind}`), 0);
  account.count("blocked", 0, told("loops", "loopsLater", "blocks"));
  account.count("workersDied", 0, told("exits"));
  const comparisons = account.compare(counters, COMPARED);
  for (const { counted, isRight, least, most, name } of comparisons) {
    if (!isRight) wrong(`counter ${name} is ${counted}, expected ${least} to ${most}`);
  }
  const last = sample();
  const memory = memoryOf([first, ...samples]);
  if (!memory.isFlat) wrong(`memory rises by ${Math.round(memory.riseBytes / 2 ** 20)} MiB over the second half`);
  for (const line of server.log.serious.filter((text) => text.includes("internal error"))) wrong(line);
  const cpu = cpuSeconds(server.pid);
  const exit = await server.stop();
  if (exit !== 0) wrong(`the server ended with ${exit}, expected 0`);
  return summary(comparisons, counters, last, cpu);
}

/** Writes a new version of the filter every few seconds; some do not load. */
async function reload(server: SoakServer, home: PlayerHome): Promise<void> {
  for (let version = 2; !home.isOver; version++) {
    await home.rest(RELOAD_MS);
    if (home.isOver) return;
    const isBroken = version % BROKEN_EACH === 0;
    home.versions.written(version, isBroken);
    await server.save(version, isBroken);
    if (!isBroken) home.versions.serves(version, home.now());
  }
}

/** The counters, once nothing of the traffic is left. */
async function settled(
  server: SoakServer,
  sample: () => Sample,
  first: Sample,
  wrong: (text: string) => void,
): Promise<Record<string, number>> {
  const deadline = performance.now() + END_MS;
  for (;;) {
    const status = await server.status();
    await Bun.sleep(ANSWERED_MS);
    const left = leftOver(status, sample(), first);
    if (left === null) return { ...status.counters };
    if (performance.now() > deadline) {
      wrong(`${END_MS / 1000} s after the traffic ${left}`);
      return { ...status.counters };
    }
  }
}

/** Things that are left over from the run; null if there are none. */
export function leftOver(
  { connections, ending, stuckThreads, workers }: Pick<Status, "connections" | "ending" | "stuckThreads" | "workers">,
  now: Pick<Sample, "descriptors" | "threads">,
  first: Pick<Sample, "descriptors" | "threads">,
): string | null {
  if (connections > 0) return `${connections} connections are open`;
  if (ending.length > 0) return `${ending.length} old generations have not ended`;
  if (stuckThreads > 0) return `${stuckThreads} threads are stuck`;
  if (workers.length !== WORKERS) return `there are ${workers.length} workers, expected ${WORKERS}`;
  if (now.descriptors < first.descriptors || now.descriptors > first.descriptors + LOOPS)
    return `${now.descriptors} descriptors are open, at the start ${first.descriptors}`;
  if (now.threads > first.threads + HELPERS) return `there are ${now.threads} threads, at the start ${first.threads}`;
  return null;
}

const interrupt = new AbortController();

if (import.meta.main) {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => interrupt.abort(new Error(`interrupted by ${signal}`)));
  }
  try {
    const args = parseSoakArguments(process.argv.slice(2), (Math.random() * 2 ** 32) >>> 0);
    if (args.isHelp) process.stdout.write(HELP);
    else {
      const summary = await soak(args, {
        note: (line) => void process.stderr.write(`${line}\n`),
        signal: interrupt.signal,
      });
      process.stdout.write(args.isJson ? `${JSON.stringify(summary, null, 2)}\n` : formatSummary(summary, args));
      const hasFailed = PROBLEM_KINDS.some((kind) => summary.problems[kind] > 0);
      if (hasFailed) process.stderr.write(`soak: failed; to repeat what was planned: --seed ${summary.seed}\n`);
      process.exitCode = hasFailed ? EXIT_FAILED : 0;
    }
  } catch (error) {
    if (error instanceof SoakUsageError) {
      process.stderr.write(`soak: ${error.message}\nTry: bun run soak --help\n`);
      process.exit(EXIT_USAGE);
    }
    const text = error instanceof Error && !interrupt.signal.aborted ? error.stack : String(error);
    process.stderr.write(`soak: ${text}\n`);
    // Sessions may be under way: they are not awaited.
    process.exit(interrupt.signal.aborted ? EXIT_INTERRUPTED : EXIT_FAILED);
  }
}
