/** The records of a zip archive that yauzl does not give: its end, local headers anywhere, and their fields (APPNOTE.TXT). */
import { namesOf } from "./names.ts";

export /** A bit of a file's flags. */
const ENCRYPTED = 0x01;

export const LOCAL_HEADER = Buffer.from("PK\x03\x04", "latin1");
export const DIRECTORY_HEADER = Buffer.from("PK\x01\x02", "latin1");
const END = Buffer.from("PK\x05\x06", "latin1");
const ZIP64_END = Buffer.from("PK\x06\x06", "latin1");
const ZIP64_LOCATOR = Buffer.from("PK\x06\x07", "latin1");

export const END_BYTES = 22;
const LOCATOR_BYTES = 20;
const LOCAL_BYTES = 30;
const DIRECTORY_BYTES = 46;
const MAX_COMMENT = 0xffff;

export function startsWith(bytes: Buffer, at: number, signature: Buffer): boolean {
  return at >= 0 && at + signature.length <= bytes.length && bytes.compare(signature, 0, 4, at, at + 4) === 0;
}

/** Where the last end record is, -1 if there is none. */
export function endOf(bytes: Buffer): number {
  // Only the last 64 KB can have one, and one that is cut off is none.
  const from = Math.max(0, bytes.length - END_BYTES - MAX_COMMENT);
  const last = bytes.subarray(from).lastIndexOf(END);
  return last === -1 || from + last + END_BYTES > bytes.length ? -1 : from + last;
}

/** What the end record at `at` says; a value that does not fit is all ones, and the zip64 record has it. */
export function readEnd(bytes: Buffer, at: number) {
  return {
    entries: bytes.readUInt16LE(at + 10),
    size: bytes.readUInt32LE(at + 12),
    offset: bytes.readUInt32LE(at + 16),
    commentEnd: at + END_BYTES + bytes.readUInt16LE(at + 20),
  };
}

/** The bytes that a zip64 record and its locator take in front of the end record, 0 if there are none. */
export function zip64Bytes(bytes: Buffer, end: number): number {
  const locator = end - LOCATOR_BYTES;
  if (!startsWith(bytes, locator, ZIP64_LOCATOR)) return 0;
  // The record is where the locator says, or right in front of it.
  const at = Number(bytes.readBigUInt64LE(locator + 8));
  return at < locator && startsWith(bytes, at, ZIP64_END) ? end - at : LOCATOR_BYTES;
}

/** A file as the header in front of its data says. */
export interface LocalHeader {
  readonly at: number;
  readonly flags: number;
  readonly method: number;
  readonly crc: number;
  readonly compressed: number;
  readonly rawName: Buffer;
  readonly names: readonly string[];
  readonly dataStart: number;
}

/** The local header at `at`; null if there is none, or if it is cut off. */
export function localHeader(bytes: Buffer, at: number): LocalHeader | null {
  if (!startsWith(bytes, at, LOCAL_HEADER) || at + LOCAL_BYTES > bytes.length) return null;
  const nameEnd = at + LOCAL_BYTES + bytes.readUInt16LE(at + 26);
  const dataStart = nameEnd + bytes.readUInt16LE(at + 28);
  if (nameEnd > bytes.length) return null;
  const rawName = bytes.subarray(at + LOCAL_BYTES, nameEnd);
  return {
    at,
    flags: bytes.readUInt16LE(at + 6),
    method: bytes.readUInt16LE(at + 8),
    crc: bytes.readUInt32LE(at + 14),
    compressed: bytes.readUInt32LE(at + 18),
    rawName,
    names: [...namesOf([rawName, ...unicodePaths(bytes.subarray(nameEnd, dataStart))])],
    dataStart,
  };
}

/** The name in the directory record at `at`; null if there is none, or if it is cut off. */
export function directoryName(bytes: Buffer, at: number): Buffer | null {
  if (!startsWith(bytes, at, DIRECTORY_HEADER) || at + DIRECTORY_BYTES > bytes.length) return null;
  const end = at + DIRECTORY_BYTES + bytes.readUInt16LE(at + 28);
  return end > bytes.length ? null : bytes.subarray(at + DIRECTORY_BYTES, end);
}

const UNICODE_PATH = 0x7075;

/** The names that Info-ZIP's Unicode Path fields hold, whatever their checksum: not all programs look at it. */
export function unicodePaths(extra: Buffer): Buffer[] {
  const paths: Buffer[] = [];
  for (let at = 0; at + 4 <= extra.length;) {
    const end = at + 4 + extra.readUInt16LE(at + 2);
    if (extra.readUInt16LE(at) === UNICODE_PATH && at + 9 < end) paths.push(extra.subarray(at + 9, end));
    at = end;
  }
  return paths;
}
