/** The time of handlers: what of a call counts, and that a handler is called as it would be without. */
import { describe, expect, test } from "bun:test";
import { checkFilter, type LoadedFilter } from "../../src/handler/filter.ts";
import { Stopwatch, sumOf } from "../../src/handler/filter-times.ts";

/** A filter whose handlers are taken the time of, on a clock that the test drives. */
function measured(handlers: Record<string, (...args: unknown[]) => unknown>) {
  let now = 0;
  const stopwatch = new Stopwatch(() => now);
  const loaded = stopwatch.measured(checkFilter({ name: "a", ...handlers }, "a"));
  const call = (phase: keyof LoadedFilter["handlers"], ...args: unknown[]) =>
    loaded.handlers[phase]!.call("this", undefined, ...args);
  return { stopwatch, call, pass: (ms: number) => (now += ms), sums: () => sumOf(stopwatch.take(), ["a"]) };
}

describe("Stopwatch", () => {
  test("sums the calls of each phase, in the order of a session", () => {
    const { call, pass, sums } = measured({ eom: () => pass(2), header: () => pass(0.5) });
    call("eom");
    call("header");
    call("header");
    expect(sums()).toEqual([{ name: "a", ms: 3, phases: { header: 1, eom: 2 } }]);
    expect(
      Object.keys(
        sumOf(
          [
            { filter: 0, phase: "eom", ms: 1 },
            { filter: 0, phase: "helo", ms: 1 },
          ],
          ["a"],
        )[0]!.phases,
      ),
    ).toEqual(["helo", "eom"]);
    expect(sums()).toEqual([{ name: "a", ms: 0, phases: {} }]);
  });

  test("a call that throws counts, and the exception is the handler's own", () => {
    const error = new Error("boom");
    const { call, pass, sums } = measured({
      eom() {
        pass(3);
        throw error;
      },
    });
    expect(() => call("eom")).toThrow(error);
    expect(sums()).toMatchObject([{ ms: 3 }]);
  });

  test("gives the handler its arguments, and returns what it returned", () => {
    const seen: unknown[] = [];
    const { call } = measured({
      helo(this: unknown, ...args) {
        seen.push(this, ...args);
        return "result";
      },
    });
    expect(call("helo", "name")).toBe("result");
    expect(seen).toEqual(["this", undefined, "name"]);
  });

  test("a promise counts until it settles, and is the handler's own", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { call, pass, sums } = measured({ eom: () => promise });
    expect(call("eom")).toBe(promise);
    pass(4);
    expect(sums()).toMatchObject([{ ms: 4 }]);
    pass(6);
    resolve();
    await promise;
    pass(100);
    expect(sums()).toMatchObject([{ ms: 6, phases: { eom: 6 } }]);
  });

  test("a promise that is rejected is still the conversation's to look at", async () => {
    const { call, pass, sums } = measured({ eom: () => Promise.reject(new Error("boom")) });
    const result = call("eom") as Promise<unknown>;
    pass(1);
    expect(result).rejects.toThrow("boom");
    await result.catch(() => {});
    expect(sums()).toMatchObject([{ ms: 1 }]);
  });

  test("a call that is forgotten does not count any more", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { call, pass, stopwatch, sums } = measured({ eom: () => promise });
    void call("eom");
    stopwatch.take();
    stopwatch.forget();
    pass(10);
    resolve();
    await promise;
    expect(sums()).toMatchObject([{ ms: 0, phases: {} }]);
  });
});
