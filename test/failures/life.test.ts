/** docs/failures.md, "Stopping and starting": open messages are finished, what is cut is said, and no live socket is taken. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, lstatSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { askReload, save, untilMoved, versioned } from "../reload/support.ts";
import { CONNECT, EOM, HELO, MAIL, OPTNEG, QUIT, RawClient, RCPT, UNKNOWN } from "../server/wire.ts";
import { MAIN, Lines, startPmilter } from "../support/pmilter.ts";
import { freePort } from "../support/temp.ts";
import { complaints, expectCounters, expectLogged, expectLoggedTimes, start, statusIn, USE_FILTER } from "./support.ts";

setDefaultTimeout(120_000);

const FILTER = 'unknown() {}, envfrom() {}, envrcpt() {}, eom({ message }) { message.addHeader("X-Seen", "1"); }';

/** A server once more with the configuration of one that was there before. */
async function again(dir: string): Promise<{ exitCode: number | null; log: Lines; stop(): Promise<void> }> {
  const child = Bun.spawn([process.execPath, MAIN, "-c", join(dir, "pmilter.toml")], {
    cwd: dir,
    env: { ...process.env, XDG_RUNTIME_DIR: "" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const log = new Lines();
  void log.read(child.stderr);
  await log.next(/ready|^pmilter: /);
  const isReady = /ready/.test(log.text);
  return {
    exitCode: isReady ? null : await child.exited,
    log,
    async stop() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

test("stop: the message is finished on the connection", async () => {
  await using server = await start(FILTER, { server: { stop_timeout: 20 } });
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, CONNECT, HELO, MAIL)).toBe("Occc");
  server.process.kill("SIGTERM");
  await expectLogged(server, "stop");
  expect(await client.ask(RCPT)).toBe("c");
  await client.send(EOM);
  expect(await client.codes(2)).toBe("hc");
  await client.send(QUIT);
  expect(await server.process.exited).toBe(0);
  await server.log.next(/: stopped$/);
  expect(server.log.text).not.toContain("cut");
});

test("stop-timeout: what is left is cut, and counted in the log", async () => {
  await using server = await start(FILTER, { server: { stop_timeout: 0.2 } });
  using inMessage = await RawClient.connect(server.addresses[0]!);
  using idle = await RawClient.connect(server.addresses[0]!);
  expect(await inMessage.ask(OPTNEG, CONNECT, MAIL)).toBe("Occ");
  await idle.ask(OPTNEG);
  server.process.kill("SIGTERM");
  await Promise.all([inMessage.ended(), idle.ended()]);
  const [line] = await expectLogged(server, "stop-timeout");
  expect(line).toContain("2 sessions");
  expect(await server.process.exited).toBe(0);
});

test("second-signal: ends at once", async () => {
  await using server = await start(FILTER, { server: { stop_timeout: 1000 } });
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OPTNEG, CONNECT, MAIL);
  server.process.kill("SIGTERM");
  await server.log.next(/stopping/);
  expect(client.isEnded).toBe(false);
  // Within half a second it would be the same Ctrl-C, heard twice: there is no event to wait for.
  await Bun.sleep(600);
  server.process.kill("SIGTERM");
  await client.ended();
  await expectLogged(server, "second-signal");
  expect(await server.process.exited).toBe(0);
});

test("drain: a session between messages moves to the new code, one in a message when that is over", async () => {
  await using server = await startPmilter({
    config: USE_FILTER,
    server: { workers: 1, stop_timeout: 0.1, drain_timeout: 0.3, log_level: "info", watch: false },
    files: { "filter.ts": versioned("v1") },
  });
  using idle = await RawClient.connect(server.addresses[0]!);
  using inMessage = await RawClient.connect(server.addresses[0]!);
  expect(await idle.ask(OPTNEG, CONNECT, HELO)).toBe("Occ");
  expect(await inMessage.ask(OPTNEG, CONNECT, HELO, MAIL)).toBe("Occc");
  await save(server, "filter.ts", versioned("v2"));
  await askReload(server);
  await untilMoved(idle, "v2");
  await inMessage.send(EOM);
  expect((await inMessage.reply()).payload.toString()).toBe("X-Version\0 v1\0");
  expect(await inMessage.codes(1)).toBe("c");
  await untilMoved(inMessage, "v2");
  await expectLogged(server, "drain");
  expect([idle.isEnded, inMessage.isEnded]).toEqual([false, false]);
  await expectCounters(server, { sessionsLost: 0 });
});

test("stale-socket: the next start replaces the socket", async () => {
  await using server = await start(FILTER);
  const path = join(server.dir, "pmilter.sock");
  server.process.kill("SIGKILL");
  await server.process.exited;
  const { ino } = lstatSync(path);
  const next = await again(server.dir);
  try {
    expect(lstatSync(path).ino).not.toBe(ino);
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oc");
    expect(complaints(next).filter((line) => /sock|control/.test(line))).toEqual([]);
  } finally {
    await next.stop();
  }
});

test("stale-socket: a TCP port, with connections of the killed process on it", async () => {
  const listen = `inet:127.0.0.1:${await freePort()}`;
  await using server = await start(FILTER, { listen });
  using client = await RawClient.connect(listen);
  expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Occ");
  server.process.kill("SIGKILL");
  await server.process.exited;
  const next = await again(server.dir);
  try {
    expect(next.exitCode).toBeNull();
    using other = await RawClient.connect(listen);
    expect(await other.ask(OPTNEG, UNKNOWN)).toBe("Oc");
  } finally {
    await next.stop();
  }
});

test("live-socket: a second server ends, and the first one keeps serving", async () => {
  await using server = await start(FILTER);
  const path = join(server.dir, "pmilter.sock");
  const { ino } = lstatSync(path);
  const second = await again(server.dir);
  expect(second.exitCode).toBe(1);
  await expectLogged(second, "live-socket");
  expect(lstatSync(path).ino).toBe(ino);
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oc");
  await expectCounters(server, { connectionsRefused: 0 });
});

test("live-socket: three servers started at once on what a killed one left: one serves and can be asked, the others end", async () => {
  await using server = await start(FILTER);
  server.process.kill("SIGKILL");
  await server.process.exited;
  const servers = await Promise.all([again(server.dir), again(server.dir), again(server.dir)]);
  try {
    const failed = servers.filter(({ exitCode }) => exitCode !== null);
    expect(failed.map(({ exitCode }) => exitCode)).toEqual([1, 1]);
    for (const each of failed) await expectLogged(each, "live-socket");
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oc");
    await expectCounters(server, { connectionsRefused: 0 });
  } finally {
    await Promise.all(servers.map((each) => each.stop()));
  }
});

test.each([
  ["removed", (path: string) => unlinkSync(path)],
  ["replaced", (path: string) => renameSync(`${path}.other`, path)],
])("socket-gone: the socket file is %s: said once, and what is not its own is left", async (how, change) => {
  await using server = await start(FILTER);
  const path = join(server.dir, "pmilter.sock");
  writeFileSync(`${path}.other`, "");
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG)).toBe("O");
  change(path);
  await expectLogged(server, "socket-gone");
  const { health, problems } = await statusIn(server.dir);
  expect({ health, problems }).toEqual({
    health: "degraded",
    problems: [`no mail server finds it at unix:${path}: the socket file was removed or replaced`],
  });
  expect(await client.ask(UNKNOWN)).toBe("c");
  await client.send(QUIT);
  expect(await server.stop()).toBe(0);
  await expectLoggedTimes(server, "socket-gone", 1);
  expect(existsSync(path)).toBe(how === "replaced");
});

test("stop-fails: a stop() or master_exit_handler that fails is logged, and the exit code is 0", async () => {
  await using server = await start('unknown() {}, stop() { throw new Error("untidy"); }', {
    config: `[handler.config]\nmaster_exit_handler = "exit.ts"\n${USE_FILTER}`,
    files: { "exit.ts": 'export default () => { throw new Error("no goodbye"); };\n' },
  });
  expect(await server.stop()).toBe(0);
  const lines = await expectLogged(server, "stop-fails");
  expect(lines[0]).toMatch(/filter\.ts:2.*untidy/);
  expect(lines[1]).toMatch(/exit\.ts:1.*no goodbye/);
});
