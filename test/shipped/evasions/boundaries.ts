/** Boundaries and delimiters that a filter may see elsewhere than a mail program. */
import { type Evasion, evasions, FILE_PART, message, TEXT_PART } from "./evasion.ts";

/** Parts behind delimiters `--boundary`. */
function parts(boundary: string): string {
  return `--${boundary}\r\n${TEXT_PART}--${boundary}\r\n${FILE_PART}--${boundary}--\r\n`;
}

const long = (length: number) => "b".repeat(length);

/** How the boundary is given, and what it is. */
const GIVEN: readonly (readonly [string, parameter: string, boundary: string])[] = [
  ["in quotes", 'boundary="b"', "b"],
  ["in single quotes", "boundary='b'", "'b'"],
  ["in single quotes that do not count", "boundary='b'", "b"],
  ["escaped", 'boundary="\\b"', "b"],
  ["an escaped quote", 'boundary="a\\"b"', 'a"b'],
  ["an escaped backslash", 'boundary="a\\\\b"', "a\\b"],
  ["a backslash that stays", 'boundary="a\\b"', "a\\b"],
  ["a quote that does not end", 'boundary="b', "b"],
  ["spaces around =", "boundary = b", "b"],
  ["folded at =", "boundary=\r\n b", "b"],
  ["folded inside quotes", 'boundary="a\r\n b"', "a b"],
  ["folded inside quotes, the fold dropped", 'boundary="a\r\n b"', "ab"],
  ["folded inside quotes by a tab", 'boundary="a\r\n\tb"', "a\tb"],
  ["a fold at the end of quotes", 'boundary="b\r\n "', "b"],
  ["a fold at the beginning of quotes", 'boundary="\r\n b"', "b"],
  ["a space inside", 'boundary="a b"', "a b"],
  ["a space inside, without quotes", "boundary=a b", "a b"],
  ["a space inside, without quotes, cut", "boundary=a b", "a"],
  ["a space at the end", 'boundary="b "', "b"],
  ["a space at the end that counts", 'boundary="b "', "b "],
  ["a space at the beginning", 'boundary=" b"', " b"],
  ["a space at the beginning that does not count", 'boundary=" b"', "b"],
  ["a comment behind it", "boundary=b(c)", "b"],
  ["a comment behind it that counts", "boundary=b(c)", "b(c)"],
  ["a comment behind it, with space", "boundary=b (c)", "b"],
  ["a comment around =", "boundary(c)=(d)b", "b"],
  ["a comment in front of it", "(c); boundary=b", "b"],
  ["a semicolon in quotes", 'boundary="a;b"', "a;b"],
  ["a semicolon in quotes, cut", 'boundary="a;b"', "a"],
  ["specials without quotes", "boundary=a=b/c?d:e", "a=b/c?d:e"],
  ["brackets without quotes", "boundary=<b>", "<b>"],
  ["a dash at the beginning", "boundary=-b", "-b"],
  ["dashes at the beginning", "boundary=--b", "--b"],
  ["dashes at the beginning that do not count", "boundary=--b", "b"],
  ["dashes at the end", "boundary=b--", "b--"],
  ["nothing but dashes", "boundary=--", "--"],
  ["70 characters", `boundary=${long(70)}`, long(70)],
  ["71 characters", `boundary=${long(71)}`, long(71)],
  ["200 characters", `boundary=${long(200)}`, long(200)],
  ["1,000 characters", `boundary=${long(1000)}`, long(1000)],
  ["3,000 characters", `boundary="${long(3000)}"`, long(3000)],
  ["10,000 characters", `boundary="${long(10_000)}"`, long(10_000)],
  ["70 characters count", `boundary=${long(100)}`, long(70)],
  ["empty", 'boundary=""', ""],
  ["empty, without quotes", "boundary=", ""],
  ["missing", "x=y", ""],
  ["missing, but in use", "x=y", "b"],
  ["bytes beyond ASCII", 'boundary="b\xe4"', "b\xe4"],
  ["UTF-8", 'boundary="b\xc3\xa4"', "b\xc3\xa4"],
  ["NUL", 'boundary="a\0b"', "a\0b"],
  ["NUL, cut", 'boundary="a\0b"', "a"],
  ["a control character", 'boundary="a\x01b"', "a\x01b"],
  ["RFC 2231", "boundary*=utf-8''b", "b"],
  ["RFC 2231, escaped", "boundary*=utf-8''%62", "b"],
  ["RFC 2231 and plain, the plain one counts", "boundary*=utf-8''c; boundary=b", "b"],
  ["RFC 2231 and plain, RFC 2231 counts", "boundary*=utf-8''b; boundary=c", "b"],
  ["pieces", "boundary*0=a; boundary*1=b", "ab"],
  ["pieces and plain, the plain one counts", "boundary*0=a; boundary*1=b; boundary=c", "c"],
  ["pieces and plain, the pieces count", "boundary*0=a; boundary*1=b; boundary=c", "ab"],
  ["an encoded word", "boundary==?utf-8?Q?b?=", "b"],
  ["an encoded word as it stands", 'boundary="=?utf-8?Q?b?="', "=?utf-8?Q?b?="],
  ["an encoded word in quotes", 'boundary="=?utf-8?Q?b?="', "b"],
  ["escapes of URLs as they stand", 'boundary="%62"', "%62"],
  ["twice, the first one counts", "boundary=b; boundary=c", "b"],
  ["twice, the last one counts", "boundary=c; boundary=b", "b"],
  ["twice, in two cases, the last one counts", "boundary=c; BOUNDARY=b", "b"],
  ["another case in use", "boundary=b", "B"],
  ["no semicolon behind it", "boundary=b charset=utf-8", "b"],
  ["no semicolon in front of it", "charset=utf-8 boundary=b", "b"],
  ["a key that ends so", "x-boundary=c; boundary=b", "b"],
  ["behind a key that ends so", "boundary=b; x-boundary=c", "b"],
  ["a value with its key", 'x="boundary=c"; boundary=b', "b"],
  ["quotes twice", 'boundary=""b""', "b"],
  ["two quoted strings", 'boundary="a""b"', "ab"],
  ["a tab behind it", "boundary=b\t", "b"],
  ["a CR behind it", "boundary=b\r", "b"],
  ["a comma behind it", "boundary=b,", "b"],
];

const T = TEXT_PART;
const F = FILE_PART;

/** What the body has; the boundary is `b`. */
const BODIES: readonly (readonly [string, string])[] = [
  ["the file in the first part", `--b\r\n${F}--b\r\n${T}--b--\r\n`],
  ["nothing but the file", `--b\r\n${F}--b--\r\n`],
  ["no line end behind the last delimiter", `--b\r\n${T}--b\r\n${F}--b--`],
  ["no last delimiter", `--b\r\n${T}--b\r\n${F}`],
  ["no last delimiter, an ordinary one", `--b\r\n${T}--b\r\n${F}--b\r\n`],
  ["the last delimiter first", `--b--\r\n--b\r\n${T}--b\r\n${F}--b--\r\n`],
  ["the last delimiter first, behind text", `preamble\r\n--b--\r\nmore\r\n--b\r\n${F}--b--\r\n`],
  ["the last delimiter before the first part", `--b--\r\n${F}--b--\r\n`],
  ["behind the last delimiter", `--b\r\n${T}--b--\r\n--b\r\n${F}--b--\r\n`],
  ["behind the last delimiter, text between", `--b\r\n${T}--b--\r\nepilogue\r\n--b\r\n${F}--b--\r\n`],
  ["behind a last delimiter with more dashes", `--b\r\n${T}--b---\r\n${F}--b--\r\n`],
  ["behind a last delimiter with text", `--b\r\n${T}--b--x\r\n${F}--b--\r\n`],
  ["behind a last delimiter in two", `--b\r\n${T}--b- -\r\n${F}--b--\r\n`],
  ["behind a last delimiter with a space", `--b\r\n${T}--b --\r\n${F}--b--\r\n`],
  ["behind a last delimiter with one dash", `--b\r\n${T}--b-\r\n${F}--b--\r\n`],
  ["a long preamble", `${"preamble\r\n".repeat(5000)}--b\r\n${T}--b\r\n${F}--b--\r\n`],
  ["a header in the preamble", `Content-Type: text/plain\r\n\r\n--b\r\n${T}--b\r\n${F}--b--\r\n`],
  ["LF for line ends", `--b\r\n${T}--b\r\n${F}--b--\r\n`.replaceAll("\r\n", "\n")],
  ["CR for line ends", `--b\r\n${T}--b\r\n${F}--b--\r\n`.replaceAll("\r\n", "\r")],
  ["CR CR LF for line ends", `--b\r\n${T}--b\r\n${F}--b--\r\n`.replaceAll("\r\n", "\r\r\n")],
  ["LF CR for line ends", `--b\r\n${T}--b\r\n${F}--b--\r\n`.replaceAll("\r\n", "\n\r")],
  ["a CR in front of the delimiter", `--b\r\n${T.trimEnd()}\r--b\r\n${F}--b--\r\n`],
  ["a CR behind the delimiter", `--b\r\n${T}--b\r${F}--b--\r\n`],
  ["CR CR LF behind the delimiter", `--b\r\n${T}--b\r\r\n${F}--b--\r\n`],
  ["a lone LF in front of the delimiter", `--b\r\n${T.trimEnd()}\n--b\r\n${F}--b--\r\n`],
  ["a lone LF behind the delimiter", `--b\r\n${T}--b\n${F}--b--\r\n`],
  ["text in front of the delimiter", `--b\r\n${T}x--b\r\n${F}--b--\r\n`],
  ["a space in front of the delimiter", `--b\r\n${T} --b\r\n${F}--b--\r\n`],
  ["a tab in front of the delimiter", `--b\r\n${T}\t--b\r\n${F}--b--\r\n`],
  ["a NUL in front of the delimiter", `--b\r\n${T}\0--b\r\n${F}--b--\r\n`],
  ["a byte order mark in front of the first delimiter", `\xef\xbb\xbf--b\r\n${F}--b--\r\n`],
  ["a quote sign in front of the delimiter", `--b\r\n${T}>--b\r\n${F}--b--\r\n`],
  ["a dot in front of the delimiter", `--b\r\n${T}.--b\r\n${F}--b--\r\n`],
  ["spaces behind the delimiter", `--b\r\n${T}--b   \r\n${F}--b--\r\n`],
  ["tabs behind the delimiter", `--b\r\n${T}--b\t\t\r\n${F}--b--\r\n`],
  ["many spaces behind the delimiter", `--b\r\n${T}--b${" ".repeat(2000)}\r\n${F}--b--\r\n`],
  ["text behind the delimiter", `--b\r\n${T}--bx\r\n${F}--b--\r\n`],
  ["text behind the delimiter and a space", `--b\r\n${T}--b x\r\n${F}--b--\r\n`],
  ["a vertical tab behind the delimiter", `--b\r\n${T}--b\v\r\n${F}--b--\r\n`],
  ["a form feed behind the delimiter", `--b\r\n${T}--b\f\r\n${F}--b--\r\n`],
  ["NUL behind the delimiter", `--b\r\n${T}--b\0\r\n${F}--b--\r\n`],
  ["a no-break space behind the delimiter", `--b\r\n${T}--b\xa0\r\n${F}--b--\r\n`],
  ["a comment behind the delimiter", `--b\r\n${T}--b (c)\r\n${F}--b--\r\n`],
  ["a colon behind the delimiter", `--b\r\n${T}--b: x\r\n${F}--b--\r\n`],
  ["three dashes", `---b\r\n${T}---b\r\n${F}---b--\r\n`],
  ["one dash", `-b\r\n${T}-b\r\n${F}-b--\r\n`],
  ["no dashes", `b\r\n${T}b\r\n${F}b--\r\n`],
  ["an empty part in front", `--b\r\n--b\r\n${F}--b--\r\n`],
  ["a part without header in front", `--b\r\n\r\n--b\r\n${F}--b--\r\n`],
  ["a header without end in front", `--b\r\nContent-Type: text/plain\r\n--b\r\n${F}--b--\r\n`],
  ["a folded header without end in front", `--b\r\nContent-Type: text/plain;\r\n --b\r\n${F}--b--\r\n`],
  ["a delimiter in the header", `--b\r\nContent-Type: text/plain\r\n--b\r\n${F}\r\n--b--\r\n`],
  [
    "a delimiter in base64",
    `--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b\r\n${F}--b--\r\n`,
  ],
  ["an empty line behind the delimiter", `--b\r\n${T}--b\r\n\r\n${F}--b--\r\n`],
  ["many delimiters", `${"--b\r\n".repeat(500)}${F}--b--\r\n`],
  ["2,000 parts in front", `${`--b\r\n${T}`.repeat(2000)}--b\r\n${F}--b--\r\n`],
];

/** A multipart in the multipart `b`, and then its own parts. */
const NESTED: readonly (readonly [string, inner: string, body: string])[] = [
  ["the same boundary", "b", `--b\r\n${F}--b--\r\n`],
  ["a boundary that begins so", "bb", `--bb\r\n${F}--bb--\r\n--b--\r\n`],
  ["a boundary that begins so, one of them ended", "bb", `--bb\r\n${F}--bb--\r\n`],
  ["a boundary with an ending of dashes", "b--", `--b--\r\n${F}--b----\r\n--b--\r\n`],
  ["not ended", "c", `--c\r\n${F}--b--\r\n`],
  ["not ended, and more of the outer one", "c", `--c\r\n${T}--b\r\n${F}--b--\r\n`],
  ["ended twice", "c", `--c\r\n${T}--c--\r\n--c--\r\n--b\r\n${F}--b--\r\n`],
  ["ended behind the outer one", "c", `--c\r\n${T}--b--\r\n--c\r\n${F}--c--\r\n`],
  ["in its preamble", "c", `${F}--c\r\n${T}--c--\r\n--b--\r\n`],
  ["in its epilogue", "c", `--c\r\n${T}--c--\r\n${F}--b--\r\n`],
  ["no boundary of its own", "", `--b\r\n${F}--b--\r\n`],
  ["no parts of its own", "c", `--b\r\n${F}--b--\r\n`],
];

export function boundaries(): Evasion[] {
  const rows: [string, string][] = [];
  for (const [what, parameter, boundary] of GIVEN) {
    rows.push([`given: ${what}`, message(`multipart/mixed; ${parameter}`, parts(boundary))]);
  }
  for (const [what, body] of BODIES) rows.push([`delimiter: ${what}`, message("multipart/mixed; boundary=b", body)]);
  for (const [what, inner, body] of NESTED) {
    const type = inner === "" ? "multipart/mixed" : `multipart/mixed; boundary="${inner}"`;
    rows.push([
      `multipart in multipart: ${what}`,
      message("multipart/mixed; boundary=b", `--b\r\n${T}--b\r\nContent-Type: ${type}\r\n\r\n${body}`),
    ]);
  }
  return evasions("boundaries", rows);
}
