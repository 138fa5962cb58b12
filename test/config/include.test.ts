/** `include`: which files it finds and in which order, what may stand in them, and errors that name them. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../../src/config/config.ts";
import { whereNamed } from "../../src/config/named.ts";
import { loadConfig } from "../../src/config/load.ts";
import { TEMP } from "../support/temp.ts";
import { failure } from "./failure.ts";

let root: string;
let folder: string;
let count = 0;

beforeAll(() => {
  root = mkdtempSync(join(TEMP, "include-"));
});
beforeEach(() => {
  folder = join(root, String(++count));
  mkdirSync(join(folder, "rules.d"), { recursive: true });
});
afterAll(() => rmSync(root, { recursive: true }));

const filter = (path: string) => `[[filter]]\npath = "${path}"\n`;

function write(files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}

function load(include: string | readonly string[], rest = ""): Config {
  write({ "pmilter.toml": `include = ${JSON.stringify(include)}\n${rest}` });
  return loadConfig(join(folder, "pmilter.toml"), {});
}

function errorOf(include: string | readonly string[], rest = ""): string {
  return failure(() => load(include, rest)).message.replaceAll(`${folder}/`, "");
}

const pathsOf = ({ filters }: Config) => filters.map(({ path }) => path?.replace(`${folder}/`, ""));

describe("the files", () => {
  test("their filters come behind those of the main file, by file name, with paths relative to the main file", () => {
    write({
      "rules.d/b.toml": filter("b.ts"),
      "rules.d/10.toml": filter("ten.ts") + filter("handlers/eleven.ts"),
      "rules.d/9.toml": filter("nine.ts"),
      "rules.d/B.toml": filter("large-b.ts"),
    });
    const config = load("rules.d/*.toml", filter("own.ts"));
    expect(pathsOf(config)).toEqual(["own.ts", "ten.ts", "handlers/eleven.ts", "nine.ts", "large-b.ts", "b.ts"]);
    expect(config.filters.map(({ file, table }) => [file.replace(`${folder}/`, ""), table])).toEqual([
      ["pmilter.toml", 0],
      ["rules.d/10.toml", 0],
      ["rules.d/10.toml", 1],
      ["rules.d/9.toml", 0],
      ["rules.d/B.toml", 0],
      ["rules.d/b.toml", 0],
    ]);
    expect(config.included.map((path) => path.replace(`${folder}/`, ""))).toEqual([
      "rules.d/10.toml",
      "rules.d/9.toml",
      "rules.d/B.toml",
      "rules.d/b.toml",
    ]);
  });

  test("of several patterns in the order of the list; a file counts once", () => {
    write({ "rules.d/a.toml": filter("a.ts"), "rules.d/b.toml": filter("b.ts"), "last.toml": filter("last.ts") });
    expect(pathsOf(load(["rules.d/b*.toml", "rules.d/{a,b}.toml", "./rules.d/a.toml", "last.toml"]))).toEqual([
      "b.ts",
      "a.ts",
      "last.ts",
    ]);
    expect(pathsOf(load(join(folder, "rules.d/?.toml")))).toEqual(["a.ts", "b.ts"]);
  });

  test("hidden files, and those of other endings, are left out", () => {
    write({
      "rules.d/.hidden.toml": "[broken",
      "rules.d/a.toml": filter("a.ts"),
      "rules.d/a.toml~": "[broken",
      "rules.d/a.toml.dpkg-old": "[broken",
    });
    expect(pathsOf(load("rules.d/*.toml"))).toEqual(["a.ts"]);
    expect(errorOf("rules.d/.*.toml")).toStartWith("rules.d/.hidden.toml:1:2: not valid TOML");
  });

  test("none at all, and no folder, are no error", () => {
    expect(load("rules.d/*.toml").included).toEqual([]);
    expect(load("no.d/*.toml", filter("a.ts")).filters).toHaveLength(1);
  });

  test("an empty one, and one with switched off filters, give none", () => {
    write({
      "rules.d/a.toml": "",
      "rules.d/b.toml": `${filter("b.ts")}enabled = false\n`,
      "rules.d/c.toml": filter("c.ts"),
    });
    const config = load("rules.d/*.toml");
    expect(pathsOf(config)).toEqual(["c.ts"]);
    expect(config.switchedOff).toEqual(["b"]);
    write({ "rules.d/c.toml": `${filter("c.ts")}mod = "observe"\n` });
    expect(errorOf("rules.d/*.toml")).toStartWith("rules.d/c.toml:3:1: filter 1: mod: unknown key");
  });

  test("one may be a link, with a byte order mark", () => {
    write({ "real.toml": `\uFEFF${filter("a.ts")}` });
    symlinkSync("../real.toml", join(folder, "rules.d/link.toml"));
    expect(pathsOf(load("rules.d/*.toml"))).toEqual(["a.ts"]);
  });
});

describe("errors", () => {
  test("name the file and its line, those of the main file first, all at once", () => {
    write({
      "rules.d/a.toml": `\n${filter("a.ts")}on_error = "never"\n${filter("b.ts")}handler_timeout = 9\n`,
      "rules.d/b.toml": `[[filters]]\npath = "a.ts"\n`,
      "rules.d/c.toml": `[[filter]\n`,
    });
    expect(
      errorOf("rules.d/*.toml", `${filter("own.ts")}mode = "of"\n`)
        .split("\n")
        .filter((line) => /^\S/.test(line)),
    ).toEqual([
      'pmilter.toml:4:1: filter 1: mode: expected "enforce" or "observe", got "of"',
      'rules.d/c.toml:1:10: not valid TOML: expected "]]" behind the name of the table, got the end of the line',
      'rules.d/a.toml:4:1: filter 1: on_error: expected "tempfail", "reject", "accept" or "continue", got "never"',
      "rules.d/a.toml:7:1: filter 2: handler_timeout: a filter may only shorten server.handler_timeout: expected at most 8, got 9",
      "rules.d/b.toml:1:1: filters: unknown table; did you mean [[filter]]?",
    ]);
  });

  test("the line is quoted, and the first fault's file is the error's", () => {
    write({ "rules.d/a.toml": `${filter("a.ts")}mode = "of"\n` });
    const error = failure(() => load("rules.d/*.toml"));
    expect(error.message).toEndWith('got "of"\n  3 | mode = "of"\n    | ^');
    expect({ file: error.file, line: error.line }).toEqual({ file: join(folder, "rules.d/a.toml"), line: 3 });
  });

  test("only [[filter]] may stand in it", () => {
    write({ "rules.d/a.toml": `include = "b.toml"\n[server]\nworkers = 2\n[handler.session]\n[limits]\n` });
    expect(
      errorOf("rules.d/*.toml")
        .split("\n")
        .filter((line) => /^\S/.test(line)),
    ).toEqual([
      "rules.d/a.toml:1:1: include: an included file includes no other",
      "rules.d/a.toml:2:1: server: an included file has only [[filter]]; [server] belongs to pmilter.toml",
      "rules.d/a.toml:4:1: handler: an included file has only [[filter]]; [handler] belongs to pmilter.toml",
      "rules.d/a.toml:5:1: limits: an included file has only [[filter]]; [limits] belongs to pmilter.toml",
    ]);
  });

  test.each<[string | readonly string[], string]>([
    ["no.toml", "no.toml: the included file cannot be read: there is no such file"],
    [
      "rules.d",
      'rules.d: the included file cannot be read: expected a file, got a folder; its files are "rules.d/*.toml"',
    ],
    ["*.toml", 'pmilter.toml:1:1: include: "*.toml" names this file as well; expected files of a folder of their own'],
    [
      "rules.d/",
      'pmilter.toml:1:1: include: "rules.d/" cannot be used: it names a folder; its files are "rules.d/*.toml"',
    ],
    [
      ["rules.d/*.toml", "*/a.toml"],
      'pmilter.toml:1:29: include: entry 2: "*/a.toml" cannot be used: only the file name may have wildcards, not its folder',
    ],
    [
      [],
      'pmilter.toml:1:1: include: expected the path of a file such as "rules.d/*.toml", or a list of them, got an empty list',
    ],
  ])("%j", (include, message) => {
    expect(errorOf(include).split("\n")[0]).toBe(message);
  });

  test("a key behind a table is told where it belongs", () => {
    expect(errorOf("rules.d/*.toml", `[server]\ninclude = "b.toml"\n`).split("\n")[0]).toBe(
      'pmilter.toml:3:1: server.include: unknown key; "include" belongs to the top of the file, before the first table',
    );
  });

  // Opening a pipe would wait for a writer.
  test("a pipe, a device, and a file that is far too large", () => {
    expect(Bun.spawnSync(["mkfifo", join(folder, "rules.d/a.toml")]).success).toBe(true);
    symlinkSync("/dev/zero", join(folder, "rules.d/b.toml"));
    writeFileSync(join(folder, "rules.d/c.toml"), "");
    truncateSync(join(folder, "rules.d/c.toml"), 2 ** 40);
    const lines = errorOf("rules.d/*.toml").split("\n");
    expect(lines.filter((line) => line.startsWith("rules.d"))).toEqual([
      "rules.d/a.toml: the included file cannot be read: expected a file, got a named pipe",
      "rules.d/b.toml: the included file cannot be read: expected a file, got a device",
      "rules.d/c.toml: the included file cannot be read: expected at most 16777216 bytes, got 1099511627776",
    ]);
  });

  test("bytes that are no UTF-8", () => {
    writeFileSync(join(folder, "rules.d/a.toml"), Buffer.from('[[filter]]\npath = "\xe9.ts"\n', "latin1"));
    expect(errorOf("rules.d/*.toml")).toBe(
      "rules.d/a.toml:2:9: expected UTF-8 text, got the byte 0xE9; save the file as UTF-8",
    );
  });

  test("the error of the system is kept as the cause", () => {
    expect(failure(() => load("no.toml")).cause).toMatchObject({ code: "ENOENT" });
  });
});

test("a handler is named by the file and line where its table stands", () => {
  write({ "rules.d/a.toml": `\n\n${filter("a.ts")}` });
  const config = load("rules.d/*.toml", filter("own.ts"));
  expect(whereNamed(config, join(folder, "a.ts"))).toBe("filter 1: path, a.toml:4");
  expect(whereNamed(config, join(folder, "own.ts"))).toBe("filter 1: path, pmilter.toml:3");
});
