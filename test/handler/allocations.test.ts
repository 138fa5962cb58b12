/** What a message with synchronous handlers costs in objects: no closure, no promise, no timer. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";

setDefaultTimeout(120_000);

const MESSAGES = 200;

/** In a process of its own, whose collector takes nothing away: what is there afterwards was made. */
test("a message that runs through ten handlers and is changed makes no function and no promise", async () => {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "allocations-child.ts"), String(MESSAGES)], {
    env: { ...process.env, BUN_JSC_useGC: "0" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const made = (await child.stdout.json()) as Record<string, number>;
  expect(await child.exited).toBe(0);
  expect(made["Function"] ?? 0).toBe(0);
  expect(made["Promise"] ?? 0).toBe(0);
  // The scope of a closure, which a function that may make one allocates whether it does or not.
  expect(made["JSLexicalEnvironment"] ?? 0).toBe(0);
  // It does count: a message has strings.
  expect(made["string"] ?? 0).toBeGreaterThan(MESSAGES);
});
