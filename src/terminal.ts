/** Text from a client, a file or another process, made harmless for a terminal. */

/** Control and format characters, line separators, and bytes that are not UTF-8 (lone surrogates, see `decodeText`). */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/**
 * Replaces what could move a terminal's cursor, or hide what stands there.
 * @param shown what stands in the place of such a character
 * @param kept such a character that stays
 */
export function harmless(text: string, shown: (character: string) => string, kept = ""): string {
  return text.replace(UNSAFE, (character) => (character === kept ? character : shown(character)));
}

/** Keeps the width of a line. */
export function asMark(): string {
  return "?";
}
