/** When a worker holds too much memory: amounts that several looks agree on, and never what it needs for a moment. */
import { expect, test } from "bun:test";
import { WorkerMemory, type MemoryLook } from "../../src/server/workers/worker-memory.ts";
import { MEMORY_AT_MOST, MEMORY_MS } from "../../src/server/policy.ts";

const LIMIT = 100;
const MS = 100;
const PROMPT: MemoryLook = {
  elapsedMs: MS,
  hasReturned: true,
  isSilent: false,
  heapBytes: 10,
  residentBytes: 150,
  isShort: false,
  limit: LIMIT,
};

/** The looks, one after the other; gives what each of them found. */
function found(...looks: readonly Partial<MemoryLook>[]): string[] {
  const memory = new WorkerMemory();
  memory.look(PROMPT);
  return looks.map((look) => {
    memory.look({ ...PROMPT, ...look });
    return memory.isTooMuch ? "too much" : memory.isMuch ? "much" : "";
  });
}

const times = (count: number, look: Partial<MemoryLook>) => Array.from({ length: count }, () => look);
const ENOUGH = MEMORY_MS / MS;
const silent = (residentBytes: number): Partial<MemoryLook> => ({
  hasReturned: false,
  isSilent: true,
  isShort: true,
  residentBytes,
});

test("over the limit, and over twice as much, for long enough", () => {
  expect(found(...times(ENOUGH, { heapBytes: LIMIT })).at(-1)).toBe("");
  const over = found(...times(ENOUGH, { heapBytes: LIMIT + 1 }));
  expect(over.slice(-2)).toEqual(["", "much"]);
  expect(found(...times(ENOUGH, { heapBytes: 2 * LIMIT })).at(-1)).toBe("much");
  const farOver = found(...times(ENOUGH, { heapBytes: 2 * LIMIT + 1 }));
  expect(farOver.slice(-2)).toEqual(["", "too much"]);
});

test("what it needs for a moment starts the time anew", () => {
  const almost = times(ENOUGH - 1, { heapBytes: 3 * LIMIT });
  expect(found(...almost, { heapBytes: LIMIT }, ...almost).at(-1)).toBe("");
  expect(found(...almost, { heapBytes: 2 * LIMIT }, ...almost).at(-1)).toBe("much");
});

test("what it said before it fell silent is not said again by anybody", () => {
  const said = { heapBytes: 3 * LIMIT };
  expect(found(said, ...times(10 * ENOUGH, { ...silent(160), ...said })).at(-1)).toBe("");
});

test("while it is silent the growth of the process is its own, if that is more than all may hold", () => {
  const grown = silent(150 + MEMORY_AT_MOST * LIMIT);
  expect(found(...times(3, grown))).toEqual(["", "too much", "too much"]);
  expect(found(...times(3, { ...grown, isShort: false }))).toEqual(["", "", ""]);
  expect(found(...times(50, silent(150 + 3 * LIMIT))).at(-1)).toBe("");
});

test("a process that holds much already is no fault of whoever runs", () => {
  const large = { residentBytes: 100 * LIMIT };
  expect(found(large, ...times(50, silent(100 * LIMIT + 50))).at(-1)).toBe("");
});

test("over all bounds two looks are enough, by its own word too", () => {
  const all = { heapBytes: MEMORY_AT_MOST * LIMIT + 1 };
  expect(found(all, all)).toEqual(["", "too much"]);
  expect(found(all, {}, all)).toEqual(["", "", ""]);
});

test("after another was ended it is looked at anew", () => {
  const memory = new WorkerMemory();
  const grown = { ...PROMPT, ...silent(150 + MEMORY_AT_MOST * LIMIT) };
  memory.look(PROMPT);
  memory.look(grown);
  memory.lookAgain();
  memory.look(grown);
  expect(memory.isTooMuch).toBe(false);
  memory.look(grown);
  expect(memory.isTooMuch).toBe(true);
});
