/** The canonical forms of fields and bodies (RFC 6376 3.4): what a signature is made of. */
import { CanonicalBody, type Form } from "../dkim/canonical-body.ts";
import { piecesOf } from "./pieces.ts";

export const CANONICALIZATIONS = ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"] as const;
export type Canonicalization = (typeof CANONICALIZATIONS)[number];

/** The forms of header and body. */
export function formsOf(canonicalization: Canonicalization): { readonly header: Form; readonly body: Form } {
  const [header, body] = canonicalization.split("/") as [Form, Form];
  return { header, body };
}

/** A header field, one character for each byte. */
export interface Field {
  readonly name: string;
  /** What follows the colon, without the line end at the end; lines are separated by CRLF. */
  readonly raw: string;
}

/** A field without the CRLF at its end (RFC 6376 3.4.1, 3.4.2). */
export function canonicalField({ name, raw }: Field, form: Form): string {
  if (form === "simple") return `${name}:${raw}`;
  return `${name.toLowerCase()}:${relaxedValue(raw)}`;
}

export function relaxedValue(raw: string): string {
  return raw
    .replaceAll("\r\n", "")
    .replaceAll(/[ \t]+/g, " ")
    .replaceAll(/^ | $/g, "");
}

/** @returns the SHA-256 of a body with CRLF line ends, in base64. @param signal see `piecesOf` */
export async function bodyHash(body: Uint8Array, form: Form, signal: AbortSignal): Promise<string> {
  const canonical = new CanonicalBody(form);
  const hash = canonical.hash("sha256", "");
  for await (const piece of piecesOf(body, signal)) canonical.write(piece);
  return hash.digest("base64");
}
