/** Framing: every split gives the same packets, lengths are never trusted, and kept bytes are independent. */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { Framer } from "../../src/protocol/framer.ts";
import { Survey } from "../../src/protocol/survey.ts";
import { forSeeds, mustEqual, type Random } from "./random.ts";
import { fromHex, packet } from "./wire.ts";

setDefaultTimeout(120_000);

const LIMIT = 1 << 20;

/** Each packet as its code and payload, copied at once. */
function take(framer: Framer, into: string[] = [], survey: Survey | null = null): string[] {
  while (framer.next()) {
    survey?.take(framer.code);
    const payload = Buffer.from(framer.bytes.subarray(framer.start, framer.end)).toString("latin1");
    into.push(String.fromCharCode(framer.code) + payload);
  }
  return into;
}

function feed(chunks: Iterable<Uint8Array>, limit = LIMIT): string[] {
  const framer = new Framer(limit);
  const found: string[] = [];
  for (const chunk of chunks) {
    framer.push(chunk);
    take(framer, found);
  }
  return found;
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof ProtocolError ? error.code : String(error);
  }
  return "none";
}

function randomStream(random: Random): { stream: Buffer; packets: string[] } {
  const packets: Buffer[] = [];
  const count = random.below(8);
  for (let index = 0; index < count; index++) {
    const size = random.pick([0, 0, 1, 3, 20, 300, random.chance(0.1) ? 3000 : 5]);
    packets.push(packet(random.pick([..."OCHMRTLNBEADQKU"]), random.bytes(size)));
  }
  return { stream: Buffer.concat(packets), packets: packets.map((bytes) => bytes.toString("latin1", 4)) };
}

describe("Framer", () => {
  test("takes several packets of one read, in order", () => {
    expect(feed([fromHex("00000001 54 00000008 42 48656c6c6f0d0a 00000001 45")])).toEqual(["T", "BHello\r\n", "E"]);
  });

  test("gives the same packets for every pair of cuts", () => {
    const stream = Buffer.concat([packet("T"), packet("L", "Subject\0 hi\0"), packet("N"), packet("B", "x")]);
    const expected = ["T", "LSubject\0 hi\0", "N", "Bx"];
    for (let first = 0; first <= stream.length; first++) {
      for (let second = first; second <= stream.length; second++) {
        const chunks = [stream.subarray(0, first), stream.subarray(first, second), stream.subarray(second)];
        mustEqual(feed(chunks), expected, `cuts at ${first} and ${second}`);
      }
    }
  });

  test("gives the same packets byte by byte and for random cuts", () => {
    forSeeds(800, (random) => {
      const { stream, packets } = randomStream(random);
      mustEqual(feed([stream]), packets, "whole");
      mustEqual(feed([...stream].map((byte) => Buffer.of(byte))), packets, "byte by byte");
      mustEqual(feed(random.cut(stream)), packets, "random cuts");
    });
  });

  test("describes a packet that lies whole in its read as a view of it, without a copy", () => {
    const framer = new Framer(LIMIT);
    const read = packet("H", "c.test\0");
    framer.push(read);
    expect(framer.next()).toBe(true);
    expect(framer.bytes).toBe(read);
    expect([framer.start, framer.end]).toEqual([5, read.length]);
  });

  test("an empty read changes nothing", () => {
    expect(feed([packet("T").subarray(0, 2), Buffer.alloc(0), packet("T").subarray(2), Buffer.alloc(0)])).toEqual([
      "T",
    ]);
  });

  test("takes packets pushed behind a read that was not taken yet", () => {
    const framer = new Framer(LIMIT);
    framer.push(packet("H", "one\0"));
    framer.push(packet("H", "two\0").subarray(0, 6));
    framer.push(packet("H", "two\0").subarray(6));
    expect(take(framer)).toEqual(["Hone\0", "Htwo\0"]);
  });

  test("refuses a length of 0, whole and split", () => {
    const bad = fromHex("00000000");
    expect(codeOf(() => feed([bad]))).toBe("PMILTER_ERR_LENGTH_ZERO");
    expect(codeOf(() => feed([...bad].map((byte) => Buffer.of(byte))))).toBe("PMILTER_ERR_LENGTH_ZERO");
  });

  test("takes packets below and at the limit and refuses one above, whole and split", () => {
    for (const [size, expected] of [
      [9, "none"],
      [10, "none"],
      [11, "PMILTER_ERR_PACKET_TOO_LARGE"],
    ] as const) {
      const read = packet("B", "x".repeat(size - 1));
      expect(codeOf(() => feed([read], 10))).toBe(expected);
      expect(
        codeOf(() =>
          feed(
            [...read].map((byte) => Buffer.of(byte)),
            10,
          ),
        ),
      ).toBe(expected);
    }
  });

  test("refuses a length above the limit before any of the packet has come", () => {
    const framer = new Framer(100);
    framer.push(fromHex("ffffffff"));
    expect(codeOf(() => framer.next())).toBe("PMILTER_ERR_PACKET_TOO_LARGE");
  });

  test("gives the packets before a broken one", () => {
    const framer = new Framer(LIMIT);
    framer.push(Buffer.concat([packet("T"), packet("N"), fromHex("00000000")]));
    expect([framer.next(), framer.next()]).toEqual([true, true]);
    expect(codeOf(() => framer.next())).toBe("PMILTER_ERR_LENGTH_ZERO");
  });

  test("a length field alone reserves nothing: buffers grow with what has arrived", () => {
    const allocate = spyOn(Buffer, "allocUnsafeSlow");
    try {
      const framer = new Framer(LIMIT);
      framer.push(fromHex("00100000"));
      framer.next();
      for (let count = 1; count <= 5000; count++) {
        framer.push(Buffer.of(7));
        framer.next();
      }
      const largest = Math.max(...allocate.mock.calls.map(([size]) => size));
      expect(largest).toBeLessThanOrEqual(2 * 5004);
      expect(framer.restBytes).toBe(5004);
    } finally {
      allocate.mockRestore();
    }
  });

  test("hasRest and restBytes tell what has been pushed and not taken", () => {
    const framer = new Framer(LIMIT);
    expect([framer.hasRest, framer.restBytes]).toEqual([false, 0]);
    framer.push(Buffer.concat([packet("T"), packet("N"), fromHex("0000")]));
    expect([framer.hasRest, framer.restBytes]).toEqual([true, 12]);
    framer.next();
    expect(framer.restBytes).toBe(7);
    take(framer);
    expect([framer.hasRest, framer.restBytes]).toEqual([true, 2]);
    framer.push(fromHex("000154"));
    take(framer);
    expect([framer.hasRest, framer.restBytes]).toEqual([false, 0]);
  });

  test("what was lent stays as it was, wherever it was cut and whatever comes after it", () => {
    forSeeds(300, (random) => {
      const packets = Array.from({ length: 2 + random.below(6) }, () =>
        packet("B", random.bytes(64).toString("latin1").repeat(random.below(1200))),
      );
      const stream = Buffer.concat(packets);
      const framer = new Framer(LIMIT);
      const lent: { bytes: Uint8Array; text: string }[] = [];
      const found: string[] = [];
      const take = (most: number) => {
        for (let count = 0; count < most && framer.next(); count++) {
          const text = payloadOf(framer);
          found.push(text);
          if (random.chance(0.5)) continue;
          framer.lend();
          lent.push({ bytes: framer.bytes.subarray(framer.start - 1, framer.end), text });
        }
      };
      for (let at = 0; at < stream.length;) {
        const end = Math.min(stream.length, at + 1 + random.below(random.pick([20_000, 70_000, 300_000])));
        // As the socket gives it: memory of its own.
        framer.push(new Uint8Array(stream.subarray(at, end)));
        at = end;
        take(random.chance(0.5) ? Number.POSITIVE_INFINITY : random.below(3));
      }
      take(Number.POSITIVE_INFINITY);
      mustEqual(
        found,
        packets.map((bytes) => bytes.toString("latin1", 4)),
        "packets",
      );
      for (const { bytes, text } of lent) mustEqual(Buffer.from(bytes).toString("latin1"), text, "lent");
    });
  });

  test("holds no reference to a read once all of it was taken", () => {
    const framer = new Framer(LIMIT);
    framer.push(packet("T"));
    take(framer);
    expect([framer.bytes.length, framer.start, framer.end]).toEqual([0, 0, 0]);
  });

  test("gives the memory of large reads back once they were taken, and not of lent ones", () => {
    const framer = new Framer(LIMIT);
    const lengths = [false, true].map((isLent) => {
      const read = new Uint8Array(packet("B", "x".repeat(50_000)));
      framer.push(read);
      expect(framer.next()).toBe(true);
      if (isLent) framer.lend();
      expect(framer.next()).toBe(false);
      return read.length;
    });
    expect(lengths).toEqual([0, 50_005]);
  });

  test("gives the memory of what it copied together back as well", () => {
    const framer = new Framer(LIMIT);
    const reads = [0, 1].map(() => new Uint8Array(packet("B", "x".repeat(50_000))));
    for (const read of reads) framer.push(read);
    expect(framer.next()).toBe(true);
    const { bytes } = framer;
    expect(framer.next()).toBe(true);
    expect(framer.next()).toBe(false);
    expect([...reads, bytes].map(({ length }) => length)).toEqual([0, 0, 0]);
  });
});

function payloadOf(framer: Framer): string {
  return (
    String.fromCharCode(framer.code) + Buffer.from(framer.bytes.subarray(framer.start, framer.end)).toString("latin1")
  );
}

describe("Framer.survey", () => {
  const OWED = new Set("CHMRE");
  const isOwed = new Uint8Array(256);
  for (const letter of OWED) isOwed[letter.charCodeAt(0)] = 1;

  /** Bytes missing at `position` of a stream of whole packets: of the packet there, or of its length field. */
  function dueAt(stream: Buffer, position: number): number {
    let at = 0;
    while (at < position) {
      if (position - at < 4) return 4 - (position - at);
      const end = at + 4 + stream.readUInt32BE(at);
      if (position < end) return end - position;
      at = end;
    }
    return 0;
  }

  /** Bytes that have arrived at `position` of the packet there. */
  function begunAt(stream: Buffer, position: number): number {
    let at = 0;
    while (position - at >= 4 && at + 4 + stream.readUInt32BE(at) <= position) at += 4 + stream.readUInt32BE(at);
    return position - at;
  }

  test("agrees with what next finds then, for any split", () => {
    forSeeds(400, (random) => {
      const { stream } = randomStream(random);
      const framer = new Framer(LIMIT);
      const survey = new Survey();
      let position = 0;
      for (const piece of random.cut(stream)) {
        framer.push(piece);
        position += piece.length;
        framer.survey(survey, isOwed, 0);
        const { arrived: begun, missing: due, firstOwed, owed, untaken } = survey;
        const copied = Buffer.alloc(begun + 2, 0xee);
        framer.copyPartial(begun, copied, 1, begun);
        const packets = take(framer, [], survey);
        const found = packets.filter((text) => OWED.has(text[0]!));
        mustEqual(untaken, packets.length, `untaken at byte ${position}`);
        mustEqual(survey.untaken, 0, `untaken when all is taken, at byte ${position}`);
        mustEqual(begun, begunAt(stream, position), `begun at byte ${position}`);
        mustEqual(
          copied.toString("hex"),
          `ee${stream.subarray(position - begun, position).toString("hex")}ee`,
          `the beginning of the packet at byte ${position}`,
        );
        mustEqual(owed, found.length, `owed at byte ${position}`);
        mustEqual(survey.owed, 0, `owed when all is taken, at byte ${position}`);
        mustEqual(firstOwed, found[0]?.charCodeAt(0) ?? 0, `firstOwed at byte ${position}`);
        mustEqual(due, dueAt(stream, position), `due at byte ${position}`);
      }
    });
  });

  test("agrees also where packets of an earlier read are still to be taken", () => {
    forSeeds(800, (random) => {
      const { stream, packets } = randomStream(random);
      const framer = new Framer(LIMIT);
      const survey = new Survey();
      let position = 0;
      let taken = 0;
      for (const piece of random.cut(stream)) {
        framer.push(Buffer.from(piece));
        position += piece.length;
        framer.survey(survey, isOwed, 0);
        let whole = 0;
        for (let at = 0; at < position && at + 4 + stream.readUInt32BE(at) <= position; whole++) {
          at += 4 + stream.readUInt32BE(at);
          if (position - at < 4) {
            whole++;
            break;
          }
        }
        const waiting = packets.slice(taken, whole).filter((text) => OWED.has(text[0]!));
        mustEqual(survey.owed, waiting.length, `owed at byte ${position}`);
        mustEqual(survey.missing, dueAt(stream, position), `due at byte ${position}`);
        if (!random.chance(0.5) || !framer.next()) continue;
        survey.take(framer.code);
        taken++;
      }
    });
  });

  test("passes over the packets that get no reply whatever they are", () => {
    const framer = new Framer(LIMIT);
    const survey = new Survey();
    framer.push(Buffer.concat([packet("C"), packet("X"), packet("H"), packet("M")]));
    framer.survey(survey, isOwed, 2);
    expect([survey.owed, String.fromCharCode(survey.firstOwed), survey.untaken]).toEqual([2, "H", 4]);
    const owed = [1, 2, 3, 4].map(() => (framer.next(), survey.take(framer.code), survey.owed));
    expect(owed).toEqual([2, 2, 1, 0]);
  });

  test("takes nothing and ends on lengths that next refuses", () => {
    const framer = new Framer(LIMIT);
    const survey = new Survey();
    framer.push(Buffer.concat([packet("H", "x\0"), fromHex("00000000 00000000 ffffffff 45")]));
    framer.survey(survey, isOwed, 0);
    expect(survey.owed).toBeGreaterThanOrEqual(1);
    expect(survey.firstOwed).toBe("H".charCodeAt(0));
    expect(framer.next()).toBe(true);
    expect(codeOf(() => framer.next())).toBe("PMILTER_ERR_LENGTH_ZERO");
  });
});

describe("Framer.expectLost", () => {
  const rest = packet("E");

  test.each([1, 3, 100, 70_000])(
    "a packet of which %i bytes are still to come arrives without a payload, in any split",
    (due) => {
      forSeeds(50, (random) => {
        const framer = new Framer(LIMIT);
        framer.expectLost(due, "B".charCodeAt(0));
        const found: string[] = [];
        for (const piece of random.cut(Buffer.concat([Buffer.alloc(due, 0xff), rest, rest]))) {
          framer.push(piece);
          found.push(...take(framer));
        }
        mustEqual(found.join(), "B,E,E", "packets");
      });
    },
  );

  test("with the code 0 its bytes are dropped, and nothing comes", () => {
    const framer = new Framer(LIMIT);
    framer.expectLost(5, 0);
    framer.push(Buffer.from("12345"));
    expect(take(framer)).toEqual([]);
    framer.push(rest);
    expect(take(framer)).toEqual(["E"]);
  });
});
