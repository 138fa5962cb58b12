/**
 * What the server leans on and Bun does not promise. One test per fact: if one fails under a later Bun, read what it
 * says and look for the code that believes it.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { existsSync, mkdirSync, realpathSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Worker as NodeWorker } from "node:worker_threads";
import { IS_LINUX } from "../support/available.ts";
import { close, connectUnix, dup, listen as setBacklog, shutdown } from "../../src/net/libc.ts";
import { Cleanup, Peer, recorder, turn } from "./sockets.ts";

setDefaultTimeout(120_000);

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

type Socket = Bun.Socket & { readonly fd: number };
type BoundListener = { readonly fd: number; readonly port: number; stop(force?: boolean): void };
const bunListen = Bun.listen as unknown as (options: object) => BoundListener;

/** A listener as the main thread has it: what it accepts is paused at once. */
function listenPaused(where: object) {
  const accepted = recorder<Socket>();
  const events = recorder<string>();
  const listener = bunListen({
    ...where,
    socket: {
      open(socket: Socket) {
        socket.pause();
        accepted.add(socket);
      },
      data: () => events.add("data"),
      end: () => events.add("end"),
      close: () => events.add("close"),
      error: () => events.add("error"),
      // No `drain` here: Bun calls it once for each socket that is paused in `open`, see below.
    },
  });
  cleanup.add(() => listener.stop(true));
  return { listener, accepted, events };
}

const KINDS = ["tcp", "unix"] as const;

/** A client, the main thread's paused copy, and a second copy as a worker adopts it. */
async function heldTwice(kind: (typeof KINDS)[number]) {
  const path = join(cleanup.folder(), "s");
  const { listener, accepted, events } = listenPaused(
    kind === "unix" ? { unix: path } : { hostname: "127.0.0.1", port: 0 },
  );
  const client = await Peer.connect(
    kind === "unix" ? { kind, path } : { kind, host: "127.0.0.1", port: listener.port, family: 4 },
    cleanup,
  );
  const [held] = await accepted.count(1);
  if (held === undefined) throw new Error("no connection");
  const adopted = await Peer.connect({ kind: "adopt", fd: dup(held.fd) }, cleanup);
  return { client, held, adopted, events };
}

/** Connects without ever waiting; how many the queue took. */
function fillQueue(path: string, most: number): number {
  for (let n = 0; n < most; n++) {
    try {
      const fd = connectUnix(path);
      cleanup.add(() => close(fd));
    } catch {
      return n;
    }
  }
  return most;
}

describe("listening", () => {
  test.if(IS_LINUX)("Bun.listen ignores backlog, and libc's listen sets it", () => {
    const path = join(cleanup.folder(), "s");
    const { listener } = listenPaused({ unix: path, backlog: 2 });
    expect(fillQueue(path, 20)).toBe(20);
    const second = `${path}2`;
    const { listener: limited } = listenPaused({ unix: second });
    setBacklog(limited.fd, 2);
    expect(fillQueue(second, 20)).toBe(3);
    listener.stop();
  });

  test.if(IS_LINUX)("Bun.listen({ fd }) sets the backlog back to its own", () => {
    const path = join(cleanup.folder(), "s");
    const { listener } = listenPaused({ unix: path });
    const fd = dup(listener.fd);
    renameSync(path, `${path}2`);
    listener.stop();
    setBacklog(fd, 2);
    listenPaused({ fd });
    expect(fillQueue(`${path}2`, 20)).toBe(20);
  });

  test.if(IS_LINUX)("Bun.connect calls a full unix queue ECONNREFUSED, like a stale socket", async () => {
    const path = join(cleanup.folder(), "s");
    const { listener } = listenPaused({ unix: path });
    const fd = dup(listener.fd);
    cleanup.add(() => close(fd));
    renameSync(path, `${path}2`);
    listener.stop();
    setBacklog(fd, 0);
    fillQueue(`${path}2`, 20);
    const outcome = Peer.connect({ kind: "unix", path: `${path}2` }, cleanup).catch((error: unknown) => error);
    expect(await outcome).toMatchObject({ code: "ECONNREFUSED" });
  });

  test("stop unlinks the path that was bound, and not one that it was renamed to", () => {
    const folder = cleanup.folder();
    const bound = listenPaused({ unix: join(folder, "a") });
    bound.listener.stop();
    expect(existsSync(join(folder, "a"))).toBe(false);
    const renamed = listenPaused({ unix: join(folder, "a") });
    renameSync(join(folder, "a"), join(folder, "b"));
    renamed.listener.stop();
    expect(existsSync(join(folder, "b"))).toBe(true);
  });

  test("stop of a listener on a descriptor closes that descriptor and keeps the path", () => {
    const path = join(cleanup.folder(), "s");
    const { listener } = listenPaused({ unix: path });
    const fd = dup(listener.fd);
    renameSync(path, `${path}2`);
    listener.stop();
    const second = listenPaused({ fd });
    expect(second.listener.fd).toBe(fd);
    second.listener.stop();
    expect(existsSync(`${path}2`)).toBe(true);
    expect(() => close(fd)).toThrow("EBADF");
  });

  test("nothing is accepted between Bun.listen and the next turn of the event loop", () => {
    const path = join(cleanup.folder(), "s");
    const { listener, accepted } = listenPaused({ unix: path });
    fillQueue(path, 3);
    listener.stop();
    expect(accepted.calls).toEqual([]);
  });
});

describe.each(KINDS)("a %s connection with two holders", (kind) => {
  test("the paused copy reads nothing and sees no FIN", async () => {
    const { client, held, adopted, events } = await heldTwice(kind);
    client.socket.write("hello");
    await adopted.until(({ received }) => received.toString() === "hello");
    client.socket.shutdown();
    await adopted.ended();
    for (let i = 0; i < 5; i++) await turn();
    expect(events.calls).toEqual([]);
    expect(held.write("late")).toBe(4);
  });

  test("end of one copy gives the client nothing; shutdown and end of both give it EOF at once", async () => {
    const { client, held, adopted } = await heldTwice(kind);
    adopted.socket.terminate();
    await adopted.until(({ events }) => events.includes("close"));
    for (let i = 0; i < 5; i++) await turn();
    expect(client.events).toEqual([]);
    const again = await Peer.connect({ kind: "adopt", fd: dup(held.fd) }, cleanup);
    shutdown(held.fd, "both");
    await client.ended();
    again.socket.end();
    held.end();
  });

  test("end without shutdown leaves the client waiting while the other copy lives", async () => {
    const { client, adopted, held } = await heldTwice(kind);
    held.end();
    for (let i = 0; i < 5; i++) await turn();
    adopted.socket.write("still open");
    await client.until(({ received }) => received.toString() === "still open");
    expect(client.events).toEqual(["data"]);
  });

  test("write on the paused copy reaches the client", async () => {
    const { client, held } = await heldTwice(kind);
    expect(held.write("from main")).toBe(9);
    await client.until(({ received }) => received.toString() === "from main");
  });

  test("write on an adopted copy may be short, and drain says when to go on", async () => {
    const { client, adopted } = await heldTwice(kind);
    const bytes = new Uint8Array(16 << 20).map((_, i) => i >> 8);
    client.socket.pause();
    let written = adopted.socket.write(bytes);
    expect(written).toBeLessThan(bytes.length);
    // The kernel may find room for more meanwhile, and in the end for none.
    for (let taken = -1; taken !== 0;) written += taken = adopted.socket.write(bytes.subarray(written));
    expect(written).toBeLessThan(bytes.length);
    client.socket.resume();
    const read = client.until(({ chunks }) => chunks.reduce((sum, { length }) => sum + length, 0) === bytes.length);
    while (written < bytes.length) {
      const drains = adopted.events.length;
      await adopted.until(({ events }) => events.length > drains);
      written += adopted.socket.write(bytes.subarray(written));
    }
    await read;
    expect(Buffer.concat(client.chunks).equals(bytes)).toBe(true);
  });

  test("each chunk has a buffer of its own, exact in size, that is not overwritten later", async () => {
    const { client, adopted } = await heldTwice(kind);
    for (let i = 0; i < 200; i++) {
      const seen = adopted.received.length;
      client.socket.write(new Uint8Array(100 + i).fill(i));
      await adopted.until(({ received }) => received.length === seen + 100 + i);
    }
    // `received` was copied when each chunk came; the chunks themselves are looked at only now.
    expect(Buffer.concat(adopted.chunks).equals(adopted.received)).toBe(true);
    expect(new Set(adopted.chunks.map(({ buffer }) => buffer)).size).toBe(adopted.chunks.length);
    expect(adopted.chunks.every(({ buffer, byteLength }) => buffer.byteLength === byteLength)).toBe(true);
  });

  test("bytes that wait in the kernel are read by whoever adopts next", async () => {
    const { client, held, adopted } = await heldTwice(kind);
    adopted.socket.terminate();
    await adopted.until(({ events }) => events.includes("close"));
    client.socket.write("waiting");
    const next = await Peer.connect({ kind: "adopt", fd: dup(held.fd) }, cleanup);
    await next.until(({ received }) => received.toString() === "waiting");
  });
});

test("the paused copy sees a reset", async () => {
  const { client, events } = await heldTwice("tcp");
  client.socket.terminate();
  await events.count(1);
  expect(events.calls).toContain("close");
});

test("a socket that is paused in open gets one drain though no write was short", async () => {
  const drained = recorder<void>();
  const listener = bunListen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { open: (socket: Socket) => void socket.pause(), data() {}, drain: () => drained.add() },
  });
  cleanup.add(() => listener.stop(true));
  await Peer.connect({ kind: "tcp", host: "127.0.0.1", port: listener.port, family: 4 }, cleanup);
  await drained.count(1);
});

test("write with an offset throws unless the length is given: pass a subarray", async () => {
  const { adopted } = await heldTwice("tcp");
  expect(() => adopted.socket.write(new Uint8Array(10), 4)).toThrow(RangeError);
  expect(adopted.socket.write(new Uint8Array(10), 4, 6)).toBe(6);
});

/** Runs a program in a process and a folder of its own, and gives what it prints: paths without the folder. */
async function printed(
  program: string,
  options: { descriptors?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const { descriptors, env = process.env } = options;
  const dir = cleanup.folder();
  writeFileSync(join(dir, "main.ts"), program);
  mkdirSync(join(dir, "real"));
  writeFileSync(join(dir, "real", "a.ts"), "export default 'disk';\n");
  symlinkSync("real", join(dir, "link"));
  const run = [process.execPath, join(dir, "main.ts")];
  const command = descriptors === undefined ? run : ["sh", "-c", `ulimit -n ${descriptors}; exec "$@"`, "sh", ...run];
  const child = Bun.spawn(command, {
    env,
    stdout: "pipe",
    stderr: descriptors === undefined ? "inherit" : "ignore",
  });
  return (await new Response(child.stdout).text()).trim().replaceAll(realpathSync(dir), "");
}

describe("threads", () => {
  test("a worker begins with the environment that the process began with", async () => {
    const text = await printed(`process.env.LATER = "set";
const seen = (...options) => new Promise((resolve) => {
  const worker = new Worker("data:text/javascript,postMessage(String(process.env.LATER))", ...options);
  worker.onmessage = ({ data }) => resolve(data);
});
console.log(await seen(), await seen({ env: { ...process.env } }));`);
    expect(text).toBe("undefined set");
  });

  test("os.homedir and programs that are started do not see a variable that was set in process.env", async () => {
    const text = await printed(`import { homedir } from "node:os";
const before = homedir();
process.env.HOME = "/elsewhere";
const started = Bun.spawnSync(["sh", "-c", "echo $HOME"]).stdout.toString().trim();
console.log(homedir() === before, started === before);`);
    expect(text).toBe("true true");
  });

  test("a function that returns a call has no frame, unless tail calls are off", async () => {
    const program = `function inner() { return new Error().stack; }
function outer() { return inner(); }
console.log(outer().includes("outer"));`;
    expect(await printed(program)).toBe("false");
    expect(await printed(program, { env: { ...process.env, BUN_JSC_useTailCalls: "0" } })).toBe("true");
  });

  test("terminate settles before the thread is gone", async () => {
    const worker = new Worker("data:text/javascript,postMessage(0); Bun.sleepSync(300)");
    const started = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    let isGone = false;
    worker.onmessage = () => started.resolve();
    worker.addEventListener("close", () => {
      isGone = true;
      gone.resolve();
    });
    await started.promise;
    await worker.terminate();
    expect(isGone).toBe(false);
    await gone.promise;
  });

  test("resourceLimits limit nothing", async () => {
    const source = `const { parentPort } = require("node:worker_threads");
const all = Array.from({ length: 64 }, (_, n) => new Array(131072).fill(n));
parentPort.postMessage(all.length);`;
    const worker = new NodeWorker(source, { eval: true, resourceLimits: { maxOldGenerationSizeMb: 8 } });
    const [count] = (await once(worker, "message")) as [number];
    expect(count).toBe(64);
    await worker.terminate();
  });
});

describe.if(IS_LINUX)("without a descriptor left", () => {
  const USE_UP = `import { openSync } from "node:fs";
const opened = [];
for (;;) try { opened.push(openSync("/dev/null", "r")); } catch { break; }
`;

  test("Bun ends the process when a worker is started", async () => {
    const text = await printed(
      `${USE_UP}console.log("before");
new Worker("data:text/javascript,0").addEventListener("close", () => console.log("closed"));
setTimeout(() => console.log("after"), 1000);`,
      { descriptors: 80 },
    );
    expect(text).toBe("before");
  });

  test("an error of Bun.listen has no code, and process.memoryUsage throws", async () => {
    const text = await printed(
      `${USE_UP}try { Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } }); } catch (error) { console.log(error.message, error.code); }
try { process.memoryUsage.rss(); } catch (error) { console.log(error.name); }`,
      { descriptors: 80 },
    );
    expect(text).toBe("Failed to listen at 127.0.0.1 undefined\nSystemError");
  });
});

describe("modules from the disk", () => {
  test("where a link led is remembered, by workers that begin later, too", async () => {
    const text = await printed(`import { mkdirSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
const { dir } = import.meta;
mkdirSync(dir + "/other");
writeFileSync(dir + "/other/a.ts", "export default 'other'");
writeFileSync(dir + "/worker.ts", "postMessage((await import('./link/a.ts')).default)");
const seen = () => new Promise((resolve) => {
  new Worker(dir + "/worker.ts").onmessage = ({ data }) => resolve(data);
});
const first = await seen();
unlinkSync(dir + "/link");
symlinkSync("other", dir + "/link");
console.log(first, await seen());`);
    expect(text).toBe("disk disk");
  });

  test("an import that leads nowhere has no place; an entry that cannot be read is called missing", async () => {
    const text = await printed(`import { mkdirSync, writeFileSync } from "node:fs";
mkdirSync(import.meta.dir + "/folder.ts");
writeFileSync(import.meta.dir + "/b.ts", "import none from './none.ts'; console.log(none);");
for (const name of ["/b.ts", "/folder.ts"])
  await import(import.meta.dir + name).catch(({ message, position, referrer, specifier }) =>
    console.log(message.slice(0, 18), position, referrer, specifier));`);
    expect(text.split("\n")).toEqual([
      "Cannot find module null /b.ts ./none.ts",
      "Cannot find module null /main.ts /folder.ts",
    ]);
  });
});

describe("modules that a plugin gives", () => {
  const VIRTUAL = `build.module(import.meta.dir + "/link/a.ts", () => ({
  contents: "export default import.meta.path + ' ' + import.meta.url; export const late = () => import('./b.ts');", loader: "ts" }));`;

  test("a virtual module has the very path that it was made for, whatever the disk says, and its imports begin there", async () => {
    const text = await printed(`Bun.plugin({ name: "t", setup(build) {
  ${VIRTUAL}
  build.onResolve({ filter: /./ }, ({ path, importer }) => { console.log(path, importer); return { path: import.meta.dir + "/real/a.ts" }; });
} });
const { default: seen, late } = await import(import.meta.dir + "/link/a.ts");
console.log(seen, (await late()).default);`);
    expect(text.split("\n")).toEqual(["./b.ts /link/a.ts", "/link/a.ts file:///link/a.ts disk"]);
  });

  test("of onLoad Bun says the real path, though another was asked for", async () => {
    const text = await printed(`Bun.plugin({ name: "t", setup(build) {
  build.onLoad({ filter: /a\\.ts$/ }, ({ path }) => ({ contents: "export default " + JSON.stringify(path), loader: "ts" }));
} });
console.log((await import(import.meta.dir + "/link/a.ts")).default);`);
    expect(text).toBe("/real/a.ts");
  });

  test("onResolve is asked for specifiers with an extension or a colon, and for no others", async () => {
    const asked = ["./a.ts", "../x.json", ":", ":0", ":zz", "policy.js"];
    const others = ["./a", ".", "..", "./", "../", "policy", "@scope/policy", "#inner", "./x.1"];
    const text = await printed(`const asked = [];
Bun.plugin({ name: "t", setup(build) {
  build.onResolve({ filter: /./ }, ({ path, importer }) => {
    if (!importer.endsWith("t.ts")) return;
    asked.push(path);
    return { path: import.meta.dir + "/real/a.ts" };
  });
  for (const [index, specifier] of ${JSON.stringify([...asked, ...others])}.entries())
    build.module("/" + index + "/t.ts", () => ({ contents: "import " + JSON.stringify(specifier), loader: "ts" }));
} });
for (let index = 0; index < ${asked.length + others.length}; index++) await import("/" + index + "/t.ts").catch(() => {});
console.log(JSON.stringify(asked));`);
    expect(JSON.parse(text)).toEqual(asked);
  });

  test("a package that names its exports may be resolved by its own name", async () => {
    const text = await printed(`import { writeFileSync } from "node:fs";
writeFileSync(import.meta.dir + "/real/package.json", '{ "name": "own", "exports": { "./a": "./a.ts" } }');
console.log(Bun.resolveSync("own/a", import.meta.dir + "/real"));`);
    expect(text).toBe("/real/a.ts");
  });
});
