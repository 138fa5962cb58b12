/**
 * What one filter changes in one message, checked where it is asked for and kept until `eom`. No change is sent here.
 */
import { encodeText } from "../protocol/bytes.ts";
import { UsageError } from "./errors.ts";
import type { HeaderChange } from "./header-list.ts";

export type RecipientChange =
  | { readonly kind: "add"; readonly address: string; readonly params: readonly string[] }
  | { readonly kind: "delete"; readonly address: string };

/** The changes of one filter. The members are written by `MessageView`. */
export class FilterChanges {
  readonly headers: HeaderChange[] = [];
  readonly recipients: RecipientChange[] = [];
  sender: { readonly address: string; readonly params: readonly string[] } | null = null;
  body: Uint8Array | null = null;
  quarantine: { readonly reason: string; readonly origin: Error } | null = null;

  /** How many there are, for the log. */
  get count(): number {
    const single = [this.sender, this.body, this.quarantine].filter((change) => change !== null);
    return this.headers.length + this.recipients.length + single.length;
  }
}

function wrong(message: string): never {
  throw new UsageError("PMILTER_ERR_ARGUMENT", message);
}

function quote(value: unknown): string {
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** A header name: printable ASCII without a colon (RFC 5322 3.6.8). */
export function checkHeaderName(name: unknown): void {
  if (typeof name !== "string" || !/^[!-9;-~]+$/.test(name)) {
    wrong(`a header name is printable ASCII without space and colon, got ${quote(name)}`);
  }
}

/**
 * A header value as it may be sent: lines separated by LF, each but the first beginning with white space.
 * CRLF and a lone CR count as LF; a line break that would begin another header is refused.
 */
export function checkHeaderValue(value: unknown): string {
  if (typeof value !== "string") wrong(`a header value is a string, got ${quote(value)}`);
  if (value.includes("\0")) wrong(`a header value cannot hold NUL: ${quote(value)}`);
  const lines = value.includes("\r") ? value.replace(/\r\n?/g, "\n") : value;
  if (/\n(?![ \t])/.test(lines)) {
    wrong(
      `a line break in a header value must be followed by a space or tab, or it would end the header: ${quote(value)}`,
    );
  }
  return lines;
}

// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f]/;

/** An address, brackets optional; without them in the result. */
export function checkAddress(address: unknown, what: string, mayBeEmpty: boolean): string {
  if (typeof address !== "string") wrong(`${what} is a string, got ${quote(address)}`);
  const bare = address.startsWith("<") && address.endsWith(">") ? address.slice(1, -1) : address;
  if (CONTROL.test(bare) || /[<>]/.test(bare))
    wrong(`${what} is one address without control characters, got ${quote(address)}`);
  if (bare === "" && !mayBeEmpty) wrong(`${what} cannot be empty`);
  return bare;
}

/** ESMTP arguments, each a word. */
export function checkParams(params: unknown, what: string): readonly string[] {
  if (params === undefined) return [];
  if (
    !Array.isArray(params) ||
    !params.every((param) => typeof param === "string" && /^[!-~\u0080-\uffff]+$/u.test(param))
  ) {
    wrong(
      `the ESMTP arguments of ${what} are a list of words such as "NOTIFY=NEVER", got ${quote(JSON.stringify(params))}`,
    );
  }
  return params;
}

/** An index of a header: a whole number from `least`. */
export function checkIndex(index: unknown, least: number): number {
  if (typeof index !== "number" || !Number.isSafeInteger(index) || index < least) {
    wrong(`a header index is a whole number from ${least}, got ${quote(index)}`);
  }
  return index;
}

export function checkReason(reason: unknown): string {
  if (typeof reason !== "string" || reason === "" || CONTROL.test(reason)) {
    wrong(`the reason of a quarantine is one line of text, got ${quote(reason)}`);
  }
  return reason;
}

/** A body to send: text as UTF-8 with each LF as CRLF, bytes as they are, copied. */
export function checkBody(body: unknown): Uint8Array {
  if (typeof body === "string") return encodeText(body.replace(/\r?\n/g, "\r\n"));
  if (body instanceof Uint8Array) return Buffer.from(body);
  return wrong(`a body is a string or a Uint8Array, got ${quote(body)}`);
}
