/**
 * Where a key stands in a TOML text. It reads a document that smol-toml has accepted, keeps positions and no values,
 * and judges nothing: smol-toml gives values without their places.
 */
import { parse } from "smol-toml";
import { show } from "./errors.ts";

export interface Position {
  /** 1-based. */
  readonly line: number;
  /** 1-based, in UTF-16 units. */
  readonly column: number;
}

/** The way to a value: table and key names, and 0-based indexes into lists. */
export type KeyPath = readonly (string | number)[];

/**
 * The place of the key, list entry or table header that `path` names; of the nearest enclosing table or list when it is
 * not written in the text; undefined when none of them is.
 *
 * @param text a valid TOML document
 */
export function locate(text: string, path: KeyPath): Position | undefined {
  return locator(text)(path);
}

/** As `locate`, for several paths of a text. */
export function locator(text: string): (path: KeyPath) => Position | undefined {
  const offsets = new Scanner(text).run();
  return (path) => {
    for (let length = path.length; length > 0; length--) {
      const offset = offsets.get(JSON.stringify(path.slice(0, length)));
      if (offset !== undefined) return positionAt(text, offset);
    }
    return undefined;
  };
}

/** The name that is defined again at a place that smol-toml gives, and where it was defined first. */
export interface Redefinition {
  readonly path: KeyPath;
  readonly first: Position;
  readonly at: Position;
}

/**
 * @param text valid up to `offset`
 * @param offset in the key, or in the brackets of the table, that is the second of its name
 */
export function redefinition(text: string, offset: number): Redefinition | undefined {
  const scanner = new Scanner(text);
  scanner.run(offset);
  const last = scanner.repeated.findLast(({ at }) => at <= offset);
  return last && { path: last.path, first: positionAt(text, last.first), at: positionAt(text, last.at) };
}

/** A path in words: `server.workers`, `server.listen: entry 2`, `filter 1: handler_timeout`. */
export function pathInWords(path: KeyPath): string {
  let words = "";
  for (const [index, part] of path.entries()) {
    if (typeof part === "number") words += index === 1 && words !== "include" ? ` ${part + 1}` : `: entry ${part + 1}`;
    else if (index > 0) words += `${typeof path[index - 1] === "number" ? ": " : "."}${bareKey(part)}`;
    else words = bareKey(part);
  }
  return words;
}

function bareKey(name: string): string {
  return /^[\w-]+$/.test(name) ? name : show(name);
}

function positionAt(text: string, offset: number): Position {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf("\n") + 1;
  return { line: before.split("\n").length, column: offset - lineStart + 1 };
}

/** A single pass over the text. Every method starts at `at` and leaves it behind the text that it has read. */
class Scanner {
  private readonly text: string;
  private at = 0;
  /** Path as JSON, which tells the key "0" from the index 0, to offset. The first mention of a table wins. */
  private readonly offsets = new Map<string, number>();
  /** How many `[[…]]` headers each array of tables has had. */
  private readonly counts = new Map<string, number>();
  /** Mentions of a path that was there before, in the order of the text. */
  readonly repeated: { readonly path: KeyPath; readonly first: number; readonly at: number }[] = [];

  constructor(text: string) {
    this.text = text;
  }

  /** @param end the last place that is of interest */
  run(end = this.text.length - 1): ReadonlyMap<string, number> {
    let table: KeyPath = [];
    for (this.skipVoid(); this.at <= end; this.skipVoid()) {
      const start = this.at;
      if (this.text[start] === "[") table = this.header();
      else this.pair(table);
      // No valid document comes here; for any other, a rough place is better than no end.
      if (this.at <= start) break;
    }
    return this.offsets;
  }

  private record(path: KeyPath, offset: number): void {
    const key = JSON.stringify(path);
    const first = this.offsets.get(key);
    if (first === undefined) this.offsets.set(key, offset);
    else if (first !== offset) this.repeated.push({ path, first, at: offset });
  }

  /** `[a.b]` or `[[a.b]]`; returns the path of the table that follows, with the indexes of arrays of tables. */
  private header(): KeyPath {
    const start = this.at;
    const isList = this.text.startsWith("[[", start);
    this.at += isList ? 2 : 1;
    const names = this.key();
    this.at += isList ? 2 : 1;
    const path: (string | number)[] = [];
    for (const [index, name] of names.entries()) {
      path.push(name);
      this.record([...path], start);
      const count = this.counts.get(JSON.stringify(path));
      if (count !== undefined && index < names.length - 1) path.push(count - 1);
    }
    if (!isList) return path;
    const list = JSON.stringify(path);
    const count = this.counts.get(list) ?? 0;
    this.counts.set(list, count + 1);
    path.push(count);
    this.record(path, start);
    return path;
  }

  /** `a.b = value`. A dotted key opens tables on its way; they stand where the key begins. */
  private pair(table: KeyPath): void {
    const start = this.at;
    const path = [...table];
    for (const name of this.key()) {
      path.push(name);
      this.record([...path], start);
    }
    this.at = this.text.indexOf("=", this.at) + 1;
    this.skipVoid();
    this.value(path);
  }

  /** A dotted key, up to the `=` or `]` behind it. */
  private key(): string[] {
    const names: string[] = [];
    for (;;) {
      this.skipVoid();
      const start = this.at;
      const isQuoted = this.text[start] === '"' || this.text[start] === "'";
      if (isQuoted) this.string();
      else this.skip(/[A-Za-z0-9_-]+/y);
      const name = this.text.slice(start, this.at);
      // The parser itself undoes the escapes of a quoted name.
      names.push(isQuoted && name !== "" ? (Object.keys(parse(`${name} = 0`))[0] ?? "") : name);
      this.skipVoid();
      if (this.text[this.at] !== ".") return names;
      this.at++;
    }
  }

  private value(path: KeyPath): void {
    const first = this.text[this.at];
    if (first === '"' || first === "'") this.string();
    else if (first === "[") {
      this.entries("]", (index) => {
        const entry = [...path, index];
        this.record(entry, this.at);
        this.value(entry);
      });
    } else if (first === "{") this.entries("}", () => this.pair(path));
    else this.skip(/[^,\]}\n#]*/y);
  }

  /** The text between the brackets of a list or an inline table. */
  private entries(end: "]" | "}", read: (index: number) => void): void {
    this.at++;
    for (let index = 0; this.at < this.text.length; index++) {
      this.skipVoid();
      if (this.text[this.at] !== end) read(index);
      this.skipVoid();
      if (this.text[this.at++] === end) return;
      this.skipVoid();
    }
  }

  private string(): void {
    const mark = this.text[this.at] ?? "";
    const isLong = this.text.startsWith(mark.repeat(3), this.at);
    // A long string may end in one or two quotes of its own before the three that close it.
    if (mark === "'") this.skip(isLong ? /'''[^]*?'''(?:'{0,2})/y : /'[^']*'/y);
    else this.skip(isLong ? /"""(?:\\[^]|[^\\])*?"""(?:"{0,2})/y : /"(?:\\.|[^"\\])*"/y);
  }

  /** White space, line ends and comments. */
  private skipVoid(): void {
    this.skip(/(?:[ \t\r\n]|#[^\n]*)*/y);
  }

  private skip(pattern: RegExp): void {
    pattern.lastIndex = this.at;
    this.at += pattern.exec(this.text)?.[0].length ?? 0;
  }
}
