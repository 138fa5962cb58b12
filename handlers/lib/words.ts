/** Replies with words of lists in them. Names come from clients and texts from anybody's DNS: none of them is trusted. */

/** What stands for a placeholder. */
export type Words = Readonly<Partial<Record<string, string>>>;

const PLACEHOLDER = /\{(\w+)\}/g;

/** Characters of a value. */
const MOST = 255;

/** A placeholder that is none of these; null if there is no such. */
export function unknownPlaceholder(text: string, known: readonly string[]): string | null {
  for (const [found, name] of text.matchAll(PLACEHOLDER)) if (!known.includes(name!)) return found;
  return null;
}

/** Puts values in the place of `{name}`. What a value holds is not looked at again. */
export function filledIn(text: string, words: Words): string {
  return text.replaceAll(PLACEHOLDER, (found, name: string) => {
    const value = words[name];
    return value === undefined ? found : oneLine(value, MOST);
  });
}

/** Printable ASCII in one line. */
export function oneLine(text: string, most: number): string {
  return text
    .replaceAll(/[^!-~]+/g, " ")
    .slice(0, most)
    .trim();
}
