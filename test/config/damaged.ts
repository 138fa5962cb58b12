/** Configurations with damage, made at random from one that is right: for property tests and the fuzzer. */
import type { Random } from "../protocol/random.ts";
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

const SOURCE = (ORIGINAL + FILTERS).split("\n").filter((line) => !/^\s*(#|$)/.test(line));

/** One to three faults, each a slip of the hand: a line lost or doubled, a character lost or added, another value. */
export function damagedConfig(random: Random): string {
  const lines = [...SOURCE];
  for (let damage = 1 + random.below(3); damage > 0; damage--) {
    const at = random.below(lines.length);
    const line = lines[at] ?? "";
    const column = random.below(line.length + 1);
    switch (random.below(5)) {
      case 0:
        lines.splice(at, 1);
        break;
      case 1:
        lines.splice(random.below(lines.length), 0, line);
        break;
      case 2:
        lines[at] = line.slice(0, column) + line.slice(column + 1);
        break;
      case 3:
        lines[at] = line.slice(0, column) + String.fromCharCode(random.below(256)) + line.slice(column);
        break;
      default:
        lines[at] = line.replace(/= .*/, () => `= ${random.pick(VALUES)}`);
    }
  }
  return lines.join("\n");
}
