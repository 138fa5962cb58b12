/** What a worker shows the main thread of itself: its lock, its beat, its busy slot, its counters. */
import { describe, expect, test } from "bun:test";
import { Counters, WORKER_COUNTERS } from "../../src/counters.ts";
import { WorkerRows } from "../../src/shared/worker-rows.ts";

describe("WorkerRows", () => {
  test("the slot whose handler runs is known, for that worker alone", () => {
    const rows = WorkerRows.create(2);
    expect(rows.busySlot(0)).toBeNull();
    rows.enter(0, 0);
    expect([rows.busySlot(0), rows.busySlot(1)]).toEqual([0, null]);
    rows.enter(1, 3);
    rows.leave(0);
    expect([rows.busySlot(0), rows.busySlot(1)]).toEqual([null, 3]);
  });

  test("a row is locked by its worker while it writes, or claimed for good, never both", () => {
    const rows = WorkerRows.create(2);
    expect(rows.lock(1)).toBe(true);
    expect([rows.claim(1), rows.isClaimed(1)]).toEqual([false, false]);
    rows.unlock(1);
    expect([rows.claim(1), rows.isClaimed(1), rows.lock(1)]).toEqual([true, true, false]);
    expect([rows.isClaimed(0), rows.lock(0)]).toEqual([false, true]);
    rows.open(1);
    expect(rows.lock(1)).toBe(true);
  });

  test("beats, heap and counts are of one row, and a new worker begins at nothing", () => {
    const rows = WorkerRows.create(2);
    rows.beat(1, 5 * 2 ** 20);
    rows.count(1, "messages");
    rows.count(1, "messages");
    rows.count(1, "internalErrors");
    const counts = (row: number) => new Counters().totals([rows.counters(row)]);
    expect([rows.beats(0), rows.beats(1), rows.heapBytes(1)]).toEqual([0, 1, 5 * 2 ** 20]);
    rows.leave(1);
    expect([rows.beats(0), rows.beats(1), rows.heapBytes(1)]).toEqual([0, 2, 5 * 2 ** 20]);
    expect(counts(1)).toMatchObject({ messages: 2, internalErrors: 1, accepted: 0 });
    expect(counts(0)).toMatchObject({ messages: 0, internalErrors: 0 });
    rows.open(1);
    expect([rows.beats(1), rows.heapBytes(1), counts(1).messages]).toEqual([0, 0, 0]);
  });

  test("rows do not touch each other, whatever is counted last in one", () => {
    const rows = WorkerRows.create(3);
    for (const counter of WORKER_COUNTERS) rows.count(1, counter);
    rows.beat(1, 2 ** 20);
    rows.enter(1, 7);
    for (const row of [0, 2]) {
      expect([rows.busySlot(row), rows.beats(row), rows.isClaimed(row)]).toEqual([null, 0, false]);
      expect(rows.counters(row)).toEqual(WORKER_COUNTERS.map(() => 0));
    }
  });
});
