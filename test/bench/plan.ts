/** A plan of the benchmark for tests: as little as there can be. */
import type { Plan } from "../../bench/support/suite.ts";

export const PLAN: Plan = {
  isQuick: true,
  rounds: 1,
  warmMs: 1,
  settleMs: 0,
  measureMs: 1,
  connections: 1,
  points: [],
  seed: 1,
  generators: 1,
  workers: 1,
  peers: [],
  signal: new AbortController().signal,
  note() {},
};
