/** A thread that takes slots and leaves them, for `test/shared/connection-table.test.ts`. */
import { ConnectionTable, type ConnectionTableLayout } from "../../src/shared/connection-table.ts";

export interface Order {
  readonly layout: ConnectionTableLayout;
  /** By slot: 1 while some thread has it. */
  readonly owners: Int32Array;
  readonly row: number;
  readonly turns: number;
}

/** How often it got a slot, and how often one that somebody had. */
export interface Done {
  readonly entered: number;
  readonly collisions: number;
}

/** Slots that it has at a time, at most: three such threads want more than there are. */
const AT_ONCE = 8;

declare const self: {
  postMessage(message: Done): void;
  onmessage: (event: { readonly data: Order }) => void;
};

self.onmessage = ({ data: { layout, owners, row, turns } }) => {
  const table = new ConnectionTable(layout);
  const mine: number[] = [];
  let entered = 0;
  let collisions = 0;
  const leave = () => {
    const slot = mine.shift()!;
    Atomics.store(owners, slot, 0);
    if (!table.leave(slot, row)) collisions += 1;
  };
  for (let turn = 0; turn < turns; turn++) {
    const slot = table.reserve();
    if (slot !== -1) {
      if (Atomics.exchange(owners, slot, 1) === 1) collisions += 1;
      table.enter(slot, row, 1, 2, "peer", 0);
      mine.push(slot);
      entered += 1;
    }
    if (mine.length > 0 && (slot === -1 || mine.length >= AT_ONCE || turn % 3 === 0)) leave();
  }
  while (mine.length > 0) leave();
  self.postMessage({ entered, collisions });
};
