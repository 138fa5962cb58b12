/**
 * The worker's side of the spool: cuts bodies into blocks, sends them to the thread that writes, and makes what that has
 * mapped readable. A worker never waits for a disk.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import type { MappedBody, Spool, SpooledBody } from "../handler/message/spool.ts";
import {
  type FromSpool,
  HEADROOM,
  type NoSpoolLine,
  type SpoolFailure,
  type SpoolLine,
  type ToSpool,
} from "../shared/spool-messages.ts";

/** Bytes that are sent in one message. */
const BLOCK_BYTES = 128 * 1024;
/** A body is behind while so many of its bytes are unwritten. */
const BEHIND_BYTES = 2 * BLOCK_BYTES;
/** Memory of written blocks that is kept for the next ones. */
const MAX_IDLE_BLOCKS = 32;
/** Unwritten bytes of bodies that were given up: with more of them the thread is taken for stuck, and no body begins. */
const MAX_GIVEN_UP_BYTES = 64 * 1024 * 1024;
/** Bodies that are mapped at a time. */
const MAX_MAPPED = 4;

/** A body could not be written to the spool, or read from it. */
export class SpoolError extends Error {
  override readonly name = "SpoolError";
  readonly code: string;

  constructor(folder: string, { code, message }: SpoolFailure) {
    super(`the spool in ${folder}: ${message.includes(code) ? message : `${message} (${code})`}`);
    this.code = code;
  }
}

export class WorkerSpool implements Spool {
  #line: SpoolLine | null = null;
  readonly #ask: () => void;
  /** A line was asked for and is not there yet: the messages for it. */
  #waiting: ToSpool[] | null = null;
  readonly #bodies = new Map<number, Body>();
  #lastId = 0;
  #idle: ArrayBuffer[] = [];
  /** Bytes on their way whose body was given up. */
  #givenUpBytes = 0;
  #mappedCount = 0;
  /** Bytes of address space that handlers' memory seems to have, and that are of files. */
  mappedBytes = 0;
  /** Bodies that wait for a place among the mapped ones. */
  readonly #queue: Body[] = [];
  /** Tells the thread when no view of a body is left. */
  readonly #views = new FinalizationRegistry<{ readonly line: SpoolLine; readonly id: number }>(({ id, line }) => {
    line.port.postMessage({ kind: "collected", id } satisfies ToSpool);
  });

  /** @param ask asks for a line: see {@link connect} */
  constructor(ask: () => void) {
    this.#ask = ask;
  }

  connect(line: SpoolLine | NoSpoolLine): void {
    this.folder = line.folder;
    if (line.port === null) {
      this.#waiting = null;
      this.#failAll(line.failure);
      return;
    }
    this.#line = line;
    for (const message of this.#waiting ?? []) this.send(message);
    this.#waiting = null;
    line.port.onmessage = ({ data }: { readonly data: FromSpool }) => this.#receive(data);
    line.port.addEventListener("close", () => {
      if (this.#line !== line) return;
      this.#line = null;
      this.#givenUpBytes = 0;
      this.#failAll({ code: "", message: "its thread has ended" });
    });
  }

  #failAll(failure: SpoolFailure): void {
    for (const body of this.#bodies.values()) body.failed(failure);
  }

  begin(): SpooledBody {
    const id = ++this.#lastId;
    const body = new Body(id, this);
    this.#bodies.set(id, body);
    if (this.#line === null && this.#waiting === null) {
      this.#waiting = [];
      this.#ask();
    }
    if (this.#givenUpBytes > MAX_GIVEN_UP_BYTES) {
      body.failed({ code: "", message: `it has not taken the last ${this.#givenUpBytes} bytes` });
    }
    return body;
  }

  /** For messages. */
  folder = "a folder that is not known yet";

  // For the bodies.

  block(): ArrayBuffer {
    return this.#idle.pop() ?? new ArrayBuffer(BLOCK_BYTES);
  }

  send(message: ToSpool): void {
    if (this.#line === null) this.#waiting?.push(message);
    else if (message.kind === "write") this.#line.port.postMessage(message, [message.memory]);
    else this.#line.port.postMessage(message);
  }

  /** Maps a body once there is a place for it. */
  map(body: Body): void {
    if (this.#mappedCount >= MAX_MAPPED) {
      this.#queue.push(body);
      return;
    }
    this.#mappedCount += 1;
    body.hasPlace = true;
    this.send({ kind: "map", id: body.id });
  }

  ended(body: Body): void {
    this.#bodies.delete(body.id);
    this.#givenUpBytes += body.unwritten;
    const at = this.#queue.indexOf(body);
    if (at !== -1) this.#queue.splice(at, 1);
    this.send({ kind: "end", id: body.id });
    this.leavePlace(body);
  }

  /** No handler reads the body any more: another one may be mapped. */
  leavePlace(body: Body): void {
    if (!body.hasPlace) return;
    body.hasPlace = false;
    this.#mappedCount -= 1;
    const next = this.#queue.shift();
    if (next !== undefined) this.map(next);
  }

  /** @param memory of a mapped body, before anybody has a view of it */
  watch(id: number, memory: ArrayBuffer): void {
    this.#views.register(memory, { id, line: this.#line! }, memory);
  }

  /** The memory has become that of another object, which nobody knows: its addresses stay readable for ever. */
  unwatch(memory: ArrayBuffer): void {
    this.#views.unregister(memory);
  }

  #receive(message: FromSpool): void {
    const body = this.#bodies.get(message.id);
    switch (message.kind) {
      case "written":
        if (this.#idle.length < MAX_IDLE_BLOCKS) this.#idle.push(message.memory);
        if (body === undefined) this.#givenUpBytes -= message.length;
        else body.written(message.length);
        return;
      case "mapped":
        // Of a body that has ended meanwhile nobody has a view.
        if (body === undefined) this.send({ kind: "collected", id: message.id });
        else body.mapped(message.address, message.length);
        return;
      case "failed":
        body?.failed(message.failure);
        return;
      default:
        message satisfies never;
    }
  }
}

class Body implements SpooledBody {
  readonly id: number;
  /** It is mapped, or about to be. */
  hasPlace = false;
  /** Bytes that were sent and are not written. */
  unwritten = 0;
  readonly #spool: WorkerSpool;
  #block: Uint8Array | null = null;
  #filled = 0;
  #onRoom: (() => void) | null = null;
  #problem: SpoolError | null = null;
  #mapping: PromiseWithResolvers<MappedBody> | null = null;
  #mapped: Mapping | null = null;
  #isOver = false;

  constructor(id: number, spool: WorkerSpool) {
    this.id = id;
    this.#spool = spool;
  }

  get isBehind(): boolean {
    return this.#problem === null && this.unwritten >= BEHIND_BYTES;
  }

  append(bytes: Uint8Array, start: number, end: number): void {
    for (let at = start; at < end && this.#problem === null;) {
      this.#block ??= new Uint8Array(this.#spool.block());
      const to = Math.min(end, at + this.#block.length - this.#filled);
      Buffer.prototype.copy.call(bytes, this.#block, this.#filled, at, to);
      this.#filled += to - at;
      at = to;
      if (this.#filled === this.#block.length) this.#sendBlock();
    }
  }

  onRoom(callback: () => void): void {
    this.#onRoom = callback;
    this.#callIfRoom();
  }

  map(): Promise<MappedBody> {
    this.#mapping ??= Promise.withResolvers();
    if (this.#problem !== null) this.#mapping.reject(this.#problem);
    else {
      if (this.#filled > 0) this.#sendBlock();
      this.#spool.map(this);
    }
    return this.#mapping.promise;
  }

  fail(reason: string): Error {
    this.failed({ code: "", message: reason });
    return this.#problem!;
  }

  handOver(): ArrayBuffer {
    const memory = this.#mapped!.handOver();
    // However slowly the mail server takes it, the bodies of others have their places.
    this.#spool.leavePlace(this);
    return memory;
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#block = null;
    this.#onRoom = null;
    this.#mapped?.end();
    this.#spool.ended(this);
    // Nobody waits for it any more: an open promise keeps what its reactions refer to.
    this.#mapping?.reject(this.#problem ?? new Error("the body is not needed any more"));
  }

  // For the spool.

  written(length: number): void {
    this.unwritten -= length;
    this.#callIfRoom();
  }

  mapped(address: number, length: number): void {
    this.#mapped = new Mapping(this.id, this.#spool, address, length);
    this.#mapping?.resolve(this.#mapped);
  }

  failed(failure: SpoolFailure): void {
    this.#problem ??= new SpoolError(this.#spool.folder, failure);
    this.#block = null;
    this.#filled = 0;
    this.#mapping?.reject(this.#problem);
    this.#callIfRoom();
  }

  #sendBlock(): void {
    const memory = this.#block!.buffer as ArrayBuffer;
    const length = this.#filled;
    this.unwritten += length;
    this.#block = null;
    this.#filled = 0;
    this.#spool.send({ kind: "write", id: this.id, memory, length });
  }

  #callIfRoom(): void {
    if (this.isBehind) return;
    const callback = this.#onRoom;
    this.#onRoom = null;
    callback?.();
  }
}

/** A mapped file, while its message lasts. */
class Mapping implements MappedBody {
  readonly #spool: WorkerSpool;
  #memory: ArrayBuffer | null;
  #bytes: Uint8Array;
  readonly #length: number;
  #isHandedOver = false;
  /** The bytes that were last put in front of the body. */
  #head: Uint8Array = new Uint8Array(0);

  constructor(id: number, spool: WorkerSpool, address: number, length: number) {
    this.#spool = spool;
    this.#length = length;
    this.#memory = toArrayBuffer(address as Pointer, 0, length);
    this.#bytes = new Uint8Array(this.#memory, HEADROOM);
    spool.watch(id, this.#memory);
    spool.mappedBytes += length;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  get isTransferred(): boolean {
    return this.#memory?.detached === true;
  }

  withHead(head: Uint8Array): Uint8Array | null {
    if (this.#memory === null || head.length > HEADROOM) return null;
    // A view that was given out must not change: what it shows in front of the body has to stay.
    const [short, long] = head.length < this.#head.length ? [head, this.#head] : [this.#head, head];
    if (Buffer.compare(long.subarray(long.length - short.length), short) !== 0) return null;
    const start = HEADROOM - head.length;
    if (long === head) {
      new Uint8Array(this.#memory).set(head, start);
      this.#head = head;
    }
    return new Uint8Array(this.#memory, start);
  }

  /** Every view becomes empty. @returns the memory as another object, of which nobody else has a view; until {@link end} */
  handOver(): ArrayBuffer {
    const memory = this.#memory!;
    this.#isHandedOver = true;
    this.#bytes = new Uint8Array(0);
    // The first object is kept: once the collector takes it, the addresses are given back.
    return structuredClone(memory, { transfer: [memory] });
  }

  /**
   * Every view becomes empty: also what a handler keeps, or made of it. The addresses stay readable until no view is left,
   * for code in another thread that still reads from them.
   */
  end(): void {
    if (this.#memory === null) return;
    if (!this.#isHandedOver) {
      if (this.isTransferred) this.#spool.unwatch(this.#memory);
      else structuredClone(this.#memory, { transfer: [this.#memory] });
    }
    this.#memory = null;
    this.#bytes = new Uint8Array(0);
    this.#spool.mappedBytes -= this.#length;
  }
}
