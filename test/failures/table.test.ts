/** The rows of docs/failures.md and the tests that show them are the same. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { SERVER_COUNTERS, WORKER_COUNTERS } from "../../src/counters.ts";
import { page, ROOT } from "../docs/blocks.ts";

/** Cells of the tables whose first column is an id. */
const ROWS = page("docs/failures.md")
  .prose.filter((line) => line.startsWith("| `"))
  .map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  )
  .filter((cells) => cells.length === 6);
const IDS = ROWS.map(([id]) => id!.replaceAll("`", ""));

/** What stands before the first colon of the names of tests, and the names in tables of `each`. */
const named = new Set(
  [...new Glob("test/**/*.test.ts").scanSync({ cwd: ROOT })].flatMap((file) =>
    [...readFileSync(join(ROOT, file), "utf8").matchAll(/["`]([a-z]+(?:-[a-z]+)*)(?:: |",)/g)].map(
      (match) => match[1]!,
    ),
  ),
);

test("each row has a test of its name", () => {
  expect(ROWS.length).toBeGreaterThan(45);
  expect(new Set(IDS).size).toBe(IDS.length);
  expect(IDS.filter((id) => !named.has(id))).toEqual([]);
});

test("the counters of a row exist", () => {
  const known = new Set<string>([...WORKER_COUNTERS, ...SERVER_COUNTERS]);
  const counters = ROWS.flatMap((cells) => [...cells[4]!.matchAll(/`(\w+)`/g)].map((match) => match[1]!));
  expect(counters.filter((counter) => !known.has(counter))).toEqual([]);
});
