/** The parts of messages made by hand, by offsets and by what is odd about them. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { FLAWS } from "../../src/mime/flaws.ts";
import { readMessage } from "../../src/index.ts";
import { type Entity, structureOfMessage } from "../../src/mime/structure.ts";

const TEXT = "Content-Type: text/plain\r\n\r\nhello\r\n";
const FILE = "Content-Type: application/octet-stream; name=x.js\r\n\r\nabc\r\n";

/** A message with this Content-Type, a character for each byte. */
function message(type: string, body: string): Buffer {
  return Buffer.from(`Content-Type: ${type}\r\n\r\n${body}`, "latin1");
}

/** A message of a text and a part with this header. */
function withHeader(header: string): Buffer {
  return message("multipart/mixed; boundary=b", `--b\r\n${TEXT}--b\r\n${header}\r\n\r\nabc\r\n--b--\r\n`);
}

/** `type "content"` of each leaf. */
function leaves(bytes: Buffer): string[] {
  const seen: string[] = [];
  const visit = ({ parts, type, start, end }: Entity): void => {
    if (parts.length === 0) seen.push(`${type} ${JSON.stringify(bytes.toString("latin1", start, end))}`);
    for (const part of parts) visit(part);
  };
  visit(structureOfMessage(bytes).root);
  return seen;
}

const flaws = (bytes: Buffer): readonly string[] => structureOfMessage(bytes).flaws;

const HELLO = 'text/plain "hello"';
const ABC = 'application/octet-stream "abc"';

describe("boundaries", () => {
  test.each([
    ["a boundary in quotes", 'multipart/mixed; boundary="b c"', `--b c\r\n${TEXT}--b c\r\n${FILE}--b c--\r\n`],
    ["LF", "multipart/mixed; boundary=b", `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n`.replaceAll("\r\n", "\n")],
    ["white space behind it", "multipart/mixed; boundary=b", `--b \t\r\n${TEXT}--b \r\n${FILE}--b-- \r\n`],
    ["no line end at the end", "multipart/mixed; boundary=b", `--b\r\n${TEXT}--b\r\n${FILE}--b--`],
    ["preamble and epilogue", "multipart/mixed; boundary=b", `x\r\n--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n--c\r\ny`],
    ["hyphens", "multipart/mixed; boundary=--", `----\r\n${TEXT}----\r\n${FILE}------\r\n`],
    ["an equals sign", "multipart/mixed; boundary=a=b:c?", `--a=b:c?\r\n${TEXT}--a=b:c?\r\n${FILE}--a=b:c?--\r\n`],
    ["spaces around =", "multipart/mixed ; boundary = b", `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n`],
    ["a folded field", "multipart/mixed;\r\n\tboundary=b;\r\n x=y", `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n`],
    ["an odd type", "multipart/*; boundary=b", `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n`],
    ["a parameter before it", 'multipart/mixed; x=";boundary=c"; boundary=b', `--b\r\n${TEXT}--b\r\n${FILE}--b--`],
  ])("%s: two parts, no flaw", (_name, type, body) => {
    const bytes = message(type, body);
    expect(leaves(bytes)).toEqual([HELLO, ABC]);
    expect(flaws(bytes)).toEqual([]);
  });

  test.each([
    ["--b\r\n--b\r\n--b--\r\n", ['text/plain ""', 'text/plain ""']],
    [`--b\r\nContent-Type: text/html\r\n--b\r\n${FILE}--b--`, ['text/html ""', ABC]],
    ["--b\r\n\r\n--b--\r\n", ['text/plain ""']],
    ["--b\r\n\r\n\r\n--b--\r\n", ['text/plain ""']],
  ])("parts that are empty or only a header: %j", (body, expected) => {
    const bytes = message("multipart/mixed; boundary=b", body);
    expect(leaves(bytes)).toEqual(expected);
    expect(flaws(bytes)).toEqual([]);
  });

  test("a digest has messages in it", () => {
    expect(leaves(message("multipart/digest; boundary=b", "--b\r\n\r\nA: b\r\n\r\nx\r\n--b--"))).toEqual([
      'message/rfc822 "A: b\\r\\n\\r\\nx"',
    ]);
  });

  test.each([
    ["in quotes, folded", 'multipart/mixed; boundary="b\r\n c"', `--b c\r\n${TEXT}--b c\r\n${FILE}--b c--`],
    ["twice", "multipart/mixed; boundary=b; boundary=c", `--b\r\n${TEXT}--b\r\n${FILE}--b--`],
    ["in pieces", "multipart/mixed; boundary*0=b; boundary*1=c", `--bc\r\n${TEXT}--bc\r\n${FILE}--bc--`],
    ["with a charset", "multipart/mixed; boundary*=utf-8''b%20c", `--b c\r\n${TEXT}--b c\r\n${FILE}--b c--`],
    ["with a comment", "multipart/mixed; boundary=b(c)", `--b\r\n${TEXT}--b\r\n${FILE}--b--`],
    ["behind a comment", "multipart/mixed (c); boundary=b", `--b\r\n${TEXT}--b\r\n${FILE}--b--`],
    ["with an escape", 'multipart/mixed; boundary="b\\c"', `--bc\r\n${TEXT}--bc\r\n${FILE}--bc--`],
    ["in quotes that do not end", 'multipart/mixed; boundary="b', `--b\r\n${TEXT}--b\r\n${FILE}--b--`],
    ["with text behind the quotes", 'multipart/mixed; boundary="b"c', `--b\r\n${TEXT}--b\r\n${FILE}--b--`],
    ["with bytes beyond ASCII", "multipart/mixed; boundary=\xe4", `--\xe4\r\n${TEXT}--\xe4\r\n${FILE}--\xe4--`],
  ])("%s: a flaw", (_name, type, body) => {
    const bytes = message(type, body);
    expect(leaves(bytes)).toEqual([HELLO, ABC]);
    expect(flaws(bytes)).toEqual(["a boundary that mail programs read differently"]);
  });

  const B = "multipart/mixed; boundary=b";
  test.each([
    [B, `--b--\r\n--b\r\n${TEXT}--b\r\n${FILE}--b--`, "a multipart that ends before it begins"],
    [B, `--b\r\n${TEXT}--b\r\n${FILE}`, "a multipart that does not end"],
    [B, `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n--b\r\n${FILE}--b--`, "a multipart with parts behind its end"],
    [B, `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n--bc\r\n`, "a line that is almost a boundary"],
    [B, `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\n--b\r\r\n`, "a line that is almost a boundary"],
    [B, `--b\r\n${TEXT}--b\r\n${FILE}--b--\r\nx\r--b\r\n`, "a boundary behind a carriage return"],
    [`${B}\r\nContent-Transfer-Encoding: base64`, `--b\r\n${TEXT}--b\r\n${FILE}--b--`, "a multipart that is encoded"],
    [`multipart/mixed boundary=b; boundary=b`, `--b\r\n${TEXT}--b\r\n${FILE}--b--`, "a Content-Type that is none"],
    [`multipart / mixed; boundary=b`, `--b\r\n${TEXT}--b\r\n${FILE}--b--`, "a Content-Type that is none"],
    [
      `${B}\r\nContent-Type: text/plain`,
      `--b\r\n${TEXT}--b\r\n${FILE}--b--`,
      "a header that says twice what a part is",
    ],
  ])("%j %j: %s", (type, body, flaw) => {
    const bytes = message(type, body);
    expect(leaves(bytes).map((leaf) => leaf.replace("\\r\\n", ""))).toEqual([HELLO, ABC]);
    expect(flaws(bytes)).toEqual([flaw]);
  });

  test.each([
    ["multipart/mixed", "a multipart without a boundary"],
    ['multipart/mixed; boundary=""', "a multipart without a boundary"],
    [B, "a multipart without parts"],
    [`multipart/mixed; boundary=${"b".repeat(1001)}`, "a boundary that is too long"],
  ])("%s without its lines is a leaf: %s", (type, flaw) => {
    expect(leaves(message(type, "--c\r\n\r\nx"))).toEqual(['multipart/mixed "--c\\r\\n\\r\\nx"']);
    expect(flaws(message(type, "--c\r\n\r\nx"))).toEqual([flaw]);
  });

  test("a boundary that begins as another one is none of its lines", () => {
    const inner = `Content-Type: multipart/alternative; boundary=bc\r\n\r\n--bc\r\n${TEXT}--bc--\r\n`;
    const bytes = message(B, `--b\r\n${inner}--b\r\n${FILE}--b--`);
    expect(leaves(bytes)).toEqual([HELLO, ABC]);
    expect(flaws(bytes)).toEqual([]);
  });
});

describe("headers of parts", () => {
  test.each([
    ["X Y: z\r\nContent-Disposition: attachment; filename=x.js", "a header with a line that is no field"],
    [" folded\r\nContent-Type: text/x; name=x.js", "a header with a line that is no field"],
    ["Content-Type: text/x; name=x.js;\r\n \r\n y=z", "a header with a line of white space"],
    ["Content-Type: text/x;\r name=x.js", "a header with a carriage return within a line"],
    [
      "Content-Type: text/x; name=x.js\r\nX: y\rContent-Disposition: z",
      "a header with a carriage return within a line",
    ],
    ["Content-Type: text/x; name=x.js; y=\0", "a header with a NUL"],
    ["A: b\rC: d\r\nContent-Type: text/x; name=x.js", "a header with a carriage return within a line"],
    ["Content-Type: text/x; name=x.js\r\nContent-Type: text/y", "a header that says twice what a part is"],
    [
      "Content-Disposition: attachment; filename=x.js\r\nContent-Disposition: inline",
      "a header that says twice what a part is",
    ],
    [`${"A: b\r\n".repeat(1100)}Content-Type: text/x;\r\n name=x.js`, "a header that is too long"],
    [`A: ${"b".repeat(200_000)}\r\nContent-Type: text/x;\r\n name=x.js`, "a header that is too long"],
    ["Content-Type: text; name=x.js", "a Content-Type that is none"],
    [
      "Content-Type: text/x; name=x.js\r\nContent-Transfer-Encoding: x-y",
      "a Content-Transfer-Encoding that is not known",
    ],
    [
      "Content-Type: text/x; name=x.js\r\nContent-Transfer-Encoding: 8bit (c)",
      "a Content-Transfer-Encoding that is not known",
    ],
    [
      "Content-Type: text/x; name=x.js\r\nContent-Transfer-Encoding: base64\r\n\r\neHg=\r\neHh4",
      "base64 with padding before its end",
    ],
  ])("%#: the part is read all the same, and that is a flaw: %s", (header, flaw) => {
    const { root, flaws: found } = structureOfMessage(withHeader(header));
    expect<readonly string[]>(found).toEqual([flaw]);
    expect(root.parts[1]!.names).toContain("x.js");
  });

  test("where the content begins behind a header that is too long", () => {
    const header = `${"A: b\r\n".repeat(1100)}Content-Type: text/x`;
    expect(leaves(withHeader(header))).toEqual([HELLO, 'text/x "abc"']);
  });

  test.each([
    ["Content-Type: text/x\r\nContent-Type: text/x", "text/x", "7bit"],
    ["content-type:text/x", "text/x", "7bit"],
    ["CONTENT-TYPE : TEXT/X", "text/x", "7bit"],
    ["Content-Type:\r\n text/x", "text/x", "7bit"],
    ["Content-Type: text/x (c); a=b", "text/x", "7bit"],
    ["Content-Type: text/x\r\nContent-Transfer-Encoding: BASE64", "text/x", "base64"],
    ["Content-Type: text/x\r\nContent-Transfer-Encoding: 7-bit", "text/x", "7-bit"],
    ["A: b", "text/plain", "7bit"],
  ])("%j: no flaw", (header, type, encoding) => {
    const { root, flaws: found } = structureOfMessage(withHeader(header));
    expect(found).toEqual([]);
    expect([root.parts[1]!.type, root.parts[1]!.encoding]).toEqual([type, encoding]);
  });

  test("a mailbox's line in front of a message is left out", () => {
    const mime = readMessage(Buffer.from("From a@example.org Tue Dec  1\nContent-Type: text/x\n\nabc"));
    expect([mime.root.type, mime.flaws]).toEqual(["text/x", []]);
  });
});

test("a part of base64 with padding before its end is decoded beyond it", () => {
  const header = "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64";
  expect(readMessage(Buffer.from(`${header}\r\n\r\neHg=\r\neHh4\r\n`)).text).toBe("xxxxx");
});

describe("links", () => {
  const linksOf = (type: string, text: string): unknown =>
    readMessage(Buffer.from(`Content-Type: text/${type}\r\n\r\n${text}`))
      .links()
      .map(({ url, text: shown }) => [url, shown]);

  test.each([
    ["see https://a.test/b?c=d#e.", [["https://a.test/b?c=d#e", "https://a.test/b?c=d#e"]]],
    [
      "(www.a.test) <http://b.test/>",
      [
        ["www.a.test", "www.a.test"],
        ["http://b.test/", "http://b.test/"],
      ],
    ],
    ["https://a.test/x_(y)", [["https://a.test/x_(y)", "https://a.test/x_(y)"]]],
    ["no link, a.b@c.test", []],
  ])("in text: %j", (text, links) => {
    expect(linksOf("plain", text)).toEqual(links);
  });

  test.each([
    ["<a href='http://a.test/?b=1&amp;c=2'>x <b>y</b></a>", [["http://a.test/?b=1&c=2", "x y"]]],
    ['<A HREF=" https://a.test/\n b ">&lt;x&gt;</A>', [["https://a.test/ b", "<x>"]]],
    ["<a href=http://a.test><img src=b></a><a name=c>d</a>", [["http://a.test", ""]]],
    [
      "<map><area href='http://a.test'></map><form action='http://b.test'></form>",
      [
        ["http://a.test", ""],
        ["http://b.test", ""],
      ],
    ],
    ["<!-- <a href=x>y</a> -->", []],
  ])("in HTML: %j", (html, links) => {
    expect(linksOf("html", html)).toEqual(links);
  });

  test("are at most 10,000", () => {
    const mime = readMessage(Buffer.from(`Content-Type: text/html\r\n\r\n${"<a href=x>y</a>".repeat(10_001)}`));
    expect(mime.links().length).toBe(10_000);
  });
});

describe("a message in a part", () => {
  const MESSAGE = "Subject: in\r\nContent-Type: text/x\r\n\r\nabc";
  const subjectOf = (header: string, content = MESSAGE): string | undefined =>
    readMessage(Buffer.from(`${header}\r\n\r\n${content}`, "latin1"))
      .root.message()
      ?.root.headers.get("Subject");

  test.each([
    "Content-Type: message/rfc822",
    "Content-Type: message/global",
    "Content-Type: message/news",
    "Content-Type: text/rfc822",
    "Content-Type: application/octet-stream; name=a.eml",
    "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=A.EML",
    "Content-Type: multipart/related; name=a.mht",
    "Content-Type: application/octet-stream; name=a.dat",
  ])("%j", (header) => {
    expect(subjectOf(header)).toBe("in");
    expect(subjectOf(header, `From a@example.org Tue\n${MESSAGE}`)).toBe("in");
    expect(subjectOf(header, `\xef\xbb\xbf${MESSAGE}`)).toBe("in");
  });

  test("in base64", () => {
    const header = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64";
    expect(subjectOf(header, Buffer.from(MESSAGE).toString("base64"))).toBe("in");
  });

  test.each(["Content-Type: text/plain", "Content-Type: message/delivery-status", "Content-Type: message/partial"])(
    "%j is none",
    (header) => expect(readMessage(Buffer.from(`${header}\r\n\r\n${MESSAGE}`)).root.message()).toBeNull(),
  );

  test("a file that is called as one, and is none", () => {
    expect(readMessage(Buffer.from("Content-Type: text/x; name=a.eml\r\n\r\nhello")).root.message()).toBeNull();
  });

  test("one that begins with an empty line has a flaw", () => {
    const { root } = readMessage(Buffer.from(`Content-Type: message/rfc822\r\n\r\n\r\n${MESSAGE}`));
    expect(root.message()!.flaws).toEqual(["a message that begins with an empty line"]);
  });
});

describe("what is an attachment", () => {
  const attachments = (type: string, ...headers: readonly string[]): string[] => {
    const body = headers.map((header) => `--b\r\n${header}\r\n\r\nx\r\n`).join("");
    const mime = readMessage(message(`multipart/${type}; boundary=b`, `${body}--b--`));
    return mime.attachments.map((part) => part.type);
  };
  const PLAIN = "Content-Type: text/plain";
  const HTML = "Content-Type: text/html";

  test.each([
    ["alternative", [PLAIN, HTML], []],
    ["alternative", [PLAIN, HTML, "Content-Type: text/calendar"], ["text/calendar"]],
    ["related", [HTML, "Content-Type: image/png\r\nContent-ID: <a>"], ["image/png"]],
    ["related", [HTML, HTML], ["text/html"]],
    ["mixed", [PLAIN, PLAIN, HTML], []],
    ["mixed", [PLAIN, `${PLAIN}; name=a.txt`], ["text/plain"]],
    ["mixed", [`${PLAIN}; name=a.txt`, PLAIN], []],
    ["mixed", [PLAIN, `${PLAIN}\r\nContent-Disposition: attachment`], ["text/plain"]],
    ["mixed", [PLAIN, `${PLAIN}\r\nContent-Disposition: x-shown`], ["text/plain"]],
    ["mixed", [PLAIN, `${PLAIN}\r\nContent-Disposition: INLINE`], []],
    ["signed", [PLAIN, "Content-Type: application/pkcs7-signature"], ["application/pkcs7-signature"]],
  ])("multipart/%s of %j: %j", (type, headers, expected) => {
    expect(attachments(type, ...headers)).toEqual(expected);
  });
});

describe("bounds", () => {
  test("parts that are nested too deep", () => {
    let body = "x";
    for (let level = 40; level > 0; level--) {
      body = `Content-Type: multipart/mixed; boundary=b${level}.\r\n\r\n--b${level}.\r\n${body}\r\n--b${level}.--\r\n`;
    }
    const { flaws: found } = structureOfMessage(Buffer.from(body));
    expect(found).toEqual(["parts that are nested too deep"]);
  });

  test.each(["--b\r\n", "--b\r\n\r\n", "--bc\r\n"])("%j without end", (line) => {
    const { root, flaws: found } = structureOfMessage(message("multipart/mixed; boundary=b", line.repeat(200_000)));
    expect(found).toContain("too many parts");
    expect(root.parts.length).toBeLessThanOrEqual(1000);
  });
});

test("the guide names each flaw", async () => {
  const guide = await Bun.file(join(import.meta.dir, "..", "..", "docs", "handlers.md")).text();
  const table = guide.slice(guide.indexOf("### Flaws"), guide.indexOf("### Edits of parts"));
  const named = Array.from(table.matchAll(/^\| ((?:an? |base64|parts|too many)[^|]*?) +\|/gm), ([, flaw]) => flaw);
  expect(named).toEqual([...FLAWS]);
});

test("a boundary with two carriage returns behind it is a flaw", () => {
  const body = `--b\r\n${TEXT}--b\r\r\n${FILE}--b--\r\n`;
  expect(flaws(message("multipart/mixed; boundary=b", body))).toEqual(["a line that is almost a boundary"]);
});
