/** The body of a message, collected for the filters that read it as a whole: in memory, or if it is large in the spool. */
import type { HeldBody } from "../../protocol/body-packets.ts";
import { UsageError } from "../../usage-error.ts";
import { Arena } from "./arena.ts";
import { type MappedBody, MEMORY_BYTES, type Spool, type SpooledBody } from "./spool.ts";

export class CollectedBody {
  readonly #spool: Spool | null;
  readonly #arena = new Arena();
  /** Not null once it was too large for memory. */
  #spooled: SpooledBody | null = null;
  #mapped: MappedBody | null = null;
  /** Why it cannot be had. */
  #problem: unknown = null;
  /** It ends when it was sent. */
  #isHandedOver = false;

  /** @param spool null: it stays in memory */
  constructor(spool: Spool | null) {
    this.#spool = spool;
  }

  append(bytes: Uint8Array, start: number, end: number): void {
    if (this.#spooled === null) {
      if (this.#spool === null || this.#arena.used + end - start <= MEMORY_BYTES) {
        this.#arena.append(bytes, start, end);
        return;
      }
      this.#spooled = this.#spool.begin();
      this.#spooled.append(this.#arena.view(), 0, this.#arena.used);
      this.#arena.free();
    }
    this.#spooled.append(bytes, start, end);
  }

  /** The part of it that is in the spool; null while it is small. */
  get spooled(): SpooledBody | null {
    return this.#spooled;
  }

  /** It has to be waited for before it can be read: see {@link prepare}. */
  get isPending(): boolean {
    return this.#spooled !== null && this.#mapped === null && this.#problem === null;
  }

  /** Why it cannot be had; null if nothing is wrong. */
  get problem(): unknown {
    return this.#problem;
  }

  /** Settles when it can be read, or cannot be had at all. */
  async prepare(): Promise<void> {
    try {
      this.#mapped = await this.#spooled!.map();
    } catch (error) {
      this.#giveUp(error);
    }
  }

  /** It takes too long. */
  timeOut(reason: string): void {
    this.#giveUp(this.#spooled!.fail(reason));
  }

  /** It cannot be had: its space is given back. */
  #giveUp(problem: unknown): void {
    this.#problem ??= problem;
    this.#spooled?.end();
  }

  /** A handler has given the memory away, as to a thread of its own. */
  get isTransferred(): boolean {
    return this.#mapped === null ? this.#arena.isTransferred : this.#mapped.isTransferred;
  }

  /**
   * All of it. It must not be pending.
   * @throws UsageError PMILTER_ERR_OVER if it is transferred: an empty body would pass for the message's
   */
  get bytes(): Uint8Array {
    if (this.isTransferred) throw transferred();
    return this.#mapped === null ? this.#arena.view() : this.#mapped.bytes;
  }

  /** A message: this head, and the body behind it. Of a body in the spool nothing is copied. */
  withHead(head: Uint8Array): Uint8Array {
    const { bytes } = this;
    return this.#mapped?.withHead(head) ?? joined(head, bytes);
  }

  /**
   * Pieces of a new body, some of them slices of this one, which are sent when the message is over. Handlers have no view
   * of a body in the spool any more then; what is in memory is copied, since they may keep it.
   */
  handOver(pieces: readonly Uint8Array[]): HeldBody {
    const { buffer } = this.bytes;
    const isOwn = (piece: Uint8Array) => piece.buffer === buffer;
    if (!pieces.some(isOwn)) return { pieces, release() {} };
    if (this.#spooled === null) {
      return { pieces: pieces.map((piece) => (isOwn(piece) ? new Uint8Array(piece) : piece)), release() {} };
    }
    const spooled = this.#spooled;
    // Read before: a view that is empty has no place any more.
    const places = pieces.map((piece) => (isOwn(piece) ? ([piece.byteOffset, piece.length] as const) : null));
    const memory = spooled.handOver();
    this.#isHandedOver = true;
    const sent = places.map((place, index) => (place === null ? pieces[index]! : new Uint8Array(memory, ...place)));
    return { pieces: sent, release: () => spooled.end() };
  }

  /** It is not needed any more. */
  end(): void {
    if (!this.#isHandedOver) this.#spooled?.end();
  }
}

/** Of a body whose memory a handler has given away. */
export function transferred(): UsageError {
  return new UsageError(
    "PMILTER_ERR_OVER",
    "a handler of this message has transferred the memory of its body, which cannot be read any more; transfer a copy",
  );
}

/** A copy of two pieces, the one behind the other. */
export function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
