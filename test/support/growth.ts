/**
 * How work grows with its amount. No clock decides: the processor time of an amount is compared with that of ten times as
 * much, so a slow machine has the same result as a fast one.
 */
import { expect } from "bun:test";

/** Ten times as much is less than this many times the work where it grows in proportion: there it is about 10. */
const IN_PROPORTION = 40;
/** The same where it grows with the square, about 100; with the cube it is about 1,000. */
export const WITH_THE_SQUARE = 150;
/** The same where the work is to stay as it is. */
export const NOT_AT_ALL = 5;

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

/**
 * Expects work to grow no more than that for ten times as much.
 * @param small an amount that takes some milliseconds; less than one counts as one
 */
export async function expectGrowth(
  small: number,
  work: (amount: number) => unknown,
  most = IN_PROPORTION,
): Promise<void> {
  // At once as large as it gets: the code is compiled before it is measured.
  await work(small);
  let least = Infinity;
  let large = Infinity;
  for (let tried = 0; tried < TRIES && !(large / Math.max(least, 1) < most); tried++) {
    least = Math.min(least, await cost(() => work(small), 3));
    large = Math.min(large, await cost(() => work(10 * small), 1));
  }
  expect(large / Math.max(least, 1)).toBeLessThan(most);
}
