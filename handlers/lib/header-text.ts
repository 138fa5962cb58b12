/** Header values to be written: folding (RFC 5322 2.2.3) and encoded words (RFC 2047). None of it throws on any text. */

/** A value on a single line. */
export function unfold(value: string): string {
  return value.replace(/[\r\n]+[ \t]*/g, " ").replaceAll("\0", "");
}

/** A received value that is written again, folded as it was: no line of it can become a header of its own. */
export function keepFolds(value: string): string {
  return value
    .replaceAll("\0", "")
    .replace(/\r\n?/g, "\n")
    .replace(/\n(?![ \t])/g, "\n ");
}

/** Folds a line at its spaces, so that its lines have at most 78 characters where there are spaces to do so. */
export function fold(value: string, nameLength: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of value.split(/(?<=\S) (?=\S)/)) {
    const room = lines.length === 0 ? 76 - nameLength : 77;
    if (line !== "" && line.length + 1 + word.length > room) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines.join("\n ");
}

/** An encoded word has at most 75 characters: 45 bytes of text. */
const WORD_BYTES = 45;

/** Text as encoded words of UTF-8, folded. */
export function encodeWords(text: string): string {
  const words: string[] = [];
  let part = "";
  for (const character of text.toWellFormed()) {
    if (Buffer.byteLength(part + character) > WORD_BYTES) {
      words.push(part);
      part = "";
    }
    part += character;
  }
  words.push(part);
  return words.map((word) => `=?UTF-8?B?${Buffer.from(word).toString("base64")}?=`).join("\n ");
}
