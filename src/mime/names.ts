/**
 * File names of a part. Mail programs differ in which of several names they take, and in how they read a name that is not
 * as it should be, so all readings are given.
 */
import { isUtf8 } from "node:buffer";
import { charsetOf, decodeCharset } from "./charset.ts";
import type { Flaw } from "./flaws.ts";
import { decodeEncodedWords } from "./header-text.ts";
import { iconv } from "./libraries.ts";
import {
  type FieldValue,
  isOddlyPieced,
  parameterOf,
  type ParameterValue,
  unescapePercents,
  withoutComments,
} from "./field-value.ts";

/** The values of the fields of a part that may name it. */
export interface NamingFields {
  readonly dispositions: readonly NamingField[];
  readonly types: readonly NamingField[];
  readonly locations: readonly string[];
}

export interface NamingField {
  readonly text: string;
  readonly value: FieldValue;
}

/** So much of a name is kept, its end, which decides how it is opened. */
const MAX_NAME = 1000;
const MAX_RAW = 4096;
const MAX_NAMES = 64;

const KEYS = ["filename", "name"] as const;
const ODD_NAME = "a file name that mail programs read differently";
const NAMING = /^(?:file)?name(?:\*\d*\*?)?$/;
/** Names in values that a strict reader cannot take apart, such as one without semicolons. */
const LOOSE = /(?<![\w*-])(?:file)?name(?:\*\d*\*?)?"?\s*=\s*("[^"\\]*(?:\\[^][^"\\]*)*"?[^;]*|[^;]*)/gi;

/** @returns the name that most mail programs show first, each once */
export function namesOf({ dispositions, types, locations }: NamingFields, flaws: Set<Flaw>): string[] {
  const values = [...dispositions, ...types];
  const names = new Names(flaws);
  for (const { value } of values) {
    for (const key of KEYS) {
      const found = parameterOf(value.parameters, key);
      if (found !== null) names.addRead(found);
      if (isOddlyPieced(value.parameters, key)) flaws.add(ODD_NAME);
    }
  }
  for (const { text, value } of values) {
    if (!/name/i.test(text)) continue;
    const pieces: string[] = [];
    for (const { name, raw, value: piece, isPlain } of value.parameters) {
      if (!NAMING.test(name)) continue;
      if (name.includes("*")) pieces.push(piece);
      if (!isPlain || /[*]|=\?|%/.test(name + raw)) names.addWritten(raw);
    }
    // Pieces whose numbers have gaps, or whose charset is missing: some programs join them all the same.
    if (pieces.length > 0) names.addForms([pieces.join(""), pieces.join("").replaceAll(/[\w-]*'[\w-]*'/g, "")]);
    for (const [, raw] of text.matchAll(LOOSE)) names.addWritten(raw!);
  }
  // Some programs save a part without a name by its address.
  if (names.isEmpty) for (const location of locations) names.addForms([location.split(/[?#]/)[0]!.split("/").at(-1)!]);
  return names.all;
}

class Names {
  readonly #flaws: Set<Flaw>;
  readonly #names = new Set<string>();
  /** Those that were judged. */
  readonly #charsets = new Set<string>();

  constructor(flaws: Set<Flaw>) {
    this.#flaws = flaws;
  }

  get isEmpty(): boolean {
    return this.#names.size === 0;
  }

  get all(): string[] {
    return [...this.#names];
  }

  /** As RFC 2231 has it. */
  addRead({ bytes, charset }: ParameterValue): void {
    const raw = this.#bounded(bytes);
    if (charset !== null) {
      this.#judge(charset);
      return this.#add(textIn(raw, charset));
    }
    return this.#add(decodeEncodedWords(toText(raw)).replaceAll(/\p{Cc}+/gu, " "));
  }

  /** As it is written, with quotes. */
  addWritten(written: string): void {
    const raw = this.#bounded(written.trim());
    if (!raw.startsWith('"')) {
      this.addForms([raw, withoutComments(raw).trim(), raw.split(/[\s(]/)[0]!, raw.replaceAll('"', "")]);
      return;
    }
    const inner = /^"([^"\\]*(?:\\[^][^"\\]*)*)/.exec(raw)![1]!;
    const rest = raw.slice(inner.length + 1).replace('"', "");
    const unescaped = inner.replaceAll(/\\([^])/g, "$1");
    // Some programs end a name at the first quote, escaped or not, and some leave backslashes as they are.
    this.addForms([unescaped, inner, inner.split('"')[0]!]);
    if (!inner.includes("\\") && rest.trim() === "" && !inner.includes(";")) return;
    this.addForms([unescaped + rest, raw.split(";")[0]!.replaceAll('"', ""), unescaped.split(";")[0]!]);
  }

  addForms(forms: readonly string[]): void {
    for (const form of new Set(forms)) for (const unfolded of unfoldings(form)) this.#addDecodings(unfolded);
  }

  #addDecodings(text: string): void {
    for (const bytes of text.includes("%") ? [text, unescapePercents(text)] : [text]) {
      const plain = toText(bytes);
      this.#addVisible(plain);
      if (plain.includes("=?")) {
        for (const [, charset] of plain.matchAll(CHARSET)) this.#judge(charset!);
        this.#addVisible(decodeEncodedWords(plain));
        // Words that stand next to each other without a space, or have spaces in them.
        this.#addVisible(decodeEncodedWords(plain.replaceAll(/\?==\?/g, "?= =?")));
        this.#addVisible(decodeEncodedWords(plain.replaceAll(/\s+/g, "")));
        this.#addVisible(decodeAnyWords(bytes));
      }
    }
  }

  /** A program that does not know a charset shows the bytes as they stand. */
  #judge(charset: string): void {
    if (this.#charsets.has(charset)) return;
    this.#charsets.add(charset);
    if (!UNNAMED.test(charset) && !isAsciiBased(charset)) this.#flaws.add(ODD_NAME);
  }

  /** Programs in C end a name at a NUL, and others leave control characters out. */
  #addVisible(name: string): void {
    this.#add(name);
    if (!/\p{Cc}/u.test(name)) return;
    this.#add(name.split("\0")[0]!);
    this.#add(name.replaceAll(/\p{Cc}/gu, ""));
  }

  #bounded(raw: string): string {
    if (raw.length <= MAX_RAW) return raw;
    this.#flaws.add("a file name that is too long");
    return raw.slice(-MAX_RAW);
  }

  #add(name: string): void {
    const trimmed = name.trim();
    if (trimmed === "") return;
    if (this.#names.size < MAX_NAMES) this.#names.add(trimmed.slice(-MAX_NAME));
    else this.#flaws.add("too many file names");
  }
}

/** A fold within a name is a space, or nothing. */
function unfoldings(text: string): readonly string[] {
  if (!/[\r\n]/.test(text)) return [text];
  return [/\r?\n/g, /\r?\n[ \t]+/g].map((fold) => text.replaceAll(fold, ""));
}

/** UTF-8, else ISO 8859-1. */
function toText(bytes: string): string {
  // oxlint-disable-next-line no-control-regex
  if (/^[\0-\x7f]*$/.test(bytes) || /[^\0-\xff]/.test(bytes)) return bytes;
  const buffer = Buffer.from(bytes, "latin1");
  return isUtf8(buffer) ? buffer.toString("utf8") : bytes;
}

/** Encoded words whose charset is missing, not known, or UTF-7: some programs decode them all the same. */
function decodeAnyWords(bytes: string): string {
  return bytes.replaceAll(
    /=\?([^?]*)\?([bq])\?([^?]*)\?=/gi,
    (_, charset: string, encoding: string, content: string) => {
      if (/^b$/i.test(encoding)) return textIn(Buffer.from(content, "base64").toString("latin1"), charset);
      return textIn(unescapePercents(content.replaceAll("_", " ").replaceAll(/=(?=[0-9a-f]{2})/gi, "%")), charset);
    },
  );
}

/** The charset of an encoded word. */
const CHARSET = /=\?([^?*]*)(?:\*[^?]*)?\?[bq]\?/gi;
/** Senders write these where they do not know the charset, and no program knows one by these names. */
const UNNAMED = /^\s*(?:|(?:x-)?unknown(?:-8bit)?|x-user-defined|default(?:_charset)?|(?:us-)?ascii)\s*$/i;

function isAsciiBased(charset: string): boolean {
  return /^(?:utf-8|iso-8859-\d+)$/i.test(charset) || charsetOf(charset) !== null;
}

function textIn(bytes: string, charset: string): string {
  // oxlint-disable-next-line no-control-regex
  if (/^[\0-\x7f]*$/.test(bytes) && /^(?:utf-8|us-ascii|iso-8859-\d+|)$/i.test(charset)) return bytes;
  if (/^(?:unicode-?1-?1-?)?utf-?7$/i.test(charset)) {
    return iconv().decode(Buffer.from(bytes, "latin1"), "utf-7");
  }
  return decodeCharset(Buffer.from(bytes, "latin1"), charset);
}
