/**
 * How work grows with its amount. No clock decides: the processor time of an amount is compared with that of many times as
 * much, so a slow machine has the same result as a fast one.
 */
import { expect } from "bun:test";

/** How much more work there may be for so many times as much. Caches and the collector take a part of what lies between. */
interface Growth {
  readonly times: number;
  readonly most: number;
}

/** In proportion 30 times as much is about 30 times the work, with the square 900. */
export const IN_PROPORTION: Growth = { times: 30, most: 200 };
/** With the square 10 times as much is about 100 times the work, with the cube 1,000. */
export const WITH_THE_SQUARE: Growth = { times: 10, most: 300 };
/** The work is to stay as it is; in proportion it would be 30 times as much. */
export const NOT_AT_ALL: Growth = { times: 30, most: 20 };

/** What else the machine does makes work cost more at times, and never less: so often it is measured until it fits. */
const TRIES = 5;

/** Milliseconds of processor time that work takes, the best of `runs`. */
async function cost(work: () => unknown, runs: number): Promise<number> {
  let best = Infinity;
  for (let run = 0; run < runs; run++) {
    const from = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(from);
    best = Math.min(best, (user + system) / 1000);
  }
  return best;
}

/** The two amounts that {@link expectGrowth} compares. */
export const amountsOf = (large: number, { times }: Growth): [number, number] => [Math.round(large / times), large];

/**
 * Expects work to grow no more than that.
 * @param amount the larger one: its work takes a good part of a second at most; less than a millisecond counts as one
 */
export async function expectGrowth(
  amount: number,
  work: (amount: number) => unknown,
  growth = IN_PROPORTION,
): Promise<void> {
  const { most } = growth;
  const [small, large] = amountsOf(amount, growth);
  // At once as large as it gets: the code is compiled before it is measured.
  await work(small);
  let least = Infinity;
  let much = Infinity;
  for (let tried = 0; tried < TRIES && !(much / Math.max(least, 1) < most); tried++) {
    least = Math.min(least, await cost(() => work(small), 3));
    much = Math.min(much, await cost(() => work(large), 1));
  }
  expect(much / Math.max(least, 1)).toBeLessThan(most);
}
