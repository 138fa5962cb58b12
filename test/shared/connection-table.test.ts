/** Who has which connection: one owner at a time, whatever the threads do at once. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Roster } from "../../src/shared/connection-table.ts";
import type { Done, Order } from "../support/roster-worker.ts";

setDefaultTimeout(120_000);

/** A connection of a worker. @returns its slot */
function enter(roster: Roster, row: number, held = 100): number {
  const slot = roster.reserve();
  roster.enter(slot, row, held + 1, held, "inet:192.0.2.1:4000");
  return slot;
}

describe("Roster", () => {
  test("what one thread enters, another that maps the memory reads", () => {
    const roster = Roster.create(2, 4, 1);
    const other = new Roster(roster.layout);
    const slot = roster.reserve();
    expect(roster.slotsOf(1)).toEqual([]);
    roster.enter(slot, 1, 21, 20, "unix:/run/pmilter.sock");
    expect(other.slotsOf(1)).toEqual([slot]);
    expect(other.slotsOf(0)).toEqual([]);
    expect([other.descriptorOf(slot), other.heldOf(slot)]).toEqual([21, 20]);
    expect(other.peerOf(slot)).toBe("unix:/run/pmilter.sock");
    expect([other.countOf(0), other.countOf(1), other.total]).toEqual([0, 1, 1]);
  });

  test("the longest names of peers are kept whole, and no longer one reaches into the next slot", () => {
    const roster = Roster.create(1, 2, 1);
    const [first, second] = [roster.reserve(), roster.reserve()];
    const longest = `unix:/${"x".repeat(106)}`;
    roster.enterOwn(second, 8, "second");
    roster.enterOwn(first, 7, longest);
    expect(roster.peerOf(first)).toBe(longest);
    roster.enterOwn(first, 7, `${longest}${"y".repeat(100)}`);
    expect(roster.peerOf(first)).toBe(longest);
    expect(roster.heldOf(second)).toBe(8);
    expect(roster.peerOf(second)).toBe("second");
  });

  test("a full one has no slot, until one is left; then it is that one", () => {
    const roster = Roster.create(1, 3, 1);
    const slots = [enter(roster, 0), enter(roster, 0), enter(roster, 0)];
    expect(slots).toEqual([0, 1, 2]);
    expect(roster.isFull).toBe(true);
    expect(roster.reserve()).toBe(-1);
    expect(roster.total).toBe(3);
    expect(roster.leave(1, 0)).toBe(true);
    expect(roster.isFull).toBe(false);
    expect(roster.reserve()).toBe(1);
  });

  test("who has taken a slot has it alone: its former owner can neither leave nor take it", () => {
    const roster = Roster.create(2, 2, 1);
    const slot = enter(roster, 0);
    expect(roster.take(slot, 1)).toBe(false);
    expect(roster.take(slot, 0)).toBe(true);
    expect(roster.countOf(0)).toBe(0);
    expect(roster.take(slot, 0)).toBe(false);
    expect(roster.leave(slot, 0)).toBe(false);
    expect(roster.total).toBe(1);
    roster.give(slot, 1, 33);
    expect(roster.leaveOwn(slot)).toBe(false);
    expect([roster.countOf(1), roster.descriptorOf(slot)]).toEqual([1, 33]);
    expect(roster.leave(slot, 1)).toBe(true);
    expect([roster.countOf(1), roster.total]).toEqual([0, 0]);
    expect(roster.leave(slot, 1)).toBe(false);
    expect(roster.total).toBe(0);
  });

  test("a guest is taken once, whoever finds it", () => {
    const roster = Roster.create(1, 2, 1);
    const slot = roster.reserve();
    roster.enterGuest(slot, 9, "inet:192.0.2.1:4000");
    expect(roster.guestSlots()).toEqual([slot]);
    expect(roster.takeGuest(slot)).toBe(true);
    expect(roster.takeGuest(slot)).toBe(false);
    expect(roster.guestSlots()).toEqual([]);
    expect(roster.leaveOwn(slot)).toBe(true);
    expect(roster.total).toBe(0);
  });

  test("the use of a slot differs from one connection to the next", () => {
    const roster = Roster.create(1, 1, 1);
    enter(roster, 0);
    const use = roster.useOf(0);
    roster.take(0, 0);
    expect(roster.useOf(0)).toBe(use);
    roster.leaveOwn(0);
    enter(roster, 0);
    expect(roster.useOf(0)).not.toBe(use);
  });

  test("threads that come and go at once never have the same slot, and leave nothing behind", async () => {
    const roster = Roster.create(3, 16, 1);
    const owners = new Int32Array(new SharedArrayBuffer(16 * 4));
    const work = (row: number) => {
      const { promise, reject, resolve } = Promise.withResolvers<Done>();
      const worker = new Worker(new URL("../support/roster-worker.ts", import.meta.url));
      worker.onmessage = ({ data }: MessageEvent<Done>) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
      worker.postMessage({ layout: roster.layout, owners, row, turns: 100_000 } satisfies Order);
      return promise.finally(() => worker.terminate());
    };
    for (const { collisions, entered } of await Promise.all([work(0), work(1), work(2)])) {
      expect(collisions).toBe(0);
      expect(entered).toBeGreaterThan(1000);
    }
    expect([roster.total, roster.countOf(0), roster.countOf(1), roster.countOf(2)]).toEqual([0, 0, 0, 0]);
    expect(Array.from({ length: 17 }, () => roster.reserve()).toSorted((a, b) => a - b)).toEqual([
      -1,
      ...Array.from({ length: 16 }, (_, index) => index),
    ]);
  });
});
