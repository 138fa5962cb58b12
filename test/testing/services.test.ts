/** The table `dns` of the testing kit. */
import { expect, test } from "bun:test";
import { defineFilter, reject } from "../../src/index.ts";
import { runFilter, type TestDns } from "../../src/testing/index.ts";

const eml = "Subject: a\n\nb\n";
const client = { address: "192.0.2.7" };

/** What a filter is told of its client's name, and of a record. */
function told(dns: TestDns) {
  const filter = defineFilter({
    async connect(session) {
      const { records, status } = await session.dns.confirmedName(session.client.address);
      const txt = await session.dns.txt("x.example");
      return reject(`550 5.7.1 ${status} ${records.join()} ${txt.status} ${txt.records.join()}`);
    },
  });
  return runFilter(filter, { eml, client, dns });
}

test("a PTR record by its address, or by its name", async () => {
  const forward: TestDns = { "mx.example A": ["192.0.2.7"], "x.example A": ["192.0.2.1"] };
  for (const key of ["192.0.2.7 PTR", "7.2.0.192.in-addr.arpa PTR"]) {
    const { reply } = await told({ ...forward, [key]: ["mx.example"] });
    expect(reply?.lines).toEqual(["found mx.example empty "]);
  }
});

test("names are missing, or failures, as the table says", async () => {
  expect((await told({})).reply?.lines).toEqual(["missing  missing "]);
  const failing: TestDns = { "192.0.2.7 PTR": "failed", "x.example TXT": { status: "failed", reason: "broken" } };
  expect((await told(failing)).reply?.lines).toEqual(["failed  failed "]);
});

test.each(["x.example", "x.example ANY", "a..b TXT", "x.example TXT more", "192.0.2.7 A B"])(
  "the key %p is refused, with its form",
  async (key) => {
    await expect(told({ [key]: [] })).rejects.toThrow(
      `dns: a key is a name and a type of records such as "example.com TXT", got ${JSON.stringify(key)}`,
    );
  },
);
