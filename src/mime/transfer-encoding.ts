/**
 * Content-Transfer-Encodings: the content of a part as bytes.
 */
import { decode } from "libqp";
import { latin1 } from "./buffers.ts";

/** The encodings that are no encoding. */
export const IDENTITY: readonly string[] = ["7bit", "8bit", "binary"];

/** The content is other bytes than those that stand in the message. */
export function isEncoded(encoding: string): boolean {
  return encoding === "base64" || encoding === "quoted-printable";
}

/** Mail programs read it alike. */
export function isKnownEncoding(encoding: string): boolean {
  return isEncoded(encoding) || IDENTITY.includes(encoding) || PLAIN.test(encoding);
}

/** Wrong names that no mail program decodes by. */
const PLAIN = /^(?:|[78]-?bits?|us-ascii|utf-?8|binary|none|iso-8859-\d+)$/;

/** The content of a part as far as it can be read: nothing is refused. Not a copy if there is nothing to decode. */
export function decodeLeniently(raw: Uint8Array, encoding: string): Uint8Array {
  if (encoding === "quoted-printable") return decode(raw);
  if (encoding !== "base64") return raw;
  const text = latin1(raw).trimEnd();
  // Node reads "-" and "_" as digits, which mail programs do not, and stops at padding.
  const padding = text.indexOf("=");
  const isPlain = padding === -1 || padding >= text.length - 2;
  if (isPlain && !/[^A-Za-z0-9+/=\r\n]/.test(text)) return Buffer.from(text, "base64");
  return decodeDigits(raw);
}

/** The values of the digits of base64; 0xff for all other bytes. */
const DIGITS = new Uint8Array(256).fill(0xff);
for (const [value, digit] of [
  ...Buffer.from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"),
].entries()) {
  DIGITS[digit] = value;
}
const PADDING = 0x3d;

/** Base64 in pieces that each may end with padding: some programs stop at the first padding and some read on, so this does. */
function decodeDigits(raw: Uint8Array): Buffer {
  const decoded = Buffer.allocUnsafe(Math.ceil((raw.length * 3) / 4));
  let length = 0;
  let bits = 0;
  let digits = 0;
  for (let at = 0; at <= raw.length; at++) {
    const byte = at === raw.length ? PADDING : raw[at]!;
    if (byte === PADDING) {
      // What is no whole byte is dropped.
      if (digits > 1) decoded[length++] = (bits << (24 - 6 * digits)) >> 16;
      if (digits > 2) decoded[length++] = (bits << (24 - 6 * digits)) >> 8;
      bits = 0;
      digits = 0;
      continue;
    }
    const value = DIGITS[byte]!;
    if (value === 0xff) continue;
    bits = (bits << 6) | value;
    digits += 1;
    if (digits < 4) continue;
    decoded[length++] = bits >> 16;
    decoded[length++] = bits >> 8;
    decoded[length++] = bits;
    bits = 0;
    digits = 0;
  }
  return decoded.subarray(0, length);
}
