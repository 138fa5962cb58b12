/** How much work mail-auth has with a message, whatever it is sent and whatever the DNS answers. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { BodyHash, CanonicalBody, type Form } from "../../handlers/lib/dkim/canonical-body.ts";
import { CHECKS, MessageCheck } from "../../handlers/lib/mail-auth/check.ts";
import { loadLibrary } from "../../handlers/lib/mail-auth/library.ts";
import { Questions } from "../../handlers/lib/mail-auth/questions.ts";
import { parsedFields, verifierOf } from "../../handlers/lib/mail-auth/verifier.ts";
import type { Answer, Dns, RecordType } from "../../src/index.ts";
import { expectGrowth } from "../support/growth.ts";

setDefaultTimeout(120_000);

const library = loadLibrary();
const tools = { library, Verifier: verifierOf(library) };

type Table = Readonly<Record<string, readonly unknown[]>>;

/** Answers from a table, and what was asked. */
function dnsOf(table: Table | ((key: string) => readonly unknown[] | undefined)) {
  const asked: string[] = [];
  const dns = {
    resolve: async (name: string, type: RecordType): Promise<Answer> => {
      asked.push(`${name} ${type}`);
      const records = typeof table === "function" ? table(`${name} ${type}`) : table[`${name} ${type}`];
      if (records === undefined) return { status: "missing", records: [], ttl: 0 };
      return { status: "found", records, ttl: 0 } as Answer;
    },
  };
  return { asked, dns: dns as Pick<Dns, "resolve"> };
}

interface Mail {
  readonly fields?: readonly (readonly [name: string, value: string])[];
  readonly body?: readonly Uint8Array[];
  readonly helo?: string;
}

async function check({ body = [], fields = [], helo = "" }: Mail, dns = dnsOf({}).dns) {
  const errors: unknown[] = [];
  const settings = { checks: new Set(CHECKS), isTrusted: () => true };
  const message = new MessageCheck(tools, new Questions(dns), settings, (error) => errors.push(error));
  message.envelope({ ip: "192.0.2.1", helo, sender: "a@spf.test", server: "mx.test" });
  message.header(parsedFields(fields.map(([name, value]) => ({ name, bytes: Buffer.from(` ${value}`) }))));
  for (const chunk of body) await message.body(chunk);
  const found = await message.found(60_000);
  expect(errors).toEqual([]);
  return found;
}

const FROM = ["From", "a@x.example"] as const;
const TAGS = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=x.example; s=s; bh=eA==; b=eA==";
const SIGNATURE = ["DKIM-Signature", `${TAGS}; h=from`] as const;
/** What one read of a socket brings. */
const CHUNK = 65_536;

function chunksOf(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  return Array.from({ length: Math.ceil(bytes.length / CHUNK) }, (_, at) =>
    bytes.subarray(at * CHUNK, (at + 1) * CHUNK),
  );
}

describe("is in proportion to what is sent", () => {
  const value = (name: string, make: (amount: number) => string) =>
    [name, 120_000, (amount: number) => ({ fields: [FROM, [name.split(" ")[0]!, make(amount)] as const] })] as const;
  const body = (name: string, unit: string) =>
    [
      name,
      8_000_000,
      (amount: number) => ({ fields: [FROM, SIGNATURE], body: chunksOf(unit.repeat(amount / unit.length)) }),
    ] as const;
  test.each<readonly [string, number, (amount: number) => Mail]>([
    body("one long line", "x "),
    body("one line of white space", " "),
    body("tabs and spaces", "\t x"),
    body("empty lines", "\r\n"),
    body("lines of white space", " \r\n"),
    body("half line ends", " \r"),
    value("DKIM-Signature with blanks", (amount) => `${TAGS}; h=from; x=a${" ".repeat(amount)}b`),
    value("DKIM-Signature with tags", (amount) => `${TAGS}; h=from${";a=b".repeat(amount / 4)}`),
    value("DKIM-Signature with h=", (amount) => `${TAGS}; h=from${":x".repeat(amount / 2)}`),
    value("ARC-Authentication-Results with comments", (amount) => `i=1; ${"(".repeat(amount)}`),
    value("ARC-Seal with blanks", (amount) => `i=1; a${" ".repeat(amount)}=b`),
    value("From with addresses", (amount) => "a@b.example, ".repeat(amount / 13)),
    value("From with comments", (amount) => "(".repeat(amount)),
    value("From with quotes", (amount) => '"'.repeat(amount)),
    value("From with blanks", (amount) => `a${" ".repeat(amount)}b@x.example`),
    value("From with groups", (amount) => "a:b@c;".repeat(amount / 6)),
    value("Subject with folds", (amount) => "\n x".repeat(amount / 3)),
    [
      "a signed Subject with blanks",
      120_000,
      (amount) => ({
        fields: [FROM, ["DKIM-Signature", `${TAGS}; h=from:subject`], ["Subject", `a${" ".repeat(amount)}b`]],
      }),
    ],
    ["signatures", 4500, (amount) => ({ fields: [FROM, ...Array.from({ length: amount }, () => SIGNATURE)] })],
    [
      "fields and signatures that name them",
      4500,
      (amount) => {
        const names = Array.from({ length: amount }, (_, at) => `x${at}`);
        const signature = ["DKIM-Signature", `${TAGS}; h=from:${names.join(":")}`] as const;
        const fields = names.map((name) => [name, "y"] as const);
        return { fields: [FROM, ...Array.from({ length: 10 }, () => signature), ...fields] };
      },
    ],
  ])("%s", async (_, amount, make) => {
    await expectGrowth(amount, (some) => check(make(some)));
  });
});

describe("what the library throws is told, and a temporary error of its check alone", () => {
  const fail = () => {
    throw new Error("broken");
  };
  class Broken extends tools.Verifier {
    override finalChunk = fail;
  }
  class Unread extends tools.Verifier {
    override messageHeaders = fail;
  }
  const GOOD = { spf: "pass", dkim: ["neutral"], dmarc: "pass", arc: "none" };
  test.each<[string, Partial<typeof tools>, object, number]>([
    ["nothing", {}, GOOD, 0],
    ["SPF", { library: { ...library, spf: fail } }, { ...GOOD, spf: "temperror", dmarc: "temperror" }, 1],
    ["DMARC", { library: { ...library, evaluateDmarc: fail } }, { ...GOOD, dmarc: "temperror" }, 1],
    ["ARC", { library: { ...library, arc: fail } }, { ...GOOD, arc: "temperror" }, 1],
    ["DKIM", { Verifier: Broken }, { ...GOOD, dkim: ["temperror"], dmarc: "temperror", arc: "temperror" }, 1],
    ["the header", { Verifier: Unread }, { ...GOOD, dkim: ["temperror"], dmarc: "temperror", arc: "temperror" }, 1],
  ])("%s", async (_, broken, expected, errors) => {
    const seen: unknown[] = [];
    const { dns } = dnsOf({
      "x.example TXT": ["v=spf1 ip4:192.0.2.1 -all"],
      "_dmarc.x.example TXT": ["v=DMARC1; p=reject"],
    });
    const settings = { checks: new Set(CHECKS), isTrusted: () => true };
    const message = new MessageCheck({ ...tools, ...broken }, new Questions(dns), settings, (error) =>
      seen.push(error),
    );
    message.envelope({ ip: "192.0.2.1", helo: "", sender: "a@x.example", server: "mx.test" });
    const badly = ["DKIM-Signature", "v=2"] as const;
    message.header(parsedFields([FROM, badly].map(([name, value]) => ({ name, bytes: Buffer.from(` ${value}`) }))));
    await message.body(Buffer.from("x\r\n"));
    const { arc, dkim, dmarc, spf } = await message.found(60_000);
    const results = {
      spf: spf?.result,
      dkim: dkim?.map(({ result }) => result),
      dmarc: dmarc?.result,
      arc: arc?.result,
    };
    expect(results).toEqual(expected as typeof results);
    expect(seen).toHaveLength(errors);
  });
});

test("a signature for too many fields is not verified", async () => {
  const { asked, dns } = dnsOf({});
  const { dkim } = await check({ fields: [FROM, ["DKIM-Signature", `${TAGS}; h=from${":x".repeat(200)}`]] }, dns);
  expect(dkim).toMatchObject([{ result: "neutral", reason: "too many fields signed" }]);
  expect(asked.filter((question) => question.includes("_domainkey"))).toEqual([]);
});

describe("questions", () => {
  const many = (count: number, make: (at: number) => string) => Array.from({ length: count }, (_, at) => make(at));
  const record = (...terms: readonly string[]) => [`v=spf1 ${terms.join(" ")} -all`];

  test.each<[string, Table, number, string]>([
    ["a record that includes itself", { "spf.test TXT": record("include:spf.test") }, 3, "permerror"],
    [
      "records that redirect in a circle",
      { "spf.test TXT": ["v=spf1 redirect=b.test"], "b.test TXT": ["v=spf1 redirect=spf.test"] },
      3,
      "permerror",
    ],
    [
      "hundreds of includes",
      {
        "spf.test TXT": record(...many(400, (at) => `include:i${at}.test`)),
        ...Object.fromEntries(many(400, (at) => `i${at}.test TXT`).map((key) => [key, ["v=spf1 ?all"]])),
      },
      12,
      "permerror",
    ],
    [
      "hundreds of names without an address",
      { "spf.test TXT": record(...many(400, (at) => `a:a${at}.test`)) },
      12,
      "permerror",
    ],
    [
      "exchanges with a thousand names",
      {
        "spf.test TXT": record(...many(10, (at) => `mx:m${at}.test`)),
        ...Object.fromEntries(
          many(10, (at) => `m${at}.test MX`).map((key) => [
            key,
            many(1000, (at) => `x${at}.${key.split(" ")[0]}`).map((exchange) => ({ priority: 1, exchange })),
          ]),
        ),
      },
      35,
      "permerror",
    ],
    [
      "an address with a thousand names",
      { "spf.test TXT": record("ptr"), "1.2.0.192.in-addr.arpa PTR": many(1000, (at) => `n${at}.test`) },
      25,
      "fail",
    ],
  ])("SPF: %s", async (_, table, most, result) => {
    const { asked, dns } = dnsOf(table);
    const { spf } = await check({}, dns);
    expect(spf?.result).toBe(result);
    const own = asked.filter((question) => !question.startsWith("_dmarc"));
    expect(own.length).toBeLessThanOrEqual(most);
  });

  test("of one message are at most 200, and no question is asked twice", async () => {
    const { asked, dns } = dnsOf((key) => {
      const name = key.split(" ")[0];
      if (/^(?:helo|spf)\.test TXT$/.test(key)) return record(...many(10, (at) => `mx:m${at}.${name}`));
      if (key.endsWith(" MX")) return many(10, (at) => `x${at}.${name}`).map((exchange) => ({ priority: 1, exchange }));
      return key.endsWith(" A") ? ["198.51.100.1"] : undefined;
    });
    const signature = (at: number) => ["DKIM-Signature", `${TAGS.replace("s=s", `s=s${at}`)}; h=from`] as const;
    const set = (at: number) =>
      [
        ["ARC-Seal", `i=${at}; a=rsa-sha256; cv=${at === 1 ? "none" : "pass"}; d=a${at}.test; s=s; b=eA==`],
        ["ARC-Message-Signature", `i=${at}; a=rsa-sha256; d=a${at}.test; s=s; h=from; bh=eA==; b=eA==`],
        ["ARC-Authentication-Results", `i=${at}; a.test; spf=pass`],
      ] as const;
    const sets = Array.from({ length: 50 }, (_, at) => set(at + 1)).flat();
    const { arc } = await check(
      { fields: [FROM, ...many(30, String).map((at) => signature(Number(at))), ...sets], helo: "helo.test" },
      dns,
    );
    expect(arc).toMatchObject({ result: "fail", instance: 50 });
    expect(new Set(asked).size).toBe(asked.length);
    expect(asked).toHaveLength(200);
  });

  test("texts of answers that are long, or white space for the most part, are not read", async () => {
    for (const text of [`v=spf1 ${"a".repeat(60_000)} +all`, `v=spf1${" ".repeat(300)}+all`]) {
      const { spf } = await check({}, dnsOf({ "spf.test TXT": [text] }).dns);
      expect(spf?.result).toBe("none");
    }
  });
});

describe("hashes of bodies", () => {
  const { dkimBody } = require("mailauth/lib/dkim/body/index.js") as {
    dkimBody(
      form: string,
      algorithm: string,
      limit: number | "",
    ): { update(bytes: Buffer): void; digest(encoding: string): string };
  };
  const PIECES = ["a", "b c", " ", "  ", "\t", "\r\n", "\r\n\r\n", " \r\n", "\r", "x\r\n"];

  test.each<Form>(["relaxed", "simple"])("%s: are those of mailauth, however the body is split", (form) => {
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    for (let round = 0; round < 2000; round++) {
      const text = Array.from({ length: random(12) }, () => PIECES[random(PIECES.length)]!).join("");
      const limit = random(3) === 0 ? random(8) : "";
      const body = Buffer.from(text);
      const theirs = dkimBody(form, "sha256", limit);
      theirs.update(body);
      const canonical = new CanonicalBody(form);
      const ours: BodyHash = canonical.hash("sha256", limit);
      for (let at = 0; at < body.length;) {
        const end = at + 1 + random(4);
        // A view that is overwritten afterwards, as a chunk of the body is.
        const chunk = Uint8Array.from(body.subarray(at, end));
        canonical.write(chunk);
        chunk.fill(0);
        at = end;
      }
      expect(`${JSON.stringify(text)} ${limit} ${ours.digest("base64")}`).toBe(
        `${JSON.stringify(text)} ${limit} ${theirs.digest("base64")}`,
      );
    }
  });
});
