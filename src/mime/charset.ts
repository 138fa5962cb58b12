/**
 * Charsets of text parts: which charsets can be added to without changing the bytes before, and text to bytes and back.
 */
import { isUtf8 } from "node:buffer";
import { bufferOf } from "./buffers.ts";
import { decoder, iconv, libmime, NO_CHARSETS } from "./libraries.ts";

export interface Charset {
  readonly name: string;
  /** Bytes for a text; null if the charset lacks a character of it. */
  encode(text: string): Buffer | null;
  /** Text of bytes; null if they are not in this charset. */
  decode(bytes: Uint8Array): string | null;
}

const PRINTABLE = Buffer.from(Array.from({ length: 95 }, (_, index) => 0x20 + index));

export function isAscii(text: string): boolean {
  // oxlint-disable-next-line no-control-regex
  return /^[\0-\x7f]*$/.test(text);
}

/** iso-2022-jp and its relatives: ASCII, until an escape sequence switches to another set. */
export function isJis(name: string): boolean {
  return /^iso-2022-jp/i.test(name);
}

/** A charset in which ASCII text is the same bytes; null if it is not known, or is another kind (UTF-16, UTF-7, EBCDIC). */
export function charsetOf(name: string): Charset | null {
  if (isUtf8Name(name)) return UTF8;
  if (isJis(name)) return { name, encode: asciiOnly, decode: whole((bytes) => decoder().decode(bytes, name)) };
  const known = iconv().encodingExists(name) ? name : libmime().normalizeCharset(name);
  if (!iconv().encodingExists(known) || !iconv().encode(PRINTABLE.toString(), known).equals(PRINTABLE)) return null;
  if (isUtf8Name(known)) return UTF8;
  return {
    name,
    encode(text) {
      const bytes = iconv().encode(text, known);
      return iconv().decode(bytes, known) === text ? bytes : null;
    },
    decode: whole((bytes) => iconv().decode(bytes, known)),
  };
}

function isUtf8Name(name: string): boolean {
  return /^utf-?8$/i.test(name);
}

export const UTF8: Charset = {
  name: "utf-8",
  encode: (text) => Buffer.from(text, "utf8"),
  decode: (bytes) => (isUtf8(bytes) ? Buffer.from(bytes).toString("utf8") : null),
};

function asciiOnly(text: string): Buffer | null {
  return isAscii(text) ? Buffer.from(text, "latin1") : null;
}

/**
 * Text of bytes, whatever they are: those that are not in the charset become U+FFFD. A charset that is missing or not
 * known is read as UTF-8, and if the bytes are no UTF-8 as windows-1252.
 */
export function decodeCharset(bytes: Uint8Array, name: string): string {
  const buffer = bufferOf(bytes);
  if (isUtf8Name(name)) return buffer.toString("utf8");
  const isKnownName = isKnown(name);
  if (!isKnownName && isUtf8(buffer)) return buffer.toString("utf8");
  return decoder().decode(buffer, isKnownName ? name : "windows-1252");
}

/** US-ASCII is not: mail that names it, and has other bytes, was written by a program that did not look. */
function isKnown(name: string): boolean {
  if (name === "" || NO_CHARSETS.test(name) || /^(?:us-)?ascii$/i.test(name)) return false;
  if (isJis(name) || /^jis|^x?-?euc-?jp/i.test(name)) return true;
  return iconv().encodingExists(libmime().normalizeCharset(name));
}

/** Bytes that have no character become U+FFFD in a decoder: then the text is not whole. */
function whole(decode: (bytes: Buffer) => string): (bytes: Uint8Array) => string | null {
  return (bytes) => {
    const text = decode(bufferOf(bytes));
    return text.includes("\ufffd") ? null : text;
  };
}
