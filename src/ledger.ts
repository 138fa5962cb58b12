/**
 * The shared memory between the main thread and its workers: one layout, one file. A worker writes here, before it
 * runs the handlers of a read, what the main thread needs to answer for it should it not come back: where the next
 * packet begins, what is owed, and the packets that made the session what it is (design 2.2). Nothing here allocates.
 */
import { COMMAND, LENGTH_BYTES } from "./protocol/constants.ts";

/** Bytes of one connection's slot: its words, then the packets that began the session. */
const SLOT_BYTES = 1024;
const SLOT_WORDS = 16;
const CONTEXT_BYTES = SLOT_BYTES - SLOT_WORDS * 4;

/** The words of a slot. */
const SLOT = {
  /** Bytes missing of the packet that has begun to arrive, as `Framer.survey` finds them. */
  DUE: 0,
  /** Replies owed for the read at hand; 0 while none is being worked on. */
  OWED: 1,
  /** The command of the first of those. */
  FIRST_OWED: 2,
  /** The reply byte that answers for a handler that does not come back. */
  FALLBACK: 3,
  /** 1 while a message is open. */
  IN_MESSAGE: 4,
  /** What was negotiated. */
  VERSION: 5,
  ACTIONS: 6,
  PROTOCOL: 7,
  /** Bytes of context; -1 if the session's first packets did not fit. */
  CONTEXT_LENGTH: 8,
  /** Where the packets up to CONNECT end within it. */
  CONNECT_LENGTH: 9,
} as const;

/** Words per worker. */
const WORKER_WORDS = 16;
const WORKER = {
  /** The slot whose read is being worked on, plus 1; 0 while the worker waits in its event loop. */
  BUSY_SLOT: 0,
  /** When that began, in milliseconds of the ledger's clock, never 0. */
  BUSY_SINCE: 1,
} as const;

export interface LedgerLayout {
  readonly buffer: SharedArrayBuffer;
  readonly workers: number;
  readonly slots: number;
}

/** What the record of a connection says. */
export interface SlotRecord {
  readonly due: number;
  readonly owed: number;
  readonly firstOwed: number;
  readonly fallback: number;
  readonly isInMessage: boolean;
  readonly version: number;
  readonly actions: number;
  readonly protocol: number;
  /** The packets MACRO C, CONNECT, MACRO H, HELO as they came; null if they did not fit. */
  readonly context: Uint8Array | null;
}

export class Ledger {
  readonly layout: LedgerLayout;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  static create(workers: number, slots: number): Ledger {
    const buffer = new SharedArrayBuffer(workers * WORKER_WORDS * 4 + slots * SLOT_BYTES);
    return new Ledger({ buffer, workers, slots });
  }

  constructor(layout: LedgerLayout) {
    this.layout = layout;
    this.#words = new Int32Array(layout.buffer);
    this.#bytes = new Uint8Array(layout.buffer);
  }

  /** A worker begins to work on a read of a connection. The busy mark comes last: who sees it sees the rest. */
  enter(worker: number, slot: number, due: number, owed: number, firstOwed: number, now: number): void {
    const at = this.#slotAt(slot);
    const words = this.#words;
    words[at + SLOT.DUE] = due;
    words[at + SLOT.OWED] = owed;
    words[at + SLOT.FIRST_OWED] = firstOwed;
    const mark = worker * WORKER_WORDS;
    Atomics.store(words, mark + WORKER.BUSY_SLOT, slot + 1);
    Atomics.store(words, mark + WORKER.BUSY_SINCE, now | 0 || 1);
  }

  /** The worker is back in its event loop. Replies may still be owed: by an async handler. */
  leave(worker: number, slot: number, isInMessage: boolean, owed: number): void {
    const at = this.#slotAt(slot);
    this.#words[at + SLOT.IN_MESSAGE] = isInMessage ? 1 : 0;
    this.#words[at + SLOT.OWED] = owed;
    const mark = worker * WORKER_WORDS;
    Atomics.store(this.#words, mark + WORKER.BUSY_SINCE, 0);
    Atomics.store(this.#words, mark + WORKER.BUSY_SLOT, 0);
  }

  /** What the worker is busy with: the slot and since when, null while it is not. */
  busy(worker: number): { slot: number; since: number } | null {
    const mark = worker * WORKER_WORDS;
    const slot = Atomics.load(this.#words, mark + WORKER.BUSY_SLOT);
    const since = Atomics.load(this.#words, mark + WORKER.BUSY_SINCE);
    return slot === 0 || since === 0 ? null : { slot: slot - 1, since };
  }

  /** A slot is given to a new connection. */
  open(slot: number, fallback: number): void {
    const at = this.#slotAt(slot);
    this.#words.fill(0, at, at + SLOT_WORDS);
    this.#words[at + SLOT.FALLBACK] = fallback;
  }

  setOptions(slot: number, version: number, actions: number, protocol: number): void {
    const at = this.#slotAt(slot);
    this.#words[at + SLOT.VERSION] = version;
    this.#words[at + SLOT.ACTIONS] = actions;
    this.#words[at + SLOT.PROTOCOL] = protocol;
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
    const packet = LENGTH_BYTES + 1 + end - start;
    // Without its CONNECT a session cannot be begun anew, however short its HELO is.
    const isHeadless = of === COMMAND.HELO && words[at + SLOT.CONTEXT_LENGTH]! < 0 && connectLength === 0;
    if (length < 0 || isHeadless || length + packet > CONTEXT_BYTES) {
      words[at + SLOT.CONTEXT_LENGTH] = -1;
      return;
    }
    const to = at * 4 + SLOT_WORDS * 4 + length;
    this.#bytes[to] = 0;
    this.#bytes[to + 1] = 0;
    this.#bytes[to + 2] = (packet - LENGTH_BYTES) >> 8;
    this.#bytes[to + 3] = (packet - LENGTH_BYTES) & 0xff;
    this.#bytes[to + 4] = code;
    for (let index = start; index < end; index++) this.#bytes[to + 5 + index - start] = bytes[index]!;
    words[at + SLOT.CONTEXT_LENGTH] = length + packet;
    if (code === COMMAND.CONNECT) words[at + SLOT.CONNECT_LENGTH] = length + packet;
  }

  /** Whether another worker could go on with the session: its first packets are all there. */
  mayResume(slot: number): boolean {
    return this.#words[this.#slotAt(slot) + SLOT.CONTEXT_LENGTH]! >= 0;
  }

  read(slot: number): SlotRecord {
    const at = this.#slotAt(slot);
    const words = this.#words;
    const length = words[at + SLOT.CONTEXT_LENGTH]!;
    const from = at * 4 + SLOT_WORDS * 4;
    return {
      due: words[at + SLOT.DUE]!,
      owed: words[at + SLOT.OWED]!,
      firstOwed: words[at + SLOT.FIRST_OWED]!,
      fallback: words[at + SLOT.FALLBACK]!,
      isInMessage: words[at + SLOT.IN_MESSAGE] === 1,
      version: words[at + SLOT.VERSION]!,
      actions: words[at + SLOT.ACTIONS]!,
      protocol: words[at + SLOT.PROTOCOL]!,
      context: length < 0 ? null : this.#bytes.slice(from, from + length),
    };
  }

  /** The code of the last whole packet between two places of the record, 0 if there is none. */
  #lastCode(slot: number, from: number, to: number): number {
    const base = this.#slotAt(slot) * 4 + SLOT_WORDS * 4;
    let code = 0;
    for (let at = from; at < to;) {
      code = this.#bytes[base + at + 4]!;
      at += LENGTH_BYTES + ((this.#bytes[base + at + 2]! << 8) | this.#bytes[base + at + 3]!);
    }
    return code;
  }

  #slotAt(slot: number): number {
    return this.layout.workers * WORKER_WORDS + (slot * SLOT_BYTES) / 4;
  }
}
