/** The pages themselves: every block has a language that is run, links lead somewhere, tables agree with the source. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { type PhaseInfo, PHASE_LIST, type Scope } from "../../src/protocol/phases.ts";
import packageJson from "../../package.json" with { type: "json" };
import { blockOf, LANGUAGES, page, PAGES, placeOf, readPage, ROOT, tableRows } from "./blocks.ts";

describe("readPage", () => {
  test("gives each block with language, text and first line, and the prose without them", () => {
    const { blocks, prose } = readPage("a.md", "one\n```sh\nls\n\npwd\n```\ntwo\n```ts\n```\n");
    expect(blocks).toEqual([
      { language: "sh", text: "ls\n\npwd\n", file: "a.md", line: 3 },
      { language: "ts", text: "", file: "a.md", line: 9 },
    ]);
    expect(prose).toEqual(["one", "", "", "", "", "", "two", "", "", ""]);
  });

  test("lets no block escape: another kind of fence, an indented block, one without an end", () => {
    expect(() => readPage("a.md", "~~~sh\nls\n~~~\n")).toThrow("a.md:1: not a plain fence");
    expect(() => readPage("a.md", "- x\n  ```sh\n  ls\n  ```\n")).toThrow("a.md:2: not a plain fence");
    expect(() => readPage("a.md", "```sh title=x\nls\n```\n")).toThrow("a.md:1: not a plain fence");
    expect(() => readPage("a.md", "text\n\n    ls\n")).toThrow("a.md:3: indented");
    expect(() => readPage("a.md", "text\n```sh\nls\n")).toThrow("a.md:2: this block has no end");
  });
});

test("every block has a language that a test runs", () => {
  const blocks = PAGES.flatMap((each) => each.blocks);
  expect(blocks.length).toBeGreaterThan(20);
  for (const block of blocks) expect(LANGUAGES as readonly string[], placeOf(block)).toContain(block.language);
});

test("README.md shows handlers/stamp.ts as it is", async () => {
  expect(blockOf("ts", "README.md").text).toBe(await Bun.file(join(ROOT, "handlers/stamp.ts")).text());
});

describe.each(PAGES.map(({ file }) => file))("%s", (file) => {
  const { text, prose } = page(file);

  test("links to pages and headings that exist", () => {
    for (const [, target = ""] of prose.join("\n").matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [path = "", heading] = target.split("#");
      const linked = path === "" ? file : join(dirname(file), path);
      expect(existsSync(join(ROOT, linked)), `${file} links to ${target}`).toBe(true);
      if (heading !== undefined) expect(headingsOf(linked), `${file} links to ${target}`).toContain(heading);
    }
  });

  test("names no path of the machine it was written on, and has no placeholder left", () => {
    expect(text.match(/\/(?:work|tmp|root|home|Users)\/\S*|@@\S*|TODO|FIXME/g) ?? []).toEqual([]);
  });

  test("names files and scripts that exist", () => {
    const words = [...prose.join("\n").matchAll(/`([^`\n]+)`/g)].map((match) => match[1]!);
    for (const [, path = ""] of words.map(
      (word) => /^((?:src|handlers|test|bench|docs)\/[\w./-]*)$/.exec(word) ?? [],
    )) {
      if (path !== "") expect(existsSync(join(ROOT, path)), `${file} names ${path}`).toBe(true);
    }
    for (const [, script = ""] of words.map((word) => /^bun run ([\w:-]+)/.exec(word) ?? [])) {
      if (script === "") continue;
      const command = (packageJson.scripts as Record<string, string>)[script];
      expect(command, `${file} names bun run ${script}`).toBeDefined();
      const [, entry] = /\bbun (\S+\.ts)\b/.exec(command!) ?? [];
      if (entry !== undefined) expect(existsSync(join(ROOT, entry)), `bun run ${script} runs ${entry}`).toBe(true);
    }
  });
});

/** GitHub's anchors of a page's headings. */
function headingsOf(file: string): string[] {
  const titles = page(file).prose.flatMap((line) => /^#+ (.*)$/.exec(line)?.[1] ?? []);
  return titles.map((title) =>
    title
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, "")
      .replaceAll(" ", "-"),
  );
}

describe("docs/handlers.md", () => {
  const section = (title: string): string =>
    page("docs/handlers.md")
      .text.split(/^## /m)
      .find((part) => part.startsWith(`${title}\n`)) ?? "";
  const rows = tableRows(section("Phases, in the order of a session")).slice(1);

  test("lists the phases with the verdicts of the table of phases", () => {
    expect(rows.map(([phase, , verdicts]) => [phase, verdicts])).toEqual(
      PHASE_LIST.map(({ name, verdicts }) => [`\`${name}\``, inWords(verdicts)]),
    );
  });

  test("says what a refusal is for", () => {
    const words: Record<Scope, RegExp> = {
      connection: /^the connection$/,
      message: /^the message$/,
      recipient: /^this recipient/,
      none: /^(?:the command: only its error text)?$/,
    };
    for (const { name, scope } of PHASE_LIST) {
      const row = rows.find(([phase]) => phase === `\`${name}\``);
      expect(row?.[3], name).toMatch(words[scope]);
    }
  });

  test("explains each verdict", () => {
    const calls = tableRows(section("Verdicts"))
      .slice(1)
      .map(([call = ""]) => /^`(\w+)\((?:text\?)?\)`$/.exec(call)?.[1]);
    const verdicts = new Set(PHASE_LIST.flatMap((phase) => [...phase.verdicts]));
    expect(calls.toSorted()).toEqual([...verdicts].toSorted());
  });
});

test("README.md names each phase", () => {
  const [, names = ""] = /`(connect helo [a-z ]+)`/.exec(page("README.md").text) ?? [];
  expect(names.split(" ").toSorted()).toEqual(PHASE_LIST.map(({ name }) => name as string).toSorted());
});

function inWords(verdicts: PhaseInfo["verdicts"]): string {
  return verdicts.length === 0 ? "none" : verdicts.map((verdict) => `\`${verdict}\``).join(" ");
}
