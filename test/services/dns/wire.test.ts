/** Names and records on the wire: odd bytes, escapes, lengths, and text that is not UTF-8. */
import { describe, expect, test } from "bun:test";
import dnsPacket from "dns-packet";
import type { RecordType } from "../../../src/dns/answer.ts";
import { decodeReply, encodeName, encodeQuery, UnreadableReply } from "../../../src/services/dns/wire.ts";

const wireName = (...labels: readonly (string | readonly number[])[]): number[] => [
  ...labels.flatMap((label) => {
    const bytes = typeof label === "string" ? [...Buffer.from(label)] : label;
    return [[bytes.length], bytes].flat();
  }),
  0,
];
const NAME = "x.example";

/** A reply with one record. */
function replyWith(type: RecordType, code: number, data: readonly number[], name: readonly number[] = [0xc0, 12]) {
  const query = encodeQuery(7, { name: NAME, type }, false);
  const bytes = [...query, ...name, code >> 8, code & 255, 0, 1, 0, 0, 0, 60, data.length >> 8, data.length & 255];
  const reply = Uint8Array.from([...bytes, ...data]);
  reply[2]! |= 0x80;
  reply[7] = 1;
  return reply;
}
const recordIn = (type: RecordType, code: number, data: readonly number[]) =>
  decodeReply(replyWith(type, code, data), 7, { name: NAME, type })!.answers[0]!.data;

test("a query is what other programs read", () => {
  const packet = dnsPacket.decode(Buffer.from(encodeQuery(0x1234, { name: "a_b.example", type: "TLSA" }, true)));
  expect(packet).toMatchObject({ id: 0x1234, type: "query", flag_rd: true, opcode: "QUERY" });
  expect(packet.questions).toMatchObject([{ name: "a_b.example", type: "TLSA", class: "IN" }]);
  expect(packet.additionals).toMatchObject([{ type: "OPT", udpPayloadSize: 1232, ednsVersion: 0 }]);
});

test.each([
  ["a.b", wireName("a", "b")],
  [String.raw`a\.b.c`, wireName("a.b", "c")],
  [String.raw`a\000\255.c`, wireName([97, 0, 255], "c")],
  [String.raw`a\\b`, wireName(String.raw`a\b`)],
])("%p is a name with its odd bytes", (text, bytes) => {
  expect(encodeName(text)).toEqual(bytes);
  expect(recordIn("PTR", 12, bytes)).toEqual({ record: text });
});

test.each(["a..b", ".a", "a.", "a".repeat(64), "a.".repeat(127) + "ab", "ü", String.raw`\999`])(
  "%p is no name",
  (text) => {
    expect(() => encodeName(text)).toThrow(RangeError);
  },
);

test("the root is an empty name: no mail is taken (RFC 7505)", () => {
  expect(recordIn("MX", 15, [0, 0, 0])).toEqual({ record: { exchange: "", priority: 0 } });
});

test("names have no bytes that end lines, spaces, or dots within a label", () => {
  const record = recordIn("PTR", 12, wireName("a\r\nb: c", "d.e", [0xfc, 0x80]));
  expect(record).toEqual({ record: String.raw`a\013\010b:\032c.d\.e.\252\128` });
});

test("text that is not UTF-8 keeps its bytes, as in headers", () => {
  const { record } = recordIn("TXT", 16, [3, 0x61, 0xff, 0x62, 2, 0xc3, 0xa9]) as { record: string };
  expect(record).toBe("a\udcffbé");
});

test.each([
  ["A", 1, [1, 2, 3]],
  ["A", 1, [1, 2, 3, 4, 5]],
  ["AAAA", 28, [1, 2, 3, 4]],
  ["MX", 15, [0]],
  ["MX", 15, [0, 1, ...wireName("a"), 9]],
  ["TXT", 16, [5, 1, 2]],
  ["CAA", 257, [0, 9, 1]],
  ["SRV", 33, [0, 1, 0, 1]],
  ["TLSA", 52, [1]],
  ["PTR", 12, [3, 97]],
  ["PTR", 12, [0x80, 1]],
] as const)("%s: a record of another form is no record: %#", (type, code, data) => {
  expect(recordIn(type, code, data)).toEqual({ record: null });
});

describe("messages that cannot be read", () => {
  const question = { name: NAME, type: "A" } as const;
  const good = replyWith("A", 1, [192, 0, 2, 1]);

  test("each shorter one is unreadable, or is no reply", () => {
    expect(decodeReply(good, 7, question)?.answers).toHaveLength(1);
    for (let length = 0; length < good.length; length++) {
      const cut = good.subarray(0, length);
      if (length < 12 + wireName("x", "example").length + 4) expect(decodeReply(cut, 7, question)).toBeNull();
      else expect(() => decodeReply(cut, 7, question)).toThrow(UnreadableReply);
    }
  });

  test.each([
    ["to itself", [0xc0, 27]],
    ["forwards", [0xc0, 40]],
    ["out of the message", [0xff, 0xff]],
  ])("a name that points %s", (_, name) => {
    expect(() => decodeReply(replyWith("A", 1, [192, 0, 2, 1], name), 7, question)).toThrow(UnreadableReply);
  });
});

test("an hour that is no time is none (RFC 2181 8)", () => {
  const reply = replyWith("A", 1, [192, 0, 2, 1]);
  reply[reply.length - 10] = 0x80;
  expect(decodeReply(reply, 7, { name: NAME, type: "A" })!.answers[0]!.ttl).toBe(0);
});

test("the upper bits of the code count (RFC 6891 6.1.3)", () => {
  const query = encodeQuery(7, { name: NAME, type: "A" }, true);
  query[2]! |= 0x80;
  query[query.length - 6] = 1;
  expect(decodeReply(query, 7, { name: NAME, type: "A" })!.rcode).toBe("RCODE16");
});
