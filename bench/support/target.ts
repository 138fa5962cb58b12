/** A target of the project as a figure, and whether a run reaches it. Pure. */
import { formatNumber, formatSpread, type Spread } from "./stats.ts";
import type { Table } from "./table.ts";

export type Bound = readonly [relation: "at most" | "at least" | "below" | "above", value: number];

export interface Target {
  readonly what: string;
  readonly bound: Bound;
  /** Null: not measured in this run. */
  readonly figure: Spread | null;
  /** The subject of the figure, or why there is none. */
  readonly note?: string;
}

export type Judgement = "reached" | "not reached" | "not measured";

function holds(value: number, [relation, bound]: Bound): boolean {
  switch (relation) {
    case "at most":
      return value <= bound;
    case "at least":
      return value >= bound;
    case "below":
      return value < bound;
    case "above":
      return value > bound;
    default:
      return relation satisfies never;
  }
}

/** The median decides. */
export function judge({ figure, bound }: Target): Judgement {
  if (figure === null) return "not measured";
  return holds(figure.median, bound) ? "reached" : "not reached";
}

/** True if not every round came to the same judgement: the noise is as large as the distance to the target. */
export function isClose({ figure, bound }: Target): boolean {
  return figure !== null && new Set(figure.all.map((value) => holds(value, bound))).size > 1;
}

export function targetTable(targets: readonly Target[]): Table {
  return {
    title: "targets of the project",
    columns: ["target", "wanted", "measured", "", "of"],
    rows: targets.map((target) => [
      target.what,
      `${target.bound[0]} ${formatNumber(target.bound[1])}`,
      target.figure === null ? "-" : formatSpread(target.figure),
      judge(target) + (isClose(target) ? ", in some rounds otherwise" : ""),
      target.note ?? "",
    ]),
    notes: ["the median decides; each figure is a ratio taken round by round"],
  };
}
