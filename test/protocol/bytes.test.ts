/** Text and number fields: what is read and given back arrives byte for byte as it was sent. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  ByteWriter,
  decodeText,
  encodeText,
  excerpt,
  freeBytes,
  readU32,
  stringEnd,
} from "../../src/protocol/bytes.ts";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { forSeeds, mustEqual, type Random } from "./random.ts";
import { fromHex } from "./wire.ts";

setDefaultTimeout(120_000);

/** Bytes that are partly valid UTF-8: whole sequences, broken ones, and noise between them. */
function mixedBytes(random: Random): Buffer {
  const parts: Uint8Array[] = [];
  const count = random.below(12);
  for (let index = 0; index < count; index++) {
    const whole = Buffer.from(random.pick(["a", "é", "€", "💀", "\ufeff", "\ufffd", "\u0000", "~"]));
    parts.push(
      random.pick([whole, whole, whole.subarray(0, -1), whole.subarray(1), random.bytes(1 + random.below(3))]),
    );
  }
  return Buffer.concat(parts);
}

describe("decodeText", () => {
  test.each([
    ["ASCII", "61 62", "ab"],
    ["nothing", "", ""],
    ["UTF-8 of two to four bytes", "c3a9 e282ac f09f9280", "é€💀"],
    ["a byte order mark, kept", "efbbbf 61", "\ufeffa"],
    ["a real replacement character", "efbfbd", "\ufffd"],
    ["a byte that is no UTF-8", "61 ff 62", "a\udcffb"],
    ["latin1 text", "e9 74 e9", "\udce9t\udce9"],
    ["a sequence cut short", "e282", "\udce2\udc82"],
    ["a lone continuation", "80", "\udc80"],
    ["an overlong slash", "c0af", "\udcc0\udcaf"],
    ["an overlong NUL", "c080", "\udcc0\udc80"],
    ["an encoded surrogate", "eda080", "\udced\udca0\udc80"],
    ["an encoded escape", "edb280", "\udced\udcb2\udc80"],
    ["a code point past the last", "f4908080", "\udcf4\udc90\udc80\udc80"],
    ["a broken sequence before a whole one", "e2 c3a9", "\udce2é"],
    ["a broken byte beside a replacement character", "ff efbfbd", "\udcff\ufffd"],
  ])("%s", (_name, hex, text) => {
    expect(decodeText(fromHex(hex))).toBe(text);
    expect(Buffer.from(encodeText(text)).toString("hex")).toBe(hex.replaceAll(" ", ""));
  });

  test("reads only the range given", () => {
    expect(decodeText(Buffer.from("\xff<ab>\xff", "latin1"), 2, 4)).toBe("ab");
    expect(decodeText(fromHex("e282 ac"), 0, 2)).toBe("\udce2\udc82");
  });

  test("is undone by encodeText for any bytes", () => {
    forSeeds(4000, (random) => {
      const bytes = random.chance(0.5) ? mixedBytes(random) : random.bytes(random.below(40));
      const padded = Buffer.concat([Buffer.of(0xff), bytes, Buffer.of(0xff)]);
      const text = decodeText(padded, 1, padded.length - 1);
      mustEqual(Buffer.from(encodeText(text)).toString("hex"), bytes.toString("hex"), "bytes");
    });
  });

  test("agrees with TextDecoder wherever that finds valid UTF-8", () => {
    const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    let valid = 0;
    forSeeds(3000, (random) => {
      const bytes = mixedBytes(random);
      let expected: string;
      try {
        expected = strict.decode(bytes);
      } catch {
        return;
      }
      valid += 1;
      mustEqual(decodeText(bytes), expected, bytes.toString("hex"));
    });
    expect(valid).toBeGreaterThan(100);
  });
});

describe("encodeText", () => {
  test("a low surrogate that belongs to a pair is no escape", () => {
    // U+1F480 is D83D DC80: its second half lies in the range of the escapes.
    expect(Buffer.from(encodeText("\u{1f480}\udc80")).toString("hex")).toBe("f09f928080");
  });

  test("surrogates outside the range of the escapes never become control bytes", () => {
    for (const text of ["\udc00", "\udc0a", "\udc7f", "\ud800", "\udd00"]) {
      expect(Buffer.from(encodeText(text)).toString("hex")).toBe("efbfbd");
    }
  });
});

describe("readU32", () => {
  test("reads big endian, without a sign", () => {
    expect(readU32(fromHex("00 0000000d"), 1)).toBe(13);
    expect(readU32(fromHex("ffffffff"), 0)).toBe(4_294_967_295);
    expect(readU32(fromHex("80000001"), 0)).toBe(2_147_483_649);
  });
});

describe("stringEnd", () => {
  test("finds the NUL before the end", () => {
    expect(stringEnd(Buffer.from("ab\0cd\0"), 3, 6, "it")).toBe(5);
  });

  test.each([
    ["without a NUL", "abc", 3],
    ["with a NUL only behind its end", "abc\0", 3],
    ["that is empty", "", 0],
  ])("refuses a payload %s", (_name, text, end) => {
    try {
      stringEnd(Buffer.from(text), 0, end, "the name");
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(ProtocolError);
      expect((error as ProtocolError).code).toBe("PMILTER_ERR_MISSING_NUL");
      expect((error as ProtocolError).message).toStartWith("the name ");
    }
  });
});

describe("freeBytes", () => {
  test("gives back the memory of large bytes, not of small ones, nor of a part of something", () => {
    const [large, small] = [new Uint8Array(65_536), new Uint8Array(100)];
    const whole = new Uint8Array(65_536);
    for (const bytes of [large, small, whole.subarray(1), new Uint8Array(new SharedArrayBuffer(65_536))])
      freeBytes(bytes);
    expect([large.length, small.length, whole.length]).toEqual([0, 100, 65_536]);
    freeBytes(large);
  });
});

describe("excerpt", () => {
  test("escapes what is not printable, quotes and backslashes", () => {
    expect(excerpt(fromHex("61 00 0a 22 5c ff 20 7e 7f"))).toBe("a\\x00\\x0a\\x22\\x5c\\xff ~\\x7f");
  });

  test("shows at most 40 bytes", () => {
    expect(excerpt(Buffer.from("x".repeat(40)))).toBe("x".repeat(40));
    expect(excerpt(Buffer.from("x".repeat(41)))).toBe(`${"x".repeat(40)}…`);
    expect(excerpt(Buffer.from("abcdef"), 2, 4)).toBe("cd");
  });
});

describe("ByteWriter", () => {
  test("grows from one byte and keeps what was written", () => {
    const writer = new ByteWriter(1);
    writer.u8(0x4f);
    writer.u16(0x0102);
    writer.u32(0xfffefdfc);
    writer.bytes(Buffer.from("abcdef"), 2, 4);
    writer.bytes(Buffer.from("xy"));
    writer.cstring("é\udcff");
    expect(Buffer.from(writer.copy()).toString("hex")).toBe("4f0102fffefdfc63647879c3a9ff00");
    expect(writer.length).toBe(15);
  });

  test("text writes the bytes of encodeText", () => {
    forSeeds(1500, (random) => {
      const text = decodeText(mixedBytes(random)) + random.pick(["", "\ud800", "x".repeat(50)]);
      const writer = new ByteWriter(1 + random.below(8));
      writer.text("<");
      writer.text(text);
      writer.text(">");
      const expected = `3c${Buffer.from(encodeText(text)).toString("hex")}3e`;
      mustEqual(Buffer.from(writer.copy()).toString("hex"), expected, "bytes");
    });
  });

  test("copy stays right after further writes", () => {
    const writer = new ByteWriter(8);
    writer.text("abc");
    const copy = writer.copy();
    writer.clear();
    writer.text("xyz");
    expect(Buffer.from(copy).toString()).toBe("abc");
  });

  test("clear gives back the memory of an unusually large run, and of no other", () => {
    const writer = new ByteWriter(64);
    writer.bytes(new Uint8Array(500));
    const { buffer } = writer;
    writer.clear();
    expect(writer.buffer).toBe(buffer);
    writer.bytes(new Uint8Array(5000));
    writer.clear();
    expect(writer.buffer.length).toBe(64);
    expect(writer.length).toBe(0);
  });
});
