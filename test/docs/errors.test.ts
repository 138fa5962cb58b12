/** docs/errors.md against the table of the code, and the table against what the sources throw. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { Glob } from "bun";
import { ERROR_CODES, errorTable } from "../../src/error-codes.ts";
import { page, ROOT } from "./blocks.ts";

const CODE = /PMILTER_ERR_[A-Z_]+/g;
const NAMES = Object.keys(ERROR_CODES) as (keyof typeof ERROR_CODES)[];
const prose = page("docs/errors.md").prose.join("\n");

/** Cells without the padding of the formatter. */
function cells(markdown: string): string[][] {
  return markdown
    .split("\n")
    .filter((line) => line.startsWith("|") && !/^[|: -]+$/.test(line))
    .map((line) => line.split("|").map((cell) => cell.trim()));
}

describe("docs/errors.md", () => {
  test("has the table of each error class, in the order of the code, and no other row", () => {
    // On a difference, these are the tables to put into the page.
    const expected = NAMES.map(errorTable).join("\n\n");
    const order = (rows: readonly string[][]) => rows.toSorted((a, b) => a.join().localeCompare(b.join()));
    expect(order(cells(prose)), `the tables should be\n${expected}`).toEqual(order(cells(expected)));
  });

  test.each(NAMES)("names %s", (name) => {
    expect(prose).toContain(`\`${name}\``);
  });
});

test("every code in the sources is in the table, and every code of the table is in another source", async () => {
  const thrown = new Set<string>();
  for (const file of new Glob("**/*.ts").scanSync(join(ROOT, "src"))) {
    if (file === "error-codes.ts") continue;
    for (const [code] of (await Bun.file(join(ROOT, "src", file)).text()).matchAll(CODE)) thrown.add(code);
  }
  const listed = NAMES.flatMap((name) => Object.keys(ERROR_CODES[name]));
  expect([...thrown].toSorted()).toEqual(listed.toSorted());
});
