/** The canonical forms of fields and bodies (RFC 6376 3.4): what a signature is made of. */
import { createHash } from "node:crypto";
import { piecesOf } from "./pieces.ts";

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
/** @returns the SHA-256 of a body with CRLF line ends, in base64. @param signal see `piecesOf` */
export async function bodyHash(body: Uint8Array, form: Form, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  const end = endOf(body, form);
  for await (const piece of piecesOf(body.subarray(0, end), signal)) {
    hash.update(form === "simple" ? piece : relaxed(piece));
  }
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

function relaxed(lines: Buffer): Buffer {
  const text = lines.toString("latin1");
  const changed = text.replaceAll(LOOSE, (run) => (run.endsWith("\n") ? "\r\n" : " "));
  return changed === text ? lines : Buffer.from(changed, "latin1");
}
