/** What the tests of hostile input share: text that tries everything, and how the time that work takes grows. */

/**
 * Milliseconds of processor time that `work` takes, the best of `runs`: what else the machine is doing hardly counts, so
 * a generous bound is missed by work that grows too fast and by nothing else.
 */
export function milliseconds(work: () => void, runs = 1): number {
  let best = Number.POSITIVE_INFINITY;
  for (let run = 0; run < runs; run++) {
    const from = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(from);
    best = Math.min(best, (user + system) / 1000);
  }
  return best;
}

/**
 * How many times longer the work takes for ten times as much. Linear work gives about 10, quadratic about 100, cubic
 * about 1,000.
 */
export function growth(work: (amount: number) => void, small: number): number {
  // At once as large as it gets: the code is compiled before it is measured.
  work(small);
  const least = milliseconds(() => work(small), 5);
  return milliseconds(() => work(small * 10), 3) / Math.max(least, 1);
}

/** A generator of numbers below `bound`, the same at each run. */
export function numbers(seed: number): (bound: number) => number {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * bound);
  };
}

/** Pieces that end, escape, disguise or extend something somewhere: in SMTP, in headers, in logs, on terminals. */
const EVIL = [
  "a",
  "Bcc: x@example.com",
  " ",
  "\t",
  "\n",
  "\r",
  "\r\n",
  "\r\n\r\n",
  "\n ",
  "\0",
  "\x1b[2J",
  "\u009b31m",
  "\u0085",
  "\u2028",
  "\u202e",
  "\u2066",
  "\x7f",
  "\\n",
  '"',
  "%",
  "%s%n",
  "<",
  ">",
  "250 ok",
  "550-",
  ",",
  "=",
  "[Tue, 25 Jul 2017 13:02:34 GMT][crit]: forged",
  "\udc80",
  "\udcff",
  "\udc8a",
  "\ud800",
  "\ufffd",
  "é",
  "€",
  "😀",
] as const;

/** Texts of up to `pieces` of them, the same at each run; each piece alone first. */
export function evilTexts(count: number, pieces = 6): string[] {
  const random = numbers(20170725);
  const made = Array.from({ length: count }, () =>
    Array.from({ length: 1 + random(pieces) }, () => EVIL[random(EVIL.length)]!).join(""),
  );
  return [...EVIL, ...made];
}
