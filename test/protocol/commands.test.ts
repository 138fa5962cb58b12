/** The packets of the worked session (docs/protocol.md, "Worked session"), as a mail server writes them. */
import { describe, expect, test } from "bun:test";
import { CommandWriter } from "../../src/protocol/commands.ts";
import { COMMAND, FAMILY } from "../../src/protocol/constants.ts";

function hexOf(write: (writer: CommandWriter) => void): string {
  const writer = new CommandWriter(8);
  write(writer);
  return Buffer.from(writer.copy()).toString("hex");
}

const cases: readonly [name: string, hex: string, write: (writer: CommandWriter) => void][] = [
  ["optneg", "0000000d4f00000006000001ff001fffff", (w) => w.optneg(6, 0x1ff, 0x1fffff)],
  ["macro with a pair", "0000000c44436a006d782e7465737400", (w) => w.macro(COMMAND.CONNECT, [["j", "mx.test"]])],
  ["macro without pairs", "000000024448", (w) => w.macro(COMMAND.HELO, [])],
  [
    "connect, IPv4",
    "0000001543632e7465737400349c403139322e302e322e3700",
    (w) => w.connect("c.test", FAMILY.INET, 40000, "192.0.2.7"),
  ],
  [
    "connect, IPv6",
    "000000184376362e7465737400369c40323030313a6462383a3a3100",
    (w) => w.connect("v6.test", FAMILY.INET6, 40000, "2001:db8::1"),
  ],
  ["connect, unknown family", "0000000a43756e6b6e6f776e0055", (w) => w.connect("unknown", FAMILY.UNKNOWN, 1, "x")],
  ["helo", "0000000848632e7465737400", (w) => w.helo("c.test")],
  [
    "mail with an argument",
    "000000144d3c6140632e746573743e0053495a453d393900",
    (w) => w.mail("<a@c.test>", ["SIZE=99"]),
  ],
  ["mail, null sender", "000000044d3c3e00", (w) => w.mail("<>")],
  ["rcpt", "0000000d523c62406d782e746573743e00", (w) => w.rcpt("<b@mx.test>")],
  ["data", "0000000154", (w) => w.data()],
  ["header", "000000134c5375626a6563740068690a20746865726500", (w) => w.header("Subject", "hi\n there")],
  ["eoh", "000000014e", (w) => w.eoh()],
  ["body", "000000084248656c6c6f0d0a", (w) => w.body(Buffer.from("Hello\r\n"))],
  ["bodyeob", "0000000145", (w) => w.bodyeob()],
  ["bodyeob with a last piece", "00000003454869", (w) => w.bodyeob(Buffer.from("Hi"))],
  ["abort", "0000000141", (w) => w.abort()],
  ["quit", "0000000151", (w) => w.quit()],
  ["quitNc", "000000014b", (w) => w.quitNc()],
  ["unknown", "000000065557486f3f00", (w) => w.unknown("WHo?")],
];

describe("CommandWriter", () => {
  test.each(cases)("%s", (_name, hex, write) => {
    expect(hexOf(write)).toBe(hex);
  });

  test("packets follow each other in one buffer", () => {
    expect(hexOf((w) => (w.data(), w.eoh()))).toBe("0000000154000000014e");
  });

  test("bytes that are not UTF-8 leave as they were read", () => {
    expect(hexOf((w) => w.helo("a\udcff"))).toBe("000000044861ff00");
  });
});
