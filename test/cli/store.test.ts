/** `pmilter store`: beside a running server with a SQLite file, on a Redis, and what it says when it cannot. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { unknown } from "../recovery/support.ts";
import { OPTNEG, RawClient } from "../server/wire.ts";
import { describeWith } from "../support/available.ts";
import { type Pmilter, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { redisTool, startRedis } from "../support/redis.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const FILTER = {
  config: '[[filter]]\npath = "filter.ts"\n',
  files: {
    "filter.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  name: "counts",
  async unknown(session) {
    await session.store.increment("seen");
    return undefined;
  },
});
`,
  },
};

const asks = (configFile: string) => {
  const run = async (...args: string[]) => {
    const { exitCode, stderr, stdout } = await runPmilter(["store", ...args, "-c", configFile]);
    return { exitCode, stderr, stdout };
  };
  return run;
};

const done = (stdout = "") => ({ exitCode: 0, stderr: "", stdout });

const threadsOf = (server: Pmilter): string[] =>
  readdirSync(`/proc/${server.process.pid}/task`).map((task) =>
    readFileSync(`/proc/${server.process.pid}/task/${task}/comm`, "utf8").trim(),
  );

test("beside a running server: both see the same values; unused, no thread is started", async () => {
  await using server = await startPmilter(FILTER);
  const run = asks(server.configFile);
  expect(threadsOf(server)).not.toContain("services");
  expect(await run("get", "counts", "seen")).toEqual({
    exitCode: 1,
    stderr: expect.stringMatching(/^pmilter: there is no store yet: .*store\.db\n$/),
    stdout: "",
  });
  using session = await RawClient.connect(server.addresses[0]!);
  await session.ask(OPTNEG, unknown("ONE"), unknown("TWO"));
  expect(threadsOf(server)).toContain("services");
  expect(await run("get", "counts", "seen")).toEqual(done("2\n"));
  expect(await run("set", "counts", "seen", "40")).toEqual(done());
  await session.ask(unknown("THREE"));
  expect(await run("get", "counts", "seen")).toEqual(done("41\n"));
  expect(await run("set", "counts", "text\u009b", '{"a":"\u009b[1m"}', "--ttl", "1h")).toEqual(done());
  expect(await run("list", "counts")).toEqual(
    done('{"key":"seen","value":41}\n{"key":"text\\u009b","value":{"a":"\\u009b[1m"}}\n'),
  );
  expect(await run("list", "counts", "te")).toEqual(done('{"key":"text\\u009b","value":{"a":"\\u009b[1m"}}\n'));
  expect(await run("list", "other")).toEqual(done());
  expect(await run("delete", "counts", "seen")).toEqual(done());
  expect(await run("delete", "counts", "seen")).toEqual({ exitCode: 1, stderr: "", stdout: "" });
  expect(await run("get", "counts", "seen")).toEqual({ exitCode: 1, stderr: "", stdout: "" });
  expect((await run("set", "counts", "k", "text")).stderr).toBe(
    'pmilter: expected the value as JSON, such as 5, true or \'"text"\', got "text"\n',
  );
  expect((await run("set", "counts", "k", "1", "--ttl", "soon")).stderr).toMatch(/^pmilter: store: ttl is seconds or/);
  expect((await run("get", "counts", "k".repeat(513))).stderr).toMatch(/^pmilter: store: a key has at most 512 bytes/);
  expect((await run("get", "counts")).exitCode).toBe(2);
  expect((await run("look")).exitCode).toBe(2);
});

test("without a server it finds the file by the configuration", async () => {
  await using dir = await tempDir("store-command");
  const configFile = await writeProject(dir.path, {
    config: `[store]\nurl = "sqlite:${join(dir.path, "none.db")}"\n`,
  });
  expect(await asks(configFile)("list", "f")).toEqual({
    exitCode: 1,
    stderr: `pmilter: there is no store yet: ${join(dir.path, "none.db")}\n`,
    stdout: "",
  });
});

describeWith(redisTool(), "on a Redis", () => {
  test("as with a file; one that is away is named without its password", async () => {
    await using redis = await startRedis();
    await using dir = await tempDir("store-command");
    const configFile = await writeProject(dir.path, { config: `[store]\nurl = "${redis.url}"\n` });
    const run = asks(configFile);
    expect(await run("set", "f", "k", "[1]")).toEqual(done());
    expect(await run("list", "f")).toEqual(done('{"key":"k","value":[1]}\n'));
    await redis.kill("SIGKILL");
    const { exitCode, stderr } = await run("get", "f", "k");
    expect(exitCode).toBe(1);
    expect(stderr).toStartWith(`pmilter: store: ${redis.url}`);
  });
});
