/**
 * From text to TOML's values, with errors for people: the text seen, the text expected. smol-toml finds the fault and
 * its place; here its words become plain.
 */
import { parse, TomlError } from "smol-toml";
import { ConfigError, type ConfigIssue, printable, quote } from "./errors.ts";
import { pathInWords, redefinition } from "./locate.ts";

/**
 * @param source without a byte order mark
 * @param file its name, as messages show it
 * @throws ConfigError
 */
export function parseToml(source: string, file: string): Record<string, unknown> {
  try {
    // A key named __proto__ or constructor is never a setting, and a trap for code that copies options.
    return parse(source, { unsafeKeyBehaviour: "throw" });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new ConfigError(file, [explain(error, source)], source, { cause: error });
  }
}

/** A place in the text, where smol-toml stopped. */
class Spot {
  readonly source: string;
  readonly offset: number;
  /** From 1. */
  readonly line: number;
  readonly #lineStart: number;

  constructor(source: string, { line, column }: { readonly line: number; readonly column: number }) {
    this.source = source;
    this.line = line;
    let start = 0;
    for (let at = 1; at < line; at++) start = source.indexOf("\n", start) + 1;
    this.#lineStart = start;
    this.offset = start + column - 1;
  }

  /** The text of the line before it. */
  get before(): string {
    return this.source.slice(this.#lineStart, this.offset);
  }

  /** The text of the line from it on. */
  get rest(): string {
    return /^[^\n]*/.exec(this.source.slice(this.offset))![0].replace(/\r$/, "");
  }

  /** From 1. */
  get column(): number {
    return this.offset - this.#lineStart + 1;
  }

  /** It lies in the brackets of a table, or behind them. */
  get isHeader(): boolean {
    return /^\s*\[[^=]*$/.test(this.before);
  }

  /** Behind the key of the line stands a key that ends in this name. */
  isValueOf(name: string): boolean {
    return new RegExp(`(?:^|[\\s.])${name}\\s*=`).test(this.before);
  }

  /** The start of the word that it lies in. */
  get wordStart(): Spot {
    const inWord = /[^\s=[{,]*$/.exec(this.before)![0].length;
    return new Spot(this.source, { line: this.line, column: this.column - inWord });
  }

  /** The text at the place, in words. */
  get seen(): string {
    if (this.source[this.offset] === "\r") return "a carriage return alone (CR); lines end with LF or CRLF";
    const word = /^(?:"[^"]*"|'[^']*'|[\w.-]+|[^\s\w]+)/.exec(this.rest.trimStart())?.[0];
    if (word !== undefined) return quote(word.replace(/^(["'])(.+)\1$/, "$2"));
    return this.offset + this.rest.length >= this.source.length ? "the end of the file" : "the end of the line";
  }
}

/** The words for each error of smol-toml at a place; the first match counts. */
const WORDS: readonly (readonly [reason: RegExp, words: (spot: Spot) => string])[] = [
  [/^illegal character in key/, behindKey],
  [/cannot find end of key/, (spot) => behindKey(spot, "the end of the file")],
  [
    /^unexpected end of key/,
    (spot) =>
      spot.isHeader
        ? `expected a name between the brackets of the table, got ${spot.seen}`
        : `expected a key in front of the "=", got none`,
  ],
  [/^illegal empty bare key/, () => "expected a name in front of the dot, got none"],
  [/^illegal quoted key/, () => "expected a key on one line, got three quotes"],
  [/^expected end of table array/, (spot) => `expected "]]" behind the name of the table, got ${spot.seen}`],
  [/^each key-value declaration/, endOfLine],
  [/^(?:invalid value|illegal (?:character in num|underscore|leading zero)|unfinished numeric)/, wrongValue],
  [/^invalid date/, wrongValue],
  [/^integer value/, (spot) => `expected a whole number of at most 9007199254740991, got ${spot.seen}`],
  [/^(?:unfinished string|control characters are not allowed in strings)/, wrongText],
  [/escape/, wrongEscape],
  [/^control characters/, (spot) => `expected a comment without control characters, got ${codeOf(spot)}`],
  [/^expected comma/, (spot) => `expected "," or the closing bracket behind an entry, got ${spot.seen}`],
  [/^unfinished array/, () => `expected "]" at the end of the list that begins here, got the end of the file`],
  [/^unfinished table/, () => `expected "}" at the end of the table that begins here, got the end of the file`],
  [/excessively nested/, () => "expected lists and tables with less of them inside each other"],
  [/^document contains an unsafe/, (spot) => `expected another name, got ${spot.seen}, which is reserved`],
];

function explain(error: TomlError, source: string): ConfigIssue {
  const reason = (error.message.split("\n", 1)[0] ?? "").replace(/^Invalid TOML document: /, "");
  const spot = new Spot(source, error);
  if (reason.startsWith("trying to redefine")) return redefined(spot);
  const words = WORDS.find(([pattern]) => pattern.test(reason))?.[1](spot) ?? reason;
  // A number or a word is pointed at as a whole.
  const isValue = /^expected a (?:value|number)/.test(words);
  const { column, line } = isValue ? spot.wordStart : spot;
  return { text: `not valid TOML: ${printable(words)}`, line, column };
}

function redefined(spot: Spot): ConfigIssue {
  const found = redefinition(spot.source, spot.offset);
  if (found === undefined) {
    return { text: "not valid TOML: it is defined twice", line: spot.line, column: spot.column };
  }
  const { first, path, at } = found;
  const [name] = path;
  const key = pathInWords(path);
  const header = /^\[+[^\]\n]*\]+/.exec(spot.source.slice(new Spot(spot.source, at).offset))?.[0];
  if (header === undefined) return { key, text: `it is set already, in line ${first.line}; keep one`, ...at };
  const hint =
    name === "filter" && path.length === 1
      ? "each filter begins with [[filter]], in double brackets"
      : "keep one, with the keys of both";
  return {
    key,
    text: `the table ${quote(header).slice(1, -1)} is defined already, in line ${first.line}; ${hint}`,
    ...at,
  };
}

/** Behind a key or the name of a table stands something else than its end. */
function behindKey(spot: Spot, seen: string = spot.seen): string {
  if (spot.isHeader || spot.rest.startsWith("[")) {
    const isList = /^\s*\[\[/.test(spot.before + spot.rest);
    return `expected "${isList ? "]]" : "]"}" behind the name of the table, got ${seen}`;
  }
  const whole = /^\s*([\w.-]+)/.exec(spot.before === "" ? spot.rest : spot.before)?.[1];
  if (whole === undefined) return `expected a key, a table in brackets or a comment with "#", got ${seen}`;
  if (spot.rest.startsWith(":")) return `expected "=" between key and value, got ":"`;
  return `expected "=" and a value behind the key ${quote(whole)}, got ${seen}`;
}

function endOfLine(spot: Spot): string {
  const { before, isHeader, rest, seen } = spot;
  if (rest.startsWith("\r") || seen.startsWith("a carriage")) return `expected the end of the line, got ${seen}`;
  if (isHeader) {
    const hint = rest.startsWith("]")
      ? "; each pair of brackets is closed as it was opened"
      : "; keys stand on lines of their own";
    return `expected the end of the line behind the table, got ${seen}${hint}`;
  }
  // The value is read no further than to where it stopped to be one: `inf` of `info`.
  if (/\w$/.test(before) && /^\w/.test(rest)) return wrongValue(spot);
  if (/^[,;]\s*(?:#.*)?$/.test(rest)) return `expected the end of the line, got ${seen}; nothing stands behind a value`;
  if (rest.startsWith(",")) return `expected the end of the line, got ${seen}; several values stand in a list: [1, 2]`;
  return `expected the end of the line, got ${seen}; text, a number with a unit as well, stands in quotes`;
}

const SPOKEN: Readonly<Record<string, string>> = {
  true: "; write true",
  yes: "; write true",
  on: "; write true",
  false: "; write false",
  no: "; write false",
  off: "; write false",
  null: "; leave the key out",
  nil: "; leave the key out",
  none: "; leave the key out",
};

function wrongValue(spot: Spot): string {
  const { rest } = spot.wordStart;
  const key = spot.before.indexOf("=");
  // A line without a key continues a list that an earlier line began.
  const isInside = key === -1 || /[[{]/.test(spot.before.slice(key + 1));
  const value = (isInside ? /^[^,\]}#]*/ : /^[^#]*/).exec(rest)![0].trim();
  if (value === "") return `expected a value${isInside ? "" : ' behind "="'}, got ${spot.seen}`;
  const [, number, mark] = /^([\d.]+)([,;])$/.exec(value) ?? [];
  if (mark !== undefined) return `expected the end of the line behind ${number}, got "${mark}"`;
  if (/^\d{2,4}[-:]\d\d(?!\w*[.:]{2})/.test(value)) return `expected a date or time that exists, got ${quote(value)}`;
  if (/^[\u2018-\u201f\u00ab\u00bb`]/u.test(value))
    return `expected a value in straight quotes, " or ', got ${quote(value)}`;
  const spoken = SPOKEN[value.toLowerCase()];
  if (spoken !== undefined) return `expected a value, got ${value}${spoken}`;
  // 0660 without quotes is no TOML at all, and the most likely way to write a mode.
  if (spot.isValueOf("socket_mode")) return `expected a value, got ${value}; a mode stands in quotes, as in "0660"`;
  if (/^[+-]?0\d+$/.test(value)) return `expected a number without a zero in front, got ${value}`;
  const quoted = value.includes("\\") || value.includes('"') ? `'${value}'` : `"${value}"`;
  return `expected a value, got ${value.length > 40 ? quote(value) : value}; text stands in quotes: ${quoted.length > 60 ? '"…"' : quoted}`;
}

function wrongText(spot: Spot): string {
  const char = spot.source[spot.offset];
  const isCarriageReturn = char === "\r" && spot.source[spot.offset + 1] !== "\n";
  const isEnd =
    char === undefined || char === "\n" || char === "'" || char === '"' || (char === "\r" && !isCarriageReturn);
  if (!isEnd) return `expected text without control characters, got ${codeOf(spot)}`;
  const hint = (spot.before + spot.rest).includes("\\") ? `; ${BACKSLASH}` : "";
  const isAtEnd = char === "'" || char === '"' || char === undefined;
  return `expected a closing quote, got the end of the ${isAtEnd ? "file" : "line"}${hint}`;
}

const BACKSLASH = `in "…" a backslash begins an escape such as \\n: write "/" in paths, or '…', where it stands for itself`;

function wrongEscape({ before, rest }: Spot): string {
  const at = before.lastIndexOf("\\");
  const [escape = "\\"] = /^\\.?/u.exec((before + rest).slice(at === -1 ? before.length : at)) ?? [];
  return `expected an escape such as \\n or \\\\, got ${escape}; ${BACKSLASH}`;
}

function codeOf({ offset, source }: Spot): string {
  const code = source.codePointAt(offset) ?? 0;
  if (code === 13) return "a carriage return alone (CR); lines end with LF or CRLF";
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}
