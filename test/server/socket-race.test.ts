/** Servers that are started at once on one unix socket: one of them serves, and the others end with the known error. */
import { afterEach, expect, setDefaultTimeout, test } from "bun:test";
import { lstatSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connectUnix, close } from "../../src/net/libc.ts";
import { Lines } from "../support/pmilter.ts";
import { Cleanup } from "./sockets.ts";

setDefaultTimeout(120_000);

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const LISTENER = join(import.meta.dir, "../../src/server/listening/listener.ts");
const CONTENDERS = 3;
const ROUNDS = 50;

/**
 * A process that begins to listen at `path` the moment that there is a file for the round, says what became of it, and
 * waits for a line: a winner closes its socket then and leaves the file, as if it had been killed.
 */
function contender(path: string, folder: string, log: Lines): Bun.Subprocess<"pipe", "pipe", "inherit"> {
  const child = Bun.spawn({
    cmd: [
      process.execPath,
      "-e",
      `const fs = require("node:fs"); const { existsSync, lstatSync, renameSync } = fs;
       // Between the look at what is there and its replacement: others have time to look as well.
       fs.renameSync = (from, to) => { Bun.sleepSync(5); renameSync(from, to); };
       const { openListener } = await import(${JSON.stringify(LISTENER)});
       const path = ${JSON.stringify(path)};
       const options = { mode: 0o600, uid: null, gid: null, backlog: 8, onConnection() {}, onError(error) { throw error; } };
       const reader = Bun.stdin.stream().getReader();
       for (let round = 1; round <= ${ROUNDS}; round++) {
         while (!existsSync(${JSON.stringify(folder)} + "/go-" + round));
         const result = await openListener({ kind: "unix", path }, options).then((listener) => listener, (error) => error);
         if (result instanceof Error) console.log(round, result.message);
         else console.log(round, "listens", lstatSync(path).ino);
         await reader.read();
         if (!(result instanceof Error)) result.close({ unlink: false });
         console.log(round, "closed");
       }`,
    ],
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  cleanup.add(() => child.kill());
  void log.read(child.stdout);
  return child;
}

test("live-socket: of three that start at once on a stale socket one listens, and it is found at the path", async () => {
  const folder = cleanup.folder();
  const path = join(folder, "s");
  const contenders = Array.from({ length: CONTENDERS }, () => {
    const log = new Lines();
    return { log, child: contender(path, folder, log) };
  });
  for (let round = 1; round <= ROUNDS; round++) {
    writeFileSync(join(folder, "next"), "");
    renameSync(join(folder, "next"), join(folder, `go-${round}`));
    const said = await Promise.all(contenders.map(({ log }) => log.next(new RegExp(`^${round} (?!closed)`))));
    const winners = said.filter((line) => line.includes("listens"));
    expect(winners).toEqual([`${round} listens ${lstatSync(path).ino}`]);
    expect(said.filter((line) => line.includes(`: another server answers at ${path}`))).toHaveLength(CONTENDERS - 1);
    close(connectUnix(path));
    for (const { child } of contenders) {
      child.stdin.write("close\n");
      child.stdin.flush();
    }
    await Promise.all(contenders.map(({ log }) => log.next(new RegExp(`^${round} closed`))));
  }
});
