/** Lines of the log: levels, the three formats, and that a line is one line. */
import { afterEach, describe, expect, test } from "bun:test";
import { formatLogLine, Log } from "../../src/admin/log.ts";
import { isLogged, LOG_LEVELS, type LogLevel } from "../../src/admin/log-level.ts";
import type { Output } from "../../src/admin/output.ts";

const AT = new Date("2017-07-25T13:02:34.567Z");

describe("isLogged", () => {
  test("each threshold lets itself and what is worse pass", () => {
    for (const [place, threshold] of LOG_LEVELS.entries()) {
      const passed = LOG_LEVELS.filter((level) => isLogged(level, threshold));
      expect(passed).toEqual(LOG_LEVELS.slice(0, place + 1));
    }
  });

  test("they are those of syslog", () => {
    expect(LOG_LEVELS).toEqual(["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"]);
  });
});

describe("formatLogLine", () => {
  test("text has the original's shape", () => {
    expect(formatLogLine("text", AT, "notice", "pmilter/0.0.1 starting (using mruby 1.3.0)", { a: 1 })).toBe(
      "[Tue, 25 Jul 2017 13:02:34 GMT][notice]: pmilter/0.0.1 starting (using mruby 1.3.0)\n",
    );
  });

  describe("plain has local time with the zone's offset, then level and text", () => {
    const zone = process.env["TZ"];
    afterEach(() => {
      if (zone === undefined) delete process.env["TZ"];
      else process.env["TZ"] = zone;
    });

    test.each([
      ["Europe/Berlin", "2026-11-30T14:04:05.123Z", "2026-11-30T15:04:05.123+01:00"],
      ["Europe/Berlin", "2026-07-01T23:30:00.000Z", "2026-07-02T01:30:00.000+02:00"],
      ["UTC", "2026-11-30T14:04:05.123Z", "2026-11-30T14:04:05.123+00:00"],
      ["America/New_York", "2026-01-01T02:00:00.007Z", "2025-12-31T21:00:00.007-05:00"],
      ["Asia/Kathmandu", "2026-01-01T00:00:00.000Z", "2026-01-01T05:45:00.000+05:45"],
      ["America/St_Johns", "2026-01-01T00:00:00.000Z", "2025-12-31T20:30:00.000-03:30"],
    ])("%s", (name, at, shown) => {
      process.env["TZ"] = name;
      expect(formatLogLine("plain", new Date(at), "notice", "a\n  b", { c: 1 })).toBe(`${shown} notice: a | b\n`);
    });
  });

  test("json is one object a line, with the fields as values", () => {
    const line = formatLogLine("json", AT, "error", 'a "b"', { to: ["x", "y"], line: 3, error: "two\nlines\u2028" });
    expect(line).toEndWith("\n");
    expect(line.trimEnd()).not.toContain("\n");
    expect(JSON.parse(line)).toEqual({
      time: "2017-07-25T13:02:34.567Z",
      level: "error",
      message: 'a "b"',
      to: ["x", "y"],
      line: 3,
      error: "two\nlines\u2028",
    });
  });

  test("json: no field takes the place of time, level or message", () => {
    const line = formatLogLine("json", AT, "error", "what happened", { time: 1, level: "none", message: "another" });
    expect(JSON.parse(line)).toMatchObject({ time: AT.toISOString(), level: "error", message: "what happened" });
  });
});

describe("Log", () => {
  function log(threshold: LogLevel, format: "text" | "json") {
    const lines: string[] = [];
    return { lines, log: new Log({ push: (text: string) => void lines.push(text) } as Output, threshold, format) };
  }

  test("writes what the threshold lets pass, in order, with the time of now", () => {
    const { log: target, lines } = log("warn", "json");
    target.write("notice", "hidden");
    target.write("warn", "first");
    target.write("crit", "second", { n: 1 });
    const parsed = lines.map((line) => JSON.parse(line) as { time: string; message: string });
    expect(parsed.map(({ message }) => message)).toEqual(["first", "second"]);
    expect(Math.abs(Date.parse(parsed[0]!.time) - Date.now())).toBeLessThan(60_000);
  });

  test("configure changes both from then on", () => {
    const { log: target, lines } = log("error", "json");
    target.configure("debug", "text");
    target.write("debug", "seen");
    expect(lines).toEqual([expect.stringMatching(/^\[\w{3}, .* GMT\]\[debug\]: seen\n$/)]);
  });
});
