/** Reply packets in hex, most from the worked session (docs/protocol.md, "Worked session"), to values. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { decodeReply, parseSmtpReply, type Reply } from "../../src/protocol/replies.ts";

setDefaultTimeout(120_000);

/** Decodes a whole packet that lies inside other bytes, none of which may be looked at. */
function decode(hex: string): Reply {
  const packet = Buffer.from(hex.replaceAll(" ", ""), "hex");
  expect(packet.readUInt32BE(0)).toBe(packet.length - 4);
  const padded = Buffer.concat([Buffer.from("?\0?"), packet, Buffer.from("\0?\0")]);
  return decodeReply(packet[4]!, padded, 3 + 5, 3 + packet.length);
}

const cases: readonly [name: string, hex: string, expected: Reply][] = [
  ["CONTINUE", "00000001 63", { kind: "continue" }],
  ["ACCEPT", "00000001 61", { kind: "accept" }],
  ["REJECT", "00000001 72", { kind: "reject" }],
  ["TEMPFAIL", "00000001 74", { kind: "tempfail" }],
  ["DISCARD", "00000001 64", { kind: "discard" }],
  ["SKIP", "00000001 73", { kind: "skip" }],
  ["PROGRESS", "00000001 70", { kind: "progress" }],
  [
    "REPLYCODE",
    "00000018 79 35353020352e312e31204e6f2073756368207573657200",
    { kind: "replycode", code: 550, enhanced: "5.1.1", lines: ["No such user"] },
  ],
  [
    "REPLYCODE with two lines and a doubled per cent sign",
    "00000023 79 3535302d352e372e3120313030252520 6e6f0d0a35353020352e372e312062796500",
    { kind: "replycode", code: 550, enhanced: "5.7.1", lines: ["100% no", "bye"] },
  ],
  [
    "INSHEADER",
    "00000012 69 00000000 582d506d696c74657200 6f6b00",
    { kind: "insertHeader", index: 0, name: "X-Pmilter", value: "ok" },
  ],
  [
    "CHGHEADER",
    "00000014 6d 00000001 5375626a65637400 5b785d20686900",
    { kind: "changeHeader", index: 1, name: "Subject", value: "[x] hi" },
  ],
  ["CHGHEADER, delete", "0000000a 6d 00000001 582d4100 00", { kind: "changeHeader", index: 1, name: "X-A", value: "" }],
  ["ADDHEADER", "00000007 68 582d4100 6200", { kind: "addHeader", name: "X-A", value: "b" }],
  ["REPLBODY", "00000005 62 48690d0a", { kind: "replaceBody", chunk: Buffer.from("Hi\r\n") }],
  ["REPLBODY, empty", "00000001 62", { kind: "replaceBody", chunk: Buffer.alloc(0) }],
  [
    "ADDRCPT",
    "0000000d 2b 3c63406d782e746573743e00",
    { kind: "addRecipient", address: "<c@mx.test>", params: "", withParams: false },
  ],
  [
    "ADDRCPT_PAR",
    "00000009 32 3c633e00 413d3100",
    { kind: "addRecipient", address: "<c>", params: "A=1", withParams: true },
  ],
  [
    "ADDRCPT_PAR without arguments",
    "00000005 32 3c633e00",
    { kind: "addRecipient", address: "<c>", params: "", withParams: true },
  ],
  ["DELRCPT", "0000000d 2d 3c62406d782e746573743e00", { kind: "deleteRecipient", address: "<b@mx.test>" }],
  ["CHGFROM", "00000004 65 3c3e00", { kind: "changeFrom", address: "<>", params: "" }],
  ["CHGFROM with arguments", "00000008 65 3c3e00 413d3100", { kind: "changeFrom", address: "<>", params: "A=1" }],
  ["QUARANTINE", "00000005 71 77687900", { kind: "quarantine", reason: "why" }],
  [
    "OPTNEG",
    "0000002b 4f 00000006 00000131 00000580 00000003 7b726370745f616464727d207b726370745f6d61696c65727d00",
    {
      kind: "optneg",
      version: 6,
      actions: 0x131,
      protocol: 0x580,
      lists: [{ stage: 3, names: ["{rcpt_addr}", "{rcpt_mailer}"] }],
    },
  ],
  [
    "OPTNEG with an empty list",
    "00000012 4f 00000006 00000100 00000000 00000004 00",
    { kind: "optneg", version: 6, actions: 0x100, protocol: 0, lists: [{ stage: 4, names: [] }] },
  ],
  ["a value that is not UTF-8", "00000005 68 4100 ff00", { kind: "addHeader", name: "A", value: "\udcff" }],
];

const malformed: readonly [name: string, hex: string][] = [
  ["a byte after CONTINUE", "00000002 63 00"],
  ["SETSYMLIST, which never travels alone", "00000001 6c"],
  ["SHUTDOWN", "00000001 34"],
  ["an unknown code", "00000001 7a"],
  ["REPLYCODE without NUL", "00000009 79 35353020612062 63"],
  ["REPLYCODE with a NUL inside", "0000000a 79 353530206100 6200 00"],
  ["ADDHEADER with one string", "00000005 68 582d4100"],
  ["ADDHEADER with three strings", "00000009 68 582d4100 6200 6300"],
  ["ADDHEADER without the last NUL", "00000006 68 582d4100 62"],
  ["ADDHEADER with an empty name", "00000004 68 00 6200"],
  ["ADDHEADER with a colon in the name", "00000007 68 582d413a00 00"],
  ["INSHEADER too short for its index", "00000004 69 000000"],
  ["CHGHEADER with an index alone", "00000005 6d 00000001"],
  ["ADDRCPT with arguments", "00000009 2b 3c633e00 413d3100"],
  ["ADDRCPT with an empty address", "00000002 2b 00"],
  ["ADDRCPT_PAR with three strings", "0000000b 32 3c633e00 413d3100 6200"],
  ["CHGFROM without anything", "00000001 65"],
  ["QUARANTINE with an empty reason", "00000002 71 00"],
  ["OPTNEG of 11 bytes", "0000000c 4f 00000006 00000131 000005"],
  ["OPTNEG with half a stage", "0000000f 4f 00000006 00000131 00000580 0000"],
  ["OPTNEG with a list without NUL", "00000012 4f 00000006 00000131 00000580 00000003 69"],
];

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(ProtocolError);
    return (error as ProtocolError).code;
  }
  return "none";
}

describe("decodeReply", () => {
  test.each(cases)("%s", (_name, hex, expected) => {
    expect(decode(hex)).toEqual(expected);
  });

  test.each(malformed)("refuses %s", (_name, hex) => {
    expect(codeOf(() => decode(hex))).toBe("PMILTER_ERR_REPLY");
  });

  test("takes REPLBODY of 65535 bytes and refuses one of 65536", () => {
    expect(decodeReply(0x62, Buffer.alloc(65_535)).kind).toBe("replaceBody");
    expect(codeOf(() => decodeReply(0x62, Buffer.alloc(65_536)))).toBe("PMILTER_ERR_REPLY");
  });

  test("random bytes give a reply or a ProtocolError", () => {
    for (let round = 0; round < 5000; round++) {
      const bytes = crypto.getRandomValues(Buffer.alloc(round % 24));
      codeOf(() => decodeReply(crypto.getRandomValues(Buffer.alloc(1))[0]!, bytes));
    }
  });
});

describe("parseSmtpReply", () => {
  test("takes an enhanced code off, also one without text", () => {
    expect(parseSmtpReply("451 4.7.1 later")).toEqual({ code: 451, enhanced: "4.7.1", lines: ["later"] });
    expect(parseSmtpReply("550 5.7.1")).toEqual({ code: 550, enhanced: "5.7.1", lines: [""] });
    expect(parseSmtpReply("550 ")).toEqual({ code: 550, enhanced: "", lines: [""] });
    expect(parseSmtpReply("550 no code")).toEqual({ code: 550, enhanced: "", lines: ["no code"] });
  });

  test("keeps an enhanced code that differs from the first line's", () => {
    expect(parseSmtpReply("550-5.7.1 a\r\n550 5.1.1 b").lines).toEqual(["a", "5.1.1 b"]);
  });

  test("drops a single per cent sign and halves a double one", () => {
    expect(parseSmtpReply("550 5.7.1 a%b %% %%%").lines).toEqual(["ab % %"]);
  });

  test.each([
    ["a code of another class", "250 2.0.0 ok"],
    ["a code of two digits", "55 no"],
    ["no space after the code", "550no"],
    ["a bare code", "550"],
    ["a hyphen on the last line", "550-no"],
    ["a space on a line before the last", "550 a\r\n550 b"],
    ["different codes", "550-a\r\n551 b"],
    ["different classes", "550-a\r\n450 b"],
    ["a fifth character that is another digit", "550 4.7.1 no"],
    ["the same on a later line", "550-5.7.1 a\r\n550 3 strikes"],
    ["a lone LF", "550 a\nb"],
    ["a lone CR", "550 a\rb"],
    ["a line end at the end", "550 a\r\n"],
    ["no text", ""],
  ])("refuses %s", (_name, text) => {
    expect(codeOf(() => parseSmtpReply(text))).toBe("PMILTER_ERR_REPLY");
  });
});
