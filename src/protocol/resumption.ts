/**
 * A session that was negotiated and begun in another worker: how it is handed over, and how its opening is replayed here.
 * The opening is the packets MACRO and CONNECT, MACRO and HELO. Handlers run on them again, since the state of the session
 * is gone with its worker. The replies are not sent again.
 */
import type { Options } from "./negotiate.ts";
import { PacketWalk } from "./packets.ts";

/** A verdict that was decided, and has to be sent, or to be sent again for each further command. */
export interface PendingVerdict {
  readonly scope: "message" | "connection";
  readonly packet: Uint8Array;
}

export interface Resumption extends Options {
  /** The packets of the opening, as they came. */
  readonly opening: Uint8Array;
  /** The last packet of the opening has had no reply yet: it gets one. */
  readonly answersOpening: boolean;
  /** For how many milliseconds the mail server has waited for that reply. */
  readonly waitedMs: number;
  /** On the message at hand, or on the whole connection. */
  readonly pending: PendingVerdict | null;
  /** The verdict on the next message, given at its first command, since macros of it are lost; null: handlers decide. */
  readonly nextMessage: Uint8Array | null;
  /** The bytes that have arrived of a partial packet. */
  readonly partial: Uint8Array;
  /** Bytes still to come of a partial packet whose beginning is lost, and its code: see `Framer.expectLost`. */
  readonly lost: { readonly missing: number; readonly code: number } | null;
}

/** The replay of an opening, and the verdicts that the session brings with it. */
export class Replay {
  /** The current packet belongs to the opening, and its reply was sent before. */
  isSilent = false;
  readonly answersOpening: boolean;
  /** In force from the first packet on that is not replayed. */
  pending: PendingVerdict | null;
  /** See {@link Resumption}. */
  nextMessage: Uint8Array | null;
  #isOpening = false;
  #left = 0;
  #silentLeft: number;

  constructor({ answersOpening, nextMessage, opening, pending }: Resumption) {
    this.answersOpening = answersOpening;
    this.pending = pending;
    this.nextMessage = nextMessage;
    for (const packets = new PacketWalk(opening); packets.next();) this.#left += 1;
    this.#silentLeft = this.#left - (answersOpening ? 1 : 0);
  }

  /** Packets of the opening that are still to come. */
  get left(): number {
    return this.#left;
  }

  /** How many of those had their replies before. */
  get silentLeft(): number {
    return this.#silentLeft;
  }

  /** The current packet belongs to the opening, or packets of the opening are still to come. */
  get isInOpening(): boolean {
    return this.#isOpening || this.#left > 0;
  }

  /** A packet is taken. @returns the verdict that is in force from this packet on, null if none is or it was before */
  take(): PendingVerdict | null {
    this.#isOpening = this.#left > 0;
    if (this.#isOpening) this.#left -= 1;
    this.isSilent = this.#silentLeft > 0;
    if (this.isSilent) {
      this.#silentLeft -= 1;
      return null;
    }
    const { pending } = this;
    this.pending = null;
    return pending;
  }
}
