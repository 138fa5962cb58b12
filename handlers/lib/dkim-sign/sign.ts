/** Signatures as header fields: DKIM-Signature (RFC 6376 3.5, RFC 8463), ARC-Message-Signature and ARC-Seal (RFC 8617 4.1). */
import { createHash, sign } from "node:crypto";
import type { Form } from "../dkim/canonical-body.ts";
import { canonicalField, type Field } from "./canonical.ts";
import type { PrivateKey } from "./keys.ts";

/** The tags of a signature in order, all but `b`. */
export type Tags = readonly (readonly [name: string, value: string])[];

const CRLF = "\r\n";
/** A line of a field, its line end not counted (RFC 5322 2.1.1). */
const LINE = 76;

/**
 * A field that signs others and itself.
 * @param signed canonical, without CRLF at their ends, in the order in which they are hashed
 * @returns its value, lines separated by LF, each but the first beginning with a tab
 */
export function signatureField(
  name: string,
  tags: Tags,
  signed: readonly string[],
  form: Form,
  privateKey: PrivateKey,
): string {
  const unsigned = `${folded(`${name}: `.length, tags)};\n\tb=`;
  const own = canonicalField({ name, raw: ` ${unsigned.replaceAll("\n", CRLF)}` }, form);
  const data = Buffer.from([...signed, own].join(CRLF), "latin1");
  return unsigned + brokenBase64(signatureOf(data, privateKey).toString("base64"));
}

function signatureOf(data: Buffer, { algorithm, key }: PrivateKey): Buffer {
  if (algorithm === "rsa-sha256") return sign("sha256", data, key);
  // RFC 8463 3: Ed25519 signs the hash.
  return sign(null, createHash("sha256").update(data).digest(), key);
}

/** @param used characters in front of the first tag */
function folded(used: number, tags: Tags): string {
  let text = "";
  let column = used;
  for (const [at, [name, value]] of tags.entries()) {
    const isFirst = at === 0;
    // A list of names is broken behind colons, where white space has no meaning.
    const pieces = name === "h" ? value.split(/(?<=:)/) : [value];
    for (const [index, piece] of pieces.entries()) {
      const word = index === 0 ? `${name}=${piece}` : piece;
      const gap = isFirst || index > 0 ? "" : "; ";
      // One more for the semicolon behind it.
      if (column + gap.length + word.length + 1 > LINE && !isFirst) {
        text += `${gap.trim()}\n\t${word}`;
        column = 1 + word.length;
      } else {
        text += gap + word;
        column += gap.length + word.length;
      }
    }
  }
  return text;
}

/** Base64 in lines, the first of them behind `b=`. */
function brokenBase64(text: string): string {
  return text.replaceAll(/.{72}(?=.)/g, "$&\n\t");
}

/** The names of signed fields, as `h` has them, and the fields in canonical form. */
export interface SignedFields {
  readonly names: readonly string[];
  readonly canonical: readonly string[];
}

/**
 * @param fields in the order of the message
 * @param isSigned whether a field is signed
 * @param absent names that no further field may have: each stands once more than it is there
 */
export function signedFields(
  fields: readonly Field[],
  form: Form,
  isSigned: (field: Field) => boolean,
  absent: readonly string[],
): SignedFields {
  // Verifiers take fields of one name from the last to the first (RFC 6376 5.4.2).
  const signed = fields.filter(isSigned).toReversed();
  return {
    names: [...signed.map(({ name }) => name), ...absent],
    canonical: signed.map((field) => canonicalField(field, form)),
  };
}
