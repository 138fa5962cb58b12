/** Where bodies go that are too large for memory, as a conversation sees it. */

/** Bodies up to this many bytes stay in memory. */
export const MEMORY_BYTES = 1024 * 1024;

export interface Spool {
  /** Begins a body. Nothing fails here: what goes wrong is told by the body. */
  begin(): SpooledBody;
}

/** A body whose bytes are written elsewhere, one after the other, and then read as a whole. */
export interface SpooledBody {
  /** So much is unwritten that no more should come. */
  readonly isBehind: boolean;
  append(bytes: Uint8Array, start: number, end: number): void;
  /** Calls back once it is no longer behind, or has failed; once for each call. */
  onRoom(callback: () => void): void;
  /**
   * Settles when all is written and can be read: at once, or when one of the few places for that is free.
   * @throws Error with the folder: it could not be written or read
   */
  map(): Promise<MappedBody>;
  /** It takes too long: fails, with this reason. @returns why it cannot be had */
  fail(reason: string): Error;
  /** It is mapped, and to be sent: views of its bytes become empty. @returns its memory, readable until it is ended */
  handOver(): ArrayBuffer;
  /** It is not needed any more. Views of its bytes become empty. */
  end(): void;
}

/** A body that can be read. */
export interface MappedBody {
  readonly bytes: Uint8Array;
  /** A handler has given the memory away. */
  readonly isTransferred: boolean;
  /** Puts bytes directly in front of the body, in the same memory. @returns null if there is no room for so many */
  withHead(head: Uint8Array): Uint8Array | null;
}
