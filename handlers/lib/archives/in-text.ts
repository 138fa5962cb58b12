/**
 * Files that stand encoded in a text, as before MIME: uuencode (POSIX), yEnc and BinHex 4.0 (RFC 1741). Some mail programs
 * show them as attachments, and others open what is saved.
 */
import { bufferOf, type Entry } from "./archive.ts";
import { namesOf } from "./names.ts";

/** The files in a text, in order of their kinds. */
export function* filesInText(text: Uint8Array): Generator<Entry> {
  const bytes = bufferOf(text);
  yield* filesBehind(bytes, "begin", uuencoded);
  yield* filesBehind(bytes, "=ybegin ", yEncoded);
  yield* filesBehind(bytes, "(This file must be converted with BinHex", binHexed);
}

/** Reads a file at each line that begins so, up to the end of the file before. */
function* filesBehind(bytes: Buffer, start: string, read: (bytes: Buffer, at: number) => Found): Generator<Entry> {
  for (let at = 0; (at = bytes.indexOf(start, at, "latin1")) !== -1;) {
    const isLine = at === 0 || bytes[at - 1] === 0x0a || bytes[at - 1] === 0x0d;
    const { entry, end } = isLine ? read(bytes, at) : NONE;
    if (entry !== null) yield entry;
    at = Math.max(at + start.length, end);
  }
}

/** A file, and where it ends; without a file, where the next one is looked for. */
interface Found {
  readonly entry: Entry | null;
  readonly end: number;
}

const NONE: Found = { entry: null, end: 0 };

function entry(names: readonly string[], content: Buffer): Entry {
  return {
    names: [...namesOf(names.map((name) => Buffer.from(name.trim(), "latin1")))],
    isEncrypted: false,
    read: async (most) => content.subarray(0, most),
  };
}

/** A longer line is read in pieces. */
const MAX_LINE = 1000;

function lineAt(bytes: Buffer, at: number): { readonly text: string; readonly next: number } {
  const [line = "", text = ""] = /^([^\r\n]*)(?:\r?\n|\r)?/.exec(bytes.toString("latin1", at, at + MAX_LINE)) ?? [];
  return { text, next: at + line.length };
}

/**
 * Programs differ in which first line they take: the mode may have other digits or none, and the name may follow at once.
 * Such a line begins a file if a line of data follows, else it is text.
 */
function uuencoded(bytes: Buffer, at: number): Found {
  const first = lineAt(bytes, at);
  const [, base64, words = ""] = /^begin(-base64)?[\s\xa0]+(\S.*)$/.exec(first.text) ?? [];
  if (words === "") return NONE;
  const chunks: Buffer[] = [];
  let hasData = false;
  let next = first.next;
  while (next < bytes.length) {
    const line = lineAt(bytes, next);
    if (/^(?:end|====\s*$|begin[-\s])/.test(line.text)) break;
    // Programs leave out lines that are none.
    const chunk = base64 === undefined ? uuLine(line.text) : Buffer.from(line.text, "base64");
    if (chunk !== null) chunks.push(chunk);
    hasData ||= base64 === undefined ? isUuLine(line.text) : chunk !== null && chunk.length > 0;
    ({ next } = line);
  }
  const name = /^[0-7]{3,4}[ \t]+(\S.*)$/.exec(words)?.[1];
  if (name === undefined && !hasData) return NONE;
  const names = name === undefined ? [words, words.replace(/^\S+\s+/, "")] : [name];
  // Some programs leave quotes out.
  return {
    entry: entry([...names, ...names.map((written) => written.replaceAll('"', ""))], Buffer.concat(chunks)),
    end: next,
  };
}

/** Whether a line has as many characters as the first of them says. */
function isUuLine(line: string): boolean {
  const groups = Math.ceil(((line.charCodeAt(0) - 0x20) & 63) / 3);
  return groups > 0 && /^[!-`][ -`]+$/.test(line) && Math.floor((line.length + 1) / 4) === groups;
}

/** A line: the number of its bytes, then four characters for three bytes; null if it is none. */
function uuLine(line: string): Buffer | null {
  if (/[^ -`]/.test(line)) return null;
  const value = (index: number) => ((line.charCodeAt(index) || 0x20) - 0x20) & 63;
  const bytes = Buffer.alloc(value(0));
  for (let from = 1, to = 0; to < bytes.length; from += 4, to += 3) {
    const group = (value(from) << 18) | (value(from + 1) << 12) | (value(from + 2) << 6) | value(from + 3);
    bytes[to] = group >> 16;
    bytes[to + 1] = group >> 8;
    bytes[to + 2] = group;
  }
  return bytes;
}

function yEncoded(bytes: Buffer, at: number): Found {
  const first = lineAt(bytes, at);
  const name = /^=ybegin .*\bname=(.+)$/.exec(first.text)?.[1];
  if (name === undefined) return NONE;
  let start = first.next;
  if (bytes.toString("latin1", start, start + 7) === "=ypart ") start = lineAt(bytes, start).next;
  const found = bytes.indexOf("\n=yend", start, "latin1");
  const end = found === -1 ? bytes.length : found;
  const content = Buffer.alloc(end - start);
  let length = 0;
  for (let from = start; from < end; from++) {
    const byte = bytes[from]!;
    if (byte === 0x0a || byte === 0x0d) continue;
    content[length++] = byte === 0x3d ? bytes[++from]! - 64 - 42 : byte - 42;
  }
  return { entry: entry([name], content.subarray(0, length)), end };
}

const NO_DIGIT = 64;
/** The values of characters in BinHex. */
const BINHEX_VALUES = new Uint8Array(256).fill(NO_DIGIT);
for (const [value, digit] of [..."!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"].entries()) {
  BINHEX_VALUES[digit.charCodeAt(0)] = value;
}
/** A file without content takes more characters. */
const BINHEX_LEAST = 30;
/** A byte that says how often the one before it stands there. */
const REPEAT = 0x90;

function binHexed(bytes: Buffer, at: number): Found {
  const start = bytes.indexOf(":", at, "latin1");
  if (start === -1) return { entry: null, end: bytes.length };
  const stop = bytes.indexOf(":", start + 1, "latin1");
  const end = stop === -1 ? bytes.length : stop;
  if (end - start < BINHEX_LEAST) return { entry: null, end };
  const packed = sixBits(bytes.subarray(start + 1, end));
  const head = repeated(packed, 64 + 22);
  const length = head[0] ?? 0;
  if (length === 0 || length > 63 || head.length < length + 20) return { entry: null, end };
  const name = head.toString("latin1", 1, 1 + length);
  // Behind the name: NUL, type, creator and flags, the lengths of both forks, and a checksum.
  const size = head.readUInt32BE(length + 12);
  const content = length + 22;
  return {
    entry: {
      names: [...namesOf([Buffer.from(name, "latin1")])],
      isEncrypted: false,
      read: async (most: number) => repeated(packed, content + Math.min(most, size)).subarray(content),
    },
    end,
  };
}

function sixBits(text: Buffer): Buffer {
  const bytes = Buffer.alloc(Math.ceil((text.length * 3) / 4));
  let length = 0;
  let bits = 0;
  let count = 0;
  for (let at = 0; at < text.length; at++) {
    const value = BINHEX_VALUES[text[at]!]!;
    if (value === NO_DIGIT) continue;
    bits = ((bits << 6) | value) & 0xffff;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes[length++] = bits >> count;
  }
  return bytes.subarray(0, length);
}

/** The first `most` bytes, repeated bytes written out. */
function repeated(packed: Buffer, most: number): Buffer {
  const bytes = Buffer.allocUnsafe(repeatedLength(packed, most));
  let length = 0;
  for (let at = 0; length < bytes.length; at++) {
    const byte = packed[at]!;
    const times = byte === REPEAT ? (packed[++at] ?? 0) : 0;
    if (times === 0) bytes[length++] = byte;
    else {
      const end = Math.min(bytes.length, length + times - 1);
      bytes.fill(length === 0 ? 0 : bytes[length - 1]!, length, end);
      length = end;
    }
  }
  return bytes;
}

function repeatedLength(packed: Buffer, most: number): number {
  let length = 0;
  for (let at = 0; at < packed.length && length < most; at++) {
    const times = packed[at] === REPEAT ? (packed[++at] ?? 0) : 0;
    length += times === 0 ? 1 : times - 1;
  }
  return Math.min(length, most);
}
