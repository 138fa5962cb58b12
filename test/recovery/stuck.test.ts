/** Threads that do not end for a long time: what they keep, and what is left for everybody else. */
import { expect, setDefaultTimeout, test } from "bun:test";
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
      await server.log.next(/some of which threads keep that do not end\): further ones wait/);

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
});
