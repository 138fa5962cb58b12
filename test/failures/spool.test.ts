/** Large bodies whose folder cannot take them, and what is left of bodies that come to no end: rows of docs/failures.md. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { givenTrial, isRoot } from "../support/available.ts";
import { type Pmilter, type PmilterOptions, startPmilter } from "../support/pmilter.ts";
import { TEMP, tempDir, waitFor } from "../support/temp.ts";
import { begin, EOM, mail, packet, rcpt, statusOf } from "../recovery/support.ts";
import { ABORT, DATA, EOH, HEADER, OPTNEG_DEFER, type RawClient } from "../server/wire.ts";
import { expectLogged } from "./support.ts";
import { sendBodies } from "../../soak/bodies.ts";

setDefaultTimeout(120_000);

/** Two filters: the one wants the body or fails, the other does without. Both add what they saw. */
const FILES = {
  "wants.ts": `import { closeSync, openSync } from "node:fs";
import { defineFilter } from "pmilter";
const hoard: number[] = [];
export default defineFilter({
  name: "wants",
  collectBody: true,
  envfrom({ message }) {
    const [word] = message.sender.address.split("@");
    if (word === "loop") for (;;);
    if (word === "hoard") try { for (;;) hoard.push(openSync("/dev/null")); } catch { return; }
    if (word === "free") for (const fd of hoard.splice(0)) closeSync(fd);
  },
  eom({ message }) { message.addHeader("X-Wants", String(message.body().length)); },
});
`,
  "skips.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  name: "skips",
  collectBody: { over: "skip" },
  eom({ message }) { message.addHeader("X-Skips", String(message.body()?.length ?? null)); },
});
`,
};
const WANTS = `[[filter]]\npath = "wants.ts"\n`;
const SKIPS = `[[filter]]\npath = "skips.ts"\n`;
const CHUNK = packet("B", Buffer.alloc(65_000, "x"));
const LARGE = 40;
const SMALL = 3;

/** A small disk with hardly any room. */
class FullDisk implements Disposable {
  readonly folder: string;
  readonly #ballast: string;

  constructor(dir: string) {
    this.folder = join(dir, "disk");
    this.#ballast = join(this.folder, "ballast");
    mkdirSync(this.folder);
    run("mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", this.folder);
    writeFileSync(this.#ballast, Buffer.alloc(3 * 1024 * 1024));
  }

  makeRoom(): void {
    rmSync(this.#ballast);
  }

  [Symbol.dispose](): void {
    run("umount", "-l", this.folder);
  }
}

/** A disk that can be made to wait: whoever writes to it meanwhile, waits in the kernel. */
class FreezableDisk implements Disposable {
  readonly folder: string;

  constructor(dir: string) {
    const image = join(dir, "image");
    this.folder = join(dir, "disk");
    mkdirSync(this.folder);
    run("truncate", "-s", "64M", image);
    run("mkfs.ext4", "-q", image);
    run("mount", "-o", "loop", image, this.folder);
  }

  freeze(): Disposable {
    run("fsfreeze", "-f", this.folder);
    let isFrozen = true;
    return {
      [Symbol.dispose]: () => {
        if (isFrozen) run("fsfreeze", "-u", this.folder);
        isFrozen = false;
      },
    };
  }

  [Symbol.dispose](): void {
    run("umount", "-l", this.folder);
  }
}

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr.toString()}`);
}

/** @throws Error this machine does not let root mount such a disk */
function tryOut(Disk: new (dir: string) => Disposable): void {
  const dir = mkdtempSync(join(TEMP, "pmilter-disk-"));
  try {
    using _disk = new Disk(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** Sends a message of so many chunks; gives its headers and the code of its reply. */
async function message(session: RawClient, chunks: number): Promise<[headers: string, code: string]> {
  await session.ask(mail(), rcpt(), DATA, HEADER, EOH);
  for (let chunk = 0; chunk < chunks; chunk++) await session.send(CHUNK);
  await session.send(EOM);
  let headers = "";
  for (;;) {
    const { code, payload } = await session.reply();
    if (code === "h") headers += payload.toString("latin1").replaceAll("\0", "");
    else if (code !== "p") return [headers, code];
  }
}

const start = (spool: string, config: string, server: PmilterOptions["server"] = {}) =>
  startPmilter({ server: { workers: 1, spool, on_error: "reject", ...server }, config, files: FILES });

/** What is true wherever the spool does not take a body. */
async function expectFallback(spool: string, why: string, options: PmilterOptions["server"] = {}): Promise<void> {
  {
    await using server = await start(spool, WANTS, options);
    using session = await begin(server, { offer: OPTNEG_DEFER });
    expect(await message(session, LARGE)).toEqual(["", "r"]);
    const line = await server.log.next(/body not collected: /);
    expect(line).toMatch(new RegExp(`\\[error\\].*filter=wants.*the spool in ${spool}: .*${why}.*fallback=reject`));
    // Small ones are in memory.
    expect(await message(session, SMALL)).toEqual(["X-Wants 195000", "c"]);
    expect((await statusOf(server)).counters).toMatchObject({
      spoolFailures: 1,
      fallbacks: 1,
      rejected: 1,
      accepted: 1,
    });
  }
  await using server = await start(spool, SKIPS, options);
  using session = await begin(server, { offer: OPTNEG_DEFER });
  expect(await message(session, LARGE)).toEqual(["X-Skips null", "c"]);
  expect(await server.log.next(/body not collected: /)).toMatch(/\[error\].*filter=skips.*the spool in /);
  expect((await statusOf(server)).counters).toMatchObject({ spoolFailures: 1, fallbacks: 0, accepted: 1 });
}

test("spool-gone: the folder is not there", async () => {
  await using dir = await tempDir("spool");
  await expectFallback(join(dir.path, "gone"), "ENOENT");
});

test("spool-gone: the folder cannot be written", async () => {
  await using dir = await tempDir("spool");
  const folder = join(dir.path, "spool");
  mkdirSync(folder);
  chmodSync(folder, 0o555);
  // Root may write anywhere.
  await expectFallback(folder, "EACCES", isRoot ? { user: "nobody" } : {});
});

test("spool-gone: no descriptor is left for the first body", async () => {
  await using dir = await tempDir("spool");
  await using server = await startPmilter({
    server: { workers: 1, spool: dir.path, on_error: "reject" },
    config: WANTS,
    files: FILES,
    descriptors: 300,
  });
  using session = await begin(server, { offer: OPTNEG_DEFER });
  // More than once: the server itself opens some for a moment, to see whether there are any.
  for (let round = 0; round < 20; round++) {
    await session.ask(mail("<hoard@example.com>"), rcpt());
    await session.send(ABORT);
  }
  await server.log.next(/no file descriptors are left/);
  expect(await message(session, LARGE)).toEqual(["", "r"]);
  expect(await server.log.next(/body not collected: /)).toMatch(/\[error\].*filter=wants.*fallback=reject/);
  expect(await message(session, SMALL)).toEqual(["X-Wants 195000", "c"]);
  await session.ask(mail("<free@example.com>"), rcpt());
  await session.send(ABORT);
  await waitFor(async () => (await message(session, LARGE))[1] === "c", { what: "a body to be collected" });
  expect((await statusOf(server)).counters).toMatchObject({ blocked: 0, workersDied: 0 });
});

test.skipIf(!givenTrial("a disk that is full", () => tryOut(FullDisk)))(
  "spool-full: the disk is full; once there is room bodies are collected again",
  async () => {
    await using dir = await tempDir("spool");
    using disk = new FullDisk(dir.path);
    await expectFallback(disk.folder, "ENOSPC");
    await using server = await start(disk.folder, WANTS);
    using session = await begin(server, { offer: OPTNEG_DEFER });
    expect((await message(session, LARGE))[1]).toBe("r");
    disk.makeRoom();
    expect(await message(session, LARGE)).toEqual(["X-Wants 2600000", "c"]);
    expect(readdirSync(disk.folder)).toEqual([]);
  },
);

/** A promise that is awaited later: if the test ends before, its rejection must not end the file before the disk is thawed. */
function answered<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

test.skipIf(!givenTrial("a disk that writes nothing", () => tryOut(FreezableDisk)))(
  "spool-slow: other messages go on; a message passes if the disk was only slow, else it gets the fallback",
  async () => {
    await using dir = await tempDir("spool");
    using disk = new FreezableDisk(dir.path);
    await using server = await start(disk.folder, WANTS, { block_timeout: 1, handler_timeout: 6 });
    using large = await begin(server, { offer: OPTNEG_DEFER });
    using other = await begin(server, { offer: OPTNEG_DEFER });
    {
      using frozen = disk.freeze();
      const slow = answered(message(large, LARGE));
      for (let round = 0; round < 5; round++) expect(await message(other, SMALL)).toEqual(["X-Wants 195000", "c"]);
      expect(await Promise.race([slow, "waits"])).toBe("waits");
      frozen[Symbol.dispose]();
      expect(await slow).toEqual(["X-Wants 2600000", "c"]);
    }
    {
      using _frozen = disk.freeze();
      const stuck = answered(message(large, LARGE));
      expect(await message(other, SMALL)).toEqual(["X-Wants 195000", "c"]);
      expect(await stuck).toEqual(["", "r"]);
      const [line] = await expectLogged(server, "spool-slow");
      expect(line).toMatch(/filter=wants .*nothing was written for 6 s.* fallback=reject/);
      expect(await message(other, SMALL)).toEqual(["X-Wants 195000", "c"]);
    }
    expect(await message(large, LARGE)).toEqual(["X-Wants 2600000", "c"]);
    expect(server.log.text).not.toMatch(/did not return|another is started/);
    expect((await statusOf(server)).counters).toMatchObject({
      spoolFailures: 1,
      fallbacks: 1,
      blocked: 0,
      workersDied: 0,
    });
    await waitFor(async () => (await held(server, disk.folder)) === 0, { what: "nothing to be held" });
  },
);

/** Descriptors and mappings of files in a folder. */
async function held(server: Pmilter, folder: string): Promise<number> {
  const { pid } = server.process;
  const open = readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith(folder);
    } catch {
      // Closed since.
      return false;
    }
  });
  const maps = await Bun.file(`/proc/${pid}/maps`).text();
  return open.length + maps.split("\n").filter((line) => line.includes(folder)).length;
}

test("spool-left: bodies that come to no end leave no descriptor, no mapping and no file", async () => {
  await using dir = await tempDir("spool");
  await using server = await startPmilter({
    server: { workers: 1, spool: dir.path, block_timeout: 0.5 },
    config: WANTS,
    files: FILES,
  });
  const half = async (session: RawClient) => {
    await session.ask(mail(), rcpt(), DATA, HEADER, EOH);
    for (let chunk = 0; chunk < LARGE; chunk++) await session.send(CHUNK);
    await waitFor(async () => (await held(server, dir.path)) > 0, { what: "the body to be in the spool" });
  };
  const none = () => waitFor(async () => (await held(server, dir.path)) === 0, { what: "nothing to be held" });

  // Several messages in one connection, the second aborted, and a connection that goes in the middle of one.
  using session = await begin(server, { offer: OPTNEG_DEFER });
  expect(await message(session, LARGE)).toEqual(["X-Wants 2600000", "c"]);
  await none();
  await half(session);
  await session.send(ABORT);
  await none();
  expect(await message(session, LARGE)).toEqual(["X-Wants 2600000", "c"]);
  {
    using gone = await begin(server, { offer: OPTNEG_DEFER });
    await half(gone);
  }
  await none();

  // The worker is lost to another message. The session goes on in the next worker.
  await half(session);
  using killer = await begin(server);
  await killer.send(mail("<loop@example.com>"));
  await server.log.next(/is stuck|did not return|another is started/);
  await none();
  await session.send(EOM);
  expect((await session.reply()).code).toBe("t");
  expect(await message(session, LARGE)).toEqual(["X-Wants 2600000", "c"]);
  await none();
  expect(readdirSync(dir.path)).toEqual([]);
});

test("spool-many: many large bodies at once are all collected, in little memory", async () => {
  const result = await sendBodies({ connections: 20, megabytes: 5, workers: 2 });
  expect(result).toMatchObject({ replies: { c: 20 }, fallbacks: 0, workersLost: 0, complaints: [] });
  expect(result.bodyBytes).toBeGreaterThan(20 * 5 * 1024 * 1024 - 1);
  // Bodies in memory would be 100 MB more than a server with nothing to do has.
  expect(result.anonymousBytes - result.idleBytes).toBeLessThan(80 * 1024 * 1024);
});
