/** How a lost worker is replaced: at once, and after delays if that fails. */
import { describe, expect, test } from "bun:test";
import { respawnDelay, STABLE_MS } from "../../src/server/policy.ts";
import { Respawn } from "../../src/server/workers/respawn.ts";

/** Its attempts, each of which ends as `outcome` says. */
function respawnOf(outcome: () => Promise<unknown>) {
  const places: number[] = [];
  const lines: string[] = [];
  const state = { startsNone: false };
  const second = Promise.withResolvers<void>();
  const respawn = new Respawn(2, {
    spawn: (place) => {
      places.push(place);
      if (places.length === 2) second.resolve();
      return outcome();
    },
    startsNone: () => state.startsNone,
    log: (level, text) => void lines.push(`${level}: ${text}`),
  });
  return { respawn, places, lines, state, second: second.promise };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

test("a worker is replaced at once, a further worker never, and none when the generation has ended", () => {
  const { respawn, places, state } = respawnOf(() => Promise.resolve());
  respawn.replace(1);
  respawn.replaceDead(0, 0);
  respawn.replace(2);
  respawn.replaceDead(2, 0);
  expect(places).toEqual([1, 0]);
  state.startsNone = true;
  respawn.replace(1);
  expect(places).toEqual([1, 0]);
});

test("a worker that dies again soon after its start is replaced after a delay", async () => {
  const { respawn, places } = respawnOf(() => Promise.resolve());
  respawn.replaceDead(0, 0);
  respawn.replaceDead(0, STABLE_MS);
  expect(places).toEqual([0, 0]);
  respawn.replaceDead(0, 0);
  await turn();
  expect(places).toEqual([0, 0]);
});

test("an attempt that fails in its first moment is followed by a delay, however long the worker before it lived", async () => {
  const { respawn, places, lines, state, second } = respawnOf(() => Promise.reject(new Error("no descriptors")));
  respawn.replaceDead(0, STABLE_MS);
  await turn();
  expect(places).toEqual([0]);
  expect(lines).toEqual(["crit: a worker could not be replaced: Error: no descriptors"]);
  await second;
  expect(places).toEqual([0, 0]);
  state.startsNone = true;
});

describe("the delays", () => {
  test.each([
    [1, true, 0],
    [2, true, 100],
    [20, true, 1000],
    [1, false, 0],
    [2, false, 200],
    [20, false, 30_000],
  ] as const)("%d in a row, has loaded: %p: %d ms", (deaths, hasLoaded, ms) => {
    expect(respawnDelay(deaths, hasLoaded)).toBe(ms);
  });
});
