/**
 * Bounded reads and writes of the protocol's few field kinds. Nothing here knows a command.
 *
 * Text: milter strings have no character set. Valid UTF-8 is decoded as such; each byte that is not part of valid
 * UTF-8 becomes a lone surrogate U+DC80–U+DCFF, and is written back as that byte (the "surrogateescape" of PEP 383).
 * So a text that a handler reads and gives back arrives byte for byte as it was sent.
 */
import { LENGTH_BYTES } from "./constants.ts";
import { ProtocolError } from "./errors.ts";

export const EMPTY: Uint8Array = Buffer.alloc(0);

/** Buffers below this size are in the collector's heap: their memory cannot be given back by hand. */
export const LARGE_BYTES = 16 * 1024;

/**
 * Gives the memory of bytes that are no longer used back at once, if they are many: the collector would keep hundreds of
 * reads. Bytes that are only a part of a buffer stay.
 */
export function freeBytes(bytes: Uint8Array): void {
  // Reading `buffer` of a small array would allocate it.
  if (bytes.length < LARGE_BYTES) return;
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.length) buffer.transfer(0);
}

/** The big-endian uint32 at `offset`; the caller has checked that four bytes are there. */
export function readU32(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset]! << 24) | (bytes[offset + 1]! << 16) | (bytes[offset + 2]! << 8) | bytes[offset + 3]!) >>> 0;
}

/**
 * The position of the NUL that ends the string at `start`, before `end`.
 * @throws ProtocolError PMILTER_ERR_MISSING_NUL, naming `what`
 */
export function stringEnd(bytes: Uint8Array, start: number, end: number, what: string): number {
  const nul = bytes.indexOf(0, start);
  if (nul === -1 || nul >= end) {
    throw new ProtocolError(
      "PMILTER_ERR_MISSING_NUL",
      `${what} does not end with NUL: "${excerpt(bytes, start, end)}"`,
    );
  }
  return nul;
}

/** The string in `bytes[start, end)`, decoded as this file's head describes. */
export function decodeText(bytes: Uint8Array, start = 0, end = bytes.length): string {
  const text = Buffer.prototype.utf8Slice.call(bytes, start, end);
  return text.includes("\ufffd") ? decodeMixed(bytes, start, end) : text;
}

/** Code units of lone surrogates that stand for bytes: the byte's value is added. */
const ESCAPE = 0xdc00;

/** Text that is not all valid UTF-8, in one pass: a peer must not be able to make decoding expensive. */
function decodeMixed(bytes: Uint8Array, start: number, end: number): string {
  const units = new Uint16Array(end - start);
  let length = 0;
  for (let at = start; at < end;) {
    const lead = bytes[at]!;
    const size = sequenceLength(bytes, at, end);
    if (size === 1) units[length++] = lead;
    else if (size === 0) units[length++] = ESCAPE + lead;
    else {
      let point = lead & (0xff >> (size + 1));
      for (let index = 1; index < size; index++) point = (point << 6) | (bytes[at + index]! & 0x3f);
      if (point > 0xffff) {
        units[length++] = 0xd7c0 + (point >> 10);
        units[length++] = 0xdc00 + (point & 0x3ff);
      } else units[length++] = point;
    }
    at += Math.max(size, 1);
  }
  return Buffer.from(units.buffer, 0, length * 2).toString("utf16le");
}

/** Bytes of the UTF-8 sequence at `at` (Unicode 15, table 3-7), 0 if there is none. */
function sequenceLength(bytes: Uint8Array, at: number, end: number): number {
  const lead = bytes[at]!;
  if (lead < 0x80) return 1;
  const size = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (size === 0 || at + size > end) return 0;
  const second = bytes[at + 1]!;
  const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  if (second < least || second > most) return 0;
  for (let index = 2; index < size; index++) if ((bytes[at + index]! & 0xc0) !== 0x80) return 0;
  return size;
}

const ESCAPED_BYTE = /[\udc80-\udcff]/u;

/** The bytes of a string, the inverse of {@link decodeText}. */
export function encodeText(text: string): Uint8Array {
  if (!ESCAPED_BYTE.test(text)) return Buffer.from(text, "utf8");
  const bytes = Buffer.allocUnsafe(text.length * 3);
  let length = 0;
  for (let at = 0; at < text.length;) {
    // Up to the next escape all is text. Half of a surrogate pair is no escape.
    let next = at;
    while (next < text.length && !isEscape(text, next)) next += 1;
    if (next > at) length += bytes.write(text.slice(at, next), length, "utf8");
    if (next < text.length) bytes[length++] = text.charCodeAt(next) - ESCAPE;
    at = next + 1;
  }
  return bytes.subarray(0, length);
}

function isEscape(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  if (unit < 0xdc80 || unit > 0xdcff) return false;
  const before = at === 0 ? 0 : text.charCodeAt(at - 1);
  return before < 0xd800 || before > 0xdbff;
}

/** At most 40 bytes of a peer's, printable ASCII as it is and the rest as `\xNN`: for messages and logs. */
export function excerpt(bytes: Uint8Array, start = 0, end = bytes.length): string {
  const limit = Math.min(end, start + 40);
  let text = "";
  for (let at = start; at < limit; at++) {
    const byte = bytes[at]!;
    text +=
      byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c
        ? String.fromCharCode(byte)
        : `\\x${byte.toString(16).padStart(2, "0")}`;
  }
  return limit < end ? `${text}…` : text;
}

/** Up to here a loop is faster than the call that writes text. */
const SHORT = 64;

/** A buffer that grows and is written from the front. All packets are made with it. */
export class ByteWriter {
  #buffer: Buffer;
  #length = 0;
  readonly #initialBytes: number;

  constructor(initialBytes = 512) {
    this.#initialBytes = initialBytes;
    this.#buffer = Buffer.allocUnsafeSlow(initialBytes);
  }

  get length(): number {
    return this.#length;
  }

  /** The buffer itself: bytes from 0 to `length` are written. Valid until the next write. */
  get buffer(): Buffer {
    return this.#buffer;
  }

  /** A copy of the written bytes. */
  copy(): Uint8Array {
    return Buffer.from(this.#buffer.subarray(0, this.#length));
  }

  /** Starts from the front again, and gives back the memory of an unusually large run. */
  clear(): void {
    this.#length = 0;
    if (this.#buffer.length > 16 * this.#initialBytes) this.#buffer = Buffer.allocUnsafeSlow(this.#initialBytes);
  }

  u8(value: number): void {
    this.#reserve(1);
    this.#buffer[this.#length++] = value;
  }

  u16(value: number): void {
    this.#reserve(2);
    this.#length = this.#buffer.writeUInt16BE(value, this.#length);
  }

  u32(value: number): void {
    this.#reserve(4);
    this.#length = this.#buffer.writeUInt32BE(value, this.#length);
  }

  bytes(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.#reserve(end - start);
    Buffer.prototype.copy.call(bytes, this.#buffer, this.#length, start, end);
    this.#length += end - start;
  }

  /** Makes the buffer longer by so many bytes, for the caller to write. @returns their place */
  protected extend(bytes: number): number {
    this.#reserve(bytes);
    const at = this.#length;
    this.#length += bytes;
    return at;
  }

  text(text: string): void {
    if (text.length <= SHORT && this.#ascii(text)) return;
    if (ESCAPED_BYTE.test(text)) {
      this.bytes(encodeText(text));
      return;
    }
    this.#reserve(text.length * 3);
    this.#length += this.#buffer.write(text, this.#length, "utf8");
  }

  /** Writes the text if it is ASCII, as nearly all short texts are; @returns false if it is not: nothing is written. */
  #ascii(text: string): boolean {
    this.#reserve(text.length);
    const at = this.#length;
    for (let index = 0; index < text.length; index++) {
      const unit = text.charCodeAt(index);
      if (unit > 0x7f) return false;
      this.#buffer[at + index] = unit;
    }
    this.#length = at + text.length;
    return true;
  }

  /** The string and a NUL. */
  cstring(text: string): void {
    this.text(text);
    this.u8(0);
  }

  /** Begins a packet of that code; gives the place that {@link endPacket} needs. */
  protected beginPacket(code: number): number {
    const at = this.#length;
    this.u32(0);
    this.u8(code);
    return at;
  }

  /** Writes the length of the packet that began at `at`. */
  protected endPacket(at: number): void {
    this.#buffer.writeUInt32BE(this.#length - at - LENGTH_BYTES, at);
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }
}
