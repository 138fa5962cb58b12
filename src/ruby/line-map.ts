/** Which line of a source a place in the code generated from it stands for. Plain data: it travels between threads. */
import type { CodeFragment } from "./opal.ts";

/** Numbers in fours, in the order of the generated code: line and column there, line and column in the source, from 1. */
export type LineMap = readonly number[];

const FIELDS = 4;

export function lineMapOf(fragments: readonly CodeFragment[]): LineMap {
  const map: number[] = [];
  let line = 1;
  let column = 1;
  for (const fragment of fragments) {
    const code = fragment.$code();
    const sourceLine = fragment.$line();
    const sourceColumn = fragment.$column();
    if (typeof sourceLine === "number" && code.trim() !== "") {
      map.push(line, column, sourceLine, typeof sourceColumn === "number" ? sourceColumn + 1 : 0);
    }
    const lines = code.split("\n");
    line += lines.length - 1;
    column = lines.length === 1 ? column + code.length : lines.at(-1)!.length + 1;
  }
  return map;
}

/** The place in the source for a place in the generated code; line 0 if no earlier code has a place. */
export function locate(map: LineMap, line: number, column: number): { line: number; column: number } {
  let low = 0;
  let high = map.length / FIELDS;
  while (low < high) {
    const middle = (low + high) >> 1;
    const at = middle * FIELDS;
    const isBehind = map[at]! > line || (map[at] === line && map[at + 1]! > column);
    if (isBehind) high = middle;
    else low = middle + 1;
  }
  const at = (low - 1) * FIELDS;
  return { line: map[at + 2] ?? 0, column: map[at + 3] ?? 0 };
}
