/** The fields of a header in bytes (RFC 5322 2.2), as mail programs read them when they are not as they should be. */

import type { Flaw } from "./flaws.ts";

/** A field as it stands in the message: a character for each byte, folds included. */
export interface Field {
  readonly name: string;
  readonly value: string;
  /** Its bytes, line end included; both 0 for the header of the message itself, which is not in the body. */
  readonly start: number;
  readonly end: number;
}

export interface Header {
  readonly fields: readonly Field[];
  /** Where the content begins. */
  readonly start: number;
}

const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const TAB = 0x09;

/** Of a header that is longer, only fields that say what the part is are read further on. */
const MAX_HEADER_BYTES = 128 * 1024;
const MAX_FIELDS = 1000;
/** Of so many fields. */
const MAX_LATE_FIELDS = 20;
/** A field's name is looked for in so much of its line. */
const MAX_NAME_BYTES = 1000;

/**
 * Reads the header of a part. A line that is no field is left out, as most mail programs do; some take it for the first of
 * the content.
 * @param flaws takes what is wrong
 */
export function readHeader(bytes: Buffer, head: number, end: number, flaws: Set<Flaw>): Header {
  const lines: { start: number; end: number }[] = [];
  let at = head;
  let isOpen = false;
  let isEnded = false;
  while (at < end) {
    const first = bytes[at];
    const lineEnd = endOfLine(bytes, at, end);
    if (first === LF || (first === CR && bytes[at + 1] === LF)) {
      at = lineEnd;
      isEnded = true;
      break;
    }
    if (at - head >= MAX_HEADER_BYTES || lines.length >= MAX_FIELDS) break;
    if (first === SPACE || first === TAB) {
      if (isOpen) lines.at(-1)!.end = lineEnd;
      else flaws.add(NO_FIELD);
    } else {
      isOpen = isField(bytes, at, lineEnd);
      if (isOpen) lines.push({ start: at, end: lineEnd });
      else flaws.add(NO_FIELD);
    }
    at = lineEnd;
  }
  if (at < end && !isEnded) {
    flaws.add("a header that is too long");
    at = takeLateFields(bytes, at, end, lines);
  }
  const fields = lines.map((line) => fieldOf(bytes, line));
  for (const field of fields) checkField(field, flaws);
  return { fields, start: at };
}

const NO_FIELD = "a header with a line that is no field";

function isField(bytes: Buffer, at: number, lineEnd: number): boolean {
  return /^[!-9;-~]+[ \t]*:/.test(bytes.toString("latin1", at, Math.min(lineEnd, at + MAX_NAME_BYTES)));
}

function fieldOf(bytes: Buffer, { start, end }: { readonly start: number; readonly end: number }): Field {
  const text = bytes.toString("latin1", start, Math.min(end, start + MAX_HEADER_BYTES));
  const colon = text.indexOf(":");
  return { name: text.slice(0, colon).trimEnd(), value: text.slice(colon + 1).trim(), start, end };
}

/** Bytes for which mail programs differ in where a field ends, in fields that say what a part is. */
export function checkField({ name, value, start, end }: Field, flaws: Set<Flaw>): void {
  if (/\r(?!\n)/.test(value)) flaws.add("a header with a carriage return within a line");
  if (!/^content-/i.test(name)) return;
  if (value.includes("\0")) flaws.add("a header with a NUL");
  if (/\n[ \t]+\r?\n/.test(value)) flaws.add("a header with a line of white space");
  if (end - start > MAX_HEADER_BYTES) flaws.add("a header that is too long");
}

/** The fields of the rest of a header that say what the part is. @returns where the content begins */
function takeLateFields(bytes: Buffer, at: number, end: number, lines: { start: number; end: number }[]): number {
  const stop = emptyLine(bytes, at, end);
  const rest = bytes.toString("latin1", at, stop);
  let late = 0;
  for (const { index } of rest.matchAll(/(?<=^|\n)content-[!-9;-~]+[ \t]*:.*(?:\n[ \t].*)*/gi)) {
    if (++late > MAX_LATE_FIELDS) break;
    let lineEnd = endOfLine(bytes, at + index, end);
    while (lineEnd < stop && (bytes[lineEnd] === SPACE || bytes[lineEnd] === TAB)) {
      lineEnd = endOfLine(bytes, lineEnd, end);
    }
    lines.push({ start: at + index, end: lineEnd });
  }
  return stop < end ? endOfLine(bytes, stop, end) : end;
}

/** Where the first empty line behind `at` begins; `end` if there is none. */
function emptyLine(bytes: Buffer, at: number, end: number): number {
  const range = bytes.subarray(at, end);
  const found = [range.indexOf("\n\r\n"), range.indexOf("\n\n")].filter((index) => index !== -1);
  return found.length === 0 ? end : at + Math.min(...found) + 1;
}

/** Where the line at `at` ends, its line end included. */
export function endOfLine(bytes: Buffer, at: number, end: number): number {
  const lf = bytes.indexOf(LF, at);
  return lf === -1 || lf >= end ? end : lf + 1;
}
