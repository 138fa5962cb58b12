/** What can be wrong with the system, at the start and while the server runs: rows of docs/failures.md. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { constants } from "node:fs";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { OPTNEG, RawClient } from "../server/wire.ts";
import { connect, expectCodes, helo, mail, unknown } from "../recovery/support.ts";
import { Lines, MAIN, type PmilterOptions, writeProject } from "../support/pmilter.ts";
import { startPmilter } from "../support/pmilter.ts";
import { tempDir, waitFor } from "../support/temp.ts";
import { expectLogged, statusIn } from "./support.ts";

setDefaultTimeout(120_000);

/** A start that is expected to fail. */
async function fails(options: PmilterOptions, expected: RegExp): Promise<void> {
  await using dir = await tempDir("fails");
  const configFile = await writeProject(dir.path, options);
  const child = Bun.spawn([process.execPath, MAIN, "-c", configFile], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, XDG_RUNTIME_DIR: "" },
  });
  const [text, exitCode] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  expect(text.split("\n").findLast((line) => line.startsWith("pmilter: "))).toMatch(expected);
  expect(text).not.toMatch(/^\s+at /m);
  expect(exitCode).toBe(1);
}

describe("a server that cannot start says why, and exits with 1", () => {
  test("port-taken: another server listens there", async () => {
    using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    await fails(
      { listen: `inet:127.0.0.1:${taken.port}` },
      new RegExp(`cannot listen at inet:127\\.0\\.0\\.1:${taken.port}: port ${taken.port} is taken`),
    );
  });

  test("no-folder: the folder of the socket is missing, or is no folder", async () => {
    await fails({ listen: "unix:missing/pmilter.sock" }, /cannot listen at .*missing.*no such folder|missing/);
    await fails({ listen: "unix:pmilter.toml/pmilter.sock" }, /cannot listen at .*pmilter\.toml/);
  });

  test("no-permission: the socket's owner or its group does not exist", async () => {
    await fails({ server: { socket_group: "nogroupofthatname" } }, /nogroupofthatname/);
    await fails({ server: { user: "nobodyofthatname" } }, /nobodyofthatname/);
  });

  test("broken-config: a wrong value, with file, line and column", async () => {
    await fails({ server: { workers: "many" } }, /pmilter\.toml:\d+:\d+: server\.workers: expected .*, got "many"/);
  });
});

const FILTER = {
  config: '[[filter]]\npath = "filter.ts"\n',
  files: {
    "filter.ts": "export default { unknown() { console.log('said'); }, envfrom() { throw new Error('no'); } };\n",
  },
};

test("control-not-writable: the mail is served, and the log says that nobody can ask", async () => {
  await using server = await startPmilter({ ...FILTER, server: { control: "missing/pmilter.ctl" } });
  expect(server.log.text).toMatch(/\[warn\]: server\.control: .*pmilter status and reload cannot reach this server/);
  using session = await RawClient.connect(server.addresses[0]!);
  expectCodes(await session.ask(OPTNEG, unknown("WHO")), "Oc");
});

test.each([
  ["log-disk-full", "both on a full disk", "/dev/full"],
  ["log-closed", "both closed by whoever started it", null],
] as const)("%s: standard output and error, %s: the mail goes on", async (_, __, path) => {
  await using dir = await tempDir("output");
  const configFile = await writeProject(dir.path, { ...FILTER, server: { workers: 1, log_level: "info" } });
  const to = path === null ? ">&- 2>&-" : `>${path} 2>${path}`;
  const child = Bun.spawn(["sh", "-c", `exec "$0" "$@" ${to}`, process.execPath, MAIN, "-c", configFile], {
    stdio: ["ignore", "ignore", "ignore"],
    env: { ...process.env, XDG_RUNTIME_DIR: "" },
  });
  try {
    const address = `unix:${join(dir.path, "pmilter.sock")}`;
    await waitFor(
      () =>
        Bun.file(join(dir.path, "pmilter.sock"))
          .stat()
          .then(
            () => true,
            () => false,
          ),
      { what: "the socket" },
    );
    using session = await RawClient.connect(address);
    expectCodes(await session.ask(OPTNEG, connect(), helo()), "Occ");
    for (let round = 0; round < 50; round++) expectCodes(await session.ask(unknown("WHO"), mail()), "ct");
    expect(child.exitCode).toBeNull();
    const { counters } = await statusIn(dir.path);
    // Where there is no room each line is lost; in place of what is closed the runtime opens /dev/null.
    expect(counters.linesDropped > 100).toBe(path !== null);
  } finally {
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  }
});

test("live-socket: a second server does not take the socket of one that runs", async () => {
  await using server = await startPmilter(FILTER);
  await using dir = await tempDir("second");
  const configFile = await writeProject(dir.path, { ...FILTER, listen: server.addresses[0]! });
  const child = Bun.spawn([process.execPath, MAIN, "-c", configFile], { stdio: ["ignore", "ignore", "pipe"] });
  const [text, exitCode] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  expect(exitCode).toBe(1);
  expect(text).toMatch(/cannot listen at .*pmilter\.sock/);
  using session = await RawClient.connect(server.addresses[0]!);
  expectCodes(await session.ask(OPTNEG, unknown("WHO")), "Oc");
});

test("stale-socket: after SIGKILL the next start takes the socket that is left", async () => {
  await using dir = await tempDir("stale");
  const listen = `unix:${join(dir.path, "mail", "pmilter.sock")}`;
  await mkdir(join(dir.path, "mail"));
  await using first = await startPmilter({ ...FILTER, listen });
  first.process.kill("SIGKILL");
  await first.process.exited;
  await using second = await startPmilter({ ...FILTER, listen });
  using session = await RawClient.connect(second.addresses[0]!);
  expectCodes(await session.ask(OPTNEG, unknown("WHO")), "Oc");
});

test("no-second-start: the server serves, and says what its log lacks", async () => {
  await using dir = await tempDir("gone");
  const configFile = await writeProject(dir.path, FILTER);
  const bun = join(dir.path, "bun");
  await copyFile(process.execPath, bun, constants.COPYFILE_FICLONE);
  const gone = join(dir.path, "gone.ts");
  await writeFile(gone, 'import { unlinkSync } from "node:fs";\nunlinkSync(process.execPath);\n');
  const child = Bun.spawn([bun, "--preload", gone, MAIN, "-c", configFile], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, XDG_RUNTIME_DIR: "" },
  });
  try {
    const log = new Lines();
    void log.read(child.stderr);
    await log.next(/ready: listening/);
    const [line] = await expectLogged({ log }, "no-second-start");
    expect(line).toContain("ENOENT");
    using session = await RawClient.connect(`unix:${dir.path}/pmilter.sock`);
    expectCodes(await session.ask(OPTNEG, unknown("WHO")), "Oc");
  } finally {
    child.kill("SIGTERM");
    await child.exited;
  }
});
