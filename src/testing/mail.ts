/**
 * A message as a file (`.eml`) to header fields and body, and back. It keeps every byte that the mail server would
 * keep; it decodes no MIME and judges no content.
 */
import { decodeText, encodeText } from "../protocol/bytes.ts";

export interface HeaderField {
  /** As written. */
  readonly name: string;
  /** All that follows the colon, leading space included; continuation lines after LF, with their white space. */
  readonly value: string;
}

export interface MailContent {
  readonly headers: readonly HeaderField[];
  /** With CRLF line ends; empty if the message has no body. */
  readonly body: Uint8Array;
}

/**
 * Reads a message with LF or CRLF line ends, as a mail server would take it in: a "From " line of an mbox before the
 * header is dropped, a line that is no header field ends the header (with it the body begins, unless it is empty), a
 * body line without an end gets one. NUL in a header, which the wire cannot carry, becomes a space; white space
 * between a name and its colon goes.
 *
 * @param eml text, or bytes in any encoding
 */
export function parseMail(eml: string | Uint8Array): MailContent {
  const bytes = typeof eml === "string" ? encodeText(eml) : eml;
  const headers: { name: string; value: string }[] = [];
  let at = 0;
  let isFirst = true;
  while (at < bytes.length) {
    const lineEnd = bytes.indexOf(LF, at);
    const next = lineEnd === -1 ? bytes.length : lineEnd + 1;
    const line = headerText(bytes, at, lineEnd === -1 ? bytes.length : lineEnd);
    if (line === "") {
      at = next;
      break;
    }
    const isMbox = isFirst && line.startsWith("From ");
    isFirst = false;
    const last = headers.at(-1);
    if (isMbox) {
      at = next;
    } else if (/^[ \t]/.test(line) && last !== undefined) {
      last.value += `\n${line}`;
      at = next;
    } else {
      const field = /^([!-9;-~]+)[ \t]*:(.*)$/s.exec(line);
      if (field === null) break;
      headers.push({ name: field[1]!, value: field[2]! });
      at = next;
    }
  }
  return { headers, body: withCrlf(bytes.subarray(at)) };
}

const LF = 0x0a;

function headerText(bytes: Uint8Array, start: number, end: number): string {
  const last = end > start && bytes[end - 1] === 0x0d ? end - 1 : end;
  return decodeText(bytes, start, last).replaceAll("\0", " ");
}

/** Each line end as CRLF, also after the last line; a lone CR stays. */
export function withCrlf(body: Uint8Array): Uint8Array {
  if (body.length === 0) return body;
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("latin1");
  const lines = text.replace(/\r?\n/g, "\r\n");
  return Buffer.from(lines.endsWith("\r\n") ? lines : `${lines}\r\n`, "latin1");
}

/** The inverse of {@link parseMail}: the message as bytes, line ends CRLF. */
export function formatMail(mail: MailContent): Uint8Array {
  const lines = mail.headers.map(({ name, value }) => `${name}:${value.replaceAll("\n", "\r\n")}\r\n`);
  return Buffer.concat([encodeText(`${lines.join("")}\r\n`), mail.body]);
}

/** The addresses of the first header field of that name, without brackets, in order; none if there is no such field. */
export function addressesOf(headers: readonly HeaderField[], name: string): string[] {
  const field = headers.find((header) => header.name.toLowerCase() === name.toLowerCase());
  // Quoted names and comments may hold anything: they go before the rest is cut at the commas.
  const bare = (field?.value ?? "").replaceAll(/"(?:\\.|[^"\\])*"(?!@)|\((?:\\.|[^()\\])*\)/g, " ");
  const addresses: string[] = [];
  for (const part of bare.split(/[,;]/)) {
    const bracketed = /<([^<>]*)>/.exec(part)?.[1];
    const address = (bracketed ?? part.split(":").at(-1)!).trim();
    if (address.includes("@") && !/\s/.test(address)) addresses.push(address);
  }
  return addresses;
}
