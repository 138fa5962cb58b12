/** Messages made to take long: the work of reading grows in proportion to their length, and their structure has a bound. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { readMessage } from "../../src/index.ts";
import { linksOfHtml } from "../../src/mime/links.ts";
import { MIME_LIMITS } from "../../src/mime/structure.ts";
import { amountsOf, expectGrowth, NOT_AT_ALL } from "../support/growth.ts";

setDefaultTimeout(120_000);

/** The text so often that it has about so many bytes. */
const times = (text: string, bytes: number) => text.repeat(Math.floor(bytes / text.length));
const mail = (type: string, body: string) => `MIME-Version: 1.0\r\nContent-Type: ${type}\r\n\r\n${body}`;
const withHeader = (header: string) => mail("multipart/mixed; boundary=b", `--b\r\n${header}\r\n\r\nx\r\n--b--\r\n`);
const withParameters = (text: string) => withHeader(`Content-Disposition: attachment; ${text}`);

const SHAPES: readonly (readonly [string, (n: number) => string])[] = [
  ["backslashes", (n) => withParameters('filename="' + times("\\", n))],
  ["escaped quotes", (n) => withParameters('filename="' + times('\\"', n) + '"')],
  ["escaped brackets", (n) => withParameters("name=(" + times("\\(", n))],
  ["escaped quotes within a comment", (n) => withParameters('name=(a)"' + times('\\"', n))],
  ["beginnings of encoded words", (n) => withParameters('filename="' + times("=?", n) + '"')],
  ["question marks", (n) => withParameters('filename="=?utf-8?Q?' + times("?", n) + '"')],
  ["encoded words that do not end", (n) => withParameters('filename="' + times("=?utf-8?Q?", n) + '"')],
  ["many encoded words of base64", (n) => withParameters('filename="' + times("=?utf-8?B?YQ==?= ", n) + '"')],
  ["many parts", (n) => mail("multipart/mixed; boundary=b", times("--b\r\n\r\nx\r\n", n))],
  [
    "multiparts in each other",
    (n) =>
      Array.from(
        { length: n / 60 },
        (_, level) => `Content-Type: multipart/mixed; boundary=n${level}n\r\n\r\n--n${level}n\r\n`,
      ).join(""),
  ],
  [
    "multiparts in each other, one boundary",
    (n) => mail("multipart/mixed; boundary=b", times("--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", n)),
  ],
  ["messages in each other", (n) => times("Content-Type: message/rfc822\r\n\r\n", n)],
  [
    "messages and multiparts in each other",
    (n) =>
      mail(
        "multipart/mixed; boundary=b",
        times("--b\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", n),
      ),
  ],
  ["lines that begin like delimiters", (n) => mail("multipart/mixed; boundary=b", times("--bx\r\n", n))],
  ["delimiters behind a space", (n) => mail("multipart/mixed; boundary=b", times(" --b\r\n", n))],
  ["delimiters in one line", (n) => mail("multipart/mixed; boundary=b", times("--b--b--b", n))],
  ["spaces behind delimiters", (n) => mail("multipart/mixed; boundary=b", times(`--b${" ".repeat(990)}x\r\n`, n))],
  ["spaces behind a delimiter", (n) => mail("multipart/mixed; boundary=b", "--b" + times(" ", n) + "x\r\n")],
  ["a boundary of dashes", (n) => mail('multipart/mixed; boundary="' + "-".repeat(60) + '"', times("-", n))],
  [
    "a long boundary of dashes",
    (n) => mail('multipart/mixed; boundary="' + "-".repeat(5000) + 'x"', times(`${"-".repeat(6000)}\r\n`, n)),
  ],
  [
    "30 multiparts without an end",
    (n) =>
      Array.from(
        { length: 30 },
        (_, level) => `Content-Type: multipart/mixed; boundary=n${level}n\r\n\r\n--n${level}n\r\n`,
      ).join("") + times("--nn\r\n", n),
  ],
  ["many fields", (n) => withHeader(times("X: y\r\n", n) + "Y: z")],
  ["a field with many folds", (n) => withHeader("X: y" + times("\r\n y", n))],
  ["a field of the message with many folds", (n) => "X: y" + times("\r\n y", n) + "\r\n" + withHeader("X: y")],
  [
    "a Content-Type with many folds",
    (n) => mail("multipart/mixed" + times(";\r\n a=b", n) + "; boundary=b", "--b\r\n\r\nx\r\n--b--\r\n"),
  ],
  [
    "many Content-Types",
    (n) => times("Content-Type: multipart/mixed; boundary=b\r\n", n) + "\r\n--b\r\n\r\nx\r\n--b--\r\n",
  ],
  ["many dispositions", (n) => withHeader(times("Content-Disposition: attachment; filename=a\r\n", n) + "X: y")],
  ["many parameters of one name", (n) => withParameters(times("a=b; ", n) + "filename=x")],
  ["many parameters", (n) => withParameters(Array.from({ length: n / 12 }, (_, i) => `p${i}=b`).join("; "))],
  [
    "many pieces of a name",
    (n) => withParameters(Array.from({ length: n / 16 }, (_, i) => `filename*${i}=ab`).join("; ")),
  ],
  [
    "many encoded pieces of a name",
    (n) => withParameters(Array.from({ length: n / 18 }, (_, i) => `filename*${i}*=%41b`).join("; ")),
  ],
  ["pieces with large numbers", (n) => withParameters(times("filename*999999999=ab; filename*1=b;", n))],
  ["many names", (n) => withParameters(times("filename=ab; ", n))],
  ["many keys without value", (n) => withParameters(times("name=", n))],
  ["many open quotes", (n) => withParameters(times('name="', n))],
  ["a key and spaces", (n) => withParameters("name" + times(" ", n))],
  ["spaces before a name", (n) => withParameters("filename=" + times(" ", n) + "x")],
  ["quotes", (n) => withParameters(times('"', n))],
  ["comments that do not end", (n) => withParameters(times("(", n))],
  ["comments in comments", (n) => withParameters(times("(", n) + times(")", n) + "filename=x")],
  ["many comments", (n) => withParameters(times("(a)", n) + "filename=x")],
  [
    "many comments before a type",
    (n) => mail(times("(a)", n) + "multipart/mixed; boundary=b", "--b\r\n\r\nx\r\n--b--\r\n"),
  ],
  ["many encoded words", (n) => withParameters('filename="' + times("=?utf-8?Q?a?= ", n) + '"')],
  ["halves of encoded words", (n) => withHeader("Subject: " + times("=?a?b?", n))],
  ["percent signs", (n) => withParameters("filename*=utf-8''" + times("%", n))],
  ["escapes", (n) => withParameters("filename*=utf-8''" + times("%41", n))],
  ["spaces", (n) => withParameters(times(" ", n) + "filename=x")],
  ["many words", (n) => withHeader("Content-Disposition: " + times("a ", n))],
  ["semicolons", (n) => withParameters(times(";", n))],
  ["equal signs", (n) => withParameters(times("=", n))],
  ["spaces behind a type", (n) => mail("multipart/mixed" + times(" ", n) + "; boundary=b", "x")],
  ["a long type", (n) => withHeader("Content-Type: " + times("a", n))],
  ["many slashes", (n) => withHeader("Content-Type: " + times("a/", n))],
  ["a Content-ID of brackets", (n) => withHeader("Content-ID: " + times("<", n))],
  ["a long encoding", (n) => withHeader("Content-Transfer-Encoding: " + times("base64 ", n))],
  ["folds in a boundary", (n) => mail('multipart/mixed; boundary="' + times("\r\n a", n) + '"', "x")],
  ["a long boundary", (n) => mail('multipart/mixed; boundary="' + times("b", n) + '"', "--" + times("b", n))],
  ["CRs in a header", (n) => mail("multipart/mixed; boundary=b", "--b\r\n" + times("X: y\r", n))],
  ["CRs", (n) => mail("multipart/mixed; boundary=b", times("\r", n))],
  ["empty lines", (n) => mail("multipart/mixed; boundary=b", "--b\r\n" + times("\n", n))],
  ["colons", (n) => withHeader(times(":\r\n", n) + "X: y")],
  ["lines that are no fields", (n) => withHeader(times("x\r\n", n) + "X: y")],
  ["a long line that is no field", (n) => withHeader(times("x", n))],
  ["spaces before a colon", (n) => withHeader("X" + times(" ", n) + ": y")],
  ["lines with many spaces", (n) => withHeader(times(`X${" ".repeat(900)}y\r\n`, n) + "X: y")],
  [
    "base64 in one line",
    (n) => mail("application/octet-stream\r\nContent-Transfer-Encoding: base64", times("QUJD", n)),
  ],
  [
    "base64 with much padding",
    (n) => mail("application/octet-stream\r\nContent-Transfer-Encoding: base64", times("QQ==", n)),
  ],
  ["padding", (n) => mail("application/octet-stream\r\nContent-Transfer-Encoding: base64", times("=", n))],
  ["base64 with spaces", (n) => mail("application/octet-stream\r\nContent-Transfer-Encoding: base64", times(" Q", n))],
  [
    "spaces in base64",
    (n) => mail("application/octet-stream\r\nContent-Transfer-Encoding: base64", "Q" + times(" ", n) + "Q"),
  ],
  ["quoted-printable", (n) => mail("text/plain\r\nContent-Transfer-Encoding: quoted-printable", times("=41", n))],
  [
    "spaces in quoted-printable",
    (n) => mail("text/plain\r\nContent-Transfer-Encoding: quoted-printable", times(" ", n) + "x"),
  ],
  [
    "spaces behind a soft line end",
    (n) => mail("text/plain\r\nContent-Transfer-Encoding: quoted-printable", "=" + times(" ", n) + "x"),
  ],
  [
    "equal signs in quoted-printable",
    (n) => mail("text/plain\r\nContent-Transfer-Encoding: quoted-printable", times("=", n)),
  ],
  ["soft line ends", (n) => mail("text/plain\r\nContent-Transfer-Encoding: quoted-printable", times("=\r\n", n))],
  ["UTF-7 that begins", (n) => mail("text/plain; charset=utf-7", times("+", n))],
  ["UTF-7", (n) => mail("text/plain; charset=utf-7", times("+AC4-", n))],
  ["ISO 2022", (n) => mail("text/plain; charset=iso-2022-jp", times("\x1b$B", n))],
  ["many links", (n) => mail("text/plain", times("http://a ", n))],
  ["beginnings of links", (n) => mail("text/plain", times("http://", n))],
  ["brackets behind a link", (n) => mail("text/plain", "http://a" + times(")", n))],
  ["open brackets behind a link", (n) => mail("text/plain", "http://a" + times("(", n))],
  ["beginnings of host names", (n) => mail("text/plain", times("www.", n))],
  ["open tags", (n) => mail("text/html", times("<", n))],
  ["many links in HTML", (n) => mail("text/html", times("<a href=x>", n))],
  ["elements in each other", (n) => mail("text/html", times("<div>", n / 4))],
  ["many attributes", (n) => mail("text/html", "<a " + times("x=y ", n) + ">")],
  ["ampersands", (n) => mail("text/html", '<a href="' + times("&", n) + '">')],
  ["beginnings of comments", (n) => mail("text/html", times("<!--", n))],
  ["beginnings of PGP", (n) => mail("text/plain", times("-----BEGIN PGP ", n))],
  ["many beginnings of PGP", (n) => mail("text/plain", times("-----BEGIN PGP SIGNED MESSAGE-----\n", n))],
  ["line ends", (n) => mail("text/plain", times("\r", n))],
];

/** All that a filter may ask. */
function readAll(eml: Uint8Array): void {
  const mime = readMessage(eml);
  const parts = [...mime.walk()];
  for (const part of parts) {
    void [part.size, part.names, part.filename, part.contentId, part.isAttachment, part.isSealed];
    for (const { text } of part.headers) void text;
    part.message()?.links();
  }
  void [mime.text, mime.html, mime.links()];
  expect(parts.length).toBeLessThanOrEqual(MIME_LIMITS.parts + 1);
}

test.each(SHAPES)("the work does not grow faster than %s", async (_, make) => {
  await expectGrowth(900_000, (bytes) => readAll(Buffer.from(make(bytes), "latin1")));
});

test("links beyond those that are looked for cost no work", async () => {
  const documents = new Map(amountsOf(9_000_000, NOT_AT_ALL).map((bytes) => [bytes, times("<a href=x>", bytes)]));
  await expectGrowth(
    9_000_000,
    (bytes) => expect(linksOfHtml(documents.get(bytes)!, 10_000)).toHaveLength(10_000),
    NOT_AT_ALL,
  );
});

test.each(["QUJD", "QQ==", "QU*JD"])("100 MB of %j in one line are decoded within bounded memory", (digits) => {
  const { stdout, stderr } = Bun.spawnSync([process.execPath, join(import.meta.dir, "large-part.ts"), digits], {
    env: { ...process.env, BUN_BE_BUN: "1" },
  });
  const { size, mebibytes } = JSON.parse(stdout.toString() || stderr.toString());
  expect(size).toBeGreaterThan(20_000_000);
  // The message, its text and its content are 270 MB; split at each padding it were 3.5 GB.
  expect(mebibytes).toBeLessThan(700);
});
