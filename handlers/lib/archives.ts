/**
 * The files in an archive: their names, whether they are encrypted, and their content as far as the caller asks for it.
 * zip, tar and gzip are read; other archives are only recognised. Only the files asked for are unpacked, and no more
 * bytes than allowed: the sizes that an archive states are not believed.
 */
import { isUtf8 } from "node:buffer";
import type { Transform } from "node:stream";
import { createGunzip, createInflateRaw } from "node:zlib";
import { fileTypeFromBuffer } from "file-type";

export interface Entry {
  /** All names that programs might take. */
  readonly names: readonly string[];
  readonly isEncrypted: boolean;
  /** The first `most` bytes of it, or all if there are fewer; null if it cannot be read. */
  read(most: number): Promise<Uint8Array | null>;
}

export const ZIP = "application/zip";
export const GZIP = "application/gzip";
export const TAR = "application/x-tar";
const TNEF = "application/ms-tnef";

/** Archives whose files are not listed here. */
export const UNLISTED: ReadonlyMap<string, string> = new Map([
  ["application/x-7z-compressed", "7z"],
  ["application/x-rar-compressed", "rar"],
  ["application/x-bzip2", "bzip2"],
  ["application/x-xz", "xz"],
  ["application/zstd", "zstd"],
  ["application/x-lzip", "lzip"],
  ["application/x-compress", "compress"],
  ["application/x-arj", "arj"],
  ["application/x-lzh-compressed", "lzh"],
  ["application/x-ace-compressed", "ace"],
  ["application/vnd.ms-cab-compressed", "cab"],
  [TNEF, "winmail.dat"],
]);

/** So many bytes decide the type of a file. */
export const HEAD_BYTES = 8192;

/** The type of a file by its first bytes; `""` if they do not tell. */
export async function typeOf(head: Uint8Array): Promise<string> {
  // The library would look into these two: that is done here, within limits.
  if (startsWith(head, [0x50, 0x4b, 0x03, 0x04]) || startsWith(head, [0x50, 0x4b, 0x05, 0x06])) return ZIP;
  if (startsWith(head, [0x1f, 0x8b])) return GZIP;
  if (startsWith(head, [0x78, 0x9f, 0x3e, 0x22])) return TNEF;
  return (await fileTypeFromBuffer(head.subarray(0, HEAD_BYTES)))?.mime ?? "";
}

/** The files in an archive of a type that is read; null if it is broken. */
export function entriesOf(type: string, archive: Uint8Array, names: readonly string[]): Iterable<Entry> | null {
  const bytes = Buffer.from(archive.buffer, archive.byteOffset, archive.byteLength);
  if (type === ZIP) return zipEntries(bytes);
  if (type === TAR) return tarEntries(bytes);
  return [{ names: names.map(nameInGzip), isEncrypted: false, read: (most) => inflate(createGunzip(), bytes, most) }];
}

// ---- zip (APPNOTE.TXT) ----

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const LOCAL_ENTRY = 0x04034b50;
const END_BYTES = 22;
const MAX_COMMENT = 0xffff;

function zipEntries(bytes: Buffer): Iterable<Entry> | null {
  const from = Math.max(0, bytes.length - END_BYTES - MAX_COMMENT);
  const end = bytes.lastIndexOf(Buffer.from("PK\x05\x06", "latin1"));
  if (end < from || end + END_BYTES > bytes.length || bytes.readUInt32LE(end) !== END_OF_DIRECTORY) return null;
  const size = bytes.readUInt32LE(end + 12);
  const start = end - size;
  // Bytes in front of the archive, such as a program that unpacks it, move all offsets.
  const shift = start - bytes.readUInt32LE(end + 16);
  if (start < 0 || shift < 0) return null;
  return directoryEntries(bytes, start, end, shift);
}

function* directoryEntries(bytes: Buffer, start: number, end: number, shift: number): Generator<Entry> {
  let at = start;
  while (at + 46 <= end && bytes.readUInt32LE(at) === DIRECTORY_ENTRY) {
    const flags = bytes.readUInt16LE(at + 8);
    const method = bytes.readUInt16LE(at + 10);
    const compressed = bytes.readUInt32LE(at + 20);
    const nameLength = bytes.readUInt16LE(at + 28);
    const local = bytes.readUInt32LE(at + 42) + shift;
    const names = [textOf(bytes.subarray(at + 46, at + 46 + nameLength))];
    at += 46 + nameLength + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);

    let data: Buffer | null = null;
    if (local + 30 <= start && bytes.readUInt32LE(local) === LOCAL_ENTRY) {
      const nameEnd = local + 30 + bytes.readUInt16LE(local + 26);
      // Programs differ in which of the two names they take.
      const name = textOf(bytes.subarray(local + 30, nameEnd));
      if (!names.includes(name)) names.push(name);
      const dataStart = nameEnd + bytes.readUInt16LE(local + 28);
      if (dataStart + compressed <= start) data = bytes.subarray(dataStart, dataStart + compressed);
    }
    yield {
      names,
      isEncrypted: (flags & 1) !== 0,
      async read(most) {
        if (data === null) return null;
        if (method === 0) return data.subarray(0, most);
        return method === 8 ? inflate(createInflateRaw(), data, most) : null;
      },
    };
  }
}

function textOf(bytes: Buffer): string {
  return bytes.toString(isUtf8(bytes) ? "utf8" : "latin1");
}

// ---- tar (POSIX ustar, pax, GNU) ----

const BLOCK = 512;

function* tarEntries(bytes: Buffer): Generator<Entry> {
  let longName = "";
  for (let at = 0; at + BLOCK <= bytes.length && bytes[at] !== 0;) {
    const size = tarNumber(bytes.subarray(at + 124, at + 136));
    if (size === null) return;
    const data = bytes.subarray(at + BLOCK, at + BLOCK + size);
    const kind = String.fromCharCode(bytes[at + 156]!);
    const name = cString(bytes.subarray(at, at + 100));
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
    if (kind === "L") longName = cString(data);
    else if (kind === "x") longName = /^\d+ path=(.*)$/m.exec(textOf(data.subarray(0, MAX_COMMENT)))?.[1] ?? longName;
    else if (kind !== "K" && kind !== "g") {
      const names = longName === "" ? [name] : [longName, name];
      longName = "";
      yield { names, isEncrypted: false, read: async (most) => data.subarray(0, most) };
    }
  }
}

/** Octal digits, or with the first bit set a big-endian number (GNU). */
function tarNumber(field: Buffer): number | null {
  if ((field[0]! & 0x80) !== 0) return field.readUIntBE(6, 6);
  const digits = field.toString("latin1").replaceAll(/[\0 ]/g, "");
  return /^[0-7]*$/.test(digits) ? Number.parseInt(digits || "0", 8) : null;
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return textOf(end === -1 ? bytes : bytes.subarray(0, end));
}

// ---- gzip ----

function nameInGzip(name: string): string {
  return name.replace(/\.tgz$/i, ".tar").replace(/\.gz$/i, "");
}

/** The first `most` bytes of the uncompressed content; bytes before an error count. */
async function inflate(stream: Transform, data: Uint8Array, most: number): Promise<Uint8Array | null> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    stream.end(data);
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length >= most) break;
    }
  } catch {
    if (length === 0) return null;
  } finally {
    stream.destroy();
  }
  return Buffer.concat(chunks).subarray(0, most);
}

function startsWith(bytes: Uint8Array, start: readonly number[]): boolean {
  return start.every((byte, index) => bytes[index] === byte);
}
