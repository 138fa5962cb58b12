/** What the tests of hostile input share: text that tries everything. */

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
