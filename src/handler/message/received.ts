/**
 * A message as the mail server sends it: envelope, headers, and the body if a filter collects it. Bytes are copied (the
 * reads that they came in are not kept) and decoded when they are read. Changes of handlers are not here.
 */
import { type HeldBody, lengthOf } from "../../protocol/body-packets.ts";
import { EMPTY } from "../../protocol/bytes.ts";
import type { MessageResults } from "../results.ts";
import type { Address } from "../types.ts";
import { Arena } from "./arena.ts";
import { CollectedBody } from "./collected-body.ts";
import { EnvelopeAddress } from "./envelope-address.ts";
import type { Spool } from "./spool.ts";

/** An address of the envelope, decoded when it is read. */
export class SentAddress extends EnvelopeAddress {
  readonly #arena: Arena;
  readonly #start: number;
  readonly #end: number;
  #strings: string[] | null = null;

  constructor(arena: Arena, start: number, end: number) {
    super();
    this.#arena = arena;
    this.#start = start;
    this.#end = end;
  }

  /** Makes it independent of the arena, and gives back its place there: nothing was appended behind it. */
  release(): void {
    this.#read();
    this.#arena.truncate(this.#start);
  }

  get raw(): string {
    return this.#read()[0]!;
  }

  get params(): readonly string[] {
    return this.#read().slice(1);
  }

  #read(): string[] {
    if (this.#strings === null) {
      this.#strings = [];
      for (let at = this.#start; at < this.#end;) {
        const end = this.#arena.indexOf(0, at);
        this.#strings.push(this.#arena.text(at, end));
        at = end + 1;
      }
    }
    return this.#strings;
  }
}

/** A sender that was not sent: the mail server was told not to, or left MAIL out. */
const NO_ADDRESS: Address = { raw: "", address: "", local: "", domain: "", mailbox: "", params: [] };

/** Numbers kept for each header: where its name begins, and where it ends. A NUL, its value and another NUL follow. */
const HEADER_FIELDS = 2;
const SPACE = 0x20;
const CRLF_BYTES = 2;
const MESSAGE_ID = "message-id";

export class ReceivedMessage {
  readonly #arena = new Arena();
  readonly #headers: number[] = [];
  /** Values lie there as they followed the colon. */
  #hasSpaces = false;
  #body: CollectedBody | null = null;
  /** Of the body as it was received; null until a handler gets it. */
  #bodyHash: bigint | null = null;
  sender: Address = NO_ADDRESS;
  /** What filters have left; null while that is nothing. */
  results: MessageResults | null = null;
  /** Accepted recipients; the last may be a recipient that is not decided yet. */
  readonly recipients: SentAddress[] = [];
  /** Bytes of the headers, names and values. */
  headerBytes = 0;
  /** False once a limit kept a header out. */
  hasAllHeaders = true;
  /** Bytes of the body that have come, collected or not. */
  sentBodyBytes = 0;
  /** Set when the end of the message comes. */
  receivedAt: Date | null = null;

  /** Takes the payload of MAIL: strings, checked to end with NUL. */
  takeSender(bytes: Uint8Array, start: number, end: number): void {
    const at = this.#arena.append(bytes, start, end);
    this.sender = new SentAddress(this.#arena, at, at + end - start);
  }

  /** The mail server has sent MAIL. */
  get hasSender(): boolean {
    return this.sender !== NO_ADDRESS;
  }

  /** Takes the payload of RCPT. */
  takeRecipient(bytes: Uint8Array, start: number, end: number): SentAddress {
    const at = this.#arena.append(bytes, start, end);
    const recipient = new SentAddress(this.#arena, at, at + end - start);
    this.recipients.push(recipient);
    return recipient;
  }

  /** The last recipient was refused: however many are, they leave nothing behind. */
  dropRecipient(): void {
    this.recipients.pop()?.release();
  }

  /** Bytes of sender and recipients. */
  get envelopeBytes(): number {
    return this.#arena.used - this.headerBytes;
  }

  /**
   * Takes a header: name NUL value NUL at `start`, checked.
   * @param dropSpace drop a space from the front of the value: the mail server sent the value as it followed the colon
   */
  takeHeader(bytes: Uint8Array, start: number, nameLength: number, valueLength: number, dropSpace: boolean): void {
    const length = nameLength + 1 + valueLength + 1;
    const at = this.#arena.append(bytes, start, start + length);
    this.#headers.push(at, at + nameLength);
    this.#hasSpaces = dropSpace;
    this.headerBytes += length;
  }

  /**
   * Copies a piece of the body behind the pieces before it.
   * @param spool takes over a body that is too large for memory; null: none is
   */
  takeBody(bytes: Uint8Array, start: number, end: number, spool: Spool | null): CollectedBody {
    this.#body ??= new CollectedBody(spool);
    this.#body.append(bytes, start, end);
    return this.#body;
  }

  /** No filter reads the collected body any more. */
  dropBody(): void {
    this.#body?.end();
    this.#body = null;
  }

  /** Pieces of a new body, some of them perhaps slices of the collected one, to be sent when the message is over. */
  handOver(pieces: readonly Uint8Array[]): HeldBody {
    return this.#body?.handOver(pieces) ?? { pieces, release() {} };
  }

  /** The collected body; null before its first piece, and once it was dropped. */
  get collected(): CollectedBody | null {
    return this.#body;
  }

  /** A view of the collected body, for a handler, which may write to it. */
  body(): Uint8Array {
    const body = this.#collected;
    // Of its own: the handler may give the memory away.
    if (body.length === 0) return new Uint8Array(0);
    this.#bodyHash ??= Bun.hash.rapidhash(body);
    return body;
  }

  /** Whether the body was collected, and is to the byte what these pieces make. */
  isBody(pieces: readonly Uint8Array[]): boolean {
    if (this.sentBodyBytes !== lengthOf(pieces) || this.#body?.isTransferred === true) return false;
    const collected = this.#collected;
    if (collected.length !== this.sentBodyBytes) return false;
    let at = 0;
    for (const piece of pieces) {
      if (Buffer.compare(collected.subarray(at, at + piece.length), piece) !== 0) return false;
      at += piece.length;
    }
    // A handler may have edited the bytes that it was given, and gives those.
    return this.#bodyHash === null || this.#bodyHash === Bun.hash.rapidhash(collected);
  }

  get #collected(): Uint8Array {
    return this.#body?.bytes ?? EMPTY;
  }

  get headerCount(): number {
    return this.#headers.length / HEADER_FIELDS;
  }

  headerName(index: number): string {
    const at = index * HEADER_FIELDS;
    return this.#arena.text(this.#headers[at]!, this.#headers[at + 1]!);
  }

  /** Without the space that follows the colon. */
  headerValue(index: number): string {
    const at = this.#valueAt(index);
    const isSpaced = this.#hasSpaces && this.#arena.byteAt(at) === SPACE;
    return this.#arena.text(isSpaced ? at + 1 : at, this.#arena.indexOf(0, at));
  }

  /** The text behind the colon; without HDR_LEADSPC the mail server has dropped a space, if any. */
  headerRaw(index: number): string {
    const at = this.#valueAt(index);
    const text = this.#arena.text(at, this.#arena.indexOf(0, at));
    return this.#hasSpaces ? text : ` ${text}`;
  }

  /** The same as bytes: a copy. */
  headerRawBytes(index: number): Uint8Array {
    const at = this.#valueAt(index);
    const end = this.#arena.indexOf(0, at);
    const space = this.#hasSpaces ? 0 : 1;
    const bytes = new Uint8Array(space + end - at);
    if (space === 1) bytes[0] = SPACE;
    this.#arena.copy(bytes, space, at, end);
    return bytes;
  }

  /** The value of the first Message-ID, "" if none has come. */
  get messageId(): string {
    for (let index = 0; index < this.headerCount; index++) {
      const at = index * HEADER_FIELDS;
      if (this.#headers[at + 1]! - this.#headers[at]! !== MESSAGE_ID.length) continue;
      if (this.headerName(index).toLowerCase() === MESSAGE_ID) return this.headerValue(index).trim();
    }
    return "";
  }

  /** Bytes of the headers that were taken and the body that was sent, as SMTP transfers them. */
  get size(): number {
    // As kept, each header has two NULs, where SMTP has a colon and CRLF, and a space unless that is kept.
    const perHeader = this.#hasSpaces ? 1 : CRLF_BYTES;
    const folds = this.headerCount === 0 ? 0 : this.#arena.bareLinesFrom(this.#headers[0]!);
    return this.headerBytes + this.headerCount * perHeader + folds + CRLF_BYTES + this.sentBodyBytes;
  }

  #valueAt(index: number): number {
    return this.#headers[index * HEADER_FIELDS + 1]! + 1;
  }
}
