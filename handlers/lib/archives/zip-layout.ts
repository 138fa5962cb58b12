/**
 * Whether a zip archive is filled by what its directory lists: file after file, the directory, the end. If it is not, or
 * if two records differ about a file, some programs may list other files.
 */
import type { Entry } from "yauzl";
import {
  DIRECTORY_HEADER,
  LOCAL_HEADER,
  directoryName,
  ENCRYPTED,
  type LocalHeader,
  localHeader,
  readEnd,
  zip64Bytes,
} from "./zip-records.ts";

interface Range {
  readonly start: number;
  readonly end: number;
}

/** Sizes and checksum stand behind the data, in a record of at most so many bytes. */
const STREAMED = 0x08;
const DESCRIPTOR_BYTES = 24;
/** The value is in the zip64 record. */
const ALL_ONES = 0xffffffff;

export class Layout {
  readonly #bytes: Buffer;
  readonly #doubts = new Set<string>();
  /** With the bytes behind each that a descriptor may take. */
  readonly #files: (Range & { readonly tail: number })[] = [];
  #directory: Range | null = null;

  /** @param bytes the archive, from where its offsets count, to the end of its comment */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  doubt(why: string): void {
    this.#doubts.add(why);
  }

  file(listed: Entry, local: LocalHeader | null): void {
    if (local === null) return this.doubt("a file is not where its directory says");
    if (!isSame(listed, local)) this.doubt("it says two things of a file");
    const isStreamed = (listed.generalPurposeBitFlag & STREAMED) !== 0;
    const end = local.dataStart + listed.compressedSize;
    this.#files.push({ start: local.at, end, tail: isStreamed ? DESCRIPTOR_BYTES : 0 });
  }

  /** @param directory where it was read @param end where the end record is */
  directory(directory: Range, end: number): void {
    this.#directory = directory;
    const zip64 = zip64Bytes(this.#bytes, end);
    const said = readEnd(this.#bytes, end);
    const is = (value: number, found: number, ones: number) => value === found || (zip64 > 0 && value === ones);
    const isSaid =
      is(said.offset, directory.start, ALL_ONES) &&
      is(said.size, directory.end - directory.start, ALL_ONES) &&
      is(said.entries, this.#files.length, 0xffff);
    if (!isSaid || directory.end + zip64 !== end) this.doubt("its end says another directory");
  }

  /** Why programs may list other files than the directory; to be asked when all is read. */
  doubts(): ReadonlySet<string> {
    this.#files.sort((a, b) => a.start - b.start);
    let at = 0;
    let tail = 0;
    for (const range of [...this.#files, { ...this.#directory, tail: 0 }]) {
      const { start = at, end = at } = range;
      if (start < at) this.doubt("its files overlap");
      else if (start - at > tail && this.#bytes.subarray(at, start).some((byte) => byte !== 0)) {
        this.doubt("there are bytes that belong to no file");
      }
      at = Math.max(at, end);
      ({ tail } = range);
    }
    return this.#doubts;
  }

  /** The headers outside of what the directory lists. */
  *hidden(): Generator<LocalHeader | Buffer> {
    let at = 0;
    for (const { start, end } of [...this.#files, ...(this.#directory === null ? [] : [this.#directory])]) {
      yield* headersIn(this.#bytes, at, start);
      at = Math.max(at, end);
    }
    yield* headersIn(this.#bytes, at, this.#bytes.length);
  }
}

/** All local headers, and the names of all directory headers, that begin in a range. */
export function* headersIn(bytes: Buffer, start: number, end: number): Generator<LocalHeader | Buffer> {
  for (const at of placesOf(LOCAL_HEADER, bytes, start, end)) {
    const found = localHeader(bytes, at);
    if (found !== null) yield found;
  }
  for (const at of placesOf(DIRECTORY_HEADER, bytes, start, end)) {
    const found = directoryName(bytes, at);
    if (found !== null) yield found;
  }
}

function* placesOf(signature: Buffer, bytes: Buffer, start: number, end: number): Generator<number> {
  for (let at = start; (at = bytes.indexOf(signature, at)) !== -1 && at < end; at += signature.length) yield at;
}

/** Whether both headers of a file say the same. Zeros and ones stand for values that are elsewhere. */
function isSame(listed: Entry, local: LocalHeader): boolean {
  const isStreamed = (local.flags & STREAMED) !== 0;
  const is = (here: number, there: number) => here === there || here === ALL_ONES || (isStreamed && here === 0);
  return (
    local.rawName.equals(listed.fileNameRaw) &&
    local.method === listed.compressionMethod &&
    ((local.flags ^ listed.generalPurposeBitFlag) & (ENCRYPTED | STREAMED)) === 0 &&
    is(local.compressed, listed.compressedSize) &&
    is(local.crc, listed.crc32)
  );
}
