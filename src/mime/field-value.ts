/**
 * Values of header fields with parameters, such as Content-Type (RFC 2045 5.1), and parameters in pieces and with a
 * charset (RFC 2231). Text is a character for each byte.
 */

/** A parameter as it is written. */
export interface Parameter {
  /** In lower case, with the asterisks of RFC 2231: `filename*0*`. */
  readonly name: string;
  /** The text behind the equals sign, quotes and white space included. */
  readonly raw: string;
  /** Without quotes, escapes, comments and folds. */
  readonly value: string;
  /** Written in a way that all mail programs read alike. */
  readonly isPlain: boolean;
}

export interface FieldValue {
  /** What stands in front of the parameters, without comments and white space at its ends. */
  readonly value: string;
  /** It has no comment. */
  readonly isPlain: boolean;
  readonly parameters: readonly Parameter[];
  /** There are more parameters. */
  readonly isCut: boolean;
}

/** Further parameters are not read. */
const MAX_PARAMETERS = 200;

/** Printable ASCII, in quotes without a backslash, or without quotes, white space and comments. */
const PLAIN = /^[ \t]*(?:"[ !#-[\]-~]*"|[!#-'*-:<-[\]-~]+)\s*$/;

export function parseFieldValue(text: string): FieldValue {
  const [head = "", ...rest] = segmentsOf(text);
  const parameters: Parameter[] = [];
  for (const segment of rest) {
    const equals = segment.indexOf("=");
    if (equals === -1) continue;
    const name = withoutComments(segment.slice(0, equals)).trim().toLowerCase();
    const raw = segment.slice(equals + 1);
    parameters.push({ name, raw, value: valueOf(raw), isPlain: PLAIN.test(raw) });
  }
  const value = withoutComments(head).trim();
  return { value, isPlain: value === head.trim(), parameters, isCut: rest.length >= MAX_PARAMETERS };
}

/** The text between semicolons that stand outside of quotes and comments. */
function segmentsOf(text: string): string[] {
  const segments: string[] = [];
  let start = 0;
  for (const { begin, kind } of spansOf(text, true)) {
    if (kind !== ";") continue;
    segments.push(text.slice(start, begin));
    start = begin + 1;
    if (segments.length > MAX_PARAMETERS) return segments;
  }
  segments.push(text.slice(start));
  return segments;
}

/** Comments within comments go from the inside out, so many levels deep. */
const MAX_NESTED = 10;

export function withoutComments(text: string): string {
  let rest = text;
  for (let level = 0; level < MAX_NESTED && rest.includes("("); level++) {
    let next = "";
    let from = 0;
    for (const { begin, end, kind } of spansOf(rest, false)) {
      if (kind !== "(") continue;
      next += `${rest.slice(from, begin)} `;
      from = end;
    }
    if (from === 0) return rest;
    rest = next + rest.slice(from);
  }
  return rest;
}

interface Span {
  /** A semicolon, quoted text, or a comment without another one in it. */
  readonly kind: ";" | '"' | "(";
  readonly begin: number;
  readonly end: number;
}

/**
 * Semicolons, quoted texts and comments from left to right, in one pass. A comment that does not end is none.
 * @param goesOn quoted text that does not end goes on to the end; else it is none
 */
function* spansOf(text: string, goesOn: boolean): Generator<Span> {
  const marks = /[;"(]/g;
  // In front of these no quotes and no comment begin: one from there was seen not to end.
  let noQuotes = 0;
  let noComment = 0;
  for (let match = marks.exec(text); match !== null; match = marks.exec(text)) {
    const begin = match.index;
    if (match[0] === ";") yield { kind: ";", begin, end: begin + 1 };
    else if (match[0] === '"') {
      if (begin < noQuotes) continue;
      const stop = firstUnescaped(text, begin + 1, '"');
      if (stop === text.length && !goesOn) noQuotes = stop;
      else {
        const end = Math.min(text.length, stop + 1);
        yield { kind: '"', begin, end };
        marks.lastIndex = end;
      }
    } else if (begin >= noComment) {
      const stop = firstUnescaped(text, begin + 1, "()");
      if (text[stop] !== ")") noComment = stop;
      else {
        yield { kind: "(", begin, end: stop + 1 };
        marks.lastIndex = stop + 1;
      }
    }
  }
}

/** Where the first of some characters stands that has no backslash in front; the length of the text if none does. */
function firstUnescaped(text: string, from: number, characters: string): number {
  for (let at = from; at < text.length; at++) {
    const character = text[at]!;
    if (character === "\\") at += 1;
    else if (characters.includes(character)) return at;
  }
  return text.length;
}

/** A fold is the line break alone: the white space behind it stays (RFC 5322 2.2.3). */
function valueOf(raw: string): string {
  const text = raw.trim().replaceAll(/\r?\n/g, "");
  if (text.startsWith('"')) return text.slice(1, firstUnescaped(text, 1, '"')).replaceAll(/\\([^])/g, "$1");
  return withoutComments(text).trim();
}

/** A piece of a parameter of RFC 2231. */
interface Piece {
  readonly index: number;
  readonly isEncoded: boolean;
  readonly value: string;
}

/**
 * The value of a parameter by RFC 2231: in pieces, with a charset, or plain. The form with a charset is preferred, as RFC
 * 6266 4.3 has it.
 * @returns null if there is none
 */
export function parameterOf(parameters: readonly Parameter[], name: string): ParameterValue | null {
  const plain = parameters.find((parameter) => parameter.name === name);
  const pieces: Piece[] = [];
  for (const parameter of parameters) {
    if (!parameter.name.startsWith(`${name}*`)) continue;
    const written = /^(\d{0,9})(\*?)$/.exec(parameter.name.slice(name.length + 1));
    if (written === null) continue;
    const [, index, asterisk] = written;
    pieces.push({
      index: index === "" ? -1 : Number(index),
      isEncoded: index === "" || asterisk === "*",
      value: parameter.value,
    });
  }
  const whole = pieces.find(({ index }) => index === -1);
  if (whole !== undefined) return { ...joined([whole]), isPlain: false };
  const ordered = pieces.toSorted((a, b) => a.index - b.index);
  if (ordered.length > 0) return { ...joined(ordered), isPlain: false };
  return plain === undefined ? null : { bytes: plain.value, charset: null, isPlain: plain.isPlain };
}

/**
 * Whether programs may read a parameter of RFC 2231 differently: its pieces are not numbered 0, 1, 2 and so on, each number
 * once, or its charset does not stand in an encoded first piece.
 */
export function isOddlyPieced(parameters: readonly Parameter[], name: string): boolean {
  const pieces = parameters.filter((parameter) => PIECE.exec(parameter.name)?.[1] === name);
  if (pieces.length === 0 || (pieces.length === 1 && pieces[0]!.name === `${name}*`)) return false;
  const first = pieces.find((piece) => piece.name === `${name}*0`);
  if (first?.value.includes("'") === true && pieces.some((piece) => piece.name.endsWith("*"))) return true;
  const numbers = new Set(pieces.map((piece) => piece.name.slice(name.length + 1).replace(/\*$/, "")));
  return pieces.some((_, number) => !numbers.has(String(number)));
}

/** The name of a piece of a parameter, whatever its number is. */
const PIECE = /^([^\s*]+)\s*\*/;

export interface ParameterValue {
  /** A character for each byte. */
  readonly bytes: string;
  /** Null if the value does not say. */
  readonly charset: string | null;
  readonly isPlain: boolean;
}

/** `charset'language'` stands in front of the first encoded piece. */
function joined(pieces: readonly Piece[]): { bytes: string; charset: string | null } {
  let charset: string | null = null;
  const texts = pieces.map(({ isEncoded, value }, at) => {
    if (!isEncoded) return value;
    const start = at === 0 ? /^([^']*)'[^']*'/.exec(value) : null;
    if (start !== null) charset = start[1]!;
    return unescapePercents(start === null ? value : value.slice(start[0].length));
  });
  return { bytes: texts.join(""), charset };
}

export function unescapePercents(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
