/** What only reading a handler shows, such as a type error, is in the log after a reload that took, and refuses nothing. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runPmilter, startPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const RIGHT = `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  envfrom(session) { return session.helo === "" ? reject() : undefined; },
});
`;
const WRONG = RIGHT.replace("session.helo", "session.hello");
const DROPPED = RIGHT.replace("return session", "reject(); return session");
const config = '[[filter]]\npath = "filter.ts"\n';

function start(text: string, name = "filter.ts", env: Record<string, string> = {}) {
  return startPmilter({
    config: config.replace("filter.ts", name),
    server: { watch: false, workers: 1, log_level: "info", stop_timeout: 0.1 },
    files: { [name]: text },
    env,
  });
}

describe("after a reload", () => {
  test("type-error: a warning with file and line, for a verdict that nobody returns as well", async () => {
    await using server = await start(RIGHT);
    writeFileSync(join(server.dir, "filter.ts"), WRONG);
    expect((await runPmilter(["reload", "-c", server.configFile])).exitCode).toBe(0);
    expect(await server.log.next(/warn\].*filter\.ts/)).toMatch(
      /\[warn\]: reload: filter\.ts:3:37: TS2551: Property 'hello' does not exist on type /,
    );
    const from = server.log.all.length;
    writeFileSync(join(server.dir, "filter.ts"), DROPPED);
    expect((await runPmilter(["reload", "-c", server.configFile])).exitCode).toBe(0);
    expect(await server.log.next(/warn\].*filter\.ts/, { from })).toContain(
      "[warn]: reload: filter.ts:3:22: the verdict of reject() is not returned",
    );
    expect(await server.stop()).toBe(0);
  });

  test("nothing at a start, for the same code again, or in JavaScript", async () => {
    await using tmp = await tempDir("review");
    await using server = await start(WRONG, "filter.ts", { TMPDIR: tmp.path });
    expect((await runPmilter(["reload", "-c", server.configFile])).exitCode).toBe(0);
    // The review would have begun before the answer: it has a folder there.
    expect(readdirSync(tmp.path)).toEqual([]);
    expect(await server.stop()).toBe(0);
    expect(server.log.text).not.toMatch(/\[warn\].*filter\.ts/);

    await using script = await start(RIGHT, "filter.js", { TMPDIR: tmp.path });
    writeFileSync(join(script.dir, "filter.js"), WRONG);
    expect((await runPmilter(["reload", "-c", script.configFile])).exitCode).toBe(0);
    expect(readdirSync(tmp.path)).toEqual([]);
    expect(await script.stop()).toBe(0);
    expect(script.log.text).not.toMatch(/\[warn\].*filter\.js/);
  });

  test("a stop, and another reload, end it and leave nothing behind", async () => {
    await using tmp = await tempDir("review");
    await using server = await start(RIGHT, "filter.ts", { TMPDIR: tmp.path });
    for (const text of [WRONG, RIGHT, WRONG]) {
      writeFileSync(join(server.dir, "filter.ts"), text);
      expect((await runPmilter(["reload", "-c", server.configFile])).exitCode).toBe(0);
    }
    expect(await server.stop()).toBe(0);
    expect(readdirSync(tmp.path)).toEqual([]);
    expect(server.log.text).not.toMatch(/\[(error|crit)\]/);
  });
});
