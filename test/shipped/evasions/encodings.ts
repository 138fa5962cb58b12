/** Encodings in which a filter may see other bytes than a mail program: the content is an archive with the file in it. */
import { base64, type Evasion, evasions, uuencode, withPart } from "./evasion.ts";
import { zip } from "./archive-makers.ts";

/** The content, in which every program finds the file. */
export const ZIP = zip([{ name: "a.txt" }, { name: "x.js" }]);
const BASE64 = base64(ZIP);
const LATIN1 = ZIP.toString("latin1");
const PRINTABLE = Array.from(ZIP, (byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`)
  .join("")
  .replaceAll(/.{72}/g, "$&=\r\n");

const part = (encoding: string, content: string) =>
  withPart(
    `Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=a.dat\r\n${encoding}`,
    content,
  );
const cte = (value: string, content: string) => part(`Content-Transfer-Encoding: ${value}`, content);
const lines = (text: string, end: string) => text.replaceAll("\r\n", end);

export function encodings(): Evasion[] {
  return evasions("encodings", [
    ["base64", cte("base64", BASE64)],
    ["base64 in capitals", cte("BASE64", BASE64)],
    ["base64 and a comment", cte("base64 (c)", BASE64)],
    ["base64 behind a comment", cte("(c) base64", BASE64)],
    ["base64 and a semicolon", cte("base64;", BASE64)],
    ["base64 and a parameter", cte("base64; x=y", BASE64)],
    ["base64 and a word", cte("base64 x", BASE64)],
    ["base64 in quotes", cte('"base64"', BASE64)],
    ["base64 and a dot", cte("base64.", BASE64)],
    ["base64 and a comma", cte("base64,", BASE64)],
    ["base64 folded", cte("\r\n base64", BASE64)],
    ["base64 and a tab", cte("base64\t", BASE64)],
    ["base64 and a CR", cte("base64\r", BASE64)],
    ["base64 and NUL", cte("base64\0", BASE64)],
    ["base64 as an encoded word", cte("=?utf-8?Q?base64?=", BASE64)],
    ["base-64", cte("base-64", BASE64)],
    ["b64", cte("b64", BASE64)],
    ["x-base64", cte("x-base64", BASE64)],
    ["mac-base64", cte("mac-base64", BASE64)],
    ["base 64", cte("base 64", BASE64)],
    ["base64, called 7bit", cte("7bit", BASE64)],
    ["base64, called nothing", part("X: y", BASE64)],
    ["base64, called nonsense", cte("nonsense", BASE64)],
    ["base64, then 7bit", part("Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit", BASE64)],
    ["7bit, then base64", part("Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64", BASE64)],
    [
      "base64, then quoted-printable",
      part("Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: quoted-printable", BASE64),
    ],
    [
      "quoted-printable, then base64",
      part("Content-Transfer-Encoding: quoted-printable\r\nContent-Transfer-Encoding: base64", BASE64),
    ],
    ["an empty one, then base64", part("Content-Transfer-Encoding:\r\nContent-Transfer-Encoding: base64", BASE64)],
    ["a space before the colon", part("Content-Transfer-Encoding : base64", BASE64)],
    ["Content-Encoding", part("Content-Encoding: base64", BASE64)],
    ["base64 in one line", cte("base64", ZIP.toString("base64"))],
    ["base64 in lines of 4", cte("base64", ZIP.toString("base64").replaceAll(/.{4}/g, "$&\r\n"))],
    ["base64 in lines of 5", cte("base64", ZIP.toString("base64").replaceAll(/.{5}/g, "$&\r\n"))],
    ["base64 in lines of 1", cte("base64", ZIP.toString("base64").replaceAll(/./g, "$&\r\n"))],
    ["base64 with spaces", cte("base64", ZIP.toString("base64").replaceAll(/.{7}/g, "$& "))],
    ["base64 with empty lines", cte("base64", lines(BASE64, "\r\n\r\n"))],
    ["base64 behind empty lines", cte("base64", `\r\n\r\n\r\n${BASE64}`)],
    ["base64 with other characters", cte("base64", BASE64.replaceAll(/.{11}/g, "$&*"))],
    ["base64 with dashes", cte("base64", BASE64.replaceAll(/.{11}/g, "$&-"))],
    ["base64 with underscores", cte("base64", BASE64.replaceAll(/.{11}/g, "$&_"))],
    ["base64 with bytes beyond ASCII", cte("base64", BASE64.replaceAll(/.{11}/g, "$&\xe4"))],
    ["base64 with NUL", cte("base64", BASE64.replaceAll(/.{11}/g, "$&\0"))],
    ["base64 with padding first", cte("base64", `====\r\n${BASE64}`)],
    [
      "base64 with padding in the middle",
      cte("base64", `${Buffer.from(ZIP.subarray(0, 31)).toString("base64")}${ZIP.subarray(31).toString("base64")}`),
    ],
    [
      "base64 with padding in each line",
      cte(
        "base64",
        ZIP.toString("latin1")
          .match(/[^]{1,31}/g)!
          .map((piece) => base64(piece))
          .join("\r\n"),
      ),
    ],
    ["base64 with one = within", cte("base64", `${BASE64.slice(0, 10)}=${BASE64.slice(10)}`)],
    ["base64 without padding", cte("base64", base64(Buffer.concat([ZIP, Buffer.alloc(1)])).replaceAll("=", ""))],
    ["base64 with text behind it", cte("base64", `${BASE64}\r\n\r\nbest regards`)],
    ["base64 with text before it", cte("base64", `!!! here it comes !!!\r\n${BASE64}`)],
    ["base64 of URLs", cte("base64", BASE64.replaceAll("+", "-").replaceAll("/", "_"))],
    ["base64 with LF", cte("base64", lines(BASE64, "\n"))],
    ["base64 with CR", cte("base64", lines(BASE64, "\r"))],
    ["base64 of base64", cte("base64", base64(BASE64))],
    ["quoted-printable", cte("quoted-printable", PRINTABLE)],
    [
      "quoted-printable in lower case",
      cte(
        "quoted-printable",
        PRINTABLE.replaceAll(/[A-F]/g, (digit) => digit.toLowerCase()),
      ),
    ],
    ["quoted-printable and a comment", cte("quoted-printable (c)", PRINTABLE)],
    ["quoted-printable with a space for the dash", cte("quoted printable", PRINTABLE)],
    ["quotedprintable", cte("quotedprintable", PRINTABLE)],
    ["quoted-printable, called qp", cte("qp", PRINTABLE)],
    [
      "quoted-printable, spaces behind soft line ends",
      cte("quoted-printable", PRINTABLE.replaceAll("=\r\n", "=  \r\n")),
    ],
    ["quoted-printable, soft line ends with LF", cte("quoted-printable", PRINTABLE.replaceAll("=\r\n", "=\n"))],
    ["quoted-printable in one line", cte("quoted-printable", PRINTABLE.replaceAll("=\r\n", ""))],
    ["quoted-printable, called nothing", part("X: y", PRINTABLE)],
    ["quoted-printable, called 8bit", cte("8bit", PRINTABLE)],
    ["binary", cte("binary", LATIN1)],
    ["8bit", cte("8bit", LATIN1)],
    ["7bit that is binary", cte("7bit", LATIN1)],
    ["binary, called nothing", part("X: y", LATIN1)],
    ["binary, called nonsense", cte("nonsense", LATIN1)],
    ["uuencode", cte("x-uuencode", uuencode(ZIP, "begin 644 a.zip"))],
    ["uuencode, x-uue", cte("x-uue", uuencode(ZIP, "begin 644 a.zip"))],
    ["uuencode, uuencode", cte("uuencode", uuencode(ZIP, "begin 644 a.zip"))],
    ["uuencode, called nothing", part("X: y", uuencode(ZIP, "begin 644 a.zip"))],
    ["uuencode, another name in it", cte("x-uuencode", uuencode(ZIP, "begin 644 a.png"))],
    ["uuencode in base64", cte("base64", base64(uuencode(ZIP, "begin 644 a.zip")))],
    ["uuencode of the file", cte("x-uuencode", uuencode("// nothing\n"))],
    [
      "text with a name, base64",
      withPart("Content-Type: text/plain; name=a.txt\r\nContent-Transfer-Encoding: base64", BASE64),
    ],
    ["text without a name, base64", withPart("Content-Type: text/plain\r\nContent-Transfer-Encoding: base64", BASE64)],
    ["HTML without a name, base64", withPart("Content-Type: text/html\r\nContent-Transfer-Encoding: base64", BASE64)],
    ["a picture, base64", withPart("Content-Type: image/png\r\nContent-Transfer-Encoding: base64", BASE64)],
    [
      "a message's own content, base64",
      `Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n${BASE64}`,
    ],
  ]);
}
