/** What a running server says of itself: plain data, as `pmilter status --json` prints it. */
import { formatAddress } from "../config/address.ts";
import type { Phase } from "../protocol/phases.ts";
import { VERSION } from "../version.ts";
import type { FilterServer } from "./server.ts";

export interface GenerationStatus {
  readonly number: number;
  /** Connections by worker. */
  readonly workers: readonly number[];
}

export interface Status {
  readonly version: string;
  readonly bun: string;
  readonly pid: number;
  readonly uptimeSeconds: number;
  readonly config: string;
  readonly addresses: readonly string[];
  readonly connections: number;
  readonly residentBytes: number;
  /** The one that takes new sessions. */
  readonly generation: GenerationStatus;
  /** Those that finish theirs, oldest first. */
  readonly ending: readonly GenerationStatus[];
  readonly filters: readonly { readonly name: string; readonly phases: readonly Phase[]; readonly observed: boolean }[];
  /** Of the last reload, null before the first. */
  readonly reload: { readonly ok: boolean; readonly at: string; readonly message: string } | null;
}

export function statusOf(server: FilterServer): Status {
  const { generation, lastReload } = server;
  return {
    version: VERSION,
    bun: Bun.version,
    pid: process.pid,
    uptimeSeconds: Math.round(process.uptime()),
    config: generation.config.file,
    addresses: server.addresses.map(formatAddress),
    connections: server.connections,
    residentBytes: process.memoryUsage.rss(),
    generation: { number: generation.number, workers: generation.loads },
    ending: server.oldGenerations.map(({ number, loads }) => ({ number, workers: loads })),
    filters: generation.summary.filters.map(({ name, phases, isObserved }) => ({ name, phases, observed: isObserved })),
    reload: lastReload === null ? null : { ...lastReload, at: lastReload.at.toISOString() },
  };
}

/** The same for people. */
export function formatStatus(status: Status): string {
  const generation = ({ number, workers }: GenerationStatus) =>
    `${number}, connections by worker: ${workers.join(" ")}`;
  return [
    `pmilter/${status.version} (Bun ${status.bun}), process ${status.pid}, up ${status.uptimeSeconds} s, ${Math.round(status.residentBytes / 2 ** 20)} MiB`,
    `configuration  ${status.config}`,
    `listening on   ${status.addresses.join(", ")}`,
    `connections    ${status.connections}`,
    `generation     ${generation(status.generation)}`,
    ...status.ending.map((ending) => `ending         ${generation(ending)}`),
    ...status.filters.map(
      ({ name, phases, observed }) => `filter         ${name}${observed ? " (observe)" : ""}: ${phases.join(" ")}`,
    ),
    status.reload === null
      ? "last reload    none"
      : `last reload    ${status.reload.ok ? "took" : "failed"} at ${status.reload.at}: ${status.reload.message}`,
    "",
  ].join("\n");
}
