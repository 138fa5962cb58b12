/** The files in a tar archive: of old Unix (v7), POSIX (ustar, pax) and GNU. */
import { bufferOf, type Entry, type Tell } from "./archive.ts";
import { namesOf } from "./names.ts";

const BLOCK = 512;
/** Of a longer name only the end is read, and no more of pax records. */
const MAX_NAME = 0xffff;

export async function* tarEntries(archive: Uint8Array, tell: Tell): AsyncGenerator<Entry> {
  const bytes = bufferOf(archive);
  /** Of the next file. */
  let long = new Set<string>();
  /** Of all files behind it, from a global record. */
  let global = new Set<string>();
  let isEnded = false;
  for (let at = 0; at + BLOCK <= bytes.length;) {
    const header = bytes.subarray(at, at + BLOCK);
    at += BLOCK;
    // Blocks of zeros end an archive. Some programs do not stop at a single one, or read on all the same.
    if (header.every((byte) => byte === 0)) {
      isEnded = true;
      continue;
    }
    if (isEnded) tell("doubtful", "there are bytes behind its end");
    const size = numberIn(header.subarray(124, 136));
    if (size === null || !isChecked(header)) {
      // Some programs stop here, others look for the next header.
      tell("doubtful", "a header of it is broken");
      continue;
    }
    const kind = String.fromCharCode(header[156]!);
    // The map of a sparse file goes on in blocks of their own (GNU).
    if (kind === "S") for (let more = header[482]; more === 1; at += BLOCK) more = bytes[at + 504];
    const data = bytes.subarray(at, at + size);
    if (data.length < size) tell("broken", "it is cut off");
    if (isEmptyKind(kind, header) && beginsWithHeader(data)) {
      // Some programs look for the next header behind the content that it says to have, and some at once.
      tell("doubtful", "it has content where programs expect none");
    } else at += Math.ceil(size / BLOCK) * BLOCK;
    if (kind === "L") addTo(long, [cString(data).subarray(-MAX_NAME)]);
    else if (kind === "x" || kind === "X") addTo(long, pathsIn(data.subarray(0, MAX_NAME), tell));
    else if (kind === "g") global = namesOf(pathsIn(data.subarray(0, MAX_NAME), tell));
    else if (kind !== "K") {
      const name = cString(header.subarray(0, 100));
      const prefix = header.toString("latin1", 257, 262) === "ustar" ? cString(header.subarray(345, 500)) : Buffer.of();
      const whole = prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.from("/"), name]);
      // Of several names programs take the last one, those that do not know pax the one in the header.
      const names = [...long.union(global).union(namesOf([whole]))];
      long = new Set();
      yield { names, isEncrypted: false, read: async (most) => data.subarray(0, most) };
    }
  }
}

function addTo(names: Set<string>, raw: Iterable<Buffer>): void {
  for (const name of namesOf(raw)) names.add(name);
}

/**
 * The paths in pax records: `LENGTH path=NAME` and a line end, where LENGTH counts all of it.
 * @param records the data of a header of pax records
 */
function* pathsIn(records: Buffer, tell: Tell): Generator<Buffer> {
  for (let at = 0; at < records.length && records[at] !== 0;) {
    const space = records.indexOf(" ", at, "latin1");
    const digits = space === -1 ? "" : records.toString("latin1", at, Math.min(space, at + 20));
    const end = at + Number(digits);
    if (!/^\d{1,6}$/.test(digits) || end <= space || end > records.length) {
      tell("doubtful", "its pax records are broken");
      // Also what a program finds that goes by lines.
      for (const [, path] of records.toString("latin1", at).matchAll(/^\d+ path=(.*)$/gm))
        yield Buffer.from(path!, "latin1");
      break;
    }
    const record = records.subarray(space + 1, end - 1);
    const key = record.toString("latin1", 0, Math.max(0, record.indexOf("=", 0, "latin1")));
    if (key === "path" || key === "GNU.sparse.name") yield record.subarray(key.length + 1);
    // Programs that know pax take this size, others that of the header: they read on at different places.
    if (key === "size") tell("doubtful", "its files have two sizes");
    at = end;
  }
}

/** Links, devices, folders and the names of volumes have no content; a folder may be a file whose name ends so. */
function isEmptyKind(kind: string, header: Buffer): boolean {
  return "123456V".includes(kind) || ("\x000".includes(kind) && cString(header.subarray(0, 100)).at(-1) === SLASH);
}

const SLASH = 0x2f;

/** Whether a header is the first of some data that is not zeros. */
function beginsWithHeader(data: Buffer): boolean {
  const first = data.findIndex((byte) => byte !== 0);
  const at = Math.max(0, first - (first % BLOCK));
  return at + BLOCK <= data.length && isChecked(data.subarray(at, at + BLOCK));
}

/** Octal digits, or with the first bit set a big-endian number (GNU); null if it is neither, or negative. */
function numberIn(field: Buffer): number | null {
  if (field[0] === 0x80) return field.readUIntBE(field.length - 6, 6);
  const digits = field.toString("latin1").replaceAll(/[\0 ]/g, "");
  return /^[0-7]*$/.test(digits) ? Number.parseInt(digits || "0", 8) : null;
}

/** Whether the checksum holds, which counts its own field as spaces; old programs count bytes as signed. */
function isChecked(header: Buffer): boolean {
  const sum = numberIn(header.subarray(148, 156));
  let unsigned = 8 * 0x20;
  let signed = 8 * 0x20;
  for (let at = 0; at < BLOCK; at++) {
    if (at >= 148 && at < 156) continue;
    unsigned += header[at]!;
    signed += header.readInt8(at);
  }
  return sum === unsigned || sum === signed;
}

function cString(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end === -1 ? bytes : bytes.subarray(0, end);
}

/** Whether the bytes begin with a header of a tar archive: old ones have no mark, but a checksum. */
export function isTar(head: Uint8Array): boolean {
  return head.length >= BLOCK && isChecked(bufferOf(head.subarray(0, BLOCK)));
}
