/**
 * What the tests of reload share: a server whose new sessions tell which code they run, files that are saved as editors
 * save them, and what the log and the control socket say of reloads.
 */
import { expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SAVED_MS } from "../../src/server/policy.ts";
import { askServer } from "../../src/server/control/control.ts";
import type { Status } from "../../src/server/control/status.ts";
import {
  CONNECT,
  descriptorsOf,
  HELO,
  OPTNEG,
  packet,
  QUIT,
  RawClient,
  residentBytes,
  UNKNOWN,
} from "../server/wire.ts";
import { type Pmilter, type PmilterOptions, startPmilter } from "../support/pmilter.ts";
import { PATIENCE_MS, waitFor } from "../support/temp.ts";

export const USE_FILTER = '[[filter]]\npath = "filter.ts"\n';

/** A filter that answers an unknown command with its version, and stamps messages with it. */
export function versioned(version: string): string {
  return `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  unknown: () => reject("550 5.7.1 ${version}"),
  eom(session) { session.message.addHeader("X-Version", "${version}"); },
});
`;
}

/** One worker and a filter of version 1, unless the options say otherwise. */
export function startVersioned(options: PmilterOptions = {}): Promise<Pmilter> {
  return startPmilter({
    config: USE_FILTER,
    files: { "filter.ts": versioned("v1") },
    ...options,
    server: { workers: 1, stop_timeout: 0.1, ...options.server },
  });
}

/** The version that a session runs: the text of its reply to an unknown command. */
export async function versionOf(client: RawClient): Promise<string> {
  await client.send(UNKNOWN);
  const { code, payload } = await client.reply();
  if (code !== "y") throw new Error(`the unknown command was answered with ${code}`);
  return payload.toString("utf8").slice("550 5.7.1 ".length, -1);
}

/** The version that a session runs which begins now. */
export async function newVersion(server: Pmilter): Promise<string> {
  using client = await negotiated(server);
  const version = await versionOf(client);
  await client.send(QUIT);
  await client.ended();
  return version;
}

/** A session that begins now. */
export async function negotiated(server: Pmilter): Promise<RawClient> {
  const client = await RawClient.connect(server.addresses[0]!);
  if ((await client.ask(OPTNEG)) !== "O") throw new Error("no negotiation");
  return client;
}

/** Begins sessions, one after the other, until one runs `version`; gives the milliseconds that it took. */
export async function untilVersion(server: Pmilter, version: string, timeoutMs = PATIENCE_MS): Promise<number> {
  const since = performance.now();
  for (;;) {
    const found = await newVersion(server);
    const ms = performance.now() - since;
    if (found === version) return ms;
    if (ms > timeoutMs) {
      throw new Error(`new sessions run "${found}" after ${timeoutMs} ms, expected "${version}"\n${server.log.text}`);
    }
  }
}

/** Sends a sender that makes the handler end its worker; settles when the log says so. */
export async function endWorker(server: Pmilter): Promise<void> {
  const from = server.log.all.length;
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, CONNECT, HELO)).toBe("Occ");
  await client.send(packet("M", "<exit@example.com>\0"));
  await logged(server, /\[crit\]: a worker with \d+ connections? ended.*another is started/, from);
}

/** Settles when all workers of the current generation take sessions, also one that replaces another. */
export async function everyWorkerReady(server: Pmilter): Promise<void> {
  await waitFor(
    async () => {
      const { generation, workers } = await askStatus(server);
      const current = workers.filter((worker) => worker.generation === generation.number);
      return current.length === generation.workers.length && current.every(({ state }) => state === "ready");
    },
    { what: "all workers" },
  );
}

/** Asks a session again and again until it runs `version`. */
export async function untilMoved(client: RawClient, version: string, timeoutMs = PATIENCE_MS): Promise<void> {
  const since = performance.now();
  for (;;) {
    const found = await versionOf(client);
    if (found === version) return;
    if (performance.now() - since > timeoutMs) {
      throw new Error(`the session runs "${found}" after ${timeoutMs} ms, expected "${version}"`);
    }
  }
}

/** Writes a file below the server's folder. */
export async function save(server: Pmilter, name: string, text: string): Promise<void> {
  const path = join(server.dir, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

/** Saves as many editors do: a new file, renamed over the old one. */
export async function saveByRename(server: Pmilter, name: string, text: string): Promise<void> {
  const path = join(server.dir, name);
  await writeFile(`${path}.tmp~`, text);
  await rename(`${path}.tmp~`, path);
}

export async function remove(server: Pmilter, name: string): Promise<void> {
  await rm(join(server.dir, name), { recursive: true });
}

/** The first log line from `from` on that matches, now or soon. */
export function logged(server: Pmilter, pattern: RegExp, from = 0): Promise<string> {
  return server.log.next(pattern, { from });
}

/** The log lines about reloads that came to an end. */
export function reloadLines(server: Pmilter): string[] {
  return server.log.all.filter((line) => /\]: reload: generation \d+ (?:serves|keeps serving)/.test(line));
}

/** Long enough for a reload that should not happen to have begun and ended: there is no event to wait for. */
export async function quiet(): Promise<void> {
  await Bun.sleep(SAVED_MS);
}

export function control(server: Pmilter): string {
  return server.control;
}

export type ReloadAnswer = NonNullable<Status["reload"]>;

/** What `pmilter reload` asks; settles when it took, or failed. */
export async function askReload(server: Pmilter): Promise<ReloadAnswer> {
  return (await askServer(control(server), { command: "reload" })) as ReloadAnswer;
}

/** What `pmilter status` asks. */
export async function askStatus(server: Pmilter): Promise<Status> {
  return (await askServer(control(server), { command: "status" })) as Status;
}

export interface Footprint {
  /** Threads of the process. Of those that help them, Bun has a few more or fewer at a time. */
  readonly threads: number;
  /** Those of them that run handlers. */
  readonly workers: number;
  readonly descriptors: number;
  readonly residentBytes: number;
}

/** What the server process holds once all sessions and old generations have ended. */
export async function footprint(server: Pmilter): Promise<Footprint> {
  await waitFor(
    async () => {
      const { ending, connections } = await askStatus(server);
      return ending.length === 0 && connections === 0;
    },
    { what: "the end of all sessions and old generations" },
  );
  const folder = `/proc/${server.process.pid}/task`;
  const expected = (await askStatus(server)).generation.workers.length;
  const names = () => readdirSync(folder).map((task) => nameOfTask(join(folder, task)));
  const workers = () => names().filter((name) => name === "Worker").length;
  // A thread is gone a little after its generation.
  await waitFor(() => workers() <= expected, { what: "the end of old threads" });
  return {
    threads: names().length,
    workers: workers(),
    descriptors: descriptorsOf(server),
    residentBytes: residentBytes(server),
  };
}

function nameOfTask(folder: string): string {
  try {
    return readFileSync(join(folder, "comm"), "utf8").trim();
  } catch {
    // It ended while it was looked at.
    return "";
  }
}

const MiB = 2 ** 20;

/** One line for people. */
export function describeFootprints(before: Footprint, after: Footprint): string {
  const resident = [before, after].map(({ residentBytes }) => (residentBytes / MiB).toFixed(0)).join(" to ");
  return `threads ${before.threads} to ${after.threads}, descriptors ${before.descriptors} to ${after.descriptors}, resident ${resident} MiB`;
}

/** Threads that help, such as a compiler's: they come and go. */
const HELPERS = 6;

/** Bun keeps the event loops of two threads that have ended: two descriptors each. */
const LOOPS = 4;

/** @param growthMiB what the allocator may keep of memory that is free again */
export function expectSameFootprint(before: Footprint, after: Footprint, growthMiB: number): void {
  expect(after.workers).toBe(before.workers);
  expect(after.threads).toBeLessThanOrEqual(before.threads + HELPERS);
  expect(after.descriptors).toBeLessThanOrEqual(before.descriptors + LOOPS);
  expect((after.residentBytes - before.residentBytes) / MiB).toBeLessThan(growthMiB);
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
