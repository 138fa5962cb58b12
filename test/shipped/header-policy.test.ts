/** header-policy: each rule and action, the syntax it judges by, and values that nobody should send. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import headerPolicy from "../../handlers/header-policy.ts";
import { RULES } from "../../handlers/lib/header-rules.ts";
import { authservId, formatDate, isMessageId, parseDate } from "../../handlers/lib/header-syntax.ts";
import { runFilter } from "../../src/testing/index.ts";

setDefaultTimeout(120_000);

type Rule = Record<string, unknown>;

async function run(rules: Rule | Rule[], headers: string, more: object = {}) {
  const outcome = await runFilter(headerPolicy, {
    eml: `${headers}\n\nbody\n`,
    macros: { j: "mx.example.com" },
    options: { rules: Array.isArray(rules) ? rules : [rules] },
    ...more,
  });
  expect(outcome.failures).toEqual([]);
  return outcome;
}

/** The headers as they are delivered. */
async function headersOf(rules: Rule | Rule[], headers: string, more?: object): Promise<string[]> {
  const { message } = await run(rules, headers, more);
  return message.split("\r\n\r\n")[0]!.split(/\r\n(?![ \t])/);
}

describe("actions", () => {
  const RULE = { rule: "require", header: "To" };
  test("reject and tempfail, with the rule's words and with one's own", async () => {
    expect((await run({ ...RULE, action: "reject" }, "From: a@b.c")).reply).toEqual({
      code: 550,
      enhanced: "5.6.0",
      lines: ["Message refused: no To header"],
    });
    const tempfail = { ...RULE, action: "tempfail", text: "450 4.6.0 To whom?" };
    expect((await run(tempfail, "From: a@b.c")).reply).toEqual({ code: 450, enhanced: "4.6.0", lines: ["To whom?"] });
  });

  test("quarantine, fix and observe accept", async () => {
    const quarantine = await run({ ...RULE, action: "quarantine" }, "From: a@b.c");
    expect(quarantine.modifications).toEqual([{ kind: "quarantine", reason: "header-policy: no To header" }]);
    const fix = { ...RULE, action: "fix", value: "undisclosed-recipients:;" };
    expect(await headersOf(fix, "From: a@b.c")).toEqual(["From: a@b.c", "To: undisclosed-recipients:;"]);
    const observe = await run({ ...RULE, action: "observe" }, "From: a@b.c");
    expect([observe.verdict, observe.modifications]).toEqual(["accept", []]);
  });

  test("rules run in their order, each sees what those before it did", async () => {
    const rules = [
      { rule: "remove", header: "To", action: "fix" },
      { rule: "require", header: "To", action: "reject" },
    ];
    expect((await run(rules, "To: a@b.c")).verdict).toBe("reject");
    expect((await run(rules.toReversed(), "To: a@b.c")).verdict).toBe("accept");
  });
});

describe("rules that change headers", () => {
  test.each<[string, Rule, string, string[]]>([
    ["require: there", { rule: "require", header: "to", value: "x" }, "To: a@b.c", ["To: a@b.c"]],
    [
      "limit by count",
      { rule: "limit", header: "X-A", max_count: 2 },
      "X-A: 1\nx-a: 2\nB: 1\nX-A: 3",
      ["X-A: 1", "x-a: 2", "B: 1"],
    ],
    ["limit by length", { rule: "limit", header: "X-A", max_length: 3 }, "X-A: 1234\nX-A: 123", ["X-A: 123"]],
    ["limit of all", { rule: "limit", header: "*", max_count: 2 }, "A: 1\nB: 1\nC: 1\nB: 2", ["A: 1", "B: 1"]],
    ["limit of all by length", { rule: "limit", header: "*", max_length: 2 }, "A: 1\nB: 123\nA: 123", ["A: 1"]],
    ["remove", { rule: "remove", header: "x-a" }, "X-A: 1\nB: 1\nX-A: 2", ["B: 1"]],
    [
      "remove by beginning",
      { rule: "remove", header: "X-Spam-*" },
      "X-Spam-Flag: 1\nX-Spam: 1\nx-spam-Level: 2",
      ["X-Spam: 1"],
    ],
    ["rewrite", { rule: "rewrite", header: "A", pattern: "b+", replace: "x" }, "A: aBbab", ["A: axax"]],
    [
      "rewrite with groups",
      { rule: "rewrite", header: "A", pattern: "^(\\w+) (\\w+)$", replace: "$2 $1" },
      "A: one\n two",
      ["A: two one"],
    ],
    [
      "rewrite to nothing deletes",
      { rule: "rewrite", header: "A", pattern: "^x.*", replace: "" },
      "A: x1\nA: 2\nA: x3\nA: 4",
      ["A: 2", "A: 4"],
    ],
    [
      "rewrite of what encoded words hide",
      { rule: "rewrite", header: "A", pattern: "grün", replace: "blau" },
      "A: =?utf-8?B?Z3LDvA==?= =?utf-8?Q?n?= =?iso-8859-1?Q?_=FCber_alles?=",
      ["A: blau =?UTF-8?Q?=C3=BCber?= alles"],
    ],
    [
      "rewrite of a value as it stands",
      { rule: "rewrite", header: "A", pattern: "utf-8", replace: "x" },
      "A: =?utf-8?Q?gr=C3=BCn?=",
      ["A: =?x?Q?gr=C3=BCn?="],
    ],
    [
      "rewrite leaves names of addresses as they are encoded",
      { rule: "rewrite", header: "From", pattern: "doe", replace: "x" },
      "From: =?utf-8?Q?D=6Fe=2C_J?= <doe@example.net>",
      ["From: =?utf-8?Q?D=6Fe=2C_J?= <x@example.net>"],
    ],
    [
      "rewrite: no match, no change",
      { rule: "rewrite", header: "A", pattern: "z", replace: "" },
      "A: one\n two",
      ["A: one\r\n two"],
    ],
    [
      "rewrite minds case if told",
      { rule: "rewrite", header: "A", pattern: "b", flags: "", replace: "" },
      "A: aB",
      ["A: aB"],
    ],
    ["set", { rule: "set", header: "A", value: "new" }, "A: 1\nB: 1\na: 2", ["A: new", "B: 1"]],
    ["set adds", { rule: "set", header: "A", value: "new" }, "B: 1", ["B: 1", "A: new"]],
    [
      "duplicates: first",
      { rule: "duplicates" },
      "From: a\nSubject: 1\nfrom: b\nX: 1\nX: 2",
      ["From: a", "Subject: 1", "X: 1", "X: 2"],
    ],
    ["duplicates: last", { rule: "duplicates", keep: "last" }, "From: a\nFrom: b\nFrom: c", ["From: c"]],
    [
      "duplicates of one's own",
      { rule: "duplicates", headers: ["X"] },
      "From: a\nFrom: b\nX: 1\nX: 2",
      ["From: a", "From: b", "X: 1"],
    ],
    ["message_id_missing: there", { rule: "message_id_missing" }, "Message-ID: <a@b>", ["Message-ID: <a@b>"]],
    ["date_missing: there", { rule: "date_missing" }, "Date: nonsense", ["Date: nonsense"]],
  ])("%s", async (_, rule, headers, expected) => {
    expect(await headersOf({ action: "fix", ...rule }, headers)).toEqual(expected);
  });

  test("a long value is folded", async () => {
    const value = "word ".repeat(40).trim();
    const [header] = await headersOf({ rule: "set", header: "A", value, action: "fix" }, "B: 1").then((all) =>
      all.slice(1),
    );
    expect(header!.replaceAll("\r\n", "")).toBe(`A: ${value}`);
    for (const line of header!.split("\r\n")) expect(line.length).toBeLessThanOrEqual(78);
  });

  test("Message-Id and Date are made", async () => {
    const rules = ["message_id_missing", "date_missing"].map((rule) => ({ rule, action: "fix" }));
    const [, id, date] = await headersOf(rules, "From: a@b.c");
    expect(id).toMatch(/^Message-Id: <[\da-f-]{36}@mx\.example\.com>$/);
    expect(isMessageId(id!.slice(12), false)).toBe(true);
    expect(Math.abs(parseDate(date!.slice(6), false)! - Date.now())).toBeLessThan(60_000);
    const [, other] = await headersOf(rules, "From: a@b.c", { macros: { j: "evil\r\nX: 1>" } });
    expect(other).toEndWith("@localhost>");
  });
});

test("a pattern finds what encoded words hide, in names too", async () => {
  const rule = { rule: "rewrite", header: "From", pattern: "paypal", action: "reject" };
  const found = async (from: string) => (await run(rule, `From: ${from}`)).verdict;
  expect(await found("=?utf-8?B?UGF5?= =?utf-8?Q?Pal?= <a@b.c>")).toBe("reject");
  expect(await found("PayPal <a@b.c>")).toBe("reject");
  expect(await found("=?utf-8?B?UGF5?= <a@b.c>")).toBe("accept");
});

describe("Message-Id", () => {
  test.each<[string, strict: boolean, obsolete: boolean]>([
    ["<a@b>", true, true],
    [" <a.b!#$%&'*+-/=?^_`{|}~c@b-c.example> ", true, true],
    ["<a@[192.0.2.7]>", true, true],
    ["(a (nested) comment) <a@b> (\\) more)", true, true],
    ["\n <a@b>", true, true],
    ["<ü@bücher.example>", true, true],
    ['<"a b"@c>', false, true],
    ["< a . b @ c . d >", false, true],
    ["<a(x)@b>", false, true],
    ["a@b", false, false],
    ["<a>", false, false],
    ["<a@b@c>", false, false],
    ["<a@>", false, false],
    ["<@b>", false, false],
    ["<a..b@c>", false, false],
    ["<a@b> <c@d>", false, false],
    ["<a@b>x", false, false],
    ["<a@b> (open", false, false],
    ["<a\udcfc@b>", false, false],
    ['<"a@b>', false, false],
    ["", false, false],
    [`<${"a".repeat(3000)}@b>`, false, false],
    [`<${"a.".repeat(900)}`, false, false],
    ["(".repeat(1900), false, false],
  ])("%j", (value, strict, obsolete) => {
    expect([isMessageId(value, false), isMessageId(value, true)]).toEqual([strict, obsolete]);
  });

  test("is replaced, and judged strictly if told", async () => {
    const [fixed] = await headersOf({ rule: "message_id_malformed", action: "fix" }, "Message-Id: nonsense");
    expect(fixed).toMatch(/^Message-Id: <.+@mx\.example\.com>$/);
    const strict = { rule: "message_id_malformed", action: "reject", obsolete: false };
    expect((await run(strict, 'Message-Id: <"a b"@c>')).verdict).toBe("reject");
    expect((await run({ ...strict, obsolete: true }, 'Message-Id: <"a b"@c>')).verdict).toBe("accept");
  });
});

describe("Date", () => {
  const MOMENT = Date.UTC(2026, 10, 22, 10, 0, 0);
  test.each<[string, strict: number | null, obsolete: number | null]>([
    ["Sun, 22 Nov 2026 10:00:00 +0000", MOMENT, MOMENT],
    ["sun,22 nov 2026 10:00:00 +0000", MOMENT, MOMENT],
    ["22 Nov 2026 10:00 +0000", MOMENT, MOMENT],
    ["Sun, 22 Nov 2026 12:30:00 +0230 (a (nested) zone)", MOMENT, MOMENT],
    ["Sun, 22 Nov 2026\n\t05:00:00 -0500", MOMENT, MOMENT],
    ["Sun, 22 Nov 2026 10:00:00 GMT", null, MOMENT],
    ["Sun, 22 Nov 2026 05:00:00 EST", null, MOMENT],
    ["Sun, 22 Nov 2026 10:00:00 CONST", null, MOMENT],
    ["Sun, 22 Nov 26 10:00:00 +0000", null, MOMENT],
    ["Sun (day) , 22 (a) Nov (b) 2026 10 : 00 : 00 +0000", null, MOMENT],
    ["Mon, 22 Nov 99 10:00:00 Z", null, Date.UTC(1999, 10, 22, 10)],
    ["22 Nov 126 10:00:00 Z", null, MOMENT],
    ["Mon, 22 Nov 2026 10:00:00 +0000", null, null],
    ["Sun, 31 Nov 2026 10:00:00 +0000", null, null],
    ["0 Nov 2026 10:00:00 +0000", null, null],
    ["29 Feb 2027 10:00:00 +0000", null, null],
    ["22 Nov 2026 24:00:00 +0000", null, null],
    ["22 Nov 2026 10:60:00 +0000", null, null],
    ["22 Nov 2026 10:00:61 +0000", null, null],
    ["22 Nov 2026 10:00:00 +0060", null, null],
    ["22 Nov 2026 10:00:00", null, null],
    ["22 Nov 1899 10:00:00 +0000", null, null],
    ["22 Nov 99999 10:00:00 +0000", Date.UTC(99_999, 10, 22, 10), Date.UTC(99_999, 10, 22, 10)],
    ["2026-11-22T10:00:00Z", null, null],
    ["", null, null],
    ["Sun, 22 Nov 2026 10:00:00 +0000 (open", null, null],
    [`22 Nov 2026 10:00:00 +0000${" ".repeat(3000)}`, null, null],
  ])("%j", (value, strict, obsolete) => {
    expect([parseDate(value, false), parseDate(value, true)]).toEqual([strict, obsolete]);
  });

  const inHours = (hours: number) => `Date: ${formatDate(new Date(Date.now() + hours * 3_600_000))}`;
  test.each<[string, Rule, string, "accept" | "reject"]>([
    ["malformed", { rule: "date_malformed" }, "Date: nonsense", "reject"],
    ["malformed is not missing", { rule: "date_malformed" }, "X: 1", "accept"],
    ["missing", { rule: "date_missing" }, "X: 1", "reject"],
    ["past", { rule: "date_past", days: 2 }, inHours(-49), "reject"],
    ["not so long past", { rule: "date_past", days: 2 }, inHours(-47), "accept"],
    ["future", { rule: "date_future", hours: 2 }, inHours(3), "reject"],
    ["near future", { rule: "date_future", hours: 2 }, inHours(1), "accept"],
    ["far in no direction if it cannot be read", { rule: "date_past", days: 0 }, "Date: nonsense", "accept"],
    ["two dates", { rule: "duplicates" }, `${inHours(0)}\n${inHours(1)}`, "reject"],
  ])("%s", async (_, rule, headers, verdict) => {
    expect((await run({ ...rule, action: "reject" }, headers)).verdict).toBe(verdict);
  });

  test("is replaced by the time of receipt", async () => {
    const [date] = await headersOf({ rule: "date_future", action: "fix" }, inHours(1000));
    expect(Math.abs(parseDate(date!.slice(6), false)! - Date.now())).toBeLessThan(60_000);
  });
});

describe("Authentication-Results", () => {
  test.each<[string, string | null]>([
    ["mx.example.com; none", "mx.example.com"],
    ["mx.example.com", "mx.example.com"],
    ["MX.Example.COM.; spf=pass", "mx.example.com"],
    ["mx.example.com 1; none", "mx.example.com"],
    ["mx.example.com (comment) 1 (more); none", "mx.example.com"],
    ["(a (nested\\) comment)) \n mx.example.com; none", "mx.example.com"],
    ['"mx.example.com"; none', "mx.example.com"],
    ['"m\\x.example.com" 1; none', "mx.example.com"],
    ["mx.example.com(x); none", "mx.example.com"],
    ["BÜCHER.example; none", "xn--bcher-kva.example"],
    ["mx.example.com spf=pass", null],
    ["; none", null],
    ["", null],
    ["(open; mx.example.com", null],
    ['"open; none', null],
    ["(".repeat(100_000), null],
    [`"${"a".repeat(100_000)}"`, null],
  ])("authservId of %j", (value, id) => {
    expect(authservId(value)).toBe(id);
  });

  const RULE = { rule: "authentication_results", action: "fix" };
  const OURS = "Authentication-Results: mx.example.com; spf=pass";
  const THEIRS = "Authentication-Results: mx.example.net; spf=pass";
  test.each<[string, Rule, string, string[]]>([
    ["ours goes, theirs stays", {}, `${OURS}\n${THEIRS}\nAUTHENTICATION-RESULTS: "MX.example.com" 1; none`, [THEIRS]],
    ["what cannot be read goes", {}, `Authentication-Results: (x\n${THEIRS}`, [THEIRS]],
    ["further identities", { authserv_ids: ["mx.example.net"] }, `X: 1\n${THEIRS}`, ["X: 1"]],
    ["identities below a domain", { authserv_ids: [".example.net"] }, `X: 1\n${THEIRS}`, ["X: 1"]],
    ["all", { all: true }, `X: 1\n${OURS}\n${THEIRS}`, ["X: 1"]],
    ["from our own network", { trusted_networks: ["127.0.0.0/8", "::1"] }, OURS, [OURS]],
    ["from another network", { trusted_networks: ["192.0.2.0/24"] }, `X: 1\n${OURS}`, ["X: 1"]],
  ])("%s", async (_, options, headers, expected) => {
    expect(await headersOf({ ...RULE, ...options }, headers)).toEqual(expected);
  });

  test("can be refused", async () => {
    expect((await run({ ...RULE, action: "reject" }, OURS)).reply?.lines).toEqual([
      "Message refused: a forged Authentication-Results header",
    ]);
  });
});

function withFix(rule: Rule): Rule {
  return { action: "fix", ...rule };
}

/** One rule of each kind, as strict as it gets: nothing that is sent makes any of them fail. */
const ALL: Rule[] = [
  { rule: "limit", header: "*", max_count: 500, max_length: 5000 },
  { rule: "limit", header: "Subject", max_count: 1 },
  { rule: "duplicates" },
  { rule: "require", header: "To", value: "x" },
  { rule: "remove", header: "X-*" },
  { rule: "rewrite", header: "Subject", pattern: "\\s|e", replace: "$&$&" },
  { rule: "set", header: "Precedence", value: "bulk" },
  { rule: "message_id_missing" },
  { rule: "message_id_malformed", obsolete: false },
  { rule: "date_missing" },
  { rule: "date_malformed", obsolete: false },
  { rule: "date_past", days: 0 },
  { rule: "date_future", hours: 0 },
  { rule: "authentication_results" },
].map(withFix);

const HOSTILE = [
  "",
  " ",
  "\t",
  "(".repeat(10_000),
  '"'.repeat(999),
  "\\",
  "<>",
  "=?utf-8?b?////?=",
  "a\rb\rX-Evil: 1",
  "\r",
  "\u2028\u0085\ufeff",
  "\u0000x",
  "x".repeat(20_000),
  "e ".repeat(5000),
  "\n e".repeat(300),
];

describe("hostile", () => {
  test.each(HOSTILE.map((value) => [JSON.stringify(value).slice(0, 40), value] as const))(
    "value %s",
    async (_, value) => {
      const names = ["Subject", "Date", "Message-Id", "Authentication-Results", "To", "X-A", "Precedence"];
      const block = names.map((name) => `${name}: ${value.replaceAll("\0", "")}`).join("\n");
      const { message, verdict } = await run(ALL, block);
      expect(verdict).toBe("accept");
      expect(message.split("\r\n\r\n")[0]).not.toMatch(/\nX-E+vil/);
    },
  );

  test("a thousand headers, names that cannot be changed, bytes that are no text", async () => {
    const many = Array.from({ length: 1000 }, (_, index) => `X-${index % 50}: ${index}`).join("\n");
    expect((await run(ALL, many)).verdict).toBe("accept");
    const odd = Buffer.from(
      "X-\xe4: 1\nDate : x\nX-(: 2\nSubject: \xff\xfe e\nMessage-Id: <\xff@\xff>\n\nbody\n",
      "latin1",
    );
    expect((await run(ALL, "", { eml: odd })).verdict).toBe("accept");
  });
});

test.each<[string, unknown, string]>([
  ["no rules", undefined, "options.rules: expected a list, got nothing"],
  ["an empty list", [], "options.rules: expected at least one"],
  ["a rule without a name", [{ action: "fix" }], 'options.rules.0.rule: "rule" is missing'],
  ["a rule that is none", [{ rule: "toString" }], 'options.rules.0.rule: expected "require", "limit", '],
  ["no action", [{ rule: "duplicates" }], 'options.rules.0.action: "action" is missing'],
  [
    "a fix without a value",
    [{ rule: "require", header: "To", action: "fix" }],
    'options.rules.0.action: expected another action: there is no "value" or "replace", got "fix"',
  ],
  [
    "a text without a code",
    [{ rule: "duplicates", action: "reject", text: "No" }],
    "options.rules.0.text: expected an SMTP reply",
  ],
  ["a text of the wrong class", [{ rule: "duplicates", action: "tempfail", text: "550 No" }], "options.rules.0.text"],
  [
    "a text that nobody sees",
    [{ rule: "duplicates", action: "fix", text: "550 No" }],
    'expected no text, as the action is "fix"',
  ],
  [
    "a header with a colon",
    [{ rule: "require", header: "To:", action: "reject" }],
    "options.rules.0.header: expected the name",
  ],
  [
    "a value with a line break",
    [{ rule: "set", header: "A", value: "x\r\nX-Evil: 1", action: "fix" }],
    "options.rules.0.value",
  ],
  [
    "a replacement with a line break",
    [{ rule: "rewrite", header: "A", pattern: "x", replace: "\n", action: "fix" }],
    "one line of text",
  ],
  [
    "a pattern that is none",
    [{ rule: "rewrite", header: "A", pattern: "(", action: "reject" }],
    "options.rules.0.pattern: expected a regular expression",
  ],
  [
    "a limit without a number",
    [{ rule: "limit", header: "A", action: "reject" }],
    "options.rules.0.max_count: expected a number here or in max_length",
  ],
  [
    "a negative number",
    [{ rule: "date_past", days: -1, action: "reject" }],
    "options.rules.0.days: expected a number, 0 or more, got -1",
  ],
  [
    "a network that is none",
    [{ rule: "authentication_results", trusted_networks: ["10.0.0.1/8"], action: "fix" }],
    "options.rules.0.trusted_networks.0: expected an address or a network (10.0.0.1/8 has bits set beyond its prefix",
  ],
  ["an unknown option", [{ rule: "date_past", hours: 1, action: "reject" }], "options.rules.0.hours: unknown option"],
])("start refuses %s", async (_, rules, message) => {
  await expect(runFilter(headerPolicy, { eml: "\n", options: { rules } })).rejects.toThrow(message);
});

describe("docs/handlers/header-policy.md", () => {
  const page = readFileSync(join(import.meta.dir, "../../docs/handlers/header-policy.md"), "utf8");
  const [, example = ""] = /^```toml\n(.*?)^```$/ms.exec(page) ?? [];
  const { options } = (Bun.TOML.parse(example) as { filter: [{ options: Record<string, unknown> }] }).filter[0];

  test("its example starts", async () => {
    expect((await runFilter(headerPolicy, { eml: "Subject: s\n\n.\n", options })).failures).toEqual([]);
  });

  test("it lists every rule, with its options", async () => {
    const rows = new Map([...page.matchAll(/^\| `(\w+)` .*\| (.*) \|$/gm)].map((match) => [match[1]!, match[2]!]));
    for (const [rule, { entries }] of Object.entries(RULES)) {
      for (const name of Object.keys(entries)) expect(rows.get(rule), rule).toContain(`\`${name}\``);
    }
  });
});
