/**
 * Parameters of a Content-Type or Content-Disposition, written into the value that is there: all others stay as they are,
 * comments and folds included (RFC 2045 5.1, RFC 2231).
 */
import { UsageError } from "../usage-error.ts";

/** A longer line of a header is folded (RFC 5322 2.1.1). */
const LINE = 76;
/** Characters of a piece of a long value (RFC 2231 3), percent signs included. */
const PIECE = 50;
const MAX_NAME_BYTES = 1000;

/**
 * @param value as it stands in the header, lines separated by LF
 * @param changes a parameter's name in lower case, and its new value; null takes it away
 */
export function withParameters(value: string, changes: Readonly<Record<string, string | null>>): string {
  const [main = "", ...parameters] = segmentsOf(value);
  const kept = parameters.filter((parameter) => {
    const name = /^(?:\s|\([^)]*\))*([^\s=*(]*)/.exec(parameter)?.[1] ?? "";
    return name !== "" && !(name.toLowerCase() in changes);
  });
  const added = Object.entries(changes).flatMap(([name, text]) => (text === null ? [] : written(name, text)));
  let result = [main.trimEnd(), ...kept.map((parameter) => parameter.trimEnd())].join(";");
  for (const parameter of added) {
    const line = result.slice(result.lastIndexOf("\n") + 1);
    // The longest name of a field that has parameters.
    const used = line.length + (line.length === result.length ? "Content-Disposition: ".length : 0);
    result += used + parameter.length + 3 > LINE ? `;\n ${parameter}` : `; ${parameter}`;
  }
  return result;
}

/** What is between the semicolons; a quoted string or a comment that does not end is ended. */
function segmentsOf(value: string): string[] {
  const segments = [""];
  let isQuoted = false;
  let comments = 0;
  for (let at = 0; at < value.length; at++) {
    const character = value[at]!;
    if (character === ";" && !isQuoted && comments === 0) {
      segments.push("");
      continue;
    }
    if (character === '"' && comments === 0) isQuoted = !isQuoted;
    else if (!isQuoted && character === "(") comments += 1;
    else if (!isQuoted && character === ")" && comments > 0) comments -= 1;
    segments[segments.length - 1] += character;
    if (character === "\\" && (isQuoted || comments > 0) && at + 1 < value.length) {
      segments[segments.length - 1] += value[++at]!;
    }
  }
  if (isQuoted) segments[segments.length - 1] += '"';
  segments[segments.length - 1] += ")".repeat(comments);
  return segments;
}

/** A parameter as it is written: as it is or quoted where that is enough, else in pieces (RFC 2231). */
function written(name: string, value: string): string[] {
  if (/^[!#$&+.0-9A-Z^_`a-z{|}~-]{1,60}$/.test(value)) return [`${name}=${value}`];
  if (/^[ -~]{0,60}$/.test(value)) return [`${name}="${value.replaceAll(/["\\]/g, String.raw`\$&`)}"`];
  const pieces = [""];
  for (const character of value) {
    const piece = /^[A-Za-z0-9._-]$/.test(character) ? character : percent(character);
    if (pieces.at(-1)!.length + piece.length > PIECE) pieces.push("");
    pieces[pieces.length - 1] += piece;
  }
  if (pieces.length === 1) return [`${name}*=utf-8''${pieces[0]!}`];
  return pieces.map((piece, index) => `${name}*${index}*=${index === 0 ? "utf-8''" : ""}${piece}`);
}

function percent(character: string): string {
  return Buffer.from(character, "utf8").toString("hex").toUpperCase().replaceAll(/../g, "%$&");
}

/** A file name as an author gives it. */
export function checkFilename(filename: unknown): string {
  const isText = typeof filename === "string" && filename.isWellFormed();
  // oxlint-disable-next-line no-control-regex
  if (!isText || filename.trim() === "" || /[\0-\x1f\x7f-\x9f]/.test(filename)) {
    throw new UsageError("PMILTER_ERR_ARGUMENT", "a file name is text without control characters, and not empty");
  }
  if (Buffer.byteLength(filename) > MAX_NAME_BYTES) {
    throw new UsageError("PMILTER_ERR_ARGUMENT", `a file name has at most ${MAX_NAME_BYTES} bytes in UTF-8`);
  }
  return filename;
}

/** A content type as an author gives it: in lower case, without parameters, of a part that is no multipart. */
export function checkType(type: unknown): string {
  if (typeof type !== "string" || !/^[\w!#$&^.+-]+\/[\w!#$&^.+-]+$/.test(type) || /^multipart\//i.test(type)) {
    throw new UsageError(
      "PMILTER_ERR_ARGUMENT",
      `a type is one such as "application/pdf", without parameters and no multipart, got ${show(type)}`,
    );
  }
  return type.toLowerCase();
}

function show(value: unknown): string {
  const text = typeof value === "string" ? JSON.stringify(value) : typeof value;
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
