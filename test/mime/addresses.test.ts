/** Addresses of header fields: what people and programs write, and what nobody should. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { parseAddresses } from "../../src/mime/addresses.ts";

setDefaultTimeout(120_000);

const all = (value: string) => parseAddresses(value).map(({ name, local, domain }) => `${name}|${local}|${domain}`);

test.each<[string, string[]]>([
  ["jane@example.org", ["|jane|example.org"]],
  ['"Doe, Jane" <jane@Example.ORG>, b@c.d', ["Doe, Jane|jane|example.org", "|b|c.d"]],
  ["=?utf-8?q?J=C3=B6rg?= <j@x.de>", ["Jörg|j|x.de"]],
  ["jane@example.org (Jane)", ["Jane|jane|example.org"]],
  ["Team: a@b.c, X <d@e.f>;, z@z.z", ["|a|b.c", "X|d|e.f", "|z|z.z"]],
  ["undisclosed-recipients:;", []],
  ['<"a b"@c.d>', ["|a b|c.d"]],
  ['"jane"@example.org', ["|jane|example.org"]],
  ["Jörg <j@münchen.de>", ["Jörg|j|xn--mnchen-3ya.de"]],
  // The name is not the address, however it looks.
  ['"boss@example.com" <evil@example.net>', ["boss@example.com|evil|example.net"]],
  ["boss@example.com <evil@example.net>", ["boss@example.com|evil|example.net"]],
  ['"xclow3n@example.com x"@internal.example', ["|xclow3n@example.com x|internal.example"]],
  ["<@relay.example:jane@example.org>", ["|jane|example.org"]],
  ["a@[127.0.0.1]", ["|a|[127.0.0.1]"]],
  ["No address", []],
  ["<>", []],
  ["", []],
  ["folded\r\n <a@b.c>", ["folded|a|b.c"]],
])("%j", (value, expected) => expect(all(value)).toEqual(expected));

test("several values are one list", () => {
  expect(parseAddresses(["a@b.c", "d@e.f, g@h.i"]).map(({ address }) => address)).toEqual(["a@b.c", "d@e.f", "g@h.i"]);
});

test("a broken value does not swallow the next one", () => {
  const broken = ['"Jane', "Jane <", "(Jane", "Team: a@b.c", "\\"];
  for (const value of broken) {
    expect(parseAddresses([value, "d@e.f"]).at(-1)).toEqual({ name: "", address: "d@e.f", local: "d", domain: "e.f" });
  }
  expect(parseAddresses([" ".repeat(64 * 1024), "d@e.f"])).toEqual([]);
});

test("what a client sends without end is bounded, and throws nothing", () => {
  expect(parseAddresses("a@b.c,".repeat(50_000))).toHaveLength(2000);
  for (const value of [",", "<", '"', "a:", "(", " ", "g:a@b;", "a@", "\\", "=?utf-8?q?"]) {
    expect(parseAddresses(value.repeat(40_000)).length).toBeLessThanOrEqual(2000);
  }
});
