/** A known text is taken out of what mail programs make of it in replies, and nothing else. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { QuotedText, type Where } from "../../handlers/lib/quoted-text.ts";
import { expectGrowth } from "../support/growth.ts";

setDefaultTimeout(120_000);

const TEXT = "CAUTION: this mail comes from outside of Exämple Ltd.\nDo not open links & files.";
const HTML =
  '<div style="padding:8px"><b>CAUTION</b>: this mail comes from outside of Ex&auml;mple Ltd.<br>Do not open links &amp; files.</div>';
const QUOTED = new QuotedText(TEXT, HTML);

describe("text", () => {
  test.each<[string, text: string, rest: string | null]>([
    ["on top", `${TEXT}\n\nHello\n`, "Hello\n"],
    ["quoted", `Yes.\n\n> ${TEXT.replace("\n", "\n> ")}\n> \n> Hello\n`, "Yes.\n\n> Hello\n"],
    [
      "quoted twice, and broken elsewhere",
      "No.\n>> CAUTION: this mail comes\n>> from outside of Exämple\n> > Ltd. Do not open links & files.\n>> Hello\n",
      "No.\n>> Hello\n",
    ],
    ["with marks of emphasis", `*CAUTION*: this mail${TEXT.slice(18)}\nHello`, "Hello"],
    ["with other spaces", `${TEXT.replaceAll(" ", "\u00a0 ")}\nHello`, "Hello"],
    [
      "with the target of a link",
      `${TEXT.replace("links", "links <https://example.org/why?a=1>\n>")} <mailto:a@b.c>\nHello`,
      "Hello",
    ],
    ["at the end", `Hello\n> ${TEXT}`, "Hello\n"],
    ["twice", `${TEXT}\n\nA\n${TEXT}\n\nB\n`, "A\nB\n"],
    ["not within a line", `It says: ${TEXT}\n`, null],
    ["not with text behind it", `${TEXT} Really.\n`, null],
    ["not a part of it", TEXT.slice(0, -1), null],
    ["not in another wording", TEXT.replace("this", "that"), null],
    ["none", "", null],
  ])("%s", (_, text, rest) => expect(QUOTED.withoutLines(text, "everywhere")).toBe(rest));

  test("a form of it within the other is taken out once", () => {
    const quoted = new QuotedText("Note\nCAUTION.\nBye.", "<p>CAUTION.</p>");
    expect(quoted.withoutLines("Note\nCAUTION.\nBye.\n\nHello\n", "everywhere")).toBe("Hello\n");
    expect(quoted.withoutLines("CAUTION.\n\nHello\n", "everywhere")).toBe("Hello\n");
  });

  test.each<[string, string, string | null]>([
    ["above all other text", `\n${TEXT}\n\nHello\n`, "\nHello\n"],
    ["not below", `Hello\n\n${TEXT}\n`, null],
    ["the first of two", `${TEXT}\n\nHello\n${TEXT}\n`, `Hello\n${TEXT}\n`],
  ])("only on top: %s", (_, text, rest) => expect(QUOTED.withoutLines(text, "top")).toBe(rest));
});

function htmlWithout(html: string, where: Where = "everywhere", quoted = QUOTED): string | null {
  const removal = quoted.htmlRemoval(html, where);
  if (removal === null) return null;
  const rewriter = new HTMLRewriter();
  removal(rewriter);
  return rewriter.transform(html);
}

describe("HTML", () => {
  test.each<[string, html: string, rest: string | null]>([
    ["as it was added", `<html><body>${HTML}<p>Hello</p></body></html>`, "<html><body><p>Hello</p></body></html>"],
    [
      "written anew",
      '<p>Yes</p><blockquote><div class="m_1"><p><strong>CAUTION</strong>: this&nbsp;mail\r\n comes from outside of Ex&#228;mple Ltd.</p><p>Do not open links &amp; files.</p></div><p>Hello</p></blockquote>',
      "<p>Yes</p><blockquote><p>Hello</p></blockquote>",
    ],
    [
      "in a table",
      `<table><tr><td>${HTML}</td></tr><tr><td>Hello</td></tr></table>`,
      "<table><tr><td>Hello</td></tr></table>",
    ],
    ["a table of its own", `<table><tr><td>${HTML}</td></tr></table>Hello`, "Hello"],
    ["as plain text", `<pre>${TEXT.replace("&", "&amp;")}\n\nA &lt; B\n</pre>`, "<pre>\nA &lt; B\n</pre>"],
    [
      "in lines of a block",
      `<div>CAUTION: this mail comes from outside of Exämple Ltd.<br>Do not open links &amp; files.<br>Hello</div>`,
      "<div><br><br>Hello</div>",
    ],
    ["elements without end tags", `<p>Hello<p>${HTML}<p>Bye`, "<p>Hello<p><p>Bye"],
    [
      "an element that ends with another",
      `<div>Hello<p>${HTML.replace(/<div[^>]*>|<.div>/g, "")}</div>Bye`,
      "<div>Hello<p><br></div>Bye",
    ],
    ["a picture beside it stays", `<div>${HTML}<img src="cid:1"></div>`, '<div><img src="cid:1"></div>'],
    ["all of a body", `<body>${HTML}</body>`, "<body></body>"],
    ["not within a line", `<p>It says: ${HTML.replace(/<div[^>]*>|<.div>/g, "")}</p>`, null],
    ["not with text behind it", `<p>${HTML.replace(/<div[^>]*>|<.div>/g, "")} Really.</p>`, null],
    ["not what is not shown", `<style>${TEXT}</style><script>${TEXT}</script><title>${TEXT}</title>`, null],
    ["none", "<p>Hello</p>", null],
  ])("%s", (_, html, rest) => expect(htmlWithout(html)).toBe(rest));

  test("only on top", () => {
    expect(htmlWithout(`<title>x</title><p> ${HTML}<p>Hello</p>`, "top")).toBe("<title>x</title><p> <p>Hello</p>");
    expect(htmlWithout(`<p>Hello</p>${HTML}`, "top")).toBeNull();
  });

  test("a picture of its own goes with it", () => {
    const html = `<div><img src="https://example.org/a.png">${TEXT}</div>`;
    const quoted = new QuotedText(TEXT, html);
    expect(htmlWithout(`<div>${html}</div><p>Hello</p>`, "everywhere", quoted)).toBe("<p>Hello</p>");
  });

  test("what else is there stays byte for byte", () => {
    const rest = "<p CLASS=a  id='b'>A &nbsp;&lt; <!-- > --><br/>\r\n<b>c</p>";
    expect(htmlWithout(`${rest}${HTML}${rest}`)).toBe(`${rest}${rest}`);
  });
});

test("HTML of more than 2 MB is not looked through", () => {
  expect(htmlWithout(HTML + "x".repeat(2 * 1024 * 1024))).toBeNull();
});

test("a text without a word in ASCII is found", () => {
  const quoted = new QuotedText("Внимание: внешняя почта!", "<p>Внимание: внешняя почта!</p>");
  expect(quoted.withoutLines("> Внимание: внешняя\n> почта!\nHi", "everywhere")).toBe("Hi");
  expect(htmlWithout("<p>Внимание: <b>внешняя</b> почта!</p>Hi", "everywhere", quoted)).toBe("Hi");
});

describe("hostile text is read in proportion", () => {
  const line = TEXT.replace("\n", " ");
  test.each<[string, number, (amount: number) => string]>([
    ["many copies in one line", 20_000, (amount) => line.repeat(amount)],
    ["many copies in lines", 20_000, (amount) => `${line}\n`.repeat(amount)],
    ["beginnings of it", 200_000, (amount) => "CAUTION: this mail ".repeat(amount)],
    ["targets of links", 100_000, (amount) => `<https://${"a".repeat(10)}`.repeat(amount) + line],
    ["much white space", 2_000_000, (amount) => `${" ".repeat(amount)}${line}${">".repeat(amount)}`],
  ])("%s", async (_, most, make) => {
    await expectGrowth(most, (amount) => Promise.resolve(QUOTED.withoutLines(make(amount), "everywhere")));
  });

  test.each<[string, number, (amount: number) => string]>([
    ["many copies", 5000, (amount) => HTML.repeat(amount)],
    ["in many elements", 20_000, (amount) => `${"<div>".repeat(amount)}${HTML}${"</div>".repeat(amount)}`],
    ["in elements without end", 20_000, (amount) => `${"<p>".repeat(amount)}${HTML}`],
    ["many references", 200_000, (amount) => `${HTML}${"&amp;".repeat(amount)}`],
  ])("%s", async (_, most, make) => {
    await expectGrowth(most, (amount) => Promise.resolve(htmlWithout(make(amount))));
  });
});
