/**
 * Whether two series of measurements, taken in pairs, differ beyond the noise: Wilcoxon's signed-rank test on the
 * logarithms of the paired ratios, exact, with Holm's correction for as many figures as are looked at. Pure.
 */
import { type Spread, spreadOf } from "../support/stats.ts";

/** The chance, over all figures of a comparison together, that a verdict is given where nothing differs. */
const ALPHA = 0.05;
/** A smaller difference does not count, however sure: a process may have its code or memory in a better place by chance. */
const LEAST_DIFFERENCE = 0.01;

export interface Figure {
  readonly name: string;
  /** Of a speed the verdict is faster or slower, of an amount less or more. */
  readonly kind: "speed" | "amount";
  readonly better: "less" | "more";
  /** A smaller difference than this is none: the measurement does not see it. */
  readonly resolution: number;
  /** A value for each round, in the same order. */
  readonly here: readonly number[];
  readonly there: readonly number[];
}

export type Verdict = "faster" | "slower" | "less" | "more" | "no difference seen";

export interface Judged {
  readonly figure: Figure;
  /** Here to there. */
  readonly ratio: Spread;
  /** Corrected; at most {@link ALPHA} for a verdict. */
  readonly p: number;
  readonly verdict: Verdict;
  readonly isWorse: boolean;
}

/** The measurements of a suite, for both trees. */
export interface Compared {
  readonly figures: readonly Figure[];
  /** Things that could not be compared, a line each. */
  readonly notes: readonly string[];
}

export function judgeAll(figures: readonly Figure[]): readonly Judged[] {
  const ps = holm(figures.map((figure) => signedRankP(ratiosOf(figure).map(Math.log))));
  return figures.map((figure, at) => {
    const { better } = figure;
    const spread = spreadOf(ratiosOf(figure));
    const differs = ps[at]! <= ALPHA && Math.abs(Math.log(spread.median)) >= Math.log(1 + LEAST_DIFFERENCE);
    const isLess = spread.median < 1;
    const isWorse = differs && isLess !== (better === "less");
    return { figure, ratio: spread, p: ps[at]!, isWorse, verdict: verdictOf(figure, differs, isLess) };
  });
}

function verdictOf({ kind, better }: Figure, differs: boolean, isLess: boolean): Verdict {
  if (!differs) return "no difference seen";
  if (kind === "amount") return isLess ? "less" : "more";
  return isLess === (better === "less") ? "faster" : "slower";
}

function ratiosOf({ here, there, resolution }: Figure): readonly number[] {
  return here.map((value, round) => {
    const other = there[round]!;
    return Math.abs(value - other) <= resolution ? 1 : value / other;
  });
}

/** The fewest rounds with which that many figures can get a verdict at all: those that all point the same way. */
export function roundsNeeded(figures: number): number {
  return Math.ceil(Math.log2((2 * Math.max(1, figures)) / ALPHA));
}

/**
 * The two-sided p value of Wilcoxon's signed-rank test, exact: of all ways to give the ranks a sign, the share that is at
 * least as lopsided. Differences of 0 are left out, equal differences share their mean rank.
 */
export function signedRankP(differences: readonly number[]): number {
  const values = differences.filter((value) => value !== 0);
  if (values.length === 0) return 1;
  const sizes = values.map(Math.abs).toSorted((a, b) => a - b);
  // Doubled, so that mean ranks are whole numbers.
  const doubledRank = (size: number) => sizes.indexOf(size) + 1 + sizes.lastIndexOf(size) + 1;
  const ranks = values.map((value) => doubledRank(Math.abs(value)));
  const total = ranks.reduce((sum, rank) => sum + rank, 0);
  const positive = ranks.reduce((sum, rank, at) => sum + (values[at]! > 0 ? rank : 0), 0);
  const lesser = Math.min(positive, total - positive);
  // By sum of the positive ranks: how many ways there are to reach it.
  const ways = new Float64Array(total + 1);
  ways[0] = 1;
  for (const rank of ranks) for (let sum = total; sum >= rank; sum--) ways[sum]! += ways[sum - rank]!;
  const tail = ways.subarray(0, lesser + 1).reduce((sum, count) => sum + count, 0);
  return Math.min(1, (2 * tail) / 2 ** ranks.length);
}

/** p values of several questions, each corrected so that none is likely to be small by chance (Holm 1979). */
export function holm(ps: readonly number[]): readonly number[] {
  const corrected: number[] = [];
  let greatest = 0;
  const ascending = ps.map((p, at) => ({ p, at })).toSorted((a, b) => a.p - b.p);
  ascending.forEach(({ p, at }, rank) => {
    greatest = Math.min(1, Math.max(greatest, p * (ps.length - rank)));
    corrected[at] = greatest;
  });
  return corrected;
}
