/** The load generator: a message on each connection that rests, and messages at a pace. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { askServer } from "../../src/server/control/control.ts";
import type { Status } from "../../src/server/control/status.ts";
import { startBare, startReal } from "../../bench/support/servers.ts";
import type { Plan } from "../../bench/support/suite.ts";
import { measureGenerators, sendRound, startGenerators } from "../../bench/wire/load.ts";
import { PLAN as SMALLEST } from "./plan.ts";

setDefaultTimeout(120_000);

const PLAN: Plan = { ...SMALLEST, generators: 2 };
const { signal } = PLAN;

test.skipIf(!IS_LINUX)("idle: each round is a message on each connection, however many there are", async () => {
  await using server = await startReal({ handlers: "ten", workers: 1, signal });
  const accepted = async () => ((await askServer(server.control!, { command: "status" })) as Status).counters.accepted;
  await using generators = await startGenerators(PLAN, server, {
    kind: "idle",
    connections: 150,
    messagesPerConnection: 1000,
    changes: 1,
  });
  expect(await accepted()).toBe(0);
  for (const round of [1, 2, 3]) {
    await sendRound(generators);
    expect(await accepted()).toBe(round * 150);
  }
});

test.skipIf(!IS_LINUX)("perSecond: no message before it is due, whatever the server could do", async () => {
  const PER_SECOND = 200;
  await using server = await startBare({ handlers: "ten", workers: 1, signal });
  const began = performance.now();
  await using generators = await startGenerators(PLAN, server, {
    kind: "mail",
    connections: 4,
    changes: 1,
    perSecond: PER_SECOND,
  });
  let completed = 0;
  while (completed < 100) completed += (await measureGenerators(generators, 50)).completed;
  expect((performance.now() - began) / 1000).toBeGreaterThanOrEqual((completed - PLAN.generators) / PER_SECOND);
});
