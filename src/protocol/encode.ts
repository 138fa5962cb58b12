/**
 * Replies and modifications to bytes. All connections of a worker share a writer: the replies to a read leave in a single
 * write. Replies that never change are encoded once, at load.
 */
import { BodyPackets, type HeldBody, lengthOf } from "./body-packets.ts";
import { ByteWriter, encodeText } from "./bytes.ts";
import { ALL_PROTOCOL, LENGTH_BYTES, MAX_REPLY_PAYLOAD, REPLY, type ReplyCode } from "./constants.ts";

/** Replies without a payload, each a whole packet. */
export type PlainReply = "CONTINUE" | "ACCEPT" | "REJECT" | "TEMPFAIL" | "DISCARD" | "SKIP" | "PROGRESS";

function plain(name: PlainReply): Uint8Array {
  return Buffer.from([0, 0, 0, 1, REPLY[name]]);
}

/** The packets of the plain replies. Shared: never write to them. */
export const PLAIN_REPLIES: Readonly<Record<PlainReply, Uint8Array>> = {
  CONTINUE: plain("CONTINUE"),
  ACCEPT: plain("ACCEPT"),
  REJECT: plain("REJECT"),
  TEMPFAIL: plain("TEMPFAIL"),
  DISCARD: plain("DISCARD"),
  SKIP: plain("SKIP"),
  PROGRESS: plain("PROGRESS"),
};

/** The code of the plain reply that decides the same as a packet: of an SMTP reply, REJECT or TEMPFAIL by its class. */
export function plainCodeOf(packet: Uint8Array): number {
  const code = packet[LENGTH_BYTES]!;
  if (code !== REPLY.REPLYCODE) return code;
  return packet[LENGTH_BYTES + 1] === 0x35 ? REPLY.REJECT : REPLY.TEMPFAIL;
}

/** The packet of an SMTP reply (REPLYCODE): `text` with `%` doubled already and lines separated by CRLF. */
export function encodeReplyCode(text: string): Uint8Array {
  const writer = new ReplyWriter(64);
  writer.replyCode(text);
  return writer.copy();
}

/** A macro list of the OPTNEG answer: a stage as SETSYMLIST numbers it, and names separated by spaces. */
export interface MacroList {
  readonly stage: number;
  readonly names: readonly string[];
}

/** Encoded lists: all sessions of a chain ask for the same macros. */
const known = new WeakMap<readonly MacroList[], Uint8Array>();

function encodedLists(lists: readonly MacroList[]): Uint8Array {
  let bytes = known.get(lists);
  if (bytes === undefined) {
    const writer = new ByteWriter();
    for (const { names, stage } of lists) {
      writer.u32(stage);
      writer.cstring(names.join(" "));
    }
    bytes = writer.copy();
    known.set(lists, bytes);
  }
  return bytes;
}

/** A body that is held, with its place: in front of the byte `at` of a writer. */
export interface HeldPlace {
  readonly at: number;
  readonly body: HeldBody;
}

const NONE: readonly HeldPlace[] = [];

/** Encodes packets into a buffer of its own, in order. The bytes of a large body are not copied: they have a place in it. */
export class ReplyWriter extends ByteWriter {
  /** Most runs have none. */
  #held: readonly HeldPlace[] = NONE;

  get isEmpty(): boolean {
    return this.length === 0 && this.#held === NONE;
  }

  /** There are bodies with {@link heldBody}: the buffer alone is not all that is to be sent. */
  get hasHeld(): boolean {
    return this.#held !== NONE;
  }

  /** The held bodies, in order: the caller has them now, and releases them. */
  takeHeld(): readonly HeldPlace[] {
    const held = this.#held;
    this.#held = NONE;
    return held;
  }

  override clear(): void {
    super.clear();
    if (this.#held === NONE) return;
    for (const { body } of this.takeHeld()) body.release();
  }

  /** All packets, with those of the held bodies. */
  override copy(): Uint8Array {
    if (this.#held === NONE) return super.copy();
    const whole = new ReplyWriter();
    let from = 0;
    for (const { at, body } of this.#held) {
      whole.bytes(this.buffer, from, at);
      whole.replaceBody(body.pieces);
      from = at;
    }
    whole.bytes(this.buffer, from, this.length);
    return whole.copy();
  }

  /** A packet that is encoded already: of {@link PLAIN_REPLIES}, or from {@link encodeReplyCode}. */
  packet(packet: Uint8Array): void {
    this.bytes(packet);
  }

  optneg(version: number, actions: number, protocol: number, lists: readonly MacroList[]): void {
    const at = this.beginPacket(REPLY.OPTNEG);
    this.u32(version);
    this.u32(actions);
    this.u32(protocol & ALL_PROTOCOL);
    if (lists.length > 0) this.bytes(encodedLists(lists));
    this.endPacket(at);
  }

  replyCode(text: string): void {
    const at = this.beginPacket(REPLY.REPLYCODE);
    this.cstring(text);
    this.endPacket(at);
  }

  /** Appends a header at the end of the block (`smfi_addheader`). */
  addHeader(name: string, value: string): void {
    const at = this.beginPacket(REPLY.ADDHEADER);
    this.cstring(name);
    this.cstring(value);
    this.endPacket(at);
  }

  /** Inserts a header; 0 is the top, above the mail server's own Received (`smfi_insheader`). */
  insertHeader(index: number, name: string, value: string): void {
    const at = this.beginPacket(REPLY.INSHEADER);
    this.u32(index);
    this.cstring(name);
    this.cstring(value);
    this.endPacket(at);
  }

  /** Changes the `index`th header of that name, from 1; an empty value deletes it (`smfi_chgheader`). */
  changeHeader(index: number, name: string, value: string): void {
    const at = this.beginPacket(REPLY.CHGHEADER);
    this.u32(index);
    this.cstring(name);
    this.cstring(value);
    this.endPacket(at);
  }

  /** The whole new body, cut into packets that follow each other; an empty body is an empty packet. */
  replaceBody(pieces: readonly Uint8Array[]): void {
    if (lengthOf(pieces) <= MAX_REPLY_PAYLOAD) {
      const at = this.beginPacket(REPLY.REPLBODY);
      for (const piece of pieces) this.bytes(piece);
      this.endPacket(at);
      return;
    }
    const packets = new BodyPackets(pieces);
    const at = this.extend(packets.length);
    packets.copyTo(this.buffer, at, this.length);
  }

  /** The same of a large body, whose packets are made when they leave. */
  heldBody(body: HeldBody): void {
    this.#held = [...this.#held, { at: this.length, body }];
  }

  /** Changes the sender; `params` are ESMTP arguments separated by spaces, "" for none (`smfi_chgfrom`). */
  changeFrom(address: Uint8Array, params: string): void {
    this.#addressed(REPLY.CHGFROM, address, params);
  }

  /** Adds a recipient; with `params` it needs the action ADDRCPT_PAR (`smfi_addrcpt`, `smfi_addrcpt_par`). */
  addRecipient(address: Uint8Array, params: string): void {
    this.#addressed(params === "" ? REPLY.ADDRCPT : REPLY.ADDRCPT_PAR, address, params);
  }

  /** Removes a recipient, given as the RCPT command carried it (`smfi_delrcpt`). */
  deleteRecipient(address: Uint8Array): void {
    this.#addressed(REPLY.DELRCPT, address, "");
  }

  quarantine(reason: string): void {
    const at = this.beginPacket(REPLY.QUARANTINE);
    this.cstring(reason);
    this.endPacket(at);
  }

  #addressed(code: ReplyCode, address: Uint8Array, params: string): void {
    const at = this.beginPacket(code);
    this.bytes(address);
    this.u8(0);
    if (params !== "") this.cstring(params);
    this.endPacket(at);
  }
}

/** The bytes of an address as it is sent: in angle brackets, added where they are missing. */
export function encodeAddress(address: string): Uint8Array {
  return encodeText(address.startsWith("<") && address.endsWith(">") ? address : `<${address}>`);
}
