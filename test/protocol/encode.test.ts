/** Replies in hex: those of the worked session (docs/protocol.md, "Worked session"), and others. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { decodeText } from "../../src/protocol/bytes.ts";
import { encodeAddress, encodeReplyCode, PLAIN_REPLIES, ReplyWriter } from "../../src/protocol/encode.ts";
import { forSeeds, mustEqual } from "./random.ts";
import { fromHex, packet, packetsOf } from "./wire.ts";

setDefaultTimeout(120_000);

function hexOf(write: (writer: ReplyWriter) => void): string {
  const writer = new ReplyWriter(4);
  write(writer);
  return Buffer.from(writer.copy()).toString("hex");
}

const cases: readonly [name: string, hex: string, write: (writer: ReplyWriter) => void][] = [
  [
    "optneg with a macro list",
    `00 00 00 2b 4f 00 00 00 06 00 00 01 31 00 00 05
     80 00 00 00 03 7b 72 63 70 74 5f 61 64 64 72 7d
     20 7b 72 63 70 74 5f 6d 61 69 6c 65 72 7d 00`,
    (w) => w.optneg(6, 0x131, 0x580, [{ stage: 3, names: ["{rcpt_addr}", "{rcpt_mailer}"] }]),
  ],
  ["optneg without lists", "0000000d 4f 00000002 00000000 0000007f", (w) => w.optneg(2, 0, 0x7f, [])],
  [
    "optneg with an empty list",
    "00000012 4f 00000006 00000100 00000000 00000004 00",
    (w) => w.optneg(6, 0x100, 0, [{ stage: 4, names: [] }]),
  ],
  ["CONTINUE", "00000001 63", (w) => w.packet(PLAIN_REPLIES.CONTINUE)],
  ["ACCEPT", "00000001 61", (w) => w.packet(PLAIN_REPLIES.ACCEPT)],
  ["REJECT", "00000001 72", (w) => w.packet(PLAIN_REPLIES.REJECT)],
  ["TEMPFAIL", "00000001 74", (w) => w.packet(PLAIN_REPLIES.TEMPFAIL)],
  ["DISCARD", "00000001 64", (w) => w.packet(PLAIN_REPLIES.DISCARD)],
  ["SKIP", "00000001 73", (w) => w.packet(PLAIN_REPLIES.SKIP)],
  ["PROGRESS", "00000001 70", (w) => w.packet(PLAIN_REPLIES.PROGRESS)],
  [
    "replyCode",
    `00 00 00 18 79 35 35 30 20 35 2e 31 2e 31 20 4e
     6f 20 73 75 63 68 20 75 73 65 72 00`,
    (w) => w.replyCode("550 5.1.1 No such user"),
  ],
  [
    "replyCode of two lines",
    `00 00 00 23 79 35 35 30 2d 35 2e 37 2e 31 20 31
     30 30 25 25 20 6e 6f 0d 0a 35 35 30 20 35 2e 37
     2e 31 20 62 79 65 00`,
    (w) => w.packet(encodeReplyCode("550-5.7.1 100%% no\r\n550 5.7.1 bye")),
  ],
  ["insertHeader", "00000012 69 00000000 582d506d696c74657200 6f6b00", (w) => w.insertHeader(0, "X-Pmilter", "ok")],
  [
    "changeHeader",
    "00000014 6d 00000001 5375626a65637400 5b785d20686900",
    (w) => w.changeHeader(1, "Subject", "[x] hi"),
  ],
  ["changeHeader to nothing deletes", "0000000a 6d 00000001 582d4100 00", (w) => w.changeHeader(1, "X-A", "")],
  ["addHeader", "00000008 68 582d4100 206200", (w) => w.addHeader("X-A", " b")],
  ["addHeader with bytes that are not UTF-8", "00000006 68 4100 c3ff00", (w) => w.addHeader("A", "\udcc3\udcff")],
  ["replaceBody", "00000005 62 48690d0a", (w) => w.replaceBody([Buffer.from("Hi\r\n")])],
  ["replaceBody with nothing", "00000001 62", (w) => w.replaceBody([])],
  ["addRecipient", "0000000d 2b 3c63406d782e746573743e00", (w) => w.addRecipient(encodeAddress("c@mx.test"), "")],
  ["addRecipient with arguments", "00000009 32 3c633e00 413d3100", (w) => w.addRecipient(encodeAddress("<c>"), "A=1")],
  ["deleteRecipient", "0000000d 2d 3c62406d782e746573743e00", (w) => w.deleteRecipient(encodeAddress("b@mx.test"))],
  ["changeFrom to the null sender", "00000004 65 3c3e00", (w) => w.changeFrom(encodeAddress(""), "")],
  ["changeFrom with arguments", "00000008 65 3c3e00 413d3100", (w) => w.changeFrom(encodeAddress("<>"), "A=1")],
  ["quarantine", "00000005 71 77687900", (w) => w.quarantine("why")],
];

describe("ReplyWriter", () => {
  test.each(cases)("%s", (_name, hex, write) => {
    expect(hexOf(write)).toBe(fromHex(hex).toString("hex"));
  });

  test("writes packets one behind the other", () => {
    expect(hexOf((w) => cases.slice(3, 6).forEach(([, , write]) => write(w)))).toBe("000000016300000001610000000172");
  });

  test("never sends the internal protocol bits", () => {
    expect(hexOf((w) => w.optneg(6, 0, 0x701fffff, []))).toBe("0000000d4f0000000600000000001fffff");
  });

  test.each([65_534, 65_535, 65_536, 131_070, 131_071])("cuts a body of %d bytes at 65535, in one run", (size) => {
    const body = Buffer.alloc(size, "0123456789");
    const writer = new ReplyWriter();
    writer.replaceBody([body]);
    const packets = packetsOf(writer.copy());
    expect(packets).toHaveLength(Math.ceil(size / 65_535));
    expect(packets.every((text) => text.startsWith("b") && text.length <= 1 + 65_535)).toBe(true);
    expect(packets.map((text) => text.slice(1)).join("") === body.toString("latin1")).toBe(true);
  });

  test("a held body has its place among the packets, and is released unless it is taken", () => {
    const writer = new ReplyWriter();
    const released: string[] = [];
    const held = (text: string) => ({ pieces: [Buffer.from(text)], release: () => void released.push(text) });
    expect([writer.isEmpty, writer.hasHeld]).toEqual([true, false]);
    writer.heldBody(held("first"));
    expect([writer.isEmpty, writer.hasHeld, writer.length]).toEqual([false, true, 0]);
    writer.packet(PLAIN_REPLIES.CONTINUE);
    writer.heldBody(held("second"));
    expect(packetsOf(writer.copy())).toEqual(["bfirst", "c", "bsecond"]);
    expect(released).toEqual([]);
    writer.clear();
    expect([released, writer.isEmpty]).toEqual([["first", "second"], true]);
    writer.heldBody(held("third"));
    expect(writer.takeHeld().map(({ at }) => at)).toEqual([0]);
    writer.clear();
    expect(released).toEqual(["first", "second"]);
  });

  test("writes what the naive writer writes, for any header", () => {
    forSeeds(1000, (random) => {
      const name = random.pick(["A", "X-Some-Name", "Subject"]);
      const raw = random.bytes(random.below(30)).toString("latin1").replaceAll("\0", "x");
      const value = decodeText(Buffer.from(raw, "latin1"));
      const index = random.u32();
      const expected = Buffer.concat([
        packet("h", `${name}\0${raw}\0`),
        packet("i", index, `${name}\0${raw}\0`),
        packet("m", index, `${name}\0${raw}\0`),
      ]);
      const seen = hexOf((w) => {
        w.addHeader(name, value);
        w.insertHeader(index, name, value);
        w.changeHeader(index, name, value);
      });
      mustEqual(seen, expected.toString("hex"), "packets");
    });
  });
});

describe("PLAIN_REPLIES", () => {
  test("each is one whole packet without a payload", () => {
    expect(
      Object.values(PLAIN_REPLIES)
        .flatMap((bytes) => packetsOf(bytes))
        .join(""),
    ).toBe("cartdsp");
  });
});

describe("encodeAddress", () => {
  test.each([
    ["a@b", "<a@b>"],
    ["<a@b>", "<a@b>"],
    ["", "<>"],
    ["<>", "<>"],
    ["\udcffa@b", "<\xffa@b>"],
  ])("%j is sent as %j", (address, sent) => {
    expect(Buffer.from(encodeAddress(address)).toString("latin1")).toBe(sent);
  });
});
