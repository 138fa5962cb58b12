/** What handlers may import, and what is said of a handler that does not load: by `check` and by the server's start. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import { runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const MAIL = { from: "from@example.com", to: ["to@example.com"], eml: "Subject: x\r\n\r\nHello\r\n" };

async function outcomeOf(config: string, files: Record<string, string>): Promise<Outcome> {
  await using server = await startPmilter({ server: { workers: 1, stop_timeout: 0.1 }, config, files });
  await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
  return await client.send(MAIL);
}

describe("what handlers import", () => {
  test("relative files, JSON, TOML and text, from a phase file and from a filter", async () => {
    const outcome = await outcomeOf(
      '[handler.session]\neom_handler = "phases/eom.ts"\n[[filter]]\npath = "filters/stamp/index.ts"\n',
      {
        "phases/eom.ts": `import type { Session } from "pmilter";
import { value } from "../lib/value.ts";
import data from "../data.json";
export default function (session: Session<"eom">) { session.message.addHeader("X-Phase", value() + data.list[1]); }
`,
        "filters/stamp/index.ts": `import { defineFilter } from "pmilter";
import * as lib from "../../lib/value";
import table from "../../data.toml";
import text from "./note.txt" with { type: "text" };
export default defineFilter({ async eom({ message }) {
  const late = await import("../../lib/late.ts");
  message.addHeader("X-Filter", [lib.value(), table.key, text.trim(), late.default].join(" "));
} });
`,
        "filters/stamp/note.txt": "noted\n",
        "lib/value.ts": `export enum Kind { Used = "used" }\nexport const value = (): string => Kind.Used;\n`,
        "lib/late.ts": 'export default "late";\n',
        "data.json": '{ "list": ["a", "b"] }',
        "data.toml": 'key = "toml"\n',
      },
    );
    expect(outcome.modifications).toEqual([
      { kind: "addHeader", name: "X-Phase", value: "usedb" },
      { kind: "addHeader", name: "X-Filter", value: "used toml noted late" },
    ]);
  });

  test("packages beside the handler: exports, sub-paths, CommonJS, and what Node brings", async () => {
    const outcome = await outcomeOf('[[filter]]\npath = "handlers/f.ts"\n', {
      "handlers/f.ts": `import { createHash } from "node:crypto";
import { defineFilter } from "pmilter";
import main from "with-exports";
import { extra } from "with-exports/extra";
import old from "commonjs";
const hash = createHash("sha1").update("x").digest("hex").slice(0, 4);
export default defineFilter({ eom: ({ message }) => message.addHeader("X", [main, extra, old.name, hash].join(" ")) });
`,
      "node_modules/with-exports/package.json": JSON.stringify({
        name: "with-exports",
        type: "module",
        exports: { ".": { default: "./dist/main.js" }, "./extra": "./dist/extra.js" },
      }),
      "node_modules/with-exports/dist/main.js": 'export { default } from "./inner.js";\n',
      "node_modules/with-exports/dist/inner.js": 'export default "main";\n',
      "node_modules/with-exports/dist/extra.js": 'export const extra = "extra";\n',
      "node_modules/commonjs/package.json": '{ "name": "commonjs", "main": "lib/main.js" }',
      "node_modules/commonjs/lib/main.js": 'module.exports = { name: require("./name.js") };\n',
      "node_modules/commonjs/lib/name.js": 'module.exports = "cjs";\n',
    });
    expect(outcome.modifications).toEqual([{ kind: "addHeader", name: "X", value: "main extra cjs 11f6" }]);
  });

  test('"pmilter" is one API for all: a verdict made by a helper, or by a package, is recognised', async () => {
    const files = {
      "refuse.ts": `import { tempfail } from "pmilter";\nexport const later = () => tempfail("451 4.7.1 " + process.pid);\n`,
      "node_modules/policy/package.json": '{ "name": "policy", "type": "module", "exports": "./policy.js" }',
      "node_modules/policy/policy.js":
        'import { reject } from "pmilter";\nexport const never = () => reject("550 5.7.1 Policy");\n',
      "rcpt.ts":
        'import { later } from "./refuse.ts";\nexport default (_session, to) => to.startsWith("<a") ? later() : undefined;\n',
      "filter.ts":
        'import { defineFilter } from "pmilter";\nimport { never } from "policy";\nexport default defineFilter({ eom: never });\n',
    };
    await using server = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[handler.session]\nenvrcpt_handler = "rcpt.ts"\n[[filter]]\npath = "filter.ts"\n',
      files,
    });
    await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
    const outcome = await client.send({ ...MAIL, to: ["a@example.com", "b@example.com"] });
    expect(outcome.recipients[0]).toMatchObject({
      verdict: "tempfail",
      reply: { code: 451, lines: [String(server.process.pid)] },
    });
    expect(outcome).toMatchObject({ verdict: "reject", reply: { code: 550, enhanced: "5.7.1", lines: ["Policy"] } });
  });

  test("a package named pmilter beside the handler does not take its place", async () => {
    const outcome = await outcomeOf('[[filter]]\npath = "filter.ts"\n', {
      "node_modules/pmilter/package.json": '{ "name": "pmilter", "type": "module", "exports": "./index.js" }',
      "node_modules/pmilter/index.js":
        'export const reject = () => "an impostor";\nexport const defineFilter = (f) => f;\n',
      "filter.ts":
        'import { defineFilter, reject } from "pmilter";\nexport default defineFilter({ eom: () => reject("554 5.7.1 ours") });\n',
    });
    expect(outcome).toMatchObject({ verdict: "reject", reply: { code: 554, lines: ["ours"] } });
  });

  test("two handlers share a module, and its state is that of their worker", async () => {
    await using server = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "a.ts"\n[[filter]]\npath = "sub/b.ts"\n',
      files: {
        "count.ts": 'console.log("loaded");\nexport const seen: string[] = [];\n',
        "a.ts": 'import { seen } from "./count.ts";\nexport default { envfrom(_, sender) { seen.push(sender); } };\n',
        "sub/b.ts":
          'import { seen } from "../count.ts";\nexport default { eom: ({ message }) => message.addHeader("X-Seen", String(seen.length)) };\n',
      },
    });
    for (const count of ["1", "2"]) {
      await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
      expect((await client.send(MAIL)).modifications).toEqual([{ kind: "addHeader", name: "X-Seen", value: count }]);
    }
    await server.stop();
    expect(server.prints.all).toEqual(["loaded"]);
  });

  test("folders with spaces and odd characters", async () => {
    const outcome = await outcomeOf('[[filter]]\npath = "odd #1 x=%41 é/f.ts"\n', {
      "odd #1 x=%41 é/f.ts":
        'import { name } from "./lib #2.ts";\nexport default { eom: ({ message }) => message.addHeader("X", name) };\n',
      "odd #1 x=%41 é/lib #2.ts": 'export const name = "odd";\n',
    });
    expect(outcome.modifications).toEqual([{ kind: "addHeader", name: "X", value: "odd" }]);
  });
});

describe("specifiers without an extension", () => {
  test("lead where Bun leads them, also for many in one file, and stay as they are where nothing is imported", async () => {
    const names = Array.from({ length: 40 }, (_, index) => `m${index}`);
    const outcome = await outcomeOf('[[filter]]\npath = "sub/filter.ts"\n', {
      "sub/filter.ts": `import { defineFilter } from "pmilter";
import { word as up } from "..";
import { word as here } from "."; import type { Nothing } from "./none";
import { word as folder } from './lib';
${names.map((name) => `import { ${name} } from "./${name}";`).join("\n")}
export { word } from "../index";
const quoted: Nothing = "./lib";
export default defineFilter({ async eom({ message }) {
  const late = [(await import("./lib")).word, (await import(\`./m1\`)).m1, (await import("./" + "m2")).m2, require("./m3").m3];
  message.addHeader("X", [up, here, folder, ${names.join(" + ")}, ...late, quoted].join(" "));
} });
`.replaceAll("\\`", "`"),
      "sub/index.ts": 'export const word = "here";\n',
      "index.ts": 'export const word = "up";\n',
      "sub/lib/index.ts": 'export * from "./word";\n',
      "sub/lib/word.js": 'export const word = "folder";\n',
      ...Object.fromEntries(
        names.map((name, index) => [`sub/${name}.ts`, `export const ${name}: number = ${index};\n`]),
      ),
    });
    expect(outcome.modifications).toEqual([
      { kind: "addHeader", name: "X", value: "up here folder 780 folder 1 2 3 ./lib" },
    ]);
  });

  test("a module that is not there and imported late: an error at run time, by the name that was written", async () => {
    const outcome = await outcomeOf('[[filter]]\npath = "filter.ts"\n', {
      "filter.ts": `export default { async eom({ message }) {
  for (const load of [() => import("./gone"), () => import("./gone.ts")]) {
    await load().catch((error) => message.addHeader("X", error.code + " " + error.message.split(" imported")[0]));
  }
} };
`,
    });
    expect(outcome.modifications).toEqual(
      ["./gone", "./gone.ts"].map((name) => ({
        kind: "addHeader",
        name: "X",
        value: `ERR_MODULE_NOT_FOUND Cannot find module '${name}'`,
      })),
    );
  });
});

interface Fault {
  readonly name: string;
  readonly config?: string;
  readonly files: Readonly<Record<string, string>>;
  /** File, and line and column where they can be known; below the project. */
  readonly place: string;
  readonly message: RegExp;
}

const FILTER = '[[filter]]\npath = "filter.ts"\n';
const PHASE = '[handler.session]\nenvfrom_handler = "phase.ts"\n';
const GOOD = 'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom() {} });\n';

const LOAD_FAULTS: readonly Fault[] = [
  {
    name: "a syntax error",
    files: { "filter.ts": "export default {\n  eom() {},\n  body( {}\n};\n" },
    place: "filter.ts:4:1",
    message: /Expected "\)" but found "}"/,
  },
  {
    name: "a syntax error in a file that it imports",
    files: { "filter.ts": 'import "./lib.ts";\n', "lib.ts": "const a = 1;\nconst = 2;\n" },
    place: "lib.ts:2:7",
    message: /xpected/,
  },
  {
    name: "an import of a file that is not there",
    files: { "filter.ts": `const a = 1;\nimport "./missing.ts";\nexport default {};\n` },
    place: "filter.ts:2:8",
    message: /\.\/missing\.ts/,
  },
  {
    name: "an import of a file that is not there, in a file that it imports",
    files: { "filter.ts": 'import "./lib.ts";\nexport default {};\n', "lib.ts": '\nexport * from "./missing.ts";\n' },
    place: "lib.ts:2:",
    message: /\.\/missing\.ts/,
  },
  {
    name: "an import of a package that is not there: nothing is downloaded",
    files: { "filter.ts": `import pad from "left-pad";\nexport default { eom() { pad(); } };\n` },
    place: "filter.ts:1:",
    message: /left-pad/,
  },
  {
    name: "an import of a name that the file does not have",
    files: {
      "filter.ts": 'import { b } from "./lib.ts";\nexport default { eom: b };\n',
      "lib.ts": "export const a = 1;\n",
    },
    place: "filter.ts",
    message: /'b'.*not found|not found.*'b'/s,
  },
  {
    name: "an import of a name that pmilter does not have",
    files: { "filter.ts": 'import { rejct } from "pmilter";\nexport default { eom: () => rejct() };\n' },
    place: "filter.ts",
    message: /rejct/,
  },
  { name: "a file that is not there", files: {}, place: "filter.ts", message: /filter\.ts/ },
  {
    name: "no default export",
    files: { "filter.ts": "export const eom = 1;\n" },
    place: "filter.ts",
    message: /the module has no default export/,
  },
  {
    name: "a filter that collects more than limits.body",
    files: { "filter.ts": 'export default { collectBody: { max: "100MB" }, eom() {} };\n' },
    place: "filter.ts",
    message: /collectBody\.max is 104857600 bytes, above limits\.body \(67108864 bytes\)/,
  },
  {
    name: "a function where a filter is expected",
    files: { "filter.ts": "export default function () {}\n" },
    place: "filter.ts",
    message: /the default export is a function/,
  },
  {
    name: "a filter where a phase's function is expected",
    config: PHASE,
    files: { "phase.ts": GOOD },
    place: "phase.ts",
    message:
      /expected a function as the default export of the envfrom handler, got object \(a filter belongs in \[\[filter\]\]\)/,
  },
  {
    name: "an unknown key in a filter",
    files: { "filter.ts": "export default { eom() {}, onError() {} };\n" },
    place: "filter.ts",
    message: /a filter has no "onError"; it may have connect, helo/,
  },
  {
    name: "a handler that is no function",
    files: { "filter.ts": "export default { eom: true };\n" },
    place: "filter.ts",
    message: /"eom" of the filter must be a function, got boolean/,
  },
  {
    name: "a filter without a handler",
    files: { "filter.ts": "export default {};\n" },
    place: "filter.ts",
    message: /no handler/,
  },
  {
    name: "a throw while it is imported",
    files: { "filter.ts": 'const a = 1;\n\nthrow new Error("no licence " + a);\n' },
    place: "filter.ts:3",
    message: /no licence 1$/,
  },
  {
    name: "a throw in a line that imports a file without its extension",
    files: { "filter.ts": 'await import("./lib"); throw new Error("late");\n', "lib.ts": "export {};\n" },
    place: "filter.ts:1:34",
    message: /late$/,
  },
  {
    name: "a throw in a function of a file that it imports",
    files: {
      "filter.ts": 'import { read } from "./lib.ts";\nread();\nexport default { eom() {} };\n',
      "lib.ts": 'export function read() {\n  throw new TypeError("no list");\n}\n',
    },
    place: "lib.ts:2",
    message: /no list$/,
  },
  {
    name: "a throw of something that is no error",
    files: { "filter.ts": 'throw "just text";\n' },
    place: "filter.ts",
    message: /thrown: just text$/,
  },
  {
    name: "a rejection while it is imported",
    files: { "filter.ts": 'await Bun.sleep(1);\nawait Promise.reject(new Error("no database"));\n' },
    place: "filter.ts:2",
    message: /no database$/,
  },
  {
    name: "a worker that ends while it loads",
    files: { "filter.ts": "process.exit(0);\n" },
    place: "",
    message: /worker ended/,
  },
];

const START_FAULTS: readonly Fault[] = [
  {
    name: "start() that throws",
    files: {
      "filter.ts": 'export default { name: "db", eom() {},\n  start() {\n    throw new Error("refused");\n  } };\n',
    },
    place: "filter.ts:3",
    message: /start\(\) of filter db failed: refused$/,
  },
  {
    name: "start() that rejects",
    files: {
      "filter.ts": 'import { open } from "./db.ts";\nexport default { eom() {}, start: open };\n',
      "db.ts": 'export async function open() {\n  await Bun.sleep(1);\n  throw new Error("no answer");\n}\n',
    },
    place: "db.ts:3",
    message: /start\(\) of filter filter failed: no answer$/,
  },
];

async function failure({ config = FILTER, files }: Fault, args: readonly string[]) {
  const dir = await tempDir("load");
  const configFile = await writeProject(dir.path, { config, files, server: { workers: 2 } });
  const result = await runPmilter([...args, "-c", configFile]);
  return { ...result, dir: dir.path, [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose]() };
}

function expectSaid(stderr: string, { place, message }: Fault, dir: string): void {
  const lines = stderr.trimEnd().split("\n");
  const said = lines.slice(lines.findIndex((line) => line.startsWith("pmilter: "))).join("\n");
  expect(said).toStartWith(`pmilter: ${join(dir, place)}`);
  expect(said).toMatch(message);
  // The place and the reason, and no stack of ours.
  expect(said).not.toMatch(/^\s+at /m);
}

describe.each([["check"], [""]])("a handler that does not load: pmilter %s", (command) => {
  // Types are judged of handlers that load: test/check.
  const args = command === "" ? [] : [command, "--no-types"];
  test.each(command === "" ? [...LOAD_FAULTS, ...START_FAULTS] : LOAD_FAULTS)("$name", async (fault) => {
    await using run = await failure(fault, args);
    expect(run.exitCode).toBe(1);
    expectSaid(run.stderr, fault, run.dir);
    expect(run.stdout).toBe("");
  });
});

test("check starts filters, unless it is told not to", async () => {
  await using failed = await failure(START_FAULTS[0]!, ["check", "--no-types"]);
  expect(failed.exitCode).toBe(1);
  expect(failed.stderr).toContain("start() of filter db failed: refused");
  await using run = await failure(START_FAULTS[0]!, ["check", "--no-types", "--no-start"]);
  expect(run).toMatchObject({ exitCode: 0, stderr: "" });
});
