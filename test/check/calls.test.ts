/** What reading a handler's calls finds, and what it leaves alone. */
import { describe, expect, test } from "bun:test";
import { callProblems, uncollectedBody } from "../../src/check/calls.ts";
import { blank } from "../../src/load/source-text.ts";

const IMPORT = 'import { defineFilter, reject, type Session, tempfail as later } from "pmilter";\n';

/** `line: text` of each problem. */
function found(text: string): string[] {
  return callProblems([{ path: "/handler.ts", loader: "ts", text }]).map(({ line, text: what }) => `${line}: ${what}`);
}

const DROPPED = 'the verdict of reject() is not returned: expected "return reject(…)"';

describe("a verdict that nobody returns", () => {
  test.each([
    ["behind if", "export default { envfrom() {\nif (a) reject();\n} }", 3],
    ["behind else", "export default { envfrom() {\nif (a) return;\nelse reject();\n} }", 4],
    ["in a loop, without semicolons", "for (const a of b)\n  reject()\n", 3],
    ["as an arrow's body in braces", "list.map(() => {\nreject(); });", 3],
    ["in a case", "switch (a) { case 1:\nreject(); break; }", 3],
    ["awaited", "async function f() {\n await reject(); }", 3],
    ["over several lines", "function f() {\nreject(\n'550 5.7.1 No',\n);\n}", 3],
    [
      "beside one in a template, a comment, a regular expression",
      "const a = `${b} reject()`; /reject()/; // reject()\nreject();",
      3,
    ],
  ])("%s", (_, text, line) => {
    expect(found(IMPORT + text)).toEqual([`${line}: ${DROPPED}`]);
  });

  test.each([
    ["returned", "function f() { return reject(); }"],
    ["an arrow's value", "const f = (s: string): unknown => reject();"],
    ["kept", "const NO = reject(); const all = [\n  reject(),\n  reject(),\n];"],
    ["an argument", "f(\n  reject(),\n  later(),\n);"],
    ["a choice", "const v = a\n  ? reject()\n  : later();"],
    ["dropped on purpose", "void reject();"],
    ["a parameter of that name", "new Promise((resolve, reject) => { reject(new Error()); });"],
    ["another parameter of that name", "wait((reject) => { reject(); }); one(reject => { reject(); });"],
    ["a function of its own", "function reject(a) {}\nreject(1);"],
    ["a method", "promise.reject(); queue\n  .reject();"],
    ["what does not parse", "export default { envfrom() { reject( }"],
  ])("not: %s", (_, text) => {
    const isOwn = text.startsWith("function reject");
    expect(found((isOwn ? "" : IMPORT) + text)).toEqual([]);
  });

  test.each([
    'import * as pm from "pmilter";\npm.reject();',
    'const { defineFilter, reject } = require("pmilter");\nreject();',
    'const { reject: refuse } = require("pmilter");\nrefuse();',
    'const pm = require("pmilter");\npm.reject();',
    'import type { Session } from "pmilter";import {\n  reject } from "pmilter"; reject();',
  ])("%j", (text) => {
    expect(found(text)).toHaveLength(1);
    expect(found(text)[0]).toMatch(/^2: the verdict of .* is not returned/);
  });

  test("under the name that it was imported by", () => {
    expect(found(`${IMPORT}later();`)).toEqual([
      '2: the verdict of later() is not returned: expected "return later(…)"',
    ]);
    expect(found('import { reject } from "elsewhere";\nreject("no");')).toEqual([]);
  });
});

describe("texts that would throw", () => {
  test.each([
    ['return reject("No");', /three-digit code/],
    ["return reject('450 4.7.1 x');", /starts with 5/],
    ["return reject(`No`);", /three-digit code/],
    ['return later("550 x");', /starts with 4/],
    ['session.message.addHeader("A B", value);', /header name/],
    ['message.insertHeader(0, "A:", "x");', /header name/],
    ['message.insertBefore(first, "A:", "x");', /header name/],
    ['message.insertAfter(first, "A", "x\\ny");', /line break/],
    ['message.changeHeader(header, "x\\ny");', /line break/],
    ['message.changeHeader("A", "x\\ny");', /line break/],
    ['message.quarantine("a\\nb");', /one line/],
    ['message.changeFrom("a b@example.org");', /one address/],
    ['message.addRecipient("a@example.org,b@example.org");', /one address/],
  ])("%s", (statement, says) => {
    const problems = found(`${IMPORT}function f() {\n${statement}\n}`);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(says);
    expect(problems[0]).toStartWith("3: ");
  });

  test.each([
    "return reject();",
    "return reject(text);",
    "return reject('550 5.7.1 No');",
    'return reject("550" + rest);',
    "return reject(`${code} No`);",
    'message.addHeader("A", "x\\n y");',
    "message.addHeader(name, `x\n${y}`);",
    'request.addHeader("A B", "x");',
    "message.changeHeader(header, header.text);",
    'message.deleteRecipient("<odd");',
  ])("not: %s", (statement) => {
    expect(found(`${IMPORT}function f() {\n${statement}\n}`)).toEqual([]);
  });
});

test("a body that is not collected", () => {
  const of = (text: string) => uncollectedBody({ path: "/a.ts", text }).map(({ line }) => line);
  expect(of("export default {\n  eom({ message }) { message.body(); },\n};")).toEqual([2]);
  expect(of("export default {\n  eom: ({ message }) => send(message.raw({ withReceived: true })),\n};")).toEqual([2]);
  expect(of("export default {\n  eoh: ({ message }) => send(message.rawHeaders()),\n};")).toEqual([]);
  expect(
    of("export default {\n  collectBody: true,\n  eom({ message }) { message.body(); message.raw(); },\n};"),
  ).toEqual([]);
  expect(of("// collectBody\nawait request.body(); // message.body()")).toEqual([]);
});

test("blank keeps code in its place", () => {
  const text = "a('x\\'y', \"//\", `t${f(`u${'}'}`)}v`) / 2 /* c\nd */ + /[/]\"/g.test(b) // e";
  const blanked = blank(text);
  expect(blanked).toHaveLength(text.length);
  expect(blanked.replace(/ +/g, " ")).toBe("a( , , f( ) ) / 2 \n + .test(b) ");
});
