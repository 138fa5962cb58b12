/** docs/failures.md, "Loading and reloading": code or a configuration that is wrong changes nothing but the log. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { rename, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { newVersion, quiet, reloadLines, save, saveByRename, untilVersion, versioned } from "../reload/support.ts";
import { spawnServer } from "../server/spawned.ts";
import { CONNECT, EOM, MAIL, OPTNEG, RawClient, RCPT } from "../server/wire.ts";
import { type Pmilter, runPmilter, startPmilter } from "../support/pmilter.ts";
import { expectCounters, expectLogged, patternsOf, USE_FILTER } from "./support.ts";

setDefaultTimeout(120_000);

/** What the row says of a reload, and of a start. */
const [AT_RELOAD, AT_START] = patternsOf("broken-config") as [RegExp, RegExp];

function startVersioned(files: Readonly<Record<string, string>> = {}): Promise<Pmilter> {
  return startPmilter({
    config: USE_FILTER,
    server: { workers: 1, stop_timeout: 0.1 },
    files: { "filter.ts": versioned("v1"), ...files },
  });
}

/** Saves a version that does not load: the old one keeps serving, `check` says the same, and mending it takes effect. */
async function expectRefused(text: string, place: RegExp, files = {}): Promise<void> {
  await using server = await startVersioned(files);
  using open = await RawClient.connect(server.addresses[0]!);
  expect(await open.ask(OPTNEG, CONNECT, MAIL)).toBe("Occ");
  await save(server, "filter.ts", text);
  const checking = runPmilter(["check", "-c", server.configFile]);
  const [line] = await expectLogged(server, "broken-handler");
  const said = line!.slice(line!.indexOf("keeps serving: ") + "keeps serving: ".length);
  expect(said).toMatch(place);
  const { exitCode, stderr } = await checking;
  expect(exitCode).toBe(1);
  const message = stderr.trimEnd().replace(/^pmilter: /, "");
  expect(message.replace(/\n\s*/g, " | ")).toBe(said);
  expect(await newVersion(server)).toBe("v1");
  expect(await open.ask(RCPT)).toBe("c");
  await open.send(EOM);
  expect(await open.codes(2)).toBe("hc");
  await save(server, "filter.ts", versioned("v2"));
  await untilVersion(server, "v2");
  await expectCounters(server, { sessionsLost: 0, workersDied: 0 });
}

describe("at a reload", () => {
  test("broken-handler: one that does not parse", () =>
    expectRefused("export default {\n  unknown() { return ); },\n};\n", /filter\.ts:2:\d+: \S/));

  test("broken-handler: one that throws at import", () =>
    expectRefused('export default {};\nthrow new Error("no database");\n', /filter\.ts:2:\d+: .*no database/));

  test("broken-handler: one that imports what is not there", () =>
    expectRefused(
      'import "./part.ts";\nimport "./missing.ts";\nexport default {};\n',
      /filter\.ts:2:\d+: .*missing\.ts/,
      { "part.ts": "export {};\n" },
    ));

  test("broken-handler: one that exports the wrong thing", () =>
    expectRefused("export default { enfvrom() {} };\n", /filter\.ts:1:18: .*enfvrom.*envfrom/));

  test("start-fails: the old code keeps serving", async () => {
    await using server = await startVersioned();
    await save(
      server,
      "filter.ts",
      'export default {\n  unknown() {},\n  start() { throw new Error("no port"); },\n};\n',
    );
    const [line] = await expectLogged(server, "start-fails");
    expect(line).toMatch(/filter\.ts:3.*: start\(\) of filter filter failed: no port/);
    expect(await newVersion(server)).toBe("v1");
  });

  test("bad-options: the old code keeps serving, and each key is told with its line", async () => {
    await using server = await startVersioned();
    await save(
      server,
      "filter.ts",
      'import { string, table } from "pmilter/options";\nexport default {\n  options: table({ tag: string() }),\n  unknown() {},\n};\n',
    );
    const [line] = await expectLogged(server, "bad-options");
    expect(line).toMatch(/pmilter\.toml:\d+:1: filter 1: options\.tag: "tag" is missing/);
    expect(await newVersion(server)).toBe("v1");
  });

  test("bad-options: a schema that throws is told with its line", async () => {
    await using server = await startVersioned();
    const schema = '{ "~standard": { version: 1, vendor: "x", validate() {\n  throw new Error("no list");\n} } }';
    await save(server, "filter.ts", `export default { unknown() {}, options: ${schema} };\n`);
    const [line] = await expectLogged(server, "bad-options");
    expect(line).toMatch(/filter\.ts:2:\d+: the schema of the options of filter filter failed: no list/);
    expect(await newVersion(server)).toBe("v1");
  });

  test("hangs-at-import: the old code serves meanwhile, and a save that mends it is taken", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", 'console.log("loading");\nawait new Promise(() => {});\nexport default {};\n');
    await server.prints.next(/loading/);
    expect(await newVersion(server)).toBe("v1");
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
    await expectLogged(server, "hangs-at-import");
  });
});

test("broken-config: at a start, exit code 1, and file, line and column", async () => {
  await using server = await spawnServer({ server: { workrs: 1 } });
  expect(await server.process.exited).toBe(1);
  const [line] = await expectLogged(server, "broken-config", { patterns: [AT_START] });
  expect(line).toMatch(/pmilter\.toml:4:1: .*workrs.*workers/);
  const checked = await runPmilter(["check", "-c", join(server.dir, "pmilter.toml")]);
  expect(checked).toMatchObject({ exitCode: 1, stderr: `${server.log.text.trimEnd()}\n` });
});

test("broken-handler: at a start, exit code 1, and no socket is left", async () => {
  await using server = await spawnServer({
    config: USE_FILTER,
    files: { "filter.ts": "export default {\n  eom( {\n" },
  });
  expect(await server.process.exited).toBe(1);
  const line = await server.log.next(/^pmilter: /);
  expect(line).toMatch(/filter\.ts:\d+:\d+: \S/);
  expect(await Bun.file(join(server.dir, "pmilter.sock")).exists()).toBe(false);
});

test("broken-config: at a reload, the old configuration keeps serving", async () => {
  await using server = await startVersioned();
  const text = await Bun.file(server.configFile).text();
  await writeFile(server.configFile, text.replace("[server]", "[server]\nworkrs = 1"));
  const { exitCode, stderr } = await runPmilter(["reload", "-c", server.configFile]);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/pmilter\.toml:2:\d+: .*workrs/);
  server.process.kill("SIGHUP");
  const [line] = await expectLogged(server, "broken-config", { patterns: [AT_RELOAD] });
  expect(line).toMatch(/pmilter\.toml:2:\d+: .*workrs.*workers/);
  expect(await newVersion(server)).toBe("v1");
});

test("file-vanishes: the old code keeps serving until it is back", async () => {
  await using server = await startVersioned();
  await unlink(join(server.dir, "filter.ts"));
  await expectLogged(server, "file-vanishes");
  expect(await newVersion(server)).toBe("v1");
  await save(server, "filter.ts", versioned("v2"));
  await untilVersion(server, "v2");
});

test("half-written: replaced by rename, one reload", async () => {
  await using server = await startVersioned();
  await saveByRename(server, "filter.ts", versioned("v2"));
  await untilVersion(server, "v2");
  const path = join(server.dir, "filter.ts");
  await rename(path, `${path}~`);
  await writeFile(path, versioned("v3"));
  await untilVersion(server, "v3");
  await expectLogged(server, "half-written");
  await quiet();
  expect(reloadLines(server)).toHaveLength(2);
});

test("half-written: written in two steps, one reload, of the whole file", async () => {
  await using server = await startVersioned();
  await save(server, "filter.ts", versioned("v2").slice(0, 40));
  await Bun.sleep(60);
  await save(server, "filter.ts", versioned("v2"));
  await untilVersion(server, "v2");
  await quiet();
  await expectLogged(server, "half-written");
  expect(reloadLines(server)).toHaveLength(1);
});

test("half-written: 100 saves in a second are one reload, and no half of a file is served", async () => {
  await using server = await startVersioned();
  for (let count = 1; count <= 100; count++) {
    // Each save is a truncation, half of the text, and the text.
    await save(server, "filter.ts", versioned(`v${count}`).slice(0, 100));
    await save(server, "filter.ts", versioned(`v${count}`));
    await Bun.sleep(8);
    if (count % 20 === 0) expect(await newVersion(server)).toBe("v1");
  }
  await untilVersion(server, "v100");
  await expectLogged(server, "half-written");
  await quiet();
  expect(reloadLines(server)).toHaveLength(1);
});
