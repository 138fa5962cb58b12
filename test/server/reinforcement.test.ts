/** When a generation starts further workers, and when it ends them again. */
import { expect, test } from "bun:test";
import { CALM_MS, EARLY_MS, MAX_EXTRA, MAX_LOADING, RESERVE, STUCK_RETRY_MS } from "../../src/server/policy.ts";
import { Reinforcement, type Reinforced } from "../../src/server/workers/reinforcement.ts";

const BLOCK_TIMEOUT_MS = 2000;
const PROMPT: Reinforced = { silentMs: 0, state: "ready" };
const silent = (silentMs: number): Reinforced => ({ silentMs, state: "ready" });
const LOADING: Reinforced = { silentMs: 0, state: "loading" };
const many = (count: number, worker: Reinforced) => Array.from({ length: count }, () => worker);

const reinforcement = () => new Reinforcement(2, BLOCK_TIMEOUT_MS);

test("before a loss: one further worker, once all are silent for half of block_timeout", () => {
  const of = reinforcement();
  const [just, over] = [silent(BLOCK_TIMEOUT_MS / 2), silent(BLOCK_TIMEOUT_MS / 2 + 1)];
  expect(of.look(1, [just, just]).further).toBeNull();
  expect(of.look(1, [over, PROMPT])).toEqual({ areMoreSilent: true, further: null });
  expect(of.look(1, [over, over])).toEqual({ areMoreSilent: true, further: "start" });
  expect(of.look(1, [over, over])).toEqual({ areMoreSilent: false, further: "start" });
  expect(of.look(1, [over, over, LOADING]).further).toBeNull();
});

test("after a loss: the reserve and one for each silent worker, which is found early", () => {
  const of = reinforcement();
  of.lost(0);
  expect(of.look(1, many(2 + RESERVE - 1, PROMPT)).further).toBe("start");
  expect(of.look(1, many(2 + RESERVE, PROMPT)).further).toBeNull();
  const withSilent = [...many(2 + RESERVE - 1, PROMPT), silent(EARLY_MS + 1)];
  expect(of.look(1, withSilent).further).toBe("start");
  expect(of.look(1, many(2 + MAX_EXTRA, silent(EARLY_MS + 1))).further).toBeNull();
});

test("few load at a time, and after a failure the next waits", () => {
  const of = reinforcement();
  of.lost(0);
  expect(of.look(1, [PROMPT, ...many(MAX_LOADING, LOADING)]).further).toBeNull();
  of.started(10);
  of.failed(20);
  expect(of.look(20 + STUCK_RETRY_MS, [PROMPT]).further).toBeNull();
  expect(of.look(21 + STUCK_RETRY_MS, [PROMPT]).further).toBe("start");
});

test("they end once no worker was lost and none was started for a while", () => {
  const of = reinforcement();
  of.lost(0);
  of.started(1);
  const all = many(2 + RESERVE, PROMPT);
  expect(of.look(CALM_MS - 1, all).further).toBeNull();
  expect(of.isLosing(CALM_MS - 1)).toBe(true);
  expect(of.look(CALM_MS, all).further).toBeNull();
  expect(of.isLosing(CALM_MS)).toBe(false);
  expect(of.look(CALM_MS + 2, all).further).toBe("end");
});
