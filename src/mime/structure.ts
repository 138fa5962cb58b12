/**
 * The MIME structure of a message, with the offset of every part: enough for a filter to change a part and leave the
 * bytes of all other parts alone. Header values are read by libmime; nothing is decoded here but parameters and file
 * names.
 */
import { isUtf8 } from "node:buffer";

/** A field as it stands in the message: a character for each byte, folds included. */
export interface Field {
  readonly name: string;
  readonly value: string;
  /** Its bytes, line end included; both 0 for the header of the message itself, which is not in the body. */
  readonly start: number;
  readonly end: number;
}

/** A part of a message: its header and its content (RFC 2045 2.4). */
export interface Entity {
  readonly fields: readonly Field[];
  /** In lower case: `text/plain`. */
  readonly type: string;
  /** Of the Content-Type. */
  readonly params: Readonly<Record<string, string>>;
  /** The Content-Transfer-Encoding in lower case, by default `7bit`. */
  readonly encoding: string;
  /** In lower case: `attachment`, `inline`, or `""`. */
  readonly disposition: string;
  /** All file names that a mail program might take, decoded: from `filename` and `name`. */
  readonly names: readonly string[];
  /** Where the header of the part begins, and the content begins and ends. */
  readonly head: number;
  readonly start: number;
  readonly end: number;
  /** Of a multipart. */
  readonly parts: readonly Entity[];
  /** Of a multipart, a character for each byte. */
  readonly boundary: string;
}

export interface Structure {
  readonly root: Entity;
  /** The faults of the structure: mail programs may see other parts in it than we do. */
  readonly flaws: readonly string[];
}

export interface MimeLimits {
  readonly parts: number;
  readonly depth: number;
}

/** Far more than a person sends. */
export const MIME_LIMITS: MimeLimits = { parts: 1000, depth: 30 };

/** The structure of a message that has come in: its headers as the session has them, and its body. */
export function structureOf(
  headers: Iterable<{ readonly name: string; readonly value: string }>,
  body: Uint8Array,
  limits: MimeLimits = MIME_LIMITS,
): Structure {
  const fields = Array.from(headers, ({ name, value }) => ({ name, value: byteString(value), start: 0, end: 0 }));
  return new Reader(buffer(body), limits).read(fields, 0);
}

/** The structure of a whole message, such as a forwarded message. */
export function structureOfMessage(message: Uint8Array, limits: MimeLimits = MIME_LIMITS): Structure {
  const bytes = buffer(message);
  const reader = new Reader(bytes, limits);
  const { fields, start } = reader.header(0, bytes.length);
  return reader.read(fields, start);
}

/** All parts without parts in them, in order. */
export function* leavesOf(entity: Entity): Generator<Entity> {
  if (entity.boundary === "" && entity.parts.length === 0) yield entity;
  for (const child of entity.parts) yield* leavesOf(child);
}

/** All multiparts, outer before inner. */
export function* multipartsOf(entity: Entity): Generator<Entity> {
  if (entity.type.startsWith("multipart/")) yield entity;
  for (const child of entity.parts) yield* multipartsOf(child);
}

const LF = 0x0a;
const CR = 0x0d;
/** A header of a part that is longer is cut here; mail servers allow less. */
const MAX_PART_HEADER = 128 * 1024;

class Reader {
  readonly #bytes: Buffer;
  readonly #limits: MimeLimits;
  readonly #flaws = new Set<string>();
  #parts = 0;

  constructor(bytes: Buffer, limits: MimeLimits) {
    this.#bytes = bytes;
    this.#limits = limits;
  }

  read(fields: readonly Field[], start: number): Structure {
    const root = this.#entity(fields, { head: 0, start, end: this.#bytes.length }, "text/plain", 0);
    return { root, flaws: [...this.#flaws] };
  }

  /** The header that begins at `head`: its fields, and where the content begins. */
  header(head: number, end: number): { fields: Field[]; start: number } {
    const lines: { start: number; end: number }[] = [];
    let at = head;
    for (;;) {
      const stop = Math.min(end, head + MAX_PART_HEADER);
      if (at >= stop) {
        // Without an empty line there is no content.
        if (stop < end) this.#flaws.add("a header that is too long");
        break;
      }
      const lineEnd = this.#lineEnd(at, end);
      const first = this.#bytes[at];
      if (first === LF || (first === CR && this.#bytes[at + 1] === LF)) {
        at = lineEnd;
        break;
      }
      const last = lines.at(-1);
      if ((first === 0x20 || first === 0x09) && last !== undefined) last.end = lineEnd;
      else if (/^[!-9;-~]+[ \t]*:/.test(this.#bytes.toString("latin1", at, Math.min(lineEnd, at + 1000)))) {
        lines.push({ start: at, end: lineEnd });
      } else {
        this.#flaws.add("a header with a line that is no field");
        break;
      }
      at = lineEnd;
    }
    const fields = lines.map(({ start, end }) => {
      const text = this.#bytes.toString("latin1", start, end).trimEnd();
      const colon = text.indexOf(":");
      return { name: text.slice(0, colon).trimEnd(), value: text.slice(colon + 1).trim(), start, end };
    });
    return { fields, start: at };
  }

  #entity(
    fields: readonly Field[],
    place: { readonly head: number; readonly start: number; readonly end: number },
    defaultType: string,
    depth: number,
  ): Entity {
    this.#parts += 1;
    const contentTypes = valuesOf(fields, "content-type");
    const encodings = valuesOf(fields, "content-transfer-encoding");
    const dispositions = valuesOf(fields, "content-disposition");
    if (contentTypes.length > 1 || encodings.length > 1) this.#flaws.add("a header that says twice what a part is");
    const contentType = parse(contentTypes[0] ?? defaultType);
    let type = contentType.value.trim().toLowerCase();
    if (!/^[\w!#$&^.+-]+\/[\w!#$&^.+-]+$/.test(type)) {
      this.#flaws.add("a Content-Type that is none");
      type = "text/plain";
    }
    const isMultipart = type.startsWith("multipart/");
    const boundary = isMultipart ? (contentType.params["boundary"] ?? "") : "";
    return {
      fields,
      type,
      params: contentType.params,
      encoding: parse(encodings[0] ?? "7bit")
        .value.trim()
        .toLowerCase(),
      disposition: parse(dispositions[0] ?? "")
        .value.trim()
        .toLowerCase(),
      names: namesIn([...dispositions, ...contentTypes]),
      ...place,
      parts: isMultipart ? this.#children(type, boundary, place, depth + 1) : [],
      boundary,
    };
  }

  #children(type: string, boundary: string, place: { readonly start: number; readonly end: number }, depth: number) {
    const parts: Entity[] = [];
    // An encoded word or anything else beyond bytes cannot be found in the body.
    if (boundary === "" || /[^\0-\xff]/.test(boundary)) {
      this.#flaws.add("a multipart without a boundary");
      return parts;
    }
    if (depth > this.#limits.depth) {
      this.#flaws.add("parts that are nested too deep");
      return parts;
    }
    const defaultType = type === "multipart/digest" ? "message/rfc822" : "text/plain";
    let head = -1;
    let isClosed = false;
    for (const delimiter of this.#delimiters(boundary, place.start, place.end)) {
      if (head !== -1) parts.push(this.#child(head, Math.max(head, delimiter.start), defaultType, depth));
      head = delimiter.end;
      isClosed = delimiter.isClose;
      if (isClosed) break;
      if (this.#parts >= this.#limits.parts) {
        this.#flaws.add("too many parts");
        return parts;
      }
    }
    if (head === -1) this.#flaws.add("a multipart without parts");
    else if (!isClosed) {
      this.#flaws.add("a multipart that does not end");
      parts.push(this.#child(head, place.end, defaultType, depth));
    }
    return parts;
  }

  #child(head: number, end: number, defaultType: string, depth: number): Entity {
    const { fields, start } = this.header(head, end);
    return this.#entity(fields, { head, start, end }, defaultType, depth);
  }

  /** The lines that part a multipart (RFC 2046 5.1.1). The line end in front of such a line belongs to it. */
  *#delimiters(
    boundary: string,
    start: number,
    end: number,
  ): Generator<{ readonly start: number; readonly end: number; readonly isClose: boolean }> {
    const range = this.#bytes.subarray(start, end);
    const needle = Buffer.from(`--${boundary}`, "latin1");
    let from = 0;
    for (;;) {
      const at = range.indexOf(needle, from);
      if (at === -1) return;
      from = at + needle.length;
      if (at > 0 && range[at - 1] !== LF) continue;
      const isClose = range[from] === 0x2d && range[from + 1] === 0x2d;
      let after = isClose ? from + 2 : from;
      while (range[after] === 0x20 || range[after] === 0x09) after += 1;
      if (range[after] === CR && range[after + 1] === LF) after += 1;
      if (after < range.length && range[after] !== LF) continue;
      from = Math.min(after + 1, range.length);
      const lineEnd = at === 0 ? 0 : at > 1 && range[at - 2] === CR ? 2 : 1;
      yield { start: start + at - lineEnd, end: start + from, isClose };
    }
  }

  /** Where the line at `at` ends, its line end included. */
  #lineEnd(at: number, end: number): number {
    const lf = this.#bytes.indexOf(LF, at);
    return lf === -1 || lf >= end ? end : lf + 1;
  }
}

function valuesOf(fields: readonly Field[], name: string): string[] {
  return fields.filter((field) => field.name.toLowerCase() === name).map((field) => field.value);
}

type Libmime = typeof import("libmime").default;

let loaded: Libmime | null = null;

function libmime(): Libmime {
  loaded ??= (require("libmime") as { default: Libmime }).default;
  return loaded;
}

function parse(value: string) {
  return libmime().parseHeaderValue(value, { stripComments: true });
}

/** So much of a file name is looked at, its end first, which decides how it is opened. */
const MAX_NAME = 1000;

/**
 * Mail programs differ in which of several names they take, and in how they read a broken name. So all names are given,
 * as libmime reads them and as a plain search does.
 */
function namesIn(values: readonly string[]): string[] {
  const names = new Set<string>();
  for (const value of values) {
    const { params, decodedParams = [] } = parse(value);
    for (const key of ["filename", "name"]) {
      const name = params[key];
      if (name !== undefined) names.add(decodedParams.includes(key) ? name : decodeWords(name));
    }
    for (const [, quoted, token] of value.matchAll(/name[ \t]*=[ \t]*(?:"((?:\\[^]|[^"\\])*)"?|([^;"]*))/gi)) {
      names.add(decodeWords((quoted ?? token ?? "").trim()));
    }
  }
  // Pieces of a name (RFC 2231) whose charset is missing: some programs decode them all the same.
  const unescaped = Array.from(names, (name) =>
    name.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
  );
  const all = new Set([...names, ...unescaped]);
  all.delete("");
  return Array.from(all, (name) => name.slice(-MAX_NAME));
}

/** Encoded words (RFC 2047), also in quotes where they should not be; plain UTF-8, else ISO 8859-1. */
function decodeWords(text: string): string {
  return libmime().decodeWords(fromByteString(text.replaceAll(/\r?\n[ \t]*/g, " ")));
}

function buffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A header value of the session as a character for each byte: U+DC80 to U+DCFF stand for bytes that are no UTF-8. */
function byteString(value: string): string {
  return value
    .split(/([\udc80-\udcff])/u)
    .map((piece, index) =>
      index % 2 === 1
        ? String.fromCharCode(piece.charCodeAt(0) - 0xdc00)
        : Buffer.from(piece, "utf8").toString("latin1"),
    )
    .join("");
}

function fromByteString(text: string): string {
  // oxlint-disable-next-line no-control-regex
  if (/[^\0-\xff]/.test(text)) return text;
  const bytes = Buffer.from(text, "latin1");
  return isUtf8(bytes) ? bytes.toString("utf8") : text;
}
