/** Names as the DNS has them, and those of addresses. */
import { expect, test } from "bun:test";
import { addressBytes, asDnsName, reversed, reverseName } from "../../src/dns/names.ts";

test.each([
  ["Example.ORG.", "example.org"],
  ["_dmarc.example.org", "_dmarc.example.org"],
  ["bücher.example", "xn--bcher-kva.example"],
  ["a".repeat(63) + ".example", "a".repeat(63) + ".example"],
])("%p is asked for as %p", (text, name) => {
  expect(asDnsName(text)).toBe(name);
});

test.each([
  "",
  ".",
  "..",
  "a..b",
  ".a",
  "a b",
  "a\0b",
  "a@b",
  "[192.0.2.1]\n",
  "a".repeat(64) + ".example",
  "a.".repeat(128),
  "\\000",
  "a;b",
])("%p is no name", (text) => {
  expect(asDnsName(text)).toBeNull();
});

test.each([
  ["192.0.2.1", "1.2.0.192", "1.2.0.192.in-addr.arpa"],
  ["::ffff:192.0.2.1", "1.2.0.192", "1.2.0.192.in-addr.arpa"],
  ["2001:db8::567:89ab", "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2", null],
  ["::", "0.".repeat(31) + "0", null],
  ["fe80::1%eth0", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f", null],
  ["64:ff9b::192.0.2.33", "1.2.2.0.0.0.0.c." + "0.".repeat(16) + "b.9.f.f.4.6.0.0", null],
])("the reverse of %p", (address, digits, name) => {
  expect(reversed(address)).toBe(digits);
  expect(reverseName(address)).toBe(name ?? `${digits}.ip6.arpa`);
});

test("what is no address has no bytes", () => {
  for (const text of ["", "localhost", "1.2.3", "1.2.3.4.5", "::1::", "unix:/run/x"])
    expect(addressBytes(text)).toBeNull();
});
