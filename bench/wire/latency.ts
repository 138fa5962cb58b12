/** Latencies as counts: exact to a microsecond up to 10 ms, to a millisecond above. Pure. */

const FINE_MICROS = 10_000;
const COARSE_MICROS = 1000;
const COARSE_BUCKETS = 10_000;

/** Pairs of a latency in microseconds and how often it was seen, in ascending order. */
export type LatencyCounts = readonly (readonly [micros: number, count: number])[];

export class Latencies {
  readonly #fine = new Uint32Array(FINE_MICROS);
  readonly #coarse = new Uint32Array(COARSE_BUCKETS);

  add(ms: number): void {
    const micros = Math.floor(ms * 1000);
    if (micros < FINE_MICROS) this.#fine[micros]! += 1;
    else this.#coarse[Math.min(COARSE_BUCKETS - 1, Math.floor(micros / COARSE_MICROS))]! += 1;
  }

  clear(): void {
    this.#fine.fill(0);
    this.#coarse.fill(0);
  }

  counts(): LatencyCounts {
    const pairs: [number, number][] = [];
    this.#fine.forEach((count, micros) => count > 0 && pairs.push([micros, count]));
    this.#coarse.forEach((count, bucket) => count > 0 && pairs.push([bucket * COARSE_MICROS, count]));
    return pairs;
  }
}

/** The latency, in microseconds, that a share of all (0 to 1) do not pass; NaN without any. */
export function percentile(all: readonly LatencyCounts[], share: number): number {
  const pairs = all.flat().toSorted((a, b) => a[0] - b[0]);
  const wanted = share * pairs.reduce((sum, [, count]) => sum + count, 0);
  let seen = 0;
  for (const [micros, count] of pairs) {
    seen += count;
    if (seen >= wanted) return micros;
  }
  return Number.NaN;
}
