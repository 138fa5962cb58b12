/** The status of a running server: plain data, as `pmilter status --json` prints it. */
import { formatAddress, type ListenAddress } from "../../config/address.ts";
import type { Config } from "../../config/config.ts";
import type { Phase } from "../../protocol/phases.ts";
import { residentBytes } from "../../memory.ts";
import type { Counts } from "../../counters.ts";
import { VERSION } from "../../version.ts";
import { versionOf } from "../../load/sources.ts";
import type { Generation } from "../workers/generation.ts";
import type { DiskStatus } from "../files/disk.ts";
import { isTooMany, type LastMinute } from "./fallback-rate.ts";
import type { WorkerStatus } from "../workers/member.ts";
import type { RecentFailure } from "./recent-failures.ts";
import { WorkerThread } from "../workers/worker-thread.ts";

/** A filter of the chain. */
export interface FilterStatus {
  readonly name: string;
  readonly phases: readonly Phase[];
  /** Whether it has `outcome`. */
  readonly outcome: boolean;
  readonly observed: boolean;
}

export interface GenerationStatus {
  readonly number: number;
  /** A short name of its code: the same texts have the same, on any machine. "" without handlers. */
  readonly version: string;
  /** Connections by worker. */
  readonly workers: readonly number[];
}

/** A worker of any generation. */
export interface WorkerEntry extends WorkerStatus {
  readonly generation: number;
}

export interface Status {
  readonly version: string;
  readonly bun: string;
  readonly pid: number;
  readonly uptimeSeconds: number;
  readonly config: string;
  /** The state folder, which may not be there: it is made when something needs it. */
  readonly state: string;
  readonly addresses: readonly string[];
  /**
   * `degraded`: at this moment not all mail is served as it should be; `problems` says why. `starting`: no handler is loaded
   * yet, so none is.
   */
  readonly health: "ok" | "degraded" | "starting";
  /** For people, a line each. */
  readonly problems: readonly string[];
  readonly connections: number;
  /** Those of them that wait for a worker. */
  readonly waiting: number;
  readonly residentBytes: number;
  readonly workers: readonly WorkerEntry[];
  /** Threads that were told to end and are in a native call that has not returned. */
  readonly stuckThreads: number;
  readonly counters: Counts;
  readonly lastMinute: LastMinute;
  /** Whether the configuration and the handlers on disk are the version that serves. */
  readonly disk: DiskStatus;
  /** The generation that takes new sessions; number 0 while the first generation loads. */
  readonly generation: GenerationStatus;
  /** The generation that takes over slowly, during a reload of a busy server; else null. */
  readonly next: GenerationStatus | null;
  /** The generations that finish their sessions, the oldest first. */
  readonly ending: readonly GenerationStatus[];
  readonly filters: readonly FilterStatus[];
  /** The filters of the configuration that are switched off, by name. */
  readonly switchedOff: readonly string[];
  /** The last failures of handlers, and fallbacks for other reasons, the oldest first. */
  readonly failures: readonly RecentFailure[];
  /** Of the last reload, null before the first. */
  readonly reload: { readonly ok: boolean; readonly at: string; readonly message: string } | null;
}

/** The server as far as its status needs it. */
export interface StatusSource {
  readonly config: Config;
  /** Its state folder, which may not be there. */
  readonly state: string;
  readonly addresses: readonly ListenAddress[];
  /** Addresses where mail servers do not find it any more. */
  readonly unreachable: readonly ListenAddress[];
  /** Why new connections are not accepted now, null if they are. */
  readonly closedBecause: string | null;
  readonly connections: number;
  /** Connections that wait for a worker. */
  readonly waiting: number;
  readonly isStarting: boolean;
  readonly isStopping: boolean;
  /** Must not be read while {@link StatusSource.isStarting}. */
  readonly generation: Generation;
  readonly generations: readonly Generation[];
  readonly nextGeneration: Generation | null;
  readonly oldGenerations: readonly Generation[];
  readonly counts: Counts;
  readonly lastMinute: LastMinute;
  readonly failures: readonly RecentFailure[];
  readonly lastReload: { readonly ok: boolean; readonly at: Date; readonly message: string } | null;
  lookAtDisk(): DiskStatus;
}

const NO_GENERATION: GenerationStatus = { number: 0, version: "", workers: [] };

export function statusOf(server: StatusSource): Status {
  const { isStarting, lastReload, nextGeneration: next } = server;
  const workers = server.generations.flatMap((each) =>
    each.workers.map((worker) => ({ generation: each.number, ...worker })),
  );
  const disk = server.lookAtDisk();
  const problems = problemsOf(server, workers, disk);
  return {
    version: VERSION,
    bun: Bun.version,
    pid: process.pid,
    uptimeSeconds: Math.round(process.uptime()),
    config: server.config.file,
    state: server.state,
    addresses: server.addresses.map(formatAddress),
    health: isStarting ? "starting" : problems.length === 0 ? "ok" : "degraded",
    problems,
    connections: server.connections,
    waiting: server.waiting,
    residentBytes: residentBytes(),
    workers,
    stuckThreads: WorkerThread.stuck,
    counters: server.counts,
    lastMinute: server.lastMinute,
    disk,
    generation: isStarting ? NO_GENERATION : generationStatus(server.generation),
    next: next === null ? null : generationStatus(next),
    ending: server.oldGenerations.map(generationStatus),
    filters: isStarting
      ? []
      : server.generation.summary.filters.map(({ name, phases, hasOutcome, isObserved }) => ({
          name,
          phases,
          outcome: hasOutcome,
          observed: isObserved,
        })),
    switchedOff: server.config.switchedOff,
    failures: server.failures,
    reload: lastReload === null ? null : { ...lastReload, at: lastReload.at.toISOString() },
  };
}

function generationStatus({ loads, number, sources }: Generation): GenerationStatus {
  return { number, version: versionOf(sources), workers: loads };
}

function problemsOf(server: StatusSource, workers: readonly WorkerEntry[], disk: DiskStatus): string[] {
  const problems: string[] = [];
  const current = server.isStarting ? NO_GENERATION.number : server.generation.number;
  const ready = workers.filter(({ generation, state }) => generation === current && state === "ready");
  const blocked = workers.filter(({ blockedMs }) => blockedMs > 0);
  if (server.isStarting) problems.push("the handlers are still loading");
  else if (ready.length === 0) problems.push("no worker can take sessions");
  if (server.isStopping) problems.push("the server stops");
  if (server.closedBecause !== null) problems.push(`new connections wait: ${server.closedBecause}`);
  for (const address of server.unreachable) {
    problems.push(`no mail server finds it at ${formatAddress(address)}: the socket file was removed or replaced`);
  }
  if (server.waiting > 0) problems.push(`connections that wait for a worker: ${server.waiting}`);
  if (blocked.length > 0) problems.push(`workers that have not returned to their event loop: ${blocked.length}`);
  if (WorkerThread.stuck > 0) problems.push(`threads that are stuck in native calls: ${WorkerThread.stuck}`);
  const { fallbacks, messages } = server.lastMinute;
  if (isTooMany({ fallbacks, messages })) {
    problems.push(`messages of the last minute that got a fallback: ${fallbacks} of ${messages}`);
  }
  if (disk.state === "broken") problems.push(`the files on disk would not start: ${firstLine(disk.message)}`);
  return problems;
}

const firstLine = (text: string) => text.split("\n", 1)[0]!;

const DISK_IN_WORDS = {
  same: "the same as ",
  pending: "",
  broken: "would not start: ",
  unknown: "cannot be told: ",
} as const satisfies Record<DiskStatus["state"], string>;

/** A failure that nothing on disk is wrong with any more is no problem of now. */
function describeReload({ disk, reload }: Status): string {
  if (reload === null) return "none";
  const isOver = !reload.ok && disk.state === "same";
  return `${reload.ok ? "took" : "failed"} at ${reload.at}${isOver ? ", put right since" : ""}: ${reload.message}`;
}

/** The same for people. */
export function formatStatus(status: Status): string {
  const generation = ({ number, version, workers }: GenerationStatus) =>
    `${number}${version === "" ? "" : ` (code ${version})`}, connections by worker: ${workers.join(" ")}`;
  const counted = Object.entries(status.counters).filter(([, count]) => count > 0);
  return [
    `pmilter/${status.version} (Bun ${status.bun}), process ${status.pid}, up ${status.uptimeSeconds} s, ${Math.round(status.residentBytes / 2 ** 20)} MiB`,
    `configuration  ${status.config}`,
    `listening on   ${status.addresses.join(", ")}`,
    `health         ${[status.health, ...status.problems].join("; ")}`,
    `connections    ${status.connections}${status.waiting > 0 ? `, of which ${status.waiting} wait` : ""}`,
    `generation     ${status.generation.number === NO_GENERATION.number ? "none yet" : generation(status.generation)}`,
    ...(status.next === null ? [] : [`next           ${generation(status.next)}`]),
    ...status.ending.map((ending) => `ending         ${generation(ending)}`),
    ...status.filters.map(
      ({ name, observed, outcome, phases }) =>
        `filter         ${name}${observed ? " (observe)" : ""}: ${[...phases, ...(outcome ? ["outcome"] : [])].join(" ")}`,
    ),
    ...status.switchedOff.map((name) => `filter         ${name}: switched off`),
    ...status.workers.map(
      ({ blockedMs, connections, generation: of, heapBytes, state }) =>
        `worker         ${state}, generation ${of}, ${connections} connections, ${Math.round(heapBytes / 2 ** 20)} MiB${blockedMs > 0 ? `, blocked for ${(blockedMs / 1000).toFixed(1)} s` : ""}`,
    ),
    `since start    ${counted.map(([name, count]) => `${name} ${count}`).join(", ") || "nothing"}`,
    `on disk        ${DISK_IN_WORDS[status.disk.state]}${status.disk.message}`,
    `last reload    ${describeReload(status)}`,
    "",
  ].join("\n");
}
