/** What a suite gives to be drawn on the results page. How it is drawn is `bench/page`'s. */
import type { Spread } from "./stats.ts";

export interface Series {
  readonly name: string;
  /** One for each category of the plot; null where nothing was measured. */
  readonly values: readonly (Spread | null)[];
}

export interface Plot {
  /** Of its file, without the extension. */
  readonly name: string;
  readonly title: string;
  /** Bars lie, one below the other, with their spread; lines go from category to category. */
  readonly kind: "bars" | "lines";
  readonly scale: "linear" | "log";
  /** What the values are, at their axis. */
  readonly unit: string;
  /** What the categories are, at theirs; bars say it themselves. */
  readonly axis?: string;
  readonly categories: readonly string[];
  readonly series: readonly Series[];
}

/** A bar for each name. */
export function barPlot(
  head: Pick<Plot, "name" | "title" | "scale" | "unit">,
  bars: readonly (readonly [name: string, value: Spread | null])[],
): Plot {
  return {
    ...head,
    kind: "bars",
    categories: bars.map(([name]) => name),
    series: [{ name: head.unit, values: bars.map(([, value]) => value) }],
  };
}
