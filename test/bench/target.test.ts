/** Targets: the median decides, noise that crosses the bound is told, what was not measured is not reached. */
import { expect, test } from "bun:test";
import { spreadOf } from "../../bench/support/stats.ts";
import { type Bound, isClose, judge, targetTable } from "../../bench/support/target.ts";

const target = (bound: Bound, values: readonly number[] | null) => ({
  what: "CPU",
  bound,
  figure: values === null ? null : spreadOf(values),
});

test.each([
  [["at most", 2], [2], "reached"],
  [["at most", 2], [2.1], "not reached"],
  [["at least", 2], [2], "reached"],
  [["at least", 2], [1.9], "not reached"],
  [["below", 1], [1], "not reached"],
  [["below", 1], [0.9], "reached"],
  [["above", 1], [1], "not reached"],
  [["above", 1], [1.1], "reached"],
  [["above", 1], null, "not measured"],
] as const)("%j with %j is %s", (bound, values, judgement) => {
  expect(judge(target(bound, values))).toBe(judgement);
});

test("a figure with rounds on both sides of its bound says so", () => {
  expect(isClose(target(["at most", 2], [1.8, 1.9, 2.1]))).toBe(true);
  expect(isClose(target(["at most", 2], [1.8, 1.9]))).toBe(false);
  expect(isClose(target(["at most", 2], null))).toBe(false);
  const { rows } = targetTable([target(["at most", 2], [1.8, 1.9, 2.1]), target(["above", 1], null)]);
  expect(rows).toEqual([
    ["CPU", "at most 2.00", "1.90 (1.80–2.10)", "reached, in some rounds otherwise", ""],
    ["CPU", "above 1.00", "-", "not measured", ""],
  ]);
});
