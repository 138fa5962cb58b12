/** The packets of a new body, made in steps of any size from pieces of any size. */
import { describe, expect, test } from "bun:test";
import { BodyPackets } from "../../src/protocol/body-packets.ts";
import { forSeeds, mustEqual } from "./random.ts";
import { packet, packetsOf } from "./wire.ts";

const MAX = 65_535;

/** All that leaves, where a socket takes so many bytes of each so many that it is given. */
function sent(pieces: readonly Uint8Array[], room: () => number, taken: (given: number) => number): Buffer {
  const packets = new BodyPackets(pieces);
  const out: Buffer[] = [];
  const { length } = packets;
  while (packets.rest > 0) {
    const target = Buffer.alloc(room() + 2, "#");
    const given = packets.copyTo(target, 1, target.length - 1);
    expect([target[0], target.at(-1)]).toEqual([0x23, 0x23]);
    const count = taken(given);
    out.push(target.subarray(1, 1 + count));
    packets.advance(count);
  }
  const whole = Buffer.concat(out);
  expect(whole).toHaveLength(length);
  return whole;
}

/** By the naive writer. */
function expected(body: Buffer): Buffer {
  const packets: Buffer[] = [];
  for (let at = 0; at < body.length || at === 0; at += MAX) packets.push(packet("b", body.subarray(at, at + MAX)));
  return Buffer.concat(packets);
}

describe("the packets of a new body", () => {
  test.each([0, 1, MAX - 1, MAX, MAX + 1, 2 * MAX, 2 * MAX + 1])("of %d bytes are cut at 65535", (size) => {
    const body = Buffer.alloc(size, "0123456789");
    mustEqual(
      sent(
        [body],
        () => 1 << 20,
        (given) => given,
      ),
      expected(body),
      "packets",
    );
    mustEqual(
      sent(
        [body],
        () => 999,
        (given) => given,
      ),
      expected(body),
      "packets in steps",
    );
  });

  test("are the same whatever the pieces, the room, and what is taken of it", () => {
    forSeeds(60, (random) => {
      const pieces = Array.from({ length: random.below(12) }, () =>
        random.bytes(random.pick([0, 1, 5, 300, 70_000]) + random.below(9)),
      );
      const whole = sent(
        pieces,
        () => 1 + random.below(random.pick([4, 100, 200_000])),
        (given) => random.below(given + 1),
      );
      mustEqual(whole, expected(Buffer.concat(pieces)), "packets");
    });
  });

  test("are not made of memory that was given away meanwhile: the packets would be others", () => {
    const memory = new ArrayBuffer(100_000);
    const packets = new BodyPackets([new Uint8Array(10), new Uint8Array(memory)]);
    packets.advance(50);
    memory.transfer();
    expect(() => packets.copyTo(Buffer.alloc(200_000))).toThrow("given away before it was sent");
  });

  test("an empty body is one empty packet, of no pieces or of empty ones", () => {
    for (const pieces of [[], [new Uint8Array(0), new Uint8Array(0)]]) {
      expect(
        packetsOf(
          sent(
            pieces,
            () => 1,
            (given) => given,
          ),
        ),
      ).toEqual(["b"]);
    }
  });
});
