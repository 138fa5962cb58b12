/**
 * Messages that hide a file from a filter: what they are, and the plain message that they vary. In each the file is called
 * `x.js`, and its content is harmless. Text stands for bytes, a character for each.
 */

export const KINDS = ["names", "part headers", "boundaries", "nesting", "encodings", "archives"] as const;
export type Kind = (typeof KINDS)[number];

export interface Evasion {
  readonly kind: Kind;
  /** What is odd about it; no two of a kind have the same. */
  readonly name: string;
  readonly eml: Buffer;
}

export const HARMLESS = "// nothing to see here\n";

/** An evasion for each row of a table. */
export function evasions(kind: Kind, rows: Iterable<readonly [name: string, eml: string]>): Evasion[] {
  return Array.from(rows, ([name, eml]) => ({ kind, name, eml: Buffer.from(eml, "latin1") }));
}

const ROOT = "From: a@example.com\r\nTo: b@example.com\r\nSubject: see below\r\nMIME-Version: 1.0\r\n";

/** A message with this Content-Type, or these fields in place of it, and this body. */
export function message(contentType: string, body: string): string {
  const field = contentType.includes(":") ? contentType : `Content-Type: ${contentType}`;
  return `${ROOT}${field}\r\n\r\n${body}`;
}

export const TEXT_PART = "Content-Type: text/plain\r\n\r\nsee below\r\n";
export const FILE_HEADER =
  "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=x.js\r\n";
export const FILE_PART = `${FILE_HEADER}\r\n${HARMLESS.trimEnd()}\r\n`;

/** A message of a text and a part with this header and content. */
export function withPart(header: string, content = HARMLESS): string {
  const end = content.endsWith("\r\n") ? "" : "\r\n";
  return message(
    "multipart/mixed; boundary=b",
    `--b\r\n${TEXT_PART}--b\r\n${header === "" ? "" : `${header}\r\n`}\r\n${content}${end}--b--\r\n`,
  );
}

/** A message with a file of this name in base64. */
export function withFile(name: string, content: Uint8Array, type = "application/octet-stream"): string {
  return withPart(
    `Content-Type: ${type}\r\nContent-Disposition: attachment; filename="${name}"\r\nContent-Transfer-Encoding: base64`,
    base64(content),
  );
}

export function base64(content: Uint8Array | string): string {
  const bytes = typeof content === "string" ? Buffer.from(content, "latin1") : Buffer.from(content);
  return bytes.toString("base64").replaceAll(/.{76}(?=.)/g, "$&\r\n");
}

/** The lines between `begin` and `end`, those included. */
export function uuencode(content: Uint8Array | string, begin = "begin 644 x.js"): string {
  const bytes = typeof content === "string" ? Buffer.from(content, "latin1") : Buffer.from(content);
  const digit = (value: number) => (value === 0 ? "`" : String.fromCharCode(32 + value));
  const lines: string[] = [begin];
  for (let at = 0; at < bytes.length; at += 45) {
    const line = bytes.subarray(at, at + 45);
    let text = digit(line.length);
    for (let n = 0; n < line.length; n += 3) {
      const [a = 0, b = 0, c = 0] = line.subarray(n, n + 3);
      text += digit(a >> 2) + digit(((a & 3) << 4) | (b >> 4)) + digit(((b & 15) << 2) | (c >> 6)) + digit(c & 63);
    }
    lines.push(text);
  }
  return [...lines, "`", "end", ""].join("\r\n");
}
