/**
 * Replies that a socket has not taken yet. A large body is not copied into it: its packets are made when they leave, so that
 * a mail server that reads slowly costs no memory for them.
 */
import { BodyPackets, type HeldBody } from "../protocol/body-packets.ts";
import type { ReplyWriter } from "../protocol/encode.ts";

/** The socket, as far as it is used here. */
export interface WritableSocket {
  /** @returns the number of bytes that were taken; negative if the peer is gone */
  write(bytes: Uint8Array, from: number, length: number): number;
}

/**
 * What a write has come to: all has left; the rest waits for the next turn of the event loop, or for the socket, which takes
 * no more now; or the peer is gone.
 */
export type Written = "all" | "turn" | "socket" | "gone";

/** So much is written in a turn of the event loop; then the other connections have theirs. */
const TURN_BYTES = 256 * 1024;

/** Packets on their way to a socket, of one connection at a time. Made when a large body is first sent. */
let packetsBuffer: Uint8Array | null = null;

/** A held body, part of which may have left. */
class BodyPart {
  readonly #body: HeldBody;
  readonly #packets: BodyPackets;

  constructor(body: HeldBody) {
    this.#body = body;
    this.#packets = new BodyPackets(body.pieces);
  }

  get rest(): number {
    return this.#packets.rest;
  }

  /** @returns the number of bytes that were taken, and how many could have been */
  write(socket: WritableSocket, most: number): { readonly taken: number; readonly given: number } {
    packetsBuffer ??= Buffer.allocUnsafeSlow(TURN_BYTES);
    const given = this.#packets.copyTo(packetsBuffer, 0, Math.min(most, TURN_BYTES));
    const taken = socket.write(packetsBuffer, 0, given);
    if (taken > 0) this.#packets.advance(taken);
    return { taken, given };
  }

  release(): void {
    this.#body.release();
  }
}

/** Bytes, some of which may have left. */
class BytesPart {
  readonly #bytes: Uint8Array;
  #sent = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get rest(): number {
    return this.#bytes.length - this.#sent;
  }

  write(socket: WritableSocket, most: number): { readonly taken: number; readonly given: number } {
    const given = Math.min(most, this.rest);
    const taken = socket.write(this.#bytes, this.#sent, given);
    this.#sent += Math.max(0, taken);
    return { taken, given };
  }

  release(): void {}
}

export class WriteQueue {
  readonly #parts: (BodyPart | BytesPart)[] = [];

  /** Takes what a writer has, but its first bytes, which have left already. */
  take(writer: ReplyWriter, from = 0): void {
    let start = from;
    for (const { at, body } of writer.takeHeld()) {
      this.#copy(writer, start, at);
      this.#parts.push(new BodyPart(body));
      start = at;
    }
    this.#copy(writer, start, writer.length);
  }

  #copy(writer: ReplyWriter, start: number, end: number): void {
    if (start < end) this.#parts.push(new BytesPart(Buffer.from(writer.buffer.subarray(start, end))));
  }

  /** Writes as much as a turn of the event loop has time for, and the socket takes. */
  write(socket: WritableSocket): Written {
    let left = TURN_BYTES;
    for (let part = this.#parts[0]; part !== undefined; part = this.#parts[0]) {
      if (left === 0) return "turn";
      const { taken, given } = part.write(socket, left);
      if (taken < 0) return "gone";
      left -= taken;
      if (part.rest === 0) this.#parts.shift()!.release();
      else if (taken < given) return "socket";
    }
    return "all";
  }

  /** Nothing of it is sent any more. */
  drop(): void {
    for (const part of this.#parts.splice(0)) part.release();
  }
}
