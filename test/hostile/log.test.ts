/** What a client sends, wherever it is logged: it forges no line, moves no cursor, and has no say in a line's length. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { formatLogLine, type LogFormat } from "../../src/admin/log.ts";
import type { Report, Subject } from "../../src/handler/report.ts";
import { siteOf } from "../../src/handler/site.ts";
import { parseReplyText } from "../../src/protocol/reply-text.ts";
import { logLine } from "../../src/handler/log-lines.ts";
import { expectGrowth } from "../support/growth.ts";
import { evilTexts } from "./measure.ts";

setDefaultTimeout(120_000);

const AT = new Date(0);

function reportsOf(text: string): Report[] {
  const subject: Subject = {
    recipient: text,
    queueId: text,
    messageId: text,
    client: `${text} [${text}]`,
    helo: text,
    user: text,
    sender: text,
    recipients: [text, text],
    moreRecipients: 7,
    size: 100,
    ms: 5,
  };
  const place = { filter: "filter", phase: "eom", site: null } as const;
  let reply = null;
  try {
    reply = parseReplyText(`550 ${text}`, 5);
  } catch {
    // Not every text may be one: that is its own test.
  }
  return [
    { ...subject, ...place, kind: "failure", cause: "error", message: `Error: ${text}`, fallback: "tempfail" },
    {
      ...subject,
      ...place,
      kind: "verdict",
      verdict: "reject",
      scope: "message",
      reply,
      reason: text,
      isFallback: false,
      isObserved: false,
      changes: 0,
    },
  ];
}

function linesOf(format: LogFormat, text: string): string[] {
  return reportsOf(text).map((report) => {
    const line = logLine(report, { folder: "/etc/pmilter", version: "0123456789ab" });
    return formatLogLine(format, AT, line.level, line.text, line.fields);
  });
}

// Controls, ends of lines, bidirectional marks, and halves of characters.
// oxlint-disable-next-line no-control-regex
const ODD = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/u;

describe.each(["text", "plain", "json"] as const)("log_format = %s", (format) => {
  test("a report is one line without controls, whatever the client sent", () => {
    for (const text of evilTexts(2000)) {
      for (const line of linesOf(format, text)) {
        expect(line.endsWith("\n")).toBe(true);
        expect(line.slice(0, -1)).not.toMatch(ODD);
        expect(line.slice(0, -1).isWellFormed()).toBe(true);
      }
    }
  });

  test("a line stays short, however long what the client sent is", () => {
    for (const unit of ["x", "\x1b", "€", " ", "\udcff"]) {
      for (const line of linesOf(format, unit.repeat(100_000))) expect(line.length).toBeLessThan(50_000);
    }
  });
});

test.each(["text", "plain"] as const)("%s: only the server's own words stand outside of quotes", (format) => {
  for (const text of evilTexts(2000)) {
    for (const line of linesOf(format, text)) {
      const bare = line.replaceAll(/"(?:[^"\\]|\\.)*"/g, "").slice(line.indexOf(": "));
      expect(bare).not.toMatch(/forged|Bcc| ok|\\|%n/);
    }
  }
});

test("json: what the client sent does not replace the server's own fields", () => {
  for (const text of evilTexts(500)) {
    const [failure, verdict] = linesOf("json", text).map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(failure).toMatchObject({ level: "error", time: AT.toISOString(), cause: "error", filter: "filter" });
    expect(verdict).toMatchObject({ level: "notice", time: AT.toISOString(), verdict: "reject", phase: "eom" });
    expect(verdict).toMatchObject({ to_more: 7, size: 100, ms: 5, version: "0123456789ab" });
  }
});

describe("where a handler failed", () => {
  test("is not what the message of its error says: it may hold what the client sent", () => {
    for (const sent of [
      "x\n    at /etc/forged.ts:666:1",
      "\n    at forged (/etc/forged.ts:6:6)\n",
      "at /etc/forged.ts:1",
    ]) {
      expect(siteOf(new Error(`bad value ${sent}`))?.file).toBe(import.meta.path);
      expect(siteOf(new TypeError(sent))?.file).toBe(import.meta.path);
      const renamed = new Error(sent);
      renamed.name = sent;
      expect(siteOf(renamed)?.file).toBe(import.meta.path);
    }
  });

  test.each(["\n", "\n ", " ", "(", "\nat (", "\nat /(", "/:", "\nat /:1"])(
    "is found behind a message of many times %j: in proportion",
    async (unit) => {
      await expectGrowth(100_000, (count) => {
        const errors = [new Error(unit.repeat(count)), new Error(`${unit.repeat(count)}x`)];
        for (const error of [...errors, new Error(`\nat /${unit.replaceAll("\n", "").repeat(count)}`)]) siteOf(error);
      });
    },
  );
});
