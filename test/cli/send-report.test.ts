/** The report of `pmilter send`: layout, and that nothing of the peer reaches the terminal unescaped. */
import { describe, expect, test } from "bun:test";
import { formatJson, formatOutcome, type SendOutcome } from "../../src/cli/send-report.ts";

const reply = { code: 550, enhanced: "5.7.1", lines: ["Not welcome", "here"] };
const accepted: SendOutcome = {
  verdict: "accept",
  reply: null,
  recipients: [
    { address: "x@y", verdict: "reject", reply },
    { address: "longer@y", verdict: "accept", reply: null },
  ],
  phases: [
    { phase: "connect", verdict: "continue", reply: null, ms: 12.5 },
    { phase: "envrcpt", verdict: "reject", reply, ms: 0.25 },
    { phase: "header", verdict: "none", reply: null, ms: 0.125 },
    { phase: "header", verdict: "none", reply: null, ms: 0.125 },
    { phase: "eom", verdict: "accept", reply: null, ms: 1, progress: 2 },
  ],
  modifications: [
    { kind: "addHeader", name: "A", value: "1" },
    { kind: "insertHeader", index: 0, name: "B", value: "2\n\t3" },
    { kind: "changeHeader", name: "C", value: "4", index: 2 },
    { kind: "deleteHeader", name: "D", index: 1 },
    { kind: "changeFrom", address: "<>", params: [] },
    { kind: "addRecipient", address: "<n@y>", params: ["NOTIFY=NEVER"] },
    { kind: "deleteRecipient", address: "<x@y>" },
    { kind: "replaceBody", body: "Hi\r\n" },
    { kind: "quarantine", reason: "why" },
  ],
  message: "A: 1\r\nB: 2\r\n\t3\r\n\r\nHi\r\n",
  failures: [],
};

describe("formatOutcome", () => {
  test("columns, recipients, modifications, verdict, and the message at the end", () => {
    expect(formatOutcome(accepted)).toBe(`phases
  connect    continue             12.500 ms
  envrcpt    reject                0.250 ms  550 5.7.1 Not welcome / here
  header ×2  (no reply wanted)     0.250 ms
  eom        accept, progress ×2   1.000 ms

recipients
  <x@y>       reject  550 5.7.1 Not welcome / here
  <longer@y>  accept

modifications
  addHeader A: 1
  insertHeader at 0 B: 2\\n\\t3
  changeHeader no. 2 C: 4
  deleteHeader no. 1 D
  changeFrom <>
  addRecipient <n@y> NOTIFY=NEVER
  deleteRecipient <x@y>
  replaceBody, 4 characters
  quarantine why

verdict: accept

message
A: 1
B: 2
\t3

Hi
`);
  });

  test("a refused message ends with the verdict and its reply", () => {
    const refused: SendOutcome = {
      ...accepted,
      verdict: "reject",
      reply,
      recipients: [],
      modifications: [],
      message: "",
    };
    expect(formatOutcome(refused)).toEndWith("\n\nverdict: reject, 550 5.7.1 Not welcome / here\n");
    expect(formatOutcome(refused)).not.toContain("message");
  });

  test("why it got the fallback, before the verdict", () => {
    const failures = [
      {
        filter: "stamp",
        phase: "eom",
        cause: "error",
        message: "handler failed: Error: \x1b[2J",
        place: "stamp.ts:7",
        fallback: "tempfail",
      },
      { filter: null, phase: null, cause: "lost", message: "its worker was lost", place: null, fallback: null },
    ];
    const text = formatOutcome({ ...accepted, verdict: "tempfail", modifications: [], failures });
    expect(text).toContain(
      "\n\nfailures\n  filter stamp, eom, at stamp.ts:7: handler failed: Error: \\x1b[2J; the fallback: tempfail\n  its worker was lost\n\nverdict: tempfail\n",
    );
  });

  test("escapes control characters, hidden characters and bytes that are not UTF-8", () => {
    const nasty = "\x1b[2J\x07\x9b\u202e\u2028\udcff\r\n";
    const text = formatOutcome({
      ...accepted,
      reply: { code: 451, enhanced: "", lines: [nasty] },
      recipients: [{ address: nasty, verdict: "reject", reply: null }],
      modifications: [{ kind: "quarantine", reason: nasty }],
      message: `A: ${nasty}`,
    });
    expect(text).not.toMatch(/[^\P{Cc}\n]|[\p{Cf}\p{Zl}\p{Cs}]/u);
    expect(text).toContain("quarantine \\x1b[2J\\x07\\x9b\\u{202e}\\u{2028}\\xff\\r\\n");
    expect(text).toContain("verdict: accept, 451 \\x1b");
  });
});

test("formatJson is the shape, with two spaces", () => {
  expect(formatJson(accepted)).toBe(`${JSON.stringify(accepted, null, 2)}\n`);
  expect(JSON.parse(formatJson(accepted))).toEqual(accepted as never);
});
