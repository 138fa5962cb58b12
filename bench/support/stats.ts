/** Medians and spreads. Pure. */

/** The median of repeated measurements, with the least and the greatest of them. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Every measurement, in the order of the rounds. */
  readonly all: readonly number[];
}

/** @param values not empty */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle]!;
  const median = sorted.length % 2 === 1 ? upper : (sorted[middle - 1]! + upper) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)!, all: values };
}

/** The ratio round by round: a disturbance of a round concerns both sides. */
export function ratioOf(values: readonly number[], base: readonly number[]): Spread {
  return spreadOf(values.map((value, round) => value / base[round]!));
}

export interface Line {
  readonly base: number;
  readonly slope: number;
}

/**
 * The line that comes nearest to the points in proportion to their height: least squares of the relative error, so that
 * small and large values of a geometric series count alike.
 * @param points at least two, with different x, each y above 0
 */
export function lineThrough(points: readonly (readonly [x: number, y: number])[]): Line {
  let [weights, x1, y1, x2, xy] = [0, 0, 0, 0, 0];
  for (const [x, y] of points) {
    const weight = 1 / y ** 2;
    weights += weight;
    x1 += weight * x;
    y1 += weight * y;
    x2 += weight * x * x;
    xy += weight * x * y;
  }
  const slope = (weights * xy - x1 * y1) / (weights * x2 - x1 * x1);
  return { base: (y1 - slope * x1) / weights, slope };
}

/** Three significant digits, thousands separated. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return "-";
  const digits = Math.abs(value) >= 100 || value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", {
    minimumFractionDigits: Math.min(digits, 4),
    maximumFractionDigits: Math.min(digits, 4),
  });
}

/** `median (min–max)`; the median alone if it was measured once. */
export function formatSpread({ median, min, max, all }: Spread): string {
  if (all.length === 1) return formatNumber(median);
  return `${formatNumber(median)} (${formatNumber(min)}–${formatNumber(max)})`;
}
