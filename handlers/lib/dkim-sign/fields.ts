/** Which fields of a header are signed. */
import type { Header } from "pmilter";
import { isHeaderName } from "../options.ts";
import type { Field } from "./canonical.ts";

/** RFC 6376 5.4.1: what people see, and what programs act upon. Trace fields and Bcc are not in the list. */
const SIGNED = new Set([
  "from",
  "sender",
  "reply-to",
  "subject",
  "date",
  "message-id",
  "to",
  "cc",
  "mime-version",
  "content-type",
  "content-transfer-encoding",
  "content-disposition",
  "content-id",
  "content-description",
  "in-reply-to",
  "references",
  "resent-date",
  "resent-from",
  "resent-sender",
  "resent-to",
  "resent-cc",
  "resent-message-id",
  "list-id",
  "list-help",
  "list-unsubscribe",
  "list-unsubscribe-post",
  "list-subscribe",
  "list-post",
  "list-owner",
  "list-archive",
]);

/** Fields that a message has once: a second one would be shown in place of the first. No mail server adds one to a first. */
const ONCE = [
  "From",
  "Subject",
  "Date",
  "Message-ID",
  "To",
  "Cc",
  "Reply-To",
  "MIME-Version",
  "Content-Type",
  "Content-Transfer-Encoding",
];
/** Of those, what no mail server adds where there is none. */
const NEVER_ADDED = new Set(["From", "Subject"]);

/** Fields with addresses, as Sendmail has them (conf.c, H_FROM and H_RCPT). */
const ADDRESSES = /^(?:resent-)?(?:from|sender|reply-to|to|cc)$/;
/** Fields of one name; a message with more has none of them signed. */
const MAX_OF_A_NAME = 10;
/** Postfix breaks a longer line when it delivers (smtp_line_length_limit), Sendmail a line of more than 990. */
export const MAX_LINE_BYTES = 980;

export interface HeaderFields {
  readonly fields: readonly Field[];
  readonly isSigned: (field: Field) => boolean;
  /** Names that no further field may have. */
  readonly absent: readonly string[];
  /** Names of the list that are not signed, and why. */
  readonly leftOut: ReadonlyMap<string, string>;
}

/** A field as bytes, one character for each. */
export function fieldOf({ bytes, name }: Header): Field {
  const raw = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
  return { name, raw: raw.replaceAll("\n", "\r\n") };
}

export function isLong({ name, raw }: Field): boolean {
  if (name.length + 1 + raw.length <= MAX_LINE_BYTES) return false;
  return `${name}:${raw}`.split("\r\n").some((line) => line.length > MAX_LINE_BYTES);
}

/**
 * @param asWritten a field with addresses as the mail server writes it; null if that is not certain
 * @param more a name that is signed besides, in lower case
 */
export function headerFields(
  headers: Iterable<Header>,
  asWritten: (field: Field) => Field | null,
  more?: string,
): HeaderFields {
  const isListed = (name: string): boolean => SIGNED.has(name) || name === more;
  const leftOut = new Map<string, string>();
  const counts = new Map<string, number>();
  const fields = Array.from(headers, (header) => {
    const field = fieldOf(header);
    const name = field.name.toLowerCase();
    if (!isListed(name)) return field;
    const count = (counts.get(name) ?? 0) + 1;
    counts.set(name, count);
    if (count > MAX_OF_A_NAME) leftOut.set(name, `there are more than ${MAX_OF_A_NAME}`);
    else if (isLong(field)) leftOut.set(name, "a line of it is too long");
    // oxlint-disable-next-line no-control-regex
    else if (/\0|\r(?!\n)/.test(field.raw)) leftOut.set(name, "it has a control character");
    if (!ADDRESSES.test(name)) return field;
    const written = asWritten(field);
    if (written === null) leftOut.set(name, "the mail server rewrites it");
    return written ?? field;
  });
  const isSigned = ({ name }: Field): boolean => {
    const key = name.toLowerCase();
    return isHeaderName(name) && isListed(key) && !leftOut.has(key);
  };
  const absent = ONCE.filter((name) => {
    const key = name.toLowerCase();
    return !leftOut.has(key) && (counts.has(key) || NEVER_ADDED.has(name));
  });
  return { fields, isSigned, absent, leftOut };
}
