/** Large bodies between a worker and the thread that writes them: memory that is safe to keep, places, failures, descriptors. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { MappedBody, SpooledBody } from "../../src/handler/message/spool.ts";
import { SpoolThread } from "../../src/server/workers/spool-thread.ts";
import { SpoolError, WorkerSpool } from "../../src/worker/spool.ts";
import { type TempDir, tempDir, waitFor } from "../support/temp.ts";

setDefaultTimeout(60_000);

const URL_OF_THREAD = new URL("../../src/spool/entry.ts", import.meta.url);
const SIZE = 3 * 1024 * 1024;
const MAX_MAPPED = 4;

// One for each test: what the test before gives back late is not taken for this one's.
let dir: TempDir;
beforeEach(async () => {
  dir = await tempDir("spool");
});
afterEach(() => dir[Symbol.asyncDispose]());

interface StartOptions {
  readonly folder?: string;
  readonly url?: URL;
  /** @throws Error if the thread cannot be started */
  readonly starting?: () => void;
  readonly log?: (line: string) => void;
}

function start({
  folder = dir.path,
  url = URL_OF_THREAD,
  starting = () => undefined,
  log = () => undefined,
}: StartOptions = {}): { thread: SpoolThread; spool: WorkerSpool; asked: () => number } & Disposable {
  const thread = new SpoolThread(url, {
    folder: () => folder,
    starting,
    log: (level, text) => log(`${level}: ${text}`),
  });
  let asked = 0;
  const spool: WorkerSpool = new WorkerSpool(() => {
    asked += 1;
    spool.connect(thread.connect());
  });
  return { thread, spool, asked: () => asked, [Symbol.dispose]: () => thread.close() };
}

/** A body of one letter, in pieces that fit no block. */
function fill(body: SpooledBody, letter: string, size = SIZE): void {
  const piece = Buffer.alloc(50_001, letter);
  for (let at = 0; at < size; at += piece.length) body.append(piece, 0, Math.min(piece.length, size - at));
}

const mapped = async (spool: WorkerSpool, letter: string): Promise<[SpooledBody, MappedBody]> => {
  const body = spool.begin();
  fill(body, letter);
  return [body, await body.map()];
};

/** Files of the folder that the process has open or mapped. */
function held(folder = dir.path): string[] {
  const open = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // Closed since.
      return [];
    }
  });
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  return [...open, ...maps].filter((line) => line.includes(folder));
}

const isAll = (bytes: Uint8Array, letter: string) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).equals(Buffer.alloc(bytes.length, letter));

describe("a body in the spool", () => {
  test("comes back to the byte, from a file that has no name, and leaves nothing behind", async () => {
    using one = start();
    const [body, { bytes }] = await mapped(one.spool, "a");
    expect(bytes).toHaveLength(SIZE);
    expect(isAll(bytes, "a")).toBe(true);
    expect(readdirSync(dir.path)).toEqual([]);
    expect(held().length).toBeGreaterThan(0);
    body.end();
    await waitFor(() => held().length === 0, { what: "the file to be given back" });
    expect(one.thread.openFiles).toBe(0);
    expect(one.spool.mappedBytes).toBe(0);
  });

  test("what a handler writes into it stays in its own memory", async () => {
    using one = start();
    const [body, { bytes }] = await mapped(one.spool, "a");
    bytes.fill(0x62, 10, 20);
    expect(Buffer.from(bytes.subarray(9, 21)).toString()).toBe("abbbbbbbbbba");
    body.end();
    await waitFor(() => held().length === 0, { what: "the file to be given back" });
  });

  test("a head is put in front without a copy of the body, and a longer one in front of that", async () => {
    using one = start();
    const [body, both] = await mapped(one.spool, "a");
    const first = both.withHead(Buffer.from("Subject: x\r\n\r\n"))!;
    expect(first.buffer).toBe(both.bytes.buffer);
    expect(Buffer.from(first.subarray(0, 16)).toString()).toBe("Subject: x\r\n\r\naa");
    expect(first).toHaveLength(14 + SIZE);
    const second = both.withHead(Buffer.from("Received: y\r\nSubject: x\r\n\r\n"))!;
    expect(Buffer.from(second.subarray(0, 29)).toString()).toBe("Received: y\r\nSubject: x\r\n\r\naa");
    expect(Buffer.from(both.withHead(Buffer.from("Subject: x\r\n\r\n"))!.subarray(0, 14)).toString()).toBe(
      "Subject: x\r\n\r\n",
    );
    // One that differs would change what the others show; one that does not fit has no place.
    expect(both.withHead(Buffer.from("Subject: other\r\n\r\n"))).toBeNull();
    expect(both.withHead(Buffer.alloc(2 * 1024 * 1024))).toBeNull();
    expect(Buffer.from(first.subarray(0, 16)).toString()).toBe("Subject: x\r\n\r\naa");
    body.end();
    await waitFor(() => held().length === 0, { what: "the file to be given back" });
  });
});

/** Keeps everything that can be made of a body, and reads it after the message has ended. Run here and in a worker. */
async function keepPast(spool: WorkerSpool): Promise<number[]> {
  const kept: { readonly length: number; readonly [index: number]: number }[] = [];
  for (let message = 0; message < 12; message++) {
    const [body, { bytes }] = await mapped(spool, "k");
    kept.push(bytes, bytes.subarray(5, 100), Buffer.from(bytes.buffer, 1024 * 1024, 500), new Uint8Array(bytes.buffer));
    const view = new DataView(bytes.buffer);
    body.end();
    expect(() => view.getUint8(0)).toThrow();
    if (message % 3 === 0) Bun.gc(true);
    await Bun.sleep(0);
  }
  const read = kept.flatMap((view) => [view.length, view[0] ?? -1, view[100] ?? -1]);
  kept.length = 0;
  Bun.gc(true);
  return read;
}

describe("bytes that are kept past the message", () => {
  const nothing = Array.from({ length: 12 * 4 }, () => [0, -1, -1]).flat();

  test("are empty, whatever was made of them, and nothing crashes", async () => {
    using one = start();
    expect(await keepPast(one.spool)).toEqual(nothing);
    await waitFor(() => held().length === 0, { what: "the files to be given back" });
  });

  test("the same in a worker, whose collector runs at its own times; its end gives all back", async () => {
    using one = start();
    const worker = new Worker(new URL("spool-keeper.ts", import.meta.url).href);
    const line = one.thread.connect();
    if (line.port === null) throw new Error(line.failure.message);
    const read = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }: { readonly data: unknown }) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage({ line }, [line.port]);
    });
    expect(read).toEqual(nothing);
    // It still has a mapped body and one half written.
    expect(held().length).toBeGreaterThan(0);
    worker.terminate();
    await waitFor(() => held().length === 0 && one.thread.openFiles === 0, { what: "its files to be given back" });
  });

  test("that a handler has transferred stay readable, and take no place", async () => {
    using one = start();
    const kept: Uint8Array[] = [];
    for (let message = 0; message < 2 * MAX_MAPPED; message++) {
      const [body, both] = await mapped(one.spool, "t");
      const memory = both.bytes.buffer as ArrayBuffer;
      kept.push(new Uint8Array(structuredClone(memory, { transfer: [memory] })));
      expect(both.isTransferred).toBe(true);
      body.end();
      expect(one.spool.mappedBytes).toBe(0);
    }
    await waitFor(() => held().length === 0, { what: "the space to be given back" });
    Bun.gc(true);
    await Bun.sleep(0);
    const [last] = await mapped(one.spool, "t");
    last.end();
    // The file's space is given back: zeros are there in its place, and no fault.
    expect(kept.map((bytes) => bytes.at(-1))).toEqual(kept.map(() => 0));
  });

  test("addresses are given back when no view is left", async () => {
    using one = start();
    const areas = () => readFileSync("/proc/self/maps", "utf8").split("\n").length;
    const before = areas();
    for (let message = 0; message < 40; message++) {
      const [body] = await mapped(one.spool, "g");
      body.end();
    }
    await waitFor(
      () => {
        Bun.gc(true);
        return areas() < before + 20;
      },
      { what: "the addresses to be given back" },
    );
  });
});

describe("places", () => {
  test("four are mapped at a time; the fifth waits until one ends, the others in their order", async () => {
    using one = start();
    const first = await Promise.all(Array.from({ length: MAX_MAPPED }, () => mapped(one.spool, "m")));
    const order: string[] = [];
    const waiting = ["e", "f", "g"].map((letter) => {
      const body = one.spool.begin();
      fill(body, letter);
      const done = body.map().then((one) => {
        order.push(letter);
        return one;
      });
      return { body, done };
    });
    // What ends while it waits takes no place.
    const aborted = one.spool.begin();
    fill(aborted, "x");
    const left = aborted.map();
    aborted.end();
    await expect(left).rejects.toThrow("not needed any more");
    // Written, and all the same not mapped: what was sent later is written by now.
    const later = one.spool.begin();
    fill(later, "l");
    const room = Promise.withResolvers<void>();
    later.onRoom(room.resolve);
    await room.promise;
    expect(one.thread.openFiles).toBe(4);
    later.end();
    expect(order).toEqual([]);
    for (const [at, { body, done }] of waiting.entries()) {
      first[at]![0].end();
      expect(isAll((await done).bytes, "efg"[at]!)).toBe(true);
      expect(order).toHaveLength(at + 1);
      expect(body.isBehind).toBe(false);
    }
    expect(order).toEqual(["e", "f", "g"]);
    for (const { body } of waiting) body.end();
    first[3]![0].end();
    await waitFor(() => held().length === 0, { what: "the files to be given back" });
  });
});

describe("a body that is handed over to be sent", () => {
  test("is empty for all who had it, keeps what they wrote, and is readable until it ends, whatever the collector does", async () => {
    using one = start();
    const [body, both] = await mapped(one.spool, "a");
    both.bytes.fill(0x62, 0, 10);
    const kept = [both.bytes, both.withHead(Buffer.from("X: y\r\n\r\n"))!];
    const at = both.bytes.byteOffset;
    let sent: Uint8Array | null = new Uint8Array(body.handOver(), at);
    expect(kept.map(({ length }) => length)).toEqual([0, 0]);
    kept.length = 0;
    for (let round = 0; round < 3; round++) {
      Bun.gc(true);
      await Bun.sleep(0);
    }
    expect(sent).toHaveLength(SIZE);
    expect([isAll(sent.subarray(0, 10), "b"), isAll(sent.subarray(10), "a")]).toEqual([true, true]);
    expect(held().length).toBeGreaterThan(0);
    expect(one.spool.mappedBytes).toBeGreaterThan(SIZE);
    body.end();
    body.end();
    sent = null;
    await waitFor(() => held().length === 0, { what: "the file to be given back" });
    expect(one.spool.mappedBytes).toBe(0);
  });

  test("takes no place of others, however long it is sent, and gives its own back once", async () => {
    using one = start();
    const sent = await Promise.all(Array.from({ length: 2 * MAX_MAPPED }, () => handedOver(one.spool)));
    const others = await Promise.all(Array.from({ length: MAX_MAPPED }, () => mapped(one.spool, "o")));
    for (const body of sent) body.end();
    // All places are taken all the same.
    const fifth = one.spool.begin();
    fill(fifth, "f");
    let isMapped = false;
    const done = fifth.map().then(() => (isMapped = true));
    const written = one.spool.begin();
    fill(written, "w");
    const room = Promise.withResolvers<void>();
    written.onRoom(room.resolve);
    await room.promise;
    expect(isMapped).toBe(false);
    others[0]![0].end();
    await done;
    for (const body of [written, fifth, ...others.slice(1).map(([one]) => one)]) body.end();
    await waitFor(() => held().length === 0, { what: "the files to be given back" });
  });

  const handedOver = async (spool: WorkerSpool): Promise<SpooledBody> => {
    const [body] = await mapped(spool, "s");
    body.handOver();
    return body;
  };
});

describe("failures", () => {
  test("a folder that is gone: the body fails, with the folder's name, and the others do not", async () => {
    await using other = await tempDir("spool-gone");
    const folder = join(other.path, "spool");
    using one = start({ folder });
    const body = one.spool.begin();
    fill(body, "a");
    const room = Promise.withResolvers<void>();
    body.onRoom(room.resolve);
    await room.promise;
    await expect(body.map()).rejects.toThrow(new RegExp(`the spool in ${folder}: .*ENOENT`));
    await expect(body.map()).rejects.toBeInstanceOf(SpoolError);
    body.end();
    await Bun.write(join(folder, "x"), "");
    rmSync(join(folder, "x"));
    const [next, { bytes }] = await mapped(one.spool, "b");
    expect(isAll(bytes, "b")).toBe(true);
    next.end();
  });

  test("a thread that ends: what it had fails, and the next body gets another", async () => {
    await using other = await tempDir("spool-thread");
    using one = start({ folder: other.path });
    const body = one.spool.begin();
    fill(body, "a");
    await waitFor(() => !body.isBehind, { what: "it to be written" });
    one.thread.close();
    const room = Promise.withResolvers<void>();
    fill(body, "b");
    body.onRoom(room.resolve);
    await room.promise;
    await expect(body.map()).rejects.toThrow("its thread has ended");
    body.end();
    // The main thread may learn it later than the worker.
    const next = await waitFor(() => mapped(one.spool, "c").catch(() => null), { what: "another thread" });
    expect(one.asked()).toBeGreaterThan(1);
    next[0].end();
  });

  test("spool-thread: it ends by an error: what was read stays readable, the rest fails, the next body gets another", async () => {
    await using other = await tempDir("spool-crash");
    const lines: string[] = [];
    using one = start({
      folder: other.path,
      url: new URL("spool-crash.ts", import.meta.url),
      log: (line) => lines.push(line),
    });
    const [read, { bytes }] = await mapped(one.spool, "r");
    const half = one.spool.begin();
    fill(half, "h");
    await waitFor(() => !half.isBehind, { what: "it to be written" });
    const crash = one.spool.begin();
    fill(crash, "!");
    await expect(crash.map()).rejects.toThrow("its thread has ended");
    await expect(half.map()).rejects.toThrow("its thread has ended");
    expect(isAll(bytes, "r")).toBe(true);
    for (const body of [read, half, crash]) body.end();
    expect(bytes).toHaveLength(0);
    await waitFor(() => lines.length > 0, { what: "the end to be known" });
    const [next] = await mapped(one.spool, "n");
    next.end();
    expect(lines).toEqual([expect.stringMatching(/^crit: the thread of the spool has ended, another is started: /)]);
    expect(lines[0]).toEndWith("a fault");
    // The file of the half stays open, and is counted as such.
    await waitFor(() => one.thread.openFiles === 1, { what: "the other files to be closed" });
    expect(held(other.path).filter((line) => line.startsWith(other.path))).toHaveLength(1);
  });

  test("a thread that cannot be started: the body fails, and the next tries again", async () => {
    let hasDescriptors = false;
    using one = start({
      starting() {
        if (!hasDescriptors) throw new Error("no file descriptors are left");
      },
    });
    for (let round = 0; round < 2; round++) {
      const body = one.spool.begin();
      fill(body, "a");
      await expect(body.map()).rejects.toThrow(
        `the spool in ${dir.path}: its thread cannot be started: no file descriptors are left`,
      );
      body.end();
    }
    hasDescriptors = true;
    const [body, { bytes }] = await mapped(one.spool, "b");
    expect(isAll(bytes, "b")).toBe(true);
    body.end();
    await waitFor(() => held().length === 0, { what: "the file to be given back" });
  });

  test("a body that is given up while it is written is no longer waited for", async () => {
    using one = start();
    const body = one.spool.begin();
    fill(body, "a");
    expect(body.isBehind).toBe(true);
    expect(body.fail("too slow").message).toContain("too slow");
    expect(body.isBehind).toBe(false);
    await expect(body.map()).rejects.toThrow("too slow");
    body.end();
    await waitFor(() => one.thread.openFiles === 0 && held().length === 0, { what: "its file to be given back" });
  });
});
