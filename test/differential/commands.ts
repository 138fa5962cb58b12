/** A command as it goes over the wire, with what is known of it; the bytes of a stream, and the replies in one. */
import { packet } from "../server/wire.ts";

export interface Command {
  /** The code byte, as a character. */
  readonly code: string;
  readonly payload: Buffer;
  /** The length field, where it is not that of the packet. */
  readonly length?: number;
}

export interface Reply {
  readonly code: string;
  readonly payload: Buffer;
}

/** What one side said to one command. */
export interface Answer {
  /** In the order they came: changes, and what else is no final reply. */
  readonly changes: readonly Reply[];
  /** Undefined: none. */
  readonly final: Reply | undefined;
  /** libmilter alone: a second final reply to the same command. */
  readonly second: Reply | undefined;
  /** A reply is missing, and the connection is closed. */
  readonly isClosed: boolean;
}

export function command(code: string, payload: string | Uint8Array = ""): Command {
  return { code, payload: typeof payload === "string" ? Buffer.from(payload, "utf8") : Buffer.from(payload) };
}

export function bytesOf(commands: readonly Command[]): Buffer {
  return Buffer.concat(
    commands.map(({ code, payload, length }) => {
      const bytes = packet("?", payload);
      bytes[4] = code.charCodeAt(0);
      if (length !== undefined) bytes.writeUInt32BE(length);
      return bytes;
    }),
  );
}

/** What is no final reply: changes, and progress. */
const NOT_FINAL = "+2-behimqp";

export function isFinal({ code }: Reply): boolean {
  return !NOT_FINAL.includes(code);
}

/** @param isOpen the last may be cut: more is to come */
export function parseReplies(bytes: Buffer, isOpen = false): Reply[] {
  const replies: Reply[] = [];
  for (let at = 0; at < bytes.length;) {
    if (isOpen && (bytes.length - at < 5 || bytes.length - at - 4 < bytes.readUInt32BE(at))) break;
    if (bytes.length - at < 5) throw new Error(`${bytes.length - at} bytes are no packet`);
    const length = bytes.readUInt32BE(at);
    if (length === 0 || bytes.length - at - 4 < length) throw new Error(`a reply of ${length} bytes is not whole`);
    replies.push({
      code: String.fromCharCode(bytes[at + 4]!),
      payload: bytes.subarray(at + 5, at + 4 + length),
    });
    at += 4 + length;
  }
  return replies;
}

/** For messages: `MAIL "<a@x>\0"`. */
export function show({ code, payload, length }: Command | (Reply & { length?: number })): string {
  const text = JSON.stringify(payload.subarray(0, 90).toString("latin1")).replaceAll("\\u0000", "\\0");
  const more = payload.length > 90 ? `… ${payload.length} bytes` : "";
  return `${JSON.stringify(code)}${payload.length > 0 ? ` ${text}${more}` : ""}${length === undefined ? "" : ` length ${length}`}`;
}
