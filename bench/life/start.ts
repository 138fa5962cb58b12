/** From the start of a process to its first answer: the reply to the first OPTNEG over its socket. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { build } from "../../test/binary/support.ts";
import { MAIN, writeProject } from "../../test/support/pmilter.ts";
import { tempDir } from "../../test/support/temp.ts";
import { cpuMicros } from "../support/process.ts";
import { answerOf, handlerConfig, startReal } from "../support/servers.ts";
import { formatSpread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";

interface Variant {
  readonly name: string;
  readonly command: string;
  /** The program with its arguments, for a socket at this path in a folder of its own. */
  readonly argv: (dir: string, socket: string) => Promise<readonly string[]>;
}

/** Cheap, so often enough to see the spread. */
const STARTS = 11;
const QUICK_STARTS = 2;
const LOOK_MS = 1;
const START_MS = 30_000;
const BARE = join(import.meta.dir, "..", "peers", "bare.ts");
const TARGET_MS = 150;

export async function measureStart(plan: Plan): Promise<SuiteResult> {
  await using folder = await tempDir("bench-start");
  const binary = join(folder.path, "pmilter");
  await build(binary);
  let answer: Uint8Array;
  {
    await using server = await startReal({ handlers: "ten", workers: 1, signal: plan.signal });
    answer = await answerOf(server.socket);
  }
  const config = (dir: string, socket: string) =>
    writeProject(dir, {
      listen: `unix:${socket}`,
      server: { workers: plan.workers, control: "pmilter.ctl" },
      config: handlerConfig("ten"),
    });
  const variants: readonly Variant[] = [
    {
      name: "pmilter from source",
      command: "bun src/main.ts -c pmilter.toml",
      argv: async (dir, socket) => [process.execPath, MAIN, "-c", await config(dir, socket)],
    },
    {
      name: "pmilter, the binary",
      command: "dist/pmilter -c pmilter.toml",
      argv: async (dir, socket) => [binary, "-c", await config(dir, socket)],
    },
    {
      name: "bare loop",
      command: "bun bench/peers/bare.ts SOCKET ANSWER",
      argv: async (_, socket) => [process.execPath, BARE, socket, Buffer.from(answer).toString("hex")],
    },
  ];
  const rounds = { ...plan, rounds: plan.isQuick ? QUICK_STARTS : STARTS };
  const results = await interleave(rounds, variants, (variant) => startOnce(plan, variant));
  for (const [{ name }, all] of results) {
    plan.note(`life start ${name}: ${formatSpread(spreadOf(all.map(({ ms }) => ms)))} ms`);
  }
  return {
    commands: variants.map(({ command }) => command),
    raw: variants.map((variant) => ({ variant: variant.name, rounds: results.get(variant) })),
    tables: [
      {
        title: `life: from exec to the first answer (OPTNEG), ten handlers, workers = ${plan.workers}`,
        columns: ["server", "ms", "of CPU, ms"],
        rows: variants.map((variant) => [
          variant.name,
          formatSpread(spreadOf(results.get(variant)!.map(({ ms }) => ms))),
          formatSpread(spreadOf(results.get(variant)!.map(({ cpuMs }) => cpuMs))),
        ]),
        notes: [`target: below ${TARGET_MS} ms; ${rounds.rounds} starts, one after the other`],
      },
    ],
  };
}

async function startOnce(plan: Plan, { argv, name }: Variant): Promise<{ ms: number; cpuMs: number }> {
  await using dir = await tempDir("bench");
  const socket = join(dir.path, "start.sock");
  const command = [...(await argv(dir.path, socket))];
  const began = performance.now();
  const child = Bun.spawn(command, {
    cwd: dir.path,
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, XDG_RUNTIME_DIR: "" },
    signal: plan.signal,
  });
  try {
    // No event tells of it; a look is a system call.
    while (!existsSync(socket)) {
      const isLate = performance.now() - began > START_MS;
      if (child.exitCode !== null || child.signalCode !== null || isLate) {
        child.kill("SIGKILL");
        throw new Error(`${name} did not start: ${await child.stderr.text()}`);
      }
      await Bun.sleep(LOOK_MS);
    }
    await answerOf(socket);
    const ms = performance.now() - began;
    return { ms, cpuMs: cpuMicros(child.pid) / 1000 };
  } finally {
    child.kill("SIGTERM");
    await child.exited;
  }
}
