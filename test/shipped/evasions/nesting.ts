/** Files in messages, in multiparts and in text, where a filter may not look. */
import { ZIP } from "./encodings.ts";
import {
  base64,
  type Evasion,
  evasions,
  FILE_PART,
  HARMLESS,
  message,
  TEXT_PART,
  uuencode,
  withFile,
  withPart,
} from "./evasion.ts";

/** A message with the file. */
export const INNER = message("multipart/mixed; boundary=c", `--c\r\n${TEXT_PART}--c\r\n${FILE_PART}--c--\r\n`);
const FORWARDED = "Content-Type: message/rfc822";

/** A message in a message in a message. */
function deep(levels: number): string {
  let inner = INNER;
  for (let level = 0; level < levels; level++) inner = message("message/rfc822", inner);
  return inner;
}

/** Multiparts in multiparts. */
function deepParts(levels: number): string {
  let part = FILE_PART;
  for (let level = levels; level > 0; level--) {
    part = `Content-Type: multipart/mixed; boundary=n${level}n\r\n\r\n--n${level}n\r\n${part}--n${level}n--\r\n`;
  }
  return message("multipart/mixed; boundary=b", `--b\r\n${part}--b--\r\n`);
}

function forwarded(header: string, content: string): string {
  return withPart(header, content);
}

const named = (type: string, name: string) =>
  `Content-Type: ${type}\r\nContent-Disposition: attachment; filename=${name}`;

export function nesting(): Evasion[] {
  const rows: [string, string][] = [
    ["a forwarded message", forwarded(FORWARDED, INNER)],
    ["a forwarded message in base64", forwarded(`${FORWARDED}\r\nContent-Transfer-Encoding: base64`, base64(INNER))],
    [
      "a forwarded message in quoted-printable",
      forwarded(`${FORWARDED}\r\nContent-Transfer-Encoding: quoted-printable`, INNER.replaceAll("=", "=3D")),
    ],
    [
      "a forwarded message behind From",
      forwarded(FORWARDED, `From a@example.com Tue Dec  1 00:00:00 2026\r\n${INNER}`),
    ],
    ["a forwarded message behind >From", forwarded(FORWARDED, `>From a@example.com\r\n${INNER}`)],
    ["a forwarded message behind an empty line", forwarded(FORWARDED, `\r\n${INNER}`)],
    ["a forwarded message, the type in capitals", forwarded("Content-Type: MESSAGE/RFC822", INNER)],
    ["a forwarded message, a comment in its type", forwarded("Content-Type: message/rfc822 (c)", INNER)],
    ["a forwarded message with a name", forwarded(named("message/rfc822", "a.eml"), INNER)],
    ["a forwarded message with the name of a picture", forwarded(named("message/rfc822", "a.png"), INNER)],
    ["a forwarded message, inline", forwarded(`${FORWARDED}\r\nContent-Disposition: inline`, INNER)],
    ["message/global", forwarded("Content-Type: message/global", INNER)],
    ["message/news", forwarded("Content-Type: message/news", INNER)],
    ["an unknown message type", forwarded("Content-Type: message/x-nonsense", INNER)],
    ["message/*", forwarded("Content-Type: message/*", INNER)],
    ["message", forwarded("Content-Type: message", INNER)],
    ["message/rfc822-headers", forwarded("Content-Type: message/rfc822-headers", INNER)],
    ["message/delivery-status", forwarded("Content-Type: message/delivery-status", INNER)],
    ["message/disposition-notification", forwarded("Content-Type: message/disposition-notification", INNER)],
    ["text/rfc822-headers", forwarded("Content-Type: text/rfc822-headers", INNER)],
    ["text/rfc822", forwarded("Content-Type: text/rfc822", INNER)],
    ["message/partial", forwarded("Content-Type: message/partial; id=a; number=1; total=1", INNER)],
    ["message/external-body", forwarded("Content-Type: message/external-body; access-type=x", INNER)],
    [
      "message/external-body with a file's own header",
      forwarded(
        'Content-Type: message/external-body; access-type=URL; URL="http://example.com/x.js"; name=x.js',
        "Content-Type: application/octet-stream\r\n",
      ),
    ],
    ["a .eml file", withFile("a.eml", Buffer.from(INNER, "latin1"))],
    ["a .eml file behind From", withFile("a.eml", Buffer.from(`From a@example.com\n${INNER}`, "latin1"))],
    ["a .eml file of another name", withFile("a.dat", Buffer.from(INNER, "latin1"))],
    ["a .eml file of text", forwarded("Content-Type: text/plain; name=a.eml", INNER)],
    ["a .mht file", withFile("a.mht", Buffer.from(INNER, "latin1"))],
    [
      "a mailbox",
      withFile(
        "a.mbox",
        Buffer.from(`From a@example.com\nSubject: a\n\nfirst\n\nFrom a@example.com\n${INNER}`, "latin1"),
        "application/mbox",
      ),
    ],
    ["a digest", message("multipart/digest; boundary=b", `--b\r\n\r\n${INNER}--b--\r\n`)],
    ["a digest with types", message("multipart/digest; boundary=b", `--b\r\n${FORWARDED}\r\n\r\n${INNER}--b--\r\n`)],
    [
      "a bounce",
      message(
        "multipart/report; report-type=delivery-status; boundary=b",
        `--b\r\n${TEXT_PART}--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; example.com\r\n\r\n--b\r\n${FORWARDED}\r\n\r\n${INNER}--b--\r\n`,
      ),
    ],
    ["a message that is a message", message("message/rfc822", INNER)],
    [
      "a message that is a message in base64",
      message("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64", base64(INNER)),
    ],
    ...[2, 3, 4, 5, 10, 30, 60].map((n): [string, string] => [`${n} forwarded messages in each other`, deep(n)]),
    ...[2, 5, 10, 25, 30, 31, 50, 100].map((n): [string, string] => [`${n} multiparts in each other`, deepParts(n)]),
    [
      "a multipart in base64",
      withPart(
        "Content-Type: multipart/mixed; boundary=c\r\nContent-Transfer-Encoding: base64",
        base64(`--c\r\n${FILE_PART}--c--\r\n`),
      ),
    ],
    [
      "a multipart in quoted-printable",
      withPart(
        "Content-Type: multipart/mixed; boundary=c\r\nContent-Transfer-Encoding: quoted-printable",
        `--c\r\n${FILE_PART.replaceAll("=", "=3D")}--c--\r\n`,
      ),
    ],
    [
      "a multipart that is called text",
      withPart("Content-Type: text/plain; boundary=c", `--c\r\n${FILE_PART}--c--\r\n`),
    ],
    [
      "a signed message",
      message(
        'multipart/signed; protocol="application/pgp-signature"; boundary=b',
        `--b\r\n${FILE_PART}--b\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n`,
      ),
    ],
    [
      "a file among alternatives",
      message("multipart/alternative; boundary=b", `--b\r\n${TEXT_PART}--b\r\n${FILE_PART}--b--\r\n`),
    ],
    [
      "the two forks of a file",
      message(
        "multipart/appledouble; boundary=b",
        `--b\r\nContent-Type: application/applefile; name=x.js\r\n\r\nx\r\n--b\r\n${FILE_PART}--b--\r\n`,
      ),
    ],
    ["opaque S/MIME", withFile("smime.p7m", opaque(INNER), "application/pkcs7-mime; smime-type=signed-data")],
    ["opaque S/MIME, x-pkcs7-mime", withFile("smime.p7m", opaque(INNER), "application/x-pkcs7-mime")],
    ["opaque S/MIME, octet-stream", withFile("smime.p7m", opaque(INNER))],
    ["uuencode in text", message("text/plain", `see below\r\n\r\n${uuencode(HARMLESS)}`)],
    ["uuencode in text, no MIME", `Subject: a\r\n\r\nsee below\r\n\r\n${uuencode(HARMLESS)}`],
    ["uuencode at once", message("text/plain", uuencode(HARMLESS))],
    ["uuencode in a part of text", withPart("Content-Type: text/plain", uuencode(HARMLESS))],
    ["uuencode in HTML", withPart("Content-Type: text/html", uuencode(HARMLESS))],
    [
      "uuencode in a preamble",
      message("multipart/mixed; boundary=b", `${uuencode(HARMLESS)}--b\r\n${TEXT_PART}--b--\r\n`),
    ],
    [
      "uuencode in an epilogue",
      message("multipart/mixed; boundary=b", `--b\r\n${TEXT_PART}--b--\r\n${uuencode(HARMLESS)}`),
    ],
    ["uuencode, four digits", message("text/plain", uuencode(HARMLESS, "begin 0644 x.js"))],
    ["uuencode, no mode", message("text/plain", uuencode(HARMLESS, "begin x.js"))],
    ["uuencode, more space", message("text/plain", uuencode(HARMLESS, "begin  644  x.js"))],
    ["uuencode, a name with a space", message("text/plain", uuencode(HARMLESS, "begin 644 my x.js"))],
    ["uuencode, a name in quotes", message("text/plain", uuencode(HARMLESS, 'begin 644 "x.js"'))],
    ["uuencode, no end", message("text/plain", uuencode(HARMLESS).replace(/`\r\nend\r\n/, ""))],
    ["uuencode, spaces at the end", message("text/plain", uuencode(HARMLESS, "begin 644 x.js   "))],
    ["uuencode, capitals", message("text/plain", uuencode(HARMLESS, "BEGIN 644 x.js"))],
    ...[
      ["two digits", "begin 64 x.js"],
      ["five digits", "begin 06440 x.js"],
      ["six digits", "begin 100644 x.js"],
      ["other digits", "begin 888 x.js"],
      ["a plus sign", "begin +644 x.js"],
      ["a dot behind the mode", "begin 644. x.js"],
      ["hexadecimal digits", "begin 0x644 x.js"],
      ["no space behind the mode", "begin 644x.js"],
      ["no space in front of the mode", "begin644 x.js"],
      ["spaces in the mode", "begin 6 4 4 x.js"],
      ["a form feed", "begin 644\fx.js"],
      ["a vertical tab", "begin\v644 x.js"],
      ["tabs", "begin\t644\tx.js"],
      ["a no-break space", "begin\xa0644 x.js"],
    ].map(([what, begin]): [string, string] => [`uuencode, ${what}`, message("text/plain", uuencode(HARMLESS, begin))]),
    ["uuencode with CR", message("text/plain", uuencode(HARMLESS).replaceAll("\r\n", "\r"))],
    [
      "uuencode, a wrong line first",
      message("text/plain", uuencode(ZIP, "begin 644 a.dat").replace("\r\n", "\r\nABC\r\n")),
    ],
    [
      "uuencode, text within",
      message("text/plain", uuencode(ZIP, "begin 644 a.dat").replace("\r\n", "\r\nno data\r\n")),
    ],
    [
      "begin-base64, no space behind the mode",
      message("text/plain", `begin-base64 644x.js\r\n${base64(HARMLESS)}\r\n====\r\n`),
    ],
    [
      "begin-base64 and more",
      message("text/plain", `begin-base64-encoded 644 eC5qcw==\r\n${base64(HARMLESS)}\r\n====\r\n`),
    ],
    ["uuencode, behind a space", message("text/plain", uuencode(HARMLESS, " begin 644 x.js"))],
    ["uuencode, two files", message("text/plain", uuencode(HARMLESS, "begin 644 a.txt") + uuencode(HARMLESS))],
    [
      "uuencode in base64",
      message("Content-Type: text/plain\r\nContent-Transfer-Encoding: base64", base64(uuencode(HARMLESS))),
    ],
    [
      "uuencode in quoted-printable",
      message(
        "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable",
        uuencode(HARMLESS).replaceAll("=", "=3D"),
      ),
    ],
    [
      "uuencode in UTF-16",
      message(
        "Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64",
        base64(Buffer.from(`\ufeff${uuencode(HARMLESS)}`, "utf16le")),
      ),
    ],
    ["begin-base64 in text", message("text/plain", `begin-base64 644 x.js\r\n${base64(HARMLESS)}\r\n====\r\n`)],
    [
      "yEnc in text",
      message(
        "text/plain",
        `=ybegin line=128 size=${HARMLESS.length} name=x.js\r\n${yenc(HARMLESS)}\r\n=yend size=${HARMLESS.length}\r\n`,
      ),
    ],
    [
      "BinHex in text",
      message("text/plain", `(This file must be converted with BinHex 4.0)\r\n\r\n${binhex("x.js", HARMLESS)}\r\n`),
    ],
    [
      "BinHex",
      withPart(
        "Content-Type: application/mac-binhex40; name=a.hqx",
        `(This file must be converted with BinHex 4.0)\r\n\r\n${binhex("x.js", HARMLESS)}\r\n`,
      ),
    ],
    ["TNEF", withFile("winmail.dat", tnef("x.js", HARMLESS), "application/ms-tnef")],
    ["TNEF of another name", withFile("a.dat", tnef("x.js", HARMLESS))],
    [
      "TNEF in a forwarded message",
      forwarded(FORWARDED, withFile("winmail.dat", tnef("x.js", HARMLESS), "application/ms-tnef")),
    ],
    [
      "a calendar with a file",
      withPart(
        "Content-Type: text/calendar",
        `BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nATTACH;ENCODING=BASE64;VALUE=BINARY;X-FILENAME=x.js:${Buffer.from(HARMLESS).toString("base64")}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n`,
      ),
    ],
    ["a header of 100 fields and a message", forwarded(FORWARDED, `${"X: y\r\n".repeat(100)}${INNER}`)],
  ];
  return evasions("nesting", rows);
}

/** SignedData (RFC 5652) without signers, around a content. */
function opaque(content: string): Buffer {
  const der = (tag: number, ...values: Buffer[]): Buffer => {
    const value = Buffer.concat(values);
    const length =
      value.length < 128 ? Buffer.of(value.length) : Buffer.of(0x82, value.length >> 8, value.length & 255);
    return Buffer.concat([Buffer.of(tag), length, value]);
  };
  const oid = (last: number) => Buffer.from(`06092a864886f70d0107${last.toString(16).padStart(2, "0")}`, "hex");
  const inside = der(0x30, oid(1), der(0xa0, der(0x04, Buffer.from(content, "latin1"))));
  return der(0x30, oid(2), der(0xa0, der(0x30, Buffer.of(2, 1, 1), der(0x31), inside, der(0x31))));
}

function yenc(content: string): string {
  return Array.from(Buffer.from(content), (byte) => {
    const code = (byte + 42) & 255;
    return [0, 10, 13, 61].includes(code) ? `=${String.fromCharCode((code + 64) & 255)}` : String.fromCharCode(code);
  }).join("");
}

/** BinHex 4.0 (RFC 1741). */
function binhex(name: string, content: string): string {
  const sum = (bytes: Buffer) => {
    let crc = 0;
    for (const byte of Buffer.concat([bytes, Buffer.alloc(2)])) {
      for (let bit = 7; bit >= 0; bit--) {
        const high = crc & 0x8000;
        crc = ((crc << 1) | ((byte >> bit) & 1)) & 0xffff;
        if (high !== 0) crc ^= 0x1021;
      }
    }
    return Buffer.of(crc >> 8, crc & 255);
  };
  const lengths = Buffer.alloc(10);
  lengths.writeUInt32BE(content.length, 2);
  const head = Buffer.concat([Buffer.of(name.length), Buffer.from(`${name}\0TEXTttxt`), lengths]);
  const data = Buffer.from(content);
  const bytes = Buffer.concat([head, sum(head), data, sum(data), sum(Buffer.alloc(0))]);
  const digits = "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";
  let text = "";
  for (let at = 0; at < bytes.length; at += 3) {
    const group = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    for (const shift of [18, 12, 6, 0]) text += digits[(group >> shift) & 63];
  }
  return `:${text}`.replaceAll(/.{64}/g, "$&\r\n") + ":";
}

/** TNEF (MS-OXTNEF) with one attachment. */
function tnef(name: string, content: string): Buffer {
  const attribute = (level: number, id: number, data: Buffer): Buffer => {
    const head = Buffer.alloc(9);
    head[0] = level;
    head.writeUInt32LE(id, 1);
    head.writeUInt32LE(data.length, 5);
    const sum = Buffer.alloc(2);
    sum.writeUInt16LE(data.reduce((total, byte) => (total + byte) & 0xffff, 0));
    return Buffer.concat([head, data, sum]);
  };
  return Buffer.concat([
    Buffer.from("789f3e220100", "hex"),
    attribute(1, 0x00089006, Buffer.from("00000100", "hex")),
    attribute(2, 0x00069002, Buffer.from("0100ffffffff2000200000000000", "hex")),
    attribute(2, 0x00018010, Buffer.from(`${name}\0`)),
    attribute(2, 0x0006800f, Buffer.from(content)),
  ]);
}
