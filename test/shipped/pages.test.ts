/** The page of each shipped filter against the schema of its options, and its examples against the server's own reading. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import * as headerRules from "../../handlers/lib/header-rules.ts";
import { parseConfig } from "../../src/config/load.ts";
import { defaultInWords, describeKey, type Node } from "../../src/config/reference.ts";
import { SHIPPED, SHIPPED_NAMES, type ShippedName } from "../../src/shipped.ts";
import { cells } from "../support/markdown.ts";
import { ROOT } from "../support/pmilter.ts";

/** A row for each option, those of tables and of tables in lists behind them, in the order of the schema. */
function rowsOf(entries: Node["entries"] = {}, prefix = ""): string[][] {
  return Object.entries(entries).flatMap(([name, node]) => {
    const key = describeKey(name, node);
    const { entries: own, item } = node.wrapped ?? node;
    const nested = item?.entries ?? own;
    const row = [`\`${prefix}${name}\``, defaultInWords(key), key.description];
    return [row].concat(nested === undefined ? [] : rowsOf(nested, `${prefix}${name}.`));
  });
}

const HEAD = ["option", "default", "meaning"];

/** The tables of a filter's page that its schema makes. */
async function tablesOf(name: ShippedName): Promise<string[][][]> {
  const { options } = (await SHIPPED[name]()) as unknown as { options: Node };
  const rows = rowsOf(options.entries);
  if (name !== "header-policy") return [rows];
  const { AUTHENTICATION, COMMON } = headerRules as unknown as Record<string, Node["entries"]>;
  return [[...rows, ...rowsOf(COMMON, "rules.")], rowsOf(AUTHENTICATION)];
}

const markdown = (rows: readonly string[][]) =>
  [HEAD, HEAD.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`);

test("each shipped filter has its name, its page and a schema", async () => {
  for (const name of SHIPPED_NAMES) {
    const { default: filter } = (await SHIPPED[name]()) as { default: { name?: string; options?: unknown } };
    expect(filter.name).toBe(name);
    expect(filter.options).toBeDefined();
  }
});

describe.each(SHIPPED_NAMES)("docs/handlers/%s.md", (name) => {
  const file = join(ROOT, "docs", "handlers", `${name}.md`);

  test("has the options of the schema, with defaults and meanings", async () => {
    const page = await Bun.file(file).text();
    for (const rows of await tablesOf(name)) {
      const start = cells(page).findIndex(([option]) => option === rows[0]![0]);
      const table = cells(page).slice(start, start + rows.length);
      // On a difference, this is the text to put into the page.
      expect(table, `a table of docs/handlers/${name}.md should be\n${markdown(rows).join("\n")}`).toEqual(rows);
    }
    const listed = (await tablesOf(name)).flat().map(([option]) => option);
    const documented = cells(page)
      .filter((row) => row.length === 3 && row[0]!.startsWith("`"))
      .map(([option]) => option);
    expect(documented.toSorted()).toEqual(listed.toSorted());
  });

  test("uses the filter by its name, in a configuration that can be read", async () => {
    const page = await Bun.file(file).text();
    const examples = [...page.matchAll(/^```toml\n(.*?)^```$/gms)].map(([, text]) => text!);
    expect(examples.length).toBeGreaterThan(0);
    const [filter] = parseConfig(examples[0]!, join(ROOT, "pmilter.toml"), {}).filters;
    expect(filter).toMatchObject({ use: name, path: null });
  });
});
