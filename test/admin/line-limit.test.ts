/** Lines that may come in great numbers: the first ones of a minute are written, the others told as a count. */
import { expect, test } from "bun:test";
import { LineLimit, MAX_LINES, WINDOW_MS } from "../../src/admin/line-limit.ts";
import { Log } from "../../src/admin/log.ts";
import type { Output } from "../../src/admin/output.ts";
import { CALM_MS, RecurringState } from "../../src/admin/recurring-state.ts";

/** A limit with a clock that the test moves, and what it tells. */
function limited() {
  const told: string[] = [];
  let now = 0;
  let timers: { at: number; callback: () => void }[] = [];
  const limit = new LineLimit({
    tell: (level, kind, count) => told.push(`${level} ${kind} ${count}`),
    after(ms, callback) {
      const timer = { at: now + ms, callback };
      timers.push(timer);
      return () => void (timers = timers.filter((each) => each !== timer));
    },
  });
  const advance = (ms: number) => {
    now += ms;
    for (const timer of timers.filter(({ at }) => at <= now)) {
      timers = timers.filter((each) => each !== timer);
      timer.callback();
    }
  };
  const written = (count: number, kind = "kind") =>
    Array.from({ length: count }, () => limit.admits(kind, "warn")).filter(Boolean).length;
  return { advance, limit, told, timers: () => timers.length, written };
}

test("so many of a kind are written in a minute, and the rest is a count at its end", () => {
  const { advance, told, written } = limited();
  expect(written(111)).toBe(MAX_LINES);
  expect(written(3, "another")).toBe(3);
  expect(told).toEqual([]);
  advance(WINDOW_MS);
  expect(told).toEqual([`warn kind ${111 - MAX_LINES}`]);
});

test("while it goes on only counts are told; after a minute without any, lines are written again", () => {
  const { advance, told, timers, written } = limited();
  written(50);
  advance(WINDOW_MS);
  expect(written(7)).toBe(0);
  advance(WINDOW_MS);
  expect(told).toEqual([`warn kind ${50 - MAX_LINES}`, "warn kind 7"]);
  advance(WINDOW_MS);
  expect(timers()).toBe(0);
  expect(written(2)).toBe(2);
  expect(told).toHaveLength(2);
});

test("at the end what was held back is told, and no timer is left", () => {
  const { limit, told, timers, written } = limited();
  written(MAX_LINES + 5);
  written(5, "another");
  limit.close();
  expect(told).toEqual(["warn kind 5"]);
  expect(timers()).toBe(0);
});

test("Log: what is below the threshold is not counted, lines without a kind are not limited", () => {
  const lines: string[] = [];
  const log = new Log({ push: (text: string) => void lines.push(text) } as Output, "notice", "json");
  for (let n = 0; n < MAX_LINES + 10; n++) {
    log.write("warn", `line ${n}`, {}, "line");
    log.write("info", `quiet ${n}`, {}, "quiet");
    log.write("notice", `each ${n}`);
  }
  log.end();
  const parsed = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(parsed.filter(({ level }) => level === "notice")).toHaveLength(MAX_LINES + 10);
  expect(parsed.filter(({ level }) => level === "warn")).toHaveLength(MAX_LINES + 1);
  expect(parsed.at(-1)).toMatchObject({
    level: "warn",
    message: `10 more lines like this one in the last minute: line`,
    more: 10,
    like: "line",
  });
});

test("a state that comes and goes is told when it begins, and once it has been over for a while", () => {
  const told: string[] = [];
  let now = 1000;
  const state = new RecurringState({
    began: () => told.push("began"),
    ended: (times, seconds) => told.push(`${times} times, ${seconds} s`),
    now: () => now,
  });
  state.look();
  for (let n = 0; n < 111; n++) {
    state.set(true);
    state.set(true);
    now += 50;
    state.look();
    state.set(false);
    now += 10;
    state.look();
  }
  expect(told).toEqual(["began"]);
  now += CALM_MS;
  state.look();
  state.look();
  expect(told).toEqual(["began", "111 times, 6 s"]);
  // Where nobody has looked meanwhile, the next beginning ends the one before.
  state.set(true);
  now += 2000;
  state.set(false);
  now += CALM_MS;
  state.set(true);
  expect(told.slice(2)).toEqual(["began", "1 times, 2 s", "began"]);
});
