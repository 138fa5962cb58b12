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
import { SoakServer } from "./server.ts";
import { formatSummary, rangeOf, type Summary } from "./summary.ts";
import { drive, Pace } from "./traffic.ts";
import { Versions } from "./versions.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const SAMPLE_MS = 1000;
const NOTE_MS = 10_000;
const RELOAD_MS = 4000;
/** Each so many versions one does not load. */
const BROKEN_EACH = 10;
/** After a handler has eaten memory, so long until what is held is the server's own again. */
const DIGEST_MS = 8000;
/** The server keeps descriptors back once its first workers have started. */
const SETTLE_MS = 3000;
/** How long everything that the run has begun may take to end. */
const END_MS = 30_000;
/** Incidents are asked about this far back. */
const KEEP_MS = 120_000;

/** Counters that the driver can tell. Losses of workers are only printed: the driver causes some that never happen. */
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
  "internalErrors",
  "sessionsLost",
];

export async function soak(args: SoakArguments, note: (line: string) => void): Promise<Summary> {
  const account = new Account();
  const incidents = new Incidents(KEEP_MS);
  const versions = new Versions();
  const samples: Sample[] = [];
  await using server = await SoakServer.start();
  await Bun.sleep(SETTLE_MS);
  const started = performance.now();
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
    targets: server.targets,
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
  const sampling = setInterval(() => {
    if (server.hasEnded) return;
    const current = sample();
    samples.push(current);
    if (current.at - noted < NOTE_MS) return;
    noted = current.at;
    const { problems } = account;
    note(
      `${Math.round(current.at / 1000)} s: ${account.get("messages")} messages, ${account.get("answers")} answers, ${incidents.count} lost workers, ${Math.round(current.residentBytes / 2 ** 20)} MiB, ${current.descriptors} descriptors; ${PROBLEM_KINDS.map((kind) => `${kind} ${problems[kind]}`).join(", ")}`,
    );
  }, SAMPLE_MS);
  const timer = setTimeout(() => {
    isOver = true;
    over.resolve();
  }, args.seconds * 1000);
  const ended = server.log.next(/\(the end of the log\)/).catch(() => undefined);
  try {
    await Promise.all([drive(home, args), reload(server, home)]);
  } finally {
    clearTimeout(timer);
    clearInterval(sampling);
    void ended;
  }

  const seconds = now() / 1000;
  const wrong = (text: string) => account.problem("server", now(), 0, text);
  if (server.hasEnded) {
    wrong(`the server has ended:\n${server.log.last.slice(-20).join("\n")}`);
    const comparisons = account.compare({}, []);
    return summaryOf(args, seconds, account, incidents, versions, comparisons, {}, samples, first, first, 0);
  }
  const counters = await settled(server);
  const comparisons = account.compare(counters, COMPARED);
  for (const { counted, isRight, least, most, name } of comparisons) {
    if (!isRight) wrong(`counter ${name} is ${counted}, expected ${least} to ${most}`);
  }
  const last = await lastSample(sample, first);
  samples.push(last);
  if (last.descriptors > first.descriptors)
    wrong(`${last.descriptors} descriptors at the end, ${first.descriptors} at the start`);
  const memory = memoryOf(samples);
  if (!memory.isFlat) wrong(`memory rises by ${Math.round(memory.riseBytes / 2 ** 20)} MiB over the second half`);
  for (const line of server.log.last.filter((text) => text.includes("internal error"))) wrong(line);
  const cpu = cpuSeconds(server.pid);
  const exit = await server.stop();
  if (exit !== 0) wrong(`the server ended with ${exit}, expected 0`);
  return summaryOf(args, seconds, account, incidents, versions, comparisons, counters, samples, first, last, cpu);
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

/** The counters, once no connection is left. */
async function settled(server: SoakServer): Promise<Record<string, number>> {
  const deadline = performance.now() + END_MS;
  for (;;) {
    const { connections, counters } = await server.status();
    if (connections === 0 || performance.now() > deadline) return { ...counters };
    await Bun.sleep(100);
  }
}

/** What is held once threads and old generations are gone. */
async function lastSample(sample: () => Sample, first: Sample): Promise<Sample> {
  const deadline = performance.now() + END_MS;
  for (;;) {
    const current = sample();
    if (current.descriptors <= first.descriptors || performance.now() > deadline) return current;
    await Bun.sleep(200);
  }
}

function summaryOf(
  args: SoakArguments,
  seconds: number,
  account: Account,
  incidents: Incidents,
  versions: Versions,
  comparisons: Summary["comparisons"],
  counters: Summary["counters"],
  samples: readonly Sample[],
  first: Sample,
  last: Sample,
  serverCpuSeconds: number,
): Summary {
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
    serverCpuSeconds,
  };
}

if (import.meta.main) {
  try {
    const args = parseSoakArguments(process.argv.slice(2), (Math.random() * 2 ** 32) >>> 0);
    if (args.isHelp) process.stdout.write(HELP);
    else {
      const summary = await soak(args, (line) => process.stderr.write(`${line}\n`));
      process.stdout.write(args.isJson ? `${JSON.stringify(summary, null, 2)}\n` : formatSummary(summary, args));
      const hasFailed = PROBLEM_KINDS.some((kind) => summary.problems[kind] > 0);
      if (hasFailed) process.stderr.write(`soak: failed; to repeat what was planned: --seed ${summary.seed}\n`);
      process.exitCode = hasFailed ? EXIT_FAILED : 0;
    }
  } catch (error) {
    if (!(error instanceof SoakUsageError)) throw error;
    process.stderr.write(`soak: ${error.message}\n`);
    process.exitCode = EXIT_USAGE;
  }
}
