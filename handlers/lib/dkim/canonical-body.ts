/**
 * Hashes of a body as it comes (RFC 6376 3.4.3, 3.4.4). Those of `mailauth` begin a line again with each chunk, so that one long
 * line takes time with the square of its length.
 */
import { createHash, type Hash } from "node:crypto";

/** A canonical form, of header or body. */
export type Form = "relaxed" | "simple";

const [LF, CR, SPACE, TAB] = [0x0a, 0x0d, 0x20, 0x09];
const CRLF = Buffer.from("\r\n");
const EMPTY_LINES = Buffer.from("\r\n".repeat(512));
/** White space that is not a single space within a line. A run is matched from its beginning, as a whole. */
const LOOSE = /[ \t](?:[ \t]+(?:\r\n)?|\r\n)|\t/g;
const NOTHING = Buffer.alloc(0);

/** One hash, with the names by which `mailauth` reads it. */
export class BodyHash {
  readonly #hash: Hash;
  readonly #limit: number;
  readonly #end: () => void;
  /** Bytes that are hashed. */
  bodyHashedBytes = 0;
  /** Bytes of the canonical body, with those behind the limit. */
  canonicalizedLength = 0;
  /** Set by `mailauth`. */
  hash = "";

  /** @param limit of bytes that are hashed (`l=`); `""` for all */
  constructor(algorithm: string, limit: number | "", end: () => void) {
    this.#hash = createHash(algorithm);
    this.#limit = limit === "" ? Number.POSITIVE_INFINITY : limit;
    this.#end = end;
  }

  take(bytes: Uint8Array): void {
    this.canonicalizedLength += bytes.length;
    const room = this.#limit - this.bodyHashedBytes;
    if (room <= 0) return;
    const hashed = bytes.length > room ? bytes.subarray(0, room) : bytes;
    this.bodyHashedBytes += hashed.length;
    this.#hash.update(hashed);
  }

  digest(encoding: "base64"): string {
    this.#end();
    return this.#hash.digest(encoding);
  }

  /** Asked by `mailauth`, for what is not used. */
  getMimeStructureStart(): number {
    return 0;
  }
}

/** A body in one form, for all hashes of that form. */
export class CanonicalBody {
  readonly #form: Form;
  readonly #hashes: BodyHash[] = [];
  /** Empty lines, and the beginning of one: they count if something follows. */
  #lines = 0;
  #rest: Buffer = NOTHING;
  #isEmpty = true;
  #isOver = false;

  constructor(form: Form) {
    this.#form = form;
  }

  hash(algorithm: string, limit: number | ""): BodyHash {
    const hash = new BodyHash(algorithm, limit, () => this.#end());
    this.#hashes.push(hash);
    return hash;
  }

  write(chunk: Uint8Array): void {
    const { length } = this.#rest;
    const bytes = length === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length) : joined(this.#rest, chunk);
    const end = contentEnd(bytes, this.#form);
    if (end > 0) {
      this.#giveLines();
      this.#give(this.#form === "relaxed" ? relaxed(bytes.subarray(0, end)) : bytes.subarray(0, end));
    }
    this.#hold(bytes.subarray(end));
  }

  /** @param gap line ends, in the relaxed form white space as well, and perhaps half a line end */
  #hold(gap: Buffer): void {
    const held = this.#form === "relaxed" ? relaxed(gap) : gap;
    let at = 0;
    while (held[at] === CR && held[at + 1] === LF) at += CRLF.length;
    this.#lines += at / CRLF.length;
    // A copy: the chunk is a view.
    this.#rest = at === held.length ? NOTHING : Buffer.from(held.subarray(at));
  }

  #giveLines(): void {
    for (; this.#lines > 0; this.#lines -= Math.min(this.#lines, EMPTY_LINES.length / CRLF.length)) {
      this.#give(EMPTY_LINES.subarray(0, this.#lines * CRLF.length));
    }
  }

  #give(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#isEmpty = false;
    for (const hash of this.#hashes) hash.take(bytes);
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    // Half a line end is content, white space in front of it is not the end of a line.
    if (this.#rest.at(-1) === CR) {
      this.#giveLines();
      this.#give(this.#rest);
    }
    if (!this.#isEmpty || this.#form === "simple") this.#give(CRLF);
  }
}

function joined(rest: Buffer, chunk: Uint8Array): Buffer {
  return Buffer.concat([rest, chunk]);
}

/** Where the last line ends, or what may be its end. */
function contentEnd(bytes: Buffer, form: Form): number {
  let end = bytes.length;
  if (bytes[end - 1] === CR) end -= 1;
  for (;;) {
    const last = bytes[end - 1];
    if (form === "relaxed" && (last === SPACE || last === TAB)) end -= 1;
    else if (last === LF && bytes[end - 2] === CR) end -= 2;
    else return end;
  }
}

function relaxed(bytes: Buffer): Buffer {
  const text = bytes.toString("latin1");
  const changed = text.replaceAll(LOOSE, (run) => (run.endsWith("\n") ? "\r\n" : " "));
  return changed === text ? bytes : Buffer.from(changed, "latin1");
}
