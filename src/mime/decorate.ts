/**
 * Text for people on top of a message or below it, in each form of its body. The bytes of the body that are there stay as
 * they are, in its charset and encoding, where these have the characters and the room for what is added.
 */
import { isAscii } from "node:buffer";
import { latin1 } from "./buffers.ts";
import { charsetOf, decodeCharset, isJis } from "./charset.ts";
import {
  areLines,
  encodeBase64,
  encodeContent,
  type EncodedContent,
  encodeInto,
  encodeQuotedPrintable,
  hasBoundary,
  placeInQuotedPrintable,
} from "./encode.ts";
import { placesIn } from "./html-places.ts";
import { withParameters } from "./parameters.ts";
import { formOf } from "./shown.ts";
import { charsetNamedBy, type Entity } from "./structure.ts";
import { decodeLeniently } from "./transfer-encoding.ts";
import type { FieldChanges, PartNode } from "./tree.ts";

/** The words for each form of a body, lines separated by LF. */
export interface Words {
  readonly text: string;
  /** In ASCII: other characters as references such as `&#233;`. */
  readonly html: string;
}

export type Place = "top" | "bottom";

/** A part with words in it. */
export interface DecoratedPart {
  readonly node: PartNode;
  readonly content: Uint8Array;
  readonly fields: FieldChanges;
}

/** HTML for a text, in ASCII, which every charset has. */
export function htmlOf(text: string): string {
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return `<p>${escaped.replaceAll("\n", "<br>\n")}</p>`;
}

/** References in place of characters beyond ASCII. */
export function asciiHtml(html: string): string {
  // oxlint-disable-next-line no-control-regex
  return html.replaceAll(/[^\0-\x7f]/gu, (character) => `&#${character.codePointAt(0)};`);
}

/** Puts words into a part. Nothing is changed here. */
export function decorate(node: PartNode, words: Words, place: Place): DecoratedPart {
  const part = new TextPart(node);
  const { content, fields } =
    formOf(node.entity.type) === "html"
      ? addHtml(part, htmlFor(node.entity, words.html), place)
      : addText(part, words.text, place);
  return { node, content, fields };
}

/** XHTML has an end to each element. */
function htmlFor({ type }: Entity, html: string): string {
  if (type !== "application/xhtml+xml") return html;
  return html.replaceAll(/<((?:area|br|col|hr|img|input|wbr)\b(?:"[^"]*"|'[^']*'|[^"'>])*?)\s*\/?>/gi, "<$1/>");
}

interface Decorated {
  readonly content: Uint8Array;
  readonly fields: FieldChanges;
}

/** The content of a text part, as it stands there and decoded. */
class TextPart {
  readonly node: PartNode;
  readonly entity: Entity;
  readonly raw: Uint8Array;
  readonly decoded: Uint8Array;
  /** A character for each byte of `decoded`. */
  readonly bytes: string;
  readonly lineEnd: "\r\n" | "\n";

  constructor(node: PartNode) {
    this.node = node;
    this.entity = node.entity;
    this.raw = node.raw;
    this.decoded = decodeLeniently(this.raw, this.entity.encoding);
    this.bytes = latin1(this.decoded);
    // Only within base64 a lone LF can be the line end.
    const isEncoded = this.entity.encoding === "base64" && this.takesAscii;
    const isUnix = isEncoded && this.bytes.includes("\n") && !this.bytes.includes("\r\n");
    this.lineEnd = isUnix ? "\n" : "\r\n";
  }

  get charset(): string {
    return charsetNamedBy(this.entity).toLowerCase();
  }

  /** Words can be added to its bytes as ASCII. */
  get takesAscii(): boolean {
    const { charset } = this;
    return charset === "" || /^(?:us-)?ascii$/.test(charset) || charsetOf(charset) !== null || !isWide(charset);
  }

  /** A mark of the byte order, behind which text begins. */
  get start(): number {
    return this.bytes.startsWith("\xef\xbb\xbf") ? 3 : 0;
  }
}

/** Bytes of ASCII that stand for other characters behind a shift: iso-2022-kr, hz-gb-2312, or iso-2022-jp undeclared. */
function isShifted({ bytes, charset }: TextPart): boolean {
  // oxlint-disable-next-line no-control-regex
  return charset.startsWith("hz") ? bytes.includes("~{") : /[\x0e\x1b]/.test(bytes);
}

/** Charsets in which ASCII is other bytes. */
function isWide(charset: string): boolean {
  return /^(?:utf-?(?:7|16|32)|ucs-?[24]|iso-10646|cp037|ibm|ebcdic|unicode)/.test(charset);
}

// ---- text ----

function addText(part: TextPart, text: string, place: Place): Decorated {
  const addition = additionOf(part, text, place);
  const { charset } = part;
  if (!part.takesAscii) return anew(part, addition, place);
  const bytes = encodeInto(addition, charset === "" || isJis(charset) ? "us-ascii" : charset);
  if (bytes !== null) return inserted(part, place === "top" ? part.start : part.decoded.length, bytes);
  if (isAscii(part.decoded) && !isJis(charset) && !isShifted(part)) return anew(part, addition, place);
  const isDeclared = !/^(?:us-ascii|ascii)?$/.test(charset);
  if (isDeclared ? charsetOf(charset) !== null || isJis(charset) : !isShifted(part)) {
    const text = decodeCharset(part.decoded, charset);
    if (!text.includes("\ufffd")) return anew(part, addition, place);
  }
  // The bytes that are there have no certain meaning: they stay, and the words get on with ASCII.
  return inserted(
    part,
    place === "top" ? part.start : part.decoded.length,
    Buffer.from(
      addition
        .normalize("NFKD")
        .replaceAll(/\p{M}+/gu, "")
        .replaceAll(/[^\n\r -~]/gu, "?"),
      "latin1",
    ),
  );
}

/** The words with the empty line between them and the text. */
function additionOf(
  { bytes, charset, decoded, entity, lineEnd, takesAscii }: TextPart,
  words: string,
  place: Place,
): string {
  const isFlowed = entity.params["format"]?.toLowerCase() === "flowed";
  const form = formOf(entity.type);
  const lines = words.split("\n").map((line) => {
    if (form === "richtext") return line.replaceAll("<", "<lt>");
    if (form === "enriched") return line.replaceAll("<", "<<");
    return isFlowed ? line.trimEnd().replace(/^(?= |>|From )/, " ") : line;
  });
  const isRich = form === "richtext";
  // A single line end is a space in enriched text, and each one in rich text, which has a command for it.
  const block = lines.join(isRich ? `<nl>${lineEnd}` : form === "enriched" ? lineEnd + lineEnd : lineEnd);
  const gap = isRich ? `<nl>${lineEnd}<nl>${lineEnd}` : lineEnd;
  if (bytes === "") return block + lineEnd;
  if (place === "top") return block + (isRich ? "" : lineEnd) + gap;
  // A line of flowed text that ends in a space goes on in the next line (RFC 3676): an empty line ends it.
  const tail = takesAscii ? bytes.slice(-8) : decodeCharset(decoded.subarray(-32), charset).slice(-8);
  const isOpen = isFlowed && / \r?\n?$/.test(tail) && !/(?:^|\n)-- \r?\n?$/.test(tail);
  const endsInLine = tail.endsWith("\n");
  const escape = isJis(charset) && !endsInAscii(bytes) ? "\x1b(B" : "";
  return escape + (endsInLine ? "" : lineEnd) + gap + (isOpen ? lineEnd : "") + block + (endsInLine ? lineEnd : "");
}

/** The whole part in UTF-8. */
function anew(part: TextPart, addition: string, place: Place): Decorated {
  const text = decodeCharset(part.decoded, part.charset);
  const words = addition.replace("\x1b(B", "");
  const whole = Buffer.from(place === "top" ? words + text.replace(/^\ufeff/, "") : text + words, "utf8");
  const { node, entity } = part;
  const { bytes, encoding } = encodeContent(whole, entity.encoding, "text", node.boundaries);
  return { content: bytes, fields: fieldsFor(entity, { charset: "utf-8", encoding }) };
}

// ---- HTML ----

function addHtml(part: TextPart, html: string, place: Place): Decorated {
  if (!part.takesAscii) return htmlAnew(part, html, place);
  const { bytes, lineEnd } = part;
  const masked = isJis(part.charset) ? withoutJis(bytes) : bytes;
  const at = part.start + placesIn(masked.slice(part.start))[place];
  const before = at === 0 || bytes[at - 1] === "\n" ? "" : lineEnd;
  const after = at === bytes.length && place === "bottom" && !bytes.endsWith("\n") ? "" : lineEnd;
  const escape = isJis(part.charset) && !endsInAscii(bytes.slice(0, at)) ? "\x1b(B" : "";
  const addition = escape + before + html.replaceAll("\n", lineEnd) + after;
  return inserted(part, at, Buffer.from(addition, "latin1"));
}

/** HTML in a charset in which ASCII is other bytes becomes UTF-8 as a whole. */
function htmlAnew(part: TextPart, html: string, place: Place): Decorated {
  const text = decodeCharset(part.decoded, part.charset).replace(/^\ufeff/, "");
  const at = placesIn(text)[place];
  const whole = Buffer.from(`${text.slice(0, at)}${html.replaceAll("\n", "\r\n")}${text.slice(at)}`, "utf8");
  const { node, entity } = part;
  const { bytes, encoding } = encodeContent(whole, entity.encoding, "text", node.boundaries);
  return { content: bytes, fields: fieldsFor(entity, { charset: "utf-8", encoding }) };
}

/** Text of iso-2022-jp with the bytes of other sets of characters blotted out, which may look like tags. */
function withoutJis(bytes: string): string {
  // oxlint-disable-next-line no-control-regex
  return bytes.replaceAll(/\x1b(?!\([BJ])[^]*?(?=\x1b\([BJ]|$)/g, (piece) => "\x01".repeat(piece.length));
}

function endsInAscii(bytes: string): boolean {
  // oxlint-disable-next-line no-control-regex
  return !/\x1b(?!\([BJ])[^\x1b]*$/.test(bytes);
}

// ---- both ----

/** Bytes put into the content at a place of what it decodes to. */
function inserted(part: TextPart, at: number, bytes: Buffer): Decorated {
  const { entity } = part;
  const { content, encoding } = spliced(part, at, bytes);
  return { content, fields: fieldsFor(entity, { encoding }) };
}

function spliced(part: TextPart, at: number, bytes: Buffer): { content: Uint8Array; encoding: string } {
  const { decoded, entity, node, raw } = part;
  const whole = () => Buffer.concat([decoded.subarray(0, at), bytes, decoded.subarray(at)]);
  const encoded = ({ bytes: content, encoding }: EncodedContent) => ({ content, encoding });
  if (hasBoundary(bytes, node.boundaries)) return { content: encodeBase64(whole()), encoding: "base64" };
  switch (entity.encoding) {
    case "base64":
      return { content: encodeBase64(whole()), encoding: "base64" };
    case "quoted-printable": {
      const place = placeInQuotedPrintable(raw, at);
      // A decoder that drops what ours keeps would drop it in another place.
      if (
        place === null ||
        !isSame(decodeLeniently(raw.subarray(0, place), entity.encoding), decoded.subarray(0, at))
      ) {
        return { content: encodeQuotedPrintable(whole()), encoding: entity.encoding };
      }
      return { content: splicedQuoted(part, place, bytes), encoding: entity.encoding };
    }
    default: {
      const spliced = Buffer.concat([raw.subarray(0, at), bytes, raw.subarray(at)]);
      const isEightBit = entity.encoding === "8bit" || entity.encoding === "binary";
      // Lines that were too long, or bytes of eight bits where there should be none, are not made by the words.
      const isFit = (isAscii(bytes) || isEightBit || !isAscii(raw)) && areLines(linesAround(spliced, at, bytes.length));
      if (isFit) return { content: spliced, encoding: entity.encoding };
      return encoded(encodeContent(spliced, "quoted-printable", "text", node.boundaries));
    }
  }
}

/** The lines that an insertion is in. */
function linesAround(bytes: Uint8Array, at: number, length: number): Uint8Array {
  const start = bytes.subarray(0, at).lastIndexOf(0x0a) + 1;
  const end = bytes.indexOf(0x0a, at + length);
  return bytes.subarray(start, end === -1 ? bytes.length : end + 1);
}

/** Bytes put into quoted-printable content: what is in front of them and behind stays as it is written. */
function splicedQuoted({ raw }: TextPart, place: number, bytes: Buffer): Uint8Array {
  const before = raw.subarray(0, place);
  const after = raw.subarray(place);
  const line = latin1(before.subarray(-80));
  // A soft line break that is open at the end gets its line end. Elsewhere a soft one keeps lines short, and white space
  // in front of it from being dropped.
  const isLineEnd = bytes[0] === 0x0d;
  const open = /=[ \t]*$/.test(line) ? "\r\n" : (isLineEnd ? /[ \t]$/ : /[^\n]$/).test(line) ? "=\r\n" : "";
  const quoted = encodeQuotedPrintable(bytes);
  // White space at the end of a line is dropped.
  const isClosed = quoted.at(-1) === 0x0a || /^[ \t]*(?:\r?\n|$)/.test(latin1(after.subarray(0, 1000)));
  const close = isClosed ? "" : "=\r\n";
  return Buffer.concat([before, Buffer.from(open, "latin1"), quoted, Buffer.from(close, "latin1"), after]);
}

/** The fields of a part that say its new charset and encoding. */
function fieldsFor(entity: Entity, { charset, encoding }: { charset?: string; encoding: string }): FieldChanges {
  const changes = new Map<string, string | null>();
  if (charset !== undefined) changes.set("Content-Type", withParameters(typeOf(entity), { charset }));
  if (encoding !== entity.encoding) changes.set("Content-Transfer-Encoding", encoding);
  return changes;
}

/** The value of the Content-Type as it is written, if it says what the part is taken for. */
export function typeOf({ fields, type }: Entity): string {
  const field = fields.find(({ name }) => name.toLowerCase() === "content-type");
  const value = field === undefined ? "" : Buffer.from(field.value, "latin1").toString("utf8").replaceAll("\r\n", "\n");
  return value.trim().toLowerCase().startsWith(type) ? value : type;
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && Buffer.compare(one, other) === 0;
}
