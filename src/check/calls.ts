/**
 * Mistakes in a handler's calls that can be found without running it: a verdict that is not returned, a text or a
 * header that would throw where it stands, a body that is not collected. Types do not find these. Only literal
 * arguments are looked at; others are passed over.
 */
import {
  checkHeaderName,
  checkHeaderValue,
  checkReason,
  checkRecipient,
  checkSender,
} from "../handler/message/changes.ts";
import { messageOf } from "../handler/load-failure.ts";
import { parseReplyText } from "../protocol/reply-text.ts";
import { type CodeLoader, isCode, type SourceFile } from "../load/sources.ts";
import { blank, placeAt } from "../load/source-text.ts";
import { VERDICT_KINDS, type VerdictKind } from "../protocol/verdicts.ts";
import type { Problem } from "./problem.ts";

/** How each argument of a change is judged. */
type Judge = (value: string) => unknown;
const recipient: Judge = (value) => checkRecipient(value, false);
const CHANGES: Readonly<Record<string, readonly (Judge | null)[]>> = {
  addHeader: [checkHeaderName, checkHeaderValue],
  insertHeader: [null, checkHeaderName, checkHeaderValue],
  insertBefore: [null, checkHeaderName, checkHeaderValue],
  insertAfter: [null, checkHeaderName, checkHeaderValue],
  changeHeader: [checkHeaderName, checkHeaderValue],
  deleteHeader: [checkHeaderName],
  changeFrom: [(value) => checkSender(value, false)],
  addRecipient: [recipient],
  quarantine: [checkReason],
};

/** A file of code as it is looked at. */
interface Code {
  readonly path: string;
  readonly text: string;
  /** See {@link blank}. */
  readonly code: string;
  readonly loader: CodeLoader;
}

/** Of all files of code. */
export function callProblems(files: readonly SourceFile[]): Problem[] {
  return files.flatMap(({ loader, path, text }) => {
    if (!isCode(loader)) return [];
    const file = { path, text, code: blank(text), loader };
    return [...verdictProblems(file), ...changeProblems(file)];
  });
}

/** The names in a file of the verdicts that it imports from "pmilter": `reject`, `refuse`, `pmilter.reject`. */
function importedVerdicts({ code, text }: Code): Map<string, VerdictKind> {
  const names = new Map<string, VerdictKind>();
  const isPmilter = (at: number) => /^[\s(]*["']pmilter["']/.test(text.slice(at));
  const lists = /\bimport\s*(?:\w+\s*,\s*)?\{([^}]*)\}\s*from\b|\b(?:const|let|var)\s*\{([^}]*)\}\s*=\s*require\b/g;
  for (const { 0: whole, 1: imported, 2: required, index } of code.matchAll(lists)) {
    if (!isPmilter(index + whole.length)) continue;
    for (const item of (imported ?? required ?? "").split(",")) {
      const [, name, local] = /^\s*(\w+)(?:(?:\s+as\s+|\s*:\s*)(\w+))?\s*$/.exec(item) ?? [];
      const verdict = VERDICT_KINDS.find((each) => each === name);
      if (verdict !== undefined) names.set(local ?? verdict, verdict);
    }
  }
  const wholes = /\bimport\s*\*\s*as\s+(\w+)\s+from\b|\b(?:const|let|var)\s+(\w+)\s*=\s*require\b/g;
  for (const { 0: whole, 1: imported, 2: required, index } of code.matchAll(wholes)) {
    if (!isPmilter(index + whole.length)) continue;
    for (const verdict of VERDICT_KINDS) names.set(`${imported ?? required}.${verdict}`, verdict);
  }
  return names;
}

function verdictProblems(file: Code): Problem[] {
  const problems: Problem[] = [];
  for (const [name, verdict] of importedVerdicts(file)) {
    if (isDeclaredAgain(file.code, name)) continue;
    const calls = callsOf(file.code, name);
    const digit = verdict === "reject" ? 5 : verdict === "tempfail" ? 4 : null;
    for (const at of digit === null ? [] : calls) {
      const [given] = argumentsAt(file, at + name.length);
      if (given !== undefined) problems.push(...judged(file, at, given, (text) => parseReplyText(text, digit!)));
    }
    for (const at of calls) {
      if (!/\bthrow\s*$/.test(file.code.slice(0, at))) continue;
      problems.push(problemAt(file, at, `a verdict is returned, not thrown: expected "return ${name}(…)"`));
    }
    for (const at of droppedCalls(file, name, calls)) {
      problems.push(problemAt(file, at, `the verdict of ${name}() is not returned: expected "return ${name}(…)"`));
    }
  }
  return problems;
}

/** A parameter or variable of that name, as in `new Promise((resolve, reject) => …)`, is something else. */
function isDeclaredAgain(code: string, name: string): boolean {
  if (name.includes(".")) return false;
  if (new RegExp(`\\b(?:const|let|var|function)\\s+${name}\\b`).test(code)) return true;
  const parameters = code.matchAll(/\(([^()]*)\)\s*(?:=>|\{|:[^=;{}]*(?:=>|\{))|\b(\w+)\s*=>/g);
  return parameters.some(([, list = "", single]) => single === name || new RegExp(`\\b${name}\\b`).test(list));
}

/** Where a function of that name is called: the name's places. */
function callsOf(code: string, name: string): number[] {
  return [...code.matchAll(new RegExp(`(?<![\\w$.])${RegExp.escape(name)}(?=\\s*\\()`, "g"))].map(({ index }) => index);
}

/**
 * Calls that are statements of their own. Bun prints each statement on a line that begins with it; its calls and those of
 * the source are the same, in the same order.
 */
function droppedCalls({ code, loader, text }: Code, name: string, calls: readonly number[]): number[] {
  let printed: string;
  try {
    printed = blank(new Bun.Transpiler({ loader }).transformSync(text));
  } catch {
    // It does not parse, which loading it says.
    return [];
  }
  const again = callsOf(printed, name);
  if (again.length !== calls.length) return [];
  return calls.filter((written, index) => {
    // Dropped on purpose, which Bun does not print.
    if (/\bvoid\s*$/.test(code.slice(0, written))) return false;
    const at = again[index]!;
    const lineStart = printed.lastIndexOf("\n", at) + 1;
    if (!/^\s*(?:await\s+)?$/.test(printed.slice(lineStart, at))) return false;
    return printed.slice(closing(printed, printed.indexOf("(", at)) + 1).startsWith(";");
  });
}

/** The bracket that closes the bracket at `open`. */
function closing(code: string, open: number): number {
  let depth = 0;
  for (let at = open; at < code.length; at++) {
    if ("([{".includes(code[at]!)) depth++;
    else if (")]}".includes(code[at]!) && --depth === 0) return at;
  }
  return code.length;
}

function changeProblems(file: Code): Problem[] {
  const problems: Problem[] = [];
  for (const match of file.code.matchAll(/\bmessage\s*\.\s*(\w+)(?=\s*\()/g)) {
    const judges = Object.hasOwn(CHANGES, match[1]!) ? CHANGES[match[1]!]! : [];
    const given = judges.length === 0 ? [] : argumentsAt(file, match.index + match[0].length);
    for (const [index, judge] of judges.entries()) {
      if (judge !== null && given[index] !== undefined)
        problems.push(...judged(file, match.index, given[index], judge));
    }
  }
  return problems;
}

function judged(file: Code, at: number, literal: string, judge: Judge): Problem[] {
  const value = valueOf(literal);
  if (value === null) return [];
  try {
    judge(value);
    return [];
  } catch (error) {
    return [problemAt(file, at, messageOf(error))];
  }
}

/** The texts of a call's arguments. */
function argumentsAt({ code, text }: Code, behindName: number): string[] {
  const open = code.indexOf("(", behindName);
  const end = closing(code, open);
  const parts: string[] = [];
  let start = open + 1;
  let depth = 0;
  for (let at = start; at <= end; at++) {
    const char = code[at]!;
    if ("([{".includes(char)) depth++;
    else if (")]}".includes(char) && at < end) depth--;
    else if ((char === "," && depth === 0) || at === end) {
      parts.push(text.slice(start, at).trim());
      start = at + 1;
    }
  }
  return parts;
}

/** The value of a literal text; null for other expressions. */
function valueOf(literal: string): string | null {
  const plain = /^`(?:\\[^]|[^`\\$])*`$/.test(literal) ? JSON.stringify(literal.slice(1, -1)) : literal;
  if (!/^(?:"(?:\\[^]|[^"\\\n])*"|'(?:\\[^]|[^'\\\n])*')$/.test(plain)) return null;
  if (plain !== literal && literal.includes("\\")) return null;
  try {
    return Bun.JSON5.parse(plain) as string;
  } catch {
    return null;
  }
}

/** Where a filter without `collectBody` asks for the body, in the file that defines it. */
export function uncollectedBody(file: Pick<SourceFile, "path" | "text">): Problem[] {
  const code = blank(file.text);
  if (/\bcollectBody\b/.test(code)) return [];
  return [...code.matchAll(/\bmessage\s*\.\s*(body|raw)\s*\(/g)].map(({ 1: method, index }) =>
    problemAt({ ...file, code }, index, `message.${method}() needs collectBody: true in the filter`),
  );
}

function problemAt({ path, text }: Pick<Code, "path" | "text" | "code">, at: number, what: string): Problem {
  return { file: path, ...placeAt(text, at), text: what };
}
