/**
 * Content-Transfer-Encodings: the content of a part as bytes, and back.
 */
import { decode, encode, wrap } from "libqp";

/** The encodings that are no encoding. */
export const IDENTITY: readonly string[] = ["7bit", "8bit", "binary"];

/** The content of a part as far as it can be read: nothing is refused. Not a copy if there is nothing to decode. */
export function decodeLeniently(raw: Uint8Array, encoding: string): Uint8Array {
  if (encoding === "quoted-printable") return decode(raw);
  if (encoding !== "base64") return raw;
  let text = latin1(raw).trimEnd();
  // Node reads "-" and "_" as digits, which mail programs do not.
  if (/[^A-Za-z0-9+/=\r\n]/.test(text)) text = text.replaceAll(/[^A-Za-z0-9+/=]/g, "");
  const padding = text.indexOf("=");
  if (padding === -1 || padding >= text.length - 2) return Buffer.from(text, "base64");
  // Some programs stop at the first padding and some read on, so this does.
  return Buffer.concat(text.split(/=+/).map((piece) => Buffer.from(piece, "base64")));
}

/** The bytes of base64 that everyone reads alike; null if it is broken. */
export function decodeBase64(raw: Uint8Array): Buffer | null {
  const text = latin1(raw).replaceAll(/[ \t\r\n]+/g, "");
  return text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text) ? Buffer.from(text, "base64") : null;
}

/** In lines of 76 characters, without a line end after the last. */
export function encodeBase64(bytes: Uint8Array): Buffer {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
  return Buffer.from(text.replaceAll(/.{76}(?=.)/g, "$&\r\n"), "latin1");
}

/** In lines of at most 76 characters; CRLF stays a line end, a lone LF becomes CRLF. */
export function encodeQuotedPrintable(bytes: Uint8Array): Buffer {
  const lines = wrap(encode(bytes)).replaceAll(/\r?\n/g, "\r\n");
  return Buffer.from(lines, "latin1");
}

export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
