/** SIGHUP and `pmilter reload`: the configuration is read anew, too, and it is said whether it took. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { OPTNEG, RawClient, UNKNOWN } from "../server/wire.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { type Pmilter, runPmilter } from "../support/pmilter.ts";
import {
  askReload,
  askStatus,
  logged,
  newVersion,
  quiet,
  reloadLines,
  save,
  startVersioned,
  untilVersion,
  USE_FILTER,
  versioned,
} from "./support.ts";

setDefaultTimeout(120_000);

/** Changes the text of the configuration on disk. */
async function configure(server: Pmilter, change: (text: string) => string): Promise<void> {
  await writeFile(server.configFile, change(await readFile(server.configFile, "utf8")));
}

/** Sets keys of `[server]`, in place of those that were set before. */
function withKeys(keys: Readonly<Record<string, unknown>>): (text: string) => string {
  return (text) => {
    const names = Object.keys(keys);
    const rest = text.split("\n").filter((line) => !names.some((name) => line.startsWith(`${name} =`)));
    const lines = Object.entries(keys).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
    return rest.join("\n").replace("[server]", `[server]\n${lines.join("\n")}`);
  };
}

async function hangUpSignal(server: Pmilter): Promise<string> {
  const from = server.log.all.length;
  server.process.kill("SIGHUP");
  return logged(server, /reload: generation \d+ (?:serves|keeps serving)/, from);
}

const MAIL = { from: "from@example.com", to: ["to@example.com"], eml: "Subject: x\r\n\r\nHello\r\n" };

/** The headers that a message gets from a session that begins now. */
async function stamps(server: Pmilter): Promise<string[]> {
  await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
  const { modifications } = await client.send(MAIL);
  return modifications.map((change) => (change.kind === "addHeader" ? `${change.name}: ${change.value}` : change.kind));
}

/** Stamps messages with an option. */
const OPTION = `export default { eom({ message, options }) { message.addHeader("X-Option", String(options.word)); } };\n`;

describe("SIGHUP reads the configuration anew", () => {
  test("filters are added, put in order and removed, and their options and names change", async () => {
    await using server = await startVersioned({
      files: { "filter.ts": versioned("v1"), "option.ts": OPTION },
    });
    expect(await stamps(server)).toEqual(["X-Version: v1"]);
    const second = (word: string) =>
      `[[filter]]\npath = "option.ts"\nname = "opt"\n[filter.options]\nword = "${word}"\n`;
    await configure(server, (text) => text + second("one"));
    expect(await hangUpSignal(server)).toEndWith("[notice]: reload: generation 2 serves: filter, opt");
    expect(await stamps(server)).toEqual(["X-Version: v1", "X-Option: one"]);
    await configure(server, (text) => text.replace("one", "two"));
    await hangUpSignal(server);
    expect(await stamps(server)).toEqual(["X-Version: v1", "X-Option: two"]);
    await configure(server, (text) => text.replace(USE_FILTER, ""));
    expect(await hangUpSignal(server)).toEndWith("serves: opt");
    expect(await stamps(server)).toEqual(["X-Option: two"]);
    // What is watched follows.
    await save(server, "filter.ts", versioned("v2"));
    await quiet();
    expect(reloadLines(server)).toHaveLength(3);
    await save(server, "option.ts", OPTION.replace("X-Option", "X-Saved"));
    await logged(server, /generation 5 serves: opt/);
    expect(await stamps(server)).toEqual(["X-Saved: two"]);
  });

  test("server.handler, log_level, log_format, workers, watch", async () => {
    await using server = await startVersioned();
    await configure(server, withKeys({ log_level: "info", workers: 3 }));
    await hangUpSignal(server);
    await logged(server, /\[info\]: generation 1 has ended/);
    expect((await askStatus(server)).generation.workers).toHaveLength(3);
    await configure(server, withKeys({ log_format: "json", handler: false }));
    expect(JSON.parse(await hangUpSignal(server))).toMatchObject({
      level: "notice",
      message: "reload: generation 3 serves: no filters",
    });
    expect(await stamps(server)).toEqual([]);
    await configure(server, withKeys({ log_format: "text", handler: true, watch: false }));
    await hangUpSignal(server);
    await save(server, "filter.ts", versioned("v2"));
    await quiet();
    expect(await newVersion(server)).toBe("v1");
    await configure(server, withKeys({ watch: true }));
    await hangUpSignal(server);
    expect(await newVersion(server)).toBe("v2");
    await save(server, "filter.ts", versioned("v3"));
    await untilVersion(server, "v3");
  });

  test("handler_timeout and on_timeout", async () => {
    const slow = `export default { async unknown() { await Bun.sleep(400); } };\n`;
    await using server = await startVersioned({ files: { "filter.ts": slow } });
    const answer = async () => {
      using client = await RawClient.connect(server.addresses[0]!);
      return await client.ask(OPTNEG, UNKNOWN);
    };
    expect(await answer()).toBe("Oc");
    await configure(server, withKeys({ handler_timeout: 0.1, on_timeout: "reject" }));
    await hangUpSignal(server);
    // At an unknown command a fallback is only logged.
    expect(await answer()).toBe("Oc");
    await logged(server, /handler too slow: .*not settled after 0\.1 s/);
  });

  test("server.allow: for connections that come from then on; open ones stay", async () => {
    await using server = await startVersioned({ listen: "inet:127.0.0.1:0" });
    using before = await RawClient.connect(server.addresses[0]!);
    await before.ask(OPTNEG);
    await configure(server, withKeys({ allow: ["192.0.2.0/24"] }));
    await hangUpSignal(server);
    using refused = await RawClient.connect(server.addresses[0]!);
    await refused.ended();
    await logged(server, /not in server\.allow, connection refused/);
    expect(await before.ask(UNKNOWN)).toBe("y");
    await configure(server, withKeys({ allow: ["127.0.0.0/8"] }));
    await hangUpSignal(server);
    expect(await newVersion(server)).toBe("v1");
  });

  test("many more workers than before", async () => {
    await using server = await startVersioned();
    await configure(server, withKeys({ workers: 40 }));
    expect(await hangUpSignal(server)).toContain("generation 2 serves: filter");
    expect((await askStatus(server)).generation.workers).toHaveLength(40);
  });

  test("keys that need a restart are named, and nothing of them is done", async () => {
    await using server = await startVersioned();
    await configure(
      server,
      withKeys({ listen: "inet:127.0.0.1:0", listen_backlog: 7, socket_mode: "0600", max_connections: 5 }),
    );
    const from = server.log.all.length;
    await hangUpSignal(server);
    const named = server.log.all
      .slice(from)
      .flatMap((line) => /(server\.\w+) has changed and needs a restart/.exec(line)?.[1] ?? []);
    expect(named.toSorted()).toEqual([
      "server.listen",
      "server.listen_backlog",
      "server.max_connections",
      "server.socket_mode",
    ]);
    expect(await newVersion(server)).toBe("v1");
    expect((await askStatus(server)).addresses).toEqual([...server.addresses]);
  });

  test("what the new configuration is warned of is logged", async () => {
    await using server = await startVersioned();
    await configure(server, withKeys({ handler_timeout: 12 }));
    const from = server.log.all.length;
    await hangUpSignal(server);
    expect(server.log.all.slice(from).join("\n")).toMatch(/\[warn\]: .*server\.handler_timeout is 12 s/);
  });

  test.each<[string, (text: string) => string, RegExp]>([
    ["TOML that is none", (text) => `${text}\n= 1\n`, /pmilter\.toml:\d+:\d+: /],
    ["an unknown key", (text) => text.replace("[server]", "[server]\nworkrs = 1"), /pmilter\.toml:2:\d+: .*workers/],
    ["a value that is wrong", withKeys({ log_level: "loud" }), /pmilter\.toml:2:\d+: .*log_level/],
    [
      "a filter that is not there",
      (text) => `${text}[[filter]]\npath = "none.ts"\n`,
      /none\.ts: there is no such file/,
    ],
  ])("%s leaves the old configuration", async (_, change, message) => {
    await using server = await startVersioned();
    await configure(server, change);
    const line = await hangUpSignal(server);
    expect(line).toMatch(/\[error\]: reload: generation 1 keeps serving: /);
    expect(line).toMatch(message);
    expect(await newVersion(server)).toBe("v1");
    // Handlers are reloaded with the configuration that is in force.
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
  });

  test("broken-config: the configuration is gone: the old one serves", async () => {
    await using server = await startVersioned();
    await Bun.file(server.configFile).delete();
    expect(await hangUpSignal(server)).toMatch(/\[error\]: reload: generation 1 keeps serving: .*pmilter\.toml/);
    expect(await newVersion(server)).toBe("v1");
  });

  test("it alone: a save of the configuration reloads nothing", async () => {
    await using server = await startVersioned();
    await configure(server, withKeys({ log_level: "info" }));
    await quiet();
    expect(reloadLines(server)).toEqual([]);
  });
});

describe("pmilter reload", () => {
  test("says that it took, exit code 0; with --json as data", async () => {
    await using server = await startVersioned({ server: { watch: false } });
    await save(server, "filter.ts", versioned("v2"));
    const first = await runPmilter(["reload", "-c", server.configFile]);
    expect(first).toEqual({ exitCode: 0, stdout: "reloaded: generation 2 serves: filter\n", stderr: "" });
    expect(await newVersion(server)).toBe("v2");
    const second = await runPmilter(["reload", "-c", server.configFile, "--json"]);
    expect({ exitCode: second.exitCode, stderr: second.stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(JSON.parse(second.stdout)).toEqual({
      ok: true,
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      message: "generation 3 serves: filter; nothing has changed since generation 2",
    });
  });

  test("says what is wrong with a handler, exit code 1; with --json as data", async () => {
    await using server = await startVersioned({ server: { watch: false } });
    await save(server, "filter.ts", "export default {\n  unknown() { return ); },\n};\n");
    const { exitCode, stdout, stderr } = await runPmilter(["reload", "-c", server.configFile]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toMatch(/^not reloaded: generation 1 keeps serving: \S+filter\.ts:2:\d+: /);
    const asJson = await runPmilter(["reload", "-c", server.configFile, "--json"]);
    expect(asJson.exitCode).toBe(1);
    expect(JSON.parse(asJson.stdout)).toMatchObject({
      ok: false,
      message: expect.stringMatching(/filter\.ts:2:\d+: /),
    });
    expect(await newVersion(server)).toBe("v1");
  });

  test("broken-config: a configuration that is wrong: exit code 1 with file, line and column, and the old one serves", async () => {
    await using server = await startVersioned();
    await configure(server, (text) => text.replace("[server]", "[server]\nworkrs = 1"));
    const { exitCode, stderr } = await runPmilter(["reload", "-c", server.configFile]);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/pmilter\.toml:2:\d+: .*workrs.*workers/s);
    expect(await newVersion(server)).toBe("v1");
  });

  test("no server: exit code 1, and where it was looked for", async () => {
    await using server = await startVersioned();
    await server.stop();
    const { exitCode, stdout, stderr } = await runPmilter(["reload", "-c", server.configFile]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toStartWith(
      `pmilter: no server that runs ${server.configFile} was found: there is no control socket in ${server.dir}, `,
    );
  });

  test("asked several times at once: each is told, and the last one's files serve", async () => {
    await using server = await startVersioned({ server: { watch: false } });
    const asked: Promise<{ ok: boolean }>[] = [];
    for (let index = 2; index <= 8; index++) {
      await save(server, "filter.ts", versioned(`v${index}`));
      asked.push(askReload(server));
    }
    for (const answer of await Promise.all(asked)) expect(answer).toMatchObject({ ok: true });
    expect(await newVersion(server)).toBe("v8");
  });
});

describe("postconfig_handler", () => {
  const config = `[handler.config]\npostconfig_handler = "postconfig.ts"\n${USE_FILTER}`;
  const POSTCONFIG = 'import { word } from "./word.ts";\nexport default () => console.log("postconfig", word);\n';

  test("runs once at each successful load, with its own new code", async () => {
    await using server = await startVersioned({
      config,
      server: { workers: 2 },
      files: { "filter.ts": versioned("v1"), "postconfig.ts": POSTCONFIG, "word.ts": 'export const word = "one";\n' },
    });
    expect(await askReload(server)).toMatchObject({ ok: true });
    await save(server, "word.ts", 'export const word = "two";\n');
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
    await server.prints.next(/two/);
    expect(server.prints.all).toEqual(["postconfig one", "postconfig one", "postconfig two"]);
  });

  test("does not run at a load that fails", async () => {
    await using server = await startVersioned({
      config,
      files: { "filter.ts": versioned("v1"), "postconfig.ts": POSTCONFIG, "word.ts": 'export const word = "one";\n' },
    });
    await save(server, "filter.ts", "syntax error");
    expect(await askReload(server)).toMatchObject({ ok: false });
    await save(server, "filter.ts", versioned("v2"));
    expect(await askReload(server)).toMatchObject({ ok: true });
    await server.stop();
    expect(server.prints.all).toEqual(["postconfig one", "postconfig one"]);
  });

  test("one that fails leaves the old code, with its file and line; mended, it takes", async () => {
    await using server = await startVersioned({
      config,
      files: { "filter.ts": versioned("v1"), "postconfig.ts": POSTCONFIG, "word.ts": 'export const word = "one";\n' },
    });
    await save(server, "postconfig.ts", 'export default () => {\n  throw new Error("no database");\n};\n');
    await save(server, "filter.ts", versioned("v2"));
    expect(await logged(server, /keeps serving/)).toMatch(/postconfig\.ts:2.*: no database/);
    expect(await newVersion(server)).toBe("v1");
    await save(server, "postconfig.ts", POSTCONFIG);
    expect(await askReload(server)).toMatchObject({ ok: true });
    expect(await newVersion(server)).toBe("v2");
  });
});

test("status names the code: another text has another version, the same text the same one", async () => {
  const versionNow = async () => (await askStatus(server)).generation.version;
  await using server = await startVersioned({ server: { watch: false } });
  const first = await versionNow();
  expect(first).toMatch(/^[0-9a-f]{12}$/);
  const text = await readFile(join(server.dir, "filter.ts"), "utf8");
  await save(server, "filter.ts", `${text}// changed\n`);
  expect(await askReload(server)).toMatchObject({ ok: true });
  expect(await versionNow()).not.toBe(first);
  await save(server, "filter.ts", text);
  expect(await askReload(server)).toMatchObject({ ok: true });
  expect(await versionNow()).toBe(first);
});
