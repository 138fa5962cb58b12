/**
 * Bounded reads and writes of the protocol's few field kinds. Nothing here knows a command.
 *
 * Text: milter strings have no character set. Valid UTF-8 is decoded as such; each byte that is not part of valid
 * UTF-8 becomes one lone surrogate U+DC80–U+DCFF, and is written back as that byte (the "surrogateescape" of PEP 383).
 * So whatever a handler reads and gives back arrives byte for byte as it was sent.
 */
import { LENGTH_BYTES } from "./constants.ts";
import { ProtocolError } from "./errors.ts";

export const EMPTY: Uint8Array = Buffer.alloc(0);

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

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Byte by byte, for the rare text that is not all valid UTF-8 (or that holds a real U+FFFD). */
function decodeMixed(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end;) {
    const lead = bytes[at]!;
    const length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length > 0 && at + length <= end) {
      try {
        text += strictUtf8.decode(bytes.subarray(at, at + length));
        at += length;
        continue;
      } catch {
        // Not a UTF-8 sequence after all: its first byte is escaped below, the rest is looked at anew.
      }
    }
    text += String.fromCharCode(0xdc00 + lead);
    at += 1;
  }
  return text;
}

const ESCAPED_BYTE = /[\udc80-\udcff]/u;

/** The bytes of a string, the inverse of {@link decodeText}. */
export function encodeText(text: string): Uint8Array {
  if (!ESCAPED_BYTE.test(text)) return Buffer.from(text, "utf8");
  const parts: Uint8Array[] = [];
  for (const character of text) {
    const unit = character.charCodeAt(0);
    const escaped = character.length === 1 && unit >= 0xdc80 && unit <= 0xdcff;
    parts.push(escaped ? Buffer.of(unit - 0xdc00) : Buffer.from(character, "utf8"));
  }
  return Buffer.concat(parts);
}

/** At most 40 bytes of what a peer sent, printable ASCII as it is and the rest as `\xNN`: for messages and logs. */
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

/** A buffer that grows and is written from the front: the one way in which packets are made. */
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

  /** A copy of what was written. */
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

  text(text: string): void {
    if (ESCAPED_BYTE.test(text)) {
      this.bytes(encodeText(text));
      return;
    }
    this.#reserve(text.length * 3);
    this.#length += this.#buffer.write(text, this.#length, "utf8");
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
