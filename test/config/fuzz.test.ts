/** Damaged configurations: whatever a text holds, it gives a Config or a ConfigError that points into it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { ConfigError } from "../../src/config/errors.ts";
import { parseConfig } from "../../src/config/load.ts";
import { forSeeds } from "../protocol/random.ts";
import { damagedConfig } from "./damaged.ts";

setDefaultTimeout(120_000);

test("parseConfig gives a Config or a ConfigError with its place, for 3000 damaged files", () => {
  let good = 0;
  forSeeds(3000, (random) => {
    const text = damagedConfig(random);
    try {
      parseConfig(text, "/etc/pmilter.toml", {});
      good++;
    } catch (error) {
      if (!(error instanceof ConfigError)) throw new Error(`on\n${text}`, { cause: error });
      for (const issue of error.issues) {
        expect(issue.line).toBeGreaterThan(0);
        expect(issue.line).toBeLessThanOrEqual(text.split("\n").length);
      }
    }
  });
  // Neither answer may be the only one, or the damage tests nothing.
  expect(good).toBeGreaterThan(100);
  expect(good).toBeLessThan(2900);
});
