/** The made-up sessions of a worker that is loaded while others serve. */
import { expect, test } from "bun:test";
import { parseConfig } from "../../src/config/load.ts";
import { MESSAGES, warmUp } from "../../src/worker/warm-up.ts";

test("warmUp: its messages go all the way through, session after session", () => {
  const config = parseConfig("", "/somewhere/pmilter.toml");
  // The first time is the slow one, and all of it may pass before the second session.
  expect(warmUp(config)).toBeGreaterThan(0);
  expect(warmUp(config) % MESSAGES).toBe(0);
});

test("warmUp: a limit that its messages pass is no failure of the worker", () => {
  expect(warmUp(parseConfig("[limits]\nheaders = 1\n", "/somewhere/pmilter.toml"))).toBe(0);
});
