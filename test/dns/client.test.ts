/** Calls that ask several questions: their timeout, and what they leave out. */
import { expect, test } from "bun:test";
import { dnsOf } from "../../src/dns/client.ts";

const FOREVER = new AbortController().signal;

/** A source that knows these records, and never answers other questions. */
function asking(records: Readonly<Record<string, readonly string[]>>) {
  const asked: string[] = [];
  const dns = dnsOf(
    {
      async resolve(name, type, signal) {
        const question = `${name} ${type}`;
        asked.push(question);
        const found = records[question];
        if (found !== undefined) return { status: "found", records: found as never, ttl: 60 };
        const { promise, reject } = Promise.withResolvers<never>();
        signal.addEventListener("abort", () => reject(signal.reason));
        return promise;
      },
    },
    () => FOREVER,
  );
  return { asked, dns };
}

const LISTED = { "7.2.0.192.zen.example A": ["127.0.0.2"] };

test("listed: what a list says counts, although its text does not come in time", async () => {
  const { asked, dns } = asking(LISTED);
  const listing = await dns.listed("192.0.2.7", "zen.example", { timeout: "20ms" });
  expect(listing).toEqual({ status: "listed", codes: ["127.0.0.2"], text: "" });
  expect(asked).toEqual(["7.2.0.192.zen.example A", "7.2.0.192.zen.example TXT"]);
});

test("listed: without its text, which is then not asked for", async () => {
  const { asked, dns } = asking(LISTED);
  expect(await dns.listed("192.0.2.7", "zen.example", { text: false })).toMatchObject({ status: "listed" });
  expect(asked).toEqual(["7.2.0.192.zen.example A"]);
});

test.each([
  ["192.0.2.7", "7.2.0.192"],
  ["[192.0.2.7]", "7.2.0.192"],
  ["::ffff:192.0.2.7", "7.2.0.192"],
  ["[IPv6:::ffff:192.0.2.7]", "7.2.0.192"],
  ["[ipv6:2001:db8::1]", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"],
  ["Bücher.example.", "xn--bcher-kva.example"],
])("listed: %p is looked up as %p", async (what, front) => {
  const question = `${front}.zen.example A`;
  const { asked, dns } = asking({ [question]: ["127.0.0.2"] });
  expect(await dns.listed(what, "zen.example", { text: false })).toMatchObject({ status: "listed" });
  expect(asked).toEqual([question]);
});

test("listed: the text is one line, whatever the list says", async () => {
  const hostile = `see\r\n550 x\0\u2028${"y".repeat(2000)}\udc80`;
  const { dns } = asking({ ...LISTED, "7.2.0.192.zen.example TXT": [hostile] });
  const { text } = await dns.listed("192.0.2.7", "zen.example");
  expect(text).toStartWith("see 550 x yyy");
  expect(text).toMatch(/^[ -~]{400,500}$/);
});

test("confirmedName: one timeout for all questions", async () => {
  const { asked, dns } = asking({ "7.2.0.192.in-addr.arpa PTR": ["a.example", "b.example"] });
  const { reason, status } = await dns.confirmedName("192.0.2.7", { timeout: "20ms" });
  expect({ reason, status }).toEqual({ reason: "no answer in 20 ms", status: "failed" });
  expect(asked).toEqual(["7.2.0.192.in-addr.arpa PTR", "a.example A", "b.example A"]);
});

test("listed: a zone that is no name is an error, whatever is looked up", async () => {
  const { dns } = asking({});
  for (const what of ["192.0.2.7", "no name"]) {
    await expect(dns.listed(what, "a..b")).rejects.toThrow('a zone is the name of a list, got "a..b"');
  }
});
