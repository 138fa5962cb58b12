/** The load generator against a running server: what it says it sends arrives, and a wrong answer ends the measurement. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { type Load, measureLoad } from "../../bench/wire/load.ts";
import type { Plan } from "../../bench/support/suite.ts";
import { startPmilter } from "../support/pmilter.ts";
import { PLAN as SMALLEST } from "./plan.ts";

setDefaultTimeout(120_000);

const PLAN: Plan = { ...SMALLEST, warmMs: 50, measureMs: 1500, connections: 4 };

/** Takes mail of one size only. */
const COUNTING = `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  name: "counting",
  envfrom(session) { session.state.bytes = 0; },
  body(session, chunk) { session.state.bytes += chunk.length; },
  eom(session) {
    const { message, state } = session;
    const seen = [message.recipients.length, [...message.headers].length, state.bytes].join();
    if (seen !== "3,20,3000000") return reject("550 5.7.1 " + seen);
    message.addHeader("X-Seen", seen);
  },
});`;

async function measured(load: Partial<Load>) {
  await using server = await startPmilter({
    server: { workers: 1 },
    files: { "counting.ts": COUNTING },
    config: `[[filter]]\npath = "counting.ts"`,
  });
  const running = { socket: join(server.dir, "pmilter.sock"), pid: server.process.pid, command: "" };
  return await measureLoad(
    PLAN,
    { ...running, [Symbol.asyncDispose]: () => Promise.resolve() },
    { kind: "mail", connections: 4, changes: 1, ...load },
  );
}

test("mail that is larger than a socket's buffer arrives whole, and is counted in parts", async () => {
  const { perSecond, cpuMicros } = await measured({ mails: [{ recipients: 3, headers: 20, bodyBytes: 3_000_000 }] });
  expect(perSecond).toBeGreaterThan(0);
  expect(cpuMicros).toBeGreaterThan(0);
});

test("an answer that was not to be expected ends the measurement", async () => {
  await expect(measured({ mails: [{ recipients: 3, headers: 20, bodyBytes: 3000 }] })).rejects.toThrow(
    'load generator: reply "y" while awaiting eom',
  );
});
