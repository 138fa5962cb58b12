/** Messages at random: sound ones, odd ones and damaged ones, as text with a character for each byte. */
import { encodeBase64, encodeQuotedPrintable } from "../../src/mime/encode.ts";
import type { Random } from "../protocol/random.ts";

const BOUNDARIES = ["b", "bb", "b--", "--b", "a b", "b'c", "=_x", "", "b\xe4", "B", "x".repeat(80)];
const ENDS = ["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n"];
const LINES = [
  "X: y",
  "X Y: z",
  ": z",
  "nonsense",
  " folded",
  "\t",
  "From a@b",
  "X\0: y",
  "\xef\xbb\xbfX: y",
  "--",
  "--b",
];
const NAMES = [
  "a.txt",
  "x.js",
  "=?utf-8?Q?=C3=A4=2Ejs?=",
  "a\0b",
  "C:\\x.js",
  "",
  "x".repeat(400),
  "\xc3\xa4",
  "=?utf-8?B?4?=",
];
const TEXTS = [
  "",
  "hello\r\n",
  "a\r\nb\r\n",
  "http://a.test/ b",
  "<p>a <a href=http://b.test>b</a>",
  "=3D =\r\nx",
  "\xe4\xf6",
  "\xc3\xa4\r\n",
];
const HTML = [
  "<html><body>a</body></html>",
  "<p>a",
  "<!-- </body> --><b>a</b></body>",
  "<style>p{}</style><p>\xc3\xa4</p>",
  "",
];
const CHARSETS = ["utf-8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16", "utf-7", "iso-2022-jp", "nonsense", ""];
const TYPES = [
  "text/plain",
  "text/html",
  "image/png",
  "application/octet-stream",
  "text/*",
  "nonsense",
  "",
  "message/partial",
  "application/pkcs7-mime",
];
const MULTIPARTS = ["mixed", "alternative", "related", "digest", "signed", "report", "*", "", "x-other", "encrypted"];
const ENCODINGS = ["7bit", "8bit", "binary", "base64", "quoted-printable", "BASE64 (c)", "nonsense", "x-uuencode", ""];

/** A message; a third of them are sound. */
export function anyMessage(random: Random): Buffer {
  const isSound = random.chance(0.3);
  const text = `Subject: ${isSound ? "a" : random.pick(NAMES)}\r\nMIME-Version: 1.0\r\n${entity(random, 0, isSound)}`;
  return isSound ? Buffer.from(text, "latin1") : damagedText(random, text);
}

/** A header and its content. */
function entity(random: Random, depth: number, isSound: boolean): string {
  if (depth < 5 && random.chance(depth === 0 ? 0.8 : 0.3)) return multipart(random, depth, isSound);
  if (depth < 5 && random.chance(0.1))
    return `Content-Type: message/rfc822\r\n\r\n${entity(random, depth + 1, isSound)}`;
  return leaf(random, isSound);
}

function multipart(random: Random, depth: number, isSound: boolean): string {
  const boundary = isSound ? `b${depth}.${random.below(1000)}` : random.pick(BOUNDARIES);
  const subtype = isSound ? random.pick(["mixed", "alternative", "related"]) : random.pick(MULTIPARTS);
  const given =
    isSound || random.chance(0.8) ? `"${boundary}"` : random.pick(["b", `"b`, "b(c)", `"a\r\n b"`, "x; boundary=b"]);
  const parts = Array.from({ length: isSound ? 1 + random.below(4) : random.below(5) }, () =>
    entity(random, depth + 1, isSound),
  );
  const end = isSound || random.chance(0.8) ? `--${boundary}--${random.pick(["", "\r\n", "\r\nepilogue\r\n"])}` : "";
  const preamble = random.pick(["", "", "preamble\r\n", "\r\n"]);
  const odd = isSound ? "" : oddLines(random);
  return `${odd}Content-Type: multipart/${subtype}; boundary=${given}\r\n\r\n${preamble}${parts.map((part) => `--${boundary}\r\n${part}\r\n`).join("")}${end}`;
}

function leaf(random: Random, isSound: boolean): string {
  const type = isSound ? random.pick(TYPES.slice(0, 4)) : random.pick(TYPES);
  const charset = isSound ? "utf-8" : random.pick(CHARSETS);
  const encoding = isSound ? random.pick(["7bit", "base64", "quoted-printable"]) : random.pick(ENCODINGS);
  const name = isSound ? "a.txt" : random.pick(NAMES);
  const header = [
    ...(random.chance(0.9)
      ? [`Content-Type: ${type}; charset=${charset}${random.pick(["", `; name="${name}"`])}`]
      : []),
    ...(random.chance(0.8) ? [`Content-Transfer-Encoding: ${encoding}`] : []),
    ...(random.chance(0.5)
      ? [`Content-Disposition: ${random.pick(["attachment", "inline"])}; filename="${name}"`]
      : []),
  ];
  if (isSound && encoding !== "7bit" && !header.some((line) => line.includes(encoding))) {
    header.push(`Content-Transfer-Encoding: ${encoding}`);
  }
  const content =
    type === "text/html" ? random.pick(HTML) : isSound ? random.pick(TEXTS.slice(0, 4)) : random.pick(TEXTS);
  const bytes = Buffer.from(
    isSound && encoding === "7bit" ? content.replaceAll(/[^\0-\x7f]/g, "?") : content,
    "latin1",
  );
  const odd = isSound ? "" : oddLines(random);
  return `${odd}${header.join("\r\n")}${header.length > 0 ? "\r\n" : ""}\r\n${encoded(bytes, encoding)}`;
}

function encoded(bytes: Buffer, encoding: string): string {
  if (/^base64/i.test(encoding)) return encodeBase64(bytes).toString("latin1");
  return encoding === "quoted-printable" ? encodeQuotedPrintable(bytes).toString("latin1") : bytes.toString("latin1");
}

function oddLines(random: Random): string {
  return random.chance(0.2) ? `${random.pick(LINES)}\r\n` : "";
}

/** Line ends exchanged, pieces lost and doubled, single bytes changed. */
function damagedText(random: Random, text: string): Buffer {
  let changed = text;
  if (random.chance(0.3)) {
    const end = random.pick(ENDS);
    changed = changed.replaceAll("\r\n", () => (random.chance(0.3) ? end : "\r\n"));
  }
  if (random.chance(0.2)) {
    const [from, to] = [random.below(changed.length + 1), random.below(changed.length + 1)];
    changed = changed.slice(0, Math.max(from, to)) + changed.slice(Math.min(from, to));
  }
  if (random.chance(0.2)) changed = changed.slice(0, random.below(changed.length + 1));
  const bytes = Buffer.from(changed, "latin1");
  for (let left = random.pick([0, 0, 0, 1, 3]); left > 0 && bytes.length > 0; left--) {
    bytes[random.below(bytes.length)] = random.pick([0, 9, 10, 13, 32, 34, 40, 45, 58, 59, 61, random.below(256)]);
  }
  return bytes;
}
