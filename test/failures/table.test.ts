/** The rows of docs/failures.md and the tests that show them are the same. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { SERVER_COUNTERS, WORKER_COUNTERS } from "../../src/counters.ts";
import { ROOT } from "../docs/blocks.ts";
import { ROWS } from "./support.ts";

setDefaultTimeout(120_000);

const IDS = ROWS.map(({ id }) => id);

/** What stands before the first colon of the names of tests, and the names in tables of `each`. */
const named = new Set(
  [...new Glob("test/**/*.test.ts").scanSync({ cwd: ROOT })].flatMap((file) =>
    [...readFileSync(join(ROOT, file), "utf8").matchAll(/["`]([a-z]+(?:-[a-z0-9]+)*)(?:: |",)/g)].map(
      (match) => match[1]!,
    ),
  ),
);

test("each row has a test of its name", () => {
  expect(ROWS.length).toBeGreaterThan(45);
  expect(new Set(IDS).size).toBe(IDS.length);
  expect(IDS.filter((id) => !named.has(id))).toEqual([]);
});

test("each test of this folder has a row", () => {
  const files = [...new Glob("*.test.ts").scanSync({ cwd: import.meta.dir })].filter(
    (file) => file !== "table.test.ts",
  );
  const text = files.map((file) => readFileSync(join(import.meta.dir, file), "utf8")).join("");
  // The name is what `test`, or a call of it such as `test.each(…)`, is called with.
  const names = [...text.matchAll(/^(?:.*\btest|.*\))\(\s*"([^"]*)",\s*(?:async )?\(/gm)].map((match) => match[1]!);
  expect(names.length).toBeGreaterThan(30);
  const hasRow = (name: string) => IDS.includes(/^([a-z0-9-]+): \S/.exec(name)?.[1] ?? "");
  // Those of an `each` over rows, and those within a `describe` of one.
  const isOfGroup = (name: string) => /^%s: |^a handler that fails by %s/.test(name);
  expect(names.filter((name) => !hasRow(name) && !isOfGroup(name))).toEqual([]);
});

test("the counters of a row exist", () => {
  const known = new Set<string>([...WORKER_COUNTERS, ...SERVER_COUNTERS]);
  const counters = ROWS.flatMap((row) => [...row.counters.matchAll(/`(\w+)`/g)].map((match) => match[1]!));
  expect(counters.filter((counter) => !known.has(counter))).toEqual([]);
});
