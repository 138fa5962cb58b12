/**
 * The packets of a new body (REPLBODY), made when they are to leave: the bytes of a large body stay where they are, and
 * little of it is copied at a time.
 */
import { LENGTH_BYTES, MAX_REPLY_PAYLOAD, REPLY } from "./constants.ts";
import { HEAD_BYTES } from "./packets.ts";

/** Bytes of each packet but the last. */
const PACKET_BYTES = HEAD_BYTES + MAX_REPLY_PAYLOAD;

/** A new body whose bytes stay where they are until they have left. */
export interface HeldBody {
  /** In order. */
  readonly pieces: readonly Uint8Array[];
  /** They have left, or will not leave any more. Called once. */
  release(): void;
}

/** Bytes of all pieces. */
export function lengthOf(pieces: readonly Uint8Array[]): number {
  let length = 0;
  for (const piece of pieces) length += piece.length;
  return length;
}

export class BodyPackets {
  /** Bytes of all packets. An empty body is an empty packet. */
  readonly length: number;
  readonly #pieces: readonly Uint8Array[];
  readonly #bodyBytes: number;
  /** Bytes of packets that have left. */
  #sent = 0;
  /** The place of the first byte of the body that has not: a piece, and a byte of that. */
  #piece = 0;
  #offset = 0;

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces;
    this.#bodyBytes = lengthOf(pieces);
    const packets = Math.max(1, Math.ceil(this.#bodyBytes / MAX_REPLY_PAYLOAD));
    this.length = packets * HEAD_BYTES + this.#bodyBytes;
  }

  /** Bytes that have not left. */
  get rest(): number {
    return this.length - this.#sent;
  }

  /**
   * Copies what has not left to a place in `target`, as much as there is room for up to `end`.
   * @returns the number of bytes
   * @throws Error the memory of the body was given away meanwhile
   */
  copyTo(target: Uint8Array, start = 0, end = target.length): number {
    let at = this.#sent;
    let piece = this.#piece;
    let offset = this.#offset;
    let to = start;
    while (to < end && at < this.length) {
      const packet = Math.floor(at / PACKET_BYTES);
      const inPacket = at - packet * PACKET_BYTES;
      if (inPacket < HEAD_BYTES) {
        target[to++] = this.#headByte(packet, inPacket);
        at += 1;
        continue;
      }
      const bytes = this.#pieces[piece];
      if (bytes === undefined) throw new Error("the memory of a new body was given away before it was sent");
      const count = Math.min(PACKET_BYTES - inPacket, end - to, bytes.length - offset);
      if (count <= 0) {
        piece += 1;
        offset = 0;
        continue;
      }
      Buffer.prototype.copy.call(bytes, target, to, offset, offset + count);
      to += count;
      at += count;
      offset += count;
    }
    return to - start;
  }

  /** So many bytes more have left. */
  advance(count: number): void {
    let bytes = bodyBytesIn(this.#sent + count) - bodyBytesIn(this.#sent);
    this.#sent += count;
    while (bytes > 0 && this.#piece < this.#pieces.length) {
      const step = Math.min(bytes, this.#pieces[this.#piece]!.length - this.#offset);
      bytes -= step;
      this.#offset += step;
      if (bytes === 0) return;
      this.#piece += 1;
      this.#offset = 0;
    }
  }

  /** A byte of what is in front of a packet's payload. */
  #headByte(packet: number, at: number): number {
    if (at === LENGTH_BYTES) return REPLY.REPLBODY;
    const length = 1 + Math.min(MAX_REPLY_PAYLOAD, this.#bodyBytes - packet * MAX_REPLY_PAYLOAD);
    return (length >>> (8 * (LENGTH_BYTES - 1 - at))) & 0xff;
  }
}

/** How much of the first bytes of the packets is of the body. */
function bodyBytesIn(bytes: number): number {
  const packets = Math.floor(bytes / PACKET_BYTES);
  return packets * MAX_REPLY_PAYLOAD + Math.max(0, bytes - packets * PACKET_BYTES - HEAD_BYTES);
}
