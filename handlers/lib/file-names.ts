/** File names of attachments as the reader's machine will take them, also where the sender tried to hide that. */

/** Marks that change the order in which a name is shown: `invoice<U+202E>fdp.exe` is read as `invoiceexe.pdf`. */
const REORDERING = /[\u202a-\u202e\u2066-\u2069]/;

export function isReordered(name: string): boolean {
  return REORDERING.test(name);
}

/** File systems take 255. The middle of a longer name is left out. */
const MAX_PLAIN = 1000;

/** In lower case, without folder, invisible characters, and the dots and spaces at the end that Windows drops. */
export function plainName(name: string): string {
  const visible = name.normalize("NFKC").replaceAll(/[\p{Cf}\p{Cc}]/gu, "");
  const base = visible.slice(Math.max(visible.lastIndexOf("/"), visible.lastIndexOf("\\")) + 1);
  let end = base.length;
  while (end > 0 && /[.\s]/.test(base[end - 1]!)) end -= 1;
  const plain = base.slice(0, end).toLowerCase();
  return end <= MAX_PLAIN ? plain : plain.slice(0, MAX_PLAIN / 2) + plain.slice(-MAX_PLAIN / 2);
}

/** Patterns of names, of which most are endings: those are looked up, so that many names cost little. */
export class NamePatterns {
  readonly #patterns: readonly string[];
  /** Where an ending stands among the patterns. */
  readonly #endings = new Map<string, number>();
  readonly #others: number[] = [];

  constructor(patterns: readonly string[]) {
    this.#patterns = patterns;
    for (const [index, pattern] of patterns.entries()) {
      if (!/^\*\.[^*?.]+$/.test(pattern)) this.#others.push(index);
      else if (!this.#endings.has(pattern.slice(2))) this.#endings.set(pattern.slice(2), index);
    }
  }

  /** The first pattern that a plain name matches. */
  find(name: string): string | undefined {
    const dot = name.lastIndexOf(".");
    const ending = dot === -1 ? undefined : this.#endings.get(name.slice(dot + 1));
    const other = this.#others.find((index) => matches(name, this.#patterns[index]!));
    return this.#patterns[Math.min(ending ?? Infinity, other ?? Infinity)];
  }
}

/** Whether a text matches a pattern with `*` and `?`. It takes at most the product of the two lengths. */
export function matches(text: string, pattern: string): boolean {
  let at = 0;
  let rule = 0;
  let star = -1;
  let resume = 0;
  while (at < text.length) {
    if (pattern[rule] === "*") {
      star = rule++;
      resume = at;
    } else if (pattern[rule] === "?" || pattern[rule] === text[at]) {
      at += 1;
      rule += 1;
    } else if (star !== -1) {
      rule = star + 1;
      at = ++resume;
    } else return false;
  }
  while (pattern[rule] === "*") rule += 1;
  return rule === pattern.length;
}

/** For a reply, a header or the log: short, a single line, ASCII, without quotes. The end of a long name stays. */
export function printable(name: string): string {
  const ascii = name.replaceAll(/[^ !#-[\]-~]/gu, "?");
  return ascii.length <= 60 ? ascii : `${ascii.slice(0, 28)}...${ascii.slice(-28)}`;
}
