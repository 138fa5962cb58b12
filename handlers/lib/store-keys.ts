/** Keys of the store, made from what clients send. */
import { createHash } from "node:crypto";

/** A key has at most 512 bytes. */
const MAX_BYTES = 400;

/** A text as part of a key: itself, or a digest of it if it is too long, or holds what a key must not. */
export function asKey(text: string): string {
  if (Buffer.byteLength(text) <= MAX_BYTES && text.isWellFormed() && !text.includes("\0")) return text;
  // Code units, since bytes that are not UTF-8 are lone surrogates here.
  return `${text.slice(0, 40).toWellFormed().replaceAll("\0", "")}…${createHash("sha256").update(text, "utf16le").digest("hex")}`;
}
