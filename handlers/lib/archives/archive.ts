/** What the readers of archives have in common: the files that they list, and the faults that they tell. */

/** A file in an archive. */
export interface Entry {
  /** All names that programs might take. */
  readonly names: readonly string[];
  readonly isEncrypted: boolean;
  /** The first `most` bytes of it, or all if there are fewer; null if it cannot be read. */
  read(most: number): Promise<Uint8Array | null>;
}

/**
 * `"broken"`: a part of the archive cannot be read. `"unlisted"`: nothing of it is read here. `"doubtful"`: programs may find
 * other files in it than those listed.
 */
export type Fault = "broken" | "unlisted" | "doubtful";

/** Takes a fault, with its reason in words. */
export type Tell = (fault: Fault, why: string) => void;

/** A read-only view, for the methods of Buffer. */
export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
