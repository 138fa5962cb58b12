/** The interface of a suite of benchmarks, and the order in which it measures. */
import type { PeerName } from "../args.ts";
import type { Plot } from "./plot.ts";
import type { Table } from "./table.ts";
import type { Target } from "./target.ts";

/** So much load at a time. */
export interface LoadPoint {
  readonly connections: number;
  readonly messagesPerConnection: number;
}

/** How much a suite does. */
export interface Plan {
  /** The smoke test: everything once, shortly. The figures mean little. */
  readonly isQuick: boolean;
  readonly rounds: number;
  /** Load before anything is measured. */
  readonly warmMs: number;
  /** After that, how long the compilers of a server may take to come to rest, at the most; 0: they are not waited for. */
  readonly settleMs: number;
  readonly measureMs: number;
  /** Connections that the load generators hold together. */
  readonly connections: number;
  /** Of `wire`: further numbers of connections, and of messages on each. */
  readonly points: readonly LoadPoint[];
  /** Of the mail of mixed sizes. */
  readonly seed: number;
  /** Processes that make the load. */
  readonly generators: number;
  /** Handler workers of the servers. */
  readonly workers: number | "auto";
  /** The peers to measure beside pmilter; null for all that can be had. */
  readonly peers: readonly PeerName[] | null;
  /** Aborted when the run is interrupted: everything started ends. */
  readonly signal: AbortSignal;
  /** A line of progress. */
  note(text: string): void;
}

/** The result of a suite: the printed tables, the page and the raw figures are made of this alone. */
export interface SuiteResult {
  readonly tables: readonly Table[];
  readonly plots?: readonly Plot[];
  /** Those of the project's targets that this suite measures, also when it could not. */
  readonly targets?: readonly Target[];
  /** Every measurement, for `--json`. */
  readonly raw: unknown;
  /** Command lines of the measured programs. */
  readonly commands: readonly string[];
  /** Versions of the measured programs besides pmilter, a line each. */
  readonly versions?: readonly string[];
  /** Why nothing was measured. */
  readonly skipped?: string;
}

/**
 * Measures every variant once a round, in turn, and each second round in the opposite order, so that slow
 * changes (temperature, other load) concern all of them alike.
 * @returns by variant, a result for each round
 */
export async function interleave<V, R>(
  plan: Plan,
  variants: readonly V[],
  measure: (variant: V, round: number) => Promise<R>,
): Promise<Map<V, R[]>> {
  const results = new Map<V, R[]>(variants.map((variant) => [variant, []]));
  for (let round = 0; round < plan.rounds; round++) {
    for (const variant of round % 2 === 0 ? variants : variants.toReversed()) {
      plan.signal.throwIfAborted();
      results.get(variant)!.push(await measure(variant, round));
    }
  }
  return results;
}
