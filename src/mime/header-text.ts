/**
 * Text of header values: folding (RFC 5322 2.2.3) and encoded words (RFC 2047), by `libmime`. No function throws, whatever a
 * client has sent. The library is loaded at the first call: most workers never need it.
 */

import { encodeText } from "../protocol/bytes.ts";
import { decoder, iconv, libmime, NO_CHARSETS } from "./libraries.ts";

/** Longer values are not decoded: no program shows so much, and decoding it would hold up other sessions. */
const MAX_DECODED = 64 * 1024;
/** RFC 2047 2: an encoded word has at most 75 characters. */
const MAX_WORD = 75;
const MAX_LINE = 76;

const HAS_WORD = /=\?[^?]+\?[bq]\?/i;
// oxlint-disable-next-line no-control-regex
const CONTROLS = /[\0-\x1f\x7f]+/g;

/** A header value on one line: each line break, with the white space that follows it, becomes one space. */
export function unfold(value: string): string {
  return value.replace(/[\r\n]+[ \t]*/g, " ").replaceAll("\0", "");
}

/** An encoded word: its character set, without the language of RFC 2231 5, its encoding, and its text. */
const WORD = /=\?([\w.:+-]+)(?:\*[\w-]*)?\?([bq])\?([^?]*)\?=/gi;
/** `libmime` reads these by a decoder of its own. */
const JAPANESE = /^(?:jis|iso-?2022-?jp|x-euc-?jp)/i;
/** Whether a character set is known. `libmime` reads others as UTF-8, and mail programs show their words undecoded. */
function isKnownCharset(name: string): boolean {
  if (NO_CHARSETS.test(name)) return false;
  return JAPANESE.test(name) || iconv().encodingExists(decoder().normalizeCharset(name));
}

/**
 * The text that people see: unfolded, encoded words decoded, also where a character is split between two of them. Control
 * characters that an encoded word brings in become a space, so the result is one line. A word in an unknown character set
 * stays as it is. A value without encoded words, or of more than 64 KB, is only unfolded.
 * @example decodeWords("=?utf-8?q?Gr=C3=BC=C3=9Fe?=") // "Grüße"
 */
export function decodeWords(value: string): string {
  const line = unfold(value);
  if (line.length > MAX_DECODED || !HAS_WORD.test(line)) return line;
  return decodeEncodedWords(line).replace(CONTROLS, " ");
}

/** The same of one line, whatever its length, with the control characters that encoded words bring in. */
export function decodeEncodedWords(line: string): string {
  let text = "";
  let end = 0;
  let run: WordRun | null = null;
  for (const { 0: word, 1: name, 2: encoding, 3: content, index } of line.matchAll(WORD)) {
    if (!isKnownCharset(name!)) continue;
    const charset = decoder().normalizeCharset(name!);
    const between = line.slice(end, index);
    const isAdjacent = run !== null && between.trim() === "";
    if (!isAdjacent || run?.charset !== charset) {
      text += (run?.text() ?? "") + (isAdjacent ? "" : between);
      run = new WordRun(charset);
    }
    run!.add(encoding!, content!);
    end = index + word.length;
  }
  return text + (run?.text() ?? "") + line.slice(end);
}

/**
 * Encoded words in one character set with nothing but white space between them (RFC 2047 6.2). Their bytes are decoded
 * together, since many senders split a character between two words, whatever the encoding of each.
 */
class WordRun {
  readonly charset: string;
  readonly #bytes: Uint8Array[] = [];
  /** Characters of base64 at the end of a word that are less than a byte together, or begin the next word's first byte. */
  #carried = "";

  constructor(charset: string) {
    this.charset = charset;
  }

  add(encoding: string, content: string): void {
    const isBase64 = encoding.toUpperCase() === "B";
    if (!isBase64) this.#carried = "";
    this.#bytes.push(isBase64 ? this.#base64(content) : quotedBytes(content));
  }

  text(): string {
    return decoder().decode(Buffer.concat(this.#bytes), this.charset);
  }

  /** Each run of base64 up to its padding by itself. A word may end anywhere in the base64 of a longer text. */
  #base64(content: string): Uint8Array {
    const runs = (this.#carried + content.replace(/[^A-Za-z0-9+/=]/g, "")).split(/=+/);
    const last = runs.at(-1)!;
    const open = last.slice(last.length - (last.length % 4));
    this.#carried = isCut(open) ? open : "";
    runs[runs.length - 1] = last.slice(0, last.length - this.#carried.length);
    return Buffer.concat(runs.map((run) => Buffer.from(run, "base64")));
  }
}

/** Whether base64 without padding is cut: it has bits that belong to the next byte. */
function isCut(open: string): boolean {
  const bits = BASE64.indexOf(open.at(-1) ?? "A");
  return open.length === 1 || (open.length === 2 ? bits & 15 : bits & 3) !== 0;
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The bytes of a word in encoding Q: `_` is a space, `=C3` a byte. */
function quotedBytes(content: string): Uint8Array {
  // A fold behind `=` is not part of the word.
  const bytes = encodeText(content.replaceAll("_", " ").replace(/= +(?=[0-9a-f])/gi, "="));
  const text = Buffer.from(bytes).toString("latin1");
  return Buffer.from(
    text.replace(/=([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    "latin1",
  );
}

/** The text of a header: {@link decodeWords}, without white space at its ends, as a value has that begins with a fold. */
export function textOf(value: string): string {
  return decodeWords(value).trim();
}

/**
 * Text as a header value: what is not ASCII, or would be read as an encoded word, becomes encoded words of UTF-8, and the
 * value is folded. `decodeWords` gives the text back. Line breaks and other control characters become spaces.
 * @example message.addHeader("Subject", encodeWords("Grüße"))
 */
export function encodeWords(text: string): string {
  const line = text.toWellFormed().replace(CONTROLS, " ");
  const words = HAS_WORD.test(line) ? encodeAll(line) : libmime().encodeWords(line, "Q", MAX_WORD);
  return foldHeader("", words);
}

/** Every word of it encoded: text that looks like an encoded word must not be read as one. */
function encodeAll(line: string): string {
  return libmime().encodeWord(line, "B", MAX_WORD);
}

/**
 * Folds the value of a header at its spaces, so that its lines have at most 76 characters where there are spaces to do so.
 * Lines are separated by LF and a space, as handlers write them. Unfolding gives the value back.
 * @param name of the header, which takes room on the first line
 * @example message.addHeader("References", foldHeader("References", ids.join(" ")))
 */
export function foldHeader(name: string, value: string): string {
  const lines: string[] = [];
  let line = "";
  let room = MAX_LINE - name.length - ": ".length;
  // A run of spaces stays together: a line of white space alone would end the header for some programs.
  for (const word of unfold(value).split(/(?<=\S) (?=\S)/)) {
    if (line !== "" && line.length + 1 + word.length > room) {
      lines.push(line);
      line = word;
      room = MAX_LINE - 1;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.join("\n ");
}
