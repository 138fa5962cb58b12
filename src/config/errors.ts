/**
 * The faults of a configuration, in words for its administrator. The modules beside this file find faults; this file
 * says where they stand and how the line reads.
 */
import { PlainError } from "../errors.ts";
import type { LoadFailure } from "../handler/load-failure.ts";
import { asMark, harmless } from "../terminal.ts";

/** A file of the configuration, as messages show it. */
export interface ConfigText {
  readonly file: string;
  /** Its text, to quote the lines from. */
  readonly source?: string;
}

/** A fault. Without a line it concerns the file as a whole, or something that is not written in it. */
export interface ConfigIssue {
  /** The included file that it stands in; absent for the configuration itself. */
  readonly of?: ConfigText;
  /** The key as the file spells it, `server.workers`; absent for faults of the TOML itself. */
  readonly key?: string;
  readonly text: string;
  /** 1-based. */
  readonly line?: number;
  /** 1-based, in UTF-16 units as smol-toml counts. */
  readonly column?: number;
}

/** A longer line is shown without its source: a caret under line-wrapped text points nowhere. */
const MAX_SOURCE_LENGTH = 160;
const MAX_SHOWN_LENGTH = 80;

/**
 * A configuration that cannot be used. `message` has all faults, in the order of the file, and behind them those of each
 * included file; `file`, `line` and `column` are those of the first.
 */
export class ConfigError extends PlainError {
  override readonly name = "ConfigError";
  readonly code = "PMILTER_ERR_CONFIG";
  readonly file: string;
  readonly line?: number;
  readonly column?: number;
  readonly issues: readonly ConfigIssue[];
  readonly #problems: readonly string[];
  readonly #source: string | undefined;

  /**
   * @param file the name to show, as the user gave it
   * @param issues at least one fault
   * @param source the text of the file, to quote the lines from
   */
  constructor(file: string, issues: readonly ConfigIssue[], source?: string, options?: ErrorOptions) {
    const files: (ConfigText | undefined)[] = [undefined, ...new Set(issues.flatMap(({ of }) => of ?? []))];
    const ordered = issues.toSorted(
      (a, b) =>
        files.indexOf(a.of) - files.indexOf(b.of) || (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0),
    );
    const problems = ordered.map((issue) => {
      const text = issue.of ?? { file, ...(source === undefined ? {} : { source }) };
      return describe(text.file, issue, text.source?.split(/\r?\n/) ?? []);
    });
    super(problems.join("\n"), options);
    this.#problems = problems;
    this.#source = source;
    this.file = ordered[0]?.of?.file ?? file;
    this.issues = ordered;
    const [first] = ordered;
    if (first?.line !== undefined) this.line = first.line;
    if (first?.column !== undefined) this.column = first.column;
  }

  /** Its faults as those of an included file of this name. */
  issuesOf(file: string): ConfigIssue[] {
    const of = { file, ...(this.#source === undefined ? {} : { source: this.#source }) };
    return this.issues.map((issue) => ({ ...issue, of }));
  }

  override get problems(): readonly string[] {
    return this.#problems;
  }

  /** The same as plain data, which can travel between threads. */
  get failure(): LoadFailure {
    const [first = "", ...further] = this.#problems;
    const message = first.slice(placeOf(this.file, this.issues[0]!).length);
    return { file: this.file, line: this.line ?? 0, column: this.column ?? 0, message, further };
  }
}

function describe(file: string, issue: ConfigIssue, lines: readonly string[]): string {
  const key = issue.key === undefined ? "" : `${issue.key}: `;
  return `${placeOf(file, issue)}${key}${issue.text}${quoteSource(issue, lines)}`;
}

/** `file:line:column: `. */
function placeOf(file: string, { line, column }: ConfigIssue): string {
  return `${[file, line, column].filter((part) => part !== undefined).join(":")}: `;
}

function quoteSource({ line, column }: ConfigIssue, lines: readonly string[]): string {
  if (line === undefined || column === undefined) return "";
  const source = lines[line - 1];
  if (source === undefined || source.trim() === "" || source.length > MAX_SOURCE_LENGTH) return "";
  // Tabs stay in both lines, so that the caret stands right with any width.
  const shown = harmless(source, asMark, "\t");
  const indent = source.slice(0, column - 1).replace(/[^\t]/g, " ");
  const gutter = " ".repeat(String(line).length);
  return `\n  ${line} | ${shown}\n  ${gutter} | ${indent}^`;
}

/** A value of the file as it appears in a message: short, on a single line, strings in quotes. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (value instanceof Date) return "a date or time";
  if (typeof value === "object" && value !== null) return "a table";
  if (Number.isNaN(value)) return "nan";
  if (value === Infinity) return "inf";
  if (value === -Infinity) return "-inf";
  return String(value);
}

/** Text in double quotes, bounded, with everything escaped that could move a terminal's cursor. */
export function quote(text: string): string {
  const short = text.length > MAX_SHOWN_LENGTH ? `${text.slice(0, MAX_SHOWN_LENGTH)}…` : text;
  return printable(JSON.stringify(short));
}

/** Text made harmless for a terminal, with the escapes of JSON and TOML. */
export function printable(text: string): string {
  return harmless(text, (char) => `\\u${char.codePointAt(0)!.toString(16).padStart(4, "0")}`);
}

/** `"a", "b" or "c"`. */
export function alternatives(values: readonly string[]): string {
  const quoted = values.map((value) => `"${value}"`);
  const last = quoted.pop() ?? "";
  return quoted.length === 0 ? last : `${quoted.join(", ")} or ${last}`;
}
