/** Large bodies whose folder cannot take them, and what is left of bodies that come to no end: rows of docs/failures.md. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { givenRoot } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { tempDir, waitFor } from "../support/temp.ts";
import { begin, EOM, mail, packet, rcpt, statusOf } from "../recovery/support.ts";
import { ABORT, DATA, EOH, HEADER, OPTNEG_DEFER, type RawClient } from "../server/wire.ts";
import { sendBodies } from "../../soak/bodies.ts";

setDefaultTimeout(120_000);

/** Two filters: the one wants the body or fails, the other does without. Both add what they saw. */
const FILES = {
  "wants.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  name: "wants",
  collectBody: true,
  envfrom({ message }) { if (message.sender.address.startsWith("loop")) for (;;); },
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

const start = (spool: string, config: string) =>
  startPmilter({ server: { workers: 1, spool, on_error: "reject" }, config, files: FILES });

/** What is true wherever the spool does not take a body. */
async function expectFallback(spool: string, why: string): Promise<void> {
  {
    await using server = await start(spool, WANTS);
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
  await using server = await start(spool, SKIPS);
  using session = await begin(server, { offer: OPTNEG_DEFER });
  expect(await message(session, LARGE)).toEqual(["X-Skips null", "c"]);
  expect(await server.log.next(/body not collected: /)).toMatch(/\[error\].*filter=skips.*the spool in /);
  expect((await statusOf(server)).counters).toMatchObject({ spoolFailures: 1, fallbacks: 0, accepted: 1 });
}

test("spool-gone: the folder is not there", async () => {
  await using dir = await tempDir("spool");
  await expectFallback(join(dir.path, "gone"), "ENOENT");
});

test.skipIf(!givenRoot("a disk that is full"))(
  "spool-full: the disk is full; once there is room bodies are collected again",
  async () => {
    await using dir = await tempDir("spool");
    const disk = join(dir.path, "disk");
    mkdirSync(disk);
    Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", disk]);
    try {
      await Bun.write(join(disk, "ballast"), Buffer.alloc(3 * 1024 * 1024));
      await expectFallback(disk, "ENOSPC");
      await using server = await start(disk, WANTS);
      using session = await begin(server, { offer: OPTNEG_DEFER });
      expect((await message(session, LARGE))[1]).toBe("r");
      rmSync(join(disk, "ballast"));
      expect(await message(session, LARGE)).toEqual(["X-Wants 2600000", "c"]);
      expect(readdirSync(disk)).toEqual([]);
    } finally {
      Bun.spawnSync(["umount", "-l", disk]);
    }
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
