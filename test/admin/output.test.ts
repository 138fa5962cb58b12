/** Output never blocks its thread: a bounded queue, a count of what was dropped, and a server whose output nobody reads. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Output } from "../../src/admin/output.ts";
import { OPTNEG, RawClient, UNKNOWN } from "../server/wire.ts";
import { MAIN, writeProject } from "../support/pmilter.ts";
import { type TempDir, tempDir, waitFor } from "../support/temp.ts";
import { Fifo } from "./fifo.ts";

setDefaultTimeout(120_000);

const dropped = (lines: number) => `dropped ${lines}\n`;

function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `line ${String(index).padStart(6, "0")}\n`);
}

describe("Output", () => {
  test("writes lines whole and in order, however many", async () => {
    await using dir = await tempDir("output");
    const file = join(dir.path, "log");
    const fd = openSync(file, "w");
    const output = new Output(fd, dropped);
    const lines = numbered(20_000);
    for (const line of lines) output.push(line);
    await output.flush(5000);
    closeSync(fd);
    expect(readFileSync(file, "utf8")).toBe(lines.join(""));
  });

  test("flush settles at once when nothing waits, and again after a later push", async () => {
    await using dir = await tempDir("output");
    const fd = openSync(join(dir.path, "log"), "w");
    const output = new Output(fd, dropped);
    await output.flush(0);
    output.push("x\n");
    await Promise.all([output.flush(5000), output.flush(5000)]);
    expect(readFileSync(join(dir.path, "log"), "utf8")).toBe("x\n");
    closeSync(fd);
  });

  test.each([true, false])(
    "a reader that stalls (non-blocking: %p): bounded, dropped lines counted",
    async (nonBlocking) => {
      await using dir = await tempDir("output");
      using fifo = new Fifo(dir.path, "pipe", { nonBlocking });
      const bound = 100_000;
      const output = new Output(fifo.writeFd, dropped, bound);
      const lines = numbered(100_000);
      // Nobody reads yet, and pushing does not wait for it.
      for (const line of lines) output.push(line);
      const late = performance.now();
      await output.flush(50);
      expect(performance.now() - late).toBeGreaterThanOrEqual(45);

      const text = await fifo.readUntil(output.flush(10_000));
      const read = text.split("\n");
      expect(read.pop()).toBe("");
      const count = Number(/^dropped (\d+)$/.exec(read.pop()!)![1]);
      expect(read).toEqual(lines.slice(0, read.length).map((line) => line.trimEnd()));
      expect(read.length + count).toBe(lines.length);
      // One batch under way and one that waits.
      expect(text.length).toBeLessThan(2 * bound + 100);

      // It has recovered, and counts anew.
      output.push("after\n");
      expect(await fifo.readUntil(output.flush(10_000))).toBe("after\n");
    },
  );

  test("the bound is in bytes: a line larger than it is dropped, and counted", async () => {
    await using dir = await tempDir("output");
    const fd = openSync(join(dir.path, "log"), "w");
    const output = new Output(fd, dropped, 100);
    output.push(`${"x".repeat(100)}\n`);
    output.push("y\n");
    await output.flush(5000);
    closeSync(fd);
    expect(readFileSync(join(dir.path, "log"), "utf8").split("\n").sort()).toEqual(["", "dropped 1", "y"]);
  });

  test("lines that cannot be written are counted, and the count is told once they can", async () => {
    await using dir = await tempDir("output");
    using fifo = new Fifo(dir.path, "pipe");
    const output = new Output(fifo.writeFd, dropped);
    fifo.closeReader();
    output.push("lost\n");
    await output.flush(5000);
    output.push("lost\nlost\n");
    output.push("lost\n");
    await output.flush(5000);
    expect(output.dropped).toBe(4);
    using reader = fifo.reopen();
    output.push("seen\n");
    expect(await reader.readUntil(output.flush(5000))).toBe("seen\ndropped 4\n");
    output.push("seen\n");
    expect(await reader.readUntil(output.flush(5000))).toBe("seen\n");
    expect(output.dropped).toBe(4);
  });

  test("a line that was cut by a failure ends before the next begins", async () => {
    await using dir = await tempDir("output");
    using fifo = new Fifo(dir.path, "pipe");
    const output = new Output(fifo.writeFd, dropped);
    // Much more than a pipe holds, in one write: a part of it is taken, then nobody is there.
    output.push(numbered(200_000).join(""));
    const early = await waitFor(() => fifo.read(1), { what: "the beginning of the write" });
    fifo.closeReader();
    await output.flush(5000);
    expect(output.dropped).toBeGreaterThan(0);
    using reader = fifo.reopen();
    output.push("seen\n");
    const text = early + (await reader.readUntil(output.flush(5000)));
    // Some systems drop what is in a pipe with its last reader.
    expect(text).toMatch(/(?:^l|\n)seen\ndropped \d+\n$/);
    expect(text).toEndWith(`dropped ${output.dropped}\n`);
  });

  test("a reader that is gone ends nothing", async () => {
    await using dir = await tempDir("output");
    using fifo = new Fifo(dir.path, "pipe");
    const output = new Output(fifo.writeFd, dropped);
    fifo.closeReader();
    output.push("nobody hears this\n");
    await output.flush(5000);
    output.push("nor this\n");
    // It waits for nobody: a test has less time than this.
    await output.flush(600_000);
  });
});

interface Stalled extends AsyncDisposable {
  readonly address: string;
  readonly out: Fifo;
  readonly err: Fifo;
  readonly process: Bun.Subprocess;
}

/** A server whose standard output and standard error nobody reads. */
async function startStalled(dir: TempDir, server: Record<string, unknown>, handler: string): Promise<Stalled> {
  const configFile = await writeProject(dir.path, {
    server: { workers: 2, stop_timeout: 0.2, ...server },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: {
      "filter.ts": `import { readFile } from "node:fs/promises";\nimport { defineFilter, reject } from "pmilter";\nexport default defineFilter({ ${handler} });\n`,
    },
  });
  const out = new Fifo(dir.path, "out");
  const err = new Fifo(dir.path, "err");
  const child = Bun.spawn([process.execPath, MAIN, "-c", configFile], { stdio: ["ignore", out.writeFd, err.writeFd] });
  let said = "";
  await waitFor(() => (said += err.read()).includes("ready"), { what: "the server" });
  return {
    address: `unix:${join(dir.path, "pmilter.sock")}`,
    out,
    err,
    process: child,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
      out[Symbol.dispose]();
      err[Symbol.dispose]();
    },
  };
}

/** Asks often enough to fill every pipe and queue with what is printed or logged: `rounds` times `batch` packets. */
async function fill(address: string, rounds: number, batch = 1): Promise<void> {
  const clients = await Promise.all([0, 1, 2, 3].map(() => RawClient.connect(address)));
  await Promise.all(
    clients.map(async (client) => {
      expect(await client.ask(OPTNEG)).toBe("O");
      const packets = Array.from({ length: batch }, () => UNKNOWN);
      for (let round = 0; round < rounds; round++) expect(await client.ask(...packets)).toBe("c".repeat(batch));
      client.end();
      await client.ended();
    }),
  );
}

describe("log-reader-stalls: a server whose output nobody reads", () => {
  test("goes on serving while handlers print a lot, and says how much was dropped", async () => {
    await using dir = await tempDir("stalled");
    await using server = await startStalled(
      dir,
      {},
      `unknown() { for (let i = 0; i < 100; i++) console.log(i, "x".repeat(1000)); }`,
    );
    await fill(server.address, 60);
    using client = await RawClient.connect(server.address);
    expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oc");
    // A reader comes: what was kept, and the count of the rest.
    let text = "";
    await waitFor(() => /^pmilter: \d+ printed lines were dropped/m.test((text += server.out.read())), {
      what: "the count",
    });
    const kept = text.split("\n").filter((line) => /^\d+ x{1000}$/.test(line)).length;
    const count = [...text.matchAll(/^pmilter: (\d+) printed lines/gm)].reduce(
      (sum, match) => sum + Number(match[1]),
      0,
    );
    expect(kept + count).toBe(4 * 60 * 100 + 100);
  });

  test("its handlers can still use files, and it loads code and ends", async () => {
    await using dir = await tempDir("stalled");
    await using server = await startStalled(
      dir,
      { debug: 1, log_level: "debug" },
      `async unknown() { for (let i = 0; i < 100; i++) console.log(i, "x".repeat(1000)); if ((await readFile(import.meta.path)).length < 10) return reject(); }`,
    );
    await fill(server.address, 60);
    server.process.kill("SIGTERM");
    await waitFor(() => server.process.exitCode !== null, { what: "the end of the server" });
    expect(server.process.exitCode).toBe(0);
  });

  test("log_format = json: the line that tells of dropped ones is JSON, too", async () => {
    await using dir = await tempDir("stalled");
    await using server = await startStalled(dir, { debug: 1, log_level: "debug", log_format: "json" }, "unknown() {}");
    await fill(server.address, 24, 500);
    let text = "";
    await waitFor(() => /dropped/.test((text += server.err.read())), { what: "the count" });
    const lines = text.slice(0, text.lastIndexOf("\n")).split("\n");
    expect(lines.filter((line) => !line.startsWith("{"))).toEqual([]);
    for (const line of lines) JSON.parse(line);
  });
});
