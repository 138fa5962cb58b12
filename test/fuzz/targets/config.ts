/**
 * Configuration texts, from slips of the hand to noise: a Config, or a ConfigError whose faults each point into the text
 * and whose message a terminal can show.
 */
import { ConfigError } from "../../../src/config/errors.ts";
import { parseConfig } from "../../../src/config/load.ts";
import { damagedConfig } from "../../config/damaged.ts";
import type { Random } from "../../protocol/random.ts";
import { must, type Target } from "../target.ts";

const PIECES = [
  "[server]",
  "[[filter]]",
  "[filter.options]",
  "[handler.session]",
  "listen = ",
  "allow = ",
  "on_error = ",
  '"a.ts"',
  '["10.0.0.0/8", "::1"]',
  '"unix:x"',
  '"inet:127.0.0.1:0"',
  "{ a = ",
  "}",
  "[",
  "]",
  '"""',
  "'''",
  "__proto__",
  "constructor",
  '"\\u001b[2J"',
  '"\\n" = 1',
  "# \x1b",
  "\u2028",
  "\ufeff",
  "\0",
  "é",
  "9007199254740993",
  "1e999",
  "07:32:00",
  "=",
  ".",
  ",",
  "\\",
  "\r\n",
  "\n",
  "\n",
] as const;

/** Further damage to a text: pieces of TOML and of what breaks terminals, copies, cuts. */
function damagedText(random: Random): string {
  let text = random.chance(0.9) ? damagedConfig(random) : "";
  for (let count = random.below(5); count > 0; count--) {
    const at = random.below(text.length + 1);
    const end = at + random.below(random.pick([2, 10, 60]));
    switch (random.below(4)) {
      case 0:
        text = text.slice(0, at) + text.slice(end);
        break;
      case 1:
        text = text.slice(0, end) + text.slice(at);
        break;
      case 2:
        text = text.slice(0, at) + random.pick(PIECES).repeat(random.chance(0.02) ? 300 : 1) + text.slice(at);
        break;
      default:
        text = `${text}\n${random.pick(PIECES)}${random.pick(PIECES)}${random.pick(PIECES)}`;
    }
  }
  return text;
}

export const configTarget: Target = {
  name: "config",
  unit: "line",
  generate: (random) => Buffer.from(damagedText(random), "utf8"),
  check(input) {
    const text = new TextDecoder().decode(input);
    const lines = text.split("\n").length;
    try {
      parseConfig(text, "pmilter.toml", {});
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      must(error.issues.length > 0, "no fault is named");
      for (const { line, text: what } of error.issues) {
        must(line !== undefined && line >= 1 && line <= lines, () => `line ${line} of ${lines}: ${what}`);
      }
      // oxlint-disable-next-line no-control-regex
      const control = /[^\n\t\P{Cc}]/u.exec(error.message);
      must(control === null, () => `a control character in ${JSON.stringify(error.message)}`);
    }
  },
};
