/** The types of files by their first bytes, and the archives among them: read here, or only recognised. */
import { fileTypeFromBuffer } from "file-type";
import type { Entry, Tell } from "./archive.ts";
import { gzipEntry, unpackedName } from "./gzip.ts";
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
  ["application/vnd.ms-outlook", "messages of Outlook"],
  ["application/pgp-encrypted", "encrypted messages"],
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
  // The properties that all programs write, and a dictionary of 64 KB or more.
  { type: "application/x-lzma", start: Buffer.from("5d0000", "hex") },
];

/** Of those, the ones that hold a single file, whose name programs take from the archive's. */
const SINGLE = new Set([
  "application/x-bzip2",
  "application/x-xz",
  "application/zstd",
  "application/lzip",
  "application/x-lz4",
  "application/x-lzma",
  "application/x-compress",
]);

/** So many bytes decide the type of a file. An image of a disk has its mark behind 32 KB. */
export const HEAD_BYTES = 40_960;

/** The type of a file by its first bytes; `""` if they do not tell. */
export async function typeOf(head: Uint8Array): Promise<string> {
  // The library would look into these two: that is done here, within limits.
  if (isStart(head, [0x50, 0x4b, 0x03, 0x04]) || isStart(head, [0x50, 0x4b, 0x05, 0x06])) return ZIP;
  if (isStart(head, [0x1f, 0x8b])) return GZIP;
  if (isTnef(head)) return TNEF;
  const type = (await fileTypeFromBuffer(head.subarray(0, HEAD_BYTES)))?.mime ?? "";
  if (type === "" && isTar(head)) return TAR;
  return type === "" ? (OTHERS.find(({ start }) => isStart(head, start))?.type ?? "") : type;
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
  if (type === GZIP) yield gzipEntry(file, names);
  else if (type === TAR) yield* tarEntries(file, tell);
  else if (type === TNEF) yield* tnefEntries(file, tell);
  // A tar archive in front of a zip archive, or a single compressed file.
  if (type !== GZIP && (type === ZIP || hasDirectory(file))) yield* zipEntries(file, tell);
}

/** The names of the file in an archive that is not read here, such as `setup.exe.xz`; none if it can hold several. */
export function namesInside(type: string, names: readonly string[]): string[] {
  return SINGLE.has(type) ? names.map(unpackedName) : [];
}

function isStart(bytes: Uint8Array, start: ArrayLike<number>): boolean {
  return Array.from(start).every((byte, index) => bytes[index] === byte);
}
