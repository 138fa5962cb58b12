/** The canonical forms of fields and bodies (RFC 6376 3.4): what a signature is made of. */
import { createHash } from "node:crypto";

export const CANONICALIZATIONS = ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"] as const;
export type Canonicalization = (typeof CANONICALIZATIONS)[number];
export type Form = "relaxed" | "simple";

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

const [LF, CR, SPACE, TAB] = [0x0a, 0x0d, 0x20, 0x09];
const CRLF = Buffer.from("\r\n");
/** Bytes that are read at a time: a large body is not kept a second time. */
const PIECE_BYTES = 1024 * 1024;

/** @returns the SHA-256 of a body with CRLF line ends, in base64 */
export function bodyHash(body: Uint8Array, form: Form): string {
  const hash = createHash("sha256");
  const end = endOf(body, form);
  if (form === "simple") hash.update(body.subarray(0, end));
  else relaxed(body.subarray(0, end), (bytes) => hash.update(bytes));
  // The simple form of an empty body is a line end (RFC 6376 3.4.3), the relaxed form is nothing (3.4.4).
  if (end > 0 || form === "simple") hash.update(CRLF);
  return hash.digest("base64");
}

/** Where the last line that is not empty ends; relaxed without the white space behind it. */
function endOf(body: Uint8Array, form: Form): number {
  let end = body.length;
  for (;;) {
    let at = end;
    if (form === "relaxed") while (at > 0 && (body[at - 1] === SPACE || body[at - 1] === TAB)) at -= 1;
    if (at < 2 || body[at - 1] !== LF || body[at - 2] !== CR) return at;
    end = at - 2;
  }
}

/** White space that is not a single space within a line. A run is matched from its beginning, as a whole. */
const LOOSE = /[ \t](?:[ \t]+(?:\r\n)?|\r\n)|\t/g;

function relaxed(body: Uint8Array, take: (bytes: Buffer) => void): void {
  const buffer = Buffer.from(body.buffer, body.byteOffset, body.length);
  for (let start = 0; start < buffer.length;) {
    const end = pieceEnd(buffer, start);
    const text = buffer.toString("latin1", start, end);
    const changed = text.replaceAll(LOOSE, (run) => (run.endsWith("\n") ? "\r\n" : " "));
    take(changed === text ? buffer.subarray(start, end) : Buffer.from(changed, "latin1"));
    start = end;
  }
}

/** Behind a line end, where a piece without one would cut white space. */
function pieceEnd(buffer: Buffer, start: number): number {
  if (buffer.length - start <= PIECE_BYTES) return buffer.length;
  const last = buffer.lastIndexOf(LF, start + PIECE_BYTES - 1);
  if (last > start) return last + 1;
  const next = buffer.indexOf(LF, start);
  return next === -1 ? buffer.length : next + 1;
}
