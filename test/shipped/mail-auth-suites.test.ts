/** mail-auth on the test suites of SPF and ARC by others, and why where it differs: test/fixtures/mail-auth. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import mailAuth from "../../handlers/mail-auth.ts";
import { asDnsName } from "../../src/dns/names.ts";
import { runFilter, type TestDns } from "../../src/testing/index.ts";
import { ROOT } from "../support/pmilter.ts";

setDefaultTimeout(60_000);

async function suite<T>(name: string): Promise<T[]> {
  const text = await Bun.file(join(ROOT, "test", "fixtures", "mail-auth", name)).text();
  return (Bun.YAML.parse(text) as (T | null)[]).filter((part) => part !== null);
}

type Zone = Readonly<Record<string, readonly ("TIMEOUT" | Readonly<Record<string, unknown>>)[]>>;

interface SpfSuite {
  readonly zonedata: Zone;
  readonly tests: Readonly<
    Record<
      string,
      {
        readonly host: string;
        readonly helo: string;
        readonly mailfrom: string;
        readonly result: string | readonly string[];
      }
    >
  >;
}

const unescaped = (text: string) =>
  text
    .replaceAll("\\0", "\0")
    .replaceAll(/\\x([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));

/** The table of `runFilter`. Records of the type SPF count as TXT where a name has none (RFC 7208 3.1 gave it up). */
function tableOf(zone: Zone): TestDns {
  const table: Record<string, unknown> = {};
  for (const [name, entries] of Object.entries(zone)) {
    if (asDnsName(name) === null) continue;
    const records = entries.filter((entry) => entry !== "TIMEOUT");
    const fails = entries.includes("TIMEOUT");
    const of = (type: string) => records.filter((record) => type in record).map((record) => record[type]);
    const texts = of("TXT").length > 0 ? of("TXT") : of("SPF");
    const answers = {
      A: of("A"),
      AAAA: of("AAAA"),
      PTR: of("PTR"),
      MX: (of("MX") as [number, string][]).map(([priority, exchange]) => ({ priority, exchange })),
      TXT: texts.filter((text) => text !== "NONE").map((text) => unescaped([text].flat().join(""))),
    };
    for (const [type, found] of Object.entries(answers)) {
      if (found.length > 0) table[`${name} ${type}`] = found;
      else if (fails) table[`${name} ${type}`] = "failed";
      else if (type === "TXT") table[`${name} ${type}`] = "empty";
    }
  }
  return table as TestDns;
}

/** Tests of the SPF suite with another result here. */
const SPF_DIFFERENCES: Readonly<Record<string, string>> = {
  // `session.dns` asks for no name with a space in it.
  "macro-mania-in-domain": "pass: fail",
};

test("the SPF suite", async () => {
  const seen: Record<string, string> = {};
  let count = 0;
  for (const { tests, zonedata } of await suite<SpfSuite>("rfc7208-tests.yml.txt")) {
    const dns = tableOf(zonedata);
    for (const [name, { helo, host, mailfrom, result }] of Object.entries(tests)) {
      count += 1;
      const { failures, results } = await runFilter(mailAuth, {
        client: { address: host },
        helo,
        from: mailfrom,
        to: ["b@example.org"],
        eml: "Subject: x\n\nx\n",
        dns,
        options: { checks: ["spf"], authserv_id: "mx.test" },
      });
      expect(failures).toEqual([]);
      const found = (results["spf"] as { result: string }).result;
      if (![result].flat().includes(found)) seen[name] = `${[result].flat().join(" or ")}: ${found}`;
    }
  }
  expect(seen).toEqual(SPF_DIFFERENCES);
  expect(count).toBe(200);
});

interface ArcSuite {
  readonly "txt-records": Readonly<Record<string, string>> | null;
  readonly tests: Readonly<Record<string, { readonly message: string; readonly cv: string | null }>>;
}

/** Tests of the ARC suite with another result here. */
const ARC_DIFFERENCES: Readonly<Record<string, string>> = {
  // Without `c=` the suite, made for a draft, expects relaxed/relaxed; RFC 8617 4.1.2 has the default of DKIM, simple/simple.
  ams_fields_c_na: "pass: fail",
  // A signature that does not cover From is none (RFC 6376 5.4); the suite lets `h=` be empty.
  ams_fields_h_empty: "pass: fail",
};

test("the ARC suite", async () => {
  const seen: Record<string, string> = {};
  let count = 0;
  for (const { tests, "txt-records": records } of await suite<ArcSuite>("arc-draft-validation-tests.yml.txt")) {
    const dns = Object.fromEntries(Object.entries(records ?? {}).map(([name, text]) => [`${name} TXT`, [text]]));
    for (const [name, { cv, message }] of Object.entries(tests)) {
      count += 1;
      const { failures, results } = await runFilter(mailAuth, {
        client: { address: "192.0.2.1" },
        helo: "a.test",
        from: "a@example.org",
        to: ["b@example.org"],
        eml: message,
        dns,
        options: { checks: ["arc"], authserv_id: "mx.test" },
      });
      expect(failures).toEqual([]);
      const found = (results["arc"] as { result: string }).result;
      const expected = (cv ?? "").toLowerCase() || "fail";
      if (found !== expected) seen[name] = `${expected}: ${found}`;
    }
  }
  expect(seen).toEqual(ARC_DIFFERENCES);
  expect(count).toBe(171);
});
