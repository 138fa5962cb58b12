/**
 * The changes of a filter to a message, checked where a handler asks for them and kept until `eom`. No change is sent
 * here.
 */
import { encodeText } from "../../protocol/bytes.ts";
import { MAX_REPLY_PAYLOAD as MAX_PACKET } from "../../protocol/constants.ts";
import { UsageError } from "../../usage-error.ts";
import type { HeaderChange } from "./header-list.ts";
import { writtenMailbox, withoutBrackets } from "../../mime/mailbox.ts";

export type RecipientChange =
  | { readonly kind: "add"; readonly address: string; readonly params: readonly string[] }
  | { readonly kind: "delete"; readonly address: string };

/** A body in place of the received one. */
export interface NewBody {
  /** An edited one is put together when it is first read as a whole. */
  readonly bytes: Uint8Array;
  /** The same in order, without being put together for that. No handler writes to them. */
  readonly pieces: readonly Uint8Array[];
}

/** The changes of a filter. `MessageView` writes the members. */
export class FilterChanges {
  readonly headers: HeaderChange[] = [];
  readonly recipients: RecipientChange[] = [];
  sender: { readonly address: string; readonly params: readonly string[] } | null = null;
  body: NewBody | null = null;
  quarantine: { readonly reason: string; readonly origin: Error } | null = null;
}

function wrong(message: string): never {
  throw new UsageError("PMILTER_ERR_ARGUMENT", message);
}

/** A value in an error's message. */
export function quote(value: unknown): string {
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** Both mail servers take longer packets, but no filter that uses libmilter sends them. */
function checkPacket(bytes: number, what: string): void {
  if (bytes <= MAX_PACKET) return;
  wrong(`${what} takes ${bytes} bytes, expected at most ${MAX_PACKET}: mail servers need not take more in one packet`);
}

/** Lone surrogates that stand for no byte: they are no text, and would be sent as question marks. */
const NO_TEXT = /[\ud800-\udc7f\udd00-\udfff]/u;

/** Sendmail cuts a longer name. */
const MAX_NAME_BYTES = 200;
/** Sendmail breaks a longer line of a header in two, its name included. */
const MAX_LINE_BYTES = 2040;
/** Postfix cuts a longer header, name, colon and white space included. */
export const MAX_HEADER_BYTES = 60_000;

/** A header name: printable ASCII without a colon (RFC 5322 3.6.8). */
export function checkHeaderName(name: unknown): string {
  if (typeof name !== "string" || !/^[!-9;-~]+$/.test(name)) {
    wrong(`a header name is printable ASCII without space and colon, got ${quote(name)}`);
  }
  if (name.length > MAX_NAME_BYTES) {
    wrong(
      `a header name has at most ${MAX_NAME_BYTES} bytes, this one ${name.length}: Sendmail would cut it: ${quote(name)}`,
    );
  }
  return name;
}

/**
 * A header value as it may be sent: lines separated by LF, each but the first beginning with white space. CRLF and a
 * lone CR count as LF; a line break that would begin another header is refused, and so is a value that a mail server
 * would change.
 *
 * @param before the value that is changed: an oddity that it has already comes from the message's sender, and must not
 *   make a handler fail that puts a word in front
 */
export function checkHeaderValue(value: unknown, before = ""): string {
  if (typeof value !== "string") wrong(`a header value is a string, got ${quote(value)}`);
  if (value.includes("\0")) wrong(`a header value cannot hold NUL: ${quote(value)}`);
  if (NO_TEXT.test(value)) wrong(`a header value cannot hold half a surrogate pair: ${quote(value)}`);
  const lines = value.includes("\r") ? value.replace(/\r\n?/g, "\n") : value;
  if (/\n(?![ \t])/.test(lines)) {
    wrong(
      `a line break in a header value must be followed by a space or tab, or it would end the header: ${quote(value)}`,
    );
  }
  if (hasBlankLine(lines) && !hasBlankLine(before)) {
    wrong(`a header value has no line of white space alone, which many programs take for the end: ${quote(value)}`);
  }
  return lines;
}

function hasBlankLine(value: string): boolean {
  return /\n[ \t]+(?:\n|$)/.test(value);
}

/**
 * Whether a header arrives whole.
 * @param raw the bytes behind the colon, white space included
 * @param before the same as it was
 */
export function checkHeaderSize(name: string, raw: string, before = ""): void {
  // Three bytes is the most that a UTF-16 unit takes: nearly all headers are too short to be counted.
  if ((name.length + 1 + raw.length) * 3 <= MAX_LINE_BYTES) return;
  const size = headerBytes(name, raw);
  if (size > MAX_HEADER_BYTES) {
    wrong(`a header has at most ${MAX_HEADER_BYTES} bytes, ${name} would have ${size}: Postfix would cut it`);
  }
  const longest = longestLine(name, raw);
  if (longest > MAX_LINE_BYTES && longestLine(name, before) <= MAX_LINE_BYTES) {
    wrong(
      `a line of a header has at most ${MAX_LINE_BYTES} bytes, ${name} would have one of ${longest}: Sendmail would break it; fold the value (a line break, then a space)`,
    );
  }
}

/** Bytes of a header, name and colon included. */
export function headerBytes(name: string, raw: string): number {
  return name.length + 1 + encodeText(raw).length;
}

function longestLine(name: string, raw: string): number {
  let longest = 0;
  for (const line of `${name}:${raw}`.split("\n")) longest = Math.max(longest, encodeText(line).length);
  return longest;
}

function given(address: unknown, what: string): string {
  if (typeof address !== "string") wrong(`${what} is a string, got ${quote(address)}`);
  return address;
}

/** An address to send: a single mailbox that both mail servers take as it is; without brackets in the result. */
function checkMailbox(address: string, what: string, isSendmail: boolean): string {
  const written = writtenMailbox(address);
  if ("problem" in written) {
    wrong(
      `${what} is one address, local@domain, with quotes where RFC 5321 needs them; ${written.problem}: ${quote(address)}`,
    );
  }
  // Bytes of that range are marks of its own to Sendmail: the address would be lost, and the message with it.
  if (isSendmail && Buffer.from(written.mailbox).some((byte) => byte >= 0x80 && byte < 0xa0)) {
    wrong(`${what} has a character that Sendmail does not take in addresses: ${quote(address)}`);
  }
  return written.mailbox;
}

/** A sender; "" for the null sender. */
export function checkSender(address: unknown, isSendmail: boolean): string {
  const text = given(address, "the sender");
  return withoutBrackets(text) === "" ? "" : checkMailbox(text, "the sender", isSendmail);
}

/** A recipient to add. */
export function checkRecipient(address: unknown, isSendmail: boolean): string {
  const mailbox = checkMailbox(given(address, "a recipient"), "a recipient", isSendmail);
  if (/^"?-/.test(mailbox)) wrong(`a recipient cannot begin with a hyphen, Postfix would return it: ${quote(address)}`);
  return mailbox;
}

/**
 * A recipient to delete: an address as it may be sent, or any spelling that a recipient has; without brackets.
 * @param isRecipient whether some recipient was received with that very text
 */
export function checkDeletion(address: unknown, isRecipient: (text: string) => boolean): string {
  const text = given(address, "a recipient");
  const written = writtenMailbox(text);
  if ("mailbox" in written) return written.mailbox;
  if (isRecipient(text)) return withoutBrackets(text);
  return wrong(`a recipient is one address, local@domain; ${written.problem}: ${quote(text)}`);
}

/** Values in the xtext of RFC 3461 4. */
const XTEXT = /^(?:[!-*,-<>-~]|\+[0-9A-F]{2})+$/;
const isXtext = (value: string): boolean => XTEXT.test(value) && value.length <= MAX_PARAM_BYTES;
const MAX_PARAM_BYTES = 500;

/**
 * The ESMTP arguments that both mail servers honour, by keyword (RFC 3461). Postfix leaves out any other argument in
 * silence, and an argument with a wrong value; for that Sendmail loses the recipient or its session.
 */
const RECIPIENT_PARAMS: Params = {
  NOTIFY: (value) => /^(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*)$/i.test(value),
  ORCPT: (value) => /^[A-Za-z0-9-]+;./.test(value) && isXtext(value.slice(value.indexOf(";") + 1)),
};
const SENDER_PARAMS: Params = {
  RET: (value) => /^(?:FULL|HDRS)$/i.test(value),
  ENVID: isXtext,
  // Of a single hop: a mail server finds out by itself how it announces a message to the next.
  SIZE: (value) => /^\d{1,20}$/.test(value),
  BODY: (value) => /^(?:7BIT|8BITMIME)$/i.test(value),
};
type Params = Readonly<Record<string, (value: string) => boolean>>;

export function checkRecipientParams(params: unknown): readonly string[] {
  return checkParams(params, "a recipient", RECIPIENT_PARAMS);
}

export function checkSenderParams(params: unknown): readonly string[] {
  return checkParams(params, "the sender", SENDER_PARAMS);
}

function checkParams(params: unknown, what: string, known: Params): readonly string[] {
  if (params === undefined) return [];
  if (!Array.isArray(params)) {
    wrong(`the ESMTP arguments of ${what} are a list of words such as "NOTIFY=NEVER", got ${quote(params)}`);
  }
  const seen = new Set<string>();
  for (const param of params as unknown[]) {
    const [, keyword = "", value = ""] = typeof param === "string" ? (/^([A-Za-z]+)=(.+)$/.exec(param) ?? []) : [];
    const name = keyword.toUpperCase();
    if (!Object.hasOwn(known, name) || !known[name]!(value) || seen.has(name)) {
      const expected = Object.keys(known).join("=, ");
      wrong(
        `an ESMTP argument of ${what} is one of ${expected}=, each once, with a value as in RFC 3461, got ${quote(param)}`,
      );
    }
    seen.add(name);
  }
  return [...(params as string[])];
}

/** An index of a header: a whole number from `least`. */
export function checkIndex(index: unknown, least: number): number {
  if (typeof index !== "number" || !Number.isSafeInteger(index) || index < least) {
    wrong(`a header index is a whole number from ${least}, got ${quote(index)}`);
  }
  return index;
}

/**
 * Text of a single line: no control characters (C1 among them), no line separators of Unicode, no bytes that are no
 * UTF-8.
 */
const NO_LINE = /[\p{Cc}\p{Cs}\u2028\u2029]/u;

export function checkReason(reason: unknown): string {
  if (typeof reason !== "string" || reason === "" || NO_LINE.test(reason)) {
    wrong(`the reason of a quarantine is one line of text, without control characters, got ${quote(reason)}`);
  }
  checkPacket(1 + Buffer.byteLength(reason) + 1, "the reason of a quarantine");
  return reason;
}

/**
 * A body to send, copied. Line ends are CRLF: in text LF, CRLF and a lone CR each end a line; in bytes only LF is
 * completed, as the mail servers would.
 */
export function checkBody(body: unknown): Uint8Array {
  if (typeof body === "string") {
    if (NO_TEXT.test(body)) wrong("a body of text cannot hold half a surrogate pair");
    return encodeText(body.replace(/\r\n?|\n/g, "\r\n"));
  }
  if (body instanceof Uint8Array) return withLineEnds(body);
  return wrong(`a body is a string or a Uint8Array, got ${quote(body)}`);
}

const [LF, CR] = [0x0a, 0x0d];

/** A copy with CRLF in place of each LF that stands alone. */
export function withLineEnds(body: Uint8Array): Uint8Array {
  let bare = 0;
  for (let at = body.indexOf(LF); at !== -1; at = body.indexOf(LF, at + 1)) if (body[at - 1] !== CR) bare += 1;
  if (bare === 0) return Buffer.from(body);
  const whole = Buffer.allocUnsafe(body.length + bare);
  let length = 0;
  let start = 0;
  for (let at = body.indexOf(LF); at !== -1; at = body.indexOf(LF, at + 1)) {
    if (body[at - 1] === CR) continue;
    whole.set(body.subarray(start, at), length);
    length += at - start;
    whole[length++] = CR;
    start = at;
  }
  whole.set(body.subarray(start), length);
  return whole;
}
