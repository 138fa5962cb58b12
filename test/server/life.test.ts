/** The states of threads, workers and generations: each transition that is not in a table is refused. */
import { describe, expect, test } from "bun:test";
import { GENERATION_TRANSITIONS, Life, THREAD_TRANSITIONS, WORKER_TRANSITIONS } from "../../src/server/workers/life.ts";

const TABLES = {
  thread: [THREAD_TRANSITIONS, "running"],
  worker: [WORKER_TRANSITIONS, "loading"],
  generation: [GENERATION_TRANSITIONS, "loading"],
} as const satisfies Record<string, readonly [Readonly<Record<string, readonly string[]>>, string]>;

describe.each(Object.entries(TABLES))("%s", (name, [table, first]) => {
  const transitions: Readonly<Record<string, readonly string[]>> = table;
  const states = Object.keys(transitions);

  test("a legal transition is taken, any other is an internal error and changes nothing", () => {
    for (const state of states) {
      for (const next of states) {
        const life = new Life<string>(`the ${name}`, transitions, state);
        if (transitions[state]!.includes(next)) {
          life.to(next);
          expect(life.state).toBe(next);
        } else {
          expect(() => life.to(next)).toThrow(`internal error: the ${name} is ${state} and cannot become ${next}`);
          expect(life.state).toBe(state);
        }
      }
    }
  });

  test("every state is reached, and every way leads to the last", () => {
    const reached = (from: string, seen = new Set<string>()): Set<string> => {
      if (!seen.has(from)) for (const next of transitions[from]!) reached(next, seen.add(from));
      return seen.add(from);
    };
    expect([...reached(first)].toSorted()).toEqual(states.toSorted());
    const last = states.at(-1)!;
    expect(transitions[last]).toEqual([]);
    for (const state of states) expect(reached(state)).toContain(last);
  });
});
