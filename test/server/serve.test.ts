/** The life of the server process: start, signals, open sessions at its end, and the handlers of its life. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { EXIT_HANDLER_MS } from "../../src/server/policy.ts";
import { callHandler } from "../../src/server/workers/tasks.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { type Pmilter, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir, waitFor } from "../support/temp.ts";
import { spawnServer } from "./spawned.ts";
import { BODY, CONNECT, DATA, EOH, EOM, HEADER, HELO, MAIL, OPTNEG, QUIT, RawClient, RCPT, UNKNOWN } from "./wire.ts";

setDefaultTimeout(120_000);

/** Takes part in everything, and changes what it sees. */
const FILTER = `import { defineFilter } from "pmilter";
export default defineFilter({
  connect() {}, helo() {}, envfrom() {}, envrcpt() {}, unknown() {},
  eom(session) { session.message.addHeader("X-Seen", "yes"); },
});
`;

/** An eom that waits until the file \`go\` exists. */
const GATED = `import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineFilter } from "pmilter";
export default defineFilter({
  async eom(session) {
    console.log("at eom");
    while (!existsSync(join(import.meta.dir, "go"))) await Bun.sleep(10);
    session.message.addHeader("X-Seen", "yes");
  },
});
`;

const USE_FILTER = '[[filter]]\npath = "filter.ts"\n';

function start(server: Record<string, unknown> = {}, filter = FILTER): Promise<Pmilter> {
  return startPmilter({
    server: { workers: 2, ...server },
    config: USE_FILTER,
    files: { "filter.ts": filter },
  });
}

function isRunning(server: Pmilter): boolean {
  return server.process.exitCode === null && server.process.signalCode === null;
}

describe("a signal to stop", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "stop: %s: an open session ends its message, then exit code 0",
    async (signal) => {
      await using server = await start();
      using client = await RawClient.connect(server.addresses[0]!);
      expect(await client.ask(OPTNEG, CONNECT, HELO, MAIL)).toBe("Occc");
      server.process.kill(signal);
      await server.log.next(new RegExp(`${signal}: stopping, 1 connections open`));
      expect(await client.ask(RCPT, DATA, HEADER, EOH, BODY)).toBe("ccccc");
      await client.send(EOM);
      expect(await client.codes(2)).toBe("hc");
      expect(isRunning(server)).toBe(true);
      await client.send(QUIT);
      await client.ended();
      expect(await server.process.exited).toBe(0);
      expect(server.log.all.at(-1)).toMatch(/: stopped$/);
      expect(server.log.text).not.toContain("cut");
    },
  );

  test("no new connection is taken while it stops, and the socket's file is gone", async () => {
    await using server = await start();
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG);
    server.process.kill("SIGTERM");
    await waitFor(() => !existsSync(join(server.dir, "pmilter.sock")), { what: "the end of listening" });
    await expect(RawClient.connect(server.addresses[0]!)).rejects.toThrow();
    expect(isRunning(server)).toBe(true);
    await client.send(QUIT);
    expect(await server.process.exited).toBe(0);
  });

  test("a handler that is awaited gives its verdict first", async () => {
    await using server = await start({}, GATED);
    await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
    const outcome = client.send({ from: "a@example.com", to: ["b@example.com"], eml: "Subject: x\r\n\r\nx\r\n" });
    await server.prints.next(/at eom/);
    server.process.kill("SIGTERM");
    await server.log.next(/stopping, 1 connections/);
    await Bun.write(join(server.dir, "go"), "");
    expect(await outcome).toMatchObject({
      verdict: "accept",
      modifications: [{ kind: "addHeader", name: "X-Seen", value: "yes" }],
    });
    await client.quit();
    expect(await server.process.exited).toBe(0);
  });

  test("stop-timeout: stop_timeout cuts what is left, and the log says so", async () => {
    await using server = await start({ stop_timeout: 0.2 });
    using first = await RawClient.connect(server.addresses[0]!);
    using second = await RawClient.connect(server.addresses[0]!);
    await first.ask(OPTNEG, CONNECT, MAIL);
    await second.ask(OPTNEG);
    server.process.kill("SIGTERM");
    await Promise.all([first.ended(), second.ended()]);
    expect(await server.process.exited).toBe(0);
    expect(server.log.text).toMatch(/\[warn\]: 2 sessions had not ended and are cut/);
    expect(server.log.all.filter((line) => line.endsWith(": the server stops, connection closed"))).toHaveLength(2);
  });

  test("stop_timeout = 0 does not wait", async () => {
    await using server = await start({ stop_timeout: 0 });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG);
    server.process.kill("SIGTERM");
    await client.ended();
    expect(await server.process.exited).toBe(0);
  });

  test("second-signal: a second signal cuts at once", async () => {
    await using server = await start({ stop_timeout: 1000 });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, MAIL);
    server.process.kill("SIGTERM");
    await server.log.next(/stopping/);
    expect(client.isEnded).toBe(false);
    // A repeat within half a second is the same Ctrl-C, passed on by `bun run`.
    await Bun.sleep(600);
    server.process.kill("SIGINT");
    await client.ended();
    expect(await server.process.exited).toBe(0);
    expect(server.log.text).toMatch(/SIGINT again: open sessions are cut/);
  });

  test("stop() of a filter is awaited once in each worker, also when sessions are cut", async () => {
    const filter = `import { defineFilter } from "pmilter";
let calls = 0;
export default defineFilter({
  unknown() {},
  async stop() { calls += 1; await Bun.sleep(20); console.log("stop no. " + calls); },
});
`;
    await using server = await start({ stop_timeout: 0.1 }, filter);
    using first = await RawClient.connect(server.addresses[0]!);
    using second = await RawClient.connect(server.addresses[0]!);
    await Promise.all([first.ask(OPTNEG), second.ask(OPTNEG)]);
    expect(await server.stop()).toBe(0);
    expect(server.prints.all).toEqual(["stop no. 1", "stop no. 1"]);
  });

  test("stop-hangs: a stop() that never settles does not keep the process, and is called once", async () => {
    const filter = `import { defineFilter } from "pmilter";
export default defineFilter({ unknown() {}, stop() { console.log("stop"); return new Promise(() => {}); } });
`;
    await using server = await start({ workers: 1, stop_timeout: 0.1 }, filter);
    expect(await server.stop()).toBe(0);
    expect(server.prints.all).toEqual(["stop"]);
  });

  test("a stop() that throws is logged with its filter, file and line, and exit code 0", async () => {
    const filter = `import { defineFilter } from "pmilter";
export default defineFilter({ name: "untidy", unknown() {}, stop() {
  throw new Error("cannot tidy up");
} });
`;
    await using server = await spawnServer({
      server: { workers: 1, log_format: "json" },
      config: USE_FILTER,
      files: { "filter.ts": filter },
    });
    await server.log.next(/ready/);
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
    await server.log.next(/"stopped"/);
    const line = server.log.all.find((text) => text.includes("cannot tidy up"))!;
    expect(JSON.parse(line)).toMatchObject({ level: "error", message: expect.stringMatching(/untidy.*stop/), line: 3 });
  });

  test("it stops before its handlers are loaded, too", async () => {
    await using server = await spawnServer({
      config: USE_FILTER,
      files: {
        "filter.ts": `import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineFilter } from "pmilter";
export default defineFilter({
  unknown() {},
  async start() {
    console.log("starting");
    while (!existsSync(join(import.meta.dir, "go"))) await Bun.sleep(10);
  },
});
`,
      },
    });
    await server.prints.next(/starting/);
    server.process.kill("SIGTERM");
    await Bun.write(join(server.dir, "go"), "");
    expect(await server.process.exited).toBe(0);
    expect(existsSync(join(server.dir, "pmilter.sock"))).toBe(false);
  });

  test("it stops while its only worker is being replaced", async () => {
    const filter = `import { defineFilter } from "pmilter";
export default defineFilter({ unknown() { process.exit(1); } });
`;
    await using server = await start({ workers: 1, stop_timeout: 0.1 }, filter);
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(OPTNEG, UNKNOWN);
    await server.log.next(/a worker with 1 connection ended/);
    server.process.kill("SIGTERM");
    try {
      await waitFor(() => !isRunning(server), { what: "the end of the server" });
    } finally {
      if (isRunning(server)) server.process.kill("SIGKILL");
    }
    expect(server.process.exitCode).toBe(0);
  });

  test("SIGHUP does not end it, and says something", async () => {
    await using server = await start();
    const from = server.log.all.length;
    server.process.kill("SIGHUP");
    await server.log.next(/./, { from });
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oc");
  });
});

describe("postconfig_handler", () => {
  const config = '[handler.config]\npostconfig_handler = "life/postconfig.ts"\n';

  test("runs once, before the first session, and may be async", async () => {
    await using server = await startPmilter({
      server: { workers: 3 },
      config,
      files: {
        "life/postconfig.ts":
          'export default async function () { await Bun.sleep(5); console.log("loaded", arguments.length); }\n',
      },
    });
    await server.stop();
    expect(server.prints.all).toEqual(["loaded 0"]);
  });

  test.each([
    ["throws", "export default () => {\n  throw new Error('no database');\n};\n", "postconfig.ts:2", "no database"],
    [
      "rejects",
      "export default async () => {\n  await Bun.sleep(1);\n  throw new Error('no network');\n};\n",
      "postconfig.ts:3",
      "no network",
    ],
    ["has no default export", "export const postconfig = 1;\n", "postconfig.ts", "no default export"],
    ["exports no function", "export default 12;\n", "postconfig.ts", "expected a function"],
    ["has a syntax error", "export default function ( {\n", "postconfig.ts:1:", "xpected"],
    ["ends its worker", "export default () => process.exit(0);\n", "postconfig.ts", "ended"],
  ])("one that %s prevents the start", async (_, text, place, message) => {
    await using dir = await tempDir("postconfig");
    const configFile = await writeProject(dir.path, { config, files: { "life/postconfig.ts": text } });
    const { exitCode, stderr } = await runPmilter(["-c", configFile]);
    expect(exitCode).toBe(1);
    const last = stderr.trimEnd().split("\n").at(-1)!;
    expect(last).toContain(join(dir.path, "life", place));
    expect(last).toContain(message);
    expect(stderr).not.toContain("ready");
    expect(existsSync(join(dir.path, "pmilter.sock"))).toBe(false);
  });
});

describe("master_exit_handler", () => {
  const config = '[handler.config]\nmaster_exit_handler = "exit.ts"\n';

  test("runs once at the end, after the last session", async () => {
    await using server = await startPmilter({
      server: { workers: 2 },
      config: `${config}${USE_FILTER}`,
      files: {
        "exit.ts": 'export default async () => { await Bun.sleep(5); console.log("bye"); };\n',
        "filter.ts": FILTER.replace("unknown() {}", 'close() { console.log("closed"); }'),
      },
    });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT);
    server.process.kill("SIGTERM");
    await server.log.next(/stopping/);
    await client.send(QUIT);
    expect(await server.process.exited).toBe(0);
    await waitFor(() => server.prints.isEnded, { what: "the end of its output" });
    expect(server.prints.all).toEqual(["closed", "bye"]);
  });

  test("its error is logged with file and line, and the exit code stays 0", async () => {
    await using server = await startPmilter({
      config,
      files: { "exit.ts": "export default () => {\n  throw new Error('too late');\n};\n" },
    });
    expect(await server.stop()).toBe(0);
    await server.log.next(/: stopped$/);
    expect(server.log.text).toMatch(/\[error\]: master_exit_handler: .*exit\.ts:2:\d+: too late/);
  });

  test.each([
    ["without watch: as it was loaded", false, "before"],
    ["with watch: as it was loaded anew", true, "after"],
  ])("changed while the server runs, %s", async (_, watch, expected) => {
    const text = (word: string) => `export default () => console.log("${word}");\n`;
    await using server = await startPmilter({ server: { watch }, config, files: { "exit.ts": text("before") } });
    await Bun.write(join(server.dir, "exit.ts"), text("after"));
    if (watch) await server.log.next(/reload: generation 2 serves/);
    expect(await server.stop()).toBe(0);
    expect(server.prints.all).toEqual([expected]);
  });

  test.each([
    ["a promise that never settles", "export default () => new Promise(() => {});\n"],
    ["an endless loop", "export default () => { for (;;); };\n"],
  ])("%s is bounded", async (_, text) => {
    expect(EXIT_HANDLER_MS).toBe(5000);
    await using dir = await tempDir("exit");
    const file = join(dir.path, "exit.ts");
    await Bun.write(file, text);
    const worker = new URL("../../src/worker/entry.ts", import.meta.url);
    await expect(callHandler(worker, file, null, { timeoutMs: 300 }, () => {})).rejects.toThrow(
      /exit\.ts: timed out after 0\.3 s/,
    );
  });
});

describe("start", () => {
  test("a session that comes before the handlers are loaded waits and is served", async () => {
    await using server = await spawnServer({
      server: { stop_timeout: 0.1 },
      config: USE_FILTER,
      files: {
        "filter.ts": `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  async start() { console.log("starting"); await Bun.sleep(200); },
  unknown: () => reject("550 5.7.1 loaded"),
});
`,
      },
    });
    await server.prints.next(/starting/);
    expect(server.log.text).not.toContain("ready");
    using client = await RawClient.connect(server.address);
    expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oy");
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
  });

  test("server.handler = false: no handler is loaded, every message passes", async () => {
    await using server = await start({ handler: false }, "export default 'this is no filter';\n");
    expect(server.log.text).toMatch(/filters: no/);
    await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
    const outcome = await client.send({ from: "a@example.com", to: ["b@example.com"], eml: "A: b\r\n\r\nx\r\n" });
    expect(outcome).toMatchObject({ verdict: "accept", modifications: [] });
    expect(client.negotiated!.protocol & 0x37f).toBe(0x37f);
  });
});
