/**
 * Adds a disclaimer to the content of a text part: in its encoding and charset, with the content in front of it byte
 * for byte as it was. Only where that cannot be, the part becomes UTF-8, or quoted-printable.
 */
import { charsetOf, type Charset, isAscii, isJis, UTF8 } from "./charset.ts";
import type { Part } from "./mime.ts";
import { decodeBase64, decodeLeniently, encodeBase64, encodeQuotedPrintable, latin1 } from "./transfer-encoding.ts";

export interface Disclaimer {
  /** Lines separated by LF, without spaces at their ends. */
  readonly text: string;
  /** The same, in ASCII: other characters as references such as `&#233;`. */
  readonly html: string;
}

export interface Appended {
  /** The new content of the part, encoded. */
  readonly content: Uint8Array;
  /** The header fields that change. */
  readonly charset?: string;
  readonly encoding?: string;
}

/** Why a part is left as it is. */
export class LeftAlone extends Error {
  override readonly name = "LeftAlone";
}

/**
 * @param raw the content of the part as it stands in the message; it is not changed, the result is a new content
 * @throws LeftAlone
 */
export function append(part: Part, raw: Uint8Array, disclaimer: Disclaimer): Appended {
  const source = new Source(part, raw);
  return part.type === "text/html" ? appendHtml(source, disclaimer.html) : appendText(source, disclaimer.text);
}

/** The content of a text part, as it stands there and decoded. */
class Source {
  readonly part: Part;
  readonly raw: Uint8Array;
  readonly decoded: Uint8Array;
  readonly encoding: string;
  /** As declared. */
  readonly charset: Charset;
  readonly lineEnd: "\r\n" | "\n";

  constructor(part: Part, raw: Uint8Array) {
    this.part = part;
    this.raw = raw;
    this.decoded = decodeText(part, raw);
    this.encoding = part.encoding;
    const name = declaredCharset(part) || "us-ascii";
    const charset = charsetOf(name);
    if (charset === null) throw new LeftAlone("its charset is not known");
    this.charset = charset;
    // Only within base64 a bare LF can be all that there is.
    const text = latin1(this.decoded);
    this.lineEnd = this.encoding === "base64" && text.includes("\n") && !text.includes("\r\n") ? "\n" : "\r\n";
  }

  /** Where bytes are inserted: in base64 after decoding, else as it stands in the message. */
  get surface(): Uint8Array {
    return this.encoding === "base64" ? this.decoded : this.raw;
  }
}

function declaredCharset(part: Part): string {
  return part.params["charset"]?.trim() ?? "";
}

/** @throws LeftAlone for an encoding that is not known, or is broken */
export function decodeText(part: Part, raw: Uint8Array): Uint8Array {
  switch (part.encoding) {
    case "7bit":
    case "8bit":
    case "quoted-printable":
      return decodeLeniently(raw, part.encoding);
    case "base64": {
      const decoded = decodeBase64(raw);
      if (decoded === null) throw new LeftAlone("its base64 is broken");
      return decoded;
    }
    default:
      throw new LeftAlone("its Content-Transfer-Encoding is not known");
  }
}

// ---- text/plain ----

function appendText(source: Source, disclaimer: string): Appended {
  const { decoded, lineEnd, part } = source;
  const text = latin1(decoded);
  const isFlowed = part.params["format"]?.toLowerCase() === "flowed";
  const endsInLine = text.endsWith("\n");
  // A line of flowed text that ends in a space continues in the next line (RFC 3676): an empty line ends it.
  const tail = text.slice(-8);
  const isOpen = isFlowed && / \r?\n?$/.test(tail) && !/(?:^|\n)-- \r?\n?$/.test(tail);
  const before = (text === "" || endsInLine ? "" : lineEnd) + (text === "" ? "" : lineEnd) + (isOpen ? lineEnd : "");
  const lines = disclaimer.split("\n").map((line) => (isFlowed ? line.replace(/^(?= |>|From )/, " ") : line));
  const addition = before + lines.join(lineEnd) + (endsInLine ? lineEnd : "");

  const charset = charsetFor(source);
  const bytes = charset.encode(addition);
  if (isJis(charset.name) && !scan(text, BODY_END, "\\x1b").endsInAscii)
    throw new LeftAlone("its text does not end in ASCII");
  if (bytes !== null && charset === source.charset) {
    if (isAscii(addition) || part.encoding !== "7bit" || !isAscii(text)) {
      return { content: insert(source, source.surface.length, bytes) };
    }
    return { content: encodeQuotedPrintable(Buffer.concat([decoded, bytes])), encoding: "quoted-printable" };
  }
  return convert(source, addition, charset);
}

/** The charset of the text: as declared, unless nothing or ASCII is declared and the bytes are not ASCII. */
function charsetFor({ charset, decoded, part }: Source): Charset {
  const isDeclared = !/^(?:us-ascii|ascii)?$/i.test(declaredCharset(part));
  return isDeclared || isAscii(latin1(decoded)) ? charset : UNDECLARED;
}

/** 8-bit bytes without a declared charset: ASCII can be added to them. */
const UNDECLARED: Charset = { name: "us-ascii", encode: () => null, decode: UTF8.decode };

/** The whole part anew, as UTF-8. */
function convert(source: Source, addition: string, charset: Charset): Appended {
  const { decoded, encoding } = source;
  if (charset === UNDECLARED && isAscii(addition)) {
    return { content: insert(source, source.surface.length, Buffer.from(addition, "latin1")) };
  }
  const text = charset.decode(decoded);
  if (text === null) throw new LeftAlone("its bytes are not in the charset that it says");
  const bytes = UTF8.encode(text + addition)!;
  switch (encoding) {
    case "base64":
      return { content: encodeBase64(bytes), charset: "utf-8" };
    case "8bit":
      return { content: bytes, charset: "utf-8" };
    default:
      return { content: encodeQuotedPrintable(bytes), charset: "utf-8", encoding: "quoted-printable" };
  }
}

// ---- text/html ----

function appendHtml(source: Source, html: string): Appended {
  const { part, surface, lineEnd, charset } = source;
  const text = latin1(surface);
  const { bodyEnd, bodyEndInAscii, endsInAscii } =
    part.encoding === "quoted-printable" ? scan(text, BODY_END_QUOTED, "(?:\\x1b|=1B)") : scan(text, BODY_END, "\\x1b");
  const found = isJis(charset.name) ? bodyEndInAscii : bodyEnd;
  if (found === -1 && isJis(charset.name) && !endsInAscii) throw new LeftAlone("its text does not end in ASCII");
  const at = found === -1 ? text.length : found;
  const before = at === 0 || text[at - 1] === "\n" ? "" : lineEnd;
  const after = at < text.length || text.endsWith("\n") ? lineEnd : "";
  return { content: insert(source, at, Buffer.from(before + html.replaceAll("\n", lineEnd) + after, "latin1")) };
}

const BODY_END = "</body(?=[\\s>])";
/** The same where each character may be written as `=XX`, and the line cut between any two. */
const BODY_END_QUOTED = `${Array.from("</body", (letter) => {
  const codes = [letter, letter.toUpperCase()].map((each) => `=${each.charCodeAt(0).toString(16)}`);
  return `(?:${letter}|${codes.join("|")})(?:=\\r?\\n)?`;
}).join("")}(?=[\\s>]|=3e|=20)`;

/**
 * Looks for the last `</body>`: a `</body>` in a comment or a script before it does not count. Text of iso-2022-jp
 * changes its set of characters at each escape sequence, and bytes of it may look like ASCII.
 */
function scan(text: string, bodyEndPattern: string, escape: string) {
  const result = { bodyEnd: -1, bodyEndInAscii: -1, endsInAscii: true };
  for (const match of text.matchAll(new RegExp(`(${escape})(\\([BJ])?|${bodyEndPattern}`, "gi"))) {
    if (match[1] !== undefined) result.endsInAscii = match[2] !== undefined;
    else {
      result.bodyEnd = match.index;
      if (result.endsInAscii) result.bodyEndInAscii = match.index;
    }
  }
  return result;
}

// ---- both ----

/** Inserts bytes into the surface of a part and gives its new content; all other bytes stay, in base64 those that it stands for. */
function insert({ encoding, surface, lineEnd }: Source, at: number, bytes: Uint8Array): Uint8Array {
  const before = surface.subarray(0, at);
  const after = surface.subarray(at);
  if (encoding === "base64") return encodeBase64(Buffer.concat([before, bytes, after]));
  if (encoding !== "quoted-printable") return Buffer.concat([before, bytes, after]);
  const text = latin1(before.subarray(-80));
  let open = "";
  // A soft line break that is open at the end gets its line end.
  if (/=[ \t]*$/.test(text)) open = lineEnd;
  // Elsewhere a soft line break keeps lines short, and keeps spaces in front of it from being dropped.
  else if (/[^\n]$/.test(text) && (bytes[0] !== 0x0d || (after.length > 0 && /[ \t]$/.test(text)))) open = "=\r\n";
  return Buffer.concat([before, Buffer.from(open), encodeQuotedPrintable(bytes), after]);
}
