/** Who has which connection: one owner at a time, whatever the threads do at once. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { ConnectionTable } from "../../src/shared/connection-table.ts";
import type { Done, Order } from "../support/connection-table-worker.ts";

setDefaultTimeout(120_000);

/** A connection of a worker. @returns its slot */
function enter(table: ConnectionTable, row: number, duplicate = 100): number {
  const slot = table.reserve();
  table.enter(slot, row, duplicate + 1, duplicate, "inet:192.0.2.1:4000", 0);
  return slot;
}

describe("ConnectionTable", () => {
  test("each connection draws a number, which stays as it changes its owner", () => {
    const table = ConnectionTable.create(2, 1, 1);
    const draws = new Set<number>();
    for (let index = 0; index < 50; index++) {
      const slot = enter(table, 0);
      const draw = table.drawOf(slot);
      draws.add(draw);
      table.take(slot, 0);
      table.give(slot, 1, 7);
      expect(table.drawOf(slot)).toBe(draw);
      table.leave(slot, 1);
    }
    // Of 32 bits each.
    expect(draws.size).toBe(50);
  });

  test("what one thread enters, another that maps the memory reads", () => {
    const table = ConnectionTable.create(2, 4, 1);
    const other = new ConnectionTable(table.layout);
    const slot = table.reserve();
    expect(table.slotsOf(1)).toEqual([]);
    table.enter(slot, 1, 21, 20, "unix:/run/pmilter.sock", 3);
    expect(other.listenerOf(slot)).toBe(3);
    expect(other.drawOf(slot)).toBe(table.drawOf(slot));
    expect(other.slotsOf(1)).toEqual([slot]);
    expect(other.slotsOf(0)).toEqual([]);
    expect([other.descriptorOf(slot), other.duplicateOf(slot)]).toEqual([21, 20]);
    expect(other.peerOf(slot)).toBe("unix:/run/pmilter.sock");
    expect([other.countOf(0), other.countOf(1), other.total]).toEqual([0, 1, 1]);
  });

  test("the longest names of peers are kept whole, and no longer one reaches into the next slot", () => {
    const table = ConnectionTable.create(1, 2, 1);
    const [first, second] = [table.reserve(), table.reserve()];
    const longest = `unix:/${"x".repeat(106)}`;
    table.enterOwn(second, 8, "second", 0);
    table.enterOwn(first, 7, longest, 0);
    expect(table.peerOf(first)).toBe(longest);
    table.enterOwn(first, 7, `${longest}${"y".repeat(100)}`, 0);
    expect(table.peerOf(first)).toBe(longest);
    expect(table.duplicateOf(second)).toBe(8);
    expect(table.peerOf(second)).toBe("second");
  });

  test("a full one has no slot, until one is left; then it is that one", () => {
    const table = ConnectionTable.create(1, 3, 1);
    const slots = [enter(table, 0), enter(table, 0), enter(table, 0)];
    expect(slots).toEqual([0, 1, 2]);
    expect(table.isFull).toBe(true);
    expect(table.reserve()).toBe(-1);
    expect(table.total).toBe(3);
    expect(table.leave(1, 0)).toBe(true);
    expect(table.isFull).toBe(false);
    expect(table.reserve()).toBe(1);
  });

  test("who has taken a slot has it alone: its former owner can neither leave nor take it", () => {
    const table = ConnectionTable.create(2, 2, 1);
    const slot = enter(table, 0);
    expect(table.take(slot, 1)).toBe(false);
    expect(table.take(slot, 0)).toBe(true);
    expect(table.countOf(0)).toBe(0);
    expect(table.take(slot, 0)).toBe(false);
    expect(table.leave(slot, 0)).toBe(false);
    expect(table.total).toBe(1);
    table.give(slot, 1, 33);
    expect(table.leaveOwn(slot)).toBe(false);
    expect([table.countOf(1), table.descriptorOf(slot)]).toEqual([1, 33]);
    expect(table.leave(slot, 1)).toBe(true);
    expect([table.countOf(1), table.total]).toEqual([0, 0]);
    expect(table.leave(slot, 1)).toBe(false);
    expect(table.total).toBe(0);
  });

  test("a passed connection is taken once, whoever finds it", () => {
    const table = ConnectionTable.create(1, 2, 1);
    const slot = table.reserve();
    table.enterPassed(slot, 9, "inet:192.0.2.1:4000", 0);
    expect(table.passedSlots()).toEqual([slot]);
    expect(table.takePassed(slot)).toBe(true);
    expect(table.takePassed(slot)).toBe(false);
    expect(table.passedSlots()).toEqual([]);
    expect(table.leaveOwn(slot)).toBe(true);
    expect(table.total).toBe(0);
  });

  test("the use of a slot differs from one connection to the next", () => {
    const table = ConnectionTable.create(1, 1, 1);
    enter(table, 0);
    const use = table.useOf(0);
    table.take(0, 0);
    expect(table.useOf(0)).toBe(use);
    table.leaveOwn(0);
    enter(table, 0);
    expect(table.useOf(0)).not.toBe(use);
  });

  test("threads that come and go at once never have the same slot, and leave nothing behind", async () => {
    const table = ConnectionTable.create(3, 16, 1);
    const owners = new Int32Array(new SharedArrayBuffer(16 * 4));
    const work = (row: number) => {
      const { promise, reject, resolve } = Promise.withResolvers<Done>();
      const worker = new Worker(new URL("../support/connection-table-worker.ts", import.meta.url));
      worker.onmessage = ({ data }: MessageEvent<Done>) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
      worker.postMessage({ layout: table.layout, owners, row, turns: 100_000 } satisfies Order);
      return promise.finally(() => worker.terminate());
    };
    for (const { collisions, entered } of await Promise.all([work(0), work(1), work(2)])) {
      expect(collisions).toBe(0);
      expect(entered).toBeGreaterThan(1000);
    }
    expect([table.total, table.countOf(0), table.countOf(1), table.countOf(2)]).toEqual([0, 0, 0, 0]);
    expect(Array.from({ length: 17 }, () => table.reserve()).toSorted((a, b) => a - b)).toEqual([
      -1,
      ...Array.from({ length: 16 }, (_, index) => index),
    ]);
  });
});
