/** Spellings of mailboxes: which are one, and which may be sent. What the mail servers make of them is tested behind them. */
import { describe, expect, test } from "bun:test";
import { mailboxKey, deletionsOf, writtenMailbox } from "../../src/mime/mailbox.ts";

describe("mailboxKey", () => {
  test.each([
    ["jane@example.org", "jane@example.org"],
    ["<jane@example.org>", "jane@example.org"],
    ["<@relay.test:jane@example.org>", "jane@example.org"],
    ["<@a.test,@b.test:jane@example.org>", "jane@example.org"],
    ["<@a.test:@b.test:jane@example.org>", "jane@example.org"],
    ["@a.test:jane@example.org", "jane@example.org"],
    ["<@[IPv6:2001:db8::1]:jane@example.org>", "jane@example.org"],
    ["<(a:b)@a.test(c):jane@example.org>", "jane@example.org"],
    ['<"jane"@example.org>', "jane@example.org"],
    ['<@a.test:"jane"@EXAMPLE.org.>', "jane@example.org"],
    ['<"ja\\ne"@example.org>', "jane@example.org"],
    ["<ja\\ne@example.org>", "jane@example.org"],
    ['<"jane"."doe"@example.org>', "jane.doe@example.org"],
    ['<"jane doe"@example.org>', '"jane doe"@example.org'],
    ["<jane\\ doe@example.org>", '"jane doe"@example.org'],
    ['<"jane\tdoe"@example.org>', '"jane doe"@example.org'],
    ["<jane@EXAMPLE.Org>", "jane@example.org"],
    ["<jane@example.org.>", "jane@example.org"],
    ["<jane@example.org..>", "jane@example.org"],
    ["< jane @ example.org >", "jane@example.org"],
    ["<jane(a (nested \\) one) comment)@example.org>", "jane@example.org"],
    ["<<jane@example.org>>", "jane@example.org"],
    ["Jane <jane@example.org>", "jane@example.org"],
    ["<jane@example.org>x", "jane@example.org"],
    ["<group:jane@example.org;>", "jane@example.org"],
    ['<jane@"example.org">', "jane@example.org"],
    ["<jane@bücher.example>", "jane@xn--bcher-kva.example"],
    ["<jane@BÜCHER.example.>", "jane@xn--bcher-kva.example"],
    ["<jane@XN--BCHER-KVA.example>", "jane@xn--bcher-kva.example"],
    ["<jane@[192.0.2.1]>", "jane@[192.0.2.1]"],
    ["<jane@[IPv6:2001:DB8::1]>", "jane@[ipv6:2001:db8::1]"],
    ["<jane%example.org>", "jane@example.org"],
    ["<example.org!jane>", "jane@example.org"],
    ["<@a.test:jane%example.org>", "jane@example.org"],
    ["<jane@example.org@>", "jane@example.org"],
    ["<jane%example.org@>", "jane@example.org"],
    ["<example.org!jane@>", "jane@example.org"],
    ['<"jane@example.org">', "jane@example.org"],
    ['<"jane@example.org"@>', "jane@example.org"],
    ["<jane@[example.org]>", "jane@example.org"],
    ["<jane>", "jane"],
    ["<jane@>", "jane"],
    ['<"jane">', "jane"],
    ["<>", '""'],
    // Others.
    ["<Jane@example.org>", "Jane@example.org"],
    ["<jane%x@example.org>", "jane%x@example.org"],
    ["<x!jane@example.org>", "x!jane@example.org"],
    ['<"jane@x"@example.org>', '"jane@x"@example.org'],
    ["<jane@x@example.org>", '"jane@x"@example.org'],
    ['<"@a.test:jane"@example.org>', '"@a.test:jane"@example.org'],
    ['<"jane\\"q"@example.org>', '"jane\\"q"@example.org'],
    ['<"jane\\\\q"@example.org>', '"jane\\\\q"@example.org'],
    ['<"jane  doe"@example.org>', '"jane  doe"@example.org'],
    ["<j\u00e4ne@example.org>", "jäne@example.org"],
    ["<x:y@example.org>", '"x:y"@example.org'],
  ])("%s", (spelling, key) => {
    expect(mailboxKey(spelling)).toBe(key);
  });

  // A header has room for many. Their number squared would be billions of steps, and the test would not end in time.
  test("many dots or at signs take no longer than other text", () => {
    for (const run of [".", "@", "[", "!", "%"].map((each) => each.repeat(300_000))) {
      expect(mailboxKey(`jane@${run}x`)).toEndWith("x");
      expect(mailboxKey(`"${run}x"`)).not.toBe("");
    }
  });

  test("text that is no address has a key as well", () => {
    for (const text of [
      "",
      "<",
      ">",
      '"',
      '<"',
      "(",
      "\\",
      "[",
      "@",
      "<@:",
      "<@:>",
      ";",
      ":;",
      "a(",
      "\udc80@\ud800",
    ]) {
      expect(typeof mailboxKey(text)).toBe("string");
    }
  });
});

test("deletionsOf: as it came, as it is read, and without its route", () => {
  for (const raw of [
    "<jane@Example.org>",
    "jane@example.org",
    '<"a b"@example.org>',
    '<"jane"@x.test>',
    "<jane>",
    "<a.@x.test>",
  ]) {
    expect(deletionsOf(raw)).toEqual([raw]);
  }
  expect(deletionsOf("<<jane@example.org>>")).toEqual(["<<jane@example.org>>", "<jane@example.org>"]);
  expect(deletionsOf("<jane%example.org>")).toEqual(["<jane%example.org>"]);
  expect(deletionsOf('<@a.test:@b.test:"jane"@EXAMPLE.org.>')).toEqual([
    '<@a.test:@b.test:"jane"@EXAMPLE.org.>',
    "<jane@EXAMPLE.org.>",
    '<@b.test:"jane"@EXAMPLE.org.>',
  ]);
});

describe("writtenMailbox", () => {
  test.each([
    ["jane@example.org", "jane@example.org"],
    ["<jane@Example.org>", "jane@Example.org"],
    ["<jane@example.org.>", "jane@example.org"],
    ["<@a.test,@b.test:jane@example.org>", "jane@example.org"],
    ['"jane doe"@example.org', '"jane doe"@example.org'],
    ['"jane@\\"x\\\\"@example.org', '"jane@\\"x\\\\"@example.org'],
    ["jane..doe.@example.org", "jane..doe.@example.org"],
    ["o'neil+tag=x%y!z/{}@x", "o'neil+tag=x%y!z/{}@x"],
    ["jäne@bücher.example", "jäne@bücher.example"],
    ["jane@xn--bcher-kva.example", "jane@xn--bcher-kva.example"],
    ["jane@exa_mple.org", "jane@exa_mple.org"],
    ["jane@[192.0.2.1]", "jane@[192.0.2.1]"],
    ["jane@[IPv6:2001:db8::1]", "jane@[IPv6:2001:db8::1]"],
    [`${"l".repeat(241)}@example.org`, `${"l".repeat(241)}@example.org`],
  ])("%s", (address, mailbox) => {
    expect(writtenMailbox(address)).toEqual({ mailbox });
  });

  test.each([
    "",
    "<>",
    "jane",
    "jane@",
    "@example.org",
    "a b@example.org",
    "a@example.org,b@example.org",
    "<a@x>,<b@x>",
    "<a@x> <b@x>",
    "a@x@example.org",
    "Jane <jane@example.org>",
    "jane(c)@example.org",
    "jane@example.org (c)",
    "jane @example.org",
    "jane@ example.org",
    "ja\\ne@example.org",
    '"jane@example.org',
    '"a"b@example.org',
    '"jane".doe@example.org',
    "a;@example.org",
    "g:a@example.org;",
    "a[b]@example.org",
    "a,b@example.org",
    'a"b@example.org',
    "a)@example.org",
    "jane@exa mple.org",
    "jane@exam(c)ple.org",
    "jane@-example.org",
    "jane@example-.org",
    "jane@example..org",
    "jane@.example.org",
    "jane@192.0.2.1",
    "jane@[192.0.2.256]",
    "jane@[2001:db8::1]",
    "jane@[foo]",
    "jane@[192.0.2.1",
    `jane@${"d".repeat(64)}.test`,
    `${"l".repeat(242)}@example.org`,
    `${"ü".repeat(121)}@example.org`,
    "ja\u0001ne@example.org",
    "ja\u0085ne@example.org",
    '"ja\u0085ne"@example.org',
    '"ja\tne"@example.org',
    "ja\u007fne@example.org",
    "jane\n@example.org",
    "jane@example.org\r\n",
    "ja\0ne@example.org",
    "ja\udc80ne@example.org",
    "ja\ud800ne@example.org",
    "ja\u2028ne@example.org",
    "|/bin/sh",
    "/tmp/x",
    ":include:/etc/passwd",
    "jane%example.org",
    "example.org!jane",
    "<<jane@example.org>>",
  ])("refuses %j", (address) => {
    expect(writtenMailbox(address)).toHaveProperty("problem");
  });
});
