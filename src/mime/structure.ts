/**
 * The MIME structure of a message, with the offset of every part: an edit can change a part and leave the bytes of all
 * other parts alone. Where mail programs may see other parts, that is a flaw, and reading goes on as most of them do.
 */
import { bufferOf } from "./buffers.ts";
import type { Flaw } from "./flaws.ts";
import { checkField, endOfLine, type Field, readHeader } from "./fields.ts";
import { namesOf } from "./names.ts";
import { type FieldValue, parameterOf, parseFieldValue } from "./field-value.ts";
import { isEncoded, isKnownEncoding } from "./transfer-encoding.ts";

export type { Field } from "./fields.ts";

/** A part of a message: its header and its content (RFC 2045 2.4). */
export interface Entity {
  readonly fields: readonly Field[];
  /** In lower case: `text/plain`. */
  readonly type: string;
  /** Of the Content-Type, by their names in lower case; a character for each byte. */
  readonly params: Readonly<Record<string, string>>;
  /** The Content-Transfer-Encoding in lower case, by default `7bit`. */
  readonly encoding: string;
  /** In lower case: `attachment`, `inline`, or `""`. */
  readonly disposition: string;
  /** All file names that a mail program might take, decoded, the most likely first. */
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

/** The charset that a part says to be in, as it is written; `""` for none. */
export function charsetNamedBy({ params }: Pick<Entity, "params">): string {
  return (params["charset"] ?? "").trim();
}

export interface Structure {
  readonly root: Entity;
  /** The faults of the structure: mail programs may see other parts in it than these. */
  readonly flaws: readonly Flaw[];
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
  return new Reader(bufferOf(body), limits).readBody(fields);
}

/** The structure of a whole message, such as a forwarded message. */
export function structureOfMessage(message: Uint8Array, limits: MimeLimits = MIME_LIMITS): Structure {
  const bytes = bufferOf(message);
  const reader = new Reader(bytes, limits);
  return reader.readWhole();
}

const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const TAB = 0x09;
const HYPHEN = 0x2d;
/** RFC 2045 5.1: characters of a token. */
const TYPE = /^[!#-'*+\-.0-9A-Z^-~]+\/[!#-'*+\-.0-9A-Z^-~]+$/i;
/** So many fields of a name are read. */
const MAX_SAME = 20;
/** So many lines that begin as a boundary does are looked at. */
const MAX_LINES = 100_000;
/** RFC 2046 5.1.1 allows 70. */
const MAX_BOUNDARY = 1000;
const MAX_ODD_LINES = 1000;
const MAX_ODD_LINE = 300;
const ODD_BOUNDARY = "a boundary that mail programs read differently";

class Reader {
  readonly #bytes: Buffer;
  readonly #limits: MimeLimits;
  readonly #flaws = new Set<Flaw>();
  readonly #boundaries = new Set<string>();
  readonly #oddLines = new Set<string>();
  #parts = 0;
  /** Lines that begin as a boundary does. */
  #lines = 0;

  constructor(bytes: Buffer, limits: MimeLimits) {
    this.#bytes = bytes;
    this.#limits = limits;
  }

  /** The body of a message whose header came by itself. */
  readBody(fields: readonly Field[]): Structure {
    for (const field of fields) checkField(field, this.#flaws);
    return this.read(fields, 0);
  }

  read(fields: readonly Field[], start: number): Structure {
    const root = this.#entity(fields, { head: 0, start, end: this.#bytes.length }, "text/plain", 0);
    this.#judgeOddLines();
    return { root, flaws: [...this.#flaws] };
  }

  /** A message with its header. */
  readWhole(): Structure {
    const { length } = this.#bytes;
    // A mark of UTF-8 in front is no text, and a mailbox's line is none of the message.
    let head = this.#bytes.toString("latin1", 0, 3) === "\xef\xbb\xbf" ? 3 : 0;
    if (/^[\r\n]+[!-9;-~]+:/.test(this.#bytes.toString("latin1", head, head + MAX_ODD_LINE))) {
      this.#flaws.add("a message that begins with an empty line");
    }
    if (/^>?From /.test(this.#bytes.toString("latin1", head, head + 6))) head = endOfLine(this.#bytes, head, length);
    const { fields, start } = readHeader(this.#bytes, head, length, this.#flaws);
    return this.read(fields, start);
  }

  #entity(
    fields: readonly Field[],
    place: { readonly head: number; readonly start: number; readonly end: number },
    defaultType: string,
    depth: number,
  ): Entity {
    this.#parts += 1;
    const types = this.#once(fields, "content-type");
    const dispositions = this.#once(fields, "content-disposition");
    const type = this.#type(types, defaultType);
    const isMultipart = type.startsWith("multipart/");
    const boundary = isMultipart ? this.#boundary(types[0]!.value) : "";
    const encoding = this.#encoding(fields, isMultipart);
    if (encoding === "base64" && !isMultipart && hasPaddingWithin(this.#bytes, place)) {
      this.#flaws.add("base64 with padding before its end");
    }
    return {
      fields,
      type,
      params: paramsOf(types[0]?.value),
      encoding,
      disposition: dispositions[0]?.value.value.toLowerCase() ?? "",
      names: namesOf({ dispositions, types, locations: valuesOf(fields, "content-location") }, this.#flaws),
      ...place,
      parts: isMultipart ? this.#children(type, boundary, place, depth + 1) : [],
      boundary,
    };
  }

  /** The fields of a name, of which a part should have one. */
  #once(fields: readonly Field[], name: string): { readonly text: string; readonly value: FieldValue }[] {
    const values = valuesOf(fields, name);
    if (new Set(values).size > 1) this.#flaws.add("a header that says twice what a part is");
    return values.slice(0, MAX_SAME).map((text) => {
      const value = parseFieldValue(text);
      if (value.isCut) this.#flaws.add("too many parameters");
      return { text, value };
    });
  }

  #type(types: readonly { readonly value: FieldValue }[], defaultType: string): string {
    const written = types[0]?.value.value.toLowerCase();
    if (written === undefined) return defaultType;
    if (TYPE.test(written)) {
      if (written.startsWith("multipart/") && !types[0]!.value.isPlain) this.#flaws.add(ODD_BOUNDARY);
      return written;
    }
    this.#flaws.add("a Content-Type that is none");
    const type = /^[^\s,"]+/.exec(written.replaceAll(/\s*\/\s*/g, "/"))?.[0] ?? "";
    if (TYPE.test(type)) return type;
    return written.startsWith("multipart") ? "multipart/mixed" : "text/plain";
  }

  #encoding(fields: readonly Field[], isMultipart: boolean): string {
    const written = this.#once(fields, "content-transfer-encoding")[0];
    if (written === undefined) return "7bit";
    const encoding = written.value.value.toLowerCase();
    if (!isKnownEncoding(written.text.toLowerCase())) this.#flaws.add("a Content-Transfer-Encoding that is not known");
    else if (isMultipart && isEncoded(encoding)) this.#flaws.add("a multipart that is encoded");
    return encoding;
  }

  #boundary({ parameters }: FieldValue): string {
    const found = parameterOf(parameters, "boundary");
    const all = parameters.filter(({ name }) => /^boundary(?:\*|$)/.test(name)).map(({ value }) => value);
    if (found === null) return "";
    if (!found.isPlain || new Set(all).size > 1) this.#flaws.add(ODD_BOUNDARY);
    // White space at its end is not part of it (RFC 2046 5.1.1).
    return found.bytes.trimEnd();
  }

  #children(type: string, boundary: string, place: { readonly start: number; readonly end: number }, depth: number) {
    const parts: Entity[] = [];
    // An encoded word or anything else beyond bytes cannot be found in the body.
    if (boundary === "" || /[^\0-\xff]/.test(boundary)) {
      this.#flaws.add("a multipart without a boundary");
      return parts;
    }
    if (boundary.length > MAX_BOUNDARY) {
      this.#flaws.add("a boundary that is too long");
      return parts;
    }
    if (depth > this.#limits.depth) {
      this.#flaws.add("parts that are nested too deep");
      return parts;
    }
    this.#boundaries.add(boundary);
    const defaultType = type === "multipart/digest" ? "message/rfc822" : "text/plain";
    let head = -1;
    let isClosed = false;
    for (const delimiter of this.#delimiters(boundary, place.start, place.end)) {
      if (isClosed) {
        this.#flaws.add("a multipart with parts behind its end");
        break;
      }
      if (head === -1 && delimiter.isClose) {
        this.#flaws.add("a multipart that ends before it begins");
        continue;
      }
      if (head !== -1) parts.push(this.#child(head, Math.max(head, delimiter.start), defaultType, depth));
      head = delimiter.end;
      isClosed = delimiter.isClose;
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
    const { fields, start } = readHeader(this.#bytes, head, end, this.#flaws);
    return this.#entity(fields, { head, start, end }, defaultType, depth);
  }

  /** The lines that part a multipart (RFC 2046 5.1.1). The line end in front of such a line belongs to it. */
  *#delimiters(
    boundary: string,
    start: number,
    end: number,
  ): Generator<{ readonly start: number; readonly end: number; readonly isClose: boolean }> {
    const range = this.#bytes.subarray(start, end);
    const needle = Buffer.from(`\n--${boundary}`, "latin1");
    if (range.includes(`\r--${boundary}`, 0, "latin1")) this.#flaws.add("a boundary behind a carriage return");
    // Where the hyphens are; the line end in front of them may lie before the range.
    let at = range.subarray(0, needle.length - 1).equals(needle.subarray(1)) ? 0 : next(range, needle, 0);
    while (at !== -1) {
      if (++this.#lines > MAX_LINES) {
        this.#flaws.add("too many parts");
        return;
      }
      let after = at + needle.length - 1;
      const isClose = range[after] === HYPHEN && range[after + 1] === HYPHEN;
      if (isClose) after += 2;
      while (range[after] === SPACE || range[after] === TAB) after += 1;
      if (range[after] === CR && range[after + 1] === LF) after += 1;
      if (after < range.length && range[after] !== LF) {
        this.#takeOddLine(range, at);
        at = next(range, needle, after - 1);
        continue;
      }
      after = Math.min(after + 1, range.length);
      const lineEnd = at === 0 ? 0 : at > 1 && range[at - 2] === CR ? 2 : 1;
      yield { start: start + at - lineEnd, end: start + after, isClose };
      at = next(range, needle, after - 1);
    }
  }

  /** A line that begins as a boundary does and goes on: it may be the boundary of another multipart. */
  #takeOddLine(range: Buffer, at: number): void {
    if (this.#oddLines.size === MAX_ODD_LINES) return;
    const line = range.toString("latin1", at + 2, Math.min(endOfLine(range, at, range.length), at + MAX_ODD_LINE));
    this.#oddLines.add(line.replace(/\r?\n$/, "").replace(/[ \t]+$/, ""));
  }

  /** Some programs take each line for a boundary that begins as one. */
  #judgeOddLines(): void {
    for (const line of this.#oddLines) {
      if (this.#boundaries.has(line) || (line.endsWith("--") && this.#boundaries.has(line.slice(0, -2)))) continue;
      this.#flaws.add("a line that is almost a boundary");
    }
  }
}

/** Some programs end the content at the first padding, some read on. */
function hasPaddingWithin(bytes: Buffer, { start, end }: { readonly start: number; readonly end: number }): boolean {
  const padding = bytes.indexOf(0x3d, start);
  if (padding === -1 || padding >= end) return false;
  for (let at = padding; at < end; at++) if (!PADDING_END.has(bytes[at]!)) return true;
  return false;
}

const PADDING_END: ReadonlySet<number> = new Set(Buffer.from("= \t\r\n"));

/** Where the hyphens of the next line that begins as a boundary does are; -1 if there is none. */
function next(range: Buffer, needle: Buffer, from: number): number {
  const found = range.indexOf(needle, from);
  return found === -1 ? -1 : found + 1;
}

function valuesOf(fields: readonly Field[], name: string): string[] {
  return fields.filter((field) => field.name.toLowerCase() === name).map((field) => field.value);
}

function paramsOf(value: FieldValue | undefined): Record<string, string> {
  // A parameter may be called as a member of all objects.
  const params = Object.create(null) as Record<string, string>;
  if (value === undefined) return params;
  for (const { name } of value.parameters) {
    const key = name.split("*")[0]!;
    params[key] ??= parameterOf(value.parameters, key)?.bytes ?? "";
  }
  return params;
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
