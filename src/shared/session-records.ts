/**
 * Shared memory between the main thread and its workers, a record for each connection's session. Before a worker runs the
 * handlers of a read, it writes here all that the main thread needs to answer for the session should the worker be lost:
 * where the next packet begins, which replies are owed, and the packets that began the session. Nothing here allocates
 * but {@link SessionRecords.read}, which the main thread calls.
 */
import { decodeText, encodeText } from "../protocol/bytes.ts";
import { COMMAND, LENGTH_BYTES } from "../protocol/constants.ts";
import type { Framer } from "../protocol/framer.ts";
import { HEAD_BYTES, PacketWalk } from "../protocol/packets.ts";
import { type Phase, PHASE_LIST, type PhaseInfo } from "../protocol/phases.ts";
import { type SessionState, SESSION_STATES } from "../protocol/state.ts";
import type { Survey } from "../protocol/survey.ts";

/** Bytes of a record: its words, texts for the log, then the packets of the opening. */
const SLOT_BYTES = 1280;
const SLOT_WORDS = 20;
const HEAD_AT = SLOT_WORDS * 4;
/** The bytes that are always kept of a partial packet: its head and a byte. Of MACRO that byte is its stage. */
const PARTIAL_HEAD_BYTES = HEAD_BYTES + 1;
const QUEUE_ID_AT = HEAD_AT + 8;
const QUEUE_ID_BYTES = 24;
const USER_AT = QUEUE_ID_AT + QUEUE_ID_BYTES;
const USER_BYTES = 64;
const SENDER_AT = USER_AT + USER_BYTES;
const SENDER_BYTES = 176;
const OPENING_AT = SENDER_AT + SENDER_BYTES;
const OPENING_BYTES = SLOT_BYTES - OPENING_AT;

/** The words of a record. */
const SLOT = {
  /** 1 once the worker has taken the descriptor that it was given. */
  ADOPTED: 0,
  /** Index of the session's state in `SESSION_STATES`, and above it, from bit 8, the reply byte of the pending verdict. */
  STATE: 1,
  /** Number of replies that the mail server waits for. */
  OWED: 2,
  /** The command of the first of those; 0 if that is not known. */
  FIRST_OWED: 3,
  /** Number of whole packets that were read and not worked on. */
  UNTAKEN: 4,
  /** Bytes of the partial packet that are missing: see `Survey`. */
  MISSING: 5,
  /** Bytes of the partial packet that have arrived. */
  ARRIVED: 6,
  /** The handler that runs or is awaited: phase index + 1 in the high half, filter index + 1 in the low one; 0: none. */
  CALL: 7,
  /** The negotiated options. */
  VERSION: 8,
  ACTIONS: 9,
  PROTOCOL: 10,
  /** Bytes of the opening; -1 if it did not fit. */
  OPENING_LENGTH: 11,
  /** Bytes of the opening up to the end of CONNECT. */
  CONNECT_LENGTH: 12,
  /** 1 if all of the partial packet is kept, at the end of the record. */
  IS_PARTIAL_KEPT: 13,
  /** See {@link SlotRecord}. */
  FLAGS: 14,
  QUEUE_ID_LENGTH: 15,
  /** When the phase first awaited a handler: the lower 32 bits of the wall clock in milliseconds, the clock that all threads share. */
  WAITING_SINCE: 16,
  USER_LENGTH: 17,
  /** Bytes of the sender of the last message, plus 1; 0 before the first message. */
  SENDER_LENGTH: 18,
  /** When its MAIL came, on the clock of WAITING_SINCE. */
  MAIL_AT: 19,
} as const;

/** The flags of a session, or'ed in one word. */
export const FLAG = {
  /** A reply has left in part. */
  UNSENT: 1,
  /** The session is over but for the end of its connection. */
  OVER: 2,
  /** See {@link SlotRecord} for those that follow. */
  MACROS_AHEAD: 4,
  IN_OPENING: 8,
  ANSWERS_OPENING: 16,
  ANEW: 32,
  OPENING_AHEAD: 64,
  READ: 128,
} as const;
/** The flags about packets that have come and were not worked on. */
export const AHEAD_FLAGS = FLAG.MACROS_AHEAD | FLAG.OPENING_AHEAD | FLAG.IN_OPENING | FLAG.ANSWERS_OPENING;

export interface SessionRecordsLayout {
  readonly buffer: SharedArrayBuffer;
  readonly slots: number;
}

/** The record of a session, as the main thread reads it. */
export interface SlotRecord {
  readonly state: SessionState;
  /** The reply byte of the pending verdict; 0 if there is none. */
  readonly pendingCode: number;
  readonly owed: number;
  readonly firstOwed: number;
  readonly untaken: number;
  readonly missing: number;
  /** The partial packet: all bytes that have arrived, or the first of them. */
  readonly partial: Uint8Array;
  readonly isPartialKept: boolean;
  /** The handler that runs or is awaited. */
  readonly call: { readonly phase: Phase; readonly filter: number } | null;
  /** For how many milliseconds the phase has awaited handlers, if it does so. */
  readonly waitedMs: number;
  readonly version: number;
  readonly actions: number;
  readonly protocol: number;
  /** The packets MACRO C, CONNECT, MACRO H, HELO as they came; null if they did not fit. */
  readonly opening: Uint8Array | null;
  readonly isHalfSent: boolean;
  readonly isOver: boolean;
  /** Macros of a message have come whose command has not. */
  readonly hasMacrosAhead: boolean;
  /** CONNECT or HELO, or macros of theirs, have come that were not worked on: `opening` is not complete. */
  readonly isOpeningAhead: boolean;
  /** The opening is being replayed; `untaken` does not count its packets. */
  readonly isInOpening: boolean;
  /** The last packet of the opening gets a reply. */
  readonly answersOpening: boolean;
  /** Another session has begun on this connection since: knowledge of earlier losses is out of date. */
  readonly isAnew: boolean;
  /** The worker has read from the connection. */
  readonly hasRead: boolean;
  /** Of the last message; long texts are cut. */
  readonly queueId: string;
  readonly user: string;
  /** Null before the first message. */
  readonly sender: string | null;
  /** Milliseconds since its MAIL came. */
  readonly messageMs: number;
}

export class SessionRecords {
  readonly layout: SessionRecordsLayout;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #walk = new PacketWalk();

  static create(slots: number): SessionRecords {
    return new SessionRecords({ buffer: new SharedArrayBuffer(slots * SLOT_BYTES), slots });
  }

  constructor(layout: SessionRecordsLayout) {
    this.layout = layout;
    this.#words = new Int32Array(layout.buffer);
    this.#bytes = new Uint8Array(layout.buffer);
  }

  /** Clears the record: its slot is about to be given to a worker. */
  offer(slot: number): void {
    const at = slotAt(slot);
    this.#words.fill(0, at, at + SLOT_WORDS);
  }

  /** The worker has taken the descriptor. */
  adopt(slot: number): void {
    Atomics.store(this.#words, slotAt(slot) + SLOT.ADOPTED, 1);
  }

  isAdopted(slot: number): boolean {
    return Atomics.load(this.#words, slotAt(slot) + SLOT.ADOPTED) === 1;
  }

  /** The packets that were read and not worked on. @param firstOwed the command of the first owed reply, 0 if that is not known */
  setOwed(slot: number, owed: number, firstOwed: number, untaken: number): void {
    const at = slotAt(slot);
    const words = this.#words;
    words[at + SLOT.OWED] = owed;
    words[at + SLOT.FIRST_OWED] = firstOwed;
    words[at + SLOT.UNTAKEN] = untaken;
  }

  /** The partial packet at the end of the last read. */
  setPartial(slot: number, framer: Framer, { arrived, lostCode, missing }: Survey): void {
    const at = slotAt(slot);
    const words = this.#words;
    words[at + SLOT.MISSING] = missing;
    words[at + SLOT.ARRIVED] = arrived;
    if (lostCode !== null) {
      this.#recordLost(at, lostCode);
      return;
    }
    if (arrived === 0) return;
    framer.copyPartial(arrived, this.#bytes, at * 4 + HEAD_AT, Math.min(arrived, PARTIAL_HEAD_BYTES));
    const fits = arrived <= OPENING_BYTES - Math.max(0, words[at + SLOT.OPENING_LENGTH]!);
    words[at + SLOT.IS_PARTIAL_KEPT] = fits ? 1 : 0;
    if (fits) framer.copyPartial(arrived, this.#bytes, at * 4 + SLOT_BYTES - arrived, arrived);
  }

  /** Of the partial packet only the code is known: it is recorded like a packet that was too long to be kept. */
  #recordLost(at: number, code: number): void {
    this.#words[at + SLOT.ARRIVED] = PARTIAL_HEAD_BYTES;
    this.#words[at + SLOT.IS_PARTIAL_KEPT] = 0;
    const head = at * 4 + HEAD_AT;
    this.#bytes[head + LENGTH_BYTES] = code === 0 ? COMMAND.MACRO : code;
    // Lost macros have had their consequence already: see `Resumption.nextMessage`.
    this.#bytes[head + HEAD_BYTES] = COMMAND.UNKNOWN;
  }

  /** A handler begins to run. */
  enter(slot: number, phase: PhaseInfo, filter: number, untaken: number): void {
    const at = slotAt(slot);
    this.#words[at + SLOT.CALL] = ((phase.index + 1) << 16) | (filter + 1);
    this.#words[at + SLOT.UNTAKEN] = untaken;
  }

  /** A handler is awaited for the first time in this phase. @param alreadyMs how long it was awaited in another worker */
  wait(slot: number, alreadyMs: number): void {
    this.#words[slotAt(slot) + SLOT.WAITING_SINCE] = Date.now() - alreadyMs;
  }

  /** No handler of the session runs or is awaited. */
  endCall(slot: number): void {
    this.#words[slotAt(slot) + SLOT.CALL] = 0;
  }

  /** @param pendingCode see {@link SlotRecord} */
  setState(slot: number, state: SessionState, pendingCode: number): void {
    this.#words[slotAt(slot) + SLOT.STATE] = SESSION_STATES.indexOf(state) | (pendingCode << 8);
  }

  /** Sets some of the flags, and clears others: {@link FLAG}, or'ed. Flags that are in neither are left alone. */
  setFlags(slot: number, set: number, clear = 0): void {
    const at = slotAt(slot) + SLOT.FLAGS;
    this.#words[at] = (this.#words[at]! & ~clear) | set;
  }

  setOptions(slot: number, version: number, actions: number, protocol: number): void {
    const at = slotAt(slot);
    this.#words[at + SLOT.VERSION] = version;
    this.#words[at + SLOT.ACTIONS] = actions;
    this.#words[at + SLOT.PROTOCOL] = protocol;
  }

  /** Keeps `bytes[start, end)` as the queue id of the message at hand, for the log. A long one is cut. */
  setQueueId(slot: number, bytes: Uint8Array, start: number, end: number): void {
    const at = slotAt(slot);
    this.#words[at + SLOT.QUEUE_ID_LENGTH] = this.#keep(at * 4 + QUEUE_ID_AT, QUEUE_ID_BYTES, bytes, start, end);
  }

  /** MAIL has come: keeps `bytes[start, end)` as its sender, and the name that its client has authenticated as. */
  setMail(slot: number, bytes: Uint8Array, start: number, end: number, user: string): void {
    const at = slotAt(slot);
    this.#words[at + SLOT.SENDER_LENGTH] = this.#keep(at * 4 + SENDER_AT, SENDER_BYTES, bytes, start, end) + 1;
    this.#words[at + SLOT.USER_LENGTH] = user === "" ? 0 : this.#keepText(at * 4 + USER_AT, USER_BYTES, user);
    this.#words[at + SLOT.MAIL_AT] = Date.now();
  }

  #keepText(to: number, room: number, text: string): number {
    const bytes = encodeText(text);
    return this.#keep(to, room, bytes, 0, bytes.length);
  }

  /** @returns how many bytes were kept */
  #keep(to: number, room: number, bytes: Uint8Array, start: number, end: number): number {
    const length = Math.min(end - start, room);
    for (let index = 0; index < length; index++) this.#bytes[to + index] = bytes[start + index]!;
    return length;
  }

  /** The session has ended, and another may begin on its connection. */
  forgetOpening(slot: number): void {
    const at = slotAt(slot);
    this.#words[at + SLOT.OPENING_LENGTH] = 0;
    this.#words[at + SLOT.CONNECT_LENGTH] = 0;
  }

  /**
   * Keeps a packet if it belongs to an opening. A second HELO replaces the first; a CONNECT, or its macros, begin the
   * opening anew.
   */
  keepOpening(slot: number, code: number, bytes: Uint8Array, start: number, end: number): void {
    const of = code === COMMAND.MACRO ? bytes[start] : code;
    if (of !== COMMAND.CONNECT && of !== COMMAND.HELO) return;
    const at = slotAt(slot);
    const words = this.#words;
    let length = words[at + SLOT.OPENING_LENGTH]!;
    const connectLength = words[at + SLOT.CONNECT_LENGTH]!;
    // CONNECT follows its macros, which have begun the record anew; HELO follows its own.
    if (of === COMMAND.CONNECT) {
      if (code === COMMAND.MACRO || connectLength > 0) length = 0;
      words[at + SLOT.CONNECT_LENGTH] = 0;
    } else if (code === COMMAND.MACRO || this.#lastCode(slot, connectLength, length) === COMMAND.HELO) {
      length = connectLength;
    }
    const packet = HEAD_BYTES + end - start;
    // Without its CONNECT a session cannot be resumed, however short its HELO is.
    const isHeadless = of === COMMAND.HELO && words[at + SLOT.OPENING_LENGTH]! < 0 && connectLength === 0;
    if (length < 0 || isHeadless || length + packet > OPENING_BYTES) {
      words[at + SLOT.OPENING_LENGTH] = -1;
      return;
    }
    // The partial packet is kept at the end of the record: it gives way.
    if (length + packet + words[at + SLOT.ARRIVED]! > OPENING_BYTES) words[at + SLOT.IS_PARTIAL_KEPT] = 0;
    const to = at * 4 + OPENING_AT + length;
    this.#bytes[to] = 0;
    this.#bytes[to + 1] = 0;
    this.#bytes[to + 2] = (packet - LENGTH_BYTES) >> 8;
    this.#bytes[to + 3] = (packet - LENGTH_BYTES) & 0xff;
    this.#bytes[to + 4] = code;
    for (let index = start; index < end; index++) this.#bytes[to + HEAD_BYTES + index - start] = bytes[index]!;
    words[at + SLOT.OPENING_LENGTH] = length + packet;
    if (code === COMMAND.CONNECT) words[at + SLOT.CONNECT_LENGTH] = length + packet;
  }

  /** Keeps the opening of a session that began in another worker. */
  setOpening(slot: number, opening: Uint8Array): void {
    for (const packets = new PacketWalk(opening); packets.next();) {
      this.keepOpening(slot, packets.code, opening, packets.start, packets.end);
    }
  }

  /** Whether another worker could resume the session: its opening is complete. */
  mayResume(slot: number): boolean {
    return this.#words[slotAt(slot) + SLOT.OPENING_LENGTH]! >= 0;
  }

  read(slot: number): SlotRecord {
    const at = slotAt(slot);
    const words = this.#words;
    const length = words[at + SLOT.OPENING_LENGTH]!;
    const from = at * 4 + OPENING_AT;
    const arrived = words[at + SLOT.ARRIVED]!;
    const isPartialKept = words[at + SLOT.IS_PARTIAL_KEPT] === 1;
    const partialAt = at * 4 + (isPartialKept ? SLOT_BYTES - arrived : HEAD_AT);
    const call = words[at + SLOT.CALL]!;
    const flags = words[at + SLOT.FLAGS]!;
    const senderLength = words[at + SLOT.SENDER_LENGTH]!;
    return {
      state: SESSION_STATES[words[at + SLOT.STATE]! & 0xff]!,
      pendingCode: words[at + SLOT.STATE]! >> 8,
      owed: words[at + SLOT.OWED]!,
      firstOwed: words[at + SLOT.FIRST_OWED]!,
      untaken: words[at + SLOT.UNTAKEN]!,
      missing: words[at + SLOT.MISSING]!,
      partial: this.#bytes.slice(
        partialAt,
        partialAt + (isPartialKept ? arrived : Math.min(arrived, PARTIAL_HEAD_BYTES)),
      ),
      isPartialKept,
      call: call === 0 ? null : { phase: PHASE_LIST[(call >> 16) - 1]!.name, filter: (call & 0xffff) - 1 },
      waitedMs: Math.max(0, (Date.now() - words[at + SLOT.WAITING_SINCE]!) | 0),
      version: words[at + SLOT.VERSION]!,
      actions: words[at + SLOT.ACTIONS]!,
      protocol: words[at + SLOT.PROTOCOL]!,
      opening: length < 0 ? null : this.#bytes.slice(from, from + length),
      isHalfSent: (flags & FLAG.UNSENT) !== 0,
      isOver: (flags & FLAG.OVER) !== 0,
      hasMacrosAhead: (flags & FLAG.MACROS_AHEAD) !== 0,
      isOpeningAhead: (flags & FLAG.OPENING_AHEAD) !== 0,
      isInOpening: (flags & FLAG.IN_OPENING) !== 0,
      answersOpening: (flags & FLAG.ANSWERS_OPENING) !== 0,
      isAnew: (flags & FLAG.ANEW) !== 0,
      hasRead: (flags & FLAG.READ) !== 0,
      queueId: this.#text(at * 4 + QUEUE_ID_AT, words[at + SLOT.QUEUE_ID_LENGTH]!),
      user: this.#text(at * 4 + USER_AT, words[at + SLOT.USER_LENGTH]!),
      sender: senderLength === 0 ? null : this.#text(at * 4 + SENDER_AT, senderLength - 1),
      messageMs: Math.max(0, (Date.now() - words[at + SLOT.MAIL_AT]!) | 0),
    };
  }

  #text(from: number, length: number): string {
    return decodeText(this.#bytes, from, from + length);
  }

  /** The code of the last packet between two places of the record, 0 if there is none. */
  #lastCode(slot: number, from: number, to: number): number {
    const base = slotAt(slot) * 4 + OPENING_AT;
    const packets = this.#walk.over(this.#bytes, base + from, base + to);
    let code = 0;
    while (packets.next()) ({ code } = packets);
    return code;
  }
}

function slotAt(slot: number): number {
  return (slot * SLOT_BYTES) / 4;
}
