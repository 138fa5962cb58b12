/**
 * SMTP reply texts of `reject(text)` and `tempfail(text)`: checked where a handler writes them, and changed into a form that
 * both mail servers take (docs/protocol.md, "Reply texts"; RFC 5321 4.2, RFC 3463).
 */

/**
 * An SMTP reply in its parts.
 * @example const codes = ({ code, enhanced }: ReplyText) => `${code} ${enhanced}`;
 */
export interface ReplyText {
  /** The three-digit code, first digit 4 or 5. */
  readonly code: number;
  /** The enhanced code, such as `5.7.1`. */
  readonly enhanced: string;
  /** The text lines, without codes, as the SMTP client will see them. */
  readonly lines: readonly string[];
}

/** RFC 5321 4.5.3.1.5: 512 bytes a reply line, code and CRLF included. */
const MAX_LINE_BYTES = 510;
/** libmilter's limit on lines of a reply (`MAXREPLIES`). */
const MAX_LINES = 32;

/** The text for a handler that gives codes and no text: some mail servers do not take a line without text. */
const DEFAULT_LINE = { 4: "Service unavailable, try again later", 5: "Command rejected" } as const;
const DEFAULT_ENHANCED = { 4: "4.7.0", 5: "5.7.1" } as const;

// Everything below space but for LF, which separates lines; DEL; the C1 controls; Unicode's own line ends.
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029]/;

/** Lone surrogates that stand for no byte (see `bytes.ts`). */
const HALF_PAIR = /[\ud800-\udc7f\udd00-\udfff]/u;

/**
 * Reads a reply text: a code, an optional enhanced code, text; further lines after `\n` or `\r\n`.
 *
 * @param given as given to `reject()` or `tempfail()`
 * @param digit the class of the verdict: 5 for reject, 4 for tempfail
 * @throws RangeError with the expected form; the caller adds the place
 */
export function parseReplyText(given: string, digit: 4 | 5): ReplyText {
  const text = given.replaceAll("\r\n", "\n");
  const seen = () => `got ${JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)}`;
  if (CONTROL.test(text)) {
    throw new RangeError(
      `the reply text has a control character; only \\n and \\r\\n are allowed, between lines: ${seen()}`,
    );
  }
  if (HALF_PAIR.test(text)) throw new RangeError(`the reply text has half of a surrogate pair: ${seen()}`);
  const match = /^(\d{3})(?=[ \n]|$)/.exec(text);
  if (match === null) {
    throw new RangeError(
      `the reply text must start with a three-digit code, such as "${digit}50 ${digit}.7.1 text": ${seen()}`,
    );
  }
  const code = Number(match[1]);
  if (Math.trunc(code / 100) !== digit) {
    const verdict = digit === 5 ? "reject" : "tempfail";
    const hint = code === 421 ? "; 421 belongs to tempfail" : "";
    throw new RangeError(`${verdict} takes a code that starts with ${digit}${hint}: ${seen()}`);
  }
  let rest = text.slice(3).replace(/^ /, "");
  let enhanced: string = DEFAULT_ENHANCED[digit];
  const status = /^(\d)\.(\d{1,3})\.(\d{1,3})(?=[ \n]|$)/.exec(rest);
  if (status !== null) {
    if (Number(status[1]) !== digit) {
      throw new RangeError(`the enhanced code ${status[0]} is of another class than ${code}: ${seen()}`);
    }
    enhanced = status[0];
    rest = rest.slice(enhanced.length).replace(/^ /, "");
  }
  if (rest === "") rest = DEFAULT_LINE[digit];
  const room = MAX_LINE_BYTES - `${code}-${enhanced} `.length;
  // A final newline ends the last line, it does not begin another.
  const lines = rest
    .replace(/\n$/, "")
    .split("\n")
    .flatMap((line) => wrap(line, room));
  if (lines.length > MAX_LINES) {
    throw new RangeError(`a reply has at most ${MAX_LINES} lines, this one has ${lines.length}`);
  }
  return { code, enhanced, lines };
}

/** The payload text of a REPLYCODE packet: lines separated by CRLF, codes on each, `%` doubled. */
export function formatReplyText(reply: ReplyText): string {
  const last = reply.lines.length - 1;
  return reply.lines
    .map((line, index) => `${reply.code}${index < last ? "-" : " "}${reply.enhanced} ${line}`)
    .join("\r\n")
    .replaceAll("%", "%%");
}

/** Cuts a line to pieces of at most `room` bytes, at spaces where there are any. */
function wrap(line: string, room: number): string[] {
  const pieces: string[] = [];
  let rest = line;
  while (Buffer.byteLength(rest) > room) {
    const fitting = charactersThatFit(rest, room);
    const space = rest.lastIndexOf(" ", fitting);
    const cut = space > 0 ? space : fitting;
    pieces.push(rest.slice(0, cut));
    rest = rest.slice(cut).replace(/^ /, "");
  }
  pieces.push(rest);
  return pieces;
}

/** The length, in UTF-16 units, of the longest beginning that takes at most `room` bytes and splits no character. */
function charactersThatFit(text: string, room: number): number {
  let units = 0;
  let bytes = 0;
  for (const character of text) {
    bytes += Buffer.byteLength(character);
    if (bytes > room) break;
    units += character.length;
  }
  return units;
}
