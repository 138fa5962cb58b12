/** The file in a gzip archive (RFC 1952), and the files of other programs that compress one file. */
import { createGunzip } from "node:zlib";
import { bufferOf, type Entry } from "./archive.ts";
import { inflate } from "./inflate.ts";
import { namesOf } from "./names.ts";

const FEXTRA = 0x04;
const FNAME = 0x08;
/** A name is looked for up to here. */
const MAX_HEADER = 0xffff + 4096;

/** @param names of the archive: programs take the name of the file from it, or from the archive's header */
export function gzipEntry(archive: Uint8Array, names: readonly string[]): Entry {
  const bytes = bufferOf(archive);
  return {
    names: [...new Set([...names.map(unpackedName), ...nameIn(bytes)])],
    isEncrypted: false,
    read: (most) => inflate(createGunzip(), bytes, most),
  };
}

/** What programs call the file in `setup.exe.gz`. */
export function unpackedName(name: string): string {
  return name
    .replace(/\.(tgz|taz|tbz2?|tb2|tz2|txz|tlz|tzst)$/i, ".tar")
    .replace(/\.(?:gz|gzip|z|bz2?|bzip2|xz|lzma|lz|zst|lz4|lzo|br)$/i, "");
}

function nameIn(bytes: Buffer): Iterable<string> {
  const flags = bytes[3] ?? 0;
  if ((flags & FNAME) === 0) return [];
  let at = 10;
  if ((flags & FEXTRA) !== 0) at += 2 + (at + 2 <= bytes.length ? bytes.readUInt16LE(at) : 0);
  const end = bytes.subarray(0, MAX_HEADER).indexOf(0, at);
  return end <= at ? [] : namesOf([bytes.subarray(at, end)]);
}
