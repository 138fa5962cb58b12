/**
 * Content as it is written into a message: text in a charset (RFC 2045 6.1), and bytes in a Content-Transfer-Encoding in
 * which every mail server carries them.
 */
import { isAscii } from "node:buffer";
import { bufferOf } from "./buffers.ts";
import { charsetOf, isJis } from "./charset.ts";

/** Content with the encoding that its header has to name. */
export interface EncodedContent {
  readonly bytes: Uint8Array;
  readonly encoding: string;
}

/** Text in a charset, with the charset that its header has to name. */
export interface EncodedText {
  readonly bytes: Uint8Array;
  readonly charset: string;
}

const [LF, CR, SPACE, TAB, EQUALS] = [0x0a, 0x0d, 0x20, 0x09, 0x3d];
/** SMTP carries no longer line (RFC 5321 4.5.3.1.6), its line end not counted. */
const MAX_LINE_BYTES = 998;
/** A line of base64 or quoted-printable (RFC 2045 6.7, 6.8). */
const ENCODED_LINE = 76;
const CRLF = Buffer.from("\r\n");

/** Text with CRLF at its line ends. */
export function withCrlf(text: string): string {
  return text.replaceAll(/\r\n?|\n/g, "\r\n");
}

/**
 * Text in a charset; in UTF-8 if the charset lacks a character of it, or is not known.
 * @param charset `""` for none: ASCII then needs none
 */
export function inCharset(text: string, charset: string): EncodedText {
  const bytes = encodeInto(text, charset);
  return bytes === null ? { bytes: Buffer.from(text, "utf8"), charset: "utf-8" } : { bytes, charset };
}

/** Text in a charset; null if it lacks a character of it, or is not known. */
export function encodeInto(text: string, charset: string): Buffer | null {
  const bytes = Buffer.from(text, "utf8");
  const name = charset.toLowerCase();
  if (/^utf-?8$/.test(name)) return bytes;
  // Programs differ in what 8-bit bytes of ASCII mean.
  if (/^(?:us-ascii|ascii|ansi_x3\.4-1968|)$/.test(name)) return isAscii(bytes) ? bytes : null;
  const known = charsetOf(charset);
  if (known === null) return null;
  if (isAscii(bytes)) return bytes;
  // ISO 8859-1 has no characters from 0x80 to 0x9f, but most programs read those of windows-1252 there.
  // oxlint-disable-next-line no-control-regex
  if (/^(?:iso[-_]?8859[-_]?1|latin-?1|l1|cp819|ibm819)$/.test(name)) {
    return /[^\0-\x7f\xa0-\xff]/.test(text) ? null : Buffer.from(text, "latin1");
  }
  return isJis(name) ? null : known.encode(text);
}

/**
 * Content in a Content-Transfer-Encoding: the present one where it carries these bytes.
 * @param encoding the present encoding, in lower case
 * @param kind `text` becomes quoted-printable where it needs an encoding, or base64 where it is long and that is shorter;
 * `file` becomes base64; a `message` has none (RFC 2046 5.2.1)
 * @param boundaries of the multiparts around it: no line of it may look like one
 */
export function encodeContent(
  content: Uint8Array,
  encoding: string,
  kind: "text" | "file",
  boundaries: readonly string[],
): EncodedContent {
  const isMarked = hasBoundary(content, boundaries);
  if (!isMarked) {
    if (encoding === "quoted-printable") return { bytes: encodeQuotedPrintable(content), encoding };
    if (encoding !== "base64" && kind === "text") {
      const isEightBit = encoding === "8bit" || encoding === "binary";
      if (areLines(content) && (isEightBit || isAscii(content))) {
        return { bytes: content, encoding: isEightBit ? "8bit" : "7bit" };
      }
      if (!isDense(content)) return { bytes: encodeQuotedPrintable(content), encoding: "quoted-printable" };
    }
  }
  return { bytes: encodeBase64(content), encoding: "base64" };
}

/** A shorter text stays readable where its ASCII is. */
const MAX_READABLE = 64 * 1024;

/** Whether text is long, and shorter in base64: in quoted-printable a byte beyond ASCII takes three. */
function isDense(text: Uint8Array): boolean {
  if (text.length <= MAX_READABLE) return false;
  let beyond = 0;
  for (let at = 0; at < text.length; at++) if (text[at]! >= 0x80) beyond += 1;
  return beyond > text.length / 6;
}

/** Whether every mail server carries these bytes as lines, but for the eighth bit: CRLF, no NUL, no line that is too long. */
export function areLines(bytes: Uint8Array): boolean {
  if (bytes.includes(0)) return false;
  let start = 0;
  for (let at = bytes.indexOf(LF); at !== -1; at = bytes.indexOf(LF, at + 1)) {
    if (at === 0 || bytes[at - 1] !== CR || at - 1 - start > MAX_LINE_BYTES) return false;
    start = at + 1;
  }
  if (bytes.length - start > MAX_LINE_BYTES) return false;
  for (let at = bytes.indexOf(CR); at !== -1; at = bytes.indexOf(CR, at + 1)) if (bytes[at + 1] !== LF) return false;
  return true;
}

/** Whether a line begins like a delimiter of one of these boundaries. */
export function hasBoundary(bytes: Uint8Array, boundaries: readonly string[]): boolean {
  if (boundaries.length === 0) return false;
  const buffer = bufferOf(bytes);
  return boundaries.some((boundary) => {
    const needle = Buffer.from(`--${boundary}`, "latin1");
    for (let at = buffer.indexOf(needle); at !== -1; at = buffer.indexOf(needle, at + 1)) {
      if (at === 0 || buffer[at - 1] === LF || buffer[at - 1] === CR) return true;
    }
    return false;
  });
}

/** In lines of 76 characters, without a line end after the last. */
export function encodeBase64(bytes: Uint8Array): Buffer {
  const text = bufferOf(bytes).toString("base64");
  const lines = Math.ceil(text.length / ENCODED_LINE);
  if (lines <= 1) return Buffer.from(text, "latin1");
  const digits = Buffer.from(text, "latin1");
  const encoded = Buffer.allocUnsafe(text.length + (lines - 1) * CRLF.length);
  let to = 0;
  for (let from = 0; from < digits.length; from += ENCODED_LINE) {
    if (from > 0) {
      encoded[to++] = CR;
      encoded[to++] = LF;
    }
    to += digits.copy(encoded, to, from, from + ENCODED_LINE);
  }
  return encoded;
}

/** So many bytes are encoded at a time: each takes at most three, and some room for line ends. */
const BLOCK = 64 * 1024;
const HEX = Buffer.from("0123456789ABCDEF");

/** In lines of at most 76 characters. CRLF stays a line end; CR and LF that stand alone are encoded. */
export function encodeQuotedPrintable(bytes: Uint8Array): Buffer {
  const blocks: Buffer[] = [];
  let column = 0;
  for (let start = 0; start < bytes.length; start += BLOCK) {
    const end = Math.min(bytes.length, start + BLOCK);
    const block = Buffer.allocUnsafe((end - start) * 4);
    let to = 0;
    for (let at = start; at < end; at++) {
      const byte = bytes[at]!;
      // The two bytes of a line end may be in two blocks.
      if (byte === CR && bytes[at + 1] === LF) continue;
      if (byte === LF && at > 0 && bytes[at - 1] === CR) {
        block[to++] = CR;
        block[to++] = LF;
        column = 0;
        continue;
      }
      const isAtEnd = at + 1 === bytes.length || (bytes[at + 1] === CR && bytes[at + 2] === LF);
      const isLiteral = byte === SPACE || byte === TAB ? !isAtEnd : byte > SPACE && byte < 0x7f && byte !== EQUALS;
      const width = isLiteral ? 1 : 3;
      // The last column is for the `=` of a line that goes on.
      if (column + width > ENCODED_LINE - (isAtEnd ? 0 : 1)) {
        block[to++] = EQUALS;
        block[to++] = CR;
        block[to++] = LF;
        column = 0;
      }
      if (isLiteral) block[to++] = byte;
      else {
        block[to++] = EQUALS;
        block[to++] = HEX[byte >> 4]!;
        block[to++] = HEX[byte & 15]!;
      }
      column += width;
    }
    blocks.push(block.subarray(0, to));
  }
  return Buffer.concat(blocks);
}

/**
 * The place in quoted-printable content where the byte `at` of what it stands for is written; null where a decoder may
 * read it in another way.
 */
export function placeInQuotedPrintable(raw: Uint8Array, at: number): number | null {
  let decoded = 0;
  let broken = -3;
  for (let from = 0; from <= raw.length;) {
    // Not within an `=` that stands for nothing: with other bytes behind it, it may stand for something.
    if (decoded === at) return from < broken + 3 ? null : from;
    const byte = raw[from];
    if (byte === EQUALS) {
      const end = lineEndAfter(raw, from + 1);
      if (end !== null) from = end;
      else {
        const hex = String.fromCharCode(raw[from + 1] ?? 0, raw[from + 2] ?? 0);
        const isBroken = !/^[0-9a-f]{2}$/i.test(hex);
        if (isBroken) broken = from;
        from += isBroken ? 1 : 3;
        decoded += 1;
      }
      continue;
    }
    // White space at the end of a line is dropped.
    if (byte === SPACE || byte === TAB) {
      const end = spaceEnd(raw, from);
      if (end === raw.length || raw[end] === LF || (raw[end] === CR && raw[end + 1] === LF)) {
        from = end;
        continue;
      }
    }
    from += 1;
    decoded += 1;
  }
  return null;
}

function spaceEnd(raw: Uint8Array, from: number): number {
  let at = from;
  while (raw[at] === SPACE || raw[at] === TAB) at += 1;
  return at;
}

/** The end of a line of which only white space is left; null if there is more. */
function lineEndAfter(raw: Uint8Array, from: number): number | null {
  const at = spaceEnd(raw, from);
  if (raw[at] === LF) return at + 1;
  if (raw[at] === CR && raw[at + 1] === LF) return at + 2;
  return at === raw.length ? at : null;
}
