/** Mail of mixed sizes: new with each seed, the same with the same, and little different in the whole. */
import { expect, test } from "bun:test";
import { mixedMail } from "../../bench/wire/mixed-mail.ts";

const SEEDS = [1, 2, 3, 0xffff_ffff];

test("a seed repeats its mail, another has other mail", () => {
  expect(mixedMail(7)).toEqual(mixedMail(7));
  expect(mixedMail(7)).not.toEqual(mixedMail(8));
});

test("sizes and header counts reach from small to large, in any combination", () => {
  for (const seed of SEEDS) {
    const mails = mixedMail(seed);
    for (const { headers, bodyBytes } of mails) {
      expect(headers).toBeWithin(4, 81);
      expect(bodyBytes).toBeWithin(128, 256 * 1024 + 1);
    }
    const long = mails.filter(({ headers }) => headers > 20);
    expect(new Set(mails.map(({ headers }) => headers)).size).toBeGreaterThan(20);
    expect(Math.min(...long.map(({ bodyBytes }) => bodyBytes))).toBeLessThan(4096);
    expect(Math.max(...long.map(({ bodyBytes }) => bodyBytes))).toBeGreaterThan(65_535);
  }
});

test("the mean of a seed is near that of another: their figures can be put side by side", () => {
  const means = SEEDS.map((seed) => {
    const mails = mixedMail(seed);
    return mails.reduce((sum, { bodyBytes }) => sum + bodyBytes, 0) / mails.length;
  });
  expect(Math.max(...means) / Math.min(...means)).toBeLessThan(1.05);
});
