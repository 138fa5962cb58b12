/**
 * Fields with addresses as a mail server writes them when it delivers. Postfix writes a field anew in which it completes or
 * mends an address (cleanup, trivial-rewrite); Sendmail writes each of them anew (headers.c, commaize and crackaddr).
 */
import { relaxedValue } from "./canonical.ts";

const ATOM = "[A-Za-z0-9#$&'*+/=?^_`{|}~-]+";
const LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
const ADDRESS = `${ATOM}(?:\\.${ATOM})*@${LABEL}(?:\\.${LABEL})+`;
/** Bytes from 0x80 to 0x9f are marks of Sendmail's own. */
const CONTROL = "\\0-\\x1f\\x7f-\\x9f";
const QUOTED = `"(?:[^"\\\\${CONTROL}]|\\\\[ -~])*"`;
const WORDS = `[^"()<>:;\\\\,${CONTROL}]+`;
const COMMENT = `\\([^()"\\\\${CONTROL}]*\\)`;

/** An address, with a name before or a comment behind it. */
const BARE = new RegExp(`^(${ADDRESS})(?:( ?)(${COMMENT}))?$`);
const NAMED = new RegExp(`^(?:(${QUOTED}|${WORDS}?)( ?))?<${ADDRESS}>$`);
const NO_RECIPIENTS = /^"?[\w -]+"?: ?;$/;

/** A name with one of these is put in quotes by Sendmail (MustQuoteChars); the others are not in `WORDS`. */
const QUOTED_BY_SENDMAIL = /[@[\].']/;
/** Sendmail may break a longer one behind its name. */
const SHORT = 50;
/** Sendmail has bounds for the parts of an address. */
const MAX_LENGTH = 200;
/** Sendmail may fold a longer field. */
const MAX_FIELD = 60;

/** Whether Postfix delivers a field as it came: all that is in it are complete addresses. */
export function isKeptByPostfix(raw: string): boolean {
  const value = relaxedValue(raw);
  return NO_RECIPIENTS.test(value) || listed(value).every((each) => BARE.test(each) || NAMED.test(each));
}

/**
 * A field as Sendmail writes it, but for its folds.
 * @returns null if that is not certain
 */
export function writtenBySendmail(raw: string): string | null {
  const value = relaxedValue(raw);
  if (NO_RECIPIENTS.test(value)) return value;
  const written = listed(value).map(elementBySendmail);
  return written.some((each) => each === null) ? null : written.join(", ");
}

/** The same, where the white space counts: only a field that Sendmail has no reason to touch. */
export function isKeptBySendmail(name: string, raw: string): boolean {
  return name.length + raw.length <= MAX_FIELD && raw === ` ${writtenBySendmail(raw)}`;
}

function elementBySendmail(element: string): string | null {
  if (element.length > MAX_LENGTH) return null;
  const bare = BARE.exec(element);
  if (bare !== null) return bare[3] === undefined ? element : `${bare[1]} ${bare[3]}`;
  const named = NAMED.exec(element);
  if (named === null) return null;
  const [, name = "", space = ""] = named;
  const mustQuote = !name.startsWith('"') && QUOTED_BY_SENDMAIL.test(name);
  if (name !== "" && space === "" && (mustQuote || element.length > SHORT)) return null;
  return mustQuote ? `"${name}"${element.slice(name.length)}` : element;
}

/** The members of a list, without white space around them. */
function listed(value: string): string[] {
  const members: string[] = [];
  let start = 0;
  let depth = 0;
  let isQuoted = false;
  for (let at = 0; at < value.length; at++) {
    const char = value[at]!;
    if (char === "\\") at += 1;
    else if (isQuoted) isQuoted = char !== '"';
    else if (char === '"' && depth === 0) isQuoted = true;
    else if (char === "(") depth += 1;
    else if (char === ")") depth -= 1;
    else if (char === "," && depth === 0) {
      members.push(value.slice(start, at));
      start = at + 1;
    }
  }
  members.push(value.slice(start));
  return members.map((member) => member.trim());
}
