/**
 * The values of an event: taken into the message, within the limits of the configuration, and decoded for the handlers
 * of the phase.
 */
import { decodeText, LARGE_BYTES } from "../protocol/bytes.ts";
import { NameCache } from "../protocol/name-cache.ts";
import type { EventPhase, MilterSession } from "../protocol/session.ts";
import type { ChainStep, Limits } from "./chain.ts";
import type { ReceivedMessage } from "./message/received.ts";

/**
 * Takes an envelope recipient or a header into the message. Of the body it counts the bytes.
 * @returns null, or which limit it passed: then it was not taken, except for a recipient, which has its own reply
 */
export function takeIn(
  phase: EventPhase,
  session: MilterSession,
  message: ReceivedMessage,
  limits: Limits,
): string | null {
  const { bytes, start, end } = session;
  switch (phase.name) {
    case "envrcpt":
      message.takeRecipient(bytes, start, end);
      if (message.recipients.length > limits.recipients) {
        return `more than ${limits.recipients} recipients (limits.recipients)`;
      }
      return message.envelopeBytes > limits.headerBytes
        ? `more than ${limits.headerBytes} bytes of sender and recipients (limits.header_bytes)`
        : null;
    case "header":
      if (message.headerCount >= limits.headers) {
        message.hasAllHeaders = false;
        return `more than ${limits.headers} headers (limits.headers)`;
      }
      // Once a header is left out, so are all behind it: the indexes of the headers taken stay those of the mail
      // server.
      if (!message.hasAllHeaders || message.headerBytes + end - start > limits.headerBytes) {
        message.hasAllHeaders = false;
        return `more than ${limits.headerBytes} bytes of headers (limits.header_bytes)`;
      }
      message.takeHeader(bytes, start, session.firstLength, session.secondLength, session.keepsLeadingSpace);
      return null;
    case "body":
      message.sentBodyBytes += end - start;
      return null;
    default:
      return null;
  }
}

const NONE: readonly string[] = [];
const headerNames = new NameCache();

/**
 * A piece of body as handlers get it: a view of the read, or a copy of a small piece. For a view, a small read would have
 * to leave the collector's heap first, which costs several times as much as copying it.
 */
function chunkOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  const length = end - start;
  // Of no subclass, as the type says: a Buffer's methods differ.
  if (length >= LARGE_BYTES) return new Uint8Array(bytes.buffer, bytes.byteOffset + start, length);
  const chunk = new Uint8Array(length);
  Buffer.prototype.copy.call(bytes, chunk, 0, start, end);
  return chunk;
}

/** The arguments of a phase's handlers besides the session, decoded once for all of them. */
export class PhaseValues {
  /** The first argument: a name, an address, a command line. Of HELO the conversation has it anyway. */
  text = "";
  /** The value of a header. */
  value = "";
  /** ESMTP arguments. */
  params: readonly string[] = NONE;
  chunk: Uint8Array | null = null;

  /** Drops the values, once their message is over. */
  forget(): void {
    this.text = "";
    this.value = "";
    this.params = NONE;
    this.chunk = null;
  }

  /** @param message the message at hand, which has taken the event in */
  read(phase: EventPhase, session: MilterSession, message: ReceivedMessage | null): void {
    const { bytes, start, end } = session;
    switch (phase.name) {
      case "unknown":
        this.text = decodeText(bytes, start, start + session.firstLength);
        return;
      case "envfrom":
      case "envrcpt": {
        const address = phase.name === "envfrom" ? message!.sender : message!.recipients.at(-1)!;
        this.text = address.raw;
        this.params = address.params;
        return;
      }
      case "header": {
        const nameEnd = start + session.firstLength;
        const valueStart = nameEnd + 1;
        const space = session.keepsLeadingSpace && bytes[valueStart] === 0x20 ? 1 : 0;
        this.text = headerNames.decode(bytes, start, nameEnd);
        this.value = decodeText(bytes, valueStart + space, valueStart + session.secondLength);
        return;
      }
      case "body":
        this.chunk = chunkOf(bytes, start, end);
        return;
      default:
    }
  }

  /** Calls a handler of the phase whose values were read. */
  call({ filter, handler }: ChainStep, session: unknown, phase: EventPhase): unknown {
    const { self } = filter.loaded;
    switch (phase.name) {
      case "helo":
      case "unknown":
        return handler.call(self, session, this.text);
      case "envfrom":
      case "envrcpt":
        return handler.call(self, session, this.text, this.params);
      case "header":
        return handler.call(self, session, this.text, this.value);
      case "body":
        return handler.call(self, session, this.chunk!);
      default:
        return handler.call(self, session);
    }
  }
}
