/** Headers of parts, and of the message, whose fields a filter may find otherwise than a mail program. */
import { type Evasion, evasions, FILE_HEADER, FILE_PART, HARMLESS, message, TEXT_PART, withPart } from "./evasion.ts";

const DISPOSITION = "Content-Disposition: attachment; filename=x.js";
const TYPE = "Content-Type: application/octet-stream";
const LONG = 200 * 1024;

/** Lines in the header of the part that are no fields, or odd ones. */
const LINES: readonly (readonly [string, string])[] = [
  ["two words and a colon", "X Y: z"],
  ["no colon", "nonsense"],
  ["no name", ": z"],
  ["nothing but a colon", ":"],
  ["From of a mailbox", "From a@example.com Tue Dec  1 00:00:00 2026"],
  ["From of a mailbox, quoted", ">From a@example.com"],
  ["white space", "   "],
  ["a tab", "\t"],
  ["a folded line with text", " folded"],
  ["a byte beyond ASCII in the name", "X-\xe4: z"],
  ["NUL in the name", "X\0Y: z"],
  ["NUL", "\0"],
  ["a name in brackets", "(c)X: z"],
  ["a name in quotes", '"X": z'],
  ["a byte order mark", "\xef\xbb\xbf"],
  ["a line of dashes", "-----"],
  ["the beginning of a delimiter", "--"],
  ["another delimiter", "--other"],
  ["a name of 1,000 characters", `${"X".repeat(1000)}: z`],
  ["a name of 100,000 characters", `${"X".repeat(100_000)}: z`],
  ["a long field", `X: ${"z".repeat(LONG)}`],
  ["a long field in lines", `X: ${`${"z".repeat(70)}\r\n `.repeat(3000)}z`],
  ["many fields", Array.from({ length: 5000 }, (_, n) => `X-${n}: ${"z".repeat(30)}`).join("\r\n")],
  ["a CR in the middle", "X: y\rz"],
  ["a CR at the end", "X: y\r"],
  ["a CR alone", "\r"],
  ["a form feed", "\f"],
  ["a vertical tab", "\v"],
  ["a delete character", "\x7f"],
  ["a field twice", `${TYPE}`],
  ["an empty Content-Type", "Content-Type:"],
  ["an empty disposition", "Content-Disposition:"],
  ["text/plain first", "Content-Type: text/plain"],
  ["an encoding that is none", "Content-Transfer-Encoding: nonsense"],
  ["a MIME-Version", "MIME-Version: 2.0"],
];

/** The disposition as a field that is odd itself. */
const DISPOSITIONS: readonly (readonly [string, string])[] = [
  ["a space before the colon", "Content-Disposition : attachment; filename=x.js"],
  ["a tab before the colon", "Content-Disposition\t: attachment; filename=x.js"],
  ["a fold before the colon", "Content-Disposition\r\n : attachment; filename=x.js"],
  ["a space before the name", " Content-Disposition: attachment; filename=x.js"],
  ["in capitals", "CONTENT-DISPOSITION: ATTACHMENT; FILENAME=X.JS"],
  ["a byte order mark before the name", "\xef\xbb\xbfContent-Disposition: attachment; filename=x.js"],
  ["NUL before the colon", "Content-Disposition\0: attachment; filename=x.js"],
  ["NUL in the value", "Content-Disposition: \0attachment; filename=x.js"],
  ["an underscore", "Content_Disposition: attachment; filename=x.js"],
  ["behind a CR", "X: y\rContent-Disposition: attachment; filename=x.js"],
  ["behind a lone LF", "X: y\nContent-Disposition: attachment; filename=x.js"],
  ["behind CR CR LF", "X: y\r\r\nContent-Disposition: attachment; filename=x.js"],
  ["behind LF CR", "X: y\n\rContent-Disposition: attachment; filename=x.js"],
  ["behind a Unicode line end", "X: y\xe2\x80\xa8Content-Disposition: attachment; filename=x.js"],
  ["behind NEL", "X: y\x85Content-Disposition: attachment; filename=x.js"],
  ["behind a vertical tab", "X: y\vContent-Disposition: attachment; filename=x.js"],
  ["behind a form feed", "X: y\fContent-Disposition: attachment; filename=x.js"],
  ["folded by CR", "Content-Disposition: attachment;\r filename=x.js"],
  ["folded by LF", "Content-Disposition: attachment;\n filename=x.js"],
  ["folded without space", "Content-Disposition: attachment;\r\nfilename=x.js"],
  ["folded by a form feed", "Content-Disposition: attachment;\r\n\ffilename=x.js"],
  ["a long way into the value", `Content-Disposition: attachment; a=${"z".repeat(5000)}; filename=x.js`],
  [
    "many parameters before it",
    `Content-Disposition: attachment; ${Array.from({ length: 500 }, (_, n) => `p${n}=z; `).join("")}filename=x.js`,
  ],
  ["two colons", "Content-Disposition:: attachment; filename=x.js"],
  ["a semicolon for the colon", "Content-Disposition; attachment; filename=x.js"],
  ["resent", "Resent-Content-Disposition: attachment; filename=x.js"],
];

const BODY = `--b\r\n${TEXT_PART}--b\r\n${FILE_PART}--b--\r\n`;

/** What the message says of itself: the fields in place of its Content-Type. */
const ROOTS: readonly (readonly [string, string])[] = [
  ["multipart/*", "multipart/*; boundary=b"],
  ["an unknown multipart", "multipart/x-nonsense; boundary=b"],
  ["no subtype", "multipart; boundary=b"],
  ["an empty subtype", "multipart/; boundary=b"],
  ["capitals", "MULTIPART/MIXED; BOUNDARY=b"],
  ["a comment behind the type", "multipart/mixed (c); boundary=b"],
  ["a comment in front of the type", "(c) multipart/mixed; boundary=b"],
  ["a comment in the type", "multipart(c)/mixed; boundary=b"],
  ["spaces around the slash", "multipart / mixed; boundary=b"],
  ["a quoted type", '"multipart/mixed"; boundary=b'],
  ["no semicolon", "multipart/mixed boundary=b"],
  ["a comma", "multipart/mixed, boundary=b"],
  ["two semicolons", "multipart/mixed;; boundary=b"],
  ["a type behind the type", "multipart/mixed text/plain; boundary=b"],
  ["two slashes", "multipart/mixed/x; boundary=b"],
  ["a colon first", ": multipart/mixed; boundary=b"],
  ["folded at once", "Content-Type:\r\n multipart/mixed; boundary=b"],
  ["folded, a line of white space", "Content-Type: multipart/mixed;\r\n \r\n boundary=b"],
  ["a space before the colon", "Content-Type : multipart/mixed; boundary=b"],
  ["a tab before the colon", "Content-Type\t: multipart/mixed; boundary=b"],
  ["two types, text first", "Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=b"],
  ["two types, text last", "Content-Type: multipart/mixed; boundary=b\r\nContent-Type: text/plain"],
  [
    "two types, two boundaries",
    "Content-Type: multipart/mixed; boundary=b\r\nContent-Type: multipart/mixed; boundary=c",
  ],
  [
    "two types, two boundaries, the last one counts",
    "Content-Type: multipart/mixed; boundary=c\r\nContent-Type: multipart/mixed; boundary=b",
  ],
  ["an empty type first", "Content-Type:\r\nContent-Type: multipart/mixed; boundary=b"],
  ["an encoding of base64", "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64"],
  [
    "an encoding of quoted-printable",
    "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: quoted-printable",
  ],
  ["an encoding that is none", "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: nonsense"],
  [
    "a disposition with a name",
    "Content-Type: multipart/mixed; boundary=b\r\nContent-Disposition: attachment; filename=a.txt",
  ],
  ["a second MIME-Version", "MIME-Version: 2.0\r\nContent-Type: multipart/mixed; boundary=b"],
  ["multipart/alternative", "multipart/alternative; boundary=b"],
  ["multipart/related", "multipart/related; boundary=b"],
  ["multipart/digest", "multipart/digest; boundary=b"],
  ["multipart/report", "multipart/report; boundary=b"],
  ["multipart/form-data", "multipart/form-data; boundary=b"],
  ["multipart/parallel", "multipart/parallel; boundary=b"],
  ["multipart/appledouble", "multipart/appledouble; boundary=b"],
  ["multipart/signed", "multipart/signed; boundary=b"],
  ["multipart/encrypted", "multipart/encrypted; boundary=b"],
  ["multipart/byteranges", "multipart/byteranges; boundary=b"],
  ["multipart/x-mixed-replace", "multipart/x-mixed-replace; boundary=b"],
  ["NUL in the type", "multipart/mi\0xed; boundary=b"],
  ["a byte beyond ASCII in the type", "multipart/mix\xe4d; boundary=b"],
];

export function partHeaders(): Evasion[] {
  const rows: [string, string][] = [];
  for (const [what, line] of LINES) {
    rows.push([`before the fields: ${what}`, withPart(`${line}\r\n${TYPE}\r\n${DISPOSITION}`)]);
    rows.push([`between the fields: ${what}`, withPart(`${TYPE}\r\n${line}\r\n${DISPOSITION}`)]);
  }
  for (const [what, field] of DISPOSITIONS) {
    rows.push([`the disposition: ${what}`, withPart(`${TYPE}\r\n${field}\r\nX-Last: z`)]);
  }
  for (const [what, contentType] of ROOTS) rows.push([`the message: ${what}`, message(contentType, BODY)]);
  rows.push(
    ["no empty line behind the header", message("multipart/mixed; boundary=b", `--b\r\n${FILE_HEADER}--b--\r\n`)],
    [
      "no line end behind the header",
      message("multipart/mixed; boundary=b", `--b\r\n${FILE_HEADER.trimEnd()}--b--\r\n`),
    ],
    ["LF for line ends", withPart(`${TYPE}\n${DISPOSITION}\n\n${HARMLESS}`, "")],
    ["CR for line ends", withPart(`${TYPE}\r${DISPOSITION}\r\r${HARMLESS}`, "")],
    ["CR CR LF for line ends", withPart(`${TYPE}\r\r\n${DISPOSITION}\r`)],
    ["an empty line of spaces", withPart(`${TYPE}\r\n${DISPOSITION}\r\n   \r\nsomething`)],
    ["nothing but a message", `Subject: a\r\n${TYPE}\r\n${DISPOSITION}\r\n\r\n${HARMLESS}`],
    ["nothing but a message, no MIME-Version", `${TYPE}\r\n${DISPOSITION}\r\n\r\n${HARMLESS}`],
    ["text with a name and nothing else", message("text/plain; name=x.js", HARMLESS)],
    ["no MIME-Version", `Subject: a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n${BODY}`],
  );
  return evasions("part headers", rows);
}
