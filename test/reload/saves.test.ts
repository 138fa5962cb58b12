/** Files that are saved while the server runs: what takes effect, when, for whom, and with how many reloads. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, rename, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LOADED_MS, SAVED_MS, WATCH_MS } from "../../src/server/policy.ts";
import { spawnServer } from "../server/spawned.ts";
import { CONNECT, EOM, HEADER, HELO, MAIL, OPTNEG, RawClient, RCPT } from "../server/wire.ts";
import { waitFor } from "../support/temp.ts";
import {
  askReload,
  logged,
  median,
  newVersion,
  quiet,
  reloadLines,
  remove,
  save,
  saveByRename,
  startVersioned,
  untilVersion,
  USE_FILTER,
  versioned,
  versionOf,
} from "./support.ts";

setDefaultTimeout(120_000);

/** A filter whose version is put together from everything that it imports. */
const FROM_FILES = {
  "filter.ts": `import { defineFilter, reject } from "pmilter";
import { part } from "./lib/part.ts";
import data from "./data.json";
import table from "./lib/table.toml";
import note from "./note.txt" with { type: "text" };
const own = "handler";
export default defineFilter({
  unknown: () => reject("550 5.7.1 " + [own, part, data.word, table.word, note.trim()].join(" ")),
});
`,
  "lib/part.ts": 'import { inner } from "./inner";\nexport const part: string = "module:" + inner;\n',
  "lib/inner.ts": 'export const inner = "inner";\n',
  "lib/table.toml": 'word = "toml"\n',
  "data.json": '{ "word": "json" }\n',
  "note.txt": "text\n",
};

const ALL_PARTS = "handler module:inner json toml text";

test("from the last write to the first session on the new code", async () => {
  await using server = await startVersioned({ server: { workers: "auto" } });
  const times: number[] = [];
  for (let round = 0; round < 5; round++) {
    const version = `save-${round}`;
    await save(server, "filter.ts", versioned(version));
    times.push(await untilVersion(server, version));
  }
  const worst = Math.max(...times);
  console.log(
    `save to first session on the new code: median ${median(times).toFixed(0)} ms, worst ${worst.toFixed(0)} ms of ${times.length}`,
  );
  expect(reloadLines(server)).toHaveLength(5);
});

test("two looks, loading and taking over fit into the time that is promised", () => {
  expect(2 * WATCH_MS + LOADED_MS).toBeLessThan(SAVED_MS);
});

describe("a start that takes long", () => {
  /** Longer than the sources have to be quiet. */
  const SLOWLY = "await Bun.sleep(1000);\n";
  const CONFIG = `[handler.config]\npostconfig_handler = "post.ts"\n${USE_FILTER}`;
  const POST = 'export default () => console.log("configured");\n';

  test("is followed by no reload", async () => {
    await using server = await startVersioned({
      config: CONFIG,
      files: { "filter.ts": SLOWLY + versioned("v1"), "post.ts": POST },
    });
    await quiet();
    expect(reloadLines(server)).toEqual([]);
    expect(server.prints.all).toEqual(["configured"]);
  });

  test("a change that comes meanwhile is taken up afterwards", async () => {
    const itself = `import { writeFileSync } from "node:fs";
writeFileSync(import.meta.path, ${JSON.stringify(versioned("v2"))});
${SLOWLY}`;
    await using server = await startVersioned({ files: { "filter.ts": itself + versioned("v1") } });
    await untilVersion(server, "v2");
    // The new version answers before its line is written.
    await logged(server, /reload: generation 2 serves/);
    expect(reloadLines(server)).toHaveLength(1);
  });
});

describe("what is saved", () => {
  test.each([
    ["the handler", "filter.ts", '"handler"', '"changed"', "changed module:inner json toml text"],
    ["a relative module", "lib/part.ts", '"module:"', '"changed:"', "handler changed:inner json toml text"],
    ["a module that a module imports", "lib/inner.ts", '"inner"', '"changed"', "handler module:changed json toml text"],
    ["a JSON file", "data.json", '"json"', '"changed"', "handler module:inner changed toml text"],
    ["a TOML file", "lib/table.toml", '"toml"', '"changed"', "handler module:inner json changed text"],
    ["a text file", "note.txt", "text", "changed", "handler module:inner json toml changed"],
  ] as const)("%s takes effect", async (_, name, before, after, version) => {
    await using server = await startVersioned({ files: FROM_FILES });
    expect(await newVersion(server)).toBe(ALL_PARTS);
    await save(server, name, FROM_FILES[name].replace(before, after));
    await untilVersion(server, version);
    expect(reloadLines(server)).toHaveLength(1);
  });

  test("a phase file, and a module that two handlers share", async () => {
    await using server = await startVersioned({
      config: '[handler.session]\nunknown_handler = "phases/unknown.ts"\nhelo_handler = "phases/helo.ts"\n',
      files: {
        "phases/unknown.ts":
          'import { reject } from "pmilter";\nimport { word } from "../shared.ts";\nexport default () => reject("550 5.7.1 " + word);\n',
        "phases/helo.ts":
          'import { word } from "../shared.ts";\nexport default function () { console.log("helo", word); }\n',
        "shared.ts": 'export const word = "one";\n',
      },
    });
    await save(server, "shared.ts", 'export const word = "two";\n');
    await untilVersion(server, "two");
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, HELO);
    expect(await server.prints.next(/^helo/)).toBe("helo two");
    expect(reloadLines(server)).toHaveLength(1);
  });

  test("a CommonJS module beside the handler takes effect, too", async () => {
    await using server = await startVersioned({
      files: {
        "filter.ts":
          'import { defineFilter, reject } from "pmilter";\nimport old from "./old.cjs";\nexport default defineFilter({ unknown: () => reject("550 5.7.1 " + old.word) });\n',
        "old.cjs": 'module.exports = { word: "one" };\n',
      },
    });
    expect(await newVersion(server)).toBe("one");
    await save(server, "old.cjs", 'module.exports = { word: "two" };\n');
    await untilVersion(server, "two");
  });

  test("a file that only the new code imports is watched from then on", async () => {
    await using server = await startVersioned();
    await save(server, "later/word.ts", 'export const word = "one";\n');
    await save(
      server,
      "filter.ts",
      versioned("${word}").replaceAll('"550 5.7.1 ${word}"', '"550 5.7.1 " + word') +
        'import { word } from "./later/word.ts";\n',
    );
    await untilVersion(server, "one");
    await save(server, "later/word.ts", 'export const word = "two";\n');
    await untilVersion(server, "two");
  });

  test("a module that is new in a folder that is known", async () => {
    await using server = await startVersioned({ files: FROM_FILES });
    await save(server, "lib/fresh.ts", 'export const fresh = "fresh";\n');
    const own = FROM_FILES["filter.ts"].replace(
      'const own = "handler"',
      'import { fresh as own } from "./lib/fresh.ts"',
    );
    await save(server, "filter.ts", own);
    await untilVersion(server, "fresh module:inner json toml text");
  });

  test("a package that is installed later, and replaced by another version of it, as soon as it is asked for", async () => {
    const install = async (version: string) => {
      await save(
        server,
        "node_modules/policy/package.json",
        JSON.stringify({ name: "policy", version, type: "module", exports: "./dist/main.js" }),
      );
      await save(server, "node_modules/policy/dist/main.js", `export const version = "${version}";\n`);
    };
    await using server = await startVersioned();
    await install("1");
    await save(
      server,
      "filter.ts",
      'import { defineFilter, reject } from "pmilter";\nimport { version } from "policy";\nexport default defineFilter({ unknown: () => reject("550 5.7.1 policy " + version) });\n',
    );
    await untilVersion(server, "policy 1");
    await remove(server, "node_modules/policy");
    await install("2");
    expect(await askReload(server)).toMatchObject({ ok: true });
    expect(await newVersion(server)).toBe("policy 2");
  });

  test("a change while the handlers of the start are being loaded is not lost", async () => {
    const waiting = (version: string) =>
      `${versioned(version).replace("unknown:", 'async start() { console.log("starting"); while (!existsSync(join(import.meta.dir, "go"))) await Bun.sleep(5); },\n  unknown:')}import { existsSync } from "node:fs";\nimport { join } from "node:path";\n`;
    await using server = await spawnServer({
      server: { workers: 1, stop_timeout: 0.1 },
      config: USE_FILTER,
      files: { "filter.ts": waiting("v1") },
    });
    await server.prints.next(/starting/);
    await writeFile(join(server.dir, "filter.ts"), waiting("v2"));
    await writeFile(join(server.dir, "go"), "");
    await server.log.next(/ready/);
    const version = async () => {
      using client = await RawClient.connect(server.address);
      await client.ask(OPTNEG);
      return await versionOf(client);
    };
    await waitFor(async () => (await version()) === "v2", { what: "the saved code" });
  });

  test("changed-meanwhile: a change while a reload is under way is not lost, also of a file that is new to it", async () => {
    await using server = await startVersioned();
    const slow = `import { defineFilter, reject } from "pmilter";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { word } from "./later/word.ts";
export default defineFilter({
  async start() { console.log("starting"); while (!existsSync(join(import.meta.dir, "go"))) await Bun.sleep(5); },
  unknown: () => reject("550 5.7.1 " + word),
});
`;
    await save(server, "later/word.ts", 'export const word = "one";\n');
    await save(server, "filter.ts", slow);
    await server.prints.next(/starting/);
    await save(server, "later/word.ts", 'export const word = "two";\n');
    await save(server, "go", "");
    await untilVersion(server, "two", 2000);
  });
});

describe("sessions in flight", () => {
  test("finish on the code they began with, between messages and within one; new ones run the new code", async () => {
    await using server = await startVersioned({ server: { workers: 2 } });
    using idle = await RawClient.connect(server.addresses[0]!);
    using inMessage = await RawClient.connect(server.addresses[0]!);
    expect(await idle.ask(OPTNEG, CONNECT, HELO)).toBe("Occ");
    expect(await inMessage.ask(OPTNEG, CONNECT, HELO, MAIL, RCPT)).toBe("Occcc");
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
    expect(await versionOf(idle)).toBe("v1");
    expect(await inMessage.ask(HEADER)).toBe("c");
    await inMessage.send(EOM);
    const stamp = await inMessage.reply();
    expect({ code: stamp.code, text: stamp.payload.toString() }).toEqual({ code: "h", text: "X-Version\0 v1\0" });
    expect(await inMessage.codes(1)).toBe("c");
    // And so does their next message.
    expect(await idle.ask(MAIL, RCPT)).toBe("cc");
    expect(await versionOf(idle)).toBe("v1");
    expect(await versionOf(inMessage)).toBe("v1");
    expect([idle.isEnded, inMessage.isEnded]).toEqual([false, false]);
  });

  test("an awaited handler gives its verdict from the old code", async () => {
    const gated = `import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  unknown: () => reject("550 5.7.1 v1"),
  async envfrom() {
    console.log("waiting");
    while (!existsSync(join(import.meta.dir, "go"))) await Bun.sleep(5);
    return reject("550 5.7.1 v1 at last");
  },
});
`;
    await using server = await startVersioned({ files: { "filter.ts": gated } });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, HELO);
    await client.send(MAIL);
    await server.prints.next(/waiting/);
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
    await save(server, "go", "");
    expect((await client.reply()).payload.toString()).toContain("v1 at last");
  });
});

describe("half-written: one reload of whole files", () => {
  test("an editor's rename", async () => {
    await using server = await startVersioned();
    await saveByRename(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
    // The file is another one now: it is still watched.
    await saveByRename(server, "filter.ts", versioned("v3"));
    await untilVersion(server, "v3");
    await quiet();
    expect(reloadLines(server)).toHaveLength(2);
  });

  test("an editor that moves the old file away first", async () => {
    await using server = await startVersioned();
    const path = join(server.dir, "filter.ts");
    await rename(path, `${path}~`);
    await writeFile(path, versioned("v2"));
    await untilVersion(server, "v2");
    await quiet();
    expect(reloadLines(server)).toHaveLength(1);
  });

  test("truncated, then written a little later", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", "");
    await Bun.sleep(60);
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
    await quiet();
    expect(reloadLines(server)).toEqual([expect.stringContaining("[notice]: reload: generation 2 serves")]);
  });

  test("several files, one after the other", async () => {
    await using server = await startVersioned({ files: FROM_FILES });
    await save(server, "lib/inner.ts", 'export const inner = "2";\n');
    await save(server, "data.json", '{ "word": "2" }');
    await save(server, "lib/table.toml", 'word = "2"\n');
    await save(server, "note.txt", "2\n");
    await untilVersion(server, "handler module:2 2 2 2");
    await quiet();
    expect(reloadLines(server)).toHaveLength(1);
  });

  test("a hundred saves in a second", async () => {
    await using server = await startVersioned();
    for (let save100 = 1; save100 <= 100; save100++) {
      await save(server, "filter.ts", versioned(`v${save100}`));
      await Bun.sleep(8);
    }
    await untilVersion(server, "v100");
    await quiet();
    expect(reloadLines(server)).toHaveLength(1);
  });

  test("touched without a change, saved with the same text, other files of the folder: none", async () => {
    await using server = await startVersioned({ files: FROM_FILES });
    const now = new Date();
    for (const name of Object.keys(FROM_FILES)) await utimes(join(server.dir, name), now, now);
    await saveByRename(server, "data.json", FROM_FILES["data.json"]);
    await save(server, "lib/part.ts", FROM_FILES["lib/part.ts"]);
    await save(server, "other.ts", "not imported");
    await quiet();
    expect(reloadLines(server)).toEqual([]);
    for (const [at, text] of ['{ "word": "changed" }', FROM_FILES["data.json"]].entries()) {
      await save(server, "data.json", text);
      await waitFor(() => reloadLines(server).length > at, { what: "a reload" });
    }
    await quiet();
    expect(reloadLines(server)).toHaveLength(2);
  });

  test("changed and changed back at once: none", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", versioned("v2"));
    await save(server, "filter.ts", versioned("v1"));
    await quiet();
    expect(reloadLines(server)).toEqual([]);
  });
});

describe("file-vanishes: files and folders that go and come", () => {
  test("a handler that is deleted and made again", async () => {
    await using server = await startVersioned();
    await remove(server, "filter.ts");
    await logged(server, /\[error\]: reload: generation 1 keeps serving: .*filter\.ts/);
    expect(await newVersion(server)).toBe("v1");
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
  });

  test("a module and a JSON file that are deleted and made again", async () => {
    await using server = await startVersioned({ files: FROM_FILES });
    await remove(server, "lib/inner.ts");
    await logged(server, /reload: generation 1 keeps serving: /);
    await save(server, "lib/inner.ts", 'export const inner = "again";\n');
    await untilVersion(server, "handler module:again json toml text");
    const from = server.log.all.length;
    await remove(server, "data.json");
    await logged(server, /keeps serving: /, from);
    await save(server, "data.json", '{ "word": "again" }');
    await untilVersion(server, "handler module:again again toml text");
  });

  test("a folder that is replaced by another one", async () => {
    await using server = await startVersioned({ files: FROM_FILES });
    const lib = join(server.dir, "lib");
    await mkdir(`${lib}.new`);
    for (const name of ["part.ts", "table.toml"] as const) {
      await writeFile(join(`${lib}.new`, name), FROM_FILES[`lib/${name}`]);
    }
    await writeFile(join(`${lib}.new`, "inner.ts"), 'export const inner = "replaced";\n');
    await rename(lib, `${lib}.old`);
    await rename(`${lib}.new`, lib);
    await untilVersion(server, "handler module:replaced json toml text");
    await save(server, "lib/inner.ts", 'export const inner = "saved";\n');
    await untilVersion(server, "handler module:saved json toml text");
  });
});

describe("server.watch = false", () => {
  test("nothing is reloaded before it is asked for", async () => {
    await using server = await startVersioned({ server: { watch: false } });
    await save(server, "filter.ts", versioned("v2"));
    await quiet();
    expect(await newVersion(server)).toBe("v1");
    expect(reloadLines(server)).toEqual([]);
    server.process.kill("SIGHUP");
    await untilVersion(server, "v2");
    await save(server, "filter.ts", versioned("v3"));
    await quiet();
    expect(await newVersion(server)).toBe("v2");
  });
});
