/**
 * The worked session (docs/protocol.md, "Worked session") by a filter: the chain is made to negotiate as there, and up to
 * the end of the message each reply is the same. The end's changes come in our own order.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { reject, skip } from "../../src/index.ts";
import { fromHex, packetsOf } from "../protocol/wire.ts";
import { type AnyFilter, chainOf, Line, settled } from "./harness.ts";

setDefaultTimeout(120_000);

const filter: AnyFilter = {
  connect: () => undefined,
  helo: () => undefined,
  envfrom: () => undefined,
  envrcpt: (_session, recipient) => (recipient === "<x@mx.test>" ? reject("550 5.1.1 No such user") : undefined),
  data: () => undefined,
  header: () => undefined,
  eoh: () => undefined,
  body: () => skip(),
  eom: async ({ message }) => {
    message.insertHeader(0, "X-Pmilter", "ok");
    message.changeHeader("Subject", "[x] hi");
    await released.promise;
  },
};
const released = Promise.withResolvers<void>();

/** What the mail server sends, and what it is answered. */
const STEPS: readonly [sent: string, replies: string][] = [
  [
    "0000000d 4f 00000006 000001ff 001fffff",
    `0000002b 4f 00000006 00000131 00000580 00000003
     7b726370745f616464727d 20 7b726370745f6d61696c65727d 00`,
  ],
  ["0000000c 44436a006d782e7465737400", ""],
  ["00000015 43632e7465737400349c403139322e302e322e3700", "00000001 63"],
  ["00000002 4448", ""],
  ["00000008 48632e7465737400", "00000001 63"],
  ["00000017 444d7b6d61696c5f616464727d006140632e7465737400", ""],
  ["00000014 4d3c6140632e746573743e0053495a453d393900", "00000001 63"],
  ["0000002c 44527b726370745f616464727d0062406d782e74657374007b726370745f6d61696c65727d006c6f63616c00", ""],
  ["0000000d 523c62406d782e746573743e00", "00000001 63"],
  ["0000000d 523c78406d782e746573743e00", "00000018 7935353020352e312e31204e6f2073756368207573657200"],
  ["00000009 44546900345a423100", ""],
  ["00000001 54", "00000001 63"],
  ["00000011 4c46726f6d003c6140632e746573743e00", ""],
  ["00000013 4c5375626a6563740068690a20746865726500", ""],
  ["00000001 4e", "00000001 63"],
  ["00000008 4248656c6c6f0d0a", "00000001 73"],
  ["00000009 44456900345a423100", ""],
];

test("Conversation plays the worked session of the document", async () => {
  const chain = Object.assign(chainOf([filter]), {
    wants: { actions: 0x31, protocol: 0x580, macros: { RCPT: ["{rcpt_addr}", "{rcpt_mailer}"] } },
  });
  const line = new Line(chain);
  for (const [sent, replies] of STEPS) expect(line.send(fromHex(sent))).toEqual(packetsOf(fromHex(replies)));
  expect(line.send(fromHex("00000001 45"))).toEqual([]);
  line.host.advance(3000);
  expect(line.replies()).toEqual(packetsOf(fromHex("00000001 70")));
  released.resolve();
  await settled();
  const end = line.replies();
  const changes = [
    "00000012 69 00000000 582d506d696c74657200 6f6b00",
    "00000014 6d 00000001 5375626a65637400 5b785d20686900",
  ].flatMap((hex) => packetsOf(fromHex(hex)));
  expect(end.slice(0, -1).toSorted()).toEqual(changes.toSorted());
  expect(["a", "c"]).toContain(end.at(-1)!);
  expect(line.send(fromHex("00000001 41"), fromHex("00000001 51"))).toEqual([]);
  expect(line.conversation.isOver).toBe(true);
  expect(line.failures).toEqual([]);
});
