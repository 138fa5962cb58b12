/** Bodies that mail servers do not carry as they are, and parts written in an encoding in which they do. */
import type { Mime, Part } from "pmilter";
import { piecesOf } from "./pieces.ts";

const [LF, CR] = [0x0a, 0x0d];
/** Postfix breaks a longer line when it delivers (smtp_line_length_limit is 998), Sendmail one of more than 990 (L= of its mailers). */
const MAX_LINE_BYTES = 990;

/** Whether each mail server carries these bytes as they are: CRLF, no NUL, no line that is too long. @param signal see `piecesOf` */
export async function isCarried(bytes: Uint8Array, signal: AbortSignal): Promise<boolean> {
  for await (const piece of piecesOf(bytes, signal)) if (!areLines(piece)) return false;
  return true;
}

function areLines(bytes: Uint8Array): boolean {
  if (bytes.includes(0)) return false;
  for (let start = 0; start < bytes.length;) {
    const end = bytes.indexOf(LF, start);
    const cr = bytes.indexOf(CR, start);
    // The first CR of a line is the one at its end.
    if (end === -1 ? cr !== -1 : cr === -1 || cr !== end - 1) return false;
    if ((end === -1 ? bytes.length : cr) - start > MAX_LINE_BYTES) return false;
    start = end === -1 ? bytes.length : end + 1;
  }
  return true;
}

/** Encodes the parts whose bytes are not fit. Signed parts stay, and messages in a part, which have no encoding. */
export async function encodeParts(mime: Mime, isFit: (bytes: Uint8Array) => Promise<boolean>): Promise<void> {
  for (const part of mime.parts) {
    if (!isPlain(part) || part.isSealed || part.type.startsWith("message/") || (await isFit(part.bytes()))) continue;
    const bytes = new Uint8Array(part.bytes());
    part.setContent(bytes);
    // A part keeps its encoding where that has room for its bytes.
    if (!isPlain(part)) continue;
    part.setHeader("Content-Transfer-Encoding", "quoted-printable");
    part.setContent(bytes);
    if (part.parent === null && part.headers.get("MIME-Version") === undefined) part.setHeader("MIME-Version", "1.0");
  }
}

/**
 * What Sendmail puts behind a multipart that is not closed.
 * @param contentType of the message
 * @returns `""` for a message that needs nothing
 */
export function missingEnd(body: Uint8Array, contentType: string): string {
  if (!/^\s*multipart\//i.test(contentType)) return "";
  const [, quoted, token] = /;\s*boundary\s*=\s*(?:"([^"\\]+)"|([^\s;"]+))/i.exec(contentType) ?? [];
  const boundary = quoted ?? token;
  if (boundary === undefined) return "";
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
  const [begin, end] = [`--${boundary}`, `--${boundary}--`].map((line) => Buffer.from(line, "latin1"));
  return bytes.includes(begin!) && !bytes.includes(end!) ? `--${boundary}--\r\n` : "";
}

/** Its content stands in the message as it is. */
function isPlain({ encoding }: Part): boolean {
  return /^(?:7bit|8bit|binary)$/.test(encoding);
}
