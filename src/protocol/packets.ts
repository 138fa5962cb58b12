/** The packets in bytes that are all there: each is `uint32 length`, then `length` bytes, a code and its payload. */
import { EMPTY, readU32 } from "./bytes.ts";
import { LENGTH_BYTES } from "./constants.ts";

/** Bytes in front of a packet's payload: its length and its code. */
export const HEAD_BYTES = LENGTH_BYTES + 1;

/** Where the packet at `at` ends; -1 if it is not whole before `to`. */
export function packetEnd(bytes: Uint8Array, at: number, to: number): number {
  if (to - at < LENGTH_BYTES) return -1;
  const end = at + LENGTH_BYTES + readU32(bytes, at);
  return end > to ? -1 : end;
}

/**
 * Walks the whole packets in a range of bytes, and stops in front of a partial one. After a `true` of {@link PacketWalk.next},
 * `code` and the bytes from `start` to `end` (the payload) describe a packet. It can be used for further ranges, so that a
 * walk on the hot path allocates nothing. Lengths are taken as they are: `Framer.next` refuses wrong ones.
 */
export class PacketWalk {
  code = 0;
  start = 0;
  end = 0;
  /** Where the next packet begins. */
  at = 0;
  #bytes: Uint8Array = EMPTY;
  #to = 0;

  constructor(bytes: Uint8Array = EMPTY) {
    this.over(bytes, 0, bytes.length);
  }

  /** From now on it walks `bytes[at, to)`. */
  over(bytes: Uint8Array, at: number, to: number): this {
    this.#bytes = bytes;
    this.at = at;
    this.#to = to;
    return this;
  }

  /** Moves to the next packet; false if no whole one is left. */
  next(): boolean {
    const { at } = this;
    const bytes = this.#bytes;
    const end = packetEnd(bytes, at, this.#to);
    if (end === -1) return false;
    this.code = bytes[at + LENGTH_BYTES]!;
    this.start = at + HEAD_BYTES;
    this.end = end;
    this.at = end;
    return true;
  }
}
