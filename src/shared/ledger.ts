/**
 * The shared memory between the main thread and its workers: one layout, one file. A worker writes here, before it
 * runs the handlers of a read, what the main thread needs to answer for it should it not come back: where the next
 * packet begins, what is owed, and the packets that made the session what it is (docs/design.md, "Threads"). Nothing here allocates.
 *
 * A worker writes to a peer only while it holds the lock of its row, and records what the write has settled before it
 * lets go. So whoever finds the lock free, and takes it for good, finds records that agree with what the peers got.
 */
import { COUNTER_INDEX, WORKER_COUNTERS, type WorkerCounter } from "../counters.ts";
import { decodeText, encodeText } from "../protocol/bytes.ts";
import { COMMAND, LENGTH_BYTES } from "../protocol/constants.ts";
import type { Framer } from "../protocol/framer.ts";
import { type Phase, PHASE_LIST, type PhaseInfo } from "../protocol/phases.ts";
import { type SessionState, SESSION_STATES } from "../protocol/state.ts";

/** Bytes of one connection's slot: its words, what the log names, then the packets that began the session. */
const SLOT_BYTES = 1280;
const SLOT_WORDS = 20;
const HEAD_AT = SLOT_WORDS * 4;
/** A packet's length and its code. */
const HEAD_BYTES = LENGTH_BYTES + 1;
/** What is kept at the least of a packet that has begun: of MACRO the byte behind these tells which command it is for. */
const BEGUN_BYTES = HEAD_BYTES + 1;
const QUEUE_ID_AT = HEAD_AT + 8;
const QUEUE_ID_BYTES = 24;
const USER_AT = QUEUE_ID_AT + QUEUE_ID_BYTES;
const USER_BYTES = 64;
const SENDER_AT = USER_AT + USER_BYTES;
const SENDER_BYTES = 176;
const CONTEXT_AT = SENDER_AT + SENDER_BYTES;
const CONTEXT_BYTES = SLOT_BYTES - CONTEXT_AT;

/** The words of a slot. */
const SLOT = {
  /** 1 once a worker has the descriptor that it was given. */
  ADOPTED: 0,
  /** Index of the session's state in `SESSION_STATES`, and above it, from bit 8, the reply byte of the verdict that stands. */
  STATE: 1,
  /** Replies that the peer waits for. */
  OWED: 2,
  /** The command of the first of those; 0 if it is one of a message. */
  FIRST_OWED: 3,
  /** Whole packets that were read and not worked on. */
  UNTAKEN: 4,
  /** Bytes missing of the packet that has begun to arrive, as `Framer.survey` finds them. */
  DUE: 5,
  /** Bytes that have arrived of it. */
  BEGUN: 6,
  /** The handler that runs or is awaited: phase index + 1 in the high half, filter index + 1 in the low one; 0: none. */
  CALL: 7,
  /** What was negotiated. */
  VERSION: 8,
  ACTIONS: 9,
  PROTOCOL: 10,
  /** Bytes of context; -1 if the session's first packets did not fit. */
  CONTEXT_LENGTH: 11,
  /** Where the packets up to CONNECT end within it. */
  CONNECT_LENGTH: 12,
  /** 1 if all of the begun packet is kept, at the end of the slot. */
  HAS_BEGUN: 13,
  /** See {@link SlotRecord}. */
  FLAGS: 14,
  QUEUE_ID_LENGTH: 15,
  /** Since when the phase has awaited a handler: milliseconds of the wall clock, the lower 32 bits. Threads share no other. */
  WAITING_SINCE: 16,
  USER_LENGTH: 17,
  /** Bytes of the sender of the message that was begun last, plus 1; 0 if none was. */
  SENDER_LENGTH: 18,
  /** When MAIL came; as WAITING_SINCE. */
  MAIL_AT: 19,
} as const;

/** A reply has left in part. */
const UNSENT = 1;
/** The session is over but for the end of its connection. */
const OVER = 2;
/** See {@link SlotRecord}. */
const MACROS_AHEAD = 4;
const IN_CONTEXT = 8;
const ANSWERS_CONTEXT = 16;
const ANEW = 32;
const BEGINNING_AHEAD = 64;
const READ = 128;

/** Bytes per worker: words, then counters as 64 bit floats. */
const ROW_BYTES = 256;
const COUNTERS_AT = 64;
const ROW = {
  LOCK: 0,
  /** The slot whose handler runs, plus 1; 0 while none does. */
  BUSY_SLOT: 1,
  /** Counts up while the worker returns to its event loop, and with each read that it has worked on. */
  BEAT: 2,
  /** Mebibytes of the worker's heap. */
  HEAP: 3,
} as const;

/** The lock of a row. */
const FREE = 0;
const WRITING = 1;
/** The main thread has taken the worker's connections from it. */
const CLAIMED = 2;

/** A worker shows so often that it returns to its event loop. */
export const BEAT_MS = 100;

export interface LedgerLayout {
  readonly buffer: SharedArrayBuffer;
  readonly workers: number;
  readonly slots: number;
}

/** What the record of a connection says. */
export interface SlotRecord {
  readonly state: SessionState;
  /** The reply byte of a verdict that was found and is still to be given, or to be given again; 0 if there is none. */
  readonly standing: number;
  readonly owed: number;
  readonly firstOwed: number;
  readonly untaken: number;
  readonly due: number;
  /** What has arrived of the last packet: all of it, or its first bytes. */
  readonly begun: Uint8Array;
  readonly hasAllBegun: boolean;
  /** The handler that runs or is awaited. */
  readonly call: { readonly phase: Phase; readonly filter: number } | null;
  /** For how many milliseconds the phase has awaited handlers, if it does. */
  readonly waitedMs: number;
  readonly version: number;
  readonly actions: number;
  readonly protocol: number;
  /** The packets MACRO C, CONNECT, MACRO H, HELO as they came; null if they did not fit. */
  readonly context: Uint8Array | null;
  readonly isHalfSent: boolean;
  readonly isOver: boolean;
  /** Macros of a message have come whose command has not. */
  readonly hasMacrosAhead: boolean;
  /** CONNECT or HELO, or macros of theirs, have come that were not worked on: `context` is not all that the session began with. */
  readonly isBeginningAhead: boolean;
  /** The packets that began the session elsewhere are still being worked on; `untaken` does not count them. */
  readonly isInContext: boolean;
  /** The last of those gets a reply. */
  readonly answersContext: boolean;
  /** The session began anew on this connection: what was known of the one before is over. */
  readonly isAnew: boolean;
  /** The worker has read from the connection. */
  readonly hasRead: boolean;
  /** Of the last message that began; its texts may be cut. */
  readonly queueId: string;
  readonly user: string;
  /** Null if none was begun. */
  readonly sender: string | null;
  /** Milliseconds since its MAIL came. */
  readonly messageMs: number;
}

export class Ledger {
  readonly layout: LedgerLayout;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #counters: Float64Array;

  static create(workers: number, slots: number): Ledger {
    const buffer = new SharedArrayBuffer(workers * ROW_BYTES + slots * SLOT_BYTES);
    return new Ledger({ buffer, workers, slots });
  }

  constructor(layout: LedgerLayout) {
    this.layout = layout;
    this.#words = new Int32Array(layout.buffer);
    this.#bytes = new Uint8Array(layout.buffer);
    this.#counters = new Float64Array(layout.buffer, 0, (layout.workers * ROW_BYTES) / 8);
  }

  // Rows: what a worker does.

  /** A row is given to a new worker. */
  openRow(row: number): void {
    this.#words.fill(0, (row * ROW_BYTES) / 4, ((row + 1) * ROW_BYTES) / 4);
  }

  /** The worker is about to write to a peer. @returns false if it may not any more: its connections were taken from it */
  lock(row: number): boolean {
    return Atomics.compareExchange(this.#words, this.#rowAt(row) + ROW.LOCK, FREE, WRITING) === FREE;
  }

  unlock(row: number): void {
    Atomics.store(this.#words, this.#rowAt(row) + ROW.LOCK, FREE);
  }

  isClaimed(row: number): boolean {
    return Atomics.load(this.#words, this.#rowAt(row) + ROW.LOCK) === CLAIMED;
  }

  /** Takes the worker's connections from it, for good. @returns false if it is writing: try again */
  claim(row: number): boolean {
    return Atomics.compareExchange(this.#words, this.#rowAt(row) + ROW.LOCK, FREE, CLAIMED) !== WRITING;
  }

  /** Never returns: the worker's connections are not its own any more, or will not be in a moment, and it is ended then. */
  park(row: number): never {
    const at = this.#rowAt(row) + ROW.LOCK;
    for (;;) Atomics.wait(this.#words, at, Atomics.load(this.#words, at), 1000);
  }

  /** A timer of the worker has run. */
  beat(row: number, heapBytes: number): void {
    const at = this.#rowAt(row);
    Atomics.add(this.#words, at + ROW.BEAT, 1);
    this.#words[at + ROW.HEAP] = heapBytes / 2 ** 20;
  }

  /** Differs from one look to the next while the worker returns to its event loop. */
  beats(row: number): number {
    return Atomics.load(this.#words, this.#rowAt(row) + ROW.BEAT);
  }

  heapBytes(row: number): number {
    return this.#words[this.#rowAt(row) + ROW.HEAP]! * 2 ** 20;
  }

  /** The slot of the handler that runs in that worker, null if none is known to. */
  busySlot(row: number): number | null {
    const slot = Atomics.load(this.#words, this.#rowAt(row) + ROW.BUSY_SLOT);
    return slot === 0 ? null : slot - 1;
  }

  count(row: number, counter: WorkerCounter): void {
    this.#counters[(row * ROW_BYTES + COUNTERS_AT) / 8 + COUNTER_INDEX[counter]]! += 1;
  }

  counters(row: number): number[] {
    const from = (row * ROW_BYTES + COUNTERS_AT) / 8;
    return [...this.#counters.subarray(from, from + WORKER_COUNTERS.length)];
  }

  // Slots: what is known of a connection.

  /** A slot is about to be given to a worker; what was known of it is forgotten. */
  offer(slot: number): void {
    const at = this.#slotAt(slot);
    this.#words.fill(0, at, at + SLOT_WORDS);
  }

  /** The worker has taken the descriptor. */
  adopt(slot: number): void {
    Atomics.store(this.#words, this.#slotAt(slot) + SLOT.ADOPTED, 1);
  }

  isAdopted(slot: number): boolean {
    return Atomics.load(this.#words, this.#slotAt(slot) + SLOT.ADOPTED) === 1;
  }

  /**
   * What a read has brought, before any of it is worked on.
   * @param framer surveyed
   * @param untaken see {@link SlotRecord}
   * @param owing the command of the packet at hand if its reply is still to come, else 0
   */
  recordRead(slot: number, framer: Framer, untaken: number, owing: number): void {
    const at = this.#slotAt(slot);
    const words = this.#words;
    words[at + SLOT.OWED] = framer.owed + (owing === 0 ? 0 : 1);
    words[at + SLOT.FIRST_OWED] = owing === 0 ? framer.firstOwed : owing;
    words[at + SLOT.UNTAKEN] = untaken;
    words[at + SLOT.DUE] = framer.due;
    const { begun, lostCode } = framer;
    words[at + SLOT.BEGUN] = begun;
    if (lostCode !== null) {
      this.#recordLost(at, lostCode);
      return;
    }
    if (begun === 0) return;
    framer.copyBegun(this.#bytes, at * 4 + HEAD_AT, Math.min(begun, BEGUN_BYTES));
    const fits = begun <= CONTEXT_BYTES - Math.max(0, words[at + SLOT.CONTEXT_LENGTH]!);
    words[at + SLOT.HAS_BEGUN] = fits ? 1 : 0;
    if (fits) framer.copyBegun(this.#bytes, at * 4 + SLOT_BYTES - begun, begun);
  }

  /** The packet that has begun is lost already, but for its code: it is known as one that was too long to be kept. */
  #recordLost(at: number, code: number): void {
    this.#words[at + SLOT.BEGUN] = BEGUN_BYTES;
    this.#words[at + SLOT.HAS_BEGUN] = 0;
    const head = at * 4 + HEAD_AT;
    this.#bytes[head + LENGTH_BYTES] = code === 0 ? COMMAND.MACRO : code;
    // What macros that are lost were for is settled: see `Resumption.due`.
    this.#bytes[head + HEAD_BYTES] = COMMAND.UNKNOWN;
  }

  /** A handler begins to run. */
  enter(row: number, slot: number, phase: PhaseInfo, filter: number, untaken: number): void {
    const at = this.#slotAt(slot);
    this.#words[at + SLOT.CALL] = ((phase.index + 1) << 16) | (filter + 1);
    this.#words[at + SLOT.UNTAKEN] = untaken;
    Atomics.store(this.#words, this.#rowAt(row) + ROW.BUSY_SLOT, slot + 1);
  }

  /** A handler is awaited for the first time in this phase. @param alreadyMs what was waited for it in another worker */
  wait(slot: number, alreadyMs: number): void {
    this.#words[this.#slotAt(slot) + SLOT.WAITING_SINCE] = Date.now() - alreadyMs;
  }

  /**
   * No handler runs any more, though one may be awaited. It counts as a return to the event loop: as long as a poll finds
   * more than 1,024 sockets ready, Bun 1.4.5 polls again at once, and no timer beats (docs/bun.md, "Sockets").
   */
  leave(row: number): void {
    const at = this.#rowAt(row);
    Atomics.store(this.#words, at + ROW.BUSY_SLOT, 0);
    Atomics.add(this.#words, at + ROW.BEAT, 1);
  }

  /**
   * What was read has been worked on as far as it goes, and its replies have left (the lock is held, if there were any).
   * @param isWaiting a handler is awaited
   * @param owed replies that are still to come
   * @param firstOwed the command of the first, 0 if that is not known
   */
  settle(
    slot: number,
    isWaiting: boolean,
    owed: number,
    firstOwed: number,
    untaken: number,
    isHalfSent: boolean,
  ): void {
    const at = this.#slotAt(slot);
    const words = this.#words;
    if (!isWaiting) words[at + SLOT.CALL] = 0;
    words[at + SLOT.OWED] = owed;
    words[at + SLOT.FIRST_OWED] = firstOwed;
    words[at + SLOT.UNTAKEN] = untaken;
    this.#flag(at, UNSENT, isHalfSent);
  }

  /** @param standing see {@link SlotRecord} */
  setState(slot: number, state: SessionState, standing: number): void {
    this.#words[this.#slotAt(slot) + SLOT.STATE] = SESSION_STATES.indexOf(state) | (standing << 8);
  }

  /** See {@link SlotRecord}. */
  setAhead(
    slot: number,
    hasMacrosAhead: boolean,
    isBeginningAhead: boolean,
    isInContext: boolean,
    answersContext: boolean,
  ): void {
    const at = this.#slotAt(slot);
    const flags = this.#words[at + SLOT.FLAGS]! & ~(MACROS_AHEAD | BEGINNING_AHEAD | IN_CONTEXT | ANSWERS_CONTEXT);
    this.#words[at + SLOT.FLAGS] =
      flags |
      (hasMacrosAhead ? MACROS_AHEAD : 0) |
      (isBeginningAhead ? BEGINNING_AHEAD : 0) |
      (isInContext ? IN_CONTEXT : 0) |
      (answersContext ? ANSWERS_CONTEXT : 0);
  }

  /** The worker has read from the connection. */
  setRead(slot: number): void {
    this.#flag(this.#slotAt(slot), READ, true);
  }

  /** A session begins on a connection that had one before. */
  setAnew(slot: number): void {
    this.#flag(this.#slotAt(slot), ANEW, true);
  }

  /** What was unsent has left. */
  setSent(slot: number): void {
    this.#flag(this.#slotAt(slot), UNSENT, false);
  }

  /** The session has ended: nothing is to go on. */
  setOver(slot: number): void {
    this.#flag(this.#slotAt(slot), OVER, true);
  }

  setOptions(slot: number, version: number, actions: number, protocol: number): void {
    const at = this.#slotAt(slot);
    this.#words[at + SLOT.VERSION] = version;
    this.#words[at + SLOT.ACTIONS] = actions;
    this.#words[at + SLOT.PROTOCOL] = protocol;
  }

  /** Keeps `bytes[start, end)` as the queue id of the message at hand, for the log; too long a one is cut. */
  setQueueId(slot: number, bytes: Uint8Array, start: number, end: number): void {
    const at = this.#slotAt(slot);
    this.#words[at + SLOT.QUEUE_ID_LENGTH] = this.#keep(at * 4 + QUEUE_ID_AT, QUEUE_ID_BYTES, bytes, start, end);
  }

  /** MAIL has come: keeps `bytes[start, end)` as its sender, and the name that its client has authenticated as. */
  setMail(slot: number, bytes: Uint8Array, start: number, end: number, user: string): void {
    const at = this.#slotAt(slot);
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

  /** The session has ended, and its connection may serve another one. */
  forgetContext(slot: number): void {
    const at = this.#slotAt(slot);
    this.#words[at + SLOT.CONTEXT_LENGTH] = 0;
    this.#words[at + SLOT.CONNECT_LENGTH] = 0;
  }

  /**
   * Keeps a packet if it is one of those that begin a session. A second HELO replaces the first; a CONNECT, or its
   * macros, begin anew.
   */
  keepContext(slot: number, code: number, bytes: Uint8Array, start: number, end: number): void {
    const of = code === COMMAND.MACRO ? bytes[start] : code;
    if (of !== COMMAND.CONNECT && of !== COMMAND.HELO) return;
    const at = this.#slotAt(slot);
    const words = this.#words;
    let length = words[at + SLOT.CONTEXT_LENGTH]!;
    const connectLength = words[at + SLOT.CONNECT_LENGTH]!;
    // CONNECT follows its macros, which have begun the record anew; HELO follows its own.
    if (of === COMMAND.CONNECT) {
      if (code === COMMAND.MACRO || connectLength > 0) length = 0;
      words[at + SLOT.CONNECT_LENGTH] = 0;
    } else if (code === COMMAND.MACRO || this.#lastCode(slot, connectLength, length) === COMMAND.HELO) {
      length = connectLength;
    }
    const packet = HEAD_BYTES + end - start;
    // Without its CONNECT a session cannot be begun anew, however short its HELO is.
    const isHeadless = of === COMMAND.HELO && words[at + SLOT.CONTEXT_LENGTH]! < 0 && connectLength === 0;
    if (length < 0 || isHeadless || length + packet > CONTEXT_BYTES) {
      words[at + SLOT.CONTEXT_LENGTH] = -1;
      return;
    }
    // What is kept of a begun packet stands at the end: it makes room.
    if (length + packet + words[at + SLOT.BEGUN]! > CONTEXT_BYTES) words[at + SLOT.HAS_BEGUN] = 0;
    const to = at * 4 + CONTEXT_AT + length;
    this.#bytes[to] = 0;
    this.#bytes[to + 1] = 0;
    this.#bytes[to + 2] = (packet - LENGTH_BYTES) >> 8;
    this.#bytes[to + 3] = (packet - LENGTH_BYTES) & 0xff;
    this.#bytes[to + 4] = code;
    for (let index = start; index < end; index++) this.#bytes[to + HEAD_BYTES + index - start] = bytes[index]!;
    words[at + SLOT.CONTEXT_LENGTH] = length + packet;
    if (code === COMMAND.CONNECT) words[at + SLOT.CONNECT_LENGTH] = length + packet;
  }

  /** Keeps the packets that began a session elsewhere. */
  setContext(slot: number, context: Uint8Array): void {
    for (let at = 0; at < context.length;) {
      const end = at + LENGTH_BYTES + ((context[at + 2]! << 8) | context[at + 3]!);
      this.keepContext(slot, context[at + LENGTH_BYTES]!, context, at + HEAD_BYTES, end);
      at = end;
    }
  }

  /** Whether another worker could go on with the session: its first packets are all there. */
  mayResume(slot: number): boolean {
    return this.#words[this.#slotAt(slot) + SLOT.CONTEXT_LENGTH]! >= 0;
  }

  read(slot: number): SlotRecord {
    const at = this.#slotAt(slot);
    const words = this.#words;
    const length = words[at + SLOT.CONTEXT_LENGTH]!;
    const from = at * 4 + CONTEXT_AT;
    const begun = words[at + SLOT.BEGUN]!;
    const hasAllBegun = words[at + SLOT.HAS_BEGUN] === 1;
    const begunAt = at * 4 + (hasAllBegun ? SLOT_BYTES - begun : HEAD_AT);
    const call = words[at + SLOT.CALL]!;
    const flags = words[at + SLOT.FLAGS]!;
    const senderLength = words[at + SLOT.SENDER_LENGTH]!;
    return {
      state: SESSION_STATES[words[at + SLOT.STATE]! & 0xff]!,
      standing: words[at + SLOT.STATE]! >> 8,
      owed: words[at + SLOT.OWED]!,
      firstOwed: words[at + SLOT.FIRST_OWED]!,
      untaken: words[at + SLOT.UNTAKEN]!,
      due: words[at + SLOT.DUE]!,
      begun: this.#bytes.slice(begunAt, begunAt + (hasAllBegun ? begun : Math.min(begun, BEGUN_BYTES))),
      hasAllBegun,
      call: call === 0 ? null : { phase: PHASE_LIST[(call >> 16) - 1]!.name, filter: (call & 0xffff) - 1 },
      waitedMs: Math.max(0, (Date.now() - words[at + SLOT.WAITING_SINCE]!) | 0),
      version: words[at + SLOT.VERSION]!,
      actions: words[at + SLOT.ACTIONS]!,
      protocol: words[at + SLOT.PROTOCOL]!,
      context: length < 0 ? null : this.#bytes.slice(from, from + length),
      isHalfSent: (flags & UNSENT) !== 0,
      isOver: (flags & OVER) !== 0,
      hasMacrosAhead: (flags & MACROS_AHEAD) !== 0,
      isBeginningAhead: (flags & BEGINNING_AHEAD) !== 0,
      isInContext: (flags & IN_CONTEXT) !== 0,
      answersContext: (flags & ANSWERS_CONTEXT) !== 0,
      isAnew: (flags & ANEW) !== 0,
      hasRead: (flags & READ) !== 0,
      queueId: this.#text(at * 4 + QUEUE_ID_AT, words[at + SLOT.QUEUE_ID_LENGTH]!),
      user: this.#text(at * 4 + USER_AT, words[at + SLOT.USER_LENGTH]!),
      sender: senderLength === 0 ? null : this.#text(at * 4 + SENDER_AT, senderLength - 1),
      messageMs: Math.max(0, (Date.now() - words[at + SLOT.MAIL_AT]!) | 0),
    };
  }

  #text(from: number, length: number): string {
    return decodeText(this.#bytes, from, from + length);
  }

  #flag(at: number, flag: number, isSet: boolean): void {
    if (isSet) this.#words[at + SLOT.FLAGS]! |= flag;
    else this.#words[at + SLOT.FLAGS]! &= ~flag;
  }

  /** The code of the last whole packet between two places of the record, 0 if there is none. */
  #lastCode(slot: number, from: number, to: number): number {
    const base = this.#slotAt(slot) * 4 + CONTEXT_AT;
    let code = 0;
    for (let at = from; at < to;) {
      code = this.#bytes[base + at + 4]!;
      at += LENGTH_BYTES + ((this.#bytes[base + at + 2]! << 8) | this.#bytes[base + at + 3]!);
    }
    return code;
  }

  #rowAt(row: number): number {
    return (row * ROW_BYTES) / 4;
  }

  #slotAt(slot: number): number {
    return (this.layout.workers * ROW_BYTES + slot * SLOT_BYTES) / 4;
  }
}
