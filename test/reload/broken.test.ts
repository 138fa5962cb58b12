/** Code that does not load: the old code keeps serving, the log says where and what, and mending it takes effect. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { runPmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import { CONNECT, EOM, HELO, MAIL, OPTNEG, RawClient, RCPT } from "../server/wire.ts";
import {
  askReload,
  askStatus,
  logged,
  newVersion,
  quiet,
  reloadLines,
  remove,
  save,
  startVersioned,
  untilVersion,
  USE_FILTER,
  versioned,
  versionOf,
} from "./support.ts";

setDefaultTimeout(120_000);

const FILES = {
  "filter.ts": `import { defineFilter, reject } from "pmilter";
import { part } from "./lib/part.ts";
import data from "./data.json";
import table from "./table.toml";
export default defineFilter({
  unknown: () => reject("550 5.7.1 " + [part, data.word, table.word].join(" ")),
});
`,
  "lib/part.ts": 'export const part = "part";\n',
  "data.json": '{\n  "word": "json"\n}\n',
  "table.toml": '# A table.\nword = "toml"\n',
};

type Name = keyof typeof FILES;

/** What is saved, where, and how the message begins: the file, its place, and what is wrong. */
const FAULTS: readonly [string, Name, string, RegExp][] = [
  ["a syntax error", "filter.ts", "export default {\n  unknown() { return ); },\n};\n", /filter\.ts:2:\d+: \S/],
  [
    "a syntax error in a module",
    "lib/part.ts",
    'export const part = "part";\nexport const = 2;\n',
    /lib\/part\.ts:2:\d+: \S/,
  ],
  [
    "a throw at import",
    "filter.ts",
    'export default {};\nthrow new Error("no database");\n',
    /filter\.ts:2:\d+: .*no database/,
  ],
  [
    "a throw at the import of a module",
    "lib/part.ts",
    'export const part = "part";\n\nthrow new TypeError("no network");\n',
    /lib\/part\.ts:3:\d+: .*no network/,
  ],
  [
    "an import of a file that is not there",
    "filter.ts",
    'import "./lib/part.ts";\nimport "./missing.ts";\nexport default {};\n',
    /filter\.ts:2:\d+: .*missing\.ts/,
  ],
  [
    "an import of a package that is not there",
    "lib/part.ts",
    'export * from "no-such-package";\nexport const part = 1;\n',
    /lib\/part\.ts:1:\d+: .*no-such-package/,
  ],
  [
    "an import of a name that is not exported",
    "filter.ts",
    'import { nothing } from "./lib/part.ts";\nexport default { unknown: nothing };\n',
    /filter\.ts:1:\d+: .*nothing/,
  ],
  ["no default export", "filter.ts", "export const filter = {};\n", /filter\.ts:1:1: .*no default export/],
  ["a default export that is no filter", "filter.ts", "export default 12;\n", /filter\.ts:1:1: .*expected/],
  [
    "a phase that there is not",
    "filter.ts",
    "export default { enfvrom() {} };\n",
    /filter\.ts:1:18: .*enfvrom.*envfrom/,
  ],
  ["an empty file", "filter.ts", "", /filter\.ts:1:1: .*no default export/],
  ["JSON that is none", "data.json", '{\n  "word": json\n}\n', /data\.json:2:\d+: \S/],
  ["TOML that is none", "table.toml", "# A table.\nword = = 1\n", /table\.toml:2:\d+: \S/],
];

describe("broken-handler: a file that does not load", () => {
  test.each(FAULTS)("%s: logged, and check says the same; mending it takes effect", async (_, name, text, message) => {
    await using server = await startVersioned({ files: FILES });
    using before = await RawClient.connect(server.addresses[0]!);
    await before.ask(OPTNEG, CONNECT, HELO);
    await save(server, name, text);
    const line = await logged(server, /keeps serving/);
    expect(line).toContain("[error]: reload: generation 1 keeps serving: ");
    expect(await newVersion(server)).toBe("part json toml");
    expect(await versionOf(before)).toBe("part json toml");

    const { exitCode, stderr } = await runPmilter(["check", "--no-types", "-c", server.configFile]);
    expect(exitCode).toBe(1);
    // One line of the log holds all of the message.
    const said = line.slice(line.indexOf("keeps serving: ") + "keeps serving: ".length);
    expect(
      stderr
        .trimEnd()
        .replace(/^pmilter: /, "")
        .replace(/\n\s*/g, " | "),
    ).toBe(said);

    await save(server, name, FILES[name].replace(/"(?:part|json)"/, '"mended"'));
    await save(server, "table.toml", 'word = "mended"\n');
    await untilVersion(
      server,
      `${name === "lib/part.ts" ? "mended" : "part"} ${name === "data.json" ? "mended" : "json"} mended`,
    );
    expect(before.isEnded).toBe(false);
    expect(said).toMatch(message);
  });

  test.each<[string, Name, RegExp]>([
    ["the handler", "filter.ts", /keeps serving: \S*\/filter\.ts: there is no such file/],
    ["a module", "lib/part.ts", /keeps serving: \S*\/filter\.ts:2:\d+: .*lib\/part\.ts/],
    ["a JSON file", "data.json", /keeps serving: \S*\/filter\.ts:3:\d+: .*data\.json/],
  ])("%s that was deleted is named as at a start", async (_, name, message) => {
    await using server = await startVersioned({ files: FILES });
    await remove(server, name);
    const line = await logged(server, /keeps serving/);
    const { exitCode, stderr } = await runPmilter(["check", "--no-types", "-c", server.configFile]);
    expect(exitCode).toBe(1);
    expect(stderr.trimEnd()).toBe(`pmilter: ${line.slice(line.indexOf("keeps serving: ") + "keeps serving: ".length)}`);
    expect(line).toMatch(message);
  });

  test("start-fails: start() that fails: as a load that fails, and the filters of the new generation are gone", async () => {
    await using server = await startVersioned({ server: { workers: 3 } });
    await save(
      server,
      "filter.ts",
      'export default {\n  unknown() {},\n  start() {\n    throw new Error("no port");\n  },\n};\n',
    );
    const line = await logged(server, /keeps serving/);
    expect(line).toMatch(/filter\.ts:4.*: start\(\) of filter filter failed: no port/);
    expect(await newVersion(server)).toBe("v1");
    expect(await askStatus(server)).toMatchObject({ generation: { number: 1 }, ending: [] });
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
  });

  test.each([
    ["an exit at import", "process.exit(0);\nexport default {};\n"],
    ["a rejection at import", 'export default await Promise.reject(new Error("no"));\n'],
  ])("%s leaves the old code", async (_, text) => {
    await using server = await startVersioned();
    await save(server, "filter.ts", text);
    await logged(server, /\[error\]: reload: generation 1 keeps serving: .*\S/);
    expect(await newVersion(server)).toBe("v1");
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
  });

  test("sessions in a message go on through failed reloads", async () => {
    await using server = await startVersioned();
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, HELO, MAIL);
    for (let round = 0; round < 5; round++) {
      await save(server, "filter.ts", `syntax error ${round}`);
      expect(await askReload(server)).toMatchObject({ ok: false });
    }
    expect(await client.ask(RCPT)).toBe("c");
    await client.send(EOM);
    expect(await client.codes(2)).toBe("hc");
  });
});

describe("mending", () => {
  test("a module that only the failed version imports", async () => {
    await using server = await startVersioned();
    await save(server, "later/word.ts", "export const word = ;\n");
    await save(
      server,
      "filter.ts",
      'import { defineFilter, reject } from "pmilter";\nimport { word } from "./later/word.ts";\nexport default defineFilter({ unknown: () => reject("550 5.7.1 " + word) });\n',
    );
    await logged(server, /keeps serving: .*later\/word\.ts:1:\d+: /);
    await save(server, "later/word.ts", 'export const word = "mended";\n');
    await untilVersion(server, "mended");
  });

  test("a module that was missing is made", async () => {
    await using server = await startVersioned({ files: FILES });
    await save(server, "filter.ts", FILES["filter.ts"].replace("./lib/part.ts", "./lib/made.ts"));
    await logged(server, /keeps serving/);
    await save(server, "lib/made.ts", 'export const part = "made";\n');
    await untilVersion(server, "made json toml");
  });

  test("going back to the old text: no reload, the old code serves", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", "syntax error");
    await logged(server, /keeps serving/);
    await save(server, "filter.ts", versioned("v1"));
    await quiet();
    expect(await newVersion(server)).toBe("v1");
    expect(reloadLines(server)).toHaveLength(1);
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
  });

  test("a handler that a new configuration names, and that was broken when it was read", async () => {
    await using server = await startVersioned();
    await save(server, "second.ts", "syntax error");
    await Bun.write(server.configFile, `${await Bun.file(server.configFile).text()}[[filter]]\npath = "second.ts"\n`);
    expect(await askReload(server)).toMatchObject({ ok: false, message: expect.stringContaining("second.ts:1:") });
    await save(server, "second.ts", "export default { helo() {} };\n");
    // The file is part of what was asked for: with it mended, that is done, at the latest when it is asked for again.
    expect(await askReload(server)).toMatchObject({ ok: true, message: expect.stringContaining("filter, second") });
  });
});

/** The load timeout is 30 s, and no configuration shortens it: what must not wait for it is looked at meanwhile. */
describe("hangs-at-import: a handler that hangs at import", () => {
  const HANGING = "await new Promise(() => {});\nexport default {};\n";
  const announced = `console.log("loading");\n${HANGING}`;

  test("sessions that begin meanwhile run the old code, and the server can be asked", async () => {
    await using server = await startVersioned();
    try {
      await save(server, "filter.ts", announced);
      await server.prints.next(/loading/);
      expect(await newVersion(server)).toBe("v1");
      expect(await askStatus(server)).toMatchObject({ generation: { number: 1 }, reload: null });
    } finally {
      server.process.kill("SIGKILL");
      await server.process.exited;
    }
  });

  test("the server can be stopped", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", announced);
    await server.prints.next(/loading/);
    server.process.kill("SIGTERM");
    try {
      await waitFor(() => server.process.exitCode !== null, { what: "the end of the server" });
    } finally {
      if (server.process.exitCode === null) server.process.kill("SIGKILL");
      await server.process.exited;
    }
    expect(server.process.exitCode).toBe(0);
  });

  test("a save that mends it does not wait for the time-out", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", announced);
    await server.prints.next(/loading/);
    try {
      await save(server, "filter.ts", versioned("v2"));
      await untilVersion(server, "v2");
    } finally {
      server.process.kill("SIGKILL");
      await server.process.exited;
    }
  });
});

test("a broken reload is told by status, and the next that takes replaces it", async () => {
  await using server = await startVersioned({ config: USE_FILTER });
  expect((await askStatus(server)).reload).toBeNull();
  await save(server, "filter.ts", "syntax error");
  await logged(server, /keeps serving/);
  expect((await askStatus(server)).reload).toMatchObject({
    ok: false,
    message: expect.stringContaining("filter.ts:1:"),
  });
  await save(server, "filter.ts", versioned("v2"));
  await untilVersion(server, "v2");
  expect((await askStatus(server)).reload).toMatchObject({ ok: true });
});
