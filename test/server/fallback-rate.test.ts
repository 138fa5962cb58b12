/** The rate of fallbacks in the last minute, on a clock of the test's own. */
import { describe, expect, test } from "bun:test";
import { FallbackRate, isTooMany } from "../../src/server/control/fallback-rate.ts";

const counts = (messages: number, messagesWithFallback: number) => ({ messages, messagesWithFallback });

describe("FallbackRate", () => {
  test("counts from the start in the first minute", () => {
    const rate = new FallbackRate(5000);
    expect(rate.lastMinute(5000, counts(0, 0))).toEqual({ messages: 0, fallbacks: 0 });
    expect(rate.lastMinute(5400, counts(15, 15))).toEqual({ messages: 15, fallbacks: 15 });
    for (let now = 5000; now < 60_000; now += 100) rate.look(now, () => counts(20, 15));
    expect(rate.lastMinute(60_000, counts(21, 16))).toEqual({ messages: 21, fallbacks: 16 });
  });

  test("forgets what is older than a minute, and not before", () => {
    const rate = new FallbackRate(0);
    const at = (now: number) => (now < 10_000 ? counts(0, 0) : counts(100, 40));
    for (let now = 0; now <= 200_000; now += 100) {
      rate.look(now, () => at(now));
      const { fallbacks, messages } = rate.lastMinute(now, at(now));
      if (now < 10_000 || now > 72_000)
        expect({ now, fallbacks, messages }).toEqual({ now, fallbacks: 0, messages: 0 });
      else if (now < 69_000) expect({ now, fallbacks, messages }).toEqual({ now, fallbacks: 40, messages: 100 });
    }
  });

  test("asks for the counts at most once a second, whatever the pauses between two looks", () => {
    const rate = new FallbackRate(0);
    let asked = 0;
    const look = (now: number) => rate.look(now, () => (asked++, counts(asked, 0)));
    for (let now = 0; now < 10_000; now += 100) look(now);
    expect(asked).toBe(9);
    // The machine was asleep.
    look(3_600_000);
    expect(asked).toBe(10);
  });

  test("fallbacks of messages that came to no end are messages too", () => {
    expect(new FallbackRate(0).lastMinute(1, counts(3, 15))).toEqual({ messages: 15, fallbacks: 15 });
  });
});

test.each([
  [9, 9, false],
  [10, 0, false],
  [10, 1, true],
  [15, 15, true],
  [20, 1, false],
  [20, 2, true],
  [100, 5, false],
  [100, 6, true],
  [100_000, 5000, false],
  [100_000, 5001, true],
])("of %d messages %d fallbacks: too many is %p", (messages, fallbacks, expected) => {
  expect(isTooMany({ messages, fallbacks })).toBe(expected);
});
