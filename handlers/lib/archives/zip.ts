/**
 * The files in a zip archive. yauzl reads the directory, by which most programs go. Some programs go by the headers in
 * front of the files, or take another end record: where they may find other files, the archive is doubtful, and the files
 * that only they find are listed behind the others.
 */
import { createInflateRaw } from "node:zlib";
import type { Entry as ListedFile } from "yauzl";
import { bufferOf, type Entry, type Tell } from "./archive.ts";
import { inflate } from "./inflate.ts";
import { namesOf } from "./names.ts";
import { headersIn, Layout } from "./zip-layout.ts";
import {
  DIRECTORY_HEADER,
  ENCRYPTED,
  END_BYTES,
  endOf,
  type LocalHeader,
  localHeader,
  readEnd,
  startsWith,
  unicodePaths,
  zip64Bytes,
} from "./zip-records.ts";

export async function* zipEntries(archive: Uint8Array, tell: Tell): AsyncGenerator<Entry> {
  const whole = bufferOf(archive);
  const end = endOf(whole);
  if (end === -1) {
    for (const header of headersIn(whole, 0, whole.length)) yield hiddenEntry(whole, header);
    return tell("broken", "it has no directory");
  }
  const start = startOf(whole, end);
  if (start === -1) {
    const { size } = readEnd(whole, end);
    if (!startsWith(whole, end - size, DIRECTORY_HEADER))
      return tell("broken", "its directory is not where its end says");
    // Some programs count back from the end alone.
    tell("doubtful", "its directory is not where its end says");
    yield* zipEntries(withOffset(whole, end, end - size), tell);
    return;
  }
  const bytes = whole.subarray(start);
  const layout = new Layout(bytes);
  if (start > 0) layout.doubt("there are bytes in front of it");
  yield* listedEntries(endedAtComment(bytes, end - start, layout), end - start, layout);
  const doubts = layout.doubts();
  for (const doubt of doubts) tell("doubtful", doubt);
  if (doubts.size === 0) return;
  for (const header of headersIn(whole, 0, start)) yield hiddenEntry(whole, header);
  for (const header of layout.hidden()) yield hiddenEntry(bytes, header);
}

/** Whether the bytes end with a zip archive, whatever they begin with. */
export function hasDirectory(file: Uint8Array): boolean {
  const bytes = bufferOf(file);
  const end = endOf(bytes);
  return (
    end !== -1 && (startOf(bytes, end) !== -1 || startsWith(bytes, end - readEnd(bytes, end).size, DIRECTORY_HEADER))
  );
}

/** Where the archive begins, from where its offsets count; -1 if its directory is not found. */
function startOf(whole: Buffer, end: number): number {
  const { offset, size } = readEnd(whole, end);
  const zip64 = zip64Bytes(whole, end);
  if (zip64 > 0 || size === 0) return offset <= end || zip64 > 0 ? 0 : -1;
  // Most programs count back from the end, so that something can stand in front, such as a program that unpacks it.
  const start = end - size - offset;
  if (start > 0 && startsWith(whole, offset + start, DIRECTORY_HEADER)) return start;
  return startsWith(whole, offset, DIRECTORY_HEADER) ? 0 : -1;
}

function withOffset(whole: Buffer, end: number, offset: number): Buffer {
  const copy = Buffer.from(whole);
  copy.writeUInt32LE(offset, end + END_BYTES - 6);
  return copy;
}

/** The archive as yauzl takes it: the comment is the last of it. */
function endedAtComment(bytes: Buffer, end: number, layout: Layout): Buffer {
  const { commentEnd } = readEnd(bytes, end);
  if (commentEnd > bytes.length) {
    layout.doubt("its comment is cut off");
    const copy = Buffer.from(bytes);
    copy.writeUInt16LE(bytes.length - end - END_BYTES, end + END_BYTES - 2);
    return copy;
  }
  // Programs that send files may fill a block, or end a line.
  if (bytes.subarray(commentEnd).some((byte) => byte !== 0 && byte !== 0x0d && byte !== 0x0a)) {
    layout.doubt("there are bytes behind its end");
  }
  return bytes.subarray(0, commentEnd);
}

async function* listedEntries(bytes: Buffer, end: number, layout: Layout): AsyncGenerator<Entry> {
  const { fromBufferPromise } = await import("yauzl");
  try {
    const file = await fromBufferPromise(bytes, { decodeStrings: false, validateEntrySizes: false });
    const start = file.readEntryCursor;
    for await (const listed of file.eachEntry()) {
      const local = localHeader(bytes, listed.relativeOffsetOfLocalHeader);
      layout.file(listed, local);
      yield listedEntry(bytes, listed, local);
    }
    layout.directory({ start, end: file.readEntryCursor }, end);
  } catch (error) {
    // yauzl stops here. Other programs may go on.
    layout.doubt(error instanceof Error ? error.message : String(error));
  }
}

function listedEntry(bytes: Buffer, listed: ListedFile, local: LocalHeader | null): Entry {
  const names = new Set([
    ...namesOf([listed.fileNameRaw, ...unicodePaths(listed.extraFieldRaw)]),
    ...(local?.names ?? []),
  ]);
  const data = local === null ? null : bytes.subarray(local.dataStart, local.dataStart + listed.compressedSize);
  return {
    names: [...names],
    isEncrypted: (listed.generalPurposeBitFlag & ENCRYPTED) !== 0,
    read: async (most) => (data === null ? null : unpack(listed.compressionMethod, data, most)),
  };
}

/** A file that the directory does not list, or a name in another directory. */
function hiddenEntry(bytes: Buffer, header: LocalHeader | Buffer): Entry {
  if (Buffer.isBuffer(header)) return { names: [...namesOf([header])], isEncrypted: false, read: async () => null };
  const { compressed, dataStart, flags, method, names } = header;
  // Compressed data ends by itself, and its size may be unknown.
  const data = bytes.subarray(dataStart, method === DEFLATED ? bytes.length : dataStart + compressed);
  return { names, isEncrypted: (flags & ENCRYPTED) !== 0, read: async (most) => unpack(method, data, most) };
}

const STORED = 0;
const DEFLATED = 8;

async function unpack(method: number, data: Buffer, most: number): Promise<Uint8Array | null> {
  if (method === STORED) return data.subarray(0, most);
  return method === DEFLATED ? inflate(createInflateRaw(), data, most) : null;
}
