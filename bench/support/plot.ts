/** The data of a plot on the results page. `bench/page` draws it. */
import type { Spread } from "./stats.ts";

export interface Series {
  readonly name: string;
  /** A value for each category of the plot; null where nothing was measured. */
  readonly values: readonly (Spread | null)[];
}

export interface Plot {
  /** Of its file, without the extension. */
  readonly name: string;
  readonly title: string;
  /** Bars lie below each other, with their spread; lines go from category to category. */
  readonly kind: "bars" | "lines";
  readonly scale: "linear" | "log";
  /** The label of the values' axis. */
  readonly unit: string;
  /** The label of the categories' axis; bars need none. */
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
