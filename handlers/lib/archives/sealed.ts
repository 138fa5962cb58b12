/**
 * Messages in files that cannot be looked into without a key or another program: encrypted and signed ones (CMS, RFC 5652;
 * OpenPGP, RFC 9580), and those of Outlook (MS-OXMSG).
 */
import { bufferOf } from "./archive.ts";

/** Types of content in CMS, as object identifiers; SignedData may also be a signature or certificates alone. */
const SIGNED_DATA = "2a864886f70d010702";
const SEALED_DATA = new Set([
  // EnvelopedData, DigestedData, EncryptedData, AuthenticatedData, CompressedData, AuthEnvelopedData.
  "2a864886f70d010703",
  "2a864886f70d010705",
  "2a864886f70d010706",
  "2a864886f70d0109100102",
  "2a864886f70d0109100109",
  "2a864886f70d0109100117",
]);

const [INTEGER, OBJECT_ID, SEQUENCE, SET, CONTENT] = [0x02, 0x06, 0x30, 0x31, 0xa0];
const ARMOR = /^\s*-----BEGIN (?:PKCS7|PKCS #7[^-\r\n]*|CMS)-----\s+/;

/** Whether a file begins as CMS with content in it, in BER or as text (RFC 7468). */
export function isSealedCms(head: Uint8Array): boolean {
  const bytes = bufferOf(head);
  const armor = ARMOR.exec(bytes.toString("latin1", 0, 1000));
  return isContentInfo(armor === null ? bytes : Buffer.from(bytes.toString("latin1", armor[0].length), "base64"));
}

function isContentInfo(bytes: Buffer): boolean {
  const type = valueAt(bytes, SEQUENCE, 0);
  const content = type === null ? null : valueAt(bytes, OBJECT_ID, type.start);
  if (content === null) return false;
  const id = bytes.toString("hex", content.start, content.end);
  if (SEALED_DATA.has(id)) return true;
  if (id !== SIGNED_DATA) return false;
  // The version and the digests stand in front of the content.
  let at = content.end;
  for (const tag of [CONTENT, SEQUENCE]) at = valueAt(bytes, tag, at)?.start ?? bytes.length;
  for (const tag of [INTEGER, SET]) at = valueAt(bytes, tag, at)?.end ?? bytes.length;
  const encapsulated = valueAt(bytes, SEQUENCE, at);
  const kind = encapsulated === null ? null : valueAt(bytes, OBJECT_ID, encapsulated.start);
  return kind !== null && kind.end < encapsulated!.end && bytes[kind.end] === CONTENT;
}

/** Where a value of BER begins and ends; null if another one is there. One without a length ends somewhere behind. */
function valueAt(bytes: Buffer, tag: number, at: number): { readonly start: number; readonly end: number } | null {
  if (bytes[at] !== tag || at + 2 > bytes.length) return null;
  const first = bytes[at + 1]!;
  if (first < 0x80) return { start: at + 2, end: at + 2 + first };
  const digits = first & 0x7f;
  const start = at + 2 + digits;
  if (digits > 6 || start > bytes.length) return null;
  return { start, end: digits === 0 ? Infinity : start + bytes.readUIntBE(at + 2, digits) };
}

/** Packets with a session key, one for each reader, and the packets with the message itself (RFC 9580 5). */
const KEYS = new Set([1, 3]);
const ENCRYPTED = new Set([9, 18, 20]);
const COMPRESSED = 8;
const ONE_PASS_SIGNATURE = 4;
const MAX_KEYS = 100;

/** Whether a file begins as a message of OpenPGP in binary: encrypted, compressed, or signed as a whole. */
export function isSealedPgp(head: Uint8Array): boolean {
  const bytes = bufferOf(head);
  for (let at = 0, keys = 0; keys < MAX_KEYS; keys++) {
    const packet = packetAt(bytes, at);
    if (packet === null) return false;
    const { tag, start, end } = packet;
    const version = bytes[start] ?? 0;
    if (ENCRYPTED.has(tag)) return tag === 9 ? keys > 0 : version <= 2;
    if (tag === COMPRESSED) return version >= 1 && version <= 3;
    if (tag === ONE_PASS_SIGNATURE) return (version === 3 && end - start === 13) || version === 6;
    if (!KEYS.has(tag) || version < 3 || version > 6) return false;
    // Only the beginning of the file is here.
    if (end >= bytes.length) return keys > 0;
    at = end;
  }
  return true;
}

function packetAt(
  bytes: Buffer,
  at: number,
): { readonly tag: number; readonly start: number; readonly end: number } | null {
  const first = bytes[at] ?? 0;
  const length = bytes[at + 1];
  if ((first & 0x80) === 0 || length === undefined || at + 6 > bytes.length) return null;
  if ((first & 0x40) === 0) {
    // The old form: the length takes 1, 2 or 4 bytes, or goes on to the end.
    const digits = [1, 2, 4, 0][first & 3]!;
    const start = at + 1 + digits;
    return { tag: (first >> 2) & 15, start, end: digits === 0 ? Infinity : start + bytes.readUIntBE(at + 1, digits) };
  }
  const tag = first & 63;
  if (length < 192) return { tag, start: at + 2, end: at + 2 + length };
  if (length < 224) return { tag, start: at + 3, end: at + 3 + ((length - 192) << 8) + bytes[at + 2]! + 192 };
  return length < 255
    ? { tag, start: at + 2, end: Infinity }
    : { tag, start: at + 6, end: at + 6 + bytes.readUInt32BE(at + 2) };
}

/** Whether a text has an encrypted message of OpenPGP in it. */
export function hasPgpMessage(text: Uint8Array): boolean {
  const bytes = bufferOf(text);
  for (let at = 0; (at = bytes.indexOf(PGP_MESSAGE, at)) !== -1; at += PGP_MESSAGE.length) {
    if (at === 0 || bytes[at - 1] === 0x0a || bytes[at - 1] === 0x0d) return true;
  }
  return false;
}

const PGP_MESSAGE = Buffer.from("-----BEGIN PGP MESSAGE-----");

/** A stream that each message of Outlook has (MS-OXMSG 2.4), as a compound file names it. */
const PROPERTIES = Buffer.from("__properties_version1.0", "utf16le");

/** Whether a compound file is a message of Outlook, or holds one. */
export function isOutlookMessage(file: Uint8Array): boolean {
  return bufferOf(file).includes(PROPERTIES);
}
