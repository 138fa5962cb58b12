/** Names that are decoded once: always what decodeText gives, whatever was there before. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { decodeText } from "../../src/protocol/bytes.ts";
import { NameCache } from "../../src/protocol/name-cache.ts";
import { Random } from "./random.ts";

setDefaultTimeout(120_000);

const bytesOf = (text: string) => Buffer.from(text, "latin1");

test("a name that comes again is the same string", () => {
  const cache = new NameCache();
  const bytes = bytesOf("xSubject\0");
  expect(cache.decode(bytes, 1, 8)).toBe("Subject");
  expect(cache.decode(bytesOf("Subject"), 0, 7)).toBe("Subject");
});

test("names that share a slot, and bytes that are no ASCII, are not mixed up", () => {
  const cache = new NameCache();
  // The same length, first and last byte, and lone bytes whose escapes end in the same digits.
  for (const text of ["X-ab-Y", "X-ba-Y", "X-\xc3\xa4-Y", "X-\xe4a-Y", "X-ab-Y", "X-\xe4a-Y", ""]) {
    const bytes = bytesOf(text);
    expect(cache.decode(bytes, 0, bytes.length)).toBe(decodeText(bytes));
  }
});

test("any bytes, in any order", () => {
  const random = new Random(20_261_125);
  const cache = new NameCache();
  for (let round = 0; round < 20_000; round++) {
    // Few different ones, so that they meet.
    const bytes = Buffer.from(Array.from({ length: random.below(4) }, () => random.pick([0x41, 0x61, 0xc3, 0xa4])));
    expect(cache.decode(bytes, 0, bytes.length)).toBe(decodeText(bytes));
  }
  const long = Buffer.alloc(65, "A");
  expect(cache.decode(long, 0, long.length)).toBe(decodeText(long));
});
