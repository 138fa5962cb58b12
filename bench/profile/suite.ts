/** Where the processor's time of a worker goes while it is busy, by Debian's `perf` (package linux-perf). */
import { join } from "node:path";
import { tempDir } from "../../test/support/temp.ts";
import { type HandlerSet, type RunningServer, startBare, startReal } from "../support/servers.ts";
import { formatSpread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { measureGenerators, startGenerators } from "../wire/load.ts";
import { countSamples, type Place, PLACES } from "./samples.ts";

interface Variant {
  readonly name: string;
  readonly start: (plan: Plan) => Promise<RunningServer>;
}

const REAL = (handlers: HandlerSet) => (plan: Plan) => startReal({ handlers, workers: 1, signal: plan.signal });
const BARE = (handlers: HandlerSet) => (plan: Plan) => startBare({ handlers, workers: 1, signal: plan.signal });
const VARIANTS: readonly Variant[] = [
  { name: "ten handlers", start: REAL("ten") },
  { name: "bare loop, as for ten", start: BARE("ten") },
  { name: "eom only", start: REAL("eom") },
  { name: "bare loop, as for eom only", start: BARE("eom") },
];
/** Samples a second: no divisor of the rates of the server's timers. */
const FREQUENCY = 1997;
const MAX_ROUNDS = 2;

/** Microseconds of processor time a message, by place. */
type Profile = Readonly<Record<Place, number>>;

export async function runProfile(plan: Plan): Promise<SuiteResult> {
  const skipped = await whyNot();
  if (skipped !== null) return { tables: [], raw: null, commands: [], skipped };
  await using folder = await tempDir("bench-profile");
  const timed = { ...plan, rounds: Math.min(plan.rounds, MAX_ROUNDS) };
  const results = await interleave(timed, VARIANTS, async (variant, round) => {
    plan.note(`profile ${round + 1}/${timed.rounds} ${variant.name}`);
    return profileOf(plan, variant, join(folder.path, "perf.data"));
  });
  const of = (variant: Variant, place: Place) => results.get(variant)!.map((profile) => profile[place]);
  const sum = (profile: Profile) => PLACES.reduce((total, place) => total + profile[place], 0);
  return {
    commands: [`perf record -F ${FREQUENCY} -e cpu-clock -g -p PID`],
    raw: Object.fromEntries(VARIANTS.map((variant) => [variant.name, results.get(variant)])),
    tables: [
      {
        title: `profile: CPU µs a message by place, one worker, ${plan.connections} connections, 10 messages each`,
        columns: ["place", ...VARIANTS.map(({ name }) => name)],
        rows: [
          ...PLACES.map((place) => [place, ...VARIANTS.map((variant) => formatSpread(spreadOf(of(variant, place))))]),
          ["all", ...VARIANTS.map((variant) => formatSpread(spreadOf(results.get(variant)!.map(sum))))],
        ],
        notes: [
          "by sampling the processor's clock; to be woken by a reply, a mail server's process may take the core at once",
        ],
      },
    ],
  };
}

async function profileOf(plan: Plan, variant: Variant, file: string): Promise<Profile> {
  await using server = await variant.start(plan);
  await using generators = await startGenerators(plan, server, {
    kind: "mail",
    connections: plan.connections,
    changes: 1,
  });
  const seconds = (plan.measureMs / 1000).toFixed(1);
  const recording = Bun.spawn(
    ["perf", "record", "-q", "-F", String(FREQUENCY), "-e", "cpu-clock", "-g", "-o", file].concat([
      "-p",
      String(server.pid),
      "--",
      "sleep",
      seconds,
    ]),
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const [measurement] = await Promise.all([measureGenerators(generators, plan.measureMs), recording.exited]);
  if (recording.exitCode !== 0) throw new Error(`perf record: ${await recording.stderr.text()}`);
  const script = Bun.spawn(["perf", "script", "-i", file], { stdio: ["ignore", "pipe", "ignore"] });
  const counts = countSamples(await script.stdout.text());
  const all = PLACES.reduce((total, place) => total + counts[place], 0);
  if (all === 0) throw new Error("perf took no samples");
  return Object.fromEntries(PLACES.map((place) => [place, (measurement.cpuMicros * counts[place]) / all])) as Record<
    Place,
    number
  >;
}

/** Null if it can be measured here. */
async function whyNot(): Promise<string | null> {
  if (Bun.which("perf") === null) return "perf is not installed (Debian: linux-perf)";
  const trial = Bun.spawn(["perf", "record", "-q", "-e", "cpu-clock", "-o", "/dev/null", "true"], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  if ((await trial.exited) === 0) return null;
  return `perf cannot record here: ${(await trial.stderr.text()).trim().split("\n")[0]}`;
}
