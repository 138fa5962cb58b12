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
