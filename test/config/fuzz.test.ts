/** Damaged configurations: whatever a text holds, it gives a Config or a ConfigError that points into it. */
import { expect, test } from "bun:test";
import { ConfigError } from "../../src/config/errors.ts";
import { parseConfig } from "../../src/config/load.ts";
import { ORIGINAL } from "./original.ts";

const FILTERS = `
[[filter]]
path = "a.ts"
handler_timeout = 2
options = { a = 1 }
[[filter]]
path = "b.ts"
[filter.options]
x.y = [1, { z = 2 }]
[limits]
packet = 1_048_576
`;
const VALUES = ["1", "-1", "1.5", "nan", "true", '""', '"x"', "[]", "[[]]", "[{}]", "{}", "1979-05-27", "'''\n'''", ""];

test("parseConfig gives a Config or a ConfigError with its place, for 3000 damaged files", () => {
  let state = 1;
  const below = (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const source = (ORIGINAL.replaceAll(".rb", ".ts") + FILTERS).split("\n").filter((line) => !/^\s*(#|$)/.test(line));
  let good = 0;
  for (let round = 0; round < 3000; round++) {
    const lines = [...source];
    for (let damage = 1 + below(3); damage > 0; damage--) {
      const at = below(lines.length);
      const line = lines[at] ?? "";
      const column = below(line.length + 1);
      switch (below(5)) {
        case 0:
          lines.splice(at, 1);
          break;
        case 1:
          lines.splice(below(lines.length), 0, line);
          break;
        case 2:
          lines[at] = line.slice(0, column) + line.slice(column + 1);
          break;
        case 3:
          lines[at] = line.slice(0, column) + String.fromCharCode(below(256)) + line.slice(column);
          break;
        default:
          lines[at] = line.replace(/= .*/, `= ${VALUES[below(VALUES.length)] ?? ""}`);
      }
    }
    const text = lines.join("\n");
    try {
      parseConfig(text, "pmilter.toml", {});
      good++;
    } catch (error) {
      if (!(error instanceof ConfigError)) throw new Error(`on\n${text}`, { cause: error });
      for (const issue of error.issues) {
        expect(issue.line).toBeGreaterThan(0);
        expect(issue.line).toBeLessThanOrEqual(text.split("\n").length);
      }
    }
  }
  // Neither answer may be the only one, or the damage tests nothing.
  expect(good).toBeGreaterThan(100);
  expect(good).toBeLessThan(2900);
});
