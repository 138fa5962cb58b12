/** Addresses of the envelope as handlers read them: parts of the mailbox, whatever its spelling. */
import { expect, test } from "bun:test";
import type { Address } from "../../src/handler/types.ts";
import { cmd } from "../protocol/wire.ts";
import { Line } from "./harness.ts";

const partsOf = ({ local, domain, mailbox }: Address): string[] => [local, domain, mailbox];

/** The sender and the recipients of a message, as a handler at eom has them. */
function envelope(sender: string, recipients: readonly string[]): { sender: Address; recipients: readonly Address[] } {
  let seen: { sender: Address; recipients: readonly Address[] } | undefined;
  const line = Line.to([
    { eom: ({ message }) => void (seen = { sender: message.sender, recipients: message.recipients }) },
  ]);
  const utf8 = (text: string): string => Buffer.from(text).toString("latin1");
  line.send(cmd.mail(utf8(sender)), ...recipients.map((recipient) => cmd.rcpt(utf8(recipient))), cmd.eom());
  expect(line.failures).toEqual([]);
  return seen!;
}

/** An address as the client spelled it; local part, domain and mailbox. */
const ADDRESSES: readonly (readonly [raw: string, local: string, domain: string, mailbox: string])[] = [
  ["<jane@example.org>", "jane", "example.org", "jane@example.org"],
  ["jane@example.org", "jane", "example.org", "jane@example.org"],
  ["<Jane.Doe@EXAMPLE.org.>", "Jane.Doe", "example.org", "Jane.Doe@example.org"],
  ["<@relay.test,@b.test:jane@example.org>", "jane", "example.org", "jane@example.org"],
  ['<"jane"@example.org>', "jane", "example.org", "jane@example.org"],
  ['<"jane doe"@example.org>', "jane doe", "example.org", '"jane doe"@example.org'],
  ['<"a@b\\"c"@example.org>', 'a@b"c', "example.org", '"a@b\\"c"@example.org'],
  ["<jane+tag@example.org>", "jane+tag", "example.org", "jane+tag@example.org"],
  ["<jane%example.org>", "jane", "example.org", "jane@example.org"],
  ["<example.org!jane>", "jane", "example.org", "jane@example.org"],
  ["<jäne@bücher.example>", "jäne", "xn--bcher-kva.example", "jäne@xn--bcher-kva.example"],
  ["<jane@[192.0.2.1]>", "jane", "[192.0.2.1]", "jane@[192.0.2.1]"],
  ["<jane@[IPv6:2001:DB8::1]>", "jane", "[ipv6:2001:db8::1]", "jane@[ipv6:2001:db8::1]"],
  ["<postmaster>", "postmaster", "", "postmaster"],
  ["<>", "", "", ""],
  ["", "", "", ""],
];

test.each(ADDRESSES)("%j", (raw, local, domain, mailbox) => {
  const { sender, recipients } = envelope(raw, [raw]);
  expect(partsOf(sender)).toEqual([local, domain, mailbox]);
  expect(partsOf(recipients[0]!)).toEqual([local, domain, mailbox]);
});

test("text that is no address throws nothing", () => {
  for (const raw of [
    "<",
    ">",
    '<"',
    "<(",
    "<\\",
    "<@",
    "<@:",
    ":;",
    "<a b c>",
    "<a@b@c@>",
    "\ufffd@\u0000".slice(0, 2),
    "x".repeat(5000),
  ]) {
    for (const part of partsOf(envelope(raw, []).sender)) expect(typeof part).toBe("string");
  }
});

test("an address that a handler gave has the same members", () => {
  const seen: unknown[] = [];
  const line = Line.to([
    {
      eom({ message }) {
        message.changeFrom('"new"@Example.ORG', ["RET=HDRS"]);
        message.addRecipient("<bob@BÜCHER.example>");
        for (const { raw, address, params } of [message.sender, message.recipients.at(-1)!]) {
          seen.push([raw, address, params]);
        }
        seen.push(partsOf(message.sender), partsOf(message.recipients.at(-1)!));
        message.changeFrom("");
        seen.push([message.sender.raw, message.sender.address], partsOf(message.sender));
      },
    },
  ]);
  line.send(cmd.mail(), cmd.rcpt(), cmd.eom());
  expect(line.failures).toEqual([]);
  expect(seen).toEqual([
    ['<"new"@Example.ORG>', '"new"@Example.ORG', ["RET=HDRS"]],
    ["<bob@BÜCHER.example>", "bob@BÜCHER.example", []],
    ["new", "example.org", "new@example.org"],
    ["bob", "xn--bcher-kva.example", "bob@xn--bcher-kva.example"],
    ["<>", ""],
    ["", "", ""],
  ]);
});

test("deleteRecipient finds by the mailbox what it names", () => {
  const spelled = [
    '<@r.test:"jane"@EXAMPLE.org.>',
    "<jane%example.org>",
    '<"jane doe"@example.org>',
    "<jäne@bücher.example>",
  ];
  const line = Line.to([
    {
      eom({ message }) {
        for (const { mailbox } of message.recipients) message.deleteRecipient(mailbox);
        expect(message.recipients).toEqual([]);
      },
    },
  ]);
  line.send(cmd.mail(), ...spelled.map((raw) => cmd.rcpt(Buffer.from(raw).toString("latin1"))), cmd.eom());
  expect(line.failures).toEqual([]);
});
