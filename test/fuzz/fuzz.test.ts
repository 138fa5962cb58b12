/** The fuzzer itself: it finds a fault that was planted, makes its input small, and repeats it from the seed. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { Framer } from "../../src/protocol/framer.ts";
import { FuzzUsageError, parseFuzzArguments, TARGETS } from "./args.ts";
import { formatFailure, fuzz, repeat } from "./runner.ts";
import { inputOf, iterationSeed } from "./seeds.ts";
import { packetPieces } from "./shrink.ts";
import { MAKE } from "./targets/all.ts";
import { framerTarget } from "./targets/framer.ts";

setDefaultTimeout(120_000);

/** Loses the last byte of each packet that is longer than seven bytes. */
class Broken extends Framer {
  override next(): boolean {
    const isThere = super.next();
    if (isThere && this.end - this.start > 7) this.end -= 1;
    return isThere;
  }
}
const brokenTarget = () => framerTarget((limit) => new Broken(limit));

describe("a planted fault", () => {
  test("is found, made small, and repeated from its seed, with its own input and with the small one", async () => {
    const { failure } = await fuzz({ targets: [brokenTarget()], seconds: 20, seed: 7 });
    expect(failure).not.toBeNull();
    const { input, seed, smallest } = failure!;
    expect(smallest).not.toBeNull();
    // A length, a code and eight bytes are all that it takes.
    expect(smallest!.length).toBeLessThanOrEqual(Math.min(input.length, 20));
    expect(await repeat(brokenTarget(), seed)).not.toBeNull();
    expect(await repeat(brokenTarget(), seed, smallest!)).not.toBeNull();
    expect(await repeat(framerTarget(), seed)).toBeNull();
    const text = formatFailure(failure!);
    expect(text).toContain(
      `bun run fuzz --target framer --repeat ${seed} --input ${Buffer.from(smallest!).toString("hex")}`,
    );
  });

  test("the same seed gives the same inputs, another one others", () => {
    for (const name of TARGETS) {
      const inputs = (seed: number) =>
        Array.from({ length: 5 }, (_, index) =>
          Buffer.from(inputOf(MAKE[name](), iterationSeed(seed, name, index))).toString("hex"),
        );
      expect(inputs(1)).toEqual(inputs(1));
      expect(inputs(1)).not.toEqual(inputs(2));
    }
  });
});

test("a second of everything that runs in this process finds nothing", async () => {
  const targets = TARGETS.filter((name) => name !== "server").map((name) => MAKE[name]());
  const { counts, failure } = await fuzz({ targets, seconds: 3, seed: (Math.random() * 2 ** 32) >>> 0 });
  expect(failure === null ? "" : formatFailure(failure)).toBe("");
  for (const { iterations } of counts) expect(iterations).toBeGreaterThan(0);
});

test("an input is cut at its packets", () => {
  const packets = [Buffer.from("000000024243", "hex"), Buffer.from("0000000145", "hex"), Buffer.from("00", "hex")];
  expect(packetPieces(Buffer.concat(packets))).toEqual(packets);
});

describe("the command line", () => {
  test("has defaults, and takes what it offers", () => {
    expect(parseFuzzArguments([])).toMatchObject({ seconds: 60, seed: null, targets: TARGETS });
    expect(
      parseFuzzArguments(["--seconds=5", "--target", "session", "--repeat", "9", "--input", "00ff"]),
    ).toMatchObject({
      seconds: 5,
      targets: ["session"],
      repeat: 9,
      input: Buffer.from([0, 255]),
    });
  });

  test.each([[["--seconds", "0"]], [["--target", "none"]], [["--repeat", "1"]], [["--speed"]], [["--input", "0"]]])(
    "says what is wrong with %p",
    (args) => {
      expect(() => parseFuzzArguments(args)).toThrow(FuzzUsageError);
    },
  );
});
