/** Places of keys: hand-written shapes with their lines, and random documents against a writer that noted the places. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { parse } from "smol-toml";
import { type KeyPath, locate, locator } from "../../src/config/locate.ts";

setDefaultTimeout(120_000);

const DOCUMENT = `# listen = "in a comment"
[server]
  listen = [ # [server]
    "a]", # ]
    'b',
  ]
workers = 1 # workers = 2
banner = """
[limits]
workers = "\\""" still "" inside""""
after = true

[handler.session]
"connect handler" = 'a.ts'
'x' . y = 3

[[filter]]
path = "a.ts"
[filter.options]
deep.er = { k = 1, l.m = [ { n = 2 }, { n = 3 } ] }
[[filter.options.list]]
one = 1
[[filter.options.list]]
one = 2
[[filter]]
path = '''
raw \\'''''
\t[filter.options]
\twhen = 1979-05-27 07:32:00
"\\u00e9 \\"=" = 1
`;

const PLACES: readonly [path: KeyPath, place: string][] = [
  [["server"], "2:1"],
  [["server", "listen"], "3:3"],
  [["server", "listen", 0], "4:5"],
  [["server", "listen", 1], "5:5"],
  [["server", "workers"], "7:1"],
  [["server", "banner"], "8:1"],
  [["server", "after"], "11:1"],
  [["handler"], "13:1"],
  [["handler", "session"], "13:1"],
  [["handler", "session", "connect handler"], "14:1"],
  [["handler", "session", "x"], "15:1"],
  [["handler", "session", "x", "y"], "15:1"],
  [["filter"], "17:1"],
  [["filter", 0], "17:1"],
  [["filter", 0, "path"], "18:1"],
  [["filter", 0, "options"], "19:1"],
  [["filter", 0, "options", "deep", "er"], "20:1"],
  [["filter", 0, "options", "deep", "er", "k"], "20:13"],
  [["filter", 0, "options", "deep", "er", "l", "m"], "20:20"],
  [["filter", 0, "options", "deep", "er", "l", "m", 1], "20:39"],
  [["filter", 0, "options", "deep", "er", "l", "m", 1, "n"], "20:41"],
  [["filter", 0, "options", "list", 0, "one"], "22:1"],
  [["filter", 0, "options", "list", 1], "23:1"],
  [["filter", 0, "options", "list", 1, "one"], "24:1"],
  [["filter", 1], "25:1"],
  [["filter", 1, "path"], "26:1"],
  [["filter", 1, "options"], "28:2"],
  [["filter", 1, "options", "when"], "29:2"],
  [["filter", 1, "options", 'é "='], "30:1"],
];

const NEAREST: readonly [path: KeyPath, place: string | undefined][] = [
  [["server", "missing"], "2:1"],
  [["filter", 1, "missing"], "25:1"],
  [["filter", 1, "missing", "deeper"], "25:1"],
  [["filter", 2], "17:1"],
  [["server", "listen", 7], "3:3"],
  [["limits", "packet"], undefined],
  [[], undefined],
];

describe("locate", () => {
  for (const lineEnd of ["\n", "\r\n"]) {
    const text = DOCUMENT.replaceAll("\n", lineEnd);
    for (const [path, place] of [...PLACES, ...NEAREST]) {
      test(`${JSON.stringify(path)} with ${JSON.stringify(lineEnd)}`, () => {
        parse(text);
        const found = locate(text, path);
        expect(found && `${found.line}:${found.column}`).toBe(place);
      });
    }
  }

  test("finds every key of a file that begins with top-level keys", () => {
    expect(locate('a = 1\n"b" = 2\nc.d = 3', ["c", "d"])).toEqual({ line: 3, column: 1 });
    expect(locate("a = 1", ["a"])).toEqual({ line: 1, column: 1 });
  });

  test("ends on text that is not TOML", () => {
    for (const text of [
      "=",
      "[",
      "]",
      '"',
      "a",
      "a = [",
      "a = {",
      "a = '",
      "\u0000",
      "[[a]",
      "a = 1 b = 2 ]",
      "a\n= =\n=",
    ]) {
      expect(() => locate(text, ["a", "b"])).not.toThrow();
    }
  });

  test("agrees with a writer that noted its places, on random documents", () => {
    for (let seed = 1; seed <= 400; seed++) {
      const { text, places } = randomDocument(seed);
      const values = parse(text);
      const find = locator(text);
      for (const [path, place] of places) {
        expect({ seed, text, path, place: find(path) }).toEqual({ seed, text, path, place });
        expect(valueAt(values, path)).toBeDefined();
      }
    }
  });
});

function valueAt(value: unknown, path: KeyPath): unknown {
  return path.reduce<unknown>((inner, part) => (inner as Record<string | number, unknown>)[part], value);
}

/** A naive writer: it emits one thing after the other and counts lines as it goes. */
function randomDocument(seed: number): { text: string; places: [KeyPath, { line: number; column: number }][] } {
  let state = seed * 2654435761;
  const below = (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const pick = <T>(values: readonly T[]): T => values[below(values.length)] as T;
  const places: [KeyPath, { line: number; column: number }][] = [];
  let text = "";
  let serial = 0;
  const note = (path: KeyPath): void => {
    const lines = text.split("\n");
    places.push([path, { line: lines.length, column: (lines.at(-1) ?? "").length + 1 }]);
  };
  const space = (): string => pick(["", " ", "\t"]);
  const lineEnd = (): string => pick(["\n", "\r\n", " # [x] \"'{\n", "\n\n# a = [\n  "]);
  const name = (): [written: string, name: string] => {
    const n = `k${serial++}`;
    return pick([
      [n, n],
      [`"${n} ."`, `${n} .`],
      [`'${n}"='`, `${n}"=`],
      [`"${n}\\t\\""`, `${n}\t"`],
    ] as const) as [string, string];
  };

  function pair(table: KeyPath, depth: number): void {
    const names = Array.from({ length: 1 + below(2) }, name);
    const path = [...table, ...names.map((entry) => entry[1])];
    note(path);
    text += names.map((entry) => entry[0]).join(`${space()}.${space()}`) + `${space()}=${space()}`;
    value(path, depth);
  }

  function value(path: KeyPath, depth: number): void {
    switch (depth > 2 ? 0 : below(3)) {
      case 1: {
        text += "[";
        const gap = (): string => pick(["", " ", "\n", "# ]\n  "]);
        const count = below(4);
        for (let index = 0; index < count; index++) {
          text += gap();
          note([...path, index]);
          value([...path, index], depth + 1);
          text += gap() + (index < count - 1 || below(2) === 0 ? "," : "");
        }
        text += `${gap()}]`;
        return;
      }
      case 2: {
        text += "{ ";
        const count = below(3);
        for (let index = 0; index < count; index++) {
          pair(path, depth + 1);
          text += index < count - 1 ? " , " : " ";
        }
        text += "}";
        return;
      }
      default:
        text += pick([
          "1",
          "-1.5e3",
          "true",
          "inf",
          "1979-05-27",
          "1979-05-27 07:32:00Z",
          "07:32:00",
          '"a # b"',
          '"\\"]\\\\"',
          "'a\"]'",
          '"""x\n[t]\nk = "1" \\""""',
          '"""\n"""""',
          "'''\n[t] = ''x'''",
          '""',
          "''",
          '""""""',
        ]);
    }
  }

  for (let index = below(3); index > 0; index--) {
    pair([], 0);
    text += lineEnd();
  }
  const lists = new Map<string, number>();
  for (let index = below(6); index > 0; index--) {
    let [written, path]: [string, KeyPath] = ["", []];
    if (below(2) === 0) {
      const list = pick(["list", "other"]);
      const count = lists.get(list) ?? 0;
      lists.set(list, count + 1);
      path = [list, count];
      written = `[[${space()}${list}${space()}]]`;
    } else {
      const [quoted, plain] = name();
      const list = pick([...lists.keys(), undefined]);
      path = list === undefined ? [plain] : [list, (lists.get(list) ?? 0) - 1, plain];
      written = list === undefined ? `[${quoted}]` : `[${list} . ${quoted}]`;
    }
    text += space();
    note(path);
    text += written + lineEnd();
    for (let keys = below(4); keys > 0; keys--) {
      text += space();
      pair(path, 0);
      text += lineEnd();
    }
  }
  return { text, places };
}
