/** The types of files by their first bytes, and the archives among them: read here, or only recognised. */
import { fileTypeFromBuffer } from "file-type";
import { bufferOf, type Entry, type Tell } from "./archive.ts";
import { gzipEntry, unpackedName } from "./gzip.ts";
import { isOutlookMessage, isSealedCms, isSealedPgp } from "./sealed.ts";
import { isTar, tarEntries } from "./tar.ts";
import { isTnef, tnefEntries } from "./tnef.ts";
import { hasDirectory, zipEntries } from "./zip.ts";

const ZIP = "application/zip";
const GZIP = "application/gzip";
const TAR = "application/x-tar";
const TNEF = "application/ms-tnef";

/** Files that hold others and are not looked into, by their types, with the words for them. */
export const UNLISTED: ReadonlyMap<string, string> = new Map([
  ["application/x-7z-compressed", "7z archives"],
  ["application/x-rar-compressed", "rar archives"],
  ["application/x-bzip2", "bzip2 archives"],
  ["application/x-xz", "xz archives"],
  ["application/zstd", "zstd archives"],
  ["application/lzip", "lzip archives"],
  ["application/x-lz4", "lz4 archives"],
  ["application/x-lzma", "lzma archives"],
  ["application/x-compress", "compress archives"],
  ["application/x-pack", "pack archives"],
  ["application/x-lzop", "lzop archives"],
  ["application/x-lrzip", "lrzip archives"],
  ["application/x-arj", "arj archives"],
  ["application/x-lzh-compressed", "lzh archives"],
  ["application/x-ace-compressed", "ace archives"],
  ["application/x-cpio", "cpio archives"],
  ["application/x-unix-archive", "ar archives"],
  ["application/x-deb", "deb archives"],
  ["application/x-rpm", "rpm archives"],
  ["application/x-asar", "asar archives"],
  ["application/x-iso9660-image", "iso archives"],
  ["application/x-apple-diskimage", "dmg archives"],
  ["application/vnd.ms-cab-compressed", "cab archives"],
  ["application/vnd.ms-htmlhelp", "chm archives"],
  ["application/x-ms-wim", "wim archives"],
  ["application/x-xar", "xar archives"],
  ["application/x-alz", "alz archives"],
  ["application/x-egg", "egg archives"],
  ["application/x-stuffit", "StuffIt archives"],
  ["application/x-zoo", "zoo archives"],
  ["application/warc", "WARC archives"],
  ["application/vnd.ms-outlook", "messages of Outlook"],
  ["application/pgp-encrypted", "PGP messages"],
  ["application/pkcs7-mime", "S/MIME messages"],
]);

/** Archives that file-type does not know; the names are those of the shared MIME database, where it has one. */
const OTHERS: readonly { readonly type: string; readonly start: Buffer }[] = [
  { type: "application/x-ms-wim", start: Buffer.from("MSWIM\0\0\0") },
  { type: "application/x-xar", start: Buffer.from("xar!") },
  { type: "application/x-alz", start: Buffer.from("ALZ\x01") },
  { type: "application/x-egg", start: Buffer.from("EGGA") },
  { type: "application/x-stuffit", start: Buffer.from("SIT!") },
  { type: "application/x-stuffit", start: Buffer.from("StuffIt (c)") },
  { type: "application/x-zoo", start: Buffer.from("ZOO ") },
  { type: "application/x-cpio", start: Buffer.from("07070") },
  // The old form, in the two orders of bytes.
  { type: "application/x-cpio", start: Buffer.from("71c7", "hex") },
  { type: "application/x-cpio", start: Buffer.from("c771", "hex") },
  { type: "application/warc", start: Buffer.from("WARC/") },
  { type: "application/x-lzop", start: Buffer.from("\x89LZO\0\r\n\x1a\n", "latin1") },
  { type: "application/x-lrzip", start: Buffer.from("LRZI") },
  // The form of Linux kernels.
  { type: "application/x-lz4", start: Buffer.from("02214c18", "hex") },
  { type: "application/x-pack", start: Buffer.from("1f1e", "hex") },
  { type: "application/x-compress", start: Buffer.from("1fa0", "hex") },
];

/** A frame that both zstd and lz4 leave out may stand in front of the others (RFC 8878 3.1.2). */
function isSkippable(head: Uint8Array): boolean {
  return (head[0]! & 0xf0) === 0x50 && isStart(head.subarray(1), [0x2a, 0x4d, 0x18]);
}

/**
 * LZMA has no mark, but a header in which few values are possible: properties, the size of the dictionary (a power of 2, or
 * 1.5 times one), the size of the content or all ones; and its first byte is zero.
 */
function isLzma(head: Uint8Array): boolean {
  if (head.length < 18 || head[0]! >= 9 * 5 * 5 || head[13] !== 0) return false;
  const bytes = bufferOf(head);
  const dictionary = bytes.readUInt32LE(1);
  const lowest = dictionary & -dictionary;
  const isDictionary =
    dictionary === 0xffffffff || (dictionary >= 4096 && [lowest, lowest * 3].includes(dictionary | 0));
  const size = bytes.readBigUInt64LE(5);
  return isDictionary && (size === 0xffffffffffffffffn || size < MAX_LZMA);
}

const MAX_LZMA = 1n << 38n;

/** Of those, the ones that hold a single file, whose name programs take from the archive's. */
const SINGLE = new Set([
  "application/x-bzip2",
  "application/x-xz",
  "application/zstd",
  "application/lzip",
  "application/x-lz4",
  "application/x-lzma",
  "application/x-compress",
  "application/x-pack",
  "application/x-lzop",
  "application/x-lrzip",
]);

/** So many bytes decide the type of a file. An image of a disk has its mark behind 32 KB. */
export const HEAD_BYTES = 40_960;

/** The type of a file by its first bytes; `""` if they do not tell. */
export async function typeOf(head: Uint8Array): Promise<string> {
  // The library would look into these two: that is done here, within limits.
  if (isStart(head, [0x50, 0x4b, 0x03, 0x04]) || isStart(head, [0x50, 0x4b, 0x05, 0x06])) return ZIP;
  if (isStart(head, [0x1f, 0x8b])) return GZIP;
  if (isTnef(head)) return TNEF;
  // Its first bytes are a name, which may look like another type.
  if (isTar(head)) return TAR;
  const type = (await fileTypeFromBuffer(head.subarray(0, HEAD_BYTES)))?.mime ?? "";
  return type === "" ? otherType(head) : type;
}

function otherType(head: Uint8Array): string {
  const known = OTHERS.find(({ start }) => isStart(head, start));
  if (known !== undefined) return known.type;
  if (isSkippable(head)) return "application/zstd";
  if (isLzma(head)) return "application/x-lzma";
  if (isSealedCms(head)) return "application/pkcs7-mime";
  return isSealedPgp(head) ? "application/pgp-encrypted" : "";
}

/** Whether files of that type are archives that are read here. */
export function isReadArchive(type: string): boolean {
  return type === ZIP || type === GZIP || type === TAR || type === TNEF;
}

const ARCHIVE_NAME =
  /\.(?:zip|zipx|jar|apk|xpi|ear|war|cbz|epub|kmz|(?:doc|xls|ppt)[xm]|od[tsp]|7z|rar|tar|tgz|gz|exe|com|pif|scr)[.\s]*$/i;

/** Whether programs open a file of that name as an archive. */
export function isArchiveName(name: string): boolean {
  return ARCHIVE_NAME.test(name);
}

/** The type of a whole file: the end of it may tell more than its first bytes. */
export function typeOfWhole(type: string, file: Uint8Array): string {
  return type === "application/x-cfb" && isOutlookMessage(file) ? "application/vnd.ms-outlook" : type;
}

/** Whether programs find an archive in the file that is read here. */
export function isArchive(type: string, file: Uint8Array): boolean {
  // Something may stand in front of a zip archive: programs find it by its end.
  return isReadArchive(type) || hasDirectory(file);
}

/**
 * The files in an archive that is read here, in order.
 * @param names of the archive @param tell gets its faults
 */
export async function* entriesOf(
  type: string,
  file: Uint8Array,
  names: readonly string[],
  tell: Tell,
): AsyncGenerator<Entry> {
  // What looks like one archive may be a tar archive, whose first bytes are a name, or have a zip archive at its end.
  if (type === TAR || isTar(file)) yield* tarEntries(file, tell);
  if (type === TNEF) yield* tnefEntries(file, tell);
  if (type === GZIP) {
    const entry = gzipEntry(file, names);
    yield entry;
    // A zip archive that is stored in a gzip archive is found in it.
    if ((await entry.read(1)) !== null) return;
  }
  if (type === ZIP || hasDirectory(file)) yield* zipEntries(file, tell);
}

/** The names of the file in an archive that is not read here, such as `setup.exe.xz`; none if it can hold several. */
export function namesInside(type: string, names: readonly string[]): string[] {
  return SINGLE.has(type) ? names.map(unpackedName) : [];
}

function isStart(bytes: Uint8Array, start: ArrayLike<number>): boolean {
  return Array.from(start).every((byte, index) => bytes[index] === byte);
}
