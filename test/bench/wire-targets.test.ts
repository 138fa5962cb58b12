/** The targets of `wire` are computed from the run: each from its row, the worst where a target is about all of them. */
import { expect, test } from "bun:test";
import { judge } from "../../bench/support/target.ts";
import { Figures, type Measured, type WireLoad } from "../../bench/wire/figures.ts";
import type { Measurement } from "../../bench/wire/load.ts";
import { targetsOf } from "../../bench/wire/targets.ts";
import { BARE_EOM, EOM_ONLY, TEN, type Variant } from "../../bench/wire/variants.ts";

const MAIN: WireLoad = { connections: 20, messagesPerConnection: 10, seed: null };
const SINGLE: WireLoad = { connections: 1, messagesPerConnection: 10, seed: null };
const CROWD: WireLoad = { connections: 200, messagesPerConnection: 10, seed: null };
const LOADS = [MAIN, SINGLE, CROWD];

const peer = (name: string, role: Variant["role"] = "peer"): Variant => ({ ...TEN, name, role, limit: null });
const LIBMILTER = peer("C on libmilter");
const GO = peer("go-milter");
const BARE_C = peer("bare C", "limit");
const BASES = { libmilter: LIBMILTER.name, bareC: BARE_C.name };

function measured(variant: Variant, load: WireLoad, perSecond: number, cpuMicros: number, p99: number): Measured {
  const measurement: Measurement = {
    completed: 1000,
    perSecond,
    cpuMicros,
    p50: 1,
    p99,
    p999: 1,
    generatorShare: 0.5,
    peakBytes: 1,
  };
  return { variant, load, rounds: [measurement] };
}

const ALL: readonly Measured[] = [
  measured(TEN, MAIN, 8000, 40, 100),
  measured(EOM_ONLY, MAIN, 9000, 12, 100),
  measured(BARE_EOM, MAIN, 20_000, 8, 50),
  measured(LIBMILTER, MAIN, 1000, 400, 200),
  measured(BARE_C, MAIN, 16_000, 80, 60),
  measured(GO, MAIN, 2000, 300, 300),
  measured(TEN, SINGLE, 3000, 40, 100),
  measured(LIBMILTER, SINGLE, 1500, 400, 200),
  measured(GO, SINGLE, 4000, 300, 10),
  measured(TEN, CROWD, 9000, 40, 5000),
  measured(LIBMILTER, CROWD, 2000, 400, 4000),
  measured(GO, CROWD, 3000, 300, 10_000),
  measured(BARE_C, CROWD, 30_000, 80, 10),
];

function targets(all: readonly Measured[], loads = LOADS) {
  return targetsOf(new Figures(all), MAIN, loads, BASES).map((target) => ({
    median: target.figure?.median,
    judgement: judge(target),
    note: target.note,
  }));
}

test("each from its row; limits are no peers", () => {
  expect(targets(ALL)).toEqual([
    { median: 0.1, judgement: "reached", note: "20 connections, 10 messages each" },
    { median: 8, judgement: "reached", note: "20 connections, 10 messages each" },
    { median: 4.5, judgement: "not reached", note: "200 connections, 10 messages each" },
    {
      median: 0.75,
      judgement: "not reached",
      note: "go-milter, 1 connection, 10 messages each (of 6 pairs of peer and load)",
    },
    { median: 0.5, judgement: "reached", note: "20 connections, 10 messages each" },
    { median: 1.5, judgement: "reached", note: "20 connections, 10 messages each" },
    {
      median: 1.25,
      judgement: "not reached",
      note: "C on libmilter, 200 connections, 10 messages each (of 2 pairs of peer and load)",
    },
  ]);
});

test("without the peers, only what needs none is measured", () => {
  const alone = ALL.filter(({ variant }) => variant === TEN || variant === EOM_ONLY || variant === BARE_EOM);
  expect(targets(alone, [MAIN]).map(({ judgement }) => judgement)).toEqual([
    "not measured",
    "not measured",
    "not measured",
    "not measured",
    "not measured",
    "reached",
    "not measured",
  ]);
});
