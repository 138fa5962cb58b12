/** disclaimer: which messages and parts get it, in which bytes, and that all other bytes stay. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import iconv from "iconv-lite";
import { decode as decodeQuotedPrintable, encode as encodeQuotedPrintable, wrap } from "libqp";
import disclaimer from "../../handlers/disclaimer.ts";
import { runFilter } from "../../src/testing/index.ts";
import { tempDir } from "../support/temp.ts";
import { expectGrowth } from "../support/growth.ts";

setDefaultTimeout(120_000);

const FROM = "alice@example.com";
const TO = ["bob@example.net"];
const TEXT = "Confidential.";
const HTML = "<p>Confidential.</p>";

type Bytes = string | Uint8Array;

/** Strings are one character for each byte. */
function bytesOf(value: Bytes): Buffer {
  return typeof value === "string" ? Buffer.from(value, "latin1") : Buffer.from(value);
}

async function run(eml: Bytes, options: Record<string, unknown> = {}, from = FROM, to = TO) {
  const outcome = await runFilter(disclaimer, { from, to, eml: bytesOf(eml), options: { text: TEXT, ...options } });
  expect(outcome.failures).toEqual([]);
  expect(outcome.verdict).toBe("accept");
  const replaced = outcome.modifications.find((each) => each.kind === "replaceBody");
  return { ...outcome, replaced, body: bodyOf(outcome.message), head: outcome.message.split("\r\n\r\n", 1)[0]! };
}

/** The body of an outcome, one character for each byte. */
function bodyOf(message: string): string {
  const body = message.slice(message.indexOf("\r\n\r\n") + 4);
  return body
    .split(/([\udc80-\udcff])/u)
    .map((piece, index) => (index % 2 === 1 ? String.fromCharCode(piece.charCodeAt(0) & 0xff) : utf8(piece)))
    .join("");
}

function utf8(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

function lines(...each: string[]): string {
  return each.map((line) => `${line}\r\n`).join("");
}

function base64(text: Bytes): string {
  return bytesOf(text).toString("base64");
}

async function bodyAfter(eml: string, options?: Record<string, unknown>): Promise<string> {
  return (await run(eml, options)).body;
}

describe("a message of one part", () => {
  test.each([
    ["without MIME", "Subject: a\r\n\r\nHello\r\n", lines("Hello", "", TEXT)],
    ["without a body", "Subject: a\r\n\r\n", lines(TEXT)],
    ["LF as line ends", "Subject: a\n\nHello\n", lines("Hello", "", TEXT)],
    ["HTML with </body>", html("<html><body>Hi\r\n</body></html>"), lines("<html><body>Hi", HTML, "</body></html>")],
    ["HTML in one line", html("<body>Hi</BODY >"), lines("<body>Hi", HTML, "</BODY >")],
    ["the last </body>", html("<!-- </body> -->\r\nx\r\n</body>"), lines("<!-- </body> -->", "x", HTML, "</body>")],
    ["HTML without </body>", html("<b>Hi</b>"), lines("<b>Hi</b>", HTML)],
    ["</bodyguard> is none", html("</bodyguard>"), lines("</bodyguard>", HTML)],
    [
      "quoted-printable HTML, </body> cut and encoded",
      html("a=3Db=\r\n=3C/bo=\r\ndy=3E", "quoted-printable"),
      lines("a=3Db", HTML, "=", "=3C/bo=", "dy=3E"),
    ],
    ["spaces before </body> stay", html("x </body>", "quoted-printable"), lines("x=20", HTML, "</body>")],
    ["a body in capitals of hex", html("x</=42ODY>", "quoted-printable"), lines("x", HTML, "</=42ODY>")],
  ])("%s", async (_, eml, expected) => {
    expect(await bodyAfter(eml)).toBe(expected);
  });

  test("quoted-printable text: what stands there stays byte for byte", async () => {
    const body = lines("caf=C3=A9 and=", " more=20", "=e4 is no UTF-8");
    expect(await bodyAfter(text(body, "quoted-printable", "utf-8"))).toBe(`${body}\r\n${TEXT}\r\n`);
  });

  test.each(["x=", "x=\r\n", "x=  \r\n"])("quoted-printable with an open end: %j", async (body) => {
    const after = decodeQuotedPrintable(await bodyAfter(text(body, "quoted-printable"))).toString();
    expect(after).toMatch(/^x(?:\r\n)+Confidential\.(?:\r\n)?$/);
  });

  test("base64 stays base64, in lines of 76", async () => {
    const content = "Grüße ".repeat(100);
    const after = await bodyAfter(text(base64(utf8(content)), "base64", "utf-8"));
    expect(Buffer.from(after, "base64").toString()).toBe(`${content}\r\n\r\n${TEXT}`);
    expect(after).toEndWith("\r\n");
    expect(Math.max(...after.split("\r\n").map((line) => line.length))).toBe(76);
  });

  test("base64 with bare LF keeps them", async () => {
    const after = await bodyAfter(text(base64("a\nb\n"), "base64"));
    expect(Buffer.from(after, "base64").toString()).toBe(`a\nb\n\n${TEXT}\n`);
  });

  test("base64 HTML", async () => {
    const after = await bodyAfter(html(base64("<body>x</body>"), "base64"));
    expect(Buffer.from(after, "base64").toString()).toBe(`<body>x\r\n${HTML}\r\n</body>`);
  });
});

function text(body: string, encoding = "7bit", charset = "us-ascii", more = ""): string {
  return `Content-Type: text/plain; charset=${charset}${more}\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n${body}`;
}

function html(body: string, encoding = "7bit"): string {
  return `Content-Type: text/html\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n${body}`;
}

describe("charsets", () => {
  const GERMAN = { text: "Vertraulich für Empfänger" };
  const latin1 = (text: string) => Buffer.from(text, "latin1").toString("latin1");

  test("8bit text in a charset that holds it stays in that charset", async () => {
    const { body, head } = await run(text("M\xfcller\r\n", "8bit", "iso-8859-1"), GERMAN);
    expect(body).toBe(latin1("Müller\r\n\r\nVertraulich für Empfänger\r\n"));
    expect(head).toContain("charset=iso-8859-1");
  });

  test("quoted-printable as well", async () => {
    const { body } = await run(text("M=FCller\r\n", "quoted-printable", "iso-8859-1"), GERMAN);
    expect(body).toBe("M=FCller\r\n\r\nVertraulich f=FCr Empf=E4nger\r\n");
  });

  test("7bit text becomes quoted-printable", async () => {
    const { body, head } = await run(text("a=b\r\n", "7bit", "iso-8859-1"), GERMAN);
    expect(body).toBe("a=3Db\r\n\r\nVertraulich f=FCr Empf=E4nger\r\n");
    expect(head).toContain("Content-Transfer-Encoding: quoted-printable");
    expect(head).toContain("charset=iso-8859-1");
  });

  test("a charset that lacks a character: the part becomes UTF-8", async () => {
    const { body, head } = await run(text("M\xfcller\r\n", "8bit", "ISO-8859-1"), { text: "機密" });
    expect(body).toBe(utf8("Müller\r\n\r\n機密\r\n"));
    expect(head).toContain("Content-Type: text/plain; charset=utf-8");
  });

  test("without any MIME header it gets all three", async () => {
    const { body, head } = await run("Subject: a\r\n\r\nHello\r\n", GERMAN);
    expect(decodeQuotedPrintable(body).toString()).toBe("Hello\r\n\r\nVertraulich für Empfänger\r\n");
    expect(head).toContain("MIME-Version: 1.0");
    expect(head).toContain("Content-Type: text/plain; charset=utf-8");
    expect(head).toContain("Content-Transfer-Encoding: quoted-printable");
  });

  test("8-bit bytes without a charset: ASCII is added as it is", async () => {
    expect(await bodyAfter("\r\nM\xfcller\r\n")).toBe(latin1(`Müller\r\n\r\n${TEXT}\r\n`));
  });

  test("with anything else they become UTF-8, read as mail programs read them", async () => {
    for (const name of ["M\xfcller", utf8("Müller")]) {
      const { body, head } = await run(`Subject: a\r\n\r\n${name}\r\n`, GERMAN);
      expect(decodeQuotedPrintable(body).toString()).toBe("Müller\r\n\r\nVertraulich für Empfänger\r\n");
      expect(head).toContain("charset=utf-8");
    }
  });

  const JIS = "\x1b$B5!L)\x1b(B";
  test("iso-2022-jp: ASCII is added to it", async () => {
    expect(await bodyAfter(text(`${JIS}\r\n`, "7bit", "iso-2022-jp"))).toBe(`${JIS}\r\n\r\n${TEXT}\r\n`);
  });

  test("iso-2022-jp: with anything else it becomes UTF-8", async () => {
    const { body, head } = await run(text(`${JIS}\r\n`, "7bit", "iso-2022-jp"), GERMAN);
    expect(decodeQuotedPrintable(body).toString()).toBe("機密\r\n\r\nVertraulich für Empfänger\r\n");
    expect(head).toContain("charset=utf-8");
  });

  test("iso-2022-jp that does not return to ASCII returns to it", async () => {
    const { body } = await run(text("\x1b$B5!L)\r\n", "7bit", "iso-2022-jp"));
    expect(body).toBe(`\x1b$B5!L)\r\n\x1b(B\r\n${TEXT}\r\n`);
  });

  test("iso-2022-jp in HTML: bytes of another set are no </body>", async () => {
    const eml = `Content-Type: text/html; charset=iso-2022-jp\r\n\r\n\x1b$B</body>\x1b(B\r\nx</body>\r\n`;
    expect(await bodyAfter(eml)).toBe(`\x1b$B</body>\x1b(B\r\nx\r\n${HTML}\r\n</body>\r\n`);
  });

  test.each(["shift_jis", "gb2312", "euc-kr", "big5", "koi8-r", "windows-1252"])("%s", async (charset) => {
    const content = iconv.encode(
      "機密 мир €".replaceAll(/./gu, (c) => (iconv.encode(c, charset)[0] === 63 ? "" : c)),
      charset,
    );
    const eml = text(`${content.toString("latin1")}\r\n`, "8bit", charset);
    expect(await bodyAfter(eml)).toBe(`${content.toString("latin1")}\r\n\r\n${TEXT}\r\n`);
    const { body } = await run(eml, { text: "日本語 ✓" });
    expect(Buffer.from(body, "latin1").toString()).toBe(`${iconv.decode(content, charset)}\r\n\r\n日本語 ✓\r\n`);
  });

  test.each([
    ["utf-16", base64(Buffer.from("\ufeffMüller\r\n", "utf16le")), "base64", "Müller"],
    ["x-made-up", "Mueller\r\n", "7bit", "Mueller"],
  ])("text in %s, in which nothing can be written, becomes UTF-8", async (charset, content, encoding, name) => {
    const { body, head } = await run(text(content, encoding, charset));
    expect(head).toContain("charset=utf-8");
    const bytes = /base64/.test(head) ? Buffer.from(body, "base64") : decodeQuotedPrintable(body);
    expect(new TextDecoder().decode(bytes)).toBe(`${name}\r\n\r\n${TEXT}\r\n`);
  });

  test("HTML gets references", async () => {
    const { body } = await run("Content-Type: text/html\r\n\r\nM\xfcller</body>\r\n", GERMAN);
    expect(body).toBe("M\xfcller\r\n<p>Vertraulich f&#252;r Empf&#228;nger</p>\r\n</body>\r\n");
  });

  test("in a part of a multipart its header is changed, and nothing else", async () => {
    const part = (header: string, body: string) => `--b\r\n${header}\r\n\r\n${body}\r\n`;
    const image = part("Content-Type: image/gif\r\nContent-Transfer-Encoding: base64", "R0lGODlh");
    const eml = (first: string) => `${first}${image}--b--\r\n`;
    const before = part("Content-ID: <1>\r\nContent-Type:\r\n text/plain; charset=us-ascii; format=flowed", "Hello");
    const after = part(
      "Content-ID: <1>\r\nContent-Type: text/plain; format=flowed; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable",
      "Hello\r\n\r\nVertraulich f=C3=BCr Empf=C3=A4nger",
    );
    expect(await bodyAfter(`Content-Type: multipart/mixed; boundary=b\r\n\r\n${eml(before)}`, GERMAN)).toBe(eml(after));
  });
});

describe("format=flowed", () => {
  const flowed = (body: string, more = "") => text(body, "7bit", "us-ascii", `; format=flowed${more}`);
  test.each([
    ["a line that goes on is ended", "one \r\n", "one \r\n\r\n\r\nConfidential.\r\n", ""],
    ["with delsp too", "one \r\n", "one \r\n\r\n\r\nConfidential.\r\n", "; delsp=yes"],
    ["a signature mark is not one", "one\r\n-- \r\n", "one\r\n-- \r\n\r\nConfidential.\r\n", ""],
  ])("%s", async (_, body, expected, more) => {
    expect(await bodyAfter(flowed(body, more))).toBe(expected);
  });

  test("lines that would mean something are stuffed", async () => {
    await using dir = await tempDir("disclaimer");
    writeFileSync(join(dir.path, "d.txt"), "From us   \n > quoted\n>too\nplain\n");
    const { body } = await run(flowed("x\r\n"), { text: undefined, text_file: join(dir.path, "d.txt") });
    expect(body).toBe("x\r\n\r\n From us\r\n  > quoted\r\n >too\r\nplain\r\n");
  });
});

describe("multiparts", () => {
  const PLAIN = "Content-Type: text/plain\r\n\r\nplain";
  const MARKUP = "Content-Type: text/html\r\n\r\n<b>x</b>";
  const BARE = "\r\nbare";
  const ATTACHED =
    "Content-Type: text/plain; name=a.txt\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nattached";
  const FORWARDED = "Content-Type: message/rfc822\r\n\r\nSubject: f\r\n\r\nforwarded";
  const PICTURE = "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <p>\r\n\r\niVBORw0K";
  const PLAIN2 = `${PLAIN}\r\n\r\n${TEXT}`;
  const MARKUP2 = `${MARKUP}\r\n${HTML}`;
  let count = 0;
  const multi = (type: string, ...parts: string[]) => {
    const boundary = `=_${type.length}.${parts.length}.${(count += 1)}`;
    const body = parts.map((part) => `--${boundary}\r\n${part}\r\n`).join("");
    return `Content-Type: multipart/${type}; boundary="${boundary}"\r\n\r\npreamble\r\n${body}--${boundary}-- \r\nepilogue`;
  };
  const change = (eml: string) =>
    eml.replace(PLAIN, PLAIN2).replace(MARKUP, MARKUP2).replace(BARE, `${BARE}\r\n\r\n${TEXT}`);

  test.each([
    ["alternative: each form", multi("alternative", PLAIN, MARKUP)],
    ["mixed: the first text", multi("mixed", PLAIN, ATTACHED, PICTURE)],
    ["mixed: text behind an attachment", multi("mixed", ATTACHED, PICTURE, PLAIN)],
    ["alternative in mixed", multi("mixed", multi("alternative", PLAIN, MARKUP), ATTACHED)],
    ["related in alternative in mixed", multi("mixed", multi("alternative", PLAIN, multi("related", MARKUP, PICTURE)))],
    ["related with a start", multi('related; start="<r>"', PICTURE, `Content-ID: <r>\r\n${MARKUP}`)],
    ["a forwarded message stays", multi("mixed", FORWARDED, PLAIN)],
    ["a part without a header", multi("mixed", ATTACHED, BARE)],
  ])("%s", async (_, eml) => {
    const expected = change(eml);
    const { message, head } = await run(`MIME-Version: 1.0\r\n${eml}\r\n`);
    expect(head).toContain("X-Pmilter-Disclaimer: added");
    expect(message.slice(message.indexOf("\r\n\r\n"))).toBe(`${expected.slice(expected.indexOf("\r\n\r\n"))}\r\n`);
    expect(expected).not.toBe(eml);
  });

  test.each([
    ["signed", multi('signed; protocol="application/pgp-signature"', PLAIN, PICTURE)],
    ["a signed part in mixed", multi("mixed", PLAIN, multi("signed", PLAIN, PICTURE))],
    ["encrypted", multi("encrypted", "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1", PICTURE)],
    ["S/MIME", "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\r\n\r\nAAAA"],
    ["S/MIME by name", multi("mixed", PLAIN, "Content-Type: application/octet-stream; name=smime.P7M\r\n\r\nAAAA")],
    ["inline PGP", "Subject: a\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA1\r\n"],
    ["inline PGP, encoded", text(base64("hi\r\n-----BEGIN PGP MESSAGE-----\r\n"), "base64")],
    ["a report", multi("report; report-type=delivery-status", PLAIN, FORWARDED)],
    ["DKIM", "DKIM-Signature: v=1; a=rsa-sha256\r\n\r\nplain\r\n"],
    ["only attachments", multi("mixed", ATTACHED, PICTURE)],
    ["no text", "Content-Type: image/png\r\n\r\niVBORw0K"],
    ["no boundary", "Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nplain\r\n--b--\r\n"],
    ["a boundary that is not there", "Content-Type: multipart/mixed; boundary=x\r\n\r\nplain\r\n"],
    ["no end", `Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n${PLAIN}\r\n`],
    [
      "a line that is no field",
      "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nno field\r\n\r\nx\r\n--b--\r\n",
    ],
    ["two Content-Types", "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx\r\n"],
    ["an unknown encoding", text("begin 644 a", "x-uuencode")],
    ["a type that is none", "Content-Type: text\r\n\r\nx\r\n"],
  ])("left alone: %s", async (_, eml) => {
    expect((await run(`MIME-Version: 1.0\r\n${eml}`)).modifications).toEqual([]);
  });

  test("a line of the disclaimer is not taken for a sender's boundary", async () => {
    await using dir = await tempDir("disclaimer");
    writeFileSync(join(dir.path, "d.txt"), "--------\nConfidential.\n");
    const eml = `Content-Type: multipart/mixed; boundary="----"\r\n\r\n------\r\n${PLAIN}\r\n--------\r\n`;
    const options = { text: undefined, text_file: join(dir.path, "d.txt") };
    const { body } = await run(eml, options);
    const [header, content] = body.split("\r\n--------\r\n")[0]!.split("\r\n\r\n");
    expect(header).toBe("------\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64");
    expect(Buffer.from(content!, "base64").toString()).toBe("plain\r\n\r\n--------\r\nConfidential.");
  });

  // RFC 2046 5.1.1: a part may have no header, or only a header.
  test.each<[string, string, string]>([
    ["a part that is empty", "--b\r\n--b--\r\n", `--b\r\n\r\n${TEXT}\r\n--b--\r\n`],
    [
      "an empty part in front of another",
      `--b\r\n\r\n--b\r\n${PLAIN}\r\n--b--\r\n`,
      `--b\r\n\r\n${TEXT}\r\n--b\r\n${PLAIN}\r\n--b--\r\n`,
    ],
    [
      "a part of a header alone",
      "--b\r\nContent-Type: text/plain\r\n--b--\r\n",
      `--b\r\nContent-Type: text/plain\r\n\r\n${TEXT}\r\n--b--\r\n`,
    ],
  ])("%s", async (_, body, expected) => {
    const eml = `MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n${body}`;
    expect((await bodyAfter(eml)).replace(`${TEXT}\r\n\r\n--b`, `${TEXT}\r\n--b`)).toBe(expected);
  });

  test("a part has each field once", async () => {
    const eml =
      "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nhello\r\n--b--\r\n";
    const body = await bodyAfter(eml, { text: "Grüße" });
    expect(body.match(/^content-type:/gim)).toHaveLength(1);
    expect(body.match(/^content-transfer-encoding:/gim)).toHaveLength(1);
    expect(body).toContain("Gr=C3=BC=C3=9Fe");
  });

  test("text that calls itself ISO 8859-1 is windows-1252, as every program reads it", async () => {
    const { body } = await run(text("=93hi=94\r\n", "quoted-printable", "iso-8859-1"), { text: "機密" });
    expect(decodeQuotedPrintable(body).toString()).toBe("“hi”\r\n\r\n機密\r\n");
  });

  test("a </body> in a comment behind the body does not hide the disclaimer", async () => {
    const body = await bodyAfter(html("<body>x</body>\r\n<!-- </body> -->\r\n"));
    expect(body).toBe(lines("<body>x", HTML, "</body>", "<!-- </body> -->"));
  });
});

describe("options", () => {
  test.each([
    ["of a sender domain", { sender_domains: ["example.com"] }, true, TO],
    ["not of another", { sender_domains: ["example.org"] }, false, TO],
    ["not of an excepted one", { except_sender_domains: ["example.com"] }, false, TO],
    ["for a recipient domain", { recipient_domains: ["example.net"] }, true, TO],
    ["for one of the recipients", { recipient_domains: ["example.org"] }, true, ["bob@example.net", "c@example.org"]],
    ["not within", { except_recipient_domains: ["example.com"] }, false, ["x@example.com"]],
    ["within and outside", { except_recipient_domains: ["example.com"] }, true, ["x@example.com", "b@example.net"]],
  ])("%s", async (_, options, isStamped, to) => {
    const { modifications } = await run("Subject: a\r\n\r\nx\r\n", options, FROM, to);
    expect(modifications.length > 0).toBe(isStamped);
  });

  test("a second time changes nothing", async () => {
    const first = await run("Subject: a\r\n\r\nx\r\n");
    expect((await run(first.message)).modifications).toEqual([]);
    expect((await run(first.message, { marker: "X-Other" })).modifications).not.toEqual([]);
  });

  test("dkim_signed = change", async () => {
    const { body } = await run("DKIM-Signature: v=1\r\n\r\nx\r\n", { dkim_signed: "change" });
    expect(body).toBe(`x\r\n\r\n${TEXT}\r\n`);
  });

  test("html beside text, and files", async () => {
    await using dir = await tempDir("disclaimer");
    writeFileSync(join(dir.path, "d.html"), "\ufeff<hr>\r\n<i>é</i>\r\n\r\n");
    const { body } = await run("Content-Type: text/html\r\n\r\nx\r\n", { html_file: join(dir.path, "d.html") });
    expect(body).toBe(lines("x", "<hr>", "<i>&#233;</i>"));
  });

  test.each([
    ["no text", { text: undefined }, "options.text: expected the disclaimer"],
    ["an empty text", { text: " " }, "options.text: expected some text"],
    ["a number", { text: 5 }, "options.text: expected one line of text, got 5"],
    [
      "a file that is not there",
      { text: undefined, text_file: "no/such.txt" },
      "options.text_file: expected a file that can be read, got",
    ],
    ["text twice", { text_file: import.meta.path }, 'options.text_file: expected none beside "text"'],
    ["a wrong choice", { dkim_signed: true }, 'options.dkim_signed: expected "leave" or "change", got true'],
    ["a wrong header", { marker: "a b" }, "options.marker: expected the name of a header"],
    ["an unknown one", { sender_domain: [] }, "options.sender_domain: unknown option"],
  ])("start refuses %s", async (_, options, message) => {
    const mail = { eml: "\n", options: { text: TEXT, ...options } };
    await expect(runFilter(disclaimer, mail)).rejects.toThrow(message);
  });
});

describe("random MIME trees", () => {
  test.each(Array.from({ length: 200 }, (_, seed) => seed))("seed %i: only the text changes", async (seed) => {
    const random = mulberry(seed);
    const tree = randomTree(random, 0);
    const rendered = render(tree);
    const { message, replaced } = await run(rendered);
    const targets = new Set(targetsOf(tree));
    expect(replaced !== undefined).toBe(targets.size > 0);
    const after = bodyOf(message);
    const expected = rendered.slice(rendered.indexOf("\r\n\r\n") + 4);
    if (targets.has(tree)) {
      const encoding = /^content-transfer-encoding: (.*?)\r?$/im.exec(message)![1]!;
      compareText(tree, expected.replace(/\r\n$/, ""), after.replace(/\r\n$/, ""), encoding);
    } else compare(tree, expected.replace(/\r\n$/, ""), after.replace(/\r\n$/, ""), targets);
  });
});

interface Node {
  readonly header: string;
  readonly content: string;
  readonly boundary: string;
  readonly kind: string;
  readonly encoding: string;
  readonly children: readonly Node[];
}

/** A small random generator with a seed. */
function mulberry(seed: number): (below: number) => number {
  let state = seed + 1;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function pick<T>(random: (below: number) => number, choices: readonly T[]): T {
  return choices[random(choices.length)]!;
}

function randomTree(random: (below: number) => number, depth: number): Node {
  if (depth < 4 && random(depth === 0 ? 5 : 2) !== 0) {
    const kind = pick(random, ["mixed", "alternative", "related", "parallel"]);
    const boundary = pick(random, ["b", "--", "=_x y", "b'()+_,-./:=?"]) + depth + random(1000);
    const children = Array.from({ length: 1 + random(4) }, () => randomTree(random, depth + 1));
    const header = `Content-Type: multipart/${kind};\r\n\tboundary="${boundary}"\r\n`;
    return { header, content: "", boundary, kind, encoding: "7bit", children };
  }
  const kind = pick(random, ["text/plain", "text/html", "attached", "image/png", "message/rfc822"]);
  const encoding = kind === "message/rfc822" ? "8bit" : pick(random, ["7bit", "8bit", "quoted-printable", "base64"]);
  const words = Array.from({ length: random(30) }, () =>
    pick(random, ["hello", "\r\n", "</body>", " ", "=", "--b", "\xe4\xf6", "\r\n--", "<p>", "\0"]),
  );
  const plain = words.join("").replaceAll(encoding === "7bit" ? /[\x80-\xff]/g : /$^/g, "");
  let content = plain;
  if (encoding === "base64") content = base64(plain).replaceAll(/.{60}(?=.)/g, "$&\r\n");
  if (encoding === "quoted-printable") content = wrap(encodeQuotedPrintable(bytesOf(plain)));
  const type = kind === "attached" ? "text/plain\r\nContent-Disposition: attachment" : kind;
  const header = `Content-Type: ${type}${kind.startsWith("text/") ? "; charset=iso-8859-1" : ""}\r\nContent-Transfer-Encoding: ${encoding}\r\n`;
  return { header, content, boundary: "", kind, encoding, children: [] };
}

function render({ header, content, boundary, children }: Node): string {
  if (boundary === "") return `${header}\r\n${content}`;
  return `${header}\r\npre${children.map((child) => `\r\n--${boundary}\r\n${render(child)}`).join("")}\r\n--${boundary}--`;
}

function targetsOf(node: Node): Node[] {
  if (node.kind.startsWith("text/")) return [node];
  if (node.kind === "alternative") return node.children.flatMap(targetsOf);
  if (node.kind === "related") return targetsOf(node.children[0]!);
  // Unknown ones are mixed (RFC 2046 5.1.7).
  return node.children.map(targetsOf).find((each) => each.length > 0) ?? [];
}

/** Compares content with content, part by part, where the generator put its boundaries. */
function compare(node: Node, before: string, after: string, targets: ReadonlySet<Node>): void {
  if (!targets.has(node) && node.children.length === 0) {
    expect(after).toBe(before);
    return;
  }
  if (node.children.length > 0) {
    const pieces = after.split(`\r\n--${node.boundary}`);
    expect(pieces.length).toBe(node.children.length + 2);
    expect([pieces[0], pieces.at(-1)]).toEqual(["pre", "--"]);
    for (const [index, child] of node.children.entries()) {
      const piece = pieces[index + 1]!;
      const rendered = render(child).slice(child.header.length + 2);
      if (targets.has(child)) {
        // Its encoding may be another one.
        const end = piece.indexOf("\r\n\r\n");
        const encoding = /^content-transfer-encoding: (.*)$/im.exec(piece.slice(0, end))![1]!.trim();
        compareText(child, rendered, piece.slice(end + 4), encoding);
        continue;
      }
      expect(piece.startsWith(`\r\n${child.header}\r\n`)).toBe(true);
      compare(child, rendered, piece.slice(child.header.length + 4), targets);
    }
    return;
  }
}

function compareText(node: Node, before: string, after: string, encoding: string): void {
  const decode = (text: string, encoding: string) => {
    if (encoding === "base64") return Buffer.from(text, "base64").toString("latin1");
    return encoding === "quoted-printable" ? decodeQuotedPrintable(text).toString("latin1") : text;
  };
  const wanted = node.kind === "text/html" ? HTML : TEXT;
  const [old, now] = [decode(before, node.encoding), decode(after, encoding)];
  expect(now.split(wanted).length).toBe(2);
  const spaceless = (text: string) => text.replaceAll(/\s+/g, "");
  expect(spaceless(now.replace(wanted, ""))).toBe(spaceless(old));
  if (node.kind === "text/plain") expect(now.startsWith(old)).toBe(true);
}

describe("hostile input is bounded", () => {
  const nest = (depth: number) =>
    Array.from({ length: depth }, (_, n) => `--b${n - 1}\r\nContent-Type: multipart/mixed; boundary=b${n}\r\n\r\n`)
      .join("")
      .slice("--b-1\r\n".length);
  test.each<[string, number, (amount: number) => string]>([
    ["nested 5,000 deep", 5_000, nest],
    [
      "10,000 parts",
      10_000,
      (count) => `Content-Type: multipart/mixed; boundary=b\r\n\r\n${"--b\r\n\r\nx\r\n".repeat(count)}--b--\r\n`,
    ],
    [
      "almost boundaries",
      5_000_000,
      (length) => `Content-Type: multipart/mixed; boundary=-\r\n\r\n${"-".repeat(length)}`,
    ],
    ["5 MB of spaces", 5_000_000, (length) => text(" ".repeat(length), "quoted-printable")],
    ["5 MB of soft breaks", 1_700_000, (count) => html("=\r\n".repeat(count), "quoted-printable")],
    ["5 MB of </body", 800_000, (count) => html("</body".repeat(count))],
    ["5 MB of escapes", 5_000_000, (count) => text("\x1b".repeat(count), "7bit", "iso-2022-jp")],
    ["5 MB of =", 5_000_000, (count) => text("=".repeat(count), "base64")],
    [
      "a part header of 5 MB",
      800_000,
      (count) => `Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n${"X: y\r\n".repeat(count)}--b--`,
    ],
    ["a Content-Type of 60 KB", 8_000, (count) => `Content-Type: text/plain; ${'name="('.repeat(count)}\r\n\r\nx\r\n`],
  ])("%s: in proportion", async (_, most, make) => {
    await expectGrowth(most, (amount) => run(make(amount)));
  });
});
