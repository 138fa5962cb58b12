/**
 * Cuts the byte stream into packets, whatever the splits. A packet is `uint32 length`, then `length` bytes: a code and
 * its payload. Packets that lie whole in one read are views of it; only a packet that straddles reads is copied.
 *
 * Cost: O(1) and no allocation a packet that lies whole in its read; a straddling packet is copied into a buffer that
 * at most doubles what has really arrived of it, so a length field alone reserves nothing.
 */
import { EMPTY, freeBytes, readU32 } from "./bytes.ts";
import { LENGTH_BYTES } from "./constants.ts";
import { ProtocolError } from "./errors.ts";
import { HEAD_BYTES, packetEnd } from "./packets.ts";
import type { Survey } from "./survey.ts";

const MIN_CARRY_BYTES = 1024;

/**
 * Usage: `push` a read, then take packets with `next` until it gives false. After a `true`, `code` and
 * `bytes[start, end)` (the payload) describe the packet, until the next call of `next` or `push`; {@link Framer.lend} makes
 * them valid for longer. The framer owns the reads that are pushed: it frees their memory once all packets are taken.
 */
export class Framer {
  /** The code byte of the current packet. */
  code = 0;
  /** Holds the current packet's payload, from `start` to `end`. */
  bytes: Uint8Array = EMPTY;
  start = 0;
  end = 0;

  readonly #maxPacketBytes: number;
  #chunk: Uint8Array = EMPTY;
  /** Bytes to drop of the next reads: they end a packet whose beginning is lost, and whose code this is. */
  #lost = 0;
  #lostCode = 0;
  /** The bytes of a packet in the chunk stay in use after the packet is the current one. */
  #isLent = false;
  #at = 0;
  /** The partial packet, length field included: bytes that were copied from earlier reads. */
  #carry: Uint8Array = EMPTY;
  #carried = 0;
  /** Memory of the last carried packet. The next one uses it again, as long as each packet straddles reads. */
  #spare: Uint8Array = EMPTY;

  /** @param maxPacketBytes limit of a packet's length field, at least 1 */
  constructor(maxPacketBytes: number) {
    this.#maxPacketBytes = maxPacketBytes;
  }

  /** Takes the next read, and its memory. Bytes of the read before that `next` has not taken are kept in front of it. */
  push(bytes: Uint8Array): void {
    const chunk = this.#lost > 0 ? this.#passLost(bytes) : bytes;
    if (this.#at < this.#chunk.length) {
      const before = this.#chunk;
      this.#chunk = Buffer.concat([before.subarray(this.#at), chunk]);
      freeBytes(chunk);
      if (!this.#isLent && this.bytes !== before) freeBytes(before);
    } else this.#chunk = chunk;
    this.#isLent = false;
    this.#at = 0;
  }

  /**
   * Moves to the next packet; false when more bytes are needed.
   * @throws ProtocolError PMILTER_ERR_LENGTH_ZERO, PMILTER_ERR_PACKET_TOO_LARGE
   */
  next(): boolean {
    if (this.#carried > 0) return this.#nextCarried();
    const chunk = this.#chunk;
    const at = this.#at;
    const left = chunk.length - at;
    if (left >= LENGTH_BYTES) {
      const length = this.#checked(readU32(chunk, at));
      if (left - LENGTH_BYTES >= length) {
        this.bytes = chunk;
        this.code = chunk[at + LENGTH_BYTES]!;
        this.start = at + HEAD_BYTES;
        this.end = at + LENGTH_BYTES + length;
        this.#at = this.end;
        return true;
      }
    }
    // An idle connection keeps no memory for packets to come.
    if (left === 0) this.#spare = EMPTY;
    this.#carryOver(left);
    this.#release();
    return false;
  }

  /**
   * Fills in a survey of the packets that were pushed and not taken. Call it between packets.
   * @param marks see {@link Survey.begin}
   */
  survey(survey: Survey, marks: Uint8Array, silent: number): void {
    survey.begin(marks, silent);
    const chunk = this.#chunk;
    let at = this.#at;
    if (this.#carried > 0) {
      const left = chunk.length - at;
      const missing = LENGTH_BYTES - this.#carried;
      if (left < missing) {
        survey.endsWith(this.#carried + left, missing - left, null);
        return;
      }
      const head = Buffer.concat([
        this.#carry.subarray(0, this.#carried),
        chunk.subarray(at, at + Math.max(0, missing) + 2),
      ]);
      const length = readU32(head, 0);
      at += LENGTH_BYTES + length - this.#carried;
      if (at > chunk.length) {
        survey.endsWith(this.#carried + left, at - chunk.length, null);
        return;
      }
      survey.found(head[LENGTH_BYTES]!, length > 1 ? head[HEAD_BYTES]! : 0);
    }
    const to = chunk.length;
    for (let end = packetEnd(chunk, at, to); end !== -1; end = packetEnd(chunk, at, to)) {
      survey.found(chunk[at + LENGTH_BYTES]!, end > at + HEAD_BYTES ? chunk[at + HEAD_BYTES]! : 0);
      at = end;
    }
    const left = to - at;
    if (this.#lost > 0) survey.endsWith(left, this.#lost, this.#lostCode);
    else survey.endsWith(left, left === 0 ? 0 : missingOf(chunk, at, left), null);
  }

  /**
   * Copies the first `count` bytes of the partial packet, of which `arrived` have arrived, to `target[at]` and on. Call it
   * after {@link Framer.survey}, before a packet is taken.
   */
  copyPartial(arrived: number, target: Uint8Array, at: number, count: number): void {
    // Bytes of the packet that lie in the chunk; the carried ones come before them.
    const inChunk = Math.min(arrived, this.#chunk.length - this.#at);
    const carried = arrived - inChunk;
    const fromCarry = Math.min(count, carried);
    for (let index = 0; index < fromCarry; index++) target[at + index] = this.#carry[index]!;
    const from = this.#chunk.length - inChunk;
    for (let index = fromCarry; index < count; index++) target[at + index] = this.#chunk[from + index - carried]!;
  }

  /**
   * The next `missing` bytes end a packet that began in another worker, and of which only the code is known. They are
   * dropped. Then `next` gives the packet without a payload; with the code 0 it gives none.
   */
  expectLost(missing: number, code: number): void {
    this.#lost = missing;
    this.#lostCode = code;
  }

  #passLost(bytes: Uint8Array): Uint8Array {
    const passed = Math.min(this.#lost, bytes.length);
    this.#lost -= passed;
    const rest = bytes.subarray(passed);
    if (this.#lost > 0 || this.#lostCode === 0) return rest;
    return Buffer.concat([Buffer.from([0, 0, 0, 1, this.#lostCode]), rest]);
  }

  /** True if a packet or a part of it has been pushed and not taken, or if the end of a lost packet is still to come. */
  get hasRest(): boolean {
    return this.#carried > 0 || this.#at < this.#chunk.length || this.#lost > 0;
  }

  /** Bytes pushed and not taken. */
  get restBytes(): number {
    return this.#carried + this.#chunk.length - this.#at;
  }

  /** Keeps the current packet's bytes valid for as long as anything refers to them: their memory is left to the collector. */
  lend(): void {
    if (this.bytes === this.#chunk) this.#isLent = true;
    else if (this.bytes === this.#spare) this.#spare = EMPTY;
  }

  /** Drops the references to the read, so that an idle connection does not keep it. */
  #release(): void {
    if (!this.#isLent) freeBytes(this.#chunk);
    this.#isLent = false;
    this.#chunk = EMPTY;
    this.#at = 0;
    this.bytes = EMPTY;
    this.start = 0;
    this.end = 0;
  }

  #checked(length: number): number {
    if (length === 0) {
      throw new ProtocolError("PMILTER_ERR_LENGTH_ZERO", "packet of length 0, expected at least a command byte");
    }
    if (length > this.#maxPacketBytes) {
      throw new ProtocolError(
        "PMILTER_ERR_PACKET_TOO_LARGE",
        `packet of ${length} bytes, expected at most ${this.#maxPacketBytes} (limits.packet)`,
      );
    }
    return length;
  }

  /** Bytes that the carried packet (or its length field) still needs. */
  #carryDue(): number {
    return missingOf(this.#carry, 0, this.#carried);
  }

  #nextCarried(): boolean {
    if (this.#carried < LENGTH_BYTES) {
      this.#carryOver(Math.min(LENGTH_BYTES - this.#carried, this.#chunk.length - this.#at));
      if (this.#carried < LENGTH_BYTES) {
        this.#release();
        return false;
      }
    }
    this.#checked(readU32(this.#carry, 0));
    this.#carryOver(Math.min(this.#carryDue(), this.#chunk.length - this.#at));
    if (this.#carryDue() > 0) {
      this.#release();
      return false;
    }
    this.bytes = this.#carry;
    this.#spare = this.#carry;
    this.code = this.#carry[LENGTH_BYTES]!;
    this.start = HEAD_BYTES;
    this.end = this.#carried;
    this.#carry = EMPTY;
    this.#carried = 0;
    return true;
  }

  #carryOver(count: number): void {
    if (count === 0) return;
    const needed = this.#carried + count;
    if (needed > this.#carry.length) {
      const larger =
        needed <= this.#spare.length
          ? this.#spare
          : Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#carry.length, MIN_CARRY_BYTES));
      this.#spare = EMPTY;
      larger.set(this.#carry.subarray(0, this.#carried));
      this.#carry = larger;
    }
    Buffer.prototype.copy.call(this.#chunk, this.#carry, this.#carried, this.#at, this.#at + count);
    this.#carried = needed;
    this.#at += count;
  }
}

/** Bytes that a packet at `at`, or its length field, still needs when `arrived` of it are there. */
function missingOf(bytes: Uint8Array, at: number, arrived: number): number {
  if (arrived < LENGTH_BYTES) return LENGTH_BYTES - arrived;
  return LENGTH_BYTES + readU32(bytes, at) - arrived;
}
