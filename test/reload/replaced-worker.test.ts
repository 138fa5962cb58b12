/** A worker that ends is replaced by one with its generation's code, whatever has become of the files on disk. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import type { Pmilter } from "../support/pmilter.ts";
import { askReload, endWorker, logged, newVersion, remove, save, startVersioned, untilVersion } from "./support.ts";

setDefaultTimeout(120_000);

const FILES = {
  "handlers/filter.ts": `import { defineFilter, reject } from "pmilter";
import { part } from "./lib/part.ts";
import data from "../data.json";
import table from "./table.toml";
import note from "./note.txt" with { type: "text" };
const own = "filter";
export default defineFilter({
  envfrom(session, sender) { if (sender === "<exit@example.com>") process.exit(3); },
  async unknown({ options }) {
    const { late } = await import("./lib/late.ts");
    return reject("550 5.7.1 " + [own, part(), data.word, table.word, note.trim(), late, options.word].join(" "));
  },
});
`,
  "handlers/lib/part.ts": 'import { inner } from "./inner";\nexport const part = (): string => inner;\n',
  "handlers/lib/inner.ts": 'export const inner = "module";\n',
  "handlers/lib/late.ts": 'export const late = "late";\n',
  "handlers/table.toml": 'word = "toml"\n',
  "handlers/note.txt": "text\n",
  "data.json": '{ "word": "json" }\n',
};

const ALL = "filter module json toml text late option";
const config = '[[filter]]\npath = "handlers/filter.ts"\n[filter.options]\nword = "option"\n';

/** What happens to the files before the worker ends. */
const MISHAPS: readonly [string, (server: Pmilter) => Promise<void>][] = [
  ["the handler is broken", (server) => save(server, "handlers/filter.ts", "syntax error")],
  [
    "the handler says something else",
    (server) => save(server, "handlers/filter.ts", FILES["handlers/filter.ts"].replace('"filter"', '"other"')),
  ],
  ["the handler is gone", (server) => remove(server, "handlers/filter.ts")],
  ["a relative module is broken", (server) => save(server, "handlers/lib/part.ts", "export const part = ;\n")],
  ["a module that it imports late is gone", (server) => remove(server, "handlers/lib/late.ts")],
  ["the folder of the modules is gone", (server) => remove(server, "handlers/lib")],
  ["the JSON file is broken", (server) => save(server, "data.json", "{")],
  ["the JSON file is gone", (server) => remove(server, "data.json")],
  [
    "the TOML file and the text say something else",
    async (server) => {
      await save(server, "handlers/table.toml", 'word = "other"\n');
      await save(server, "handlers/note.txt", "other\n");
    },
  ],
  ["all handlers are gone", (server) => remove(server, "handlers")],
];

describe("with server.watch = false", () => {
  test.each(MISHAPS)("%s: the worker comes back as it was", async (_, mishap) => {
    await using server = await startVersioned({ config, files: FILES, server: { watch: false } });
    expect(await newVersion(server)).toBe(ALL);
    await mishap(server);
    await endWorker(server);
    expect(await newVersion(server)).toBe(ALL);
    // And again, now that it is a replaced one.
    await endWorker(server);
    expect(await newVersion(server)).toBe(ALL);
    expect(server.log.text).not.toContain("could not be replaced");
  });

  test("the configuration says something else: the options are the generation's", async () => {
    await using server = await startVersioned({ config, files: FILES, server: { watch: false } });
    await writeFile(server.configFile, (await readFile(server.configFile, "utf8")).replace('"option"', '"other"'));
    await endWorker(server);
    expect(await newVersion(server)).toBe(ALL);
  });
});

test("while the watched files are broken: what is served is the generation before, and mending them takes", async () => {
  await using server = await startVersioned({ config, files: FILES, server: { workers: 2 } });
  await save(server, "handlers/lib/inner.ts", "export const inner = ;\n");
  await logged(server, /reload: generation 1 keeps serving/);
  for (let round = 0; round < 3; round++) {
    await endWorker(server);
    expect(await Promise.all([newVersion(server), newVersion(server), newVersion(server)])).toEqual([ALL, ALL, ALL]);
  }
  await save(server, "handlers/lib/inner.ts", 'export const inner = "mended";\n');
  await untilVersion(server, ALL.replace("module", "mended"));
  await endWorker(server);
  expect(await newVersion(server)).toBe(ALL.replace("module", "mended"));
});

test("after a reload it comes back with the code of the new generation", async () => {
  await using server = await startVersioned({ config, files: FILES, server: { watch: false } });
  await save(server, "data.json", '{ "word": "new" }');
  expect(await askReload(server)).toMatchObject({ ok: true });
  await save(server, "data.json", '{ "word": "newer" }');
  await endWorker(server);
  expect(await newVersion(server)).toBe(ALL.replace("json", "new"));
});

test("a worker that ends while a reload is under way: neither is lost", async () => {
  await using server = await startVersioned({ config, files: FILES, server: { watch: false } });
  const slow = FILES["handlers/filter.ts"].replace('"filter"', '"slow"').replace(
    "envfrom(",
    `async start() {
    console.log("starting");
    while (!(await Bun.file(import.meta.dir + "/go").exists())) await Bun.sleep(5);
  },
  envfrom(`,
  );
  await save(server, "handlers/filter.ts", slow);
  const reload = askReload(server);
  await server.prints.next(/starting/);
  await endWorker(server);
  expect(await newVersion(server)).toBe(ALL);
  await save(server, "handlers/go", "");
  expect(await reload).toMatchObject({ ok: true });
  expect(await newVersion(server)).toBe(ALL.replace("filter", "slow"));
});
