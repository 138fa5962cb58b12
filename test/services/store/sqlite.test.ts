/** The SQLite file: its bound, files that are damaged or of another kind, disks that are full, and what outlives a kill. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { SteadyClock, StoreKeeper } from "../../../src/services/store/keeper.ts";
import type { Operation, Result } from "../../../src/store/operations.ts";
import { type TempDir, tempDir } from "../../support/temp.ts";

setDefaultTimeout(120_000);

let dir: TempDir;
let file: string;
beforeEach(async () => {
  dir = await tempDir("sqlite");
  file = join(dir.path, "store.db");
});
afterEach(() => dir[Symbol.asyncDispose]());

interface Kept extends Disposable {
  readonly log: string[];
  dropped: number;
  /** What each operation gives: a result, or its problem in front of `!`. */
  run(...operations: object[]): (Result | string)[];
  set(key: string, value?: string, ttl?: number | null): Result | string;
  get(key: string): Result | string;
}

function open({ maxBytes = 2 ** 31, path = file } = {}): Kept {
  const log: string[] = [];
  const keeper = new StoreKeeper(
    { url: `sqlite:${path}`, timeoutMs: 200, maxBytes },
    {
      folder: dir.path,
      dropped: (count) => (kept.dropped += count),
      log: (level, text) => log.push(`${level}: ${text}`),
    },
  );
  const kept: Kept = {
    log,
    dropped: 0,
    run(...operations) {
      const all = operations.map((operation) => Object.assign({ filter: "f", key: "k" }, operation) as Operation);
      const outcomes: (Result | string)[] = [];
      keeper.run(all, (at, outcome) => {
        outcomes[at] = "problem" in outcome ? `! ${outcome.problem}` : outcome.result;
      });
      return outcomes;
    },
    set: (key, value = "1", ttl = null) => kept.run({ kind: "set", key, value, ttl })[0]!,
    get: (key) => kept.run({ kind: "get", key })[0]!,
    [Symbol.dispose]: () => keeper.close(),
  };
  return kept;
}

const names = () => readdirSync(dir.path).sort();

describe("the file", () => {
  test("is for its owner alone, in WAL mode, with the number of its format", () => {
    using store = open();
    store.set("a");
    for (const name of names()) expect([name, statSync(join(dir.path, name)).mode & 0o777]).toEqual([name, 0o600]);
    const database = new Database(file, { readonly: true });
    expect(database.query("PRAGMA journal_mode").get()).toEqual({ journal_mode: "wal" });
    expect(database.query("PRAGMA user_version").get()).toEqual({ user_version: 1 });
    database.close();
  });

  test("two that have it open see each other's values", () => {
    using one = open();
    using other = open();
    for (let at = 0; at < 50; at += 1) {
      one.run({ kind: "increment", by: 1, ttl: null });
      other.run({ kind: "increment", by: 1, ttl: null });
    }
    expect(one.get("k")).toBe("100");
  });

  test("one that another process keeps locked is waited for within the time of an operation", () => {
    using store = open();
    store.set("a");
    const other = new Database(file);
    other.run("BEGIN IMMEDIATE");
    expect(store.set("b")).toBe("! database is locked (SQLITE_BUSY)");
    // Reading goes on.
    expect(store.get("a")).toBe("1");
    other.run("COMMIT");
    other.close();
    expect(store.set("b")).toBeNull();
    expect(store.log).toEqual([`error: store: sqlite:${file} cannot be used: database is locked (SQLITE_BUSY)`]);
  });

  test("of a later version, or of another program, is left alone", () => {
    const database = new Database(file);
    database.run("CREATE TABLE mail (id)");
    database.close();
    const before = readFileSync(file);
    {
      using store = open();
      expect(store.set("a")).toBe(`! ${file} is a database of another program`);
    }
    expect(readFileSync(file).equals(before)).toBe(true);
    const later = join(dir.path, "later.db");
    {
      using store = open({ path: later });
      store.set("a");
    }
    const changed = new Database(later);
    changed.run("PRAGMA user_version = 99");
    changed.close();
    using store = open({ path: later });
    expect(store.set("a")).toBe(`! ${later} was written by a later version of pmilter (format 99)`);
  });
});

describe("a damaged file", () => {
  test("that is no database is moved aside, and an empty one takes its place", () => {
    writeFileSync(file, Buffer.alloc(8192, "x"));
    using store = open();
    expect(store.set("a")).toBeNull();
    expect(store.get("a")).toBe("1");
    const aside = names().find((name) => name.includes(".damaged-"));
    expect(readFileSync(join(dir.path, aside!), "utf8")).toStartWith("xxx");
    expect(store.log).toEqual([
      `error: store: ${file} is damaged (file is not a database (SQLITE_NOTADB)): moved to ${join(dir.path, aside!)}, and begun anew`,
    ]);
  });

  test("while it is in use: the call fails, the next one has an empty file", () => {
    {
      using store = open();
      for (let at = 0; at < 2000; at += 1) store.set(`key ${at}`, JSON.stringify("v".repeat(100)));
    }
    const fd = openSync(file, "r+");
    for (let page = 1; page < 40; page += 1) writeSync(fd, Buffer.alloc(4096, 0xff), 0, 4096, page * 4096);
    closeSync(fd);
    using store = open();
    const results = Array.from({ length: 20 }, (_, at) => store.get(`key ${at * 100}`));
    expect(results.some((result) => typeof result === "string" && result.includes("malformed"))).toBe(true);
    expect(store.set("after")).toBeNull();
    expect(store.get("after")).toBe("1");
    expect(store.log.join("\n")).toContain("is damaged (database disk image is malformed (SQLITE_CORRUPT)): moved to");
    expect(names().some((name) => name.includes(".damaged-"))).toBe(true);
  });
});

describe("max_size", () => {
  const MB = 1024 * 1024;
  const value = JSON.stringify("v".repeat(1000));

  test.each([
    [0, 5000],
    [200, 4000],
    [3000, 350],
  ])("what expires first goes first, counted, and the file stays within it: values of %d bytes", (size, least) => {
    using store = open({ maxBytes: 2 * MB });
    const value = JSON.stringify("v".repeat(size));
    const count = Math.floor((4 * MB) / Math.max(128, size));
    store.set("for ever", value);
    // Keys in no order, as those of senders are.
    const keys = Array.from({ length: count }, (_, at) => `${Bun.hash(String(at))}`);
    for (const [at, key] of keys.entries()) store.set(key, value, 1_000_000 + at * 1000);
    expect(statSync(file).size).toBeLessThan(2.2 * MB);
    const left = keys.map((key) => store.get(key) !== null);
    const firstLeft = left.indexOf(true);
    // All before it are gone, all behind it are there.
    expect(left.slice(firstLeft).every(Boolean)).toBe(true);
    expect(count - firstLeft).toBeGreaterThan(least);
    expect(store.dropped).toBe(firstLeft);
    expect(store.get("for ever")).toBe(value);
    expect(store.log[0]).toBe(`warn: store: ${file} is full (store.max_size): 50 values were dropped so far`);
    expect(store.log.length).toBeLessThan(6);
  });

  test("what has no end goes last, so that there is room again", () => {
    using store = open({ maxBytes: MB });
    for (let at = 0; at < 3000; at += 1) expect(store.set(`k${at}`, value)).toBeNull();
    expect(statSync(file).size).toBeLessThan(1.3 * MB);
    expect(store.dropped).toBeGreaterThan(1000);
  });

  test("what has expired makes room by itself", () => {
    using store = open({ maxBytes: MB });
    for (let at = 0; at < 3000; at += 1) {
      store.set(`k${at}`, value, 1);
      if (at % 100 === 0) Bun.sleepSync(2);
    }
    expect(store.dropped).toBe(0);
  });
});

test("a file that cannot be written: the reason, and it is used again once it can", () => {
  using store = open({ path: join(dir.path, "missing", "store.db") });
  expect(store.set("a")).toBe(`! ENOENT: no such file or directory, open '${join(dir.path, "missing", "store.db")}'`);
  expect(store.set("a")).toStartWith("! ENOENT");
  mkdirSync(join(dir.path, "missing"));
  expect(store.set("a")).toBeNull();
  expect(store.log).toHaveLength(1);
});

test("a disk that is full: the call fails, what was kept is read, and it goes on by itself", async () => {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "full-disk.ts"), file], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const said = (await new Response(child.stdout).json()) as Record<string, unknown>;
  expect(said).toEqual({ failed: expect.stringMatching(/full|disk I\/O error/), read: "1", again: null });
});

test("the clock never goes back: after the system's was turned back it goes on from where it was", () => {
  let [wall, steady] = [1_000_000, 0];
  const clock = new SteadyClock(
    () => wall,
    () => steady,
  );
  const pass = (ms: number, wallMs = ms): number => {
    [wall, steady] = [wall + wallMs, steady + ms];
    return clock.now();
  };
  expect(pass(10)).toBe(1_000_010);
  expect(pass(10, -3_600_000)).toBe(1_000_020);
  expect(pass(500)).toBe(1_000_520);
  // The machine slept: the steady clock did not run.
  expect(pass(10, 7_200_000)).toBe(wall);
  expect(Array.from({ length: 1000 }, () => pass(0.1, -1)).at(-1)).toBe(wall + 1000 + 100);
});

test("killed at random moments, 50 times: nothing that was acknowledged is lost, and the file opens", async () => {
  let acknowledged = 0;
  for (let round = 0; round < 50; round += 1) {
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "killed-writer.ts"), file], {
      stdout: "pipe",
      stderr: "inherit",
    });
    const reader = child.stdout.getReader();
    let text = "";
    const wanted = 1 + Math.floor(Math.random() * 200);
    while (text.split("\n").length <= wanted) {
      const { done, value } = await reader.read();
      if (done) break;
      text += new TextDecoder().decode(value);
    }
    child.kill("SIGKILL");
    await child.exited;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += new TextDecoder().decode(value);
    }
    acknowledged = Math.max(acknowledged, ...text.split("\n").slice(0, -1).map(Number));
    using store = open();
    const kept = Number(store.get("count"));
    expect(kept).toBeGreaterThanOrEqual(acknowledged);
    // Each list was done as a whole.
    expect(store.get("twin")).toBe(String(kept));
    expect(store.log).toEqual([]);
  }
  expect(acknowledged).toBeGreaterThan(50);
});
