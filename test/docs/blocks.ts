/**
 * The pages of the documentation and the code blocks in them. It only reads: what a block means, and whether it is
 * true, is for the tests of its language.
 */
import { readFileSync } from "node:fs";
import { Glob } from "bun";
import { join } from "node:path";

export const ROOT = join(import.meta.dir, "..", "..");

/** Each language has a test file beside this one that runs all its blocks. */
export const LANGUAGES = ["ini", "m4", "ruby", "sh", "text", "toml", "ts"] as const;
export type Language = (typeof LANGUAGES)[number];

export interface Block {
  readonly language: string;
  /** With a line end after each line. */
  readonly text: string;
  /** The page, relative to the repository. */
  readonly file: string;
  /** Of its first line of text, counted from 1. */
  readonly line: number;
}

export interface Page {
  readonly file: string;
  readonly text: string;
  readonly blocks: readonly Block[];
  /** The lines outside of blocks; a block's lines are empty, so that the numbers stay. */
  readonly prose: readonly string[];
}

/** README.md, the pages below docs, and bench/README.md when it is there. */
export const PAGES: readonly Page[] = [
  "README.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  "test/README.md",
  "docs/*.md",
  "docs/handlers/*.md",
  "docs/cookbook/*.md",
  "bench/README.md",
]
  .flatMap((pattern) => [...new Glob(pattern).scanSync({ cwd: ROOT })].toSorted())
  .map((file) => readPage(file, readFileSync(join(ROOT, file), "utf8")));

export function page(file: string): Page {
  const found = PAGES.find((page) => page.file === file);
  if (found === undefined) throw new Error(`no page ${file}`);
  return found;
}

/** The blocks of a language, in the order of the pages; of one page with `file`. */
export function blocksOf(language: Language, file?: string): readonly Block[] {
  return (file === undefined ? PAGES : [page(file)]).flatMap(({ blocks }) =>
    blocks.filter((block) => block.language === language),
  );
}

/** The nth block of that language of a page, from 0. */
export function blockOf(language: Language, file: string, index = 0): Block {
  const block = blocksOf(language, file)[index];
  if (block === undefined) throw new Error(`${file} has no block ${index} in ${language}`);
  return block;
}

/** For the name of a test. */
export function placeOf({ file, line }: Block): string {
  return `${file}:${line}`;
}

/**
 * Only fences of three backticks at the start of a line count. Any other way to write code is an error, since a block
 * that is not seen here would be run by nobody.
 * @throws Error with file and line
 */
export function readPage(file: string, text: string): Page {
  const blocks: Block[] = [];
  const prose: string[] = [];
  let open: { language: string; line: number; lines: string[] } | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    prose.push("");
    if (open === undefined) {
      const fence = /^```(\S*)$/.exec(line);
      if (fence !== null) open = { language: fence[1]!, line: index + 2, lines: [] };
      else if (/^\s*(?:>\s*)?(?:```|~~~)/.test(line))
        throw new Error(`${file}:${index + 1}: not a plain fence: ${line}`);
      else if (/^(?: {4,}|\t)(?![-*\d])/.test(line)) throw new Error(`${file}:${index + 1}: indented, use a fence`);
      else prose[index] = line;
    } else if (line === "```") {
      blocks.push({
        language: open.language,
        text: open.lines.map((each) => `${each}\n`).join(""),
        file,
        line: open.line,
      });
      open = undefined;
    } else {
      open.lines.push(line);
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line - 1}: this block has no end`);
  return { file, text, blocks, prose };
}

/** The rows of all Markdown tables in a text, cell by cell, without the line below the head. */
export function tableRows(markdown: string): string[][] {
  return markdown
    .split("\n")
    .filter((line) => line.startsWith("|") && !/^\|[ :|-]+$/.test(line))
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}
