/** Where the running server listens, whom it admits, and how many at once. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { lstatSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { givenIpv6, givenRoot, IS_LINUX } from "../support/available.ts";
import { close, dup } from "../../src/net/libc.ts";
import { runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { CONNECT, MAIL, OPTNEG, QUIT, RawClient, UNKNOWN } from "./wire.ts";

setDefaultTimeout(120_000);

const IS_ROOT = givenRoot("the owner of the socket");
const HAS_IPV6 = givenIpv6();

const config = '[[filter]]\npath = "filter.ts"\n';
const files = {
  "filter.ts": 'import { defineFilter } from "pmilter";\nexport default defineFilter({ unknown() {} });\n',
};
const QUICK = { workers: 2, stop_timeout: 0.1 };

/** A listening TCP socket as a parent passes it on, and its address. */
function inheritable(): { fd: number; address: string } & Disposable {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } }) as Bun.TCPSocketListener & {
    readonly fd: number;
  };
  const fd = dup(listener.fd);
  const address = `inet:127.0.0.1:${listener.port}`;
  listener.stop();
  return { fd, address, [Symbol.dispose]: () => close(fd) };
}

async function isServed(address: string): Promise<boolean> {
  using client = await RawClient.connect(address);
  return (await client.ask(OPTNEG, UNKNOWN)) === "Oc";
}

describe("server.listen", () => {
  test.skipIf(!HAS_IPV6)("several at once: unix, inet, inet6 and an inherited descriptor", async () => {
    using inherited = inheritable();
    await using server = await startPmilter({
      listen: ["unix:a.sock", "./b.sock", "inet:127.0.0.1:0", "inet6:[::1]:0", "fd:3"],
      inherit: [inherited.fd],
      server: QUICK,
      config,
      files,
    });
    const [a, b, v4, v6, fd] = server.addresses;
    expect([a, b, fd]).toEqual([`unix:${server.dir}/a.sock`, `unix:${server.dir}/b.sock`, "fd:3"]);
    expect(v4).toMatch(/^inet:127\.0\.0\.1:[1-9]\d*$/);
    expect(v6).toMatch(/^inet6:\[::1\]:[1-9]\d*$/);
    const served = [a!, b!, v4!, v6!, inherited.address].map(isServed);
    expect(await Promise.all(served)).toEqual([true, true, true, true, true]);
    expect(await server.stop()).toBe(0);
  });

  test("fd:3 alone, as systemd's socket activation passes it", async () => {
    using inherited = inheritable();
    // The client is there before the server.
    using client = await RawClient.connect(inherited.address);
    await using server = await startPmilter({
      listen: "fd:3",
      inherit: [inherited.fd],
      env: { LISTEN_FDS: "1" },
      server: QUICK,
      config,
      files,
    });
    expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oc");
    client.end();
    expect(await server.stop()).toBe(0);
    // The socket is the parent's: it goes on listening.
    using next = await RawClient.connect(inherited.address);
    expect(next.isEnded).toBe(false);
  });

  test("a unix socket has the mode of socket_mode", async () => {
    await using server = await startPmilter({ server: { ...QUICK, socket_mode: "0620" } });
    expect(lstatSync(join(server.dir, "pmilter.sock")).mode & 0o7777).toBe(0o620);
  });

  test.skipIf(!IS_ROOT)("a unix socket has the owner of socket_user and socket_group", async () => {
    await using server = await startPmilter({ server: { ...QUICK, socket_user: "nobody", socket_group: "12345" } });
    const { uid, gid } = lstatSync(join(server.dir, "pmilter.sock"));
    expect([uid, gid]).toEqual([65534, 12345]);
  });

  test("a stale socket, left by a server that was killed, is replaced", async () => {
    await using killed = await startPmilter({ server: QUICK, config, files });
    killed.process.kill("SIGKILL");
    await killed.process.exited;
    const path = join(killed.dir, "pmilter.sock");
    expect(lstatSync(path).isSocket()).toBe(true);
    await using server = await startPmilter({ listen: `unix:${path}`, server: QUICK, config, files });
    expect(await isServed(server.addresses[0]!)).toBe(true);
  });

  test.each(["unix:pmilter.sock", "inet:127.0.0.1:0"])("a live server keeps %s", async (listen) => {
    await using first = await startPmilter({ listen, server: QUICK, config, files });
    await using dir = await tempDir("second");
    const configFile = await writeProject(dir.path, { listen: first.addresses[0]! });
    const { exitCode, stderr } = await runPmilter(["-c", configFile]);
    expect(exitCode).toBe(1);
    expect(stderr.trimEnd().split("\n").at(-1)).toMatch(
      listen.startsWith("unix")
        ? /^pmilter: cannot listen at unix:.*another server answers/
        : /^pmilter: cannot listen at inet:.*port \d+ is taken/,
    );
    expect(await isServed(first.addresses[0]!)).toBe(true);
  });

  test("the second of two addresses taken: the first is given up, and its file goes", async () => {
    await using first = await startPmilter({ listen: "inet:127.0.0.1:0", server: QUICK });
    await using dir = await tempDir("second");
    const configFile = await writeProject(dir.path, { listen: ["unix:own.sock", first.addresses[0]!] });
    expect((await runPmilter(["-c", configFile])).exitCode).toBe(1);
    expect(lstatSync(join(dir.path, "own.sock"), { throwIfNoEntry: false })).toBeUndefined();
  });

  test("a descriptor that is not inherited is a clear error", async () => {
    await using dir = await tempDir("fd");
    const configFile = await writeProject(dir.path, { listen: "fd:37" });
    const { exitCode, stderr } = await runPmilter(["-c", configFile]);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/pmilter: cannot listen at fd:37: .*expected a listening socket/);
  });
});

describe("server.max_connections", () => {
  test.skipIf(!IS_LINUX)("not set: as many as the limit of open files leaves room for, said at info", async () => {
    await using server = await startPmilter({
      server: { ...QUICK, log_level: "info" },
      config,
      files,
      descriptors: 220,
    });
    expect(server.log.text).toContain(
      "[info]: server.max_connections is 10: the limit of open files is 220 and each takes two",
    );
    expect(server.log.text).not.toMatch(/\[warn\].*max_connections/);
    expect(await server.stop()).toBe(0);
  });

  test.each(["unix:pmilter.sock", "inet:127.0.0.1:0"])(
    "too-many: %s: the sixth waits, and is served when one ends",
    async (listen) => {
      await using server = await startPmilter({ listen, server: { ...QUICK, max_connections: 5 }, config, files });
      const five = await Promise.all(Array.from({ length: 5 }, () => RawClient.connect(server.addresses[0]!)));
      const served = await Promise.all(five.map((client) => client.ask(OPTNEG)));
      expect(served.join("")).toBe("OOOOO");
      using sixth = await RawClient.connect(server.addresses[0]!);
      await sixth.send(OPTNEG, UNKNOWN);
      // The others are answered all the same, and often enough for the sixth to be if it were taken.
      for (let round = 0; round < 20; round++) for (const client of five) expect(await client.ask(UNKNOWN)).toBe("c");
      expect(sixth.replies).toEqual([]);
      await server.log.next(/\[warn\]: 5 connections \(server\.max_connections\): further ones wait/);

      await five[0]!.send(QUIT);
      expect(await sixth.codes(2)).toBe("Oc");
      for (const client of five) client.end();
      await Promise.all(five.map((client) => client.ended()));
    },
  );

  test("a burst: never more than that at once, and each is served in the end", async () => {
    await using server = await startPmilter({
      server: { ...QUICK, max_connections: 5 },
      config,
      files: {
        "filter.ts": `import { defineFilter } from "pmilter";
const tell = (what) => console.log(performance.timeOrigin + performance.now(), what);
export default defineFilter({
  connect() { tell("open"); },
  async envfrom() { await Bun.sleep(5); },
  close() { tell("close"); },
});
`,
      },
    });
    await Promise.all(
      Array.from({ length: 60 }, async () => {
        using client = await RawClient.connect(server.addresses[0]!);
        await client.send(OPTNEG, CONNECT, MAIL);
        expect(await client.codes(3)).toBe("Occ");
        await client.send(QUIT);
        await client.ended();
      }),
    );
    await server.stop();
    let open = 0;
    let most = 0;
    // Two workers print: what is read is not in the order in which it was said.
    const events = server.prints.all.map((line) => line.split(" ")).toSorted(([a], [b]) => Number(a) - Number(b));
    for (const [, event] of events) most = Math.max(most, (open += event === "open" ? 1 : -1));
    expect(server.prints.all).toHaveLength(120);
    expect(open).toBe(0);
    expect(most).toBeLessThanOrEqual(5);
  });
});

describe("server.allow", () => {
  const options = {
    server: { ...QUICK, allow: ["127.0.0.2", "192.0.2.0/24"] },
    listen: "inet:127.0.0.1:0",
    config,
    files,
  };

  /** A client that comes from an address of its own: what it got, up to the end or the second reply. */
  function from(localAddress: string, address: string): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const socket = connect({ host: "127.0.0.1", port: Number(address.split(":").at(-1)), localAddress });
    let got = Buffer.alloc(0);
    socket.on("connect", () => socket.write(Buffer.concat([OPTNEG, UNKNOWN])));
    socket.on("data", (chunk: Buffer) => {
      got = Buffer.concat([got, chunk]);
      if (got.at(-1) === "c".charCodeAt(0)) socket.destroy();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => (error.code === "ECONNRESET" ? undefined : reject(error)));
    socket.on("close", () => resolve(got.length === 0 ? "refused" : "served"));
    return promise;
  }

  test("admits the listed, refuses others with one line in the log", async () => {
    await using server = await startPmilter(options);
    expect(await from("127.0.0.1", server.addresses[0]!)).toBe("refused");
    expect(await from("127.0.0.2", server.addresses[0]!)).toBe("served");
    expect(await from("127.0.0.3", server.addresses[0]!)).toBe("refused");
    // The line is written before the connection ends, and read from a pipe of its own.
    await server.log.next(/127\.0\.0\.3:\d+: not in server\.allow/);
    const lines = server.log.all.filter((line) => line.includes("server.allow"));
    expect(lines).toEqual([
      expect.stringMatching(/\[warn\]: inet:127\.0\.0\.1:\d+: not in server\.allow, connection refused$/),
      expect.stringMatching(/\[warn\]: inet:127\.0\.0\.3:\d+: not in server\.allow, connection refused$/),
    ]);
  });

  test("an empty list admits no one by TCP, and everyone by unix socket", async () => {
    await using server = await startPmilter({
      ...options,
      listen: ["inet:127.0.0.1:0", "unix:pmilter.sock"],
      server: { ...QUICK, allow: [] },
    });
    expect(await from("127.0.0.1", server.addresses[0]!)).toBe("refused");
    expect(await isServed(server.addresses[1]!)).toBe(true);
  });

  test.skipIf(!HAS_IPV6)("knows IPv6", async () => {
    await using server = await startPmilter({
      ...options,
      listen: ["inet:127.0.0.1:0", "inet6:[::1]:0"],
      server: { ...QUICK, allow: ["::1"] },
    });
    expect(await from("127.0.0.1", server.addresses[0]!)).toBe("refused");
    expect(await isServed(server.addresses[1]!)).toBe(true);
  });

  test("it holds for an inherited TCP socket, too", async () => {
    using inherited = inheritable();
    await using server = await startPmilter({ ...options, listen: "fd:3", inherit: [inherited.fd] });
    expect(server.addresses).toEqual(["fd:3"]);
    expect(await from("127.0.0.1", inherited.address)).toBe("refused");
    expect(await from("127.0.0.2", inherited.address)).toBe("served");
  });
});
