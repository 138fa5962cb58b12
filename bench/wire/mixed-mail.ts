/** Mail of mixed sizes, from a seed. Pure. */
import { Random } from "../../soak/random.ts";
import type { MailShape } from "../support/traffic.ts";

/** So many different mails; sizes from the least to the most, as many of each order of magnitude. */
const MAILS = 64;
const HEADERS = { least: 4, most: 80 } as const;
const BODY_BYTES = { least: 128, most: 256 * 1024 } as const;

export function mixedMail(seed: number): readonly MailShape[] {
  const random = new Random(seed);
  const headers = spreadOut(random, HEADERS);
  const bodies = spreadOut(random, BODY_BYTES);
  return headers.map((headers, at) => ({ recipients: 1, headers, bodyBytes: bodies[at]! }));
}

const FINE = 1000;

/**
 * A number from each of as many equal parts of the logarithmic range, in any order: seeds differ in every mail and
 * little in the whole, so that runs with different seeds can be put side by side.
 */
function spreadOut(random: Random, { least, most }: { least: number; most: number }): readonly number[] {
  const numbers = Array.from({ length: MAILS }, (_, part) => {
    const share = (part + random.below(FINE) / FINE) / MAILS;
    return Math.round(least * (most / least) ** share);
  });
  return random.shuffled(numbers);
}
