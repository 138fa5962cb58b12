/** Reply texts: docs/protocol.md, "Reply texts"; docs/handlers.md, "Verdicts". */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { formatReplyText, parseReplyText } from "../../src/protocol/reply-text.ts";
import { parseSmtpReply } from "../../src/protocol/replies.ts";
import { forSeeds, mustEqual } from "./random.ts";

setDefaultTimeout(120_000);

function problemOf(text: string, digit: 4 | 5): string {
  try {
    parseReplyText(text, digit);
  } catch (error) {
    expect(error).toBeInstanceOf(RangeError);
    return (error as Error).message;
  }
  return "none";
}

describe("parseReplyText", () => {
  test.each([
    ["550 5.1.1 No such user", 5, { code: 550, enhanced: "5.1.1", lines: ["No such user"] }],
    ["451 4.7.1 Later", 4, { code: 451, enhanced: "4.7.1", lines: ["Later"] }],
    ["421 4.3.0 Closing", 4, { code: 421, enhanced: "4.3.0", lines: ["Closing"] }],
    ["550 No", 5, { code: 550, enhanced: "5.7.1", lines: ["No"] }],
    ["450 No", 4, { code: 450, enhanced: "4.7.0", lines: ["No"] }],
    ["599 5.999.999 x", 5, { code: 599, enhanced: "5.999.999", lines: ["x"] }],
    ["550 3 strikes", 5, { code: 550, enhanced: "5.7.1", lines: ["3 strikes"] }],
    ["550 5.7 is no enhanced code", 5, { code: 550, enhanced: "5.7.1", lines: ["5.7 is no enhanced code"] }],
    ["550 5.7.1000 neither", 5, { code: 550, enhanced: "5.7.1", lines: ["5.7.1000 neither"] }],
    ["550 5.1.1 a\nb\nc", 5, { code: 550, enhanced: "5.1.1", lines: ["a", "b", "c"] }],
    ["550 5.1.1 a\n\nc", 5, { code: 550, enhanced: "5.1.1", lines: ["a", "", "c"] }],
    ["550 5.1.1 a\n", 5, { code: 550, enhanced: "5.1.1", lines: ["a"] }],
    ["550 5.1.1\nsecond", 5, { code: 550, enhanced: "5.1.1", lines: ["", "second"] }],
    ["550 100% no", 5, { code: 550, enhanced: "5.7.1", lines: ["100% no"] }],
    ["550 Für Elise", 5, { code: 550, enhanced: "5.7.1", lines: ["Für Elise"] }],
  ] as const)("%j", (text, digit, expected) => {
    expect(parseReplyText(text, digit)).toEqual(expected as unknown as ReturnType<typeof parseReplyText>);
  });

  test.each([
    ["550", 5, "5.7.1"],
    ["550 ", 5, "5.7.1"],
    ["550 5.2.1", 5, "5.2.1"],
    ["451", 4, "4.7.0"],
    ["451 4.2.1 ", 4, "4.2.1"],
  ] as const)("puts words where there are only codes: %j", (text, digit, enhanced) => {
    const reply = parseReplyText(text, digit);
    expect(reply.enhanced).toBe(enhanced);
    expect(reply.lines).toHaveLength(1);
    expect(reply.lines[0]).toMatch(/^[A-Z][a-z ,]+$/);
  });

  test.each([
    ["no code", "Not welcome", 5],
    ["nothing", "", 5],
    ["two digits", "55 no", 5],
    ["four digits", "5500 no", 5],
    ["a code run into its text", "550no", 5],
    ["a hyphen after the code", "550-5.7.1 no", 5],
    ["a space before the code", " 550 no", 5],
    ["an enhanced code alone", "5.7.1 no", 5],
    ["class 4 in reject", "451 4.7.1 no", 5],
    ["class 5 in tempfail", "550 5.7.1 no", 4],
    ["class 2", "250 2.0.0 ok", 5],
    ["class 6", "650 no", 5],
    ["421 in reject", "421 4.7.0 bye", 5],
    ["an enhanced code of class 4 with a code of class 5", "550 4.7.1 no", 5],
    ["an enhanced code of class 5 with a code of class 4", "450 5.7.1 no", 4],
    ["an enhanced code of class 2", "550 2.0.0 no", 5],
    ["CR", "550 a\rb", 5],
    ["CR in front of CRLF", "550 a\r\r\nb", 5],
    ["half a surrogate pair", "550 a\ud83d", 5],
    ["NUL", "550 a\0b", 5],
    ["TAB", "550 a\tb", 5],
    ["ESC", "550 \u001b[31mred", 5],
    ["DEL", "550 a\u007f", 5],
    ["a C1 control", "550 a\u0085b", 5],
    ["Unicode's line separator", "550 a\u2028b", 5],
  ] as const)("refuses %s", (_name, text, digit) => {
    expect(problemOf(text, digit)).not.toBe("none");
  });

  test("says that 421 belongs to tempfail", () => {
    expect(problemOf("421 4.7.0 bye", 5)).toContain("421 belongs to tempfail");
  });

  test("bounds the text that a message quotes", () => {
    expect(problemOf("x".repeat(10_000), 5).length).toBeLessThan(300);
  });

  test.each([
    ["550 5.7.1 a\r\nb\r\nc", "550 5.7.1 a\nb\nc"],
    ["550 5.7.1 a\r\n", "550 5.7.1 a\n"],
    ["550\r\na", "550\na"],
    ["550 5.7.1\r\n\r\na\nb", "550 5.7.1\n\na\nb"],
  ])("takes CRLF where it takes LF: %j", (crlf, lf) => {
    expect(parseReplyText(crlf, 5)).toEqual(parseReplyText(lf, 5));
  });

  test("takes 32 lines and refuses 33, written or wrapped", () => {
    const lines = (count: number) => `550 5.7.1 ${Array.from({ length: count }, (_, at) => `line ${at}`).join("\n")}`;
    expect(parseReplyText(lines(32), 5).lines).toHaveLength(32);
    expect(problemOf(lines(33), 5)).toContain("32");
    expect(parseReplyText(`550 5.7.1 ${"x".repeat(500 * 32)}`, 5).lines).toHaveLength(32);
    expect(problemOf(`550 5.7.1 ${"x".repeat(500 * 32 + 1)}`, 5)).toContain("32");
  });

  test("keeps a line of 510 bytes whole and wraps one of 511", () => {
    const room = 510 - "550 5.7.1 ".length;
    expect(parseReplyText(`550 5.7.1 ${"x".repeat(room)}`, 5).lines).toEqual(["x".repeat(room)]);
    expect(parseReplyText(`550 5.7.1 ${"x".repeat(room + 1)}`, 5).lines).toEqual(["x".repeat(room), "x"]);
    const longer = 510 - "550 5.123.456 ".length;
    expect(parseReplyText(`550 5.123.456 ${"x".repeat(longer + 1)}`, 5).lines[0]).toHaveLength(longer);
  });

  test("wraps at a space, which goes", () => {
    const [first, second] = parseReplyText(`550 5.7.1 ${"x".repeat(300)} ${"y".repeat(300)}`, 5).lines;
    expect([first, second]).toEqual(["x".repeat(300), "y".repeat(300)]);
  });

  test("wraps by bytes and never inside a character", () => {
    const { lines } = parseReplyText(`550 5.7.1 ${"€".repeat(400)}`, 5);
    expect(lines.join("")).toBe("€".repeat(400));
    expect(Math.max(...lines.map((line) => Buffer.byteLength(line)))).toBeLessThanOrEqual(500);
  });

  test("wraps a line so that a wide character after its last space still fits", () => {
    const { lines } = parseReplyText(`550 5.7.1 a ${"x".repeat(497)}💀 end`, 5);
    expect(Math.max(...lines.map((line) => Buffer.byteLength(`550-5.7.1 ${line}`)))).toBeLessThanOrEqual(510);
  });

  test("wraps any text to lines of at most 510 bytes, and loses nothing but the spaces it is cut at", () => {
    forSeeds(3000, (random) => {
      const words = Array.from({ length: 1 + random.below(40) }, () =>
        random.pick(["x", "é", "€", "💀"]).repeat(1 + random.below(random.pick([3, 60, 160]))),
      );
      const text = words.map((word) => word + random.pick([" ", "", "", "  "])).join("");
      let reply;
      try {
        reply = parseReplyText(`550 5.7.1 ${text}`, 5);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        return;
      }
      for (const [at, line] of reply.lines.entries()) {
        const size = Buffer.byteLength(`550-5.7.1 ${line}`);
        if (size > 510) throw new Error(`line ${at} has ${size} bytes`);
      }
      mustEqual(reply.lines.join("").replaceAll(" ", ""), text.replaceAll(" ", ""), "text");
    });
  });
});

describe("formatReplyText", () => {
  test("writes the code and enhanced code on each line, with CRLF between them and none at the end", () => {
    expect(formatReplyText({ code: 550, enhanced: "5.7.1", lines: ["a", "b", "c"] })).toBe(
      "550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c",
    );
  });

  test("doubles per cent signs", () => {
    expect(formatReplyText({ code: 550, enhanced: "5.7.1", lines: ["100% no", "%%"] })).toBe(
      "550-5.7.1 100%% no\r\n550 5.7.1 %%%%",
    );
  });

  test("is taken by Postfix's rules, and the client sees what was written", () => {
    forSeeds(1500, (random) => {
      const digit = random.pick([4, 5] as const);
      const code = `${digit}${random.below(10)}${random.below(10)}`;
      const enhanced = random.pick(["", ` ${digit}.${random.below(1000)}.${random.below(1000)}`]);
      const texts = Array.from({ length: 1 + random.below(6) }, () =>
        random.pick(["no", "100% sure %", "3 strikes", "é", "a b  c"]),
      );
      const reply = parseReplyText(`${code}${enhanced} ${texts.join("\n")}`, digit);
      const seen = parseSmtpReply(formatReplyText(reply));
      mustEqual(seen, { code: reply.code, enhanced: reply.enhanced, lines: reply.lines }, "reply");
    });
  });
});
