/** Threads that do not end for a long time: what they keep, and what is left for everybody else. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { describeWith, IS_LINUX, outsideTool } from "../support/available.ts";
import { waitFor } from "../support/temp.ts";
import { begin, expectCodes, mail, pass, startFaulty, statusOf } from "./support.ts";

setDefaultTimeout(180_000);

/** Native calls, that end while the test runs. */
const SLEEPS = { name: "sleeps", ms: 15_000 };
const SLEEPING = `
import { defineFilter } from "pmilter";
export default defineFilter({
  name: "${SLEEPS.name}",
  envfrom: (_, sender) => void (sender.includes("sleep") && Bun.sleepSync(${SLEEPS.ms})),
});
`;
const SLEEP = mail("<sleep@example.com>");

const INNOCENT = 60;

describeWith(outsideTool("sh"), "descriptors", () => {
  test.skipIf(!IS_LINUX)(
    "stuck-descriptors: what stuck threads keep leaves less room, no open connection is closed, and all comes back",
    async () => {
      await using server = await startFaulty({
        descriptors: 420,
        config: '[[filter]]\npath = "sleeping.ts"\n',
        files: { "sleeping.ts": SLEEPING },
      });
      const sessions = await Promise.all(
        Array.from({ length: INNOCENT }, (_, index) => begin(server, { name: `client${index}.example.net` })),
      );
      const guilty = await Promise.all(Array.from({ length: 4 }, () => begin(server)));
      // Each loss leaves the descriptors of all that were with its worker to a thread that does not end.
      for (const session of guilty) expectCodes(await session.ask(SLEEP), "t");
      const { counters, problems, stuckThreads } = await statusOf(server);
      expect(stuckThreads).toBeGreaterThan(2);
      expect(counters.blocked).toBeGreaterThan(2);
      expect(problems.join()).toContain("file descriptors");
      await server.log.next(/some of which large bodies take, or threads that do not end\): further ones wait/);

      await waitFor(async () => (await statusOf(server)).stuckThreads === 0, {
        what: "threads to end",
        timeoutMs: 60_000,
      });
      for (const [index, session] of sessions.entries()) await pass(session, `client${index}.example.net`);
      expect((await statusOf(server)).counters.sessionsLost).toBe(0);
      using next = await begin(server);
      await pass(next);
      for (const session of [...sessions, ...guilty]) session[Symbol.dispose]();
    },
  );

  test.skipIf(!IS_LINUX)(
    "stuck-poll: the event loop of a thread that does not end is told of no connection that others have",
    async () => {
      await using server = await startFaulty({
        config: '[[filter]]\npath = "sleeping.ts"\n',
        files: { "sleeping.ts": SLEEPING },
      });
      const sessions = await Promise.all(Array.from({ length: 20 }, () => begin(server)));
      const [guilty, ...others] = sessions;
      expectCodes(await guilty!.ask(SLEEP), "t");
      expect((await statusOf(server)).stuckThreads).toBeGreaterThan(0);
      for (const session of others) await pass(session);
      expect(staleEntries(server.process.pid)).toEqual([]);
      for (const session of sessions) session[Symbol.dispose]();
    },
  );
});

/** Entries of a process's event polls that are for another socket than the one that has their number now. */
function staleEntries(pid: number): string[] {
  const stale: string[] = [];
  let polls = 0;
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    if (linkOf(pid, name) !== "anon_inode:[eventpoll]") continue;
    polls += 1;
    const entries = readFileSync(`/proc/${pid}/fdinfo/${name}`, "utf8");
    for (const [, descriptor, inode] of entries.matchAll(/^tfd: +(\d+) .* ino:([0-9a-f]+) /gm)) {
      const now = /^socket:\[(\d+)\]$/.exec(linkOf(pid, descriptor!))?.[1];
      if (now !== undefined && Number(now) !== Number.parseInt(inode!, 16)) stale.push(`${name}: ${descriptor}`);
    }
  }
  // The main thread's, that of the stuck one and that of its successor.
  expect(polls).toBeGreaterThan(2);
  return stale;
}

function linkOf(pid: number, descriptor: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${descriptor}`);
  } catch {
    return "";
  }
}
