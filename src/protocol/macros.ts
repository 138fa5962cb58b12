/**
 * The macros of a session, by stage and with their life time. Kept as the bytes of their packets and looked up by
 * scanning them: a session gets dozens of values, of which few are ever read.
 */
import { decodeText } from "./bytes.ts";
import { COMMAND } from "./constants.ts";
import { ProtocolError } from "./errors.ts";

/**
 * The stages in protocol order. UNKNOWN has no list of its own, but Postfix can be told to send macros with it: they
 * live for that one command.
 */
const STAGES = ["CONNECT", "HELO", "MAIL", "RCPT", "DATA", "EOH", "EOM", "UNKNOWN"] as const;
type Stage = (typeof STAGES)[number];

const STAGE_OF = new Int8Array(256).fill(-1);
const COMMAND_OF_STAGE: Readonly<Record<Stage, number>> = {
  CONNECT: COMMAND.CONNECT,
  HELO: COMMAND.HELO,
  MAIL: COMMAND.MAIL,
  RCPT: COMMAND.RCPT,
  DATA: COMMAND.DATA,
  EOH: COMMAND.EOH,
  EOM: COMMAND.BODYEOB,
  UNKNOWN: COMMAND.UNKNOWN,
};
STAGES.forEach((stage, index) => {
  STAGE_OF[COMMAND_OF_STAGE[stage]] = index;
});

const NONE = Buffer.alloc(0);

export class Macros {
  /** Per stage, the pairs `name NUL value NUL …` of its last packet; the buffers are reused. */
  readonly #pairs: Uint8Array[] = STAGES.map(() => NONE);
  readonly #used = new Uint32Array(STAGES.length);

  /**
   * Takes the payload of a MACRO packet, replacing what its stage had. Macros for commands without a stage of their
   * own (HEADER, BODY, and any unknown byte) are dropped, as is a last name without a value.
   *
   * @returns the bytes now kept for that stage, 0 if dropped
   * @throws ProtocolError PMILTER_ERR_TOO_SHORT without a stage byte, PMILTER_ERR_MISSING_NUL
   */
  put(bytes: Uint8Array, start: number, end: number): number {
    if (start === end) {
      throw new ProtocolError("PMILTER_ERR_TOO_SHORT", "MACRO without the byte that names its command");
    }
    if (end - start > 1 && bytes[end - 1] !== 0) {
      throw new ProtocolError("PMILTER_ERR_MISSING_NUL", "the last macro value does not end with NUL");
    }
    const stage = STAGE_OF[bytes[start]!]!;
    if (stage === -1) return 0;
    const length = end - start - 1;
    let kept = this.#pairs[stage]!;
    if (kept.length < length) {
      kept = Buffer.allocUnsafeSlow(length);
      this.#pairs[stage] = kept;
    }
    for (let index = 0; index < length; index++) kept[index] = bytes[start + 1 + index]!;
    this.#used[stage] = length;
    return length;
  }

  /** CONNECT, HELO, MAIL or RCPT has come: the sets of later stages are over. */
  clearAfter(command: number): void {
    this.#used.fill(0, STAGE_OF[command]! + 1);
  }

  /** From this command's stage on, nothing is left: for the end of a message (MAIL) or of a session (CONNECT). */
  clearFrom(command: number): void {
    this.#used.fill(0, STAGE_OF[command]!);
  }

  /**
   * The value of a macro, from the latest stage back to CONNECT. One-letter names are found with and without braces.
   * @returns undefined if no stage has it
   */
  get(name: string): string | undefined {
    for (let stage = STAGES.length - 1; stage >= 0; stage--) {
      const value = this.#find(stage, name);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  /** The value that came with CONNECT itself, whatever later stages said. */
  getAtConnect(name: string): string | undefined {
    return this.#find(0, name);
  }

  #find(stage: number, name: string): string | undefined {
    const used = this.#used[stage]!;
    if (used === 0) return undefined;
    const pairs = this.#pairs[stage]!;
    for (let at = 0; at < used;) {
      const nameEnd = pairs.indexOf(0, at);
      const valueEnd = nameEnd + 1 < used ? pairs.indexOf(0, nameEnd + 1) : -1;
      if (valueEnd === -1 || valueEnd >= used) return undefined;
      if (isName(pairs, at, nameEnd, name)) return decodeText(pairs, nameEnd + 1, valueEnd);
      at = valueEnd + 1;
    }
    return undefined;
  }
}

function isName(bytes: Uint8Array, start: number, end: number, name: string): boolean {
  const length = end - start;
  if (length === name.length) {
    for (let index = 0; index < length; index++) if (bytes[start + index] !== name.charCodeAt(index)) return false;
    return true;
  }
  const isBraced = (text: number, from: number) => text === from + 2;
  if (name.length === 1 && isBraced(length, 1)) {
    return bytes[start] === 0x7b && bytes[start + 1] === name.charCodeAt(0) && bytes[start + 2] === 0x7d;
  }
  if (length === 1 && isBraced(name.length, 1)) {
    return name[0] === "{" && name[2] === "}" && bytes[start] === name.charCodeAt(1);
  }
  return false;
}
