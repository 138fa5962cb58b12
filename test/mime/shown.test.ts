/** Which text is shown as the message: what `isShown` and `isAttachment` say, and where a banner and a footer go. */
import { describe, expect, test } from "bun:test";
import { mimeOfMessage } from "../../src/mime/mime.ts";
import { editable } from "./editable.ts";

let count = 0;
function multi(type: string, ...parts: readonly string[]): string {
  const boundary = `b${(count += 1)}`;
  const body = parts.map((part) => `--${boundary}\n${part}\n`).join("");
  return `Content-Type: multipart/${type}; boundary=${boundary}\n\n${body}--${boundary}--\n`;
}

/** A part whose content is its letter. */
const part = (header: string, letter: string): string => `${header}\n\n${letter}`;
const TEXT = part("Content-Type: text/plain", "a");
const HTML = "Content-Type: text/html";
const FILE = "Content-Disposition: attachment";
const PICTURE = part("Content-Type: image/png\nContent-ID: <p>", "p");

/** Each leaf by its letter: in brackets if it is shown, with `+` if it is an attachment, with `!` if it gets the banner. */
function readingOf(message: string): string {
  const { bytes, mime } = editable(message);
  const before = mime.parts.map((leaf) => ({ text: leaf.text().trim(), leaf }));
  const shown = before.map(({ leaf, text }) => {
    return `${leaf.isShown ? `[${text}]` : text}${leaf.isAttachment ? "+" : ""}`;
  });
  mime.banner({ text: "WORDS" });
  const after = mimeOfMessage(bytes()).parts.map((leaf) => leaf.text().trim());
  const isAdded = after.length > before.length;
  return (
    (isAdded ? "WORDS " : "") + shown.map((leaf, at) => `${leaf}${/WORDS./s.test(after[at]!) ? "!" : ""}`).join(" ")
  );
}

describe("shown as the message", () => {
  test.each<[reading: string, what: string, message: string]>([
    ["[a]!", "plain text", TEXT],
    ["[a]!", "a root with a name", part(`${HTML}; name=a.html`, "a")],
    ["WORDS a+", "a root that is a file", part(`${HTML}\n${FILE}`, "a")],
    ["WORDS a+", "text of another kind", part("Content-Type: text/x-markdown", "a")],
    ["WORDS a+", "text that is uuencoded", part(`${HTML}\nContent-Transfer-Encoding: x-uue`, "a")],
    ...["text/enriched", "text/richtext", "text/x-amp-html", "text/watch-html", "application/xhtml+xml"].map(
      (type): [string, string, string] => [
        "[a]! [b]!",
        `in an alternative ${type}`,
        multi("alternative", TEXT, part(`Content-Type: ${type}`, "b")),
      ],
    ),
    [
      "[a]! [b]!",
      "in an alternative text of another kind",
      multi("alternative", TEXT, part("Content-Type: text/x-markdown", "b")),
    ],
    [
      "[a]! b+",
      "in an alternative what programs read",
      multi("alternative", TEXT, part("Content-Type: text/calendar", "b")),
    ],
    ["[a]! b+", "in an alternative a picture", multi("alternative", TEXT, part("Content-Type: image/png", "b"))],
    ...["attachment", "x-hidden", "inline x", "attachment; filename=a.html"].map((value): [string, string, string] => [
      "[a]! [b]+!",
      `in an alternative Content-Disposition: ${value}`,
      multi("alternative", TEXT, part(`${HTML}\nContent-Disposition: ${value}`, "b")),
    ]),
    ["[a]! [b]!", "in an alternative a name", multi("alternative", TEXT, part(`${HTML}; name=b.html`, "b"))],
    [
      "[a]! [b]! p+",
      "in an alternative a related",
      multi("alternative", TEXT, multi("related", part(HTML, "b"), PICTURE)),
    ],
    [
      "[a]! [b]! p+ [c]",
      "in an alternative a mixed",
      multi("alternative", TEXT, multi("mixed", part(HTML, "b"), PICTURE, part(HTML, "c"))),
    ],
    [
      "[a]! [b]+! p+",
      "in an alternative a mixed whose text is a file",
      multi("alternative", TEXT, multi("mixed", part(`${HTML}\n${FILE}`, "b"), PICTURE)),
    ],
    [
      "[a]! b+ [c]!",
      "in an alternative a mixed with a file in front",
      multi("alternative", TEXT, multi("mixed", part(`${HTML}\n${FILE}`, "b"), part(HTML, "c"))),
    ],
    [
      "[a]! [b] c+ d+",
      "in a mixed",
      multi("mixed", TEXT, part(HTML, "b"), part(`${HTML}; name=c`, "c"), part(`${HTML}\n${FILE}`, "d")),
    ],
    [
      "[a]! b+",
      "in a mixed the first, with a name",
      multi("mixed", part("Content-Type: text/plain; name=a.txt", "a"), part(`${HTML}; name=b`, "b")),
    ],
    ["WORDS a+ p+", "in a mixed a file only", multi("mixed", part(`${HTML}\n${FILE}`, "a"), PICTURE)],
    [
      "[a]! [b]! [c]",
      "an alternative in a mixed",
      multi("mixed", multi("alternative", TEXT, part(HTML, "b")), part(HTML, "c")),
    ],
    ["[a]! b+", "in a related the root", multi("related", TEXT, part(HTML, "b"))],
    [
      "[a]! [b]!",
      "in a related the start as well",
      multi('related; start="<s>"', TEXT, part(`${HTML}\nContent-ID: <s>`, "b")),
    ],
    ["[a]! b+", "in a related a part in another one", multi("related", TEXT, multi("mixed", part(HTML, "b")))],
    [
      "p+ [b]!",
      "in a related a start behind a picture",
      multi('related; start="<s>"', PICTURE, part(`${HTML}\nContent-ID: <s>`, "b")),
    ],
    ["WORDS a+", "nothing of what is encrypted", multi("mixed", multi("encrypted", TEXT))],
  ])("%s: %s", (reading, _what, message) => {
    expect(readingOf(`MIME-Version: 1.0\n${message}\n`)).toBe(reading);
  });

  test("a footer is put into no form that is called an attachment", () => {
    const { mime } = editable(multi("alternative", TEXT, part(`${HTML}\n${FILE}`, "b"), part(HTML, "c")));
    mime.footer({ text: "WORDS" });
    expect(mime.parts.map((leaf) => leaf.text().includes("WORDS"))).toEqual([true, false, true]);
    const { mime: other } = editable(
      multi("mixed", multi("alternative", part(`${HTML}\n${FILE}`, "a")), part(HTML, "b")),
    );
    other.footer({ text: "WORDS" });
    expect(other.parts.map((leaf) => leaf.text().includes("WORDS"))).toEqual([false, true]);
  });

  test("a header that is changed is read anew", () => {
    const { mime } = editable(`${TEXT}\n`);
    expect(mime.root.isShown).toBe(true);
    mime.root.setHeader("Content-Disposition", "attachment");
    expect([mime.root.isShown, mime.root.isAttachment]).toEqual([false, true]);
  });

  test("links of XHTML, and of a form that is called an attachment", () => {
    const link = '<a href="http://example.com/">x</a>';
    const html = multi(
      "alternative",
      part("Content-Type: application/xhtml+xml", link),
      part(`${HTML}\n${FILE}`, link),
    );
    expect(
      editable(html)
        .mime.links()
        .map(({ text, url }) => `${text} ${url}`),
    ).toEqual(Array.from({ length: 2 }, () => "x http://example.com/"));
    expect(editable(html).mime.html).toBe(link);
  });
});

describe("a banner and a footer in", () => {
  test.each([
    ["text/enriched", "a\n", "1 << 2\n\n3\n\na\n", "a\n\n1 << 2\n\n3\n"],
    ["text/richtext", "a\n", "1 <lt> 2<nl>\n3<nl>\n<nl>\na\n", "a\n<nl>\n<nl>\n1 <lt> 2<nl>\n3\n"],
    [
      "application/xhtml+xml",
      "<body>a</body>\n",
      "<body>\n<p>1 &lt; 2<br/>\n3</p>\na</body>\n",
      "<body>a\n<p>1 &lt; 2<br/>\n3</p>\n</body>\n",
    ],
  ])("%s", (type, content, banner, footer) => {
    for (const [method, whole] of [
      ["banner", banner],
      ["footer", footer],
    ] as const) {
      const { mime, text } = editable(`Content-Type: ${type}\n\n${content}`);
      mime[method]({ text: "1 < 2\n3" });
      expect(text()).toBe(`Content-Type: ${type}\n\n${whole}`);
    }
  });
});
