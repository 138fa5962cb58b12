/** docs/bun.md: each workaround is in the code that it names, and each of its tests is there. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { page, ROOT, tableRows } from "./blocks.ts";

const ROWS = page("docs/bun.md")
  .text.split(/^## /m)
  .flatMap((section) => {
    const [title = ""] = section.split("\n", 1);
    return tableRows(section)
      .slice(1)
      .map((row) => ({ section: title, code: row[0]!, shownBy: row.at(-1)! }));
  });

const read = (file: string) => Bun.file(join(ROOT, file)).text();

describe.each(ROWS)("$section: $code, $shownBy", ({ code, section, shownBy }) => {
  test("the code cites the section", async () => {
    const source = (await read(code.replaceAll("`", ""))).replaceAll(/\n\s*(?:\*|\/\/)/g, "").replaceAll(/\s+/g, " ");
    expect(source).toContain(`docs/bun.md, "${section}"`);
  });

  test("the test is there", async () => {
    if (/^none: \w/.test(shownBy)) return;
    const [, file = "", title = ""] = /^`([^`]+)`: (.+)$/.exec(shownBy) ?? [];
    expect(await read(file)).toContain(title);
  });
});
