/** What counts as a change of a watched file, whether the system tells of it by events or not. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { FolderEvents } from "../../src/server/files/folder-events.ts";
import { Looker } from "../../src/server/files/look.ts";
import { FileWatcher } from "../../src/server/files/watch.ts";
import { type TempDir, tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

let dir: TempDir;
beforeEach(async () => {
  dir = await tempDir("look");
});
afterEach(() => dir[Symbol.asyncDispose]());

const at = (...path: readonly string[]) => join(realpathSync(dir.path), ...path);

function write(path: string, text: string): void {
  mkdirSync(join(at(path), ".."), { recursive: true });
  writeFileSync(at(path), text);
}

function turn(path: string, target: string): void {
  symlinkSync(target, at(`${path}.new`));
  renameSync(at(`${path}.new`), at(path));
}

interface Change {
  readonly name: string;
  /** The watched path. */
  readonly path?: string;
  readonly before?: () => void;
  readonly change: () => void;
}

const CHANGES: readonly Change[] = [
  { name: "a write in place", change: () => appendFileSync(at("a/f"), "more") },
  { name: "a write in place of as many bytes", change: () => writeFileSync(at("a/f"), "TEXT") },
  {
    name: "a write of as many bytes that keeps the time",
    before: () => utimesSync(at("a/f"), 1000, 1000),
    change() {
      writeFileSync(at("a/f"), "TEXT");
      utimesSync(at("a/f"), 1000, 1000);
    },
  },
  {
    name: "another file that is renamed over it",
    change() {
      write("a/new", "text");
      renameSync(at("a/new"), at("a/f"));
    },
  },
  { name: "its end", change: () => unlinkSync(at("a/f")) },
  { name: "its beginning", path: "a/g", change: () => write("a/g", "") },
  { name: "its beginning, with its folders", path: "b/c/d/g", change: () => write("b/c/d/g", "") },
  {
    name: "its beginning in a folder that began a look earlier",
    path: "b/c/g",
    before: () => mkdirSync(at("b")),
    change: () => write("b/c/g", ""),
  },
  {
    name: "another folder in the place of its folder",
    change() {
      write("b/f", "text");
      renameSync(at("a"), at("old"));
      renameSync(at("b"), at("a"));
    },
  },
  {
    name: "another folder in the place of one far above",
    path: "x/y/z/f",
    before: () => write("x/y/z/f", "text"),
    change() {
      write("other/y/z/f", "text");
      renameSync(at("x"), at("old"));
      renameSync(at("other"), at("x"));
    },
  },
  { name: "the end of its folder", change: () => rmSync(at("a"), { recursive: true }) },
  {
    name: "a link that is turned",
    path: "l",
    before() {
      write("b/f", "text");
      symlinkSync("a/f", at("l"));
    },
    change: () => turn("l", "b/f"),
  },
  {
    name: "a link to a folder that is turned, to the very same file",
    path: "l/f",
    before() {
      mkdirSync(at("b"));
      linkSync(at("a/f"), at("b/f"));
      symlinkSync("a", at("l"));
    },
    change: () => turn("l", "b"),
  },
  {
    name: "a link in a folder far away that is turned, in a chain of links",
    path: "l",
    before() {
      write("b/f", "text");
      mkdirSync(at("p/q"), { recursive: true });
      symlinkSync("../../a", at("p/q/cur"));
      symlinkSync("p/q/cur/f", at("m"));
      symlinkSync("m", at("l"));
    },
    change: () => turn("p/q/cur", "../../b"),
  },
  {
    name: "a write to what a link leads to",
    path: "l",
    before: () => symlinkSync("a/f", at("l")),
    change: () => appendFileSync(at("a/f"), "more"),
  },
  {
    name: "the beginning of what a link leads to",
    path: "l",
    before: () => symlinkSync("b/f", at("l")),
    change: () => write("b/f", "text"),
  },
  {
    name: "a link that leads to itself",
    path: "l",
    before: () => symlinkSync("a/f", at("l")),
    change: () => turn("l", "l"),
  },
];

/** What changes from now on has another time than what is there: on some kernels times go in steps of milliseconds. */
function nextTick(): void {
  const before = statSync(at("a/f"), { bigint: true }).ctimeNs;
  do writeFileSync(at("clock"), "");
  while (statSync(at("clock"), { bigint: true }).ctimeNs === before);
}

const WAYS: readonly [string, typeof FolderEvents.open][] = [
  ["with events", (paths) => FolderEvents.open(paths)],
  ["without events", () => null],
];

describe.each(WAYS)("a change, %s", (_, open) => {
  function looking(path: string): Looker {
    const looker = new Looker([at(path), at("a/other"), at("a/other")], open);
    expect([looker.look(), looker.look(), looker.look()]).toEqual([false, true, false]);
    nextTick();
    return looker;
  }

  test.each(CHANGES)("$name: told when the next look finds nothing new", ({ before, change, path = "a/f" }) => {
    write("a/f", "text");
    before?.();
    const looker = looking(path);
    change();
    expect([looker.look(), looker.look(), looker.look(), looker.look()]).toEqual([false, true, false, false]);
    looker.close();
  });

  test("one that goes on is told once it is over", () => {
    write("a/f", "text");
    const looker = looking("a/f");
    for (let step = 0; step < 3; step++) {
      appendFileSync(at("a/f"), "more");
      expect(looker.look()).toBe(false);
    }
    expect([looker.look(), looker.look()]).toEqual([true, false]);
    looker.close();
  });

  test("after each of many", () => {
    write("a/f", "text");
    symlinkSync("a", at("l"));
    write("b/f", "text");
    const looker = looking("l/f");
    for (let step = 0; step < 20; step++) {
      turn("l", step % 2 === 0 ? "b" : "a");
      expect([looker.look(), looker.look(), looker.look()]).toEqual([false, true, false]);
    }
    looker.close();
  });

  test("by another hard link, which gives no event: within as many looks as may be left out", () => {
    write("a/f", "text");
    write("b/x", "");
    linkSync(at("a/f"), at("b/f"));
    const looker = looking("a/f");
    appendFileSync(at("b/f"), "more");
    const told = Array.from({ length: 6 }, () => looker.look());
    expect(told.filter(Boolean)).toHaveLength(1);
    looker.close();
  });
});

const hasEvents = FolderEvents.open([realpathSync(import.meta.dir)]) !== null;
if (!hasEvents) console.log("skipped: this system, or file system, gives no events of folders");

describe("events", () => {
  test.skipIf(!hasEvents)("with them most looks are not taken", () => {
    write("a/f", "text");
    const looker = new Looker([at("a/f")]);
    expect(looker.filesPerLook).toBe(1 / 5);
    looker.close();
  });

  test.skipIf(!hasEvents)(
    "happen when a path may lead elsewhere, and not when a neighbour of a folder above changes",
    () => {
      write("a/f", "text");
      const events = FolderEvents.open([at("a/f")])!;
      expect(events.happened()).toBe(false);
      write("neighbour", "text");
      mkdirSync(at("b"));
      expect(events.happened()).toBe(false);
      appendFileSync(at("a/f"), "more");
      expect([events.happened(), events.happened()]).toEqual([true, false]);
      renameSync(at("a"), at("c"));
      expect(events.happened()).toBe(true);
      events.close();
    },
  );

  test("there are none of a file system that another machine may change", () => {
    expect(FolderEvents.open(["/proc/self/status"])).toBeNull();
  });
});

test("a thread that ends by itself is told of, and the next files are watched by another one", async () => {
  write("a/f", "text");
  write(
    "thread.ts",
    `import { existsSync } from "node:fs";
declare const self: Worker;
self.onmessage = () => {
  if (existsSync(${JSON.stringify(at("second"))})) postMessage(true);
  else throw new Error("out of order");
};
`,
  );
  const changed = Promise.withResolvers<void>();
  const failed = Promise.withResolvers<string>();
  const watcher = new FileWatcher(pathToFileURL(at("thread.ts")), { changed: changed.resolve, failed: failed.resolve });
  watcher.set([at("a/f")]);
  expect(await failed.promise).toContain("out of order");
  write("second", "");
  watcher.set([at("a/f")]);
  await changed.promise;
  watcher.close();
});
