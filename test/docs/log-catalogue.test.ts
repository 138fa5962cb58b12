/**
 * docs/log.md has a row for every line that the server can log, and no other: the lines are collected from the calls in the
 * source that write one. `…` stands for what differs from line to line.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { LOG_LEVELS } from "../../src/admin/log-level.ts";
import { page, ROOT } from "./blocks.ts";

const SOURCES = new Map(
  [...new Glob("src/**/*.ts").scanSync({ cwd: ROOT })].map((file) => [file, readFileSync(join(ROOT, file), "utf8")]),
);

/** The arguments of a call, as they are written, from behind its parenthesis on. */
function argumentsAt(text: string, from: number): string[] {
  const found: string[] = [];
  /** What closes each bracket and quote that is open. */
  const open: string[] = [];
  let start = from;
  for (let at = from; at < text.length; at++) {
    const char = text[at]!;
    const inner = open.at(-1);
    const isQuoted = inner === '"' || inner === "'" || inner === "`";
    if (isQuoted && char === "\\") at += 1;
    else if (char === inner) open.pop();
    else if (inner === "`" && text.startsWith("${", at)) {
      open.push("}");
      at += 1;
    } else if (isQuoted || char === "}") continue;
    else if (char === '"' || char === "'" || char === "`") open.push(char);
    else if (char === "(") open.push(")");
    else if (char === "[") open.push("]");
    else if (char === "{") open.push("}");
    else if (inner === undefined && (char === "," || char === ")")) {
      const argument = text.slice(start, at).trim().replaceAll(/\s+/g, " ");
      if (argument !== "") found.push(argument);
      if (char === ")") return found;
      start = at + 1;
    }
  }
  throw new Error("a call that does not end");
}

interface Place {
  readonly file: string;
  readonly at: number;
}

/** What a name stands for: the constant before this place, or one of another file if it is written in capitals. */
function valueOf(name: string, { file, at }: Place): string | null {
  const pattern = new RegExp(`const ${name}(?:: \\w+)? = ("[^"]*"|\`(?:[^\`\\\\]|\\\\.)*\`);`, "g");
  const here = [...SOURCES.get(file)!.slice(0, at).matchAll(pattern)].at(-1);
  if (here !== undefined) return patternOf(here[1]!, { file, at: here.index });
  if (!/^[A-Z_]+$/.test(name)) return null;
  for (const [other, text] of SOURCES) {
    const match = pattern.exec(text);
    pattern.lastIndex = 0;
    if (match !== null) return patternOf(match[1]!, { file: other, at: match.index });
  }
  return null;
}

/** The text that an expression gives, with `…` for what differs; null if it is no text of its own. */
function patternOf(expression: string, place: Place): string | null {
  if (/^"[^"]*"$/.test(expression)) return expression.slice(1, -1);
  if (/^`.*`$/s.test(expression)) {
    let text = "";
    for (let at = 1; at < expression.length - 1; at++) {
      if (!expression.startsWith("${", at)) {
        text += expression[at];
        continue;
      }
      const end = endOfHole(expression, at + 2);
      text += valueOf(expression.slice(at + 2, end), place) ?? "…";
      at = end;
    }
    return text;
  }
  return /^\w+$/.test(expression) ? valueOf(expression, place) : null;
}

function endOfHole(expression: string, from: number): number {
  let depth = 0;
  for (let at = from; ; at++) {
    if (expression[at] === "{") depth += 1;
    else if (expression[at] === "}" && depth-- === 0) return at;
  }
}

/** The values of the object that a constant is. */
function valuesOf(name: string, { file }: Place): string[] {
  const body = new RegExp(`const ${name}\\b[^{;]*\\{([^}]*)\\}`).exec(SOURCES.get(file)!)![1]!;
  return [...body.matchAll(/"([^"]*)"/g)].map((match) => match[1]!);
}

/** Calls whose text is put together in a way that only a person can read, by what they are written as. */
const READ_BY_HAND: Readonly<Record<string, readonly string[]>> = {
  'src/server/reload.ts: ok ? "notice" : "error"': ["notice: reload: …", "error: reload: …"],
  "src/server/coordinator.ts: notAllowed(peer)": ["warn: …: not in server.allow, connection refused"],
  "src/worker/acceptor.ts: notAllowed(peer)": ["warn: …: not in server.allow, connection refused"],
  "src/handler/log-lines.ts: level": ["debug", "info", "warn", "error"].map((level) => `${level}: a handler says: …`),
  // The configuration's notices, which are collected where they are made.
  'src/server/reload.ts: level === "warning" ? "warn" : "notice"': [],
  "src/admin/log.ts: level": ["as those: … more … like this one in the last minute: …"],
};

/** Lines of verdicts: their words are made of a verdict and what it is about. */
const VERDICT_LINES = [
  "info: accept: …",
  ...["accept", "continue", "reject", "tempfail", "discard", "quarantine"].map((verdict) => `notice: ${verdict}: …`),
  ...["reject", "tempfail"].flatMap((verdict) =>
    ["recipient", "command"].map((scope) => `notice: ${verdict} ${scope}: …`),
  ),
  ...["accept", "reject", "tempfail"].map((verdict) => `notice: ${verdict} connection: …`),
  "notice: observed …: …",
];
const VERDICTS = /^(?:isQuiet \? "info" : "notice"|verdictHead\(outcome, scope\))$/;

/** Where another call's line is passed on. */
const PASSED_ON =
  /^(?:level|data\.level|message\.level|line\.level|level: LogLevel|what: string|level, text, of|kind)$/;

function linesAt(call: string, file: string, at: number): string[] {
  const text = SOURCES.get(file)!;
  const [first = "", second = ""] = argumentsAt(text, at + call.length);
  const byHand = READ_BY_HAND[`${file}: ${first}`] ?? READ_BY_HAND[`${file}: ${second}`];
  if (byHand !== undefined && !(PASSED_ON.test(first) && second === "text")) return [...byHand];
  if (PASSED_ON.test(first)) return [];
  if (VERDICTS.test(first) || VERDICTS.test(second)) return VERDICT_LINES;
  const place = { file, at };
  if (call.startsWith("failureLog")) return [`error: ${patternOf(first, place)}: …`];
  if (call.startsWith("warnings.push")) return [`warn: ${patternOf(first, place)}`];
  const level = /^"(\w+)"$/.exec(first)?.[1] ?? "";
  const tail = call.startsWith("lineOf") ? ": …" : "";
  const named = /\bCAUSES\b/.test(second)
    ? [...valuesOf("CAUSES", place), ...(second.includes("SUSPECTED") ? [valueOf("SUSPECTED", place)!] : [])]
    : [patternOf(second, place)];
  return named.map((pattern) => {
    if (!(LOG_LEVELS as readonly string[]).includes(level) || pattern === null) {
      throw new Error(`${file}: what is logged by ${call}${first}, ${second}) cannot be read from the source`);
    }
    return `${level}: ${pattern}${tail}`;
  });
}

/** Every line that the server can log. */
function collect(): Set<string> {
  const lines = new Set<string>();
  const calls = /(?:\blog\.write|\blog\.format|\.#?log|\blineOf|\bfailureLog|\bwarnings\.push)\(/g;
  for (const [file, text] of SOURCES) {
    if (
      !/^src\/(?:admin|cli\/serve|config|handler\/log-lines|load|ruby\/threads|server|services|shared|worker)/.test(
        file,
      )
    )
      continue;
    for (const { 0: call, index } of text.matchAll(calls)) {
      if (text.slice(0, index).endsWith("console")) continue;
      for (const line of linesAt(call.replace(/^\./, ""), file, call.startsWith(".") ? index + 1 : index))
        lines.add(line);
    }
    for (const { 1: level, index } of text.matchAll(/this\.post\(\{ kind: "log", level: "(\w+)", text,/g)) {
      const pattern = valueOf("text", { file, at: index });
      if (pattern !== null) lines.add(`${level}: ${pattern}`);
    }
    for (const { 1: notice } of text.matchAll(/level: "notice",\s+text: "([^"]*)"/g)) lines.add(`notice: ${notice}`);
    if (file === "src/admin/log.ts") for (const line of READ_BY_HAND[`${file}: level`]!) lines.add(line);
  }
  return lines;
}

/** The rows of the page's tables of lines. */
function rows(): string[][] {
  return page("docs/log.md")
    .prose.filter((line) => /^\| (?:`\w+`|as those) +\| `/.test(line))
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )
    .filter((cells) => cells.length === 4);
}

test("each line that the server can log has a row, and each row is a line", () => {
  const shown = rows().map(([level = "", line = ""]) => `${level.replaceAll("`", "")}: ${line.slice(1, -1)}`);
  expect(shown.toSorted()).toEqual([...collect()].toSorted());
});

test("each row says what the line means, and what to do", () => {
  for (const cells of rows()) for (const cell of cells) expect(cell, cells[1]).not.toBe("");
});
