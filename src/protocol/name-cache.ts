/**
 * A cache of strings that repeat, such as header names. Comparing the bytes with a string of the cache costs less than
 * making a new string, which the collector has to remove later.
 */
import { decodeText } from "./bytes.ts";

/** A power of two: mail has some dozens of names. */
const SLOTS = 256;
/** Longer strings are not kept: they are no header names. */
const MAX_BYTES = 64;

/** Keeps at most {@link SLOTS} strings of {@link MAX_BYTES} bytes, whatever peers send. */
export class NameCache {
  readonly #names: string[] = new Array(SLOTS).fill("");

  /** The same as `decodeText(bytes, start, end)`. */
  decode(bytes: Uint8Array, start: number, end: number): string {
    const length = end - start;
    if (length === 0 || length > MAX_BYTES) return decodeText(bytes, start, end);
    const slot = (31 * length + 7 * bytes[start]! + bytes[end - 1]!) % SLOTS;
    const known = this.#names[slot]!;
    if (known.length === length) {
      let index = 0;
      while (index < length && known.charCodeAt(index) === bytes[start + index]) index += 1;
      if (index === length) return known;
    }
    const name = decodeText(bytes, start, end);
    // Of other text the units are not the bytes, and could be taken for them.
    if (isAscii(bytes, start, end)) this.#names[slot] = name;
    return name;
  }
}

function isAscii(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at]! > 0x7f) return false;
  return true;
}
