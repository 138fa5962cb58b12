/**
 * What `pmilter status` says of the files on disk, of the rate of fallbacks and of its own exit code; and that a reload which
 * changes nothing says so.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Status } from "../../src/server/control/status.ts";
import { filter } from "../failures/support.ts";
import {
  askReload,
  askStatus,
  logged,
  newVersion,
  save,
  startVersioned,
  USE_FILTER,
  versioned,
} from "../reload/support.ts";
import { CONNECT, EOM, HELO, MAIL, OPTNEG, QUIT, RawClient, RCPT } from "../server/wire.ts";
import { type Pmilter, type PmilterOptions, runPmilter, startPmilter } from "../support/pmilter.ts";
import { givenRoot } from "../support/available.ts";
import { waitFor } from "../support/temp.ts";

setDefaultTimeout(120_000);

const BROKEN = "export default {\n  unknown() { return ); },\n};\n";

async function statusText(server: Pmilter, ...options: readonly string[]) {
  const { exitCode, stderr, stdout } = await runPmilter(["status", "-c", server.configFile, ...options]);
  expect(stderr).toBe("");
  return { exitCode, stdout };
}

/** The exit codes without and with --health. */
async function exitCodes(server: Pmilter): Promise<[number, number]> {
  return [(await statusText(server)).exitCode, (await statusText(server, "--health")).exitCode];
}

const write = (server: Pmilter, name: string, text: string) => writeFileSync(join(server.dir, name), text);

async function edit(server: Pmilter, change: (text: string) => string): Promise<void> {
  writeFileSync(server.configFile, change(await Bun.file(server.configFile).text()));
}

describe("the files on disk", () => {
  test("are what serves after a start, and again after a broken save is put right, without a reload", async () => {
    await using server = await startVersioned();
    expect((await askStatus(server)).disk).toEqual({ state: "same", message: "what serves" });
    expect((await statusText(server)).stdout).toMatch(/^on disk +the same as what serves$/m);

    await save(server, "filter.ts", BROKEN);
    await logged(server, /keeps serving/);
    const broken = await statusText(server);
    expect(broken.stdout).toMatch(/^on disk +would not start: \S+filter\.ts:2:\d+: /m);
    expect(broken.stdout).toMatch(/^health +degraded; the files on disk would not start: \S+filter\.ts:2:\d+: /m);
    expect(broken.stdout).toMatch(/^last reload +failed at [^,]+: generation 1 keeps serving: /m);
    expect(await exitCodes(server)).toEqual([0, 1]);

    await save(server, "filter.ts", versioned("v1"));
    await logged(server, /\[notice\]: reload: not needed any more, the files are again what generation 1 serves$/);
    const { stdout } = await statusText(server);
    expect(stdout).toMatch(/^health +ok$/m);
    expect(stdout).toMatch(/^on disk +the same as what serves$/m);
    expect(stdout).toMatch(/^last reload +failed at [^,]+, put right since: generation 1 keeps serving: /m);
    expect(await exitCodes(server)).toEqual([0, 0]);
    expect(await newVersion(server)).toBe("v1");
  });

  const FILES = {
    "filter.ts":
      'import { word } from "./word.ts";\nimport data from "./data.json";\nexport default { unknown() {}, name: word + data.x };\n',
    "word.ts": 'export const word = "w";\n',
    "data.json": '{ "x": "y" }\n',
    "exit.ts": "export default () => {};\n",
    "config.ts": "export default () => {};\n",
  };
  const TASKS = '[handler.config]\nmaster_exit_handler = "exit.ts"\npostconfig_handler = "config.ts"\n';
  const still: PmilterOptions = { config: `${USE_FILTER}${TASKS}`, files: FILES, server: { watch: false } };

  test.each<[string, (server: Pmilter) => void | Promise<void>, RegExp]>([
    [
      "a handler with another text",
      (server) => write(server, "filter.ts", versioned("v2")),
      /^would serve as code [0-9a-f]{12}, waits for pmilter reload: handlers have changed$/,
    ],
    ["a module of it", (server) => write(server, "word.ts", 'export const word = "v";\n'), /handlers have changed$/],
    ["data of it", (server) => write(server, "data.json", '{ "x": "z" }\n'), /handlers have changed$/],
    [
      "a handler of the process's life",
      (server) => write(server, "exit.ts", "export default () => { 1; };\n"),
      /handlers have changed$/,
    ],
    [
      "a key of the configuration",
      (server) => edit(server, (text) => text.replace("[server]", "[server]\ndebug = 1")),
      /^would serve as code [0-9a-f]{12}, waits for pmilter reload: pmilter\.toml has changed$/,
    ],
    [
      "a filter less",
      (server) => edit(server, (text) => text.replace(USE_FILTER, "")),
      /^would serve without handlers, waits for pmilter reload: pmilter\.toml has changed$/,
    ],
    [
      "a link to another handler",
      (server) => {
        write(server, "other.ts", versioned("v2"));
        unlinkSync(join(server.dir, "filter.ts"));
        symlinkSync("other.ts", join(server.dir, "filter.ts"));
      },
      /handlers have changed$/,
    ],
  ])("that are others wait for a reload, and are no problem: %s", async (_, change, message) => {
    await using server = await startVersioned(still);
    await change(server);
    const { disk, health, problems } = await askStatus(server);
    expect({ state: disk.state, health, problems }).toEqual({ state: "pending", health: "ok", problems: [] });
    expect(disk.message).toMatch(message);
    expect(await askReload(server)).toMatchObject({
      ok: true,
      message: expect.not.stringContaining("nothing has changed"),
    });
    expect((await askStatus(server)).disk.state).toBe("same");
  });

  test.each<[string, (server: Pmilter) => void | Promise<void>, RegExp]>([
    ["a handler that does not parse", (server) => write(server, "filter.ts", BROKEN), /filter\.ts:2:\d+: /],
    ["a module that does not parse", (server) => write(server, "word.ts", "export const = 1;\n"), /word\.ts:1:\d+: /],
    [
      "a handler that is gone",
      (server) => unlinkSync(join(server.dir, "filter.ts")),
      /filter\.ts: there is no such file/,
    ],
    ["a module that is gone", (server) => unlinkSync(join(server.dir, "word.ts")), /filter\.ts:1:\d+: .*word\.ts/],
    [
      "a link that leads nowhere",
      (server) => {
        unlinkSync(join(server.dir, "filter.ts"));
        symlinkSync("nowhere.ts", join(server.dir, "filter.ts"));
      },
      /filter\.ts: there is no such file/,
    ],
    [
      "a handler of the process's life that is gone",
      (server) => unlinkSync(join(server.dir, "exit.ts")),
      /exit\.ts: there is no such file/,
    ],
    [
      "a folder in the place of a handler",
      (server) => {
        unlinkSync(join(server.dir, "filter.ts"));
        mkdirSync(join(server.dir, "filter.ts"));
      },
      /filter\.ts: /,
    ],
    [
      "a configuration that is no TOML",
      (server) => edit(server, (text) => `${text}\n[[[\n`),
      /pmilter\.toml:\d+:\d+: not valid TOML/,
    ],
    [
      "a wrong key",
      (server) => edit(server, (text) => text.replace("[server]", "[server]\nworkrs = 1")),
      /pmilter\.toml:2:\d+: .*workrs/,
    ],
    [
      "a configuration that is gone",
      (server) => unlinkSync(server.configFile),
      /pmilter\.toml: the configuration cannot be read: there is no such file/,
    ],
    [
      "a configuration that names a handler which is not there",
      (server) => edit(server, (text) => `${text}\n[[filter]]\npath = "none.ts"\n`),
      /none\.ts: there is no such file/,
    ],
  ])("that would not start are a problem before anybody reloads: %s", async (_, change, message) => {
    await using server = await startVersioned(still);
    await change(server);
    const before = await askStatus(server);
    expect(before).toMatchObject({ health: "degraded", disk: { state: "broken" } });
    expect(before.disk.message).toMatch(message);
    expect(before.problems).toEqual([`the files on disk would not start: ${before.disk.message.split("\n")[0]}`]);
    expect(await askReload(server)).toMatchObject({ ok: false, message: expect.stringMatching(message) });
    expect(await askStatus(server)).toMatchObject({ health: "degraded", disk: { state: "broken" } });
  });

  test.each<[string, string, RegExp]>([
    ["an export that is none", "export default 5;\n", /filter\.ts:1:1: expected defineFilter/],
    ["an exception at its import", 'throw new Error("no database");\n', /no database/],
    [
      "a start() that throws",
      'export default { unknown() {}, start() { throw new Error("no database"); } };\n',
      /no database/,
    ],
    [
      "a name that its module does not export",
      'import { none } from "./word.ts";\nexport default { unknown() {}, name: none };\n',
      /none/,
    ],
  ])("that only a load finds wrong are a problem once it has failed: %s", async (_, text, message) => {
    await using server = await startVersioned(still);
    write(server, "filter.ts", text);
    expect((await askStatus(server)).disk.state).toBe("pending");
    expect(await askReload(server)).toMatchObject({ ok: false });
    const { disk, health } = await askStatus(server);
    expect({ health, state: disk.state }).toEqual({ health: "degraded", state: "broken" });
    expect(disk.message).toMatch(message);
    // Another text is another matter.
    write(server, "filter.ts", versioned("v2"));
    expect(await askStatus(server)).toMatchObject({ health: "ok", disk: { state: "pending" } });
    write(server, "filter.ts", text);
    expect(await askStatus(server)).toMatchObject({ health: "degraded", disk: { state: "broken" } });
    write(server, "filter.ts", FILES["filter.ts"]);
    expect(await askStatus(server)).toMatchObject({ health: "ok", disk: { state: "same" } });
    expect((await statusText(server)).stdout).toMatch(/^last reload +failed at [^,]+, put right since: /m);
  });

  test.each<[string, string, string]>([
    ["postconfig_handler", "config.ts", 'export default () => { throw new Error("no database"); };\n'],
    ["master_exit_handler", "exit.ts", "export default 5;\n"],
  ])("a %s that a load finds wrong is a problem until it is put right", async (_, name, text) => {
    await using server = await startVersioned(still);
    write(server, name, text);
    expect(await askReload(server)).toMatchObject({ ok: false });
    expect(await askStatus(server)).toMatchObject({ health: "degraded", disk: { state: "broken" } });
    write(server, name, FILES["exit.ts"]);
    expect(await askStatus(server)).toMatchObject({ health: "ok", disk: { state: "same" } });
  });

  test("a key that only a start reads waits for one, also after a reload", async () => {
    await using server = await startVersioned(still);
    await edit(server, (text) => text.replace("[server]", '[server]\nlisten_backlog = 5\nuser = "nobody"'));
    expect((await askStatus(server)).disk.message).toMatch(
      /^would serve as code \w+, waits for pmilter reload, server\.listen_backlog, server\.user after a restart: pmilter\.toml has changed$/,
    );
    expect(await askReload(server)).toMatchObject({ ok: true });
    expect(await askStatus(server)).toMatchObject({
      health: "ok",
      disk: {
        state: "pending",
        message: "the same as what serves, server.listen_backlog, server.user after a restart",
      },
    });
    expect((await statusText(server)).stdout).toMatch(/^on disk +the same as what serves, server\.listen_backlog/m);
    await edit(server, (text) => text.replace('listen_backlog = 5\nuser = "nobody"', ""));
    expect(await askReload(server)).toMatchObject({ ok: true });
    expect((await askStatus(server)).disk.state).toBe("same");
  });

  test("a comment in the configuration changes nothing", async () => {
    await using server = await startVersioned(still);
    await edit(server, (text) => `# a comment\n${text}`);
    expect((await askStatus(server)).disk.state).toBe("same");
  });

  test("an included file that is changed, new or removed counts at the next reload, and is named until then", async () => {
    await using server = await startVersioned(still);
    const message = async () => (await askStatus(server)).disk.message;
    await edit(server, (text) => `include = "rules.d/*.toml"\n${text}`);
    expect(await message()).toMatch(/: pmilter\.toml has changed$/);
    expect(await askReload(server)).toMatchObject({ ok: true, message: "generation 2 serves: wy" });
    mkdirSync(join(dirname(server.configFile), "rules.d"));
    write(server, "rules.d/a.toml", '[[filter]]\npath = "filter.ts"\nname = "second"\n');
    expect(await message()).toMatch(/waits for pmilter reload: a\.toml has changed$/);
    expect(await askReload(server)).toMatchObject({ ok: true, message: "generation 3 serves: wy, second" });
    expect((await askStatus(server)).disk.state).toBe("same");
    write(server, "rules.d/a.toml", '[[filter]]\npath = "filter.ts"\nnam = "second"\n');
    expect(await message()).toContain("rules.d/a.toml:3:1: filter 1: nam: unknown key");
    const { ok, message: refusal } = await askReload(server);
    expect({ ok, refusal }).toEqual({
      ok: false,
      refusal: expect.stringContaining("rules.d/a.toml:3:1: filter 1: nam"),
    });
    rmSync(join(dirname(server.configFile), "rules.d/a.toml"));
    expect(await message()).toMatch(/: a\.toml has changed$/);
    expect(await askReload(server)).toMatchObject({ ok: true, message: "generation 4 serves: wy" });
  });

  test("with watch, a save is told as being loaded, or is loaded already", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", versioned("v2"));
    const { disk } = await askStatus(server);
    expect(disk.message).toMatch(
      /^(?:what serves|would serve as code [0-9a-f]{12}, being loaded: handlers have changed)$/,
    );
    await logged(server, /generation 2 serves/);
    expect((await askStatus(server)).disk.state).toBe("same");
    // The configuration waits all the same.
    await edit(server, (text) => text.replace("[server]", "[server]\ndebug = 1"));
    expect((await askStatus(server)).disk.message).toMatch(/waits for pmilter reload: pmilter\.toml has changed$/);
  });

  test.skipIf(!givenRoot("a configuration that server.user may not read"))(
    "that only root may read cannot be told after rights were given up, which is no problem",
    async () => {
      await using server = await startPmilter({ server: { workers: 1, stop_timeout: 0.1, user: "nobody" } });
      chmodSync(server.configFile, 0o600);
      const { disk, health } = await askStatus(server);
      expect({ health, disk }).toEqual({
        health: "ok",
        disk: {
          state: "unknown",
          message: `${server.configFile}: the configuration cannot be read: permission denied`,
        },
      });
      expect((await statusText(server)).stdout).toMatch(
        /^on disk +cannot be told: \S+: the configuration cannot be read/m,
      );
    },
  );

  test("a configuration that moved is gone where it was read", async () => {
    await using server = await startVersioned(still);
    renameSync(server.configFile, `${server.configFile}.old`);
    expect((await askStatus(server)).disk.state).toBe("broken");
    renameSync(`${server.configFile}.old`, server.configFile);
    expect((await askStatus(server)).disk.state).toBe("same");
  });
});

describe("a reload that changes nothing", () => {
  test("says so, and is a generation of its own: handlers may read files that are not theirs", async () => {
    await using server = await startVersioned();
    expect(await runPmilter(["reload", "-c", server.configFile])).toEqual({
      exitCode: 0,
      stdout: "reloaded: generation 2 serves: filter; nothing has changed since generation 1\n",
      stderr: "",
    });
    server.process.kill("SIGHUP");
    await logged(server, /\[notice\]: reload: generation 3 serves: filter; nothing has changed since generation 2$/);
    await save(server, "filter.ts", versioned("v2"));
    expect(await logged(server, /generation 4 serves/)).toEndWith("generation 4 serves: filter");
    await edit(server, (text) => text.replace("[server]", "[server]\ndebug = 1"));
    expect(await askReload(server)).toMatchObject({ ok: true, message: "generation 5 serves: filter" });
  });
});

/** Plays so many messages, each up to its end or to the first refusal. */
async function play(server: Pmilter, count: number, commands: readonly Buffer[] = [MAIL, RCPT, EOM]): Promise<void> {
  for (let at = 0; at < count; at++) {
    using client = await RawClient.connect(server.addresses[0]!);
    for (const command of [OPTNEG, CONNECT, HELO, ...commands]) {
      const code = await client.ask(command);
      if (code === "t" || code === "r") break;
    }
    await client.send(QUIT);
    await client.ended();
  }
}

describe("fallbacks", () => {
  const fails = (phase: string) => `${phase}(session) { if (session.helo !== "good") throw new Error("no"); }`;

  test.each<[string, string, string]>([
    ["eom", "tempfail", "eom"],
    ["eom", "reject", "eom"],
    ["eom", "accept", "eom"],
    ["eom", "continue", "eom"],
    ["envrcpt", "tempfail", "envrcpt"],
    ["envfrom", "tempfail", "envfrom"],
    ["connect", "tempfail", "connect"],
  ])("15 of 15 at %s with on_error = %s: degraded; 9 are too few", async (phase, fallback) => {
    await using server = await startPmilter({
      config: `${USE_FILTER}on_error = "${fallback}"\n`,
      files: { "filter.ts": filter(fails(phase)) },
      server: { workers: 1, stop_timeout: 0.1 },
    });
    await play(server, 9);
    expect(await untilCounted(server, 9)).toMatchObject({ health: "ok", lastMinute: { messages: 9, fallbacks: 9 } });
    await play(server, 6);
    expect(await untilCounted(server, 15)).toMatchObject({
      health: "degraded",
      lastMinute: { messages: 15, fallbacks: 15 },
      problems: ["messages of the last minute that got a fallback: 15 of 15"],
    });
    expect(await exitCodes(server)).toEqual([0, 1]);
  });

  test("a message whose handlers fail at each phase counts once, and good ones beside it count as good", async () => {
    await using server = await startPmilter({
      config: `${USE_FILTER}on_error = "continue"\n`,
      files: { "filter.ts": filter(["envfrom", "envrcpt", "header", "eom"].map(fails).join(", ")) },
      server: { workers: 1, stop_timeout: 0.1 },
    });
    await play(server, 1);
    expect((await untilCounted(server, 1)).lastMinute).toEqual({ messages: 1, fallbacks: 1 });
    const good = Buffer.from("\0\0\0\x06Hgood\0", "latin1");
    await play(server, 19, [good, MAIL, RCPT, EOM]);
    expect(await askStatus(server)).toMatchObject({ health: "ok", lastMinute: { messages: 20, fallbacks: 1 } });
    await play(server, 1);
    expect(await untilCounted(server, 2)).toMatchObject({
      health: "degraded",
      lastMinute: { messages: 21, fallbacks: 2 },
    });
  });

  test("verdicts of handlers, filters that only observe, and messages over a limit are none", async () => {
    await using server = await startPmilter({
      config: `[limits]\nrecipients = 1\n${USE_FILTER}mode = "observe"\n[[filter]]\npath = "strict.ts"\n`,
      files: { "filter.ts": filter(fails("eom")), "strict.ts": filter("eom: () => reject()") },
      server: { workers: 1, stop_timeout: 0.1 },
    });
    await play(server, 15);
    await play(server, 15, [MAIL, RCPT, RCPT, EOM]);
    const { health, lastMinute } = await askStatus(server);
    expect({ health, fallbacks: lastMinute.fallbacks }).toEqual({ health: "ok", fallbacks: 0 });
    expect(lastMinute.messages).toBeGreaterThanOrEqual(15);
  });

  test("a lost worker's messages count", async () => {
    await using server = await startPmilter({
      config: USE_FILTER,
      files: { "filter.ts": filter("eom() { process.exit(); }") },
      server: { workers: 1, stop_timeout: 0.1 },
    });
    await play(server, 2);
    expect((await untilCounted(server, 2)).lastMinute).toEqual({ messages: 2, fallbacks: 2 });
  });
});

async function untilCounted(server: Pmilter, fallbacks: number): Promise<Status> {
  return waitFor(
    async () => {
      const status = await askStatus(server);
      return status.counters.messagesWithFallback >= fallbacks ? status : null;
    },
    { what: `${fallbacks} fallbacks` },
  );
}

describe("the exit code", () => {
  test("is 0 for a server that is well, also as data", async () => {
    await using server = await startVersioned();
    expect(await exitCodes(server)).toEqual([0, 0]);
    expect((await statusText(server, "--health", "--json")).exitCode).toBe(0);
  });

  test("is 1 where none answers, with --health too", async () => {
    await using server = await startVersioned();
    server.process.kill("SIGKILL");
    await server.process.exited;
    for (const options of [[], ["--health"]]) {
      const { exitCode, stdout } = await runPmilter(["status", "-c", server.configFile, ...options]);
      expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    }
  });

  test.each([
    ["reload", "--health"],
    ["status", "--healthy"],
    ["status", "now"],
  ])("is 2 for %s %s", async (command, argument) => {
    const { exitCode, stderr } = await runPmilter([command!, argument!]);
    expect(exitCode).toBe(2);
    expect(stderr).toContain("Try: pmilter help");
  });
});
