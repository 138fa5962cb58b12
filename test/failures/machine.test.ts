/** docs/failures.md: what the machine may lack (permissions, descriptors, room, a reader of the output), at a start and later. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MAX_LINES } from "../../src/admin/line-limit.ts";
import { Fifo } from "../admin/fifo.ts";
import { CONNECT, OPTNEG, packet, QUIT, RawClient, UNKNOWN } from "../server/wire.ts";
import { describeWith, IS_LINUX, isRoot, outsideTool } from "../support/available.ts";
import { controlOf, Lines, MAIN, type PmilterOptions, writeProject } from "../support/pmilter.ts";
import { type TempDir, tempDir, waitFor } from "../support/temp.ts";
import { cpuMs, expectLogged, expectLoggedTimes, filter, patternsOf, start, statusIn, USE_FILTER } from "./support.ts";

setDefaultTimeout(120_000);

const ENV = { ...process.env, XDG_RUNTIME_DIR: "" };

/** What a start that fails says, and that it exits with 1; `through` is a program that starts the server. */
async function saidAtStart(
  dir: TempDir,
  options: PmilterOptions,
  id: string,
  through: readonly string[] = [],
): Promise<string> {
  const configFile = await writeProject(dir.path, options);
  const child = Bun.spawn([...through, process.execPath, MAIN, "-c", configFile], {
    stdio: ["ignore", "ignore", "pipe"],
    env: ENV,
  });
  const log = new Lines();
  await log.read(child.stderr);
  expect(await child.exited).toBe(1);
  expect(log.text).not.toMatch(/^\s+at /m);
  const [line] = await expectLogged({ log }, id);
  return line!;
}

/**
 * What takes the powers from root by which it may write anywhere and bind any port, and leaves it those to read Bun, the
 * server and the folder of the test, wherever they lie. Whoever else runs the tests has no such powers.
 */
const POWERS = "-dac_override,-net_bind_service";
const WITHOUT_POWERS = isRoot ? ["setpriv", `--bounding-set=${POWERS}`, `--inh-caps=${POWERS}`] : [];

describeWith(isRoot ? outsideTool("setpriv") : [], "a server that lacks rights at its start", () => {
  test("not-writable: the folder of the socket", async () => {
    await using dir = await tempDir("denied");
    const folder = join(dir.path, "denied");
    mkdirSync(folder);
    chmodSync(folder, 0o555);
    const line = await saidAtStart(dir, { listen: `unix:${folder}/pmilter.sock` }, "not-writable", WITHOUT_POWERS);
    expect(line).toContain(`no permission to make files in the folder ${folder}`);
  });

  const freePortsFrom = IS_LINUX ? Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8")) : 1024;
  if (freePortsFrom <= 1) console.log("skipped: here every user may bind any port");
  test.skipIf(freePortsFrom <= 1)("not-writable: a port that needs root", async () => {
    await using dir = await tempDir("denied");
    const line = await saidAtStart(dir, { listen: "inet:127.0.0.1:1" }, "not-writable", WITHOUT_POWERS);
    expect(line).toContain("no permission for port 1; ports below 1024 need root");
  });
});

describe("a server that cannot start", () => {
  test("not-a-socket: a file at the path stays what it was", async () => {
    await using dir = await tempDir("file");
    const path = join(dir.path, "precious");
    writeFileSync(path, "precious");
    const line = await saidAtStart(dir, { listen: `unix:${path}` }, "not-a-socket");
    expect(line).toContain(`${path} is a file`);
    expect(readFileSync(path, "utf8")).toBe("precious");
  });
});

test("too-many: further ones wait, are served when one ends, and it is said when it begins and when it is over", async () => {
  await using server = await start("connect() {}, unknown() {}", { server: { max_connections: 3 } });
  const address = server.addresses[0]!;
  const three = await Promise.all([1, 2, 3].map(() => RawClient.connect(address)));
  for (const client of three) expect(await client.ask(OPTNEG)).toBe("O");
  for (let round = 0; round < 5; round++) {
    using fourth = await RawClient.connect(address);
    await fourth.send(OPTNEG, CONNECT);
    for (const client of three) expect(await client.ask(UNKNOWN)).toBe("c");
    expect(fourth.replies).toEqual([]);
    expect(await statusIn(server.dir)).toMatchObject({ connections: 3, health: "degraded" });
    const last = three.pop()!;
    await last.send(QUIT);
    await last.ended();
    expect(await fourth.codes(2)).toBe("Oc");
    // It has taken the place of the one that ended.
    await expectLogged(server, "too-many");
    await fourth.send(QUIT);
    await fourth.ended();
    three.push(await RawClient.connect(address));
    expect(await three.at(-1)!.ask(OPTNEG)).toBe("O");
  }
  for (const client of three) client[Symbol.dispose]();
  await server.log.next(
    /\]\[notice\]: connections are accepted at once again: they had to wait (?:once|\d+ times), \d+ s altogether/,
  );
  await expectLoggedTimes(server, "too-many", 1);
});

test("garbage: what a stream of hostile connections says is a count beyond the first lines", async () => {
  await using server = await start("connect() {}", { server: { workers: 2 } });
  for (let n = 0; n < 60; n++) {
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(new Uint8Array([0, 0, 0, 1, 0x21]));
    await client.ended();
  }
  await server.stop();
  const lines = server.log.all.filter((line) => /PMILTER_ERR_\w+\), connection closed$/.test(line));
  expect(lines).toHaveLength(MAX_LINES);
  expect(server.log.text).toContain(
    `[notice]: ${60 - MAX_LINES} more lines like this one in the last minute: the mail server broke the protocol (PMILTER_ERR_COMMAND)`,
  );
});

describeWith(outsideTool("sh"), "with few descriptors", () => {
  test.skipIf(!IS_LINUX)("few-descriptors: as many connections as fit are served, the next one waits", async () => {
    await using dir = await tempDir("few");
    const configFile = await writeProject(dir.path, {
      server: { workers: 1, stop_timeout: 0.1, max_connections: 10_000 },
      config: USE_FILTER,
      files: { "filter.ts": filter("connect() {}, unknown() {}") },
    });
    const child = Bun.spawn(["sh", "-c", 'ulimit -n 220; exec "$0" "$@"', process.execPath, MAIN, "-c", configFile], {
      stdio: ["ignore", "ignore", "pipe"],
      env: ENV,
    });
    const log = new Lines();
    void log.read(child.stderr);
    try {
      await log.next(/ready/);
      const [line] = await expectLogged({ log }, "few-descriptors");
      expect(line).toContain("lowered from 10000 to 10: the limit of open files is 220");
      const address = `unix:${dir.path}/pmilter.sock`;
      const clients = await Promise.all(Array.from({ length: 10 }, () => RawClient.connect(address)));
      for (const client of clients) expect(await client.ask(OPTNEG, CONNECT)).toBe("Oc");
      using next = await RawClient.connect(address);
      await next.send(OPTNEG);
      await expectLogged({ log }, "too-many");
      const before = cpuMs(child.pid);
      await Bun.sleep(400);
      expect(cpuMs(child.pid) - before).toBeLessThan(200);
      expect(next.replies).toEqual([]);
      for (const client of clients) client[Symbol.dispose]();
      expect(await next.codes(1)).toBe("O");
      expect(log.text).not.toContain("no file descriptors");
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  });

  test.skipIf(!IS_LINUX)(
    "no-descriptors: the server can still be asked, and one who asks too much takes no core",
    async () => {
      await using dir = await tempDir("leak");
      const configFile = await writeProject(dir.path, {
        server: { workers: 1, stop_timeout: 0.1 },
        config: USE_FILTER,
        files: {
          "filter.ts": filter(
            `unknown(_, line) {
  if (line === "LEAK") for (;;) try { leaked.push(openSync("/dev/null", "r")); } catch { return; }
  for (const fd of leaked.splice(0)) closeSync(fd);
}`,
            ' import { closeSync, openSync } from "node:fs"; const leaked = [];',
          ),
        },
      });
      const child = Bun.spawn(["sh", "-c", 'ulimit -n 300; exec "$0" "$@"', process.execPath, MAIN, "-c", configFile], {
        stdio: ["ignore", "ignore", "pipe"],
        env: ENV,
      });
      const log = new Lines();
      void log.read(child.stderr);
      const silent: Bun.Socket[] = [];
      try {
        await log.next(/ready/);
        using client = await RawClient.connect(`unix:${dir.path}/pmilter.sock`);
        expect(await client.ask(OPTNEG, packet("U", "LEAK\0"))).toBe("Oc");
        await log.next(patternsOf("no-descriptors")[0]!);
        const starved = await statusIn(dir.path);
        expect(starved).toMatchObject({ health: "degraded", problems: [expect.stringContaining("descriptors")] });
        // They connect, and say nothing: as many as the queue takes. For whom no descriptor is left is ended at once.
        for (let count = 0; count < 6; count++) {
          const socket = await Bun.connect({
            unix: controlOf(join(dir.path, "pmilter.toml")),
            socket: { data() {} },
          }).catch(() => null);
          if (socket !== null) silent.push(socket);
        }
        await Bun.sleep(500);
        const before = cpuMs(child.pid);
        await Bun.sleep(1000);
        expect(cpuMs(child.pid) - before).toBeLessThan(300);
        expect(await client.ask(packet("U", "FREE\0"))).toBe("c");
        await log.next(patternsOf("no-descriptors")[1]!);
        expect(await statusIn(dir.path)).toMatchObject({ health: "ok" });
      } finally {
        for (const socket of silent) socket.terminate();
        child.kill("SIGKILL");
        await child.exited;
      }
    },
  );
});

/** A server whose standard output and standard error are pipes that the test reads when it wants to. */
async function startUnread(dir: TempDir, members: string) {
  const configFile = await writeProject(dir.path, {
    server: { workers: 2, stop_timeout: 0.1, log_format: "text" },
    config: USE_FILTER,
    files: { "filter.ts": filter(members) },
  });
  const out = new Fifo(dir.path, "out");
  const err = new Fifo(dir.path, "err");
  const child = Bun.spawn([process.execPath, MAIN, "-c", configFile], {
    stdio: ["ignore", out.writeFd, err.writeFd],
    env: ENV,
  });
  let said = "";
  await waitFor(() => (said += err.read()).includes("ready"), { what: "the server" });
  return {
    address: `unix:${dir.path}/pmilter.sock`,
    out,
    err,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
      out[Symbol.dispose]();
      err[Symbol.dispose]();
    },
  };
}

test("log-reader-stalls: nobody waits for it, what is dropped is counted, and said when it reads again", async () => {
  await using dir = await tempDir("unread");
  await using server = await startUnread(
    dir,
    `unknown(session, line) { if (line === "LOUD") { console.log("x".repeat(2000)); throw new Error(session.client.hostname.repeat(20)); } }, connect() {}`,
  );
  using bystander = await RawClient.connect(server.address);
  using loud = await RawClient.connect(server.address);
  expect(await bystander.ask(OPTNEG, CONNECT)).toBe("Oc");
  expect(await loud.ask(OPTNEG, CONNECT)).toBe("Oc");
  const count = 30_000;
  await loud.send(Buffer.concat(Array.from({ length: count }, () => packet("U", "LOUD\0"))));
  const replies = loud.codes(count);
  for (let done = false; !done;) {
    expect(await bystander.ask(UNKNOWN)).toBe("c");
    done = await Promise.race([replies.then(() => true), Bun.sleep(20).then(() => false)]);
  }
  expect(await replies).toBe("c".repeat(count));
  const { counters, residentBytes } = await statusIn(dir.path);
  expect(counters).toMatchObject({ errors: count });
  expect(counters.linesDropped).toBeGreaterThan(1000);
  expect(residentBytes).toBeLessThan(400 * 2 ** 20);
  const [ofLog, ofPrints] = patternsOf("log-reader-stalls") as [RegExp, RegExp];
  const until = async (pipe: Fifo, pattern: RegExp) => {
    const line = new RegExp(pattern.source, "m");
    // Megabytes were waiting: each line is looked at once.
    let rest = "";
    const found = await waitFor(
      () => {
        const text = rest + pipe.read();
        rest = text.slice(text.lastIndexOf("\n") + 1);
        return line.exec(text)?.[0];
      },
      { what: String(pattern) },
    );
    return Number(/(\d+) (?:\w+ )?lines .*were dropped/.exec(found)![1]);
  };
  expect(await until(server.err, ofLog)).toBeGreaterThan(0);
  expect(await until(server.out, ofPrints)).toBeGreaterThan(0);
});

test("log-reader-gone: the mail goes on, and whoever reads next is told of what was lost", async () => {
  await using dir = await tempDir("gone");
  await using server = await startUnread(
    dir,
    `unknown() { console.log("said"); throw new Error("no"); }, connect() {}`,
  );
  server.err.closeReader();
  server.out.closeReader();
  using client = await RawClient.connect(server.address);
  expect(await client.ask(OPTNEG, CONNECT)).toBe("Oc");
  for (let round = 0; round < 50; round++) expect(await client.ask(UNKNOWN)).toBe("c");
  // Counted once the write has failed, which nobody waits for.
  await waitFor(async () => (await statusIn(dir.path)).counters.linesDropped === 100, { what: "the count" });
  expect((await statusIn(dir.path)).counters).toMatchObject({ errors: 50 });
  using reader = server.err.reopen();
  expect(await client.ask(UNKNOWN)).toBe("c");
  let text = "";
  const [pattern] = patternsOf("log-reader-gone") as [RegExp];
  await waitFor(() => new RegExp(pattern.source, "m").test((text += reader.read())), { what: "the count" });
  expect(text).toMatch(/handler failed: .*\n.*: 50 log lines were dropped/);
});
