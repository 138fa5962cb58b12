/**
 * Shared memory between the main thread and its workers: which connections there are, who owns each, and by which
 * descriptors. A worker that accepts a connection puts it here, so that the main thread can go on with it if that worker is
 * lost, and need not hear of it otherwise. The record of its session is in `SessionRecords`, under the same slot.
 *
 * Each connection has two descriptors: its worker reads from the first. No object of Bun's knows of the second, the
 * duplicate, so it outlives a thread whose sockets are closed when it ends. A thread takes a slot from its owner by an
 * atomic exchange; from then on the duplicate is its own, and it has to close it.
 */
import type { PeerName } from "../net/peer.ts";

/** Words of a line of the processor's cache. */
const LINE_WORDS = 16;

/** The words of the table. Those in the first line are written for each connection, those in the second are only read. */
const HEAD = {
  /** Slots that are taken. */
  TOTAL: 0,
  /** Hint: the lowest slot that may be free. Not authoritative, so a search wraps around and checks every slot. */
  LOWEST: 1,
  /** 1 while a connection, or a paused listening socket, waits for a free slot. */
  IS_AWAITED: LINE_WORDS,
  /** The generation that takes new sessions; 0: none does. */
  CURRENT: LINE_WORDS + 1,
  /** 1 while hardly any file descriptors are left. */
  IS_STARVED: LINE_WORDS + 2,
  /** Of {@link ALL_SHARES} connections, how many the workers that accept pass on. */
  PASS_SHARES: LINE_WORDS + 3,
  /** How many slots may be taken. */
  ROOM: LINE_WORDS + 4,
} as const;
const HEAD_WORDS = 2 * LINE_WORDS;

/** The words of a worker's row. */
const ROW = {
  /** Connections that it has, or was given. */
  COUNT: 0,
  /** The descriptor of its event poll, plus 1; 0 while that is not known. */
  EVENT_POLL: 1,
  /** From here on, for each listening socket, the descriptor that it accepts by, plus 1; 0 while it does not. */
  LISTENING: 2,
} as const;

/** The words of a slot. Behind them the bytes of the peer's name. */
const SLOT = {
  /** {@link FREE}, {@link RESERVED}, {@link MAIN}, {@link PASSED}, or the row of its worker plus 1. */
  OWNER: 0,
  /** The descriptor that its worker reads from. */
  DESCRIPTOR: 1,
  DUPLICATE: 2,
  /** Counts up with each connection that gets the slot. */
  USE: 3,
  /** Bytes of the peer's name. */
  PEER_LENGTH: 4,
  /** Index of the listening socket that it came to. */
  LISTENER: 5,
  /** A random number. */
  DRAW: 6,
} as const;
const PEER_AT = 7 * 4;
/** `unix:` and the longest path of a unix socket; an address is shorter. */
const PEER_BYTES = 112;
const SLOT_WORDS = (PEER_AT + PEER_BYTES) / 4;

/** The whole of which {@link ConnectionTable.passShares} is a part. */
export const ALL_SHARES = 16;

const FREE = 0;
const RESERVED = -1;
/** The main thread's: it waits for a worker. */
const MAIN = -2;
/** A passed connection: it waits for the main thread. */
const PASSED = -3;

export interface ConnectionTableLayout {
  readonly buffer: SharedArrayBuffer;
  readonly rows: number;
  readonly slots: number;
  /** Listening sockets. */
  readonly listeningSockets: number;
}

export class ConnectionTable {
  readonly layout: ConnectionTableLayout;
  readonly #words: Int32Array;
  readonly #bytes: Buffer;
  readonly #rowWords: number;

  static create(rows: number, slots: number, listeningSockets: number): ConnectionTable {
    const words = HEAD_WORDS + rows * rowWords(listeningSockets) + slots * SLOT_WORDS;
    const table = new ConnectionTable({ buffer: new SharedArrayBuffer(words * 4), rows, slots, listeningSockets });
    table.room = slots;
    return table;
  }

  constructor(layout: ConnectionTableLayout) {
    this.layout = layout;
    this.#rowWords = rowWords(layout.listeningSockets);
    this.#words = new Int32Array(layout.buffer);
    this.#bytes = Buffer.from(layout.buffer);
  }

  /** Connections of all owners. */
  get total(): number {
    return Atomics.load(this.#words, HEAD.TOTAL);
  }

  /** How many connections there may be: at most the number of slots. Those that are open beyond it stay open. */
  get room(): number {
    return Atomics.load(this.#words, HEAD.ROOM);
  }

  set room(room: number) {
    Atomics.store(this.#words, HEAD.ROOM, Math.min(room, this.layout.slots));
  }

  /** No further connection is to be taken. */
  get isFull(): boolean {
    return this.total >= this.room;
  }

  /** A connection waits for a slot: a worker that frees a slot posts that. */
  get isAwaited(): boolean {
    return Atomics.load(this.#words, HEAD.IS_AWAITED) === 1;
  }

  set isAwaited(isAwaited: boolean) {
    Atomics.store(this.#words, HEAD.IS_AWAITED, isAwaited ? 1 : 0);
  }

  /** No connection is to be taken: its file descriptors would be the last. */
  get isStarved(): boolean {
    return Atomics.load(this.#words, HEAD.IS_STARVED) === 1;
  }

  set isStarved(isStarved: boolean) {
    Atomics.store(this.#words, HEAD.IS_STARVED, isStarved ? 1 : 0);
  }

  /** The number of the generation that may keep what it accepts; 0: none may. */
  get current(): number {
    return Atomics.load(this.#words, HEAD.CURRENT);
  }

  set current(generation: number) {
    Atomics.store(this.#words, HEAD.CURRENT, generation);
  }

  /** Of {@link ALL_SHARES} connections, how many the workers that accept pass on: a generation begins, slowly. */
  get passShares(): number {
    return Atomics.load(this.#words, HEAD.PASS_SHARES);
  }

  set passShares(shares: number) {
    Atomics.store(this.#words, HEAD.PASS_SHARES, shares);
  }

  /** A row is given to a new worker. */
  openRow(row: number): void {
    Atomics.store(this.#words, this.#rowAt(row) + ROW.COUNT, 0);
    this.setEventPoll(row, null);
    this.forgetListening(row);
  }

  /** The numbers that the worker accepts by are not its own any more: other threads may have got them. */
  forgetListening(row: number): void {
    for (let listeningSocket = 0; listeningSocket < this.layout.listeningSockets; listeningSocket++) {
      this.setListening(row, listeningSocket, null);
    }
  }

  /** The event poll of the worker's thread, null while it is not known: see `findEventPoll`. */
  setEventPoll(row: number, descriptor: number | null): void {
    Atomics.store(this.#words, this.#rowAt(row) + ROW.EVENT_POLL, descriptor === null ? 0 : descriptor + 1);
  }

  eventPollOf(row: number): number | null {
    const word = Atomics.load(this.#words, this.#rowAt(row) + ROW.EVENT_POLL);
    return word === 0 ? null : word - 1;
  }

  /** The descriptor by which the worker accepts at a listening socket; null: it does not accept there. */
  setListening(row: number, listeningSocket: number, descriptor: number | null): void {
    Atomics.store(
      this.#words,
      this.#rowAt(row) + ROW.LISTENING + listeningSocket,
      descriptor === null ? 0 : descriptor + 1,
    );
  }

  /** The descriptors that it accepts by. */
  listeningOf(row: number): number[] {
    const from = this.#rowAt(row) + ROW.LISTENING;
    const words = [...this.#words.subarray(from, from + this.layout.listeningSockets)];
    return words.filter((word) => word !== 0).map((word) => word - 1);
  }

  /** How many connections a worker has, with those that it was given and has not adopted yet. */
  countOf(row: number): number {
    return Atomics.load(this.#words, this.#rowAt(row));
  }

  slotsOf(row: number): number[] {
    return this.#slotsOf(row + 1);
  }

  /** The slots of passed connections. */
  passedSlots(): number[] {
    return this.#slotsOf(PASSED);
  }

  /** Takes a free slot, a low one so that used memory lies together. @returns -1 if none is free */
  reserve(): number {
    const words = this.#words;
    const { slots } = this.layout;
    if (Atomics.add(words, HEAD.TOTAL, 1) >= this.room) {
      Atomics.sub(words, HEAD.TOTAL, 1);
      return -1;
    }
    // A slot is free, since slots are freed before the total says so.
    for (let slot = Atomics.load(words, HEAD.LOWEST); ; slot++) {
      if (slot >= slots) slot = 0;
      if (Atomics.compareExchange(words, this.#slotAt(slot), FREE, RESERVED) !== FREE) continue;
      Atomics.store(words, HEAD.LOWEST, slot + 1);
      return slot;
    }
  }

  /** Gives a reserved slot to a worker, which reads from `descriptor`. */
  enter(slot: number, row: number, descriptor: number, duplicate: number, peer: PeerName, listener: number): void {
    this.#describe(slot, descriptor, duplicate, peer, listener);
    Atomics.add(this.#words, this.#rowAt(row), 1);
    Atomics.store(this.#words, this.#slotAt(slot), row + 1);
  }

  /** Gives a reserved slot to the main thread. */
  enterOwn(slot: number, duplicate: number, peer: PeerName, listener: number): void {
    this.#describe(slot, -1, duplicate, peer, listener);
    Atomics.store(this.#words, this.#slotAt(slot), MAIN);
  }

  /** Gives a reserved slot to a passed connection. */
  enterPassed(slot: number, duplicate: number, peer: PeerName, listener: number): void {
    this.#describe(slot, -1, duplicate, peer, listener);
    Atomics.store(this.#words, this.#slotAt(slot), PASSED);
  }

  /** The main thread takes a passed connection. @returns false if it was taken before */
  takePassed(slot: number): boolean {
    return Atomics.compareExchange(this.#words, this.#slotAt(slot), PASSED, MAIN) === PASSED;
  }

  /** The main thread gives a connection of its own to a worker. */
  give(slot: number, row: number, descriptor: number): void {
    this.#words[this.#slotAt(slot) + SLOT.DESCRIPTOR] = descriptor;
    Atomics.add(this.#words, this.#rowAt(row), 1);
    Atomics.store(this.#words, this.#slotAt(slot), row + 1);
  }

  /** The main thread takes a connection from a worker. @returns false if that worker does not own it any more */
  take(slot: number, row: number): boolean {
    if (Atomics.compareExchange(this.#words, this.#slotAt(slot), row + 1, MAIN) !== row + 1) return false;
    Atomics.sub(this.#words, this.#rowAt(row), 1);
    return true;
  }

  /** A worker's connection has ended. @returns false if that worker does not own it any more, nor its duplicate */
  leave(slot: number, row: number): boolean {
    if (Atomics.compareExchange(this.#words, this.#slotAt(slot), row + 1, FREE) !== row + 1) return false;
    Atomics.sub(this.#words, this.#rowAt(row), 1);
    this.#freed(slot);
    return true;
  }

  /** A connection of the main thread has ended. @returns false if the main thread does not own that slot */
  leaveOwn(slot: number): boolean {
    if (Atomics.compareExchange(this.#words, this.#slotAt(slot), MAIN, FREE) !== MAIN) return false;
    this.#freed(slot);
    return true;
  }

  descriptorOf(slot: number): number {
    return this.#words[this.#slotAt(slot) + SLOT.DESCRIPTOR]!;
  }

  duplicateOf(slot: number): number {
    return this.#words[this.#slotAt(slot) + SLOT.DUPLICATE]!;
  }

  /** A number that differs for each connection that gets the slot. */
  useOf(slot: number): number {
    return this.#words[this.#slotAt(slot) + SLOT.USE]!;
  }

  peerOf(slot: number): PeerName {
    const at = this.#slotAt(slot);
    const from = at * 4 + PEER_AT;
    return this.#bytes.toString("utf8", from, from + this.#words[at + SLOT.PEER_LENGTH]!);
  }

  /** Which of the listening sockets the connection came to. */
  listenerOf(slot: number): number {
    return this.#words[this.#slotAt(slot) + SLOT.LISTENER]!;
  }

  /** A random number of 32 bits, drawn once for each connection that gets the slot. */
  drawOf(slot: number): number {
    return this.#words[this.#slotAt(slot) + SLOT.DRAW]!;
  }

  #describe(slot: number, descriptor: number, duplicate: number, peer: PeerName, listener: number): void {
    const at = this.#slotAt(slot);
    const words = this.#words;
    words[at + SLOT.DESCRIPTOR] = descriptor;
    words[at + SLOT.DUPLICATE] = duplicate;
    words[at + SLOT.USE]! += 1;
    words[at + SLOT.LISTENER] = listener;
    words[at + SLOT.DRAW] = Math.random() * 2 ** 32;
    words[at + SLOT.PEER_LENGTH] = this.#bytes.write(peer, at * 4 + PEER_AT, PEER_BYTES);
  }

  #freed(slot: number): void {
    Atomics.sub(this.#words, HEAD.TOTAL, 1);
    if (slot < Atomics.load(this.#words, HEAD.LOWEST)) Atomics.store(this.#words, HEAD.LOWEST, slot);
  }

  #slotsOf(owner: number): number[] {
    const slots: number[] = [];
    for (let slot = 0; slot < this.layout.slots; slot++) {
      if (Atomics.load(this.#words, this.#slotAt(slot)) === owner) slots.push(slot);
    }
    return slots;
  }

  #rowAt(row: number): number {
    return HEAD_WORDS + row * this.#rowWords;
  }

  #slotAt(slot: number): number {
    return HEAD_WORDS + this.layout.rows * this.#rowWords + slot * SLOT_WORDS;
  }
}

/** Each row has cache lines of its own. */
function rowWords(listeningSockets: number): number {
  return Math.ceil((ROW.LISTENING + listeningSockets) / LINE_WORDS) * LINE_WORDS;
}
