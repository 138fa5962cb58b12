/**
 * The unread packets of a connection: how many there are, which replies the mail server waits for, and how much of the
 * last packet is missing. With this another thread can answer for the session, and find its next packet, if this thread is
 * lost. `Framer.survey` fills it in.
 */
import { EMPTY } from "./bytes.ts";

/** Marks of a command, or'ed: it gets a reply, it ends a message, it opens a session. */
export const OWED = 1;
export const END = 2;
export const OPENING = 4;

export class Survey {
  /** Whole packets that were not taken yet. */
  untaken = 0;
  /** How many of them get a reply. */
  owed = 0;
  /** The code of the first of those, at the time of the survey; 0 if there was none. */
  firstOwed = 0;
  /** How many end a message. */
  ends = 0;
  /** How many open a session, without those that get no reply. */
  openings = 0;
  /** The code of the last packet, at the time of the survey. */
  lastCode = 0;
  /** The first byte of its payload; 0 if it has none. */
  lastFirst = 0;
  /** Bytes that have arrived of the partial packet, length field included; 0 between packets. */
  arrived = 0;
  /** Bytes of the partial packet (or of its length field) that are missing; 0 between packets. */
  missing = 0;
  /** The code that was given to `Framer.expectLost`, while some of that packet is still to come; else null. */
  lostCode: number | null = null;

  /** It describes all bytes that were pushed. */
  isCurrent = false;
  #marks: Uint8Array = EMPTY;
  #silent = 0;

  /**
   * A survey begins.
   * @param marks by code byte: {@link OWED}, {@link END} and {@link OPENING}, or'ed
   * @param silent number of packets from here on that get no reply, whatever their code
   */
  begin(marks: Uint8Array, silent: number): void {
    this.#marks = marks;
    this.#silent = silent;
    this.isCurrent = true;
    this.untaken = 0;
    this.owed = 0;
    this.firstOwed = 0;
    this.ends = 0;
    this.openings = 0;
  }

  /** The survey has found a whole packet. @param first the first byte of its payload, 0 if it has none */
  found(code: number, first: number): void {
    this.untaken += 1;
    this.lastCode = code;
    this.lastFirst = first;
    const marks = this.#marks[code]!;
    if ((marks & END) !== 0) this.ends += 1;
    if (this.untaken <= this.#silent) return;
    if ((marks & OPENING) !== 0) this.openings += 1;
    if ((marks & OWED) === 0) return;
    if (this.owed === 0) this.firstOwed = code;
    this.owed += 1;
  }

  /** The survey has found the end of what was pushed. */
  endsWith(arrived: number, missing: number, lostCode: number | null): void {
    this.arrived = arrived;
    this.missing = missing;
    this.lostCode = lostCode;
  }

  /** A packet is taken: it is unread no longer. */
  take(code: number): void {
    if (!this.isCurrent) return;
    const marks = this.#marks[code]!;
    this.untaken -= 1;
    if ((marks & END) !== 0) this.ends -= 1;
    if (this.#silent > 0) {
      this.#silent -= 1;
      return;
    }
    if ((marks & OWED) !== 0) this.owed -= 1;
    if ((marks & OPENING) !== 0) this.openings -= 1;
  }
}
