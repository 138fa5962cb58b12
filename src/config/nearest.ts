/** The known name that a mistyped name probably stands for. */

interface Named {
  readonly name: string;
}

/** A name without case, separators and the original's prefix. */
export function fold(name: string): string {
  return name
    .toLowerCase()
    .replace(/[^a-z0-9]/g, "")
    .replace(/^mruby(?=.)/, "");
}

/** The candidate of the same name but for its spelling. */
export function sameName<C extends Named>(name: string, among: readonly C[]): C | undefined {
  return among.find((candidate) => fold(candidate.name) === fold(name));
}

/** The one of these names that was probably meant; undefined if none is near. */
export function nearestName(name: string, among: readonly string[]): string | undefined {
  const candidates = among.map((other) => ({ name: other }));
  return (sameName(name, candidates) ?? nearest(name, candidates))?.name;
}

/** The candidate that is a slip or two away. */
export function nearest<C extends Named>(name: string, among: readonly C[]): C | undefined {
  const folded = fold(name);
  // Two slips in a long name are likely; in a short name they make another word.
  let limit = folded.length < 5 ? 1 : 2;
  let best: C | undefined;
  for (const candidate of among) {
    const distance = editDistance(folded, fold(candidate.name));
    if (distance > limit || (best !== undefined && distance === limit)) continue;
    limit = distance;
    best = candidate;
  }
  return best;
}

/** Number of insertions, deletions, replacements and swaps of neighbours between two texts. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = at(last, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(beforeLast, j - 2) + 1 : Infinity;
      row.push(Math.min(replaced, swapped, at(last, j) + 1, at(row, j - 1) + 1));
    }
    [beforeLast, last] = [last, row];
  }
  return at(last, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}
