/** docs/configuration.md against the schema: its tables, its examples, and the messages it shows. */
import { describe, expect, test } from "bun:test";
import { dirname } from "node:path";
import { parse } from "smol-toml";
import { parseAddress } from "../../src/config/address.ts";
import { parseConfig } from "../../src/config/load.ts";
import { defaultInWords, type KeyInfo, referenceTable, TABLES, tableHeader } from "../../src/config/reference.ts";
import { PHASE_NAMES } from "../../src/protocol/phases.ts";
import { cells } from "../support/markdown.ts";
import { FILE, failureOf } from "./failure.ts";

const page = await Bun.file(new URL("../../docs/configuration.md", import.meta.url)).text();
const tables = TABLES.filter((table) => table.keys.size > 0);
const blocks = (language: string): string[] =>
  [...page.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))].map((match) => match[1] ?? "");

/** The rows of the Markdown tables of a section, cell by cell. */
function rowsOf(heading: string): string[][] {
  const section = page.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? "";
  return cells(section);
}

describe("docs/configuration.md", () => {
  for (const table of tables) {
    const header = tableHeader(table);
    test(`${header} lists the keys of the schema with default, unit and meaning`, () => {
      const documented = rowsOf(table.path.length === 0 ? "Included files" : `\`${header}\``).filter(
        (row) => row.length === 4,
      );
      const reference = referenceTable(table);
      // On a difference, this is the text to put into the page.
      expect(documented, `the table of ${header} should be\n${reference}`).toEqual(cells(reference));
    });
  }

  test("names every alias of the original", () => {
    const documented = rowsOf("The original's `pmilter.conf`").slice(1);
    const expanded = documented.flatMap((row) =>
      row[0]?.includes("PHASE") ? PHASE_NAMES.map((phase) => row.map((cell) => cell.replace("PHASE", phase))) : [row],
    );
    const aliases = tables.flatMap((table) =>
      [...table.keys.values()]
        .filter((key) => key.alias !== undefined)
        .map((key) => [key.alias, key.name].map((name) => `\`${[...table.path, name].join(".")}\``)),
    );
    expect(expanded.toSorted()).toEqual(aliases.toSorted());
  });

  test("shows listen addresses that can be read", () => {
    const examples = rowsOf("`[server]`")
      .filter((row) => row.length === 3)
      .slice(1);
    expect(examples.length).toBeGreaterThan(3);
    for (const [, example = ""] of examples) expect(() => parseAddress(JSON.parse(example.slice(1, -1)))).not.toThrow();
  });

  test("has examples that load", () => {
    expect(blocks("toml").length).toBeGreaterThan(3);
    for (const block of blocks("toml")) expect(parseConfig(block, "/etc/pmilter.toml", {}).notices).toEqual([]);
  });

  test("has a complete example, with every key and the defaults", () => {
    const example = parse(blocks("toml").at(-1) ?? "");
    for (const table of tables) {
      const found = table.path.reduce<unknown>((value, name) => {
        const inner: unknown = Array.isArray(value) ? value[0] : value;
        return (inner as Record<string, unknown>)[name];
      }, example);
      // A filter has either `path` or `use`: all filters together have every key.
      const values = (table.isList ? Object.assign({}, ...(found as object[]).toReversed()) : found) as Record<
        string,
        unknown
      >;
      const names = Object.keys(values).filter((name) => !table.tables.has(name));
      expect(names.toSorted()).toEqual([...table.keys.keys()].toSorted());
      for (const key of table.keys.values()) {
        if (key.default !== undefined && key.name !== "options") expect(values[key.name]).toEqual(key.default);
      }
    }
  });

  test("shows messages as they are", () => {
    const [shown = ""] = blocks("text");
    const lines = [...shown.matchAll(/^ +\d+ \| (.*)$/gm)].map((match) => match[1]);
    const error = failureOf(`\n[server]\n${lines.join("\n")}\n`);
    expect(shown.replaceAll(/^(?=pmilter\.toml:)/gm, `${dirname(FILE)}/`)).toBe(`${error.message}\n`);
  });
});

describe("reference", () => {
  test("every key has a description", () => {
    for (const table of tables) {
      for (const key of table.keys.values()) expect(key.description, key.name).toEndWith(".");
    }
  });

  test("a default is shown as it would be written, or in words", () => {
    const key: KeyInfo = { name: "x", description: "X.", default: undefined };
    expect(defaultInWords(key)).toBe("-");
    expect(defaultInWords({ ...key, unset: "all" })).toBe("all");
    expect(defaultInWords({ ...key, default: "auto" })).toBe('`"auto"`');
    expect(defaultInWords({ ...key, default: 8 })).toBe("`8`");
  });
});
