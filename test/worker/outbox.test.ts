/** The bound on text between a worker and the main thread. */
import { expect, test } from "bun:test";
import type { FromWorker } from "../../src/shared/messages.ts";
import { Outbox } from "../../src/shared/outbox.ts";

function boxOf(maxPending: number) {
  const sent: FromWorker[] = [];
  const box = new Outbox((message) => void sent.push(message), maxPending);
  let dropped = 0;
  box.onDropped = () => (dropped += 1);
  return { box, sent, dropped: () => dropped };
}
const print = (text: string): FromWorker => ({ kind: "print", text });

test("text is sent up to the bound, and dropped and counted beyond it", () => {
  const { box, dropped, sent } = boxOf(10);
  for (const text of ["1234", "567890", "a", "b"]) box.post(print(text));
  expect(sent).toEqual([print("1234"), print("567890")]);
  expect(dropped()).toBe(2);
});

test("what is no text is always sent", () => {
  const { box, sent } = boxOf(1);
  box.post(print("1"));
  box.post({ kind: "released", slot: 7 });
  box.post({ kind: "ended" });
  expect(sent).toHaveLength(3);
});

test("once text was taken there is room again, and a line tells of what was dropped", () => {
  const { box, sent } = boxOf(100);
  box.post(print("x".repeat(100)));
  box.post(print("lost"));
  box.taken(100);
  box.post(print("y"));
  expect(sent.slice(1)).toEqual([
    {
      kind: "log",
      level: "warn",
      text: "1 lines of a worker were dropped: they came faster than they could be taken",
      fields: {},
      of: "lines of a worker were dropped",
    },
    print("y"),
  ]);
});

test("the line that tells of dropped ones waits for room of its own, and the count with it", () => {
  const { box, dropped, sent } = boxOf(100);
  box.post(print("x"));
  box.post(print("y".repeat(99)));
  for (let count = 0; count < 3; count++) box.post(print("lost"));
  box.taken(1);
  expect(sent).toHaveLength(2);
  box.taken(99);
  expect(sent.slice(2)).toMatchObject([{ text: expect.stringMatching(/^3 lines of a worker were dropped/) }]);
  expect(dropped()).toBe(3);
});
