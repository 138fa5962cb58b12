/**
 * The macros of a session, by stage and with their life time. Kept as the bytes of their packets and looked up by
 * scanning them: a session gets dozens of values, of which few are ever read.
 */
import { decodeText } from "./bytes.ts";
import { COMMAND } from "./constants.ts";
import { ProtocolError } from "./errors.ts";

/**
 * The stages in protocol order. UNKNOWN has no list of its own, but Postfix can be told to send macros with it: they
 * live for that command alone.
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

const UNKNOWN_STAGE = STAGES.indexOf("UNKNOWN");
const MAIL_STAGE = STAGES.indexOf("MAIL");
/** Stages as bits: MAIL, and all of a message. */
const OF_MAIL = 1 << MAIL_STAGE;
const OF_MESSAGE = (1 << UNKNOWN_STAGE) - OF_MAIL;
const NONE = Buffer.alloc(0);

/** Pairs `name NUL value NUL …`, in a buffer that may be larger. */
interface Pairs {
  bytes: Uint8Array;
  count: number;
  /** Where each name and each value ends, in turn. */
  readonly ends: number[];
}

/** For a stage without macros. */
const NO_PAIRS: Pairs = { bytes: NONE, count: 0, ends: [] };

/**
 * Buffers of messages that are over, for the next messages: an idle connection keeps none, and the buffer that was used last
 * is still in the processor's cache.
 */
const spare: Pairs[] = [];
const MAX_SPARE = 256;
/** Larger buffers are not kept. */
const MAX_SPARE_BYTES = 4096;
const MIN_BYTES = 256;

/** A buffer for so many bytes of a stage. Macros of a session, which live long, get exactly the room that they need. */
function pairsFor(stage: number, length: number): Pairs {
  if (stage < MAIL_STAGE) return { bytes: Buffer.allocUnsafeSlow(length), count: 0, ends: [] };
  const pairs = spare.pop() ?? { bytes: NONE, count: 0, ends: [] };
  if (pairs.bytes.length < length) pairs.bytes = Buffer.allocUnsafeSlow(Math.max(length, MIN_BYTES));
  return pairs;
}

function giveBack(stage: number, pairs: Pairs): void {
  if (stage < MAIL_STAGE) return;
  if (spare.length < MAX_SPARE && pairs.bytes.length <= MAX_SPARE_BYTES) spare.push(pairs);
}

/** Index of the first set that has arrived and is not in force. */
const ARRIVED = STAGES.length;
const NO_SETS: readonly Pairs[] = Array.from({ length: 2 * STAGES.length }, () => NO_PAIRS);

/**
 * A MACRO packet comes before its command, and that command may first end the message or the session before it. So macros
 * that arrive are not in force until {@link SessionMacros.commit}: the message or session that ends still sees its own
 * values, and its end does not clear the new ones.
 */
export class SessionMacros {
  /** The sets in force, by stage; then, from {@link ARRIVED} on, those that have arrived since the last command. */
  readonly #sets: Pairs[] = NO_SETS.slice();
  /** Stages for which macros have arrived, as bits. */
  #pending = 0;

  /**
   * Takes the payload of a MACRO packet, which replaces the macros of its stage. Macros for commands without a stage
   * (HEADER, BODY, and any unknown byte) are dropped, as is a last name without a value.
   *
   * @param limit over so many bytes the packet is dropped as well, and its stage is left without macros
   * @returns false if the limit was passed
   * @throws ProtocolError PMILTER_ERR_TOO_SHORT without a stage byte, PMILTER_ERR_MISSING_NUL
   */
  put(bytes: Uint8Array, start: number, end: number, limit: number): boolean {
    if (start === end) {
      throw new ProtocolError("PMILTER_ERR_TOO_SHORT", "MACRO without the byte that names its command");
    }
    if (end - start > 1 && bytes[end - 1] !== 0) {
      throw new ProtocolError("PMILTER_ERR_MISSING_NUL", "the last macro value does not end with NUL");
    }
    const stage = STAGE_OF[bytes[start]!]!;
    if (stage === -1) return true;
    const length = end - start - 1;
    this.#pending |= 1 << stage;
    this.#drop(ARRIVED + stage, stage);
    if (length > limit) return false;
    const arrived = pairsFor(stage, length);
    this.#sets[ARRIVED + stage] = arrived;
    const { bytes: pairs, ends } = arrived;
    let strings = 0;
    for (let index = 0; index < length; index++) {
      const byte = bytes[start + 1 + index]!;
      pairs[index] = byte;
      if (byte === 0) ends[strings++] = index;
    }
    arrived.count = strings >> 1;
    return true;
  }

  /** Macros of a message have arrived, and not the command that they belong to. */
  get areOfMessage(): boolean {
    return (this.#pending & OF_MESSAGE) !== 0;
  }

  /** Macros of MAIL have arrived, and not MAIL. */
  get areOfMail(): boolean {
    return (this.#pending & OF_MAIL) !== 0;
  }

  /**
   * A command is taken: the macros that arrived before it are in force from now on, those of an UNKNOWN before it no longer.
   */
  commit(): void {
    this.#drop(UNKNOWN_STAGE, UNKNOWN_STAGE);
    if (this.#pending === 0) return;
    for (let stage = 0; stage < STAGES.length; stage++) {
      if ((this.#pending & (1 << stage)) === 0) continue;
      this.#drop(stage, stage);
      this.#sets[stage] = this.#sets[ARRIVED + stage]!;
      this.#sets[ARRIVED + stage] = NO_PAIRS;
    }
    this.#pending = 0;
  }

  /** CONNECT, HELO, MAIL or RCPT has come: drops the sets of later stages. */
  clearAfter(command: number): void {
    this.#clear(STAGE_OF[command]! + 1);
  }

  /** Drops the sets of this command's stage and later: for the end of a message (MAIL) or of a session (CONNECT). */
  clearFrom(command: number): void {
    this.#clear(STAGE_OF[command]!);
  }

  /**
   * The value of a macro, from the latest stage back to CONNECT. Names of a single letter are found with and without braces.
   * @returns undefined if no stage has it
   */
  get(name: string): string | undefined {
    for (let stage = STAGES.length - 1; stage >= 0; stage--) {
      const value = this.#find(stage, name);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  /** The macros in force, as they are now. */
  copy(): SessionMacros {
    const copy = new SessionMacros();
    for (let stage = 0; stage < STAGES.length; stage++) {
      const { bytes, count, ends } = this.#sets[stage]!;
      if (count === 0) continue;
      copy.#sets[stage] = {
        bytes: Buffer.from(bytes.subarray(0, ends[2 * count - 1])),
        count,
        ends: ends.slice(0, 2 * count),
      };
    }
    return copy;
  }

  #clear(from: number): void {
    for (let stage = from; stage < STAGES.length; stage++) this.#drop(stage, stage);
  }

  #drop(at: number, stage: number): void {
    const pairs = this.#sets[at]!;
    if (pairs === NO_PAIRS) return;
    this.#sets[at] = NO_PAIRS;
    giveBack(stage, pairs);
  }

  #find(stage: number, name: string): string | undefined {
    const { bytes, count, ends } = this.#sets[stage]!;
    for (let pair = 0, start = 0; pair < count; pair++) {
      const nameEnd = ends[2 * pair]!;
      const valueEnd = ends[2 * pair + 1]!;
      if (isName(bytes, start, nameEnd, name)) return decodeText(bytes, nameEnd + 1, valueEnd);
      start = valueEnd + 1;
    }
    return undefined;
  }
}

/** The length of a single letter with braces. */
const BRACED = 3;

function isName(bytes: Uint8Array, start: number, end: number, name: string): boolean {
  const length = end - start;
  if (length === name.length) {
    for (let index = 0; index < length; index++) if (bytes[start + index] !== name.charCodeAt(index)) return false;
    return true;
  }
  if (name.length === 1 && length === BRACED) {
    return bytes[start] === 0x7b && bytes[start + 1] === name.charCodeAt(0) && bytes[start + 2] === 0x7d;
  }
  if (length === 1 && name.length === BRACED) {
    return name[0] === "{" && name[2] === "}" && bytes[start] === name.charCodeAt(1);
  }
  return false;
}
