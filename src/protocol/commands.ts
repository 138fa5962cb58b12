/**
 * Commands to bytes: the mail server's side of `encode.ts`, for the testing kit and `pmilter send`; the server itself never
 * uses it. It knows the layout of each packet and nothing of order, macros or negotiation.
 */
import { ByteWriter } from "./bytes.ts";
import { COMMAND, type CommandCode, FAMILY } from "./constants.ts";

export type MacroPair = readonly [name: string, value: string];

/**
 * Encodes command packets into a buffer of its own, in order; `copy()` or `buffer` give them, `clear()` starts again.
 * Strings are written as {@link ByteWriter.text} does, and must hold no NUL: it would end the field.
 */
export class CommandWriter extends ByteWriter {
  /** The first packet of a connection: version, actions (`SMFIF_*`) and protocol flags (`SMFIP_*`) on offer. */
  optneg(version: number, actions: number, protocol: number): void {
    const at = this.beginPacket(COMMAND.OPTNEG);
    this.u32(version);
    this.u32(actions);
    this.u32(protocol);
    this.endPacket(at);
  }

  /** The macros of the command `stage`, which follows; without pairs it is just the stage byte. */
  macro(stage: CommandCode, pairs: Iterable<MacroPair>): void {
    const at = this.beginPacket(COMMAND.MACRO);
    this.u8(stage);
    for (const [name, value] of pairs) {
      this.cstring(name);
      this.cstring(value);
    }
    this.endPacket(at);
  }

  /**
   * @param family of {@link FAMILY}; with UNKNOWN neither port nor address is written
   * @param port 0 to 65535, 0 for not known
   */
  connect(hostname: string, family: number, port: number, address: string): void {
    const at = this.beginPacket(COMMAND.CONNECT);
    this.cstring(hostname);
    this.u8(family);
    if (family !== FAMILY.UNKNOWN) {
      this.u16(port);
      this.cstring(address);
    }
    this.endPacket(at);
  }

  helo(hostname: string): void {
    this.#strings(COMMAND.HELO, [hostname]);
  }

  /** `sender` as it goes over the wire, brackets included; `params` has a string for each ESMTP argument. */
  mail(sender: string, params: readonly string[] = []): void {
    this.#strings(COMMAND.MAIL, [sender, ...params]);
  }

  rcpt(recipient: string, params: readonly string[] = []): void {
    this.#strings(COMMAND.RCPT, [recipient, ...params]);
  }

  data(): void {
    this.#strings(COMMAND.DATA, []);
  }

  /** `value` as it goes over the wire: continuation lines separated by LF alone. */
  header(name: string, value: string): void {
    const at = this.beginPacket(COMMAND.HEADER);
    this.cstring(name);
    this.cstring(value);
    this.endPacket(at);
  }

  eoh(): void {
    this.#strings(COMMAND.EOH, []);
  }

  /** A piece of the body; Postfix and Sendmail send at most 65535 bytes. */
  body(chunk: Uint8Array): void {
    this.#raw(COMMAND.BODY, chunk);
  }

  /** The end of the message; some mail servers put the last piece of the body here, Postfix and Sendmail do not. */
  bodyeob(lastPiece?: Uint8Array): void {
    this.#raw(COMMAND.BODYEOB, lastPiece);
  }

  abort(): void {
    this.#strings(COMMAND.ABORT, []);
  }

  quit(): void {
    this.#strings(COMMAND.QUIT, []);
  }

  /** The SMTP session is over, the connection will serve another. */
  quitNc(): void {
    this.#strings(COMMAND.QUIT_NC, []);
  }

  /** An SMTP command line that the mail server does not know. */
  unknown(line: string): void {
    this.#strings(COMMAND.UNKNOWN, [line]);
  }

  #strings(code: CommandCode, strings: readonly string[]): void {
    const at = this.beginPacket(code);
    for (const text of strings) this.cstring(text);
    this.endPacket(at);
  }

  #raw(code: CommandCode, bytes: Uint8Array | undefined): void {
    this.u32(1 + (bytes?.length ?? 0));
    this.u8(code);
    if (bytes !== undefined) this.bytes(bytes);
  }
}
