/**
 * What is signed or encrypted: S/MIME (RFC 8551), PGP/MIME (RFC 3156), and PGP within text (RFC 9580). An edit would break
 * it.
 */
import type { Entity } from "./structure.ts";

const MULTIPARTS: ReadonlySet<string> = new Set(["multipart/signed", "multipart/encrypted"]);
const LEAVES: ReadonlySet<string> = new Set([
  "application/pkcs7-mime",
  "application/x-pkcs7-mime",
  "application/pkcs7-signature",
  "application/x-pkcs7-signature",
  "application/pgp-encrypted",
  "application/pgp-signature",
]);

/** The part itself, by its header. */
export function isSealedByHeader({ type, names }: Entity): boolean {
  if (MULTIPARTS.has(type) || LEAVES.has(type)) return true;
  // Some programs send opaque S/MIME as a plain file (RFC 8551 3.2.1).
  return type === "application/octet-stream" && names.some((name) => /\.p7[msz]$/i.test(name));
}

/** PGP within text: a signed or an encrypted message between lines of hyphens. */
export function isSealedText(text: string): boolean {
  return text.includes("-----BEGIN PGP ") && /^-----BEGIN PGP (?:SIGNED )?MESSAGE-----[ \t]*\r?$/m.test(text);
}
