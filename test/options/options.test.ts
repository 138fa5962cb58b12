/** `pmilter/options`: what each kind takes, and what it says of the rest. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as o from "../../src/options/index.ts";
import { inFolder } from "../../src/options/folder.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

/** What a schema says of a value: each problem with its path. */
function problems(schema: o.GenericSchema, value: unknown): string[] {
  const result = schema["~standard"].validate(value);
  if (result instanceof Promise) throw new Error("it is asynchronous");
  return (result.issues ?? []).map(({ message, path = [] }) =>
    [...path.map((part) => String(typeof part === "object" ? part.key : part)), message].join(": "),
  );
}

const SCHEMA = o.table({
  tag: o.string(),
  wait: o.optional(o.duration(), "5s"),
  most: o.optional(o.size(), "64KB"),
  strict: o.optional(o.boolean(), false),
  action: o.optional(o.picklist(["reject", "tag"]), "tag"),
  rules: o.optional(o.array(o.table({ limit: o.pipe(o.number(), o.minValue(1)) })), []),
});

test("defaults are filled in, units are read", () => {
  expect(o.parse(SCHEMA, { tag: "x" })).toEqual({
    tag: "x",
    wait: 5000,
    most: 65_536,
    strict: false,
    action: "tag",
    rules: [],
  });
  expect(o.parse(SCHEMA, { tag: "x", wait: 0.5, most: "10MB" })).toMatchObject({ wait: 500, most: 10 * 2 ** 20 });
});

test.each<[unknown, string[]]>([
  [{}, ['tag: "tag" is missing']],
  [5, ["expected a table, got 5"]],
  [{ tag: 5 }, ["tag: expected text, got 5"]],
  [{ tag: "x", strickt: true }, ['strickt: unknown option; did you mean "strict"?']],
  [{ tag: "x", Tag: "y" }, ['Tag: unknown option; did you mean "tag"?']],
  [{ tag: "x", colour: "red" }, ["colour: unknown option; there are tag, wait, most, strict, action, rules"]],
  [{ tag: "x", action: "refuse" }, ['action: expected "reject" or "tag", got "refuse"']],
  [{ tag: "x", strict: "yes" }, ['strict: expected true or false, got "yes"']],
  [{ tag: "x", rules: 5 }, ["rules: expected a list, got 5"]],
  [{ tag: "x", rules: [5] }, ["rules: 0: expected a table, got 5"]],
  [{ tag: "x", rules: [{ limit: 0 }] }, ["rules: 0: limit: expected >=1, got 0"]],
  [
    { tag: "x", rules: [{ limt: 1 }] },
    ['rules: 0: limit: "limit" is missing', 'rules: 0: limt: unknown option; did you mean "limit"?'],
  ],
  [
    { tag: "x", wait: "5 sec" },
    [
      'wait: expected a duration from "1ms" to "36500d", such as 3, "500ms", "10m", "2h" or "7d", got "5 sec"; write "5s"',
    ],
  ],
])("%j", (value, expected) => expect(problems(SCHEMA, value)).toEqual(expected));

test.each<[string, o.GenericSchema, unknown, number]>([
  ["longer than a timer can be", o.duration(), "36d", 36 * 86_400_000],
  ["in seconds", o.duration(), 3_000_000, 3_000_000_000],
  ["the shortest", o.duration(), "1ms", 1],
  ["the longest", o.duration(), "36500d", 36_500 * 86_400_000],
  ["a size larger than 32 bits", o.size(), "20GB", 20 * 2 ** 30],
  ["the largest size", o.size(), Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
])("a quantity: %s", (_, schema, value, expected) => expect(o.parse(schema, value)).toBe(expected));

test.each<[string, o.GenericSchema, unknown]>([
  ["nothing", o.duration(), 0],
  ["less than a millisecond", o.duration(), 0.0004],
  ["over a hundred years", o.duration(), "36501d"],
  ["no end", o.duration(), Infinity],
  ["more digits than a number has", o.duration(), `${"9".repeat(400)}d`],
  ["a size that no number holds exactly", o.size(), "9007199254740993GB"],
  ["more digits of a size than a number has", o.size(), `${"9".repeat(400)}GB`],
])("no quantity: %s", (_, schema, value) => expect(problems(schema, value)).toHaveLength(1));

test("files are relative to the configuration, and have to be there", async () => {
  await using dir = await tempDir("options");
  writeFileSync(join(dir.path, "list.txt"), "one\n");
  const schema = o.table({ list: o.file() });
  expect(inFolder(dir.path, () => o.parse(schema, { list: "list.txt" }))).toEqual({ list: join(dir.path, "list.txt") });
  const missing = inFolder(dir.path, () => problems(schema, { list: "lost.txt" }));
  expect(missing).toEqual([`list: expected a file that can be read, got ${dir.path}/lost.txt: there is no such file`]);
  expect(inFolder(dir.path, () => problems(schema, { list: "." }))).toEqual([
    `list: expected a file that can be read, got ${dir.path}: expected a file, got a folder`,
  ]);
  expect(problems(schema, { list: 5 })).toEqual(["list: expected the path of a file, got 5"]);
});

test("a secret is read, without its last line break, and refused where every user may read it", async () => {
  await using dir = await tempDir("options");
  const path = join(dir.path, "key");
  writeFileSync(path, "hunter2\n", { mode: 0o600 });
  const schema = o.table({ key: o.secretFile() });
  expect(inFolder(dir.path, () => o.parse(schema, { key: "key" }))).toEqual({ key: "hunter2" });
  chmodSync(path, 0o644);
  const open = inFolder(dir.path, () => problems(schema, { key: "key" }));
  expect(open).toEqual([`key: every user may read ${path}: expected mode 0600 or 0640`]);
});

// Opening a pipe would wait for a writer, and a device may never end.
test("a pipe or a device is no file and no secret", async () => {
  await using dir = await tempDir("options");
  const pipe = join(dir.path, "pipe");
  expect(Bun.spawnSync(["mkfifo", "-m", "600", pipe]).success).toBe(true);
  for (const [path, kind] of [
    [pipe, "a named pipe"],
    ["/dev/zero", "a device"],
  ] as const) {
    const got = `expected a file that can be read, got ${path}: expected a file, got ${kind}`;
    expect(problems(o.table({ list: o.file() }), { list: path })).toEqual([`list: ${got}`]);
    expect(problems(o.table({ key: o.secretFile() }), { key: path })).toEqual([`key: ${got}`]);
  }
});
