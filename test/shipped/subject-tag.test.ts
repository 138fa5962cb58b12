/** subject-tag: when it tags, and what it makes of Subjects of all kinds. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import subjectTag, { hasTag, withTag } from "../../handlers/subject-tag.ts";
import { decodeWords } from "../../src/index.ts";
import { textOf } from "../../src/mime/header-text.ts";
import { runFilter } from "../../src/testing/index.ts";

const FROM = "alice@example.net";
const TO = ["bob@example.com"];

function run(options: Record<string, unknown>, eml = "Subject: hello\n\nbody\n", from = FROM, to = TO) {
  return runFilter(subjectTag, { from, to, eml, options });
}

async function subjectOf(options: Record<string, unknown>, eml?: string, from?: string, to?: string[]) {
  const { message, verdict, failures } = await run(options, eml, from, to);
  expect({ verdict, failures }).toEqual({ verdict: "accept", failures: [] });
  const [, subject] = /^Subject: ?((?:.*(?:\r\n[ \t])?)*)\r\n/im.exec(message.split("\r\n\r\n")[0] + "\r\n") ?? [];
  return subject;
}

describe("withTag", () => {
  const LONG = "x".repeat(70);
  test.each([
    ["a plain Subject", "hello", "[ext]", "[ext] hello"],
    ["an empty one", "", "[ext]", "[ext]"],
    ["an encoded word stays as it is", "=?utf-8?q?gr=C3=BCn?=", "[ext]", "[ext] =?utf-8?q?gr=C3=BCn?="],
    ["a fold stays", "one\n two", "[ext]", "[ext] one\n two"],
    ["a fold at the front goes", "\n one", "[ext]", "[ext] one"],
    ["a long line is folded behind the tag", LONG, "[ext]", `[ext]\n ${LONG}`],
    ["a lone CR begins no header", "a\rX-Evil: 1", "[ext]", "[ext] a\n X-Evil: 1"],
    ["nor does a LF", "a\nX-Evil: 1", "[ext]", "[ext] a\n X-Evil: 1"],
    ["a byte that is no UTF-8 stays", "gr\udcfcn", "[ext]", "[ext] gr\udcfcn"],
  ])("%s", (_, subject, tag, expected) => {
    expect(withTag(subject, tag)).toBe(expected);
  });

  test.each([
    ["plain", "hallo", "[außen] hallo"],
    ["encoded", "=?utf-8?q?gr=C3=BCn?=", "[außen] grün"],
    ["raw UTF-8", "grün", "[außen] grün"],
  ])("a tag beyond ASCII is encoded, and reads right before a Subject that is %s", (_, subject, expected) => {
    const tagged = withTag(subject, "[außen]");
    expect(tagged).toStartWith("=?UTF-8?Q?");
    expect(tagged).toEndWith(subject);
    expect(decodeWords(tagged)).toBe(expected);
  });

  test("encoded words of a long tag have at most 75 characters and cut no character", () => {
    const tag = "ü😀".repeat(20);
    const tagged = withTag("hello", tag);
    for (const word of tagged.split(/\s+/).slice(0, -1)) expect(word.length).toBeLessThanOrEqual(75);
    expect(decodeWords(tagged)).toBe(`${tag} hello`);
  });

  test("a tag that looks like an encoded word is encoded", () => {
    expect(decodeWords(withTag("x", "=?utf-8?q?a?="))).toStartWith("=?utf-8?q?a?=");
  });
});

test.each([
  ["[ext] hello", true],
  ["[EXT] hello", true],
  ["Re: [ext] hello", true],
  ["AW: Re[2]: Fwd: [ext] hello", true],
  ["回复：[ext] hello", true],
  ["=?utf-8?B?W2V4dF0gaGVsbG8=?=", true],
  ["=?us-ascii?Q?Re:_[ext]?= hello", true],
  ["hello", false],
  ["what is [ext]?", false],
  ["Re: hello [ext]", false],
  ["=?x-unknown?B?W2V4dF0=?=", false],
  ["=?utf-8?B?!!!?= ", false],
  [`${"Re: ".repeat(5000)}[ext]`, false],
  ["=?".repeat(50_000), false],
])("hasTag of %j", (subject, expected) => {
  expect(hasTag(textOf(subject), "[ext]")).toBe(expected);
});

describe("conditions", () => {
  const TAG = { tag: "[ext]" };
  test.each<[string, Record<string, unknown>, string | undefined]>([
    ["none: every message", {}, "[ext] hello"],
    ["sender domain", { sender_domains: ["example.net"] }, "[ext] hello"],
    ["sender domain in any case", { sender_domains: ["EXAMPLE.NET"] }, "[ext] hello"],
    ["another sender domain", { sender_domains: ["example.com"] }, "hello"],
    ["excepted sender domain", { except_sender_domains: ["example.net"] }, "hello"],
    ["recipient domain", { recipient_domains: ["example.com"] }, "[ext] hello"],
    ["a suffix is of names below it", { recipient_domains: [".example.com"] }, "hello"],
    ["all must hold", { recipient_domains: ["example.com"], sender_domains: ["other.example"] }, "hello"],
    ["header missing", { header: "X-Spam-Flag" }, "hello"],
  ])("%s", async (_, options, expected) => {
    expect(await subjectOf({ ...TAG, ...options })).toBe(expected);
  });

  test("header present, and holding a text", async () => {
    const eml = "X-Spam-Flag: Yes, sure\nSubject: hello\n\n.\n";
    expect(await subjectOf({ ...TAG, header: "x-spam-flag" }, eml)).toBe("[ext] hello");
    expect(await subjectOf({ ...TAG, header: "x-spam-flag", header_contains: "YES" }, eml)).toBe("[ext] hello");
    expect(await subjectOf({ ...TAG, header: "x-spam-flag", header_contains: "no" }, eml)).toBe("hello");
  });

  test.each<[string, Record<string, unknown>, object, boolean]>([
    ["outside", {}, {}, true],
    ["outside", {}, { macros: { auth_authen: "jane" } }, false],
    ["outside", { own_networks: ["127.0.0.0/8"] }, {}, false],
    ["outside", { except_sender_domains: ["example.net"] }, {}, false],
    ["own", {}, {}, false],
    ["own", {}, { macros: { auth_authen: "jane" } }, true],
    ["own", { own_networks: ["::1", "127.0.0.1"] }, {}, true],
    ["any", { own_networks: ["127.0.0.1"] }, {}, true],
  ])("origin %j, %j, %j: %p", async (origin, options, session, isTagged) => {
    const mail = { ...session, from: FROM, to: TO, eml: "Subject: hello\n\n.\n" };
    const { message } = await runFilter(subjectTag, { ...mail, options: { ...TAG, origin, ...options } });
    expect(message.includes("[ext]")).toBe(isTagged);
  });

  test("the null sender is of no domain", async () => {
    expect(await subjectOf({ ...TAG, sender_domains: ["example.net"] }, undefined, "")).toBe("hello");
  });
});

test("a missing Subject is added, or left", async () => {
  expect(await subjectOf({ tag: "[ext]" }, "From: a@b.c\n\n.\n")).toBe("[ext]");
  expect(await subjectOf({ tag: "[ext]", missing_subject: "leave" }, "From: a@b.c\n\n.\n")).toBeUndefined();
  expect(await subjectOf({ tag: "[ext]" }, "Subject:\n\n.\n")).toBe("[ext]");
});

test.each([
  ["Q, in the middle of a character", "=?UTF-8?Q?[au=C3?= =?UTF-8?Q?=9Fen]_hello?="],
  ["Q, folded", "=?UTF-8?Q?[au=C3?=\n =?UTF-8?Q?=9Fen]_hello?="],
  ["B, in the middle of a character", "=?UTF-8?B?W2F1ww==?= =?UTF-8?B?n2VuXSBoZWxsbw==?="],
  ["by B and Q", "=?UTF-8?B?W2F1ww==?= =?utf-8?Q?=9Fen]_hello?="],
  ["base64 that is cut anywhere", "=?UTF-8?B?W2F1w59lb?= =?UTF-8?B?l0gaGVsbG8=?="],
  ["behind Re:", "Re: =?UTF-8*de?Q?[au=C3?=\n =?UTF-8?B?n2VuXQ?= hello"],
])("a tag in encoded words that split a character is found: %s", async (_, subject) => {
  expect(hasTag(textOf(subject), "[außen]")).toBe(true);
  expect(await subjectOf({ tag: "[außen]" }, `Subject: ${subject}\n\n.\n`)).toBe(subject.replace("\n", "\r\n"));
});

test("run twice it tags once", async () => {
  const { message } = await runFilter([subjectTag, subjectTag], {
    eml: "Subject: hello\n\n.\n",
    options: { tag: "[außen]" },
  });
  expect(message.match(/=\?UTF-8/g)).toHaveLength(1);
});

test.each<[string, Record<string, unknown>, string]>([
  ["no tag", {}, 'options.tag: "tag" is missing'],
  ["a tag of spaces", { tag: "  " }, 'options.tag: expected 1 to 60 characters, got "  "'],
  ["a tag with a line break", { tag: "a\r\nX-Evil: 1" }, "options.tag: expected one line of text"],
  [
    "a domain that is none",
    { tag: "x", sender_domains: ["a b"] },
    "options.sender_domains.0: expected a domain such as",
  ],
  ["a domain instead of a list", { tag: "x", sender_domains: "a.b" }, 'expected a list, got "a.b"'],
  ["a header that is none", { tag: "x", header: "a b" }, "options.header: expected the name of a header"],
  ["an origin that is none", { tag: "x", origin: "inside" }, 'expected "any", "own" or "outside", got "inside"'],
  ["a word that is none", { tag: "x", missing_subject: "no" }, 'expected "add" or "leave", got "no"'],
  ["an unknown option", { tag: "x", tags: 1 }, "options.tags: unknown option"],
])("start refuses %s", async (_, options, message) => {
  await expect(run(options)).rejects.toThrow(message);
});

describe("docs/handlers/subject-tag.md", () => {
  const page = readFileSync(join(import.meta.dir, "../../docs/handlers/subject-tag.md"), "utf8");
  const [, example = ""] = /^```toml\n(.*?)^```$/ms.exec(page) ?? [];
  const { options } = (Bun.TOML.parse(example) as { filter: [{ options: Record<string, unknown> }] }).filter[0];

  test("its example starts", async () => {
    expect((await runFilter(subjectTag, { eml: "Subject: s\n\n.\n", options })).failures).toEqual([]);
  });
});
