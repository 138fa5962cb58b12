/** Where connections go: evenly over the workers, and to the emptiest after others have ended. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import { descriptorsOf, descriptorsSettle, OPTNEG, RawClient, UNKNOWN } from "./wire.ts";

setDefaultTimeout(120_000);

const CONNECTIONS = 200;

/** A filter that tells its thread to whoever asks. */
const WHO = `import { threadId } from "node:worker_threads";
import { defineFilter, reject } from "pmilter";
export default defineFilter({ unknown: () => reject("550 5.7.1 " + threadId) });
`;

interface Placed {
  readonly client: RawClient;
  readonly worker: string;
}

async function open(server: Pmilter): Promise<Placed> {
  const client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oy");
  return { client, worker: client.replies[1]!.payload.toString().slice(10, -1) };
}

function openAll(server: Pmilter, count: number): Promise<Placed[]> {
  return Promise.all(Array.from({ length: count }, () => open(server)));
}

function loadsOf(placed: readonly Placed[]): number[] {
  return Object.values(Object.groupBy(placed, ({ worker }) => worker)).map((group) => group!.length);
}

/** How many descriptors it has when it rests, once each worker has had connections: an event loop takes some at its first. */
async function restingDescriptors(server: Pmilter, workers: number): Promise<number> {
  for (const { client } of await openAll(server, 4 * workers)) client.end();
  let [count, times] = [-1, 0];
  await waitFor(
    () => {
      const now = descriptorsOf(server);
      times = now === count ? times + 1 : 0;
      count = now;
      return times === 20;
    },
    { what: "descriptors at rest" },
  );
  return count;
}

function expectEven(placed: readonly Placed[], workers: number): void {
  const loads = loadsOf(placed);
  expect(loads).toHaveLength(workers);
  const even = placed.length / workers;
  for (const load of loads) expect(Math.abs(load - even)).toBeLessThanOrEqual(even * 0.1);
}

// With six not all of them listen.
describe.skipIf(!IS_LINUX).each([2, 3, 4, 6])("placement over %d workers", (workers) => {
  test("a burst is spread evenly, and again after half have closed", async () => {
    await using server = await startPmilter({
      server: { workers, listen_backlog: 512, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "who.ts"',
      files: { "who.ts": WHO },
    });
    const before = await restingDescriptors(server, workers);
    const placed = await openAll(server, CONNECTIONS);
    expectEven(placed, workers);

    for (const { client } of placed.splice(0, CONNECTIONS / 2)) client.end();
    // Two descriptors each.
    await descriptorsSettle(server, before + CONNECTIONS);
    expectEven([...placed, ...(await openAll(server, CONNECTIONS / 2))], workers);
  });
});

test.skipIf(!IS_LINUX)("placement fills the emptiest worker after all connections of one have closed", async () => {
  await using server = await startPmilter({
    server: { workers: 2, listen_backlog: 512, stop_timeout: 0.1 },
    config: '[[filter]]\npath = "who.ts"',
    files: { "who.ts": WHO },
  });
  const before = await restingDescriptors(server, 2);
  const placed = await openAll(server, CONNECTIONS);
  const emptied = placed[0]!.worker;
  const left = placed.filter(({ worker }) => worker !== emptied);
  for (const { client, worker } of placed) if (worker === emptied) client.end();
  await descriptorsSettle(server, before + 2 * left.length);

  const next = await openAll(server, left.length);
  // Near the end the other may keep some: its share is not exact.
  const elsewhere = next.filter(({ worker }) => worker !== emptied);
  expect(elsewhere.length).toBeLessThan(left.length * 0.1);
  expectEven([...left, ...next], 2);
});
