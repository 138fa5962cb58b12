/** A process without a descriptor left: it goes on with what it has, says so, and recovers by itself. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { describeWith, IS_LINUX, outsideTool } from "../support/available.ts";
import { Lines, MAIN, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { connect, expectCodes, helo, OPTNEG, RawClient, unknown } from "./support.ts";

setDefaultTimeout(120_000);

/** Opens all that it can, and closes it when it is told to. */
const LEAKING = `
import { closeSync, openSync } from "node:fs";
import { defineFilter } from "pmilter";
const opened: number[] = [];
export default defineFilter({
  unknown(_, line) {
    if (line === "leak") for (;;) try { opened.push(openSync("/dev/null", "r")); } catch { return; }
    if (line === "free") for (const fd of opened.splice(0)) closeSync(fd);
  },
});
`;

const LIMIT = 300;

describeWith(outsideTool("sh"), "without descriptors", () => {
  test.skipIf(!IS_LINUX)(
    "no-descriptors: sessions go on, new connections wait without using up a core, nothing is reloaded, and all comes back",
    async () => {
      await using dir = await tempDir("starved");
      const configFile = await writeProject(dir.path, {
        server: { workers: 2, block_timeout: 0.5 },
        config: '[[filter]]\npath = "filter.ts"\n',
        files: { "filter.ts": LEAKING },
      });
      const child = Bun.spawn(
        ["sh", "-c", `ulimit -n ${LIMIT}; exec "$0" "$@"`, process.execPath, MAIN, "-c", configFile],
        {
          stdio: ["ignore", "ignore", "pipe"],
          env: { ...process.env, XDG_RUNTIME_DIR: "" },
        },
      );
      const log = new Lines();
      const reading = log.read(child.stderr);
      try {
        await log.next(/ready/);
        const address = `unix:${dirname(configFile)}/pmilter.sock`;
        using session = await RawClient.connect(address);
        expectCodes(await session.ask(OPTNEG), "O");
        expectCodes(await session.ask(unknown("leak")), "c");
        expect(await log.next(/no file descriptors are left/)).toContain("[crit]");

        using waiting = await RawClient.connect(address);
        await waiting.send(OPTNEG, connect(), helo());
        await Bun.write(`${dir.path}/filter.ts`, `${LEAKING}\n// changed\n`);
        const before = cpuMs(child.pid);
        await Bun.sleep(1500);
        expect(cpuMs(child.pid) - before).toBeLessThan(500);
        expect(waiting.replies).toEqual([]);
        expectCodes(await session.ask(unknown("more")), "c");
        expect(log.text).not.toMatch(/\]: reload: /);

        expectCodes(await session.ask(unknown("free")), "c");
        await log.next(/there are file descriptors again/);
        expectCodes(await waiting.codes(3), "Occ");
        await log.next(/reload: generation 2 serves/);
        expect(child.exitCode).toBeNull();
      } finally {
        child.kill("SIGTERM");
        await child.exited;
        await reading;
      }
    },
  );
});

/** Processor time of a process so far, in milliseconds, in steps of ten. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
