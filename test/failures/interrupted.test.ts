/**
 * docs/failures.md, "Stopping and starting": a start that takes long, and signals at every moment. What has to hang hangs
 * until a test says otherwise, and says when it has begun to.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { askServer } from "../../src/server/control/control.ts";
import type { Status } from "../../src/server/control/status.ts";
import { newVersion, save, untilVersion, versioned } from "../reload/support.ts";
import { type Spawned, spawnServer } from "../server/spawned.ts";
import { CONNECT, HELO, MAIL, OPTNEG, QUIT, RawClient, UNKNOWN } from "../server/wire.ts";
import { type Pmilter, type PmilterOptions, runPmilter, startPmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import { complaints, expectLogged, filter, start, statusIn, USE_FILTER } from "./support.ts";

setDefaultTimeout(120_000);

/** Statements that say so and then wait: until there is a file `go`, for ever, or without giving the thread back. */
const UNTIL_GO =
  'console.log("hanging"); while (!require("node:fs").existsSync(new URL("go", import.meta.url).pathname)) await Bun.sleep(20);';
const FOR_EVER = 'console.log("hanging"); await new Promise(() => {});';
const IN_A_LOOP = 'console.log("hanging"); await Bun.sleep(50); for (;;);';
const NATIVELY = 'console.log("hanging"); await Bun.sleep(50); Bun.sleepSync(60_000);';

const PHASES = "unknown() {}, connect() {}, envfrom() {},";

/** A server that has not said yet that it is ready. */
function starting({ server, ...options }: PmilterOptions): Promise<Spawned> {
  return spawnServer({
    config: USE_FILTER,
    ...options,
    server: { workers: 1, stop_timeout: 0.1, ...server },
  });
}

/**
 * A signal, and one more behind the time within which it would be the same one, heard twice. On a busy machine both may be
 * heard at once: then there is another. Settles when the process has ended.
 */
async function twice(
  { process }: { readonly process: Bun.Subprocess },
  first: NodeJS.Signals = "SIGTERM",
): Promise<void> {
  process.kill(first);
  for (;;) {
    await Promise.race([process.exited, Bun.sleep(600)]);
    if (process.exitCode !== null) return;
    process.kill("SIGTERM");
  }
}

/** Where a start can hang. */
const SLOW: readonly [string, PmilterOptions][] = [
  ["start()", { files: { "filter.ts": filter(`${PHASES} async start() { ${UNTIL_GO} }`) } }],
  [
    "start() of one of three workers",
    { server: { workers: 3 }, files: { "filter.ts": filter(`${PHASES} async start() { ${UNTIL_GO} }`) } },
  ],
  ["an import", { files: { "filter.ts": `${UNTIL_GO}\n${filter(PHASES)}` } }],
  [
    "postconfig_handler",
    {
      config: `[handler.config]\npostconfig_handler = "task.ts"\n${USE_FILTER}`,
      files: { "task.ts": `export default async () => { ${UNTIL_GO} };`, "filter.ts": filter(PHASES) },
    },
  ],
  [
    "the check of master_exit_handler",
    {
      config: `[handler.config]\nmaster_exit_handler = "task.ts"\n${USE_FILTER}`,
      files: { "task.ts": `${UNTIL_GO}\nexport default () => {};`, "filter.ts": filter(PHASES) },
    },
  ],
];

describe("a start that takes long", () => {
  /** They wait side by side. */
  const begun = new Map<string, { server: Spawned; early: RawClient; answer: Promise<string> }>();
  beforeAll(async () => {
    await Promise.all(
      SLOW.map(async ([name, options]) => {
        const server = await starting(options);
        await server.prints.next(/hanging/);
        const early = await RawClient.connect(server.address);
        begun.set(name, { server, early, answer: early.ask(OPTNEG, CONNECT) });
      }),
    );
  }, 60_000);
  afterAll(async () => {
    for (const { early, server } of begun.values()) {
      early[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    }
  });

  test.each(SLOW)(
    "starts-slowly: %s: connections get the fallback, and are served once it is through",
    async (name) => {
      const { answer, early, server } = begun.get(name)!;
      expect(await answer).toBe("Ot");
      await expectLogged(server, "starts-slowly");
      expect(server.log.text).not.toContain("ready: ");
      expect(await statusIn(server.dir)).toMatchObject({
        health: "starting",
        problems: ["the handlers are still loading"],
        generation: { number: 0, workers: [] },
        filters: [],
      });
      const asked = await runPmilter(["status", "-c", join(server.dir, "pmilter.toml")]);
      expect(asked).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^health +starting/m) });
      const health = await runPmilter(["status", "--health", "-c", join(server.dir, "pmilter.toml")]);
      expect(health.exitCode).toBe(1);

      writeFileSync(join(server.dir, "go"), "");
      await server.log.next(/ready: listening on /);
      using late = await RawClient.connect(server.address);
      expect(await late.ask(OPTNEG, CONNECT, HELO, MAIL)).toBe("Occc");
      expect(await statusIn(server.dir)).toMatchObject({
        health: "ok",
        counters: { connectionsRefused: 1, sessionsLost: 0 },
      });
      // A connection that was refused stays so, and ends with its mail server.
      expect(await early.ask(MAIL)).toBe("t");
      await early.send(QUIT);
      await early.ended();
    },
    120_000,
  );

  test("starts-slowly: the fallback is that of the configuration, before its filters are known", async () => {
    await using server = await starting({
      server: { on_error: "reject" },
      config:
        '[[filter]]\npath = "filter.ts"\n[[filter]]\npath = "other.ts"\nmode = "observe"\non_error = "tempfail"\n',
      files: {
        "filter.ts": filter(`${PHASES} async start() { ${UNTIL_GO} }`),
        "other.ts": filter(PHASES),
      },
    });
    await server.prints.next(/hanging/);
    using client = await RawClient.connect(server.address);
    expect(await client.ask(OPTNEG, CONNECT)).toBe("Or");
  });

  test("starts-slowly: one that fails in the end gives exit code 1, and ends the sessions that had the fallback", async () => {
    await using server = await starting({
      files: { "filter.ts": filter(`${PHASES} async start() { ${UNTIL_GO} throw new Error("no database"); }`) },
    });
    await server.prints.next(/hanging/);
    using client = await RawClient.connect(server.address);
    expect(await client.ask(OPTNEG, CONNECT)).toBe("Ot");
    using waiting = await RawClient.connect(server.address);
    writeFileSync(join(server.dir, "go"), "");
    await Promise.all([client.ended(), waiting.ended()]);
    expect(client.isReset).toBe(false);
    expect(await server.process.exited).toBe(1);
    expect(await server.log.next(/^pmilter: /)).toMatch(/start\(\) of filter filter failed: no database/);
    expect(existsSync(join(server.dir, "pmilter.sock"))).toBe(false);
  });

  test("starts-slowly: all workers load at the same time", async () => {
    await using server = await starting({
      server: { workers: 3 },
      files: { "filter.ts": filter(`${PHASES} async start() { ${UNTIL_GO} }`) },
    });
    await waitFor(() => server.prints.all.filter((line) => line === "hanging").length === 3, { what: "three starts" });
    writeFileSync(join(server.dir, "go"), "");
    expect(await server.log.next(/ready: /)).toContain("3 workers");
  });

  test("start-fails: at a start, in one worker of three", async () => {
    await using server = await starting({
      server: { workers: 3 },
      files: {
        "filter.ts": filter(
          `${PHASES} start() {
            const { mkdirSync } = require("node:fs");
            for (const name of ["one", "two"]) try { mkdirSync(new URL(name, import.meta.url).pathname); return; } catch {}
            throw new Error("only two");
          }`,
        ),
      },
    });
    expect(await server.process.exited).toBe(1);
    expect(await server.log.next(/^pmilter: /)).toMatch(
      /filter\.ts:5:\d+: start\(\) of filter filter failed: only two/,
    );
    expect(server.log.all.filter((line) => line.startsWith("pmilter: "))).toHaveLength(1);
  });

  test("starts-slowly: reloads that are asked for meanwhile come after it", async () => {
    await using server = await starting({ files: { "filter.ts": filter(`${PHASES} async start() { ${UNTIL_GO} }`) } });
    await server.prints.next(/hanging/);
    server.process.kill("SIGHUP");
    const answer = askServer(server.control, { command: "reload" });
    writeFileSync(join(server.dir, "go"), "");
    expect(await answer).toMatchObject({ ok: true });
    await server.log.next(/reload: generation 3 serves/);
    const lines = server.log.all
      .filter((line) => /ready: |reload: /.test(line))
      .map((line) => line.replace(/^.*\]: /, ""));
    expect(lines).toEqual([
      expect.stringContaining("ready: "),
      expect.stringContaining("reload: generation 2 serves"),
      expect.stringContaining("reload: generation 3 serves"),
    ]);
  });
});

describe("a signal during a start", () => {
  const hangs = (how: string): PmilterOptions => ({
    files: { "filter.ts": filter(`${PHASES} async start() { ${how} }`) },
  });
  test.each<[string, NodeJS.Signals, PmilterOptions]>([
    ["start()", "SIGTERM", hangs(FOR_EVER)],
    ["start(), by SIGINT", "SIGINT", hangs(FOR_EVER)],
    ["a start() that does not return", "SIGTERM", hangs(IN_A_LOOP)],
    ["a start() in a native call", "SIGTERM", hangs(NATIVELY)],
    ["three workers", "SIGTERM", { ...hangs(FOR_EVER), server: { workers: 3 } }],
    ["an import", "SIGTERM", { files: { "filter.ts": `${FOR_EVER}\n${filter(PHASES)}` } }],
    [
      "postconfig_handler",
      "SIGTERM",
      {
        config: `[handler.config]\npostconfig_handler = "task.ts"\n${USE_FILTER}`,
        files: { "task.ts": `export default async () => { ${FOR_EVER} };`, "filter.ts": filter(PHASES) },
      },
    ],
    [
      "postconfig_handler in a native call",
      "SIGTERM",
      {
        config: `[handler.config]\npostconfig_handler = "task.ts"\n${USE_FILTER}`,
        files: { "task.ts": `export default async () => { ${NATIVELY} };`, "filter.ts": filter(PHASES) },
      },
    ],
    [
      "the check of master_exit_handler",
      "SIGTERM",
      {
        config: `[handler.config]\nmaster_exit_handler = "task.ts"\n${USE_FILTER}`,
        files: { "task.ts": `${FOR_EVER}\nexport default () => {};`, "filter.ts": filter(PHASES) },
      },
    ],
  ])(
    "stop-at-start: %s: it ends, with exit code 0, and no handler has failed",
    async (_, signal, options) => {
      // Of so long a time nothing may be left to wait for.
      await using server = await starting({ ...options, server: { ...options.server, stop_timeout: 1000 } });
      await server.prints.next(/hanging/);
      using waiting = await RawClient.connect(server.address);
      server.process.kill(signal);
      await waiting.ended();
      expect(await server.process.exited).toBe(0);
      await expectLogged(server, "stop-at-start");
      expect(complaints(server).filter((line) => !line.includes("max_connections"))).toEqual([]);
      expect(existsSync(join(server.dir, "pmilter.sock"))).toBe(false);
      expect(existsSync(server.control)).toBe(false);
    },
    120_000,
  );

  test("stop-at-start: a session that had the fallback ends as well, and master_exit_handler is not run", async () => {
    await using server = await starting({
      config: `[handler.config]\nmaster_exit_handler = "exit.ts"\n${USE_FILTER}`,
      files: {
        "filter.ts": filter(`${PHASES} async start() { ${FOR_EVER} }`),
        "exit.ts": 'export default () => { console.log("goodbye"); };',
      },
      server: { stop_timeout: 1000 },
    });
    await server.prints.next(/hanging/);
    using client = await RawClient.connect(server.address);
    expect(await client.ask(OPTNEG, CONNECT)).toBe("Ot");
    server.process.kill("SIGTERM");
    await client.ended();
    expect(client.isReset).toBe(false);
    expect(await server.process.exited).toBe(0);
    expect(server.prints.text).toBe("hanging");
  });
});

/** A server whose reload hangs there; `count` is how often a file is read, so that the first start is well. */
const AT_RELOAD: readonly [string, Readonly<Record<string, string>>, string][] = [
  ["postconfig_handler", { "post.ts": "export default () => {};" }, "post.ts"],
  ["the check of master_exit_handler", { "exit.ts": 'export default () => { console.log("goodbye"); };' }, "exit.ts"],
  ["start()", {}, "filter.ts"],
  ["an import", {}, "filter.ts"],
];

async function reloading(
  [where, files, file]: (typeof AT_RELOAD)[number],
  how: string,
  server: PmilterOptions["server"] = {},
): Promise<Pmilter> {
  const keys = { "post.ts": "postconfig_handler", "exit.ts": "master_exit_handler" };
  const tasks = Object.entries(keys).filter(([name]) => files[name] !== undefined);
  const lines = tasks.map(([name, key]) => `${key} = "${name}"\n`);
  const pmilter = await startPmilter({
    config: `${lines.length > 0 ? `[handler.config]\n${lines.join("")}` : ""}${USE_FILTER}`,
    files: { "filter.ts": filter(PHASES), ...files },
    server: { workers: 1, stop_timeout: 0.2, watch: false, ...server },
  });
  const hanging: Readonly<Record<string, string>> = {
    postconfig_handler: `export default async () => { ${how} };`,
    "the check of master_exit_handler": `${how}\nexport default () => {};`,
    "start()": filter(`${PHASES} async start() { ${how} }`),
    "an import": `${how}\n${filter(PHASES)}`,
  };
  await save(pmilter, file, hanging[where]!);
  return pmilter;
}

describe("a signal while a reload hangs", () => {
  for (const each of AT_RELOAD) {
    test.each([
      ["for ever", FOR_EVER],
      ["in a native call", NATIVELY],
    ])(
      `stop-at-reload: ${each[0]}, %s: open messages are finished, and who asked for it is told`,
      async (_, how) => {
        await using server = await reloading(each, how, { stop_timeout: 20 });
        using client = await RawClient.connect(server.addresses[0]!);
        expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Occ");
        const asked = runPmilter(["reload", "-c", server.configFile]);
        await server.prints.next(/hanging/);
        server.process.kill("SIGTERM");
        const { exitCode, stderr } = await asked;
        expect({ exitCode, stderr }).toEqual({
          exitCode: 1,
          stderr: expect.stringMatching(/^not reloaded: .*the server stops\n$/),
        });
        await expectLogged(server, "stop-at-reload");
        expect(await client.ask(UNKNOWN)).toBe("c");
        await client.send(QUIT);
        expect(await server.process.exited).toBe(0);
      },
      120_000,
    );
  }

  test("reload-at-stop: a reload that waits behind another one is answered, as is status", async () => {
    await using server = await reloading(AT_RELOAD[0]!, FOR_EVER, { stop_timeout: 20 });
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Occ");
    const control = server.control;
    const first = runPmilter(["reload", "-c", server.configFile]);
    await server.prints.next(/hanging/);
    const queued = [1, 2, 3].map(() => askServer(control, { command: "reload" }));
    const silent = await connectControl(control);
    // Answered behind them on the same socket: they are in the queue.
    await askServer(control, { command: "status" });
    server.process.kill("SIGTERM");
    for (const answer of await Promise.all(queued))
      expect(answer).toMatchObject({ ok: false, message: "the server stops" });
    expect((await first).exitCode).toBe(1);
    await server.log.next(/stopping/);
    server.process.kill("SIGHUP");
    silent.write('{"command":"status"}\n');
    const status = JSON.parse(await silent.answer) as Status;
    expect(status).toMatchObject({ health: "degraded", problems: ["the server stops"], connections: 1 });
    await client.send(QUIT);
    expect(await server.process.exited).toBe(0);
    expect(server.log.text).not.toContain("generation 2");
  });

  test("changed-meanwhile: a save mends what hangs in a handler of the process's life", async () => {
    await using server = await startPmilter({
      config: `[handler.config]\npostconfig_handler = "post.ts"\n${USE_FILTER}`,
      files: { "filter.ts": versioned("v1"), "post.ts": "export default () => {};" },
      server: { workers: 1, stop_timeout: 0.1 },
    });
    await save(server, "post.ts", `export default async () => { ${FOR_EVER} };`);
    await save(server, "filter.ts", versioned("v2"));
    await server.prints.next(/hanging/);
    expect(await newVersion(server)).toBe("v1");
    await save(server, "post.ts", "export default () => {};");
    await save(server, "filter.ts", versioned("v3"));
    await untilVersion(server, "v3");
  });
});

/** A client of the control socket that says what it is told to. */
async function connectControl(path: string): Promise<{ write(text: string): void; readonly answer: Promise<string> }> {
  const answer = Promise.withResolvers<string>();
  let text = "";
  const socket = await Bun.connect({
    unix: path,
    socket: { data: (_, chunk) => void (text += Buffer.from(chunk).toString()), close: () => answer.resolve(text) },
  });
  return { write: (line) => void socket.write(line), answer: answer.promise };
}

describe("a second signal", () => {
  test.each<[string, NodeJS.Signals, string]>([
    ["a filter's stop() that never settles", "SIGTERM", FOR_EVER],
    ["a filter's stop() that never settles, by SIGINT", "SIGINT", FOR_EVER],
    ["a filter's stop() that does not return", "SIGTERM", IN_A_LOOP],
    ["a filter's stop() in a native call", "SIGTERM", NATIVELY],
  ])(
    "second-signal: %s is not waited for",
    async (_, signal, how) => {
      // It would not be taken for stuck before the test is over.
      await using server = await start(`${PHASES} async stop() { ${how} }`, {
        server: { stop_timeout: 1000, block_timeout: 1000 },
      });
      server.process.kill(signal);
      await server.prints.next(/hanging/);
      await twice(server);
      expect(await server.process.exited).toBe(0);
      await expectLogged(server, "second-signal");
      await server.log.next(/: stopped$/);
    },
    120_000,
  );

  test.each([
    ["never settles", FOR_EVER],
    ["does not return", IN_A_LOOP],
    ["is in a native call", NATIVELY],
  ])(
    "second-signal: a master_exit_handler that %s is not waited for",
    async (_, how) => {
      await using server = await start(PHASES, {
        config: `[handler.config]\nmaster_exit_handler = "exit.ts"\n${USE_FILTER}`,
        files: { "exit.ts": `export default async () => { ${how} };` },
      });
      server.process.kill("SIGTERM");
      await server.prints.next(/hanging/);
      await twice(server);
      expect(await server.process.exited).toBe(0);
      await expectLogged(server, "second-signal");
      // That it would have been ended for by itself.
      expect(server.log.text).not.toMatch(/timed out after 5 s/);
    },
    120_000,
  );

  test("second-signal: a handler in a native call is not waited for, and its mail server gets the fallback", async () => {
    await using server = await start(`${PHASES} async helo() { ${NATIVELY} }`, {
      server: { stop_timeout: 1000, block_timeout: 1000 },
    });
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT)).toBe("Oc");
    await client.send(HELO);
    await server.prints.next(/hanging/);
    await Bun.sleep(200);
    await twice(server);
    expect(await client.codes(1)).toBe("t");
    await client.ended();
    expect(await server.process.exited).toBe(0);
  });

  test("stop: a worker that is being replaced, and does not start, is not waited for", async () => {
    await using server = await start(
      `${PHASES} async start() {
         const { existsSync, writeFileSync } = require("node:fs");
         const mark = new URL("mark", import.meta.url).pathname;
         if (existsSync(mark)) { ${FOR_EVER} }
         writeFileSync(mark, "");
       }, helo() { process.exit(); }`,
      { server: { stop_timeout: 1000 } },
    );
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(OPTNEG, CONNECT, HELO);
    await server.prints.next(/hanging/);
    server.process.kill("SIGTERM");
    await client.ended();
    expect(await server.process.exited).toBe(0);
  });
});
