/** While no worker can take sessions, mail servers still get an answer, and in time. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { UNPLACED_MS } from "../../src/server/policy.ts";
import {
  ABORT,
  begin,
  connect,
  expectCodes,
  FAULTY,
  helo,
  mail,
  OPTNEG,
  pass,
  RawClient,
  RCPT,
  startFaulty,
  statusOf,
} from "./support.ts";

setDefaultTimeout(120_000);

/** Sendmail waits so long for a reply. */
const SENDMAIL_MS = 10_000;

/** The filter starts only while there is no file `broken`, which a handler makes before it ends its worker. */
const FRAGILE = FAULTY.replace(
  'name: "faulty",',
  `name: "faulty",
  start(_options: unknown, home: { folder: string }) {
    folder = home.folder;
    if (existsSync(folder + "/broken")) throw new Error("cannot start now");
  },`,
)
  .replace("function fail(", 'let folder = "";\nfunction fail(')
  .replace(
    'if (word.includes("exit"))',
    'if (word.includes("exit")) writeFileSync(folder + "/broken", "");\n  if (word.includes("exit"))',
  )
  .replace("\nimport", '\nimport { existsSync, writeFileSync } from "node:fs";\nimport');

test("no-worker: a worker that cannot be replaced: connections get the fallback in time, and are served again once one can", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": FRAGILE } });
  using between = await begin(server, { name: "between.example.net" });
  using waiting = await RawClient.connect(server.addresses[0]!);
  expectCodes(await waiting.ask(OPTNEG), "O");
  using session = await begin(server);
  expectCodes(await session.ask(mail("<exit@example.com>")), "t");
  expect(existsSync(join(server.dir, "broken"))).toBe(true);

  // Sessions that were there, one that is in the middle of it, and one that is new.
  using fresh = await RawClient.connect(server.addresses[0]!);
  const answers = [between.ask(mail()), session.ask(mail()), waiting.ask(connect()), fresh.ask(OPTNEG)];
  expect(await Promise.all(answers)).toEqual(["t", "t", "t", "O"]);
  expectCodes(await fresh.ask(connect()), "t");
  // So long they wait for a worker.
  expect(UNPLACED_MS).toBeLessThan(SENDMAIL_MS);
  expect(server.log.text).toMatch(/\[crit\]: no worker can take sessions; .* get the fallback: tempfail/);
  expect(server.log.text).toMatch(/\[crit\]: a worker could not be replaced: .*cannot start now/);
  const status = await statusOf(server);
  expect(status).toMatchObject({ health: "degraded", problems: ["no worker can take sessions"] });
  expect(status.counters.sessionsLost).toBe(0);

  rmSync(join(server.dir, "broken"));
  await server.log.next(/workers take sessions again/);
  using after = await begin(server);
  await pass(after);
  expect((await statusOf(server)).health).toBe("ok");
  // A session that began before is with the workers again; one that was refused at its beginning stays refused.
  await between.send(ABORT);
  await pass(between, "between.example.net");
  expectCodes(await fresh.ask(helo(), mail(), RCPT), "ttt");
});

test("no-worker: after half a minute the process ends, for a supervisor to start it again", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": FRAGILE } });
  using session = await begin(server);
  expectCodes(await session.ask(mail("<exit@example.com>")), "t");
  expect(await server.process.exited).toBe(1);
  await server.log.next(/\[emerg\]: no worker could take sessions for 30 s; the server ends/);
});

test("no-worker: with a fallback that lets pass, it does", async () => {
  await using server = await startFaulty({ files: { "faulty.ts": FRAGILE }, server: { on_error: "continue" } });
  using session = await begin(server);
  expectCodes(await session.ask(mail("<exit@example.com>")), "c");
  using fresh = await RawClient.connect(server.addresses[0]!);
  expectCodes(await fresh.ask(OPTNEG), "O");
  expectCodes(await fresh.ask(connect(), helo(), mail()), "ccc");
});
