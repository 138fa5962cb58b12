/**
 * Cuts the byte stream into packets, whatever the splits. A packet is `uint32 length`, then `length` bytes: a code and
 * its payload. Packets that lie whole in one read are views of it; only one that straddles reads is copied.
 *
 * Cost: O(1) and no allocation a packet that lies whole in its read; a straddling packet is copied into a buffer that
 * at most doubles what has really arrived of it, so a length field alone reserves nothing.
 */
import { EMPTY, freeBytes, readU32 } from "./bytes.ts";
import { LENGTH_BYTES } from "./constants.ts";
import { ProtocolError } from "./errors.ts";

const MIN_CARRY_BYTES = 1024;

/** What is looked for by {@link Framer.survey}: packets that get a reply, that end a message, that begin a session. */
export const OWED = 1;
export const END = 2;
export const BEGINNING = 4;

/**
 * Usage: `push` a read, then take packets with `next` until it gives false. After a `true`, `code` and
 * `bytes[start, end)` (the payload) describe the packet, until the next call of `next` or `push`; {@link Framer.lend} says
 * that somebody looks at them for longer. What was pushed is the framer's: its memory is given back once it was taken.
 */
export class Framer {
  /** The code byte of the current packet. */
  code = 0;
  /** Holds the current packet's payload, from `start` to `end`. */
  bytes: Uint8Array = EMPTY;
  start = 0;
  end = 0;

  /** Found by {@link Framer.survey}: bytes missing of the last packet (or of its length field), 0 between packets. */
  due = 0;
  /** Found by {@link Framer.survey}: whole packets, not taken yet, that get a reply. */
  owed = 0;
  /** Found by {@link Framer.survey}: the code of the first of those when it looked. */
  firstOwed = 0;
  /** Found by {@link Framer.survey}: whole packets not taken yet. */
  untaken = 0;
  /** Found by {@link Framer.survey}: how many of those are of the watched kind. */
  watched = 0;
  /** Found by {@link Framer.survey}: how many of those are of the other watched kind, apart from the ones that get no reply. */
  beginnings = 0;
  /** Found by {@link Framer.survey}: the code of the last of those when it looked. */
  lastCode = 0;
  /** Found by {@link Framer.survey}: the first byte of that one's payload, 0 if it has none. */
  lastFirst = 0;
  /** Found by {@link Framer.survey}: bytes that have arrived of the last packet, if it is not whole. */
  begun = 0;

  readonly #maxPacketBytes: number;
  #chunk: Uint8Array = EMPTY;
  #isSurveyed = false;
  /** By code, as the last survey was told. */
  #marks: Uint8Array = EMPTY;
  /** How many of the next packets get no reply whatever their code, as the last survey was told. */
  #silent = 0;
  /** Bytes to drop of what comes next: they end a packet whose beginning is lost, and whose code this is. */
  #lost = 0;
  #lostCode = 0;
  /** Somebody looks at a packet in the chunk for longer than it is the current one. */
  #isLent = false;
  #at = 0;
  /** The beginning of a packet whose end has not arrived, length field included. */
  #carry: Uint8Array = EMPTY;
  #carried = 0;
  /** The memory of the packet before, which was carried as well: for the next, as long as each of them straddles reads. */
  #spare: Uint8Array = EMPTY;

  /** @param maxPacketBytes limit of a packet's length field, at least 1 */
  constructor(maxPacketBytes: number) {
    this.#maxPacketBytes = maxPacketBytes;
  }

  /** Takes the next read, and its memory. What `next` has not taken of the one before is kept in front of it. */
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
    this.#isSurveyed = false;
  }

  /**
   * Moves to the next packet; false when more bytes are needed.
   * @throws ProtocolError PMILTER_ERR_LENGTH_ZERO, PMILTER_ERR_PACKET_TOO_LARGE
   */
  next(): boolean {
    if (!this.#advance()) return false;
    if (this.#isSurveyed) {
      const marks = this.#marks[this.code]!;
      this.untaken -= 1;
      if ((marks & END) !== 0) this.watched -= 1;
      if (this.#silent > 0) this.#silent -= 1;
      else {
        if ((marks & OWED) !== 0) this.owed -= 1;
        if ((marks & BEGINNING) !== 0) this.beginnings -= 1;
      }
    }
    return true;
  }

  #advance(): boolean {
    if (this.#carried > 0) return this.#nextCarried();
    const chunk = this.#chunk;
    const at = this.#at;
    const left = chunk.length - at;
    if (left >= LENGTH_BYTES) {
      const length = this.#checked(readU32(chunk, at));
      if (left - LENGTH_BYTES >= length) {
        this.bytes = chunk;
        this.code = chunk[at + LENGTH_BYTES]!;
        this.start = at + LENGTH_BYTES + 1;
        this.end = at + LENGTH_BYTES + length;
        this.#at = this.end;
        return true;
      }
    }
    // An idle connection holds no memory for what it does not have.
    if (left === 0) this.#spare = EMPTY;
    this.#carryOver(left);
    this.#release();
    return false;
  }

  /**
   * Looks through what was pushed without taking it, and records in `due`, `begun`, `owed`, `firstOwed` and `untaken` what
   * another thread needs to answer for this connection and to find its next packet (docs/design.md, "Threads"). Call it between packets;
   * once a push it looks, after that `owed`, `untaken` and `watched` are counted down as packets are taken.
   *
   * @param marks by code byte: {@link OWED}, {@link END} and {@link BEGINNING}, or'ed
   * @param silent how many packets from here on get none, whatever their code
   */
  survey(marks: Uint8Array, silent = 0): void {
    if (this.#isSurveyed) return;
    this.#isSurveyed = true;
    this.#marks = marks;
    this.#silent = silent;
    const chunk = this.#chunk;
    this.owed = 0;
    this.firstOwed = 0;
    this.untaken = 0;
    this.watched = 0;
    this.beginnings = 0;
    let at = this.#at;
    if (this.#carried > 0) {
      const left = chunk.length - at;
      const missing = LENGTH_BYTES - this.#carried;
      if (left < missing) {
        this.due = missing - left;
        this.begun = this.#carried + left;
        return;
      }
      const head = Buffer.concat([
        this.#carry.subarray(0, this.#carried),
        chunk.subarray(at, at + Math.max(0, missing) + 2),
      ]);
      const length = readU32(head, 0);
      at += LENGTH_BYTES + length - this.#carried;
      if (at <= chunk.length) this.#count(head, 0, length);
      else this.begun = this.#carried + left;
    }
    while (chunk.length - at >= LENGTH_BYTES) {
      const start = at;
      const length = readU32(chunk, at);
      at += LENGTH_BYTES + length;
      if (at <= chunk.length) this.#count(chunk, start, length);
      else this.begun = chunk.length - start;
    }
    const left = chunk.length - at;
    this.due = left > 0 ? LENGTH_BYTES - left : -left;
    if (this.#lost > 0) this.due = this.#lost;
    if (left > 0) this.begun = left;
    else if (left === 0) this.begun = 0;
  }

  #count(bytes: Uint8Array, at: number, length: number): void {
    const code = bytes[at + LENGTH_BYTES]!;
    this.untaken += 1;
    this.lastCode = code;
    this.lastFirst = length > 1 ? bytes[at + LENGTH_BYTES + 1]! : 0;
    const marks = this.#marks[code]!;
    if ((marks & END) !== 0) this.watched += 1;
    if (this.untaken <= this.#silent) return;
    if ((marks & BEGINNING) !== 0) this.beginnings += 1;
    if ((marks & OWED) === 0) return;
    if (this.owed === 0) this.firstOwed = code;
    this.owed += 1;
  }

  /**
   * Copies the first `count` bytes of the packet that has begun, at most {@link Framer.begun}, to `target[at]` and on.
   * Call it after {@link Framer.survey}, before a packet is taken.
   */
  copyBegun(target: Uint8Array, at: number, count: number): void {
    // Bytes of it that lie in the chunk; what is carried of it comes before them.
    const inChunk = Math.min(this.begun, this.#chunk.length - this.#at);
    const carried = this.begun - inChunk;
    const fromCarry = Math.min(count, carried);
    for (let index = 0; index < fromCarry; index++) target[at + index] = this.#carry[index]!;
    const from = this.#chunk.length - inChunk;
    for (let index = fromCarry; index < count; index++) target[at + index] = this.#chunk[from + index - carried]!;
  }

  /**
   * The next `due` bytes end a packet that began elsewhere and is lost but for its code: it comes without a payload once
   * they are here, or with the code 0 not at all.
   */
  expectLost(due: number, code: number): void {
    this.#lost = due;
    this.#lostCode = code;
  }

  #passLost(bytes: Uint8Array): Uint8Array {
    const passed = Math.min(this.#lost, bytes.length);
    this.#lost -= passed;
    const rest = bytes.subarray(passed);
    if (this.#lost > 0 || this.#lostCode === 0) return rest;
    return Buffer.concat([Buffer.from([0, 0, 0, 1, this.#lostCode]), rest]);
  }

  /** The code that was given to {@link Framer.expectLost}, while some of the packet is still to come; else null. */
  get lostCode(): number | null {
    return this.#lost > 0 ? this.#lostCode : null;
  }

  /** True if a packet, or a part of one, has been pushed and not taken, or the end of a lost one is still to come. */
  get hasRest(): boolean {
    return this.#carried > 0 || this.#at < this.#chunk.length || this.#lost > 0;
  }

  /** Bytes pushed and not taken. */
  get restBytes(): number {
    return this.#carried + this.#chunk.length - this.#at;
  }

  /** The current packet's bytes are looked at by somebody else, for as long as he likes: their memory is his as well. */
  lend(): void {
    if (this.bytes === this.#chunk) this.#isLent = true;
    else if (this.bytes === this.#spare) this.#spare = EMPTY;
  }

  /** Drops the references to what was pushed, so that an idle connection does not hold its last read. */
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
    if (this.#carried < LENGTH_BYTES) return LENGTH_BYTES - this.#carried;
    return LENGTH_BYTES + readU32(this.#carry, 0) - this.#carried;
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
    this.start = LENGTH_BYTES + 1;
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
