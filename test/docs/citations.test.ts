/**
 * What comments cite: pages of the repository with the names of their sections, as in `docs/protocol.md, "Macros"`, and
 * nothing outside of it but RFCs and the names of libmilter, Postfix and Sendmail.
 */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { Glob } from "bun";
import { join } from "node:path";
import { readPage, ROOT } from "./blocks.ts";

interface Comment {
  /** Of its file and first line. */
  readonly place: string;
  /** In one line, without the marks of a comment. */
  readonly text: string;
}

const FILES = ["{src,test,bench,soak,handlers}/**/*.{ts,c}", ".ci/*"].flatMap((pattern) =>
  [...new Glob(pattern).scanSync({ cwd: ROOT, dot: true })].toSorted(),
);

/** The comments of a source; lines of `//` or `#` that follow each other are one. */
function commentsOf(file: string, source: string): Comment[] {
  const line = file.startsWith(".ci/") ? "#" : "//";
  const pattern = new RegExp(`/\\*[^]*?\\*/|(?<=^|\\s)${line} .*(?:\\n\\s*${line} .*)*`, "gm");
  return [...source.matchAll(pattern)].map(({ 0: raw, index }) => ({
    place: `${file}:${source.slice(0, index).split("\n").length}`,
    text: raw
      .replaceAll(/^\s*(?:\/\*\*?|\*\/|\*(?!\/)|\/\/|#)/gm, " ")
      .replace("*/", "")
      .replaceAll(/\s+/g, " ")
      .trim(),
  }));
}

/** A page, alone or with one of its sections. */
const CITATION = /(?<page>[\w./-]+\.md)\b(?:`?, "(?<section>[^"]+)")?/g;

/** How documents are cited that a reader of the repository does not have. */
const OUTSIDE = [
  /\b(?:design|contract|house|findings|notes?|document)\b,? \(?\d/i,
  /\bprotocol (?:document|notes|reference)\b/i,
  /\b(?:of|by|in|from) the (?:design|contract|document)\b/i,
  /(?<!RFC \d+,? )\bsections? \d/i,
  /(?<!(?:RFC|Unicode|Postfix|Sendmail|Bun)\b[^()]{0,40})\(\d{1,2}\.\d{1,2}\)/,
];

const COMMENTS = FILES.flatMap((file) => commentsOf(file, readFileSync(join(ROOT, file), "utf8")));

test("a page that a comment names exists, and has the section", () => {
  const sections = new Map<string, ReadonlySet<string>>();
  const wrong: string[] = [];
  let cited = 0;
  for (const { place, text } of COMMENTS) {
    for (const { groups } of text.matchAll(CITATION)) {
      const { page = "", section } = groups!;
      if (!sections.has(page)) sections.set(page, headingsOf(page));
      const isThere = section === undefined ? existsSync(join(ROOT, page)) : sections.get(page)!.has(section);
      if (!isThere) wrong.push(`${place}: ${page}, ${section}`);
      if (section !== undefined) cited += 1;
    }
  }
  expect(wrong).toEqual([]);
  expect(cited).toBeGreaterThan(30);
});

test("no comment cites a document that is not in the repository", () => {
  const outside = COMMENTS.filter(({ text }) => OUTSIDE.some((form) => form.test(text)));
  expect(outside).toEqual([]);
});

test.each([
  ["(design 2.2).", true],
  ["the rules of design 1.3", true],
  ["the examples of the design (1.3)", true],
  ["protocol document 6.2", true],
  ["of the protocol document, section 9", true],
  ["section 6.2 of the protocol notes", true],
  ["made the session up (13.4).", true],
  ["RFC 5322 section 2.2", false],
  ["(RFC 5322 4.3)", false],
  ["Bun reports it as ECONNREFUSED (1.4.5)", false],
  ["the design of a page", false],
])("%s: cites a document outside: %p", (text, isOutside) => {
  expect(OUTSIDE.some((form) => form.test(text))).toBe(isOutside);
});

test("comments are found in all their forms, over several lines", () => {
  const source = `/** One. */\nconst a = 1; // docs/protocol.md,\n  // "Macros"\n/*\n * Two\n * lines.\n */\n`;
  expect(commentsOf("a.ts", source)).toEqual([
    { place: "a.ts:1", text: "One." },
    { place: "a.ts:2", text: 'docs/protocol.md, "Macros"' },
    { place: "a.ts:4", text: "Two lines." },
  ]);
  expect(commentsOf(".ci/run", "ls # docs/log.md\n")).toEqual([{ place: ".ci/run:1", text: "docs/log.md" }]);
});

/** None if there is no such page. */
function headingsOf(file: string): ReadonlySet<string> {
  if (!existsSync(join(ROOT, file))) return new Set();
  const { prose } = readPage(file, readFileSync(join(ROOT, file), "utf8"));
  return new Set(prose.flatMap((line) => /^#+ (.*)$/.exec(line)?.[1] ?? []).map((title) => title.replaceAll("`", "")));
}
