/** Folding and encoded words: what is written is read again, and nothing that a client sends throws or takes long. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { decodeWords, encodeWords, foldHeader, unfold } from "../../src/mime/header-text.ts";
import { Random } from "../protocol/random.ts";

setDefaultTimeout(120_000);

describe("decodeWords", () => {
  test.each([
    ["plain", "plain"],
    ["=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"],
    ["Re: =?utf-8?B?R3LDvMOfZQ==?= =?utf-8?Q?_an_alle?=", "Re: Grüße an alle"],
    // A character that is split between two words.
    ["=?UTF-8?Q?a=C3?= =?UTF-8?Q?=A4b?=", "aäb"],
    ["=?UTF-8?B?w6Q=?=\r\n =?UTF-8?B?w7Y=?=", "äö"],
    ["=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"],
    ["=?koi8-r?B?8NLJ18XU?=", "Привет"],
    ["=?utf-8*en?q?b_c?=", "b c"],
    ["a =?utf-8?q?b?= c", "a b c"],
    ["=?x-mac-roman?q?=8A?= =?ISO-2022-JP*ja?B?GyRCRnxLXBsoQg==?=", "ä日本"],
    // Mail programs show a word in a character set that they do not know as it is.
    ["=?x-unknown?q?a?= =?utf-8?q?b?= =?base64?q?c?=", "=?x-unknown?q?a?= b =?base64?q?c?="],
    ["=?utf-7?q?+ADw-?= =?__proto__?b?YQ==?=", "=?utf-7?q?+ADw-?= =?__proto__?b?YQ==?="],
    ["folded\r\n\tvalue", "folded value"],
    ["=?utf-8?q?unfinished", "=?utf-8?q?unfinished"],
    ["50 % off?=", "50 % off?="],
  ])("%j is %j", (value, text) => expect(decodeWords(value)).toBe(text));

  test.each([
    ["by Q and B", "=?UTF-8?Q?a=C3?= =?UTF-8?B?pGI=?=", "aäb"],
    ["by B and Q", "=?UTF-8?B?YcM=?= =?UTF-8?Q?=A4b?=", "aäb"],
    ["over three words", "=?UTF-8?Q?a=E6?=\r\n =?UTF-8?Q?=97?=\r\n\t=?UTF-8?B?pWI=?=", "a日b"],
    ["with a language", "=?UTF-8?Q?a=C3?= =?utf-8*en?Q?=A4b?=", "aäb"],
    ["with another name of the character set", "=?UTF8?Q?a=C3?= =?utf-8?Q?=A4b?=", "aäb"],
    ["without white space", "=?UTF-8?Q?a=C3?==?UTF-8?Q?=A4b?=", "aäb"],
    ["in base64 without padding", "=?UTF-8?B?YcM?= =?UTF-8?B?pGI?=", "aäb"],
    ["in base64 that is cut between its groups", "=?UTF-8?B?YcOkY?= =?UTF-8?B?8O2?=", "aäcö"],
    ["in shift_jis", "=?shift_jis?B?kw==?= =?shift_jis?B?+pZ7?=", "日本"],
    ["in gb2312, by Q and B", "=?gb2312?Q?=D6?= =?gb2312?B?0M7E?=", "中文"],
    ["between others", "=?iso-8859-1?Q?=E4?= =?utf-8?Q?=C3?= =?utf-8?Q?=A4?= =?iso-8859-1?Q?=E4?=", "äää"],
    ["but not by text between them", "=?UTF-8?Q?a=C3?= x =?UTF-8?Q?=A4b?=", "a\ufffd x \ufffdb"],
    [
      "nor by a word that is not decoded",
      "=?UTF-8?Q?a=C3?= =?x-no?Q?x?= =?UTF-8?Q?=A4b?=",
      "a\ufffd =?x-no?Q?x?= \ufffdb",
    ],
  ])("joins a character that is split %s", (_, value, text) => expect(decodeWords(value)).toBe(text));

  test.each([
    ["a byte that is not ASCII in a word", "=?iso-8859-1?Q?gr\udcfcn?=", "grün"],
    ["UTF-8 in a word", "=?utf-8?Q?grün?=", "grün"],
    ["each padded run of base64", "=?utf-8?B?YQ==Yg==?=", "ab"],
    ["base64 with spaces", "=?utf-8?B?Z3LD vG4=?=", "grün"],
    ["an escape that is none", "=?utf-8?Q?100=_=zz=4?=", "100= =zz=4"],
    ["windows-1252 that calls itself ISO 8859-1", "=?iso-8859-1?Q?=93hi=94?=", "“hi”"],
    ["a year in the name of the character set", "=?iso_8859-1:1987?Q?=E4?=", "ä"],
  ])("reads %s", (_, value, text) => expect(decodeWords(value)).toBe(text));

  test("many words take no long time", () => {
    const words = "=?utf-8?B?w6Q?= ".repeat(4000);
    expect(decodeWords(words)).toBe(`${"ä".repeat(4000)} `);
    for (const part of ["=?", "=?a?q?", "=?utf-8?q?a?= =?", "=?utf-8?b?AAAAA?= "]) {
      decodeWords(part.repeat(64 * 1024).slice(0, 64 * 1024));
    }
  });

  test("gives one line, whatever a word brings in", () => {
    expect(decodeWords("=?us-ascii?Q?a=00=0D=0ABcc:_x?=")).toBe("a Bcc: x");
    expect(decodeWords("=?us-ascii?B?AQIDDQo=?=")).toBe(" ");
  });

  test("leaves a value of more than 64 KB as it is, but for its folds", () => {
    const long = `=?utf-8?q?a?=\n ${"x".repeat(64 * 1024)}`;
    expect(decodeWords(long)).toBe(long.replace("\n ", " "));
  });
});

describe("encodeWords", () => {
  test.each([
    "",
    "plain",
    "Jörg",
    "  two  spaces ü  ",
    "=?utf-8?q?x?=",
    "ü =?utf-8?q?x?= y",
    "ä _ = ? é",
    "日本語の件名",
  ])("%j is read again", (text) => expect(decodeWords(encodeWords(text))).toBe(text));

  test("leaves ASCII as it is, and encodes only what has to be", () => {
    expect(encodeWords("Weekly report")).toBe("Weekly report");
    expect(encodeWords("Report für März, all pages")).toMatch(
      /^Report =\?UTF-8\?Q\?.*\?=, all pages$|^Report .*pages$/,
    );
  });

  test("has no line break but folds, no word over 75 characters, no line over 76", () => {
    for (const text of ["a\r\nBcc: x", "😀".repeat(100), "ü ".repeat(200), `${"word ".repeat(40)}ü`]) {
      const value = encodeWords(text);
      for (const line of value.split("\n")) expect(line.length).toBeLessThanOrEqual(78);
      for (const word of value.split(/\s+/)) {
        if (word.startsWith("=?")) expect(word.length).toBeLessThanOrEqual(75);
      }
      expect(value.replaceAll("\n ", " ")).not.toMatch(/[\r\n]/);
    }
    expect(decodeWords(encodeWords("a\r\nBcc: x"))).toBe("a Bcc: x");
    expect(decodeWords(encodeWords("lone \ud800 half"))).toBe("lone \ufffd half");
  });

  test("random text is read again", () => {
    const random = new Random(7);
    const letters = ["a", " ", "ü", "=", "?", "_", "日", "😀", "=?", "?=", "B", '"', ",", "(", "\u00a0"];
    for (let count = 0; count < 2000; count++) {
      const text = Array.from({ length: random.below(60) }, () => random.pick(letters)).join("");
      expect(decodeWords(encodeWords(text))).toBe(text);
    }
  });
});

describe("foldHeader", () => {
  test("folds at spaces, and unfolding gives the value back", () => {
    const value = Array.from({ length: 30 }, (_, index) => `<${index}.message@example.com>`).join(" ");
    const folded = foldHeader("References", value);
    expect(folded.split("\n").length).toBeGreaterThan(10);
    expect(Math.max(...`References: ${folded}`.split("\n").map((line) => line.length))).toBeLessThanOrEqual(76);
    expect(unfold(folded)).toBe(value);
  });

  test("keeps runs of spaces and long words", () => {
    for (const value of ["", " ", "a  b", "x".repeat(500), `a ${"x".repeat(100)} b`, `${" ".repeat(100)}a`]) {
      expect(unfold(foldHeader("X", value))).toBe(value);
      for (const line of foldHeader("X", value).split("\n").slice(1)) expect(line.trim()).not.toBe("");
    }
  });
});
