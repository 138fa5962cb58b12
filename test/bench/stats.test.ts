/** The line through a sweep's points. */
import { expect, test } from "bun:test";
import { lineThrough } from "../../bench/support/stats.ts";

test("lineThrough finds a line that is one", () => {
  const { base, slope } = lineThrough([1, 10, 100, 1000].map((x) => [x, 40 + 3 * x]));
  expect(base).toBeCloseTo(40);
  expect(slope).toBeCloseTo(3);
});

test("lineThrough minds a small point as much as a large one: both are off by the same share", () => {
  const { base, slope } = lineThrough([
    [1, 10],
    [1000, 1000],
    [1000, 2000],
  ]);
  expect(base + slope).toBeCloseTo(10);
  // Between 1000 and 2000 the relative error is least at 1200, the plain one would be at 1500.
  expect(base + 1000 * slope).toBeCloseTo(1200);
});
