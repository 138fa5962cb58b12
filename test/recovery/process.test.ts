/** What one process cannot hold back: it ends, and the next start serves again. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { startPmilter } from "../support/pmilter.ts";
import { begin, mail, pass, startFaulty } from "./support.ts";

setDefaultTimeout(120_000);

const ENDING = (body: string) => `
import { closeSync } from "node:fs";
import { defineFilter } from "pmilter";
export default defineFilter({
  envfrom(_, sender) { if (sender.includes("end")) { ${body} } },
  eom(session) { session.message.addHeader("X-Seen", session.helo + " " + session.message.sender.raw); },
});
`;

test.each([
  ["process.abort()", "process.abort();"],
  ["a signal to its own process", 'process.kill(process.pid, "SIGKILL");'],
])(
  "abort-process: %s ends the process; its connections end at once, and the next start takes the socket",
  async (_, body) => {
    await using server = await startFaulty({ files: { "faulty.ts": ENDING(body) } });
    using session = await begin(server);
    await session.send(mail("<end@example.com>"));
    await session.ended();
    await server.process.exited;
    expect(server.process.signalCode).not.toBeNull();

    await using next = await startPmilter({
      listen: server.addresses[0]!,
      config: '[[filter]]\npath = "faulty.ts"\n',
      files: { "faulty.ts": ENDING("") },
    });
    using after = await begin(next);
    await pass(after);
  },
);

test("closes-descriptors: a handler that closes descriptors which are not its own: the process ends with an error, and does not linger", async () => {
  await using server = await startFaulty({
    files: { "faulty.ts": ENDING("for (let fd = 3; fd < 300; fd++) try { closeSync(fd); } catch {}") },
  });
  using session = await begin(server);
  await session.send(mail("<end@example.com>"));
  expect(await server.process.exited).toBe(1);
  expect(server.log.text).toMatch(/\[emerg\]: the socket at .* was closed by something else in this process/);
});
