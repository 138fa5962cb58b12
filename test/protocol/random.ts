/**
 * Seeded randomness for property tests. A failing case names its seed; `PMILTER_SEED=<seed>` begins there
 * instead of at 1, which repeats that case first, or tries others.
 */

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** The next uint32 (mulberry32). */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** A whole number from 0, below `limit`. */
  below(limit: number): number {
    return this.u32() % limit;
  }

  chance(part: number): boolean {
    return this.u32() < part * 0x1_0000_0000;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }

  /** `bytes` cut at random places into pieces that are not empty; often many small ones. */
  cut(bytes: Uint8Array): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    const most = this.pick([1, 3, 8, 40, bytes.length + 1]);
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + 1 + this.below(most));
      pieces.push(bytes.subarray(at, end));
      at = end;
    }
    return pieces;
  }
}

const FIRST_SEED = Number(Bun.env["PMILTER_SEED"] ?? 1);

/** Runs `check` with `count` seeds. */
export function forSeeds(count: number, check: (random: Random, seed: number) => void): void {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + count; seed++) {
    try {
      check(new Random(seed), seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
}

/** The same for checks that await. */
export async function forSeedsAsync(
  count: number,
  check: (random: Random, seed: number) => Promise<void>,
): Promise<void> {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + count; seed++) {
    try {
      await check(new Random(seed), seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
}

/** Throws unless both print the same: cheaper than `expect` where it runs a hundred thousand times. */
export function mustEqual(seen: unknown, expected: unknown, what: string): void {
  const left = typeof seen === "string" ? seen : JSON.stringify(seen);
  const right = typeof expected === "string" ? expected : JSON.stringify(expected);
  if (left !== right) throw new Error(`${what}: got ${left}, expected ${right}`);
}
