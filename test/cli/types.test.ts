/**
 * `pmilter types`: what it writes and what it leaves alone; that its declarations are `src/index.ts`, no more and no
 * less, as the compiler sees them; and that the server takes no notice of them. From the sources and from a binary.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as api from "../../src/index.ts";
import { PHASE_LIST } from "../../src/protocol/phases.ts";
import { MilterClient } from "../../src/testing/index.ts";
import manifest from "../../package.json" with { type: "json" };
import { runPmilter, startPmilter } from "../support/pmilter.ts";
import { type TempDir, tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");
const CHECK_TIMEOUT_MS = 300_000;

async function run(command: readonly string[], cwd: string): Promise<{ exitCode: number; output: string }> {
  const child = Bun.spawn([...command], { cwd, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { exitCode: await child.exited, output: stdout + stderr };
}

/** The type errors in a folder, by its own tsconfig.json. */
async function typeErrors(folder: string): Promise<string[]> {
  const { exitCode, output } = await run([process.execPath, "check", "--no-script"], folder);
  const errors = output.split("\n").filter((line) => line.includes(": error TS"));
  if ((exitCode === 0) !== (errors.length === 0)) throw new Error(output);
  return errors;
}

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("types");
});
afterAll(() => dir[Symbol.asyncDispose]());

/** A new folder with what the command writes, and more files. */
async function project(name: string, files: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(dir.path, name);
  expect(await runPmilter(["types", folder])).toMatchObject({ exitCode: 0, stderr: "" });
  for (const [file, text] of Object.entries(files)) await writeFile(join(folder, file), text);
  return folder;
}

describe("pmilter types: what it writes", () => {
  test("both files, in a folder that it makes; a second run writes them anew", async () => {
    const folder = join(dir.path, "new", "handlers");
    const said = `wrote ${folder}/pmilter.d.ts\nwrote ${folder}/tsconfig.json\n`;
    expect(await runPmilter(["types", folder])).toEqual({ exitCode: 0, stdout: said, stderr: "" });
    const first = await readFile(join(folder, "pmilter.d.ts"), "utf8");
    await writeFile(join(folder, "pmilter.d.ts"), `${first.split("\n")[0]}\nold`);
    expect(await runPmilter(["types", folder])).toEqual({ exitCode: 0, stdout: said, stderr: "" });
    expect(await readFile(join(folder, "pmilter.d.ts"), "utf8")).toBe(first);
  });

  test("a tsconfig.json of somebody else's stays, and the options to add are printed", async () => {
    const folder = join(dir.path, "theirs");
    await mkdir(folder);
    await writeFile(join(folder, "tsconfig.json"), "{}\n");
    const { exitCode, stdout, stderr } = await runPmilter(["types", folder]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toStartWith(`wrote ${folder}/pmilter.d.ts\nleft ${folder}/tsconfig.json as it is`);
    expect(stdout).toContain('    "moduleResolution": "bundler",\n');
    expect(await readFile(join(folder, "tsconfig.json"), "utf8")).toBe("{}\n");
  });

  test("a tsconfig.json that lost its first line is somebody else's", async () => {
    const folder = await project("kept", {});
    const own = (await readFile(join(folder, "tsconfig.json"), "utf8")).replace(/^.*\n/, "");
    await writeFile(join(folder, "tsconfig.json"), own);
    expect((await runPmilter(["types", folder])).stdout).toContain("left ");
    expect(await readFile(join(folder, "tsconfig.json"), "utf8")).toBe(own);
  });

  test("a pmilter.d.ts of somebody else's is an error, and nothing is written", async () => {
    const folder = join(dir.path, "own");
    await mkdir(folder);
    await writeFile(join(folder, "pmilter.d.ts"), "declare module 'pmilter';\n");
    const { exitCode, stdout, stderr } = await runPmilter(["types", folder]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toBe(
      `pmilter: ${folder}/pmilter.d.ts: is there already, and its first line does not begin with "// Written by pmilter types": move it away first\n`,
    );
    expect(await Array.fromAsync(new Bun.Glob("*").scan(folder))).toEqual(["pmilter.d.ts"]);
  });

  test("a file in the place of the folder is an error", async () => {
    const { exitCode, stderr } = await runPmilter(["types", join(ROOT, "package.json")]);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^pmilter: .*package\.json: expected a folder: /);
  });

  test.each([
    [["types"], /^pmilter: types needs the folder of the handlers.*\nTry: pmilter help types\n$/],
    [["types", "a", "b"], /^pmilter: types takes one folder, got also "b"\nTry: pmilter help types\n$/],
    [["types", "-c", "x", "a"], /^pmilter: .*-c.*\nTry: pmilter help types\n$/],
  ])("%j is wrong usage, exit code 2", async (args, stderr) => {
    const result = await runPmilter(args);
    expect(result).toMatchObject({ exitCode: 2, stdout: "" });
    expect(result.stderr).toMatch(stderr);
  });
});

/** What `src/index.ts` exports. */
async function exportedNames(): Promise<{ types: string[]; values: string[] }> {
  const index = await readFile(join(ROOT, "src", "index.ts"), "utf8");
  const values = Object.keys(api);
  const types: string[] = [];
  for (const [, only, list] of index.matchAll(/^export (type )?\{([^}]*)\}/gm)) {
    for (const item of list!.split(",").map((text) => text.trim())) {
      if (only !== undefined && item !== "") types.push(item);
      else if (item.startsWith("type ")) types.push(item.slice("type ".length));
    }
  }
  return { types, values };
}

const PHASES = PHASE_LIST.map(({ name }) => `"${name}"`);

/** The arguments that a generic type is compared with; for others, the defaults. */
const ARGUMENTS: Readonly<Record<string, readonly string[]>> = {
  Filter: ["", "<Own, Options>"],
  Handler: PHASES.flatMap((phase) => [`<${phase}>`, `<${phase}, Own, Options>`]),
  Message: ["", ...PHASES.map((phase) => `<${phase}>`)],
  Result: PHASES.map((phase) => `<${phase}>`),
  Session: ["", ...PHASES.flatMap((phase) => [`<${phase}>`, `<${phase}, Own, Options>`])],
  Verdict: ["", '<"reject">', '<"skip">'],
  VerdictOf: PHASES.map((phase) => `<${phase}>`),
};

/** A file that compiles only if both modules export these names, as the same types. */
async function comparison(): Promise<string> {
  const { types, values } = await exportedNames();
  const lines = [
    'import * as theirs from "pmilter";',
    'import * as ours from "./ours/index.ts";',
    // Identical, not only assignable: `readonly` and `?` count.
    "type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;",
    "interface Own { points: number }",
    "interface Options { readonly limit: number }",
    "export const same: true[] = [];",
  ];
  for (const name of types) {
    for (const given of ARGUMENTS[name] ?? [""]) {
      const id = lines.length;
      lines.push(`same.push(true satisfies Same<ours.${name}${given}, theirs.${name}${given}>);`);
      lines.push(`export const to${id} = (value: ours.${name}${given}): theirs.${name}${given} => value;`);
      lines.push(`export const from${id} = (value: theirs.${name}${given}): ours.${name}${given} => value;`);
    }
  }
  for (const name of values) {
    lines.push(`export const to_${name}: typeof theirs.${name} = ours.${name};`);
    lines.push(`export const from_${name}: typeof ours.${name} = theirs.${name};`);
  }
  return `${lines.join("\n")}\n`;
}

describe("the declarations", () => {
  test(
    "are src/index.ts: every export is there, and is the same type in both directions",
    async () => {
      const folder = await project("same", { "compare.ts": await comparison() });
      for (const part of [
        "index.ts",
        "json.ts",
        "quantity.ts",
        "usage-error.ts",
        "dns",
        "handler",
        "mime",
        "protocol",
        "store",
      ]) {
        await cp(join(ROOT, "src", part), join(folder, "ours", part), { recursive: true });
      }
      // The brand of verdicts is made to be one of a kind; for the comparison both have the same one.
      await writeFile(join(folder, "brand.d.ts"), "declare const sharedBrand: unique symbol;\n");
      for (const file of ["pmilter.d.ts", "ours/handler/verdict.ts"]) {
        const text = await readFile(join(folder, file), "utf8");
        const shared = text.replace(/^.*const kindBrand: unique symbol;$/m, "").replaceAll("kindBrand", "sharedBrand");
        expect(shared).not.toBe(text);
        await writeFile(join(folder, file), shared);
      }
      const tsconfig = await readFile(join(folder, "tsconfig.json"), "utf8");
      await writeFile(join(folder, "tsconfig.json"), tsconfig.replace('"skipLibCheck": true', '"skipLibCheck": false'));
      // The sources themselves have Bun's types elsewhere: here only the comparison and the declarations count.
      const differences = async () => (await typeErrors(folder)).filter((line) => !line.startsWith("ours/"));
      expect(await differences()).toEqual([]);

      // What the comparison would say of a difference, for each kind of it.
      const declarations = await readFile(join(folder, "pmilter.d.ts"), "utf8");
      for (const [from, to] of [
        ["readonly helo: string;", "helo: string;"],
        ["quarantine(reason: string): void;", ""],
        ['"accept", "reject", "tempfail"]', '"accept", "reject"]'],
        ["export function skip", "function skip"],
        ["collectBody?: boolean", "collectBody: boolean"],
      ] as const) {
        expect(declarations).toContain(from);
        await writeFile(join(folder, "pmilter.d.ts"), declarations.replace(from, to));
        expect(await differences()).not.toEqual([]);
      }
    },
    CHECK_TIMEOUT_MS,
  );

  test(
    "refuse what test/types/refused.ts lists, and take what allowed.ts has",
    async () => {
      const files: Record<string, string> = {};
      for (const file of ["refused.ts", "allowed.ts"]) {
        const text = await readFile(join(ROOT, "test", "types", file), "utf8");
        files[file] = text.replace('"../../src/index.ts"', '"pmilter"');
        expect(files[file]).not.toBe(text);
      }
      files["private.ts"] = ["AtEnd", "Everywhere", "MacroPhase", "kindBrand", "PHASES", "USAGE_ERRORS"]
        .map((name) => `// @ts-expect-error not exported\nexport { ${name} } from "pmilter";\n`)
        .join("");
      expect(await typeErrors(await project("refused", files))).toEqual([]);
    },
    CHECK_TIMEOUT_MS,
  );

  test(
    "type a handler that uses what a worker has, a module beside it, and plain JavaScript, without Bun's types",
    async () => {
      const folder = await project("plain", {
        "limits.json": '{ "points": 5 }\n',
        "score.ts": "export const score = (text: string): number => text.length;\n",
        "envfrom.ts": `import { reject, type Session } from "pmilter";
import limits from "./limits.json" with { type: "json" };
import { score } from "./score.ts";
export default async function envfrom(session: Session<"envfrom">, sender: string) {
  console.log(session.client.address, new TextEncoder().encode(sender).length);
  await new Promise((resolve) => setTimeout(resolve, 1));
  if (score(sender) > limits.points) return reject("550 5.7.1 No");
}
`,
        "stamp.js": 'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom() {} });\n',
      });
      expect(await typeErrors(folder)).toEqual([]);
      await writeFile(join(folder, "wrong.ts"), 'import { reject } from "pmilter";\nreject(5);\n');
      expect(await typeErrors(folder)).toEqual([expect.stringContaining("wrong.ts(2,8): error TS2345")]);
    },
    CHECK_TIMEOUT_MS,
  );

  test(
    "have pmilter/options, with valibot's types: a schema gives the types of session.options",
    async () => {
      const folder = await project("options", {
        "right.ts": `import { defineFilter } from "pmilter";
import * as o from "pmilter/options";
const rule = o.table({ limit: o.pipe(o.number(), o.minValue(1)), key: o.optional(o.picklist(["user", "client"]), "user") });
const options = o.table({
  tag: o.pipe(o.string(), o.check((tag) => tag !== "", o.expected("some text"))),
  wait: o.optional(o.duration(), "5s"),
  max: o.optional(o.size()),
  list: o.optional(o.file()),
  password: o.optional(o.secretFile()),
  rules: o.optional(o.array(rule), []),
});
export type Options = o.InferOutput<typeof options>;
export default defineFilter({
  options,
  start: (given) => given.rules.map(({ key }) => key),
  connect({ options, own }) {
    const wait: number = options.wait;
    const max: number | undefined = options.max;
    const texts: (string | undefined)[] = [options.tag, options.list, options.password];
    const keys: ("user" | "client")[] = own;
    console.log(wait, max, texts, keys);
  },
});
`,
        "wrong.ts": `import { defineFilter } from "pmilter";
import { duration, optional, string, table } from "pmilter/options";
export default defineFilter({ options: table({ wait: duration() }), connect({ options }) { options.wiat; } });
export const other = defineFilter({ options: table({ wait: duration() }), connect({ options }) { options.wait.length; } });
export const schema = table({ a: optional(string(), 5) });
export const none = defineFilter({ options: { tag: "x" }, connect() {} });
`,
      });
      expect((await typeErrors(folder)).map((line) => /(\w+\.ts)\((\d+),/.exec(line)?.slice(1).join(":"))).toEqual([
        "wrong.ts:3",
        "wrong.ts:4",
        "wrong.ts:5",
        "wrong.ts:6",
      ]);
    },
    CHECK_TIMEOUT_MS,
  );

  test("carry the doc comments of everything exported that has one", async () => {
    const text = await readFile(join(await project("docs", {}), "pmilter.d.ts"), "utf8");
    const { types, values } = await exportedNames();
    let documented = 0;
    for (const source of new Bun.Glob("{handler,mime,protocol}/*.ts").scanSync(join(ROOT, "src"))) {
      const code = await readFile(join(ROOT, "src", source), "utf8");
      for (const [, doc, name] of code.matchAll(
        /(\/\*\*(?:(?!\*\/)[^])*\*\/)\nexport (?:interface|type|class|function) (\w+)/g,
      )) {
        if (![...types, ...values].includes(name!)) continue;
        documented += 1;
        const indented = doc!.replace(/\n/g, "\n  ");
        expect(text).toMatch(
          new RegExp(`${RegExp.escape(indented)}\\n {2}export (?:interface|type|class|function) ${name}\\b`),
        );
      }
    }
    expect(documented).toBeGreaterThan(20);
    for (const line of text.split("\n")) expect(line).toBe(line.trimEnd());
  });
});

describe("a server beside them", () => {
  test("resolves pmilter to its own module, with a phase file and a filter in the folder", async () => {
    const files: Record<string, string> = {
      "handlers/envfrom.ts": `import { reject, type Session } from "pmilter";
import { unwelcome } from "./lists.ts";
export default function envfrom(_session: Session<"envfrom">, sender: string) {
  if (sender === unwelcome) return reject("550 5.7.1 Not welcome here");
}
`,
      "handlers/lists.ts": 'export const unwelcome = "<spam@example.com>";\n',
      "handlers/stamp.ts": `import { defineFilter, UsageError } from "pmilter";
export default defineFilter({
  eom({ message }) {
    try {
      message.addHeader("a b", "");
    } catch (error) {
      message.addHeader("X-Pmilter", String(error instanceof UsageError));
    }
  },
});
`,
    };
    const folder = await project("served", {});
    for (const file of ["pmilter.d.ts", "tsconfig.json"]) {
      files[`handlers/${file}`] = await readFile(join(folder, file), "utf8");
    }
    await using server = await startPmilter({
      config: '[handler.session]\nenvfrom_handler = "handlers/envfrom.ts"\n[[filter]]\npath = "handlers/stamp.ts"\n',
      files,
    });
    const eml = "Subject: hi\n\nhello\n";
    const send = async (from: string) => {
      await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
      return await client.send({ from, to: ["a@example.com"], eml });
    };
    expect((await send("b@example.com")).message).toContain("X-Pmilter: true");
    expect(await send("spam@example.com")).toMatchObject({ verdict: "reject", reply: { code: 550 } });
  });
});

describe("a binary, its sources gone", () => {
  test("writes the same files", async () => {
    const copy = join(dir.path, "copy");
    for (const part of ["src", "handlers", "package.json", "bunfig.toml"]) {
      await cp(join(ROOT, part), join(copy, part), { recursive: true });
    }
    await symlink(join(ROOT, "node_modules"), join(copy, "node_modules"));
    const binary = join(dir.path, "pmilter");
    const [, ...build] = manifest.scripts.build.replace("dist/pmilter", binary).split(" ");
    expect(await run([process.execPath, ...build], copy)).toMatchObject({ exitCode: 0 });
    await rm(copy, { recursive: true });

    const [ours, theirs] = [await project("by-source", {}), join(dir.path, "by-binary")];
    expect(await run([binary, "types", "by-binary"], dir.path)).toEqual({
      exitCode: 0,
      output: "wrote by-binary/pmilter.d.ts\nwrote by-binary/tsconfig.json\n",
    });
    for (const file of ["pmilter.d.ts", "tsconfig.json"]) {
      expect(await readFile(join(theirs, file), "utf8")).toBe(await readFile(join(ours, file), "utf8"));
    }
  });
});
