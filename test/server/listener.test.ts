/** The listener binds, hands over, pauses, and cleans up after itself, and never after others. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { givenIpv6, givenRoot, IS_LINUX } from "../support/available.ts";
import type { ListenAddress } from "../../src/config/address.ts";
import { close, connectUnix, dup, MAX_UNIX_PATH_BYTES, listen as setBacklog, shutdown } from "../../src/net/libc.ts";
import { ListenError } from "../../src/server/listening/listen-error.ts";
import {
  type Accepted,
  openListener,
  type Listener,
  type ListenerOptions,
} from "../../src/server/listening/listener.ts";
import { Cleanup, openDescriptors, Peer, recorder, turn } from "./sockets.ts";

setDefaultTimeout(120_000);

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const IS_ROOT = givenRoot("what is owned by somebody else");
const HAS_IPV6 = givenIpv6();

const LOCAL: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 0, family: 4 };
const LISTENER_MODULE = JSON.stringify(join(import.meta.dir, "../../src/server/listening/listener.ts"));

const LIBC_MODULE = JSON.stringify(join(import.meta.dir, "../../src/net/libc.ts"));

function unix(path: string): ListenAddress {
  return { kind: "unix", path };
}

/** A listener that keeps what it accepts. */
async function open(address: ListenAddress, options: Partial<ListenerOptions> = {}) {
  const accepted = recorder<Accepted>();
  const errors = recorder<Error>();
  const listener = await openListener(address, {
    mode: 0o660,
    uid: null,
    gid: null,
    backlog: 128,
    onConnection: accepted.add,
    onError: errors.add,
    ...options,
  });
  cleanup.add(() => {
    listener.close({ unlink: true });
    for (const { fd } of accepted.calls) close(fd);
  });
  return { listener, accepted, errors };
}

/** What a worker does with a duplicate: adopt it and send back what comes. */
async function serveEcho({ fd }: Accepted): Promise<Bun.Socket> {
  const connect = Bun.connect as unknown as (options: object) => Promise<Bun.Socket>;
  const adopted = await connect({
    fd: dup(fd),
    socket: { data: (self: Bun.Socket, chunk: Uint8Array) => void self.write(chunk), close() {}, error() {} },
  });
  cleanup.add(() => adopted.terminate());
  return adopted;
}

async function failure(address: ListenAddress, options: Partial<ListenerOptions> = {}): Promise<ListenError> {
  const error = await open(address, options).then(
    () => new Error("it listened"),
    (error: unknown) => error,
  );
  if (!(error instanceof ListenError)) throw error;
  expect(error.code).toBe("PMILTER_ERR_LISTEN");
  return error;
}

/** Leaves a socket behind that nobody listens on. */
async function makeStale(path: string): Promise<void> {
  const { listener } = await open(unix(path));
  listener.close({ unlink: false });
}

describe("unix", () => {
  test("listen accepts, and close removes the socket and nothing else is left", async () => {
    const folder = cleanup.folder();
    const path = join(folder, "s");
    const { listener, accepted } = await open(unix(path));
    expect(listener.address).toEqual(unix(path));
    expect(readdirSync(folder)).toEqual(["s"]);
    await Peer.connect(unix(path), cleanup);
    await accepted.count(1);
    listener.close({ unlink: true });
    listener.close({ unlink: true });
    expect(readdirSync(folder)).toEqual([]);
  });

  test("close without unlink leaves the file", async () => {
    const path = join(cleanup.folder(), "s");
    const { listener } = await open(unix(path));
    listener.close({ unlink: false });
    expect(lstatSync(path).isSocket()).toBe(true);
  });

  test.if(IS_ROOT && IS_LINUX)("listen sets mode and owner before the socket is at its path", async () => {
    const folder = cleanup.folder();
    chmodSync(folder, 0o755);
    const path = join(folder, "s");
    // Another process notes each state that it sees from the moment that the path exists.
    const watcher = Bun.spawn({
      cmd: [
        process.execPath,
        "-e",
        `import { lstatSync, readdirSync } from "node:fs"; const seen = new Set(); let ended = false;
         process.stdin.on("data", () => { ended = true; }); console.log("ready");
         const look = () => {
           for (let i = 0; i < 200; i++) {
             const s = lstatSync(${JSON.stringify(path)}, { throwIfNoEntry: false });
             if (s) seen.add([(s.mode & 0o7777).toString(8), s.uid, s.gid].join(" "));
           }
           if (ended) { console.log(JSON.stringify([...seen])); process.exit(); }
           setImmediate(look);
         };
         look();`,
      ],
      stdin: "pipe",
      stdout: "pipe",
    });
    cleanup.add(() => watcher.kill());
    const lines = watcher.stdout.pipeThrough(new TextDecoderStream()).getReader();
    expect((await lines.read()).value).toBe("ready\n");
    for (let i = 0; i < 200; i++) {
      const { listener } = await open(unix(path), { mode: 0o660, uid: 4711, gid: 4712 });
      listener.close({ unlink: true });
    }
    await open(unix(path), { mode: 0o660, uid: 4711, gid: 4712 });
    watcher.stdin.write("end");
    watcher.stdin.end();
    expect(JSON.parse((await lines.read()).value ?? "")).toEqual(["660 4711 4712"]);
  });

  test.if(IS_ROOT && IS_LINUX)("another user cannot connect before the mode allows it", async () => {
    const folder = cleanup.folder();
    chmodSync(folder, 0o755);
    const path = join(folder, "s");
    await open(unix(path), { mode: 0o600 });
    const probe = (): string =>
      Bun.spawnSync([
        process.execPath,
        "-e",
        `const { connectUnix } = await import(${JSON.stringify(join(import.meta.dir, "../../src/net/libc.ts"))});
         process.setgroups([]); process.setgid(4712); process.setuid(4711);
         try { connectUnix(${JSON.stringify(path)}); console.log("connected"); } catch (e) { console.log(e.code); }`,
      ])
        .stdout.toString()
        .trim();
    expect(probe()).toBe("EACCES");
    chmodSync(path, 0o666);
    expect(probe()).toBe("connected");
  });

  test("listen replaces a stale socket", async () => {
    const path = join(cleanup.folder(), "s");
    await makeStale(path);
    const { ino } = lstatSync(path);
    const { accepted } = await open(unix(path));
    expect(lstatSync(path).ino).not.toBe(ino);
    await Peer.connect(unix(path), cleanup);
    await accepted.count(1);
  });

  test("listen leaves a live server alone", async () => {
    const folder = cleanup.folder();
    const path = join(folder, "s");
    const { accepted } = await open(unix(path));
    const { message } = await failure(unix(path));
    expect(message).toBe(`cannot listen at unix:${path}: another server answers at ${path}`);
    await Peer.connect(unix(path), cleanup);
    await accepted.count(2);
    expect(readdirSync(folder)).toEqual(["s"]);
  });

  test.if(IS_LINUX)("listen leaves a server alone whose queue is full", async () => {
    const path = join(cleanup.folder(), "s");
    const { listener } = await open(unix(path), { backlog: 1 });
    listener.pause();
    for (let i = 0; i < 2; i++) {
      const fd = connectUnix(path);
      cleanup.add(() => close(fd));
    }
    expect(() => connectUnix(path)).toThrow("EAGAIN");
    expect((await failure(unix(path))).message).toContain("another server answers");
  });

  test("listen never replaces what is not a socket", async () => {
    const folder = cleanup.folder();
    const path = join(folder, "f");
    writeFileSync(path, "precious");
    expect((await failure(unix(path))).message).toContain(`${path} is a file, not a socket`);
    expect(readFileSync(path, "utf8")).toBe("precious");
    mkdirSync(join(folder, "d"));
    expect((await failure(unix(join(folder, "d")))).message).toContain("is a folder, not a socket");
    symlinkSync("nowhere", join(folder, "l"));
    expect((await failure(unix(join(folder, "l")))).message).toContain("is a symbolic link, not a socket");
    expect(readdirSync(folder).toSorted()).toEqual(["d", "f", "l"]);
  });

  test("listen takes the longest path that a socket address holds, and names the limit beyond it", async () => {
    const folder = cleanup.folder();
    const longest = join(folder, "x".repeat(MAX_UNIX_PATH_BYTES - folder.length - 1));
    const { accepted } = await open(unix(longest));
    await Peer.connect(unix(longest), cleanup);
    await accepted.count(1);
    expect((await failure(unix(`${longest}x`))).message).toContain(
      `it needs ${MAX_UNIX_PATH_BYTES + 1} bytes, expected at most ${MAX_UNIX_PATH_BYTES}`,
    );
  });

  test.if(IS_LINUX)("listen needs no room beside a long folder for its temporary name", async () => {
    const folder = join(cleanup.folder(), "d".repeat(40), "e".repeat(30));
    const deep = join(folder, "f".repeat(MAX_UNIX_PATH_BYTES - folder.length - 3));
    mkdirSync(deep, { recursive: true });
    await open(unix(join(deep, "s")));
    expect(readdirSync(deep)).toEqual(["s"]);
  });

  test("listen names the folder that is missing", async () => {
    const folder = join(cleanup.folder(), "none");
    const { message, cause } = await failure(unix(join(folder, "s")));
    expect(message).toContain(`the folder ${folder} does not exist`);
    expect(cause).toMatchObject({ code: "ENOENT" });
  });

  test.if(IS_ROOT)("listen names the folder that may not be written", async () => {
    const folder = cleanup.folder();
    chmodSync(folder, 0o755);
    const { stdout } = Bun.spawnSync([
      process.execPath,
      "-e",
      `const { openListener } = await import(${LISTENER_MODULE});
       process.setgroups([]); process.setgid(4712); process.setuid(4711);
       await openListener({ kind: "unix", path: ${JSON.stringify(join(folder, "s"))} }, { mode: 0o660, uid: null, gid: null, backlog: 1 })
         .catch((e) => console.log(e.code, e.message));`,
    ]);
    expect(stdout.toString()).toContain(
      `PMILTER_ERR_LISTEN cannot listen at unix:${join(folder, "s")}: no permission to make files in the folder ${folder} as uid 4711`,
    );
  });

  test.if(IS_ROOT)("listen leaves nothing behind when the owner cannot be set", async () => {
    const folder = cleanup.folder();
    chmodSync(folder, 0o777);
    const { stdout } = Bun.spawnSync([
      process.execPath,
      "-e",
      `const { openListener } = await import(${LISTENER_MODULE});
       process.setgroups([]); process.setgid(4712); process.setuid(4711);
       await openListener({ kind: "unix", path: ${JSON.stringify(join(folder, "s"))} }, { mode: 0o660, uid: null, gid: 5555, backlog: 1 })
         .catch((e) => console.log(e.message));`,
    ]);
    expect(stdout.toString()).toContain("no permission to give the socket to group 5555");
    expect(readdirSync(folder)).toEqual([]);
  });

  test("close leaves a socket that another server has put at the path", async () => {
    const folder = cleanup.folder();
    const path = join(folder, "s");
    const { listener } = await open(unix(path));
    unlinkSync(path);
    await open(unix(path));
    listener.close({ unlink: true });
    expect(existsSync(path)).toBe(true);
  });

  test("close removes only the path, not another name of the same socket", async () => {
    const folder = cleanup.folder();
    const path = join(folder, "s");
    const { listener } = await open(unix(path));
    linkSync(path, join(folder, "alias"));
    renameSync(path, join(folder, "moved"));
    listener.close({ unlink: true });
    expect(readdirSync(folder).toSorted()).toEqual(["alias", "moved"]);
  });
});

describe("tcp", () => {
  async function servesTcp(address: ListenAddress & { kind: "tcp" }): Promise<Listener> {
    const { listener, accepted } = await open(address);
    if (listener.address.kind !== "tcp") throw new Error("not tcp");
    expect(listener.address.port).toBeGreaterThan(0);
    const client = await Peer.connect(
      { ...listener.address, host: address.family === 4 ? "127.0.0.1" : "::1" },
      cleanup,
    );
    const [socket] = await accepted.count(1);
    expect(socket).toMatchObject({
      remoteAddress: address.family === 4 ? "127.0.0.1" : "::1",
      remotePort: client.socket.localPort,
    });
    return listener;
  }

  test("listen at an IPv4 address gives the real port and the client's address", async () => {
    await servesTcp({ kind: "tcp", host: "127.0.0.1", port: 0, family: 4 });
  });

  test("listen at a name uses the address of the wanted family", async () => {
    await servesTcp({ kind: "tcp", host: "localhost", port: 0, family: 4 });
  });

  test.if(HAS_IPV6)("listen at :: takes IPv6 only, so that 0.0.0.0 may have the same port", async () => {
    const { address } = await servesTcp({ kind: "tcp", host: "::", port: 0, family: 6 });
    if (address.kind !== "tcp") throw new Error("not tcp");
    await open({ kind: "tcp", host: "0.0.0.0", port: address.port, family: 4 });
  });

  test("listen says that the port is taken", async () => {
    const { listener } = await open(LOCAL);
    const { message, cause } = await failure(listener.address);
    expect(message).toContain("is taken: another server listens there");
    expect(cause).toMatchObject({ code: "EADDRINUSE" });
  });

  test("listen says that the address is not this machine's", async () => {
    // RFC 5737: an address for documentation, which no machine has.
    const { message } = await failure({ kind: "tcp", host: "192.0.2.1", port: 0, family: 4 });
    expect(message).toContain("192.0.2.1 is not an address of this machine");
  });

  test("listen says that an address is of the other family", async () => {
    const { message } = await failure({ kind: "tcp", host: "127.0.0.1", port: 0, family: 6 });
    expect(message).toContain("127.0.0.1 has no IPv6 address");
  });

  test.if(IS_LINUX)("listen says that no descriptors are left", () => {
    const { stdout } = Bun.spawnSync([
      "sh",
      "-c",
      'ulimit -n 64; exec "$0" "$@"',
      process.execPath,
      "-e",
      `import { openSync, writeSync } from "node:fs";
       const { openListener } = await import(${LISTENER_MODULE});
       await openListener({ kind: "tcp", host: "127.0.0.1", port: 0, family: 4 }, { backlog: 1 }).then((l) => l.close({ unlink: true }));
       try { for (;;) openSync("/dev/null", "r"); } catch {}
       await openListener({ kind: "tcp", host: "127.0.0.1", port: 0, family: 4 }, { backlog: 1 }).catch((e) => writeSync(1, e.message));`,
    ]);
    expect(stdout.toString()).toContain("no file descriptors are left; expected a higher limit of open files");
  });

  test.if(IS_ROOT && IS_LINUX)("listen says that the port needs permission", async () => {
    if (Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8")) <= 1) {
      console.log("skipped: here every user may bind any port");
      return;
    }
    const { stdout } = Bun.spawnSync([
      process.execPath,
      "-e",
      `const { openListener } = await import(${LISTENER_MODULE});
       process.setgroups([]); process.setgid(4712); process.setuid(4711);
       await openListener({ kind: "tcp", host: "127.0.0.1", port: 1, family: 4 }, { backlog: 1 }).catch((e) => console.log(e.message));`,
    ]);
    expect(stdout.toString()).toContain("no permission for port 1; ports below 1024 need root");
  });
});

describe("fd", () => {
  test("listen takes a listening descriptor and leaves the original open", async () => {
    const inherited = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const fd = dup((inherited as unknown as { fd: number }).fd);
    const { port } = inherited;
    inherited.stop();
    cleanup.add(() => close(fd));
    const { listener, accepted } = await open({ kind: "fd", fd });
    expect(listener.address).toEqual({ kind: "fd", fd });
    const client = await Peer.connect({ kind: "tcp", host: "127.0.0.1", port, family: 4 }, cleanup);
    await accepted.count(1);
    client.socket.terminate();
    listener.close({ unlink: true });
    setBacklog(fd, 1);
  });

  test("listen takes a descriptor that a process was started with", async () => {
    const parent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = parent;
    cleanup.add(() => parent.stop());
    const child = Bun.spawn({
      cmd: [
        process.execPath,
        "-e",
        `import { openListener } from ${LISTENER_MODULE};
         import { close, send } from ${LIBC_MODULE};
         await openListener({ kind: "fd", fd: 3 }, { backlog: 8, onConnection({ fd }) { send(fd, Buffer.from("hello")); close(fd); }, onError: console.error });
         console.log("ready");`,
      ],
      stdio: ["ignore", "pipe", "inherit", (parent as unknown as { fd: number }).fd],
    });
    cleanup.add(() => child.kill());
    expect(new TextDecoder().decode((await child.stdout.getReader().read()).value)).toBe("ready\n");
    parent.stop();
    const client = await Peer.connect({ kind: "tcp", host: "127.0.0.1", port, family: 4 }, cleanup);
    await client.until(({ received }) => received.toString() === "hello");
  });

  test("listen refuses what is no listening socket", async () => {
    expect((await failure({ kind: "fd", fd: 1_000_000 })).message).toContain("no such descriptor is open");
    const { accepted, listener } = await open(LOCAL);
    await Peer.connect(listener.address, cleanup);
    const [socket] = await accepted.count(1);
    if (socket === undefined) throw new Error("no connection");
    expect((await failure({ kind: "fd", fd: socket.fd })).message).toContain("it is a socket that does not listen");
  });
});

describe("connections", () => {
  const addresses: [string, () => ListenAddress][] = [
    ["tcp", () => LOCAL],
    ["unix", () => unix(join(cleanup.folder(), "s"))],
  ];

  test.each(addresses)(
    "%s: a duplicate gets every byte, and shutdown ends it for both sides at once",
    async (_, address) => {
      const { listener, accepted } = await open(address());
      const client = await Peer.connect(listener.address, cleanup);
      client.socket.write("early");
      const [held] = await accepted.count(1);
      if (held === undefined) throw new Error("no connection");
      const adopted = await serveEcho(held);
      await client.until(({ received }) => received.toString() === "early");
      shutdown(held.fd, "both");
      adopted.end();
      await client.ended();
    },
  );

  test.each(addresses)("%s: clients that connect while paused are served after resume", async (_, address) => {
    const { listener, accepted } = await open(address());
    const { address: real } = listener;
    const first = await Peer.connect(real, cleanup);
    await accepted.count(1);
    listener.pause();
    listener.pause();
    const clients = await Promise.all(Array.from({ length: 20 }, () => Peer.connect(real, cleanup)));
    for (const client of clients) client.socket.write("hello");
    for (let i = 0; i < 5; i++) await turn();
    expect(accepted.calls).toHaveLength(1);
    listener.resume();
    listener.resume();
    const sockets = await accepted.count(21);
    await Promise.all(sockets.map(serveEcho));
    await Promise.all(clients.map((client) => client.until(({ received }) => received.toString() === "hello")));
    first.socket.write("still here");
    await first.until(({ received }) => received.toString() === "still here");
  });

  test.if(IS_LINUX)("the backlog is the one asked for, again after resume", async () => {
    const path = join(cleanup.folder(), "s");
    const { listener } = await open(unix(path), { backlog: 3 });
    listener.pause();
    listener.resume();
    let queued = 0;
    try {
      // Synchronous, so that nothing is accepted meanwhile.
      for (; queued < 100; queued++) {
        const fd = connectUnix(path);
        cleanup.add(() => close(fd));
      }
    } catch {}
    // Linux admits one more than the backlog says.
    expect(queued).toBe(4);
  });

  test("an exception in onConnection ends that connection, also for a duplicate, and the next is served", async () => {
    let calls = 0;
    let duplicate: number | undefined;
    const served = recorder<Accepted>();
    const { listener, errors } = await open(LOCAL, {
      onConnection(accepted) {
        if (calls++ === 0) {
          duplicate = dup(accepted.fd);
          throw new Error("no worker");
        }
        served.add(accepted);
      },
    });
    cleanup.add(() => duplicate !== undefined && close(duplicate));
    const refused = await Peer.connect(listener.address, cleanup);
    await refused.ended();
    expect((await errors.count(1)).map(({ message }) => message)).toEqual(["no worker"]);
    await Peer.connect(listener.address, cleanup);
    const [{ fd } = { fd: -1 }] = await served.count(1);
    close(fd);
  });

  test.if(IS_LINUX)("2,000 connections leave no descriptor", async () => {
    const before = openDescriptors();
    const { listener } = await open(LOCAL, {
      onConnection({ fd }) {
        shutdown(fd, "both");
        close(fd);
      },
    });
    for (let done = 0; done < 2000; done += 100) {
      const clients = await Promise.all(Array.from({ length: 100 }, () => Peer.connect(listener.address, cleanup)));
      await Promise.all(clients.map((client) => client.ended()));
      for (const client of clients) client.socket.terminate();
      if (done % 500 === 0) {
        listener.pause();
        listener.resume();
      }
    }
    listener.close({ unlink: true });
    // The last sockets are closed at the end of the loop's turn.
    while (openDescriptors() > before) await turn();
    // A program that a test before has started may be gone only now.
    expect(openDescriptors()).toBeLessThanOrEqual(before);
  });

  test.if(IS_LINUX)("a failed listen leaves no descriptor", async () => {
    const folder = cleanup.folder();
    writeFileSync(join(folder, "f"), "");
    const { listener } = await open(unix(join(folder, "live")));
    await failure(listener.address);
    const before = openDescriptors();
    for (let i = 0; i < 20; i++) {
      await failure(unix(join(folder, "f")));
      await failure(unix(join(folder, "none", "s")));
    }
    expect(openDescriptors()).toBe(before);
  });
});
