/** `mime.banner` and `mime.footer`: where their text goes, in every form of a body, charset and encoding. */
import { describe, expect, test } from "bun:test";
import { placesIn } from "../../src/mime/html-places.ts";
import { mimeOfMessage } from "../../src/mime/mime.ts";
import type { Decoration } from "../../src/mime/types.ts";
import { editable } from "./editable.ts";

const WORDS: Decoration = { text: "Grüße\nvon uns", html: "<p>Grüße</p>" };

/** The texts of a message's leaves after an edit, as a reader that begins anew sees them. */
function textsWith(method: "banner" | "footer", message: string, decoration = WORDS): string[] {
  const { bytes, mime } = editable(message);
  mime[method](decoration);
  const anew = mimeOfMessage(bytes());
  for (const flaw of anew.flaws) expect(mime.flaws).toContain(flaw);
  const texts = anew.parts.map((part) => part.text());
  expect(mime.parts.map((part) => part.text())).toEqual(texts);
  for (const { headers } of anew.walk()) {
    const names = Array.from(headers, ({ name }) => name.toLowerCase());
    expect(names).toEqual([...new Set(names)]);
  }
  return texts;
}

const multipart = (...parts: readonly string[]): string =>
  `Content-Type: multipart/mixed; boundary=b\n\n${parts.map((part) => `--b\n${part}\n`).join("")}--b--\n`;
const base64 = (text: string): string => Buffer.from(text).toString("base64");

describe("a banner and a footer", () => {
  test.each<[what: string, message: string, banner: string[], footer: string[]]>([
    ["plain text", "\nhi\n", ["Grüße\nvon uns\n\nhi\n"], ["hi\n\nGrüße\nvon uns\n"]],
    ["an empty message", "\n", ["Grüße\nvon uns\n"], ["Grüße\nvon uns\n"]],
    [
      "a Content-Type that is the part's only field",
      multipart("Content-Type: text/plain; charset=us-ascii\n\nhi", "\nrest"),
      ["Grüße\nvon uns\n\nhi", "rest"],
      ["hi\n\nGrüße\nvon uns", "rest"],
    ],
    [
      "a part without a header and content",
      "Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n\nrest\n--b--\n",
      ["Grüße\nvon uns\n", "rest"],
      ["Grüße\nvon uns\n", "rest"],
    ],
    [
      "a part of a header only",
      "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n--b\n\nrest\n--b--\n",
      ["Grüße\nvon uns\n", "rest"],
      ["Grüße\nvon uns\n", "rest"],
    ],
    [
      "a part that does not end",
      "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhi\n",
      ["Grüße\nvon uns\n\nhi\n"],
      ["hi\n\nGrüße\nvon uns\n"],
    ],
    [
      "ISO 8859-1 with the bytes of windows-1252",
      "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\n\x93hi\x94\n",
      ["Grüße\nvon uns\n\n“hi”\n"],
      ["“hi”\n\nGrüße\nvon uns\n"],
    ],
    [
      "8-bit text without a charset",
      "Content-Transfer-Encoding: 8bit\n\n\xe4h\n",
      ["Grüße\nvon uns\n\näh\n"],
      ["äh\n\nGrüße\nvon uns\n"],
    ],
    [
      "bytes that are not in the charset that is declared",
      "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\xe4h\n",
      ["Grüße\nvon uns\n\n\ufffdh\n"],
      ["\ufffdh\n\nGrüße\nvon uns\n"],
    ],
    [
      "a charset that nobody knows",
      "Content-Type: text/plain; charset=x-none\nContent-Transfer-Encoding: 8bit\n\nh\xe4\n",
      ["Grusse\nvon uns\n\nhä\n".replace("uss", "u?")],
      ["hä\n\nGru?e\nvon uns\n"],
    ],
    [
      "UTF-16",
      `Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: base64\n\n${Buffer.from("hä\r\n", "utf16le").toString("base64")}\n`,
      ["Grüße\nvon uns\n\nhä\n"],
      ["hä\n\nGrüße\nvon uns\n"],
    ],
    [
      "ISO 2022 JP that does not end in ASCII",
      'Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B$"',
      ["Grüße\nvon uns\n\nあ\n"],
      ["あ\n\nGrüße\nvon uns\n"],
    ],
    [
      "quoted-printable with an open soft line break and trailing space",
      "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nh=C3=A4=\n",
      ["Grüße\nvon uns\n\nhä"],
      ["hä\n\nGrüße\nvon uns"],
    ],
    [
      "flowed text with an open line",
      "Content-Type: text/plain; charset=utf-8; format=flowed\nContent-Transfer-Encoding: 8bit\n\nhi \n",
      ["Grüße\nvon uns\n\nhi \n"],
      ["hi \n\n\nGrüße\nvon uns\n"],
    ],
    [
      "HTML that begins with the mark of its byte order",
      "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\xef\xbb\xbf<!doctype html><body>hi</body>\n",
      ["\ufeff<!doctype html><body>\n<p>Gr&#252;&#223;e</p>\nhi</body>\n"],
      ["\ufeff<!doctype html><body>hi\n<p>Gr&#252;&#223;e</p>\n</body>\n"],
    ],
    [
      "an encoding that nobody knows",
      "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: x-none\n\nhi\n",
      ["Grüße\nvon uns\n\nhi\n"],
      ["hi\n\nGrüße\nvon uns\n"],
    ],
    [
      "each form of an alternative, with HTML in a related",
      `Content-Type: multipart/alternative; boundary=a\n\n--a\n\nhi\n--a\nContent-Type: multipart/related; boundary=r; start="<2>"\n\n--r\nContent-Type: image/png\n\nx\n--r\nContent-Type: text/html\nContent-ID: <2>\nContent-Transfer-Encoding: base64\n\n${base64("<body>hi</body>")}\n--r--\n--a--\n`,
      ["Grüße\nvon uns\n\nhi", "x", "<body>\n<p>Gr&#252;&#223;e</p>\nhi</body>"],
      ["hi\n\nGrüße\nvon uns", "x", "<body>hi\n<p>Gr&#252;&#223;e</p>\n</body>"],
    ],
    [
      "HTML of an alternative that has a name",
      "Content-Type: multipart/alternative; boundary=a\n\n--a\n\nhi\n--a\nContent-Type: text/html; name=a.html\nContent-Disposition: inline; filename=a.html\nContent-Location: a.html\n\n<body>hi</body>\n--a--\n",
      ["Grüße\nvon uns\n\nhi", "<body>\n<p>Gr&#252;&#223;e</p>\nhi</body>"],
      ["hi\n\nGrüße\nvon uns", "<body>hi\n<p>Gr&#252;&#223;e</p>\n</body>"],
    ],
    [
      "the first part and the named start of a related, of which programs show either",
      `Content-Type: multipart/related; boundary=r; start="<2>"\n\n--r\n\nhi\n--r\nContent-Type: text/html\nContent-ID: <2>\nContent-Location: a.html\n\n<body>hi</body>\n--r--\n`,
      ["Grüße\nvon uns\n\nhi", "<body>\n<p>Gr&#252;&#223;e</p>\nhi</body>"],
      ["hi\n\nGrüße\nvon uns", "<body>hi\n<p>Gr&#252;&#223;e</p>\n</body>"],
    ],
    [
      "no text: a part of its own",
      "Content-Type: text/csv\nContent-Disposition: attachment\n\na,b\n",
      ["Grüße\nvon uns", "a,b\n"],
      ["a,b\n", "Grüße\nvon uns"],
    ],
  ])("in %s", (_what, message, banner, footer) => {
    expect(textsWith("banner", message)).toEqual(banner);
    expect(textsWith("footer", message)).toEqual(footer);
  });

  test.each([
    ["text/plain; charset=iso-2022-kr", "\x1b$)C\x0e>H3g\x0fhello\n"],
    ["text/plain; charset=hz-gb-2312", "~{VPND~} hello\n"],
    ["text/plain", "\x1b$B$3\x1b(B hello\n"],
  ])("keep text in which ASCII stands for other characters: %s", (type, content) => {
    const { mime, text } = editable(`Content-Type: ${type}\n\n${content}`);
    mime.footer({ text: "ü" });
    expect(text()).toBe(`Content-Type: ${type}\n\n${content}\nu\n`);
  });

  test("leave what is in front of them and behind as it was written", () => {
    const part = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n";
    const content = "=48i =\nthere=c3=a4  \n";
    const { mime, text } = editable(part + content);
    mime.footer({ text: "ü" });
    expect(text()).toBe(`${part}${content}\n=C3=BC\n`);
    mime.banner({ text: "ü" });
    expect(text()).toBe(`${part}=C3=BC\n\n${content}\n=C3=BC\n`);
  });

  test.each([
    ["a=zz\nb==41c d\n", "a=zz\nb=Ac d\n\nü\n"],
    ["=4\n100 % = all\n", "=4\n100 % = all\n\nü\n"],
    ["=zzz\n", "=zzz\n\nü\n"],
  ])("leave quoted-printable that is broken as it was written: %j", (content, read) => {
    const part = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n";
    const { mime, text } = editable(part + content);
    mime.footer({ text: "ü" });
    expect(text()).toBe(`${part}${content}\n=C3=BC\n`);
    expect(mime.text).toBe(read);
  });

  test("do not complete quoted-printable that is broken", () => {
    const part = "Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n";
    const { mime, text } = editable(`${part}<body>=4`);
    mime.footer({ text: "1" });
    expect(text()).toBe(`${part}<body>=3D4\n<p>1</p>\n`);
  });

  test("never make a line that looks like a delimiter", () => {
    for (const text of ["--b", "a\n--b--\nb", "--bc"]) {
      const message = multipart("Content-Type: text/plain\n\nhi");
      expect(textsWith("footer", message, { text })).toEqual([`hi\n\n${text}`]);
      expect(textsWith("banner", message, { text })).toEqual([`${text}\n\nhi`]);
    }
  });

  test("make no line that is too long for SMTP", () => {
    const text = "x".repeat(2000);
    const { bytes, mime } = editable("\nhi\n");
    mime.footer({ text });
    expect(
      Math.max(
        ...bytes()
          .toString("latin1")
          .split("\r\n")
          .map(({ length }) => length),
      ),
    ).toBeLessThan(80);
    expect(mime.text).toBe(`hi\n\n${text}\n`);
  });

  test("without HTML of their own, it is made from the text", () => {
    const html = "Content-Type: text/html\n\n<p>hi</p>\n";
    expect(textsWith("footer", html, { text: "a < b &\nü" })).toEqual([
      "<p>hi</p>\n<p>a &lt; b &amp;<br>\n&#252;</p>\n",
    ]);
  });
});

describe("the places in HTML", () => {
  test.each([
    ["^hi$"],
    ["<body>^hi$</body>"],
    ["<!doctype html><html><head><title></body>x</title></head><body class='a>b'>^hi$</body></html>\n"],
    ["<html>^<p>hi</p>$</html>"],
    ["<body>^hi<!-- </body> -->$</body>"],
    ["<body>^hi$</body><!-- </body> -->"],
    ["<!-- <body> --><body>^hi<script>'</body>'</script>$</body>"],
    ["<body>^hi</body>more$"],
    ["<body>^a</body></html><body>b$</body>"],
    // What is in front of the tag is seen above what it contains.
    ["^seen first\n<html><head></head><body>hi$</body></html>"],
    ["<html><head></head>^<div>seen first</div><body class=x>hi$</body></html>"],
    // A quote is one only right behind the `=` of a name, and never in a declaration.
    ['<html =">^<p>seen first</p>"><body>hi$</body></html>'],
    ['<html a==">^<p>seen first</p>"><body>hi$</body></html>'],
    ['<html a=b=">^<p>seen first</p>"><body>hi$</body></html>'],
    ['<!doctype html SYSTEM=">^<p>seen first</p>"><body>hi$</body></html>'],
    ['<?xml a=">^<p>seen first</p>"><html><body>hi$</body></html>'],
    ["<html a = '>' b=\"x>\"c=/d/ =><body class=>^hi$</body></html>"],
    // White space that is none in HTML.
    ["^\xa0<body>hi$</body>"],
    ["^\v<body>hi$</body>"],
    ["<title>x</title\v><body></title>^<p>seen first</p><body>hi$</body>"],
    // A script within the comment of a script ends in the comment.
    ["<script><!--<script></script><body></script>^<p>seen first</p><body>hi$</body>"],
    ["<script><!--<script>--></script>^<p>seen first</p><body>hi$</body>"],
    ["<script><!--><script></script>^<p>seen first</p><body>hi$</body>"],
    ["<script><!-- <scripts> </script><body>^hi$</body>"],
    ["<body>^hi$<!-- never ends </body>"],
    ["<body>^hi$<textarea>never ends</body>"],
    ["<body>^hi$<a href='never ends</body>"],
    ["<meta charset=utf-8><style>p{}</style>^<p>hi$"],
    ["^a < b$"],
    ["<!--><body>^x$</body>"],
    ["<body>^x<!--a--!>$</body>"],
  ])("%s", (marked) => {
    const html = marked.replace("^", "").replace("$", "");
    const { bottom, top } = placesIn(html);
    expect(`${html.slice(0, top)}^${html.slice(top, bottom)}$${html.slice(bottom)}`).toBe(marked);
  });
});

test("a long text that becomes UTF-8 takes the encoding in which it is shorter", () => {
  const encodingOf = (characters: number, text: string): string => {
    const content = Buffer.from(text.repeat(characters / text.length), "utf16le").toString("latin1");
    const header = "Content-Type: text/html; charset=utf-16le\nContent-Transfer-Encoding: 8bit";
    const { bytes, mime } = editable(`${header}\n\n${content}\n`);
    mime.banner(WORDS);
    const [part] = mimeOfMessage(bytes()).parts;
    expect(part!.text().slice(0, 30)).toContain("<p>Gr");
    return part!.encoding;
  };
  expect(encodingOf(100_000, "漢字")).toBe("base64");
  expect(encodingOf(100_000, "ä and so on, ")).toBe("quoted-printable");
  expect(encodingOf(1000, "漢字")).toBe("quoted-printable");
});
