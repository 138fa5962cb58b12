/** Handlers behind symbolic links: what answers is what the links led to, and a link that is turned is a change. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { link, readFile, realpath, rename, symlink, unlink } from "node:fs/promises";
import { join } from "node:path";
import { MilterClient } from "../../src/testing/index.ts";
import { CONNECT, HELO, OPTNEG, RawClient } from "../server/wire.ts";
import { type Pmilter, type PmilterOptions, runPmilter, startPmilter } from "../support/pmilter.ts";
import {
  askReload,
  askStatus,
  endWorker,
  everyWorkerReady,
  newVersion,
  quiet,
  reloadLines,
  save,
  startVersioned,
  untilVersion,
  versioned,
} from "./support.ts";

setDefaultTimeout(120_000);

/** A filter that stamps messages with the value of an expression, in a header named after its layout. */
function filter(expression: string, imports = ""): string {
  return `import { defineFilter } from "pmilter";
${imports}
export default defineFilter({
  async eom({ message, options }) { message.addHeader("X-" + options.layout, ${expression}); },
});
`;
}

/** A filter of one version. */
const own = (version: string) => filter(JSON.stringify(version));
const part = (version: string) => `export const word: string = "${version}";\n`;
const IMPORTS_PART = filter("word", 'import { word } from "./part.ts";');

/** The files of two releases, in the folders r1 and r2. */
function releases(files: (version: string) => Readonly<Record<string, string>>): Record<string, string> {
  const entries = ["1", "2"].flatMap((number) =>
    Object.entries(files(`v${number}`)).map(([name, text]) => [`r${number}/${name}`, text] as const),
  );
  return Object.fromEntries(entries);
}

interface Layout {
  readonly name: string;
  /** The handler; "filter.ts" if it is not given. */
  readonly path?: string;
  readonly files: Readonly<Record<string, string>>;
  readonly links?: Readonly<Record<string, string>>;
  /** The link that is turned, and what it says for the second release. For the first one it is the same with r1. */
  readonly turned: readonly [path: string, target: string];
  /** Files of the second release that are the same file as in the first one. */
  readonly hardLinks?: readonly string[];
  /** The file of the second release that holds its version; "" if there is none alone. */
  readonly edited: string;
  /** What a snapshot does not hold: `docs/design.md` says so. */
  readonly isFromDisk?: true;
}

const LAYOUTS: readonly Layout[] = [
  {
    name: "a folder of the handler",
    path: "cur/filter.ts",
    files: releases((version) => ({ "filter.ts": own(version) })),
    turned: ["cur", "r2"],
    edited: "r2/filter.ts",
  },
  {
    name: "a folder far above the handler",
    path: "a/cur/b/c/filter.ts",
    files: releases((version) => ({ "b/c/filter.ts": IMPORTS_PART, "b/c/part.ts": part(version) })),
    turned: ["a/cur", "../r2"],
    edited: "r2/b/c/part.ts",
  },
  {
    name: "the handler's file",
    files: releases((version) => ({ "filter.ts": own(version) })),
    turned: ["filter.ts", "r2/filter.ts"],
    edited: "r2/filter.ts",
  },
  {
    name: "the handler's file, under a name without an extension",
    files: releases((version) => ({ "8c1f": own(version) })),
    turned: ["filter.ts", "r2/8c1f"],
    edited: "r2/8c1f",
  },
  {
    name: "one in the middle of a chain of links",
    files: releases((version) => ({ "filter.ts": own(version) })),
    links: { "filter.ts": "stable/filter.ts", stable: "cur" },
    turned: ["cur", "r2"],
    edited: "r2/filter.ts",
  },
  {
    name: "the layout of mounted configuration",
    path: "mnt/filter.ts",
    files: {
      "mnt/..r1/filter.ts": IMPORTS_PART,
      "mnt/..r1/part.ts": part("v1"),
      "mnt/..r2/filter.ts": IMPORTS_PART,
      "mnt/..r2/part.ts": part("v2"),
    },
    links: { "mnt/filter.ts": "..data/filter.ts", "mnt/part.ts": "..data/part.ts" },
    turned: ["mnt/..data", "..r2"],
    edited: "mnt/..r2/part.ts",
  },
  {
    name: "an imported module",
    files: { "filter.ts": IMPORTS_PART, ...releases((version) => ({ "part.ts": part(version) })) },
    turned: ["part.ts", "r2/part.ts"],
    edited: "r2/part.ts",
  },
  {
    name: "an imported module, named without its extension",
    files: {
      "filter.ts": filter("word", 'import { word } from "./part";'),
      ...releases((version) => ({ "part.ts": part(version) })),
    },
    turned: ["part.ts", "r2/part.ts"],
    edited: "r2/part.ts",
  },
  {
    name: "the folder of an imported module",
    path: "handlers/filter.ts",
    files: {
      "handlers/filter.ts": filter("word", 'import { word } from "../lib/part.ts";'),
      ...releases((version) => ({ "part.ts": part(version) })),
    },
    turned: ["lib", "r2"],
    edited: "r2/part.ts",
  },
  {
    name: "the folder of a module that is imported while a session runs, by both kinds of names",
    files: {
      "filter.ts": filter(
        '(await import("./lib/part.ts")).word.replace(/v(.)/, "$1") && (await import("./lib/part")).word',
      ),
      ...releases((version) => ({ "part.ts": part(version) })),
    },
    turned: ["lib", "r2"],
    edited: "r2/part.ts",
  },
  {
    name: "an imported folder with an index file",
    files: {
      "filter.ts": filter("word", 'import { word } from "./lib";'),
      ...releases((version) => ({ "index.ts": 'export * from "./part";\n', "part.ts": part(version) })),
    },
    turned: ["lib", "r2"],
    edited: "r2/part.ts",
  },
  {
    name: "a folder whose index file is imported by its files",
    path: "lib/filter.ts",
    files: releases((version) => ({
      "index.ts": part(version),
      "filter.ts": filter("word + other", 'import { word } from ".";\nimport { other } from "./a";'),
      "a.ts": 'import { word } from "./";\nexport const other: string = word.slice(2);\n',
    })),
    turned: ["lib", "r2"],
    edited: "r2/index.ts",
  },
  {
    name: "JSON, TOML, YAML and text",
    files: {
      "filter.ts": filter(
        '[...new Set([json.word, toml.word, yaml.word, text.trim()])].join(" ")',
        `import json from "./data/a.json";
import toml from "./data/a.toml";
import yaml from "./data/a.yaml";
import text from "./data/a.txt";`,
      ),
      ...releases((version) => ({
        "a.json": `{ "word": "${version}" }`,
        "a.toml": `word = "${version}"\n`,
        "a.yaml": `word: ${version}\n`,
        "a.txt": `${version}\n`,
      })),
    },
    turned: ["data", "r2"],
    edited: "",
  },
  {
    name: "what the paths of a tsconfig.json name",
    files: {
      "base.json": '{ "compilerOptions": { "baseUrl": "./lib", "paths": { "none/*": ["./none/*"] } } }',
      "tsconfig.json": `{
  // Of the longest pattern the first file that is there.
  "extends": "./base.json",
  "compilerOptions": { "paths": { "@lib/*": ["./none/*", "*"], "@*": ["./none/*"], "#part": ["part.ts"] }, },
}`,
      "filter.ts": filter(
        '[...new Set([first, second, third, fourth, late.word])].join(" ")',
        `import { word as first } from "@lib/part";
import { word as second } from "@lib/part.ts";
import { word as third } from "#part";
import { word as fourth } from "part";
const late = await import("@lib/part");`,
      ),
      ...releases((version) => ({ "part.ts": part(version) })),
    },
    turned: ["lib", "r2"],
    edited: "r2/part.ts",
  },
  {
    name: "a folder whose unchanged files are hard links to those of the release before",
    path: "cur/filter.ts",
    files: { "r1/filter.ts": IMPORTS_PART, "r1/part.ts": part("v1"), "r2/part.ts": part("v2") },
    hardLinks: ["filter.ts"],
    turned: ["cur", "r2"],
    edited: "r2/part.ts",
  },
  {
    name: "a CommonJS module",
    files: {
      "filter.ts": filter("old.word", 'import old from "./old.cjs";'),
      ...releases((version) => ({ "old.cjs": `module.exports = { word: "${version}" };\n` })),
    },
    turned: ["old.cjs", "r2/old.cjs"],
    edited: "r2/old.cjs",
    isFromDisk: true,
  },
  {
    name: "a linked package",
    files: {
      "filter.ts": filter("word", 'import { word } from "policy";'),
      ...releases((version) => ({
        "package.json": JSON.stringify({ name: "policy", type: "module", exports: "./dist/main.js" }),
        "dist/main.js": 'export * from "./inner.js";\n',
        "dist/inner.js": `export const word = "${version}";\n`,
      })),
    },
    turned: ["node_modules/policy", "../r2"],
    edited: "",
    isFromDisk: true,
  },
];

/** Each layout has a folder of its own, by its place in the list. */
const folderOf = (layout: Layout) => `layout-${LAYOUTS.indexOf(layout)}`;

/** Paths with the layout's folder in front. */
function placed(layout: Layout, files: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(files).map(([path, text]) => [`${folderOf(layout)}/${path}`, text]));
}

const forFirst = (target: string) => target.replace("r2", "r1");

/** One server with the handlers of all layouts, and one that ends its worker. */
async function start(layouts: readonly Layout[], isWatched: boolean): Promise<Pmilter> {
  const tables = layouts.map(
    (layout) =>
      `[[filter]]\npath = "${folderOf(layout)}/${layout.path ?? "filter.ts"}"\n[filter.options]\nlayout = "${folderOf(layout)}"\n`,
  );
  const links = layouts.map((layout) =>
    placed(layout, { ...layout.links, [layout.turned[0]]: forFirst(layout.turned[1]) }),
  );
  const server = await startPmilter({
    server: { workers: 2, stop_timeout: 0.1, watch: isWatched },
    config: `[[filter]]\npath = "exit.ts"\n${tables.join("")}`,
    files: Object.assign({ "exit.ts": EXIT }, ...layouts.map((layout) => placed(layout, layout.files))),
    links: Object.assign({}, ...links),
  });
  for (const layout of layouts) {
    for (const name of layout.hardLinks ?? []) {
      const folder = join(server.dir, folderOf(layout));
      await link(join(folder, "r1", name), join(folder, "r2", name));
    }
  }
  return server;
}

const EXIT = 'export default { envfrom(session, sender) { if (sender === "<exit@example.com>") process.exit(3); } };\n';

/** Turns a link as deployments do: a new one is renamed over it. */
async function turn(server: Pmilter, path: string, target: string): Promise<void> {
  const link = join(server.dir, path);
  await symlink(target, `${link}.new`);
  await rename(`${link}.new`, link);
}

/** Turns the links of all layouts. */
async function turnAll(server: Pmilter, layouts: readonly Layout[], release: 1 | 2): Promise<void> {
  for (const layout of layouts) {
    const [path, target] = layout.turned;
    await turn(server, `${folderOf(layout)}/${path}`, release === 1 ? forFirst(target) : target);
  }
}

/** What the handlers say in several sessions that are open at a time: of each layout all versions that there are. */
async function versions(server: Pmilter): Promise<Record<string, string>> {
  await everyWorkerReady(server);
  const clients = await Promise.all(
    Array.from({ length: 6 }, () => MilterClient.connect(server.addresses[0]!, { as: "postfix" })),
  );
  const found = new Map<string, Set<string>>();
  for (const client of clients) {
    const { modifications } = await client.send(MAIL);
    for (const change of modifications) {
      if (change.kind !== "addHeader") throw new Error(`a change that no handler makes: ${change.kind}`);
      const values = found.get(change.name) ?? new Set();
      found.set(change.name, values.add(change.value));
    }
  }
  const { workers } = (await askStatus(server)).generation;
  await Promise.all(clients.map((client) => client.quit()));
  // On a busy machine the workers that answer get more than their share: then not all of them were asked.
  if (!workers.every((connections) => connections > 0)) return await versions(server);
  return Object.fromEntries(
    LAYOUTS.filter((layout) => found.has(`X-${folderOf(layout)}`)).map((layout) => [
      layout.name,
      [...found.get(`X-${folderOf(layout)}`)!].join(", "),
    ]),
  );
}

const all = (layouts: readonly Layout[], version: string): Record<string, string> =>
  Object.fromEntries(layouts.map(({ name }) => [name, version]));

const MAIL = { from: "from@example.com", to: ["to@example.com"], eml: "Subject: x\r\n\r\nHello\r\n" };

/** Not about time: `saves.test.ts` is. */
const PATIENT_MS = 20_000;

async function until(server: Pmilter, version: string): Promise<void> {
  await untilVersion(server, version, PATIENT_MS);
}

function said(server: Pmilter, pattern: RegExp, from = 0): Promise<string> {
  return server.log.next(pattern, { from, timeoutMs: PATIENT_MS });
}

/** Waits until all links that were turned are in force. */
async function reloaded(server: Pmilter, from: number): Promise<void> {
  await said(server, /reload: generation \d+ serves: /, from);
}

test("link-turned: it is a change, and turned back is one", async () => {
  await using server = await start(LAYOUTS, true);
  expect(await versions(server)).toEqual(all(LAYOUTS, "v1"));
  for (const release of [2, 1, 2] as const) {
    const from = server.log.all.length;
    await turnAll(server, LAYOUTS, release);
    await reloaded(server, from);
    expect(await versions(server)).toEqual(all(LAYOUTS, `v${release}`));
    await endWorker(server);
    expect(await versions(server)).toEqual(all(LAYOUTS, `v${release}`));
  }
  // Where a link leads to now is what is watched.
  for (const name of [
    "the layout of mounted configuration",
    "one in the middle of a chain of links",
    "an imported folder with an index file",
  ]) {
    const layout = LAYOUTS.find((layout) => layout.name === name)!;
    const from = server.log.all.length;
    await save(server, `${folderOf(layout)}/${layout.edited}`, layout.files[layout.edited]!.replaceAll("v2", "v3"));
    await reloaded(server, from);
    expect(await versions(server)).toMatchObject({ [name]: "v3" });
  }
});

test("link-turned: a snapshot is what answers, whatever the links lead to by then", async () => {
  const layouts = LAYOUTS.filter(({ isFromDisk }) => isFromDisk !== true);
  await using server = await start(layouts, false);
  const expectFirst = async () => {
    await endWorker(server);
    expect(await versions(server)).toEqual(all(layouts, "v1"));
    await endWorker(server);
    expect(await versions(server)).toEqual(all(layouts, "v1"));
  };
  for (const layout of layouts) {
    for (const [name, text] of Object.entries(layout.files)) {
      if (name.includes("r1/")) await save(server, `${folderOf(layout)}/${name}`, text.replaceAll("v1", "edited"));
    }
  }
  await expectFirst();
  await turnAll(server, layouts, 2);
  await expectFirst();
  for (const layout of layouts) await unlink(join(server.dir, folderOf(layout), layout.turned[0]));
  await expectFirst();
  await turnAll(server, layouts, 2);
  expect(await askReload(server)).toMatchObject({ ok: true });
  expect(await versions(server)).toEqual(all(layouts, "v2"));
});

/** A server with one filter, `cur/filter.ts`, and the folders that `cur` may lead to. */
async function startOne(
  files: (version: string) => Readonly<Record<string, string>>,
  options: PmilterOptions = {},
): Promise<Pmilter> {
  return await startVersioned({
    config: '[[filter]]\npath = "cur/filter.ts"\n',
    links: { cur: "r1" },
    ...options,
    files: { ...releases(files), ...options.files },
  });
}

const oneFile = (version: string) => ({ "filter.ts": versioned(version) });

describe("a link", () => {
  test("in front of the configuration: code at once, the configuration when it is asked for", async () => {
    const config = (version: string) => `[[filter]]\npath = "filter.ts"\nname = "${version}"\n`;
    await using server = await startOne(oneFile, {
      configPath: "cur/pmilter.toml",
      config: config("v1"),
      // Beside the link: a socket in the folder that it led to could not be found any more.
      server: { control: "../pmilter.ctl" },
    });
    const text = await readFile(server.configFile, "utf8");
    await save(server, "r2/pmilter.toml", text.replace('"v1"', '"v2"'));
    await turn(server, "cur", "r2");
    await until(server, "v2");
    expect((await askStatus(server)).filters).toMatchObject([{ name: "v1" }]);
    const reload = await runPmilter(["reload", "-c", server.configFile]);
    expect(reload).toMatchObject({ exitCode: 0, stdout: "reloaded: generation 3 serves: v2\n" });
  });

  test("link-turned: one that leads nowhere for a while: the old version serves, and its return is noticed", async () => {
    await using server = await startOne(oneFile);
    await turn(server, "cur", "nowhere");
    await said(server, /generation 1 keeps serving: .*cur\/filter\.ts: there is no such file/);
    expect(await newVersion(server)).toBe("v1");
    await turn(server, "cur", "r2");
    await until(server, "v2");
    // What it led to comes later than the link.
    const from = server.log.all.length;
    await turn(server, "cur", "r3");
    await said(server, /generation 2 keeps serving: /, from);
    await save(server, "r3/filter.ts", versioned("v3"));
    await until(server, "v3");
  });

  test("that leads to itself: the old version keeps serving", async () => {
    await using server = await startOne(oneFile);
    await turn(server, "cur", "cur");
    await said(server, /generation 1 keeps serving: .*cur\/filter\.ts: there is no such file/);
    expect(await newVersion(server)).toBe("v1");
  });

  test("that becomes a folder, and a link again", async () => {
    await using server = await startOne(oneFile);
    await unlink(join(server.dir, "cur"));
    await save(server, "cur/filter.ts", versioned("folder"));
    await until(server, "folder");
    await rename(join(server.dir, "cur"), join(server.dir, "r3"));
    await turn(server, "cur", "r2");
    await until(server, "v2");
    await turn(server, "cur", "r3");
    await until(server, "folder");
    await unlink(join(server.dir, "cur"));
    await rename(join(server.dir, "r1"), join(server.dir, "cur"));
    await until(server, "v1");
  });

  test("that is turned to the same text: its folder is another one, and so is what it holds", async () => {
    const text = `import { readFileSync } from "node:fs";
import { defineFilter, reject } from "pmilter";
const list = readFileSync(import.meta.dir + "/list.txt", "utf8");
export default defineFilter({ unknown: () => reject("550 5.7.1 " + list) });
`;
    await using server = await startOne((version) => ({ "filter.ts": text, "list.txt": version }));
    await turn(server, "cur", "r2");
    await until(server, "v2");
    await save(server, "r2/filter.ts", versioned("edited"));
    await until(server, "edited");
  });

  test("that is replaced by one to the same place, or turned and turned back at once: nothing to do", async () => {
    await using server = await startOne(oneFile);
    await turn(server, "cur", "r1");
    await turn(server, "cur", "./r1/");
    await quiet();
    expect(reloadLines(server)).toEqual([]);
  });

  test("that is turned while a reload is under way", async () => {
    const slow = `${versioned("slow").replace("unknown:", 'async start() { console.log("starting"); await Bun.sleep(300); },\n  unknown:')}`;
    await using server = await startOne(oneFile, { files: { "r3/filter.ts": slow } });
    await turn(server, "cur", "r3");
    await server.prints.next(/starting/);
    await turn(server, "cur", "r2");
    await until(server, "v2");
    await quiet();
    expect(await newVersion(server)).toBe("v2");
  });

  test("in front of a file that another path leads to as well: one module", async () => {
    await using server = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "a.ts"\n[[filter]]\npath = "b.ts"\n[[filter]]\npath = "r/filter.ts"\n',
      files: {
        "r/filter.ts":
          'console.log("loaded");\nlet count = 0;\nexport default { envfrom() { count++; }, eom({ message }) { message.addHeader("X-Count", String(count)); } };\n',
      },
      links: { "a.ts": "r/filter.ts", "b.ts": "a.ts" },
    });
    await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
    const { modifications } = await client.send(MAIL);
    expect(modifications).toEqual(
      Array.from({ length: 3 }, () => ({ kind: "addHeader", name: "X-Count", value: "3" })),
    );
    await client.quit();
    await server.stop();
    expect(server.prints.all).toEqual(["loaded"]);
  });

  test("in front of a Ruby script, compiled once for two phases", async () => {
    await using server = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[handler.session]\nconnect_handler = "cur/log.rb"\nhelo_handler = "helo.rb"\n',
      files: releases((version) => ({ "log.rb": `puts "${version}"\n` })),
      links: { cur: "r1", "helo.rb": "cur/log.rb" },
    });
    const printed = async () => {
      const from = server.prints.all.length;
      using client = await RawClient.connect(server.addresses[0]!);
      await client.ask(OPTNEG, CONNECT, HELO);
      await server.prints.next(/^v/, { from: from + 1 });
      return server.prints.all.slice(from);
    };
    expect(await printed()).toEqual(["v1", "v1"]);
    for (const version of ["v2", "v1", "v2"]) {
      const from = server.log.all.length;
      await turn(server, "cur", `r${version.slice(1)}`);
      await said(server, /reload: generation \d+ serves: /, from);
      expect(await printed()).toEqual([version, version]);
    }
  });

  test("in front of the handlers of the server's life", async () => {
    const life = (version: string) => ({
      "life.ts": `import { word } from "./word";\nexport default () => console.log("life", word);\n`,
      "word.ts": `export const word = "${version}";\n`,
      "filter.ts": versioned(version),
    });
    await using server = await startOne(life, {
      config:
        '[handler.config]\npostconfig_handler = "cur/life.ts"\nmaster_exit_handler = "cur/life.ts"\n[[filter]]\npath = "cur/filter.ts"\n',
    });
    for (const version of ["v2", "v1", "v2"]) {
      await turn(server, "cur", `r${version.slice(1)}`);
      await until(server, version);
    }
    await turn(server, "cur", "r1");
    await until(server, "v1");
    await server.stop();
    expect(server.prints.all).toEqual(["v1", "v2", "v1", "v2", "v1", "v1"].map((version) => `life ${version}`));
  });

  test("shows in the log as what it led to: file and line of the source", async () => {
    const text = (version: string) => `import { defineFilter } from "pmilter";
import { fail } from "./lib/fail";

export default defineFilter({
  eom() {
    console.log(import.meta.path, import.meta.url, import.meta.dir);
    fail("${version}");
  },
});
`;
    await using server = await startOne(
      (version) => ({
        "filter.ts": text(version),
        "lib/fail.ts": "\n\nexport function fail(text: string): never {\n  throw new TypeError(text);\n}\n",
      }),
      { links: { cur: "r1" } },
    );
    await turn(server, "cur", "r2");
    await said(server, /generation 2 serves/);
    await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
    await client.send(MAIL);
    expect(await said(server, /handler failed: /)).toMatch(/ at=r2\/lib\/fail\.ts:4 error="TypeError: v2"/);
    const folder = join(await realpath(server.dir), "r2");
    expect(await server.prints.next(/filter/)).toBe(`${folder}/filter.ts file://${folder}/filter.ts ${folder}`);
  });

  test("in front of what is imported by an absolute path, or by the address of a file", async () => {
    await using server = await startOne((version) => ({ "part.ts": part(version), "filter.ts": "" }), {
      config: '[[filter]]\npath = "filter.ts"\n',
      files: { "filter.ts": versioned("first") },
    });
    await save(
      server,
      "filter.ts",
      `import { word } from "${server.dir}/cur/part.ts";
import { word as other } from "file://${server.dir}/cur/part.ts";
import { reject } from "pmilter";
export default { unknown: () => reject("550 5.7.1 " + word + " " + other) };
`,
    );
    await until(server, "v1 v1");
    await turn(server, "cur", "r2");
    await until(server, "v2 v2");
  });

  test("in front of a folder of packages: each release has its own", async () => {
    const files = (version: string) => ({
      "filter.ts":
        'import { word } from "policy";\nimport { reject } from "pmilter";\nexport default { unknown: () => reject("550 5.7.1 " + word) };\n',
      "node_modules/policy/package.json": '{ "name": "policy", "type": "module", "exports": "./main.js" }',
      "node_modules/policy/main.js": `export const word = "${version}";\n`,
    });
    await using server = await startOne(files);
    for (const version of ["v2", "v1", "v2"]) {
      await turn(server, "cur", `r${version.slice(1)}`);
      await until(server, version);
    }
  });
});
