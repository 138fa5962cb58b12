/**
 * Syntax of the headers that header-policy.ts judges: Date and Message-Id (RFC 5322 3.3, 3.6.4, the obsolete forms of
 * 4.3 and 4.5.4) and the identity in Authentication-Results (RFC 8601 2.2). None of it throws on any text.
 */
import { normalDomain } from "./access-names.ts";

/** Longer values are not read: none that is right comes near, and a pattern must not be kept busy. */
const MAX_LENGTH = 2000;

/** A value on a single line, its encoded words as they are. */
export function unfold(value: string): string {
  return value.replace(/[\r\n]+[ \t]*/g, " ").replaceAll("\0", "");
}

/** Past white space and comments, which may be nested; -1 for a comment that does not end. */
function skipComments(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const character = text[at]!;
    if (character === "(") depth += 1;
    else if (depth === 0 && !/\s/.test(character)) return at;
    else if (character === ")") depth -= 1;
    else if (character === "\\") at += 1;
  }
  return depth === 0 ? text.length : -1;
}

/** A value on a single line without comments and with single spaces, quoted text unchanged; null if it is broken. */
function withoutComments(value: string): string | null {
  let plain = "";
  for (let at = 0; at < value.length;) {
    const character = value[at]!;
    if (character === '"') {
      const quoted = /"(?:[^"\\]|\\.)*"/y;
      quoted.lastIndex = at;
      const found = quoted.exec(value);
      if (found === null) return null;
      plain += found[0];
      at += found[0].length;
    } else if (character === "(" || /\s/.test(character)) {
      at = skipComments(value, at);
      if (at === -1) return null;
      plain += " ";
    } else {
      plain += character;
      at += 1;
    }
  }
  return plain.trim();
}

/** Characters of a word; those of RFC 6532 too, but not bytes that are no UTF-8 (U+DC80 and up). */
const ATEXT = String.raw`[\w!#$%&'*+/=?^\x60{|}~\u0080-\ud7ff\ue000-\uffff\u{10000}-\u{10ffff}-]`;
const DOT_ATOM = String.raw`${ATEXT}+(?:\.${ATEXT}+)*`;
const LITERAL = String.raw`\[[!-Z^-~]*\]`;
const MESSAGE_ID = new RegExp(`^<${DOT_ATOM}@(?:${DOT_ATOM}|${LITERAL})>$`, "u");
const WORD = String.raw`(?:${ATEXT}+|"(?:[^"\\]|\\.)*")`;
const OBSOLETE_ID = new RegExp(
  String.raw`^< ?${WORD}(?: ?\. ?${WORD})* ?@ ?(?:${ATEXT}+(?: ?\. ?${ATEXT}+)*|${LITERAL}) ?>$`,
  "u",
);

/** Whether a Message-Id has the form that it must have. */
export function isMessageId(value: string, allowsObsolete: boolean): boolean {
  if (value.length > MAX_LENGTH) return false;
  const line = unfold(value);
  if (allowsObsolete) {
    const plain = withoutComments(line);
    return plain !== null && OBSOLETE_ID.test(plain);
  }
  const start = skipComments(line, 0);
  const end = line.lastIndexOf(">") + 1;
  return start !== -1 && MESSAGE_ID.test(line.slice(start, end)) && skipComments(line, end) === line.length;
}

const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DATE =
  /^(?:([a-z]{3}) ?, ?)?(\d{1,2}) ([a-z]{3}) (\d{2,5}) (\d\d) ?: ?(\d\d)(?: ?: ?(\d\d))? ?([+-]\d{4}|[a-z]{1,5})$/i;
const STRICT_DATE = /^\s*(?:[a-z]{3},\s*)?\d{1,2}\s+[a-z]{3}\s+\d{4,5}\s+\d\d:\d\d(?::\d\d)?\s+[+-]\d{4}(?=\s|\(|$)/i;

/** Hours of the zones that have names; all other names count as 0 (RFC 5322 4.3). */
const ZONES: Readonly<Record<string, number>> = {
  EST: -5,
  EDT: -4,
  CST: -6,
  CDT: -5,
  MST: -7,
  MDT: -6,
  PST: -8,
  PDT: -7,
};

/** The moment that a Date names, in milliseconds; null if it has not the form that it must have, or names none. */
export function parseDate(value: string, allowsObsolete: boolean): number | null {
  if (value.length > MAX_LENGTH) return null;
  const line = unfold(value);
  if (!allowsObsolete) {
    const strict = STRICT_DATE.exec(line);
    if (strict === null || skipComments(line, strict[0].length) !== line.length) return null;
  }
  const parts = DATE.exec(withoutComments(line) ?? "");
  if (parts === null) return null;
  const [, weekday, day = "", month = "", year = "", hour = "", minute = "", second = "0", zone = ""] = parts;
  const fields = { year: fullYear(year), month: MONTHS.indexOf(month.toLowerCase()), day: Number(day) };
  const midnight = new Date(Date.UTC(fields.year, fields.month, fields.day));
  const isReal =
    fields.year >= 1900 &&
    fields.month !== -1 &&
    midnight.getUTCDate() === fields.day && // the 31st of April would be in May
    (weekday === undefined || DAYS[midnight.getUTCDay()] === weekday.toLowerCase()) &&
    Number(hour) < 24 &&
    Number(minute) < 60 &&
    Number(second) <= 60 &&
    !/^[+-]\d\d[6-9]/.test(zone);
  if (!isReal) return null;
  const seconds = (Number(hour) * 60 + Number(minute) - minutesOf(zone)) * 60 + Number(second);
  return midnight.getTime() + seconds * 1000;
}

/** Two and three digits are obsolete (RFC 5322 4.3). */
function fullYear(digits: string): number {
  const year = Number(digits);
  if (digits.length > 3) return year;
  return year + (digits.length === 2 && year < 50 ? 2000 : 1900);
}

function minutesOf(zone: string): number {
  const offset = /^([+-])(\d\d)(\d\d)$/.exec(zone);
  if (offset === null) return (ZONES[zone.toUpperCase()] ?? 0) * 60;
  const minutes = Number(offset[2]) * 60 + Number(offset[3]);
  return offset[1] === "-" ? -minutes : minutes;
}

/** A Date as it is written. */
export function formatDate(date: Date): string {
  return date.toUTCString().replace("GMT", "+0000");
}

/**
 * The server that an Authentication-Results names as its author, normalised as a domain; null if that cannot be read.
 * Comments before it, quotes around it and a version behind it are not part of it.
 */
export function authservId(value: string): string | null {
  const line = unfold(value.slice(0, MAX_LENGTH));
  const start = skipComments(line, 0);
  if (start === -1) return null;
  const id = /"((?:[^"\\]|\\.)*)"|([^\s;()"]+)/y;
  id.lastIndex = start;
  const found = id.exec(line);
  if (found === null) return null;
  const end = skipComments(line, id.lastIndex);
  // The version, a semicolon, or nothing follows; anything else is not of this syntax, and other programs may read it
  // differently.
  if (end === -1 || !/^(?:$|;|\d+\s*(?:$|[;(]))/.test(line.slice(end, end + 20))) return null;
  const name = found[1] === undefined ? found[2]! : found[1].replace(/\\(.)/g, "$1");
  return normalDomain(name.trim());
}
