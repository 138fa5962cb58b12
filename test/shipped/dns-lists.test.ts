/** dns-lists: what is asked about what, what counts, and what becomes of a message. */
import { describe, expect, test } from "bun:test";
import dnsLists from "../../handlers/dns-lists.ts";
import { codeTest } from "../../handlers/lib/dns-lists/codes.ts";
import { ListHealth } from "../../handlers/lib/dns-lists/health.ts";
import { hostsOf, namesFor, someOf } from "../../handlers/lib/dns-lists/names.ts";
import type { Outcome } from "../../handlers/lib/dns-lists/sources.ts";
import { openSession, runFilter, type SessionOptions, type TestDns } from "../../src/testing/index.ts";

const CLIENT = { address: "192.0.2.7", hostname: "mx.example.net" };
const EML = "From: Jane <jane@from.example>\nSubject: x\n\nHello\n";

interface Given extends SessionOptions {
  readonly from?: string;
  readonly to?: readonly string[];
  readonly eml?: string;
  readonly client?: { readonly address: string; readonly hostname?: string };
  readonly helo?: string;
  readonly macros?: Readonly<Record<string, string>>;
}

function run(options: Record<string, unknown>, dns: TestDns = {}, given: Given = {}) {
  return runFilter(dnsLists, {
    client: CLIENT,
    helo: "mx.helo.example",
    from: "a@sender.example",
    to: ["b@example.com"],
    eml: EML,
    dns,
    options,
    ...given,
  });
}

const ZEN = { zone: "zen.example", score: 5, codes: ["127.0.0.2/31"] };
const LISTED = "7.2.0.192.zen.example A";

describe("what lists are asked about", () => {
  test.each<[string, string, Given, string]>([
    ["client", "7.2.0.192", {}, "192.0.2.7"],
    ["client", `${"8.".repeat(1)}b.d.0.1.0.0.2`, { client: { address: "2001:db8::8" } }, ""],
    ["helo", "mx.helo.example", {}, "mx.helo.example"],
    ["helo", "helo.example", { helo: "MX.Helo.Example." }, "helo.example"],
    ["sender", "sender.example", {}, "sender.example"],
    ["sender", "sender.example", { from: '"a b"@Sub.SENDER.example.' }, "sender.example"],
    ["from", "from.example", {}, "from.example"],
    ["from", "xn--bcher-kva.example", { eml: "From: x@bücher.example\n\nHello\n" }, "xn--bcher-kva.example"],
    ["links", "bad.example", { eml: "\nsee http://a.b.bad.example:80/x?y\n" }, "bad.example"],
    ["links", "a.b.c.d.bad.example", { eml: "\nwww.a.b.c.d.bad.example\n" }, ""],
    ["links", "9.2.0.192", { eml: "\nhttp://0xc0000209/ and more\n" }, "192.0.2.9"],
    ["links", "bad.example", { eml: 'Content-Type: text/html\n\n<a href="//bad.example/">x</a>\n' }, "bad.example"],
    ["links", "bad.example", { eml: "\nmailto:x@bad.example\n" }, "bad.example"],
  ])("%s: %s", async (of, name, given, what) => {
    const long = name.startsWith("8.") ? `8${".0".repeat(23)}.8.b.d.0.1.0.0.2` : name;
    const asked = name === "a.b.c.d.bad.example" ? `www.${name}` : long;
    const { failures, reply, results, verdict } = await run(
      { lists: [{ zone: "list.example", of }] },
      { [`${asked}.list.example A`]: ["127.0.0.2"] },
      given,
    );
    expect({ failures, verdict }).toEqual({ failures: [], verdict: "reject" });
    if (what !== "") expect(reply?.lines).toEqual([`Service unavailable; ${what} is listed by list.example`]);
    expect(results["dns-lists"]).toMatchObject({ sum: 1, verdict: "reject", listed: [{ list: "list.example", of }] });
  });

  test.each<[string, Given, Record<string, unknown>?]>([
    ["a client that has logged in", { macros: { auth_authen: "jane", auth_type: "PLAIN" } }],
    ["a client of one's own networks", {}, { own_networks: ["192.0.2.0/24"] }],
    ["the same, asked early", {}, { own_networks: ["192.0.2.0/24"], early: true }],
  ])("nothing about %s", async (_, given, more = {}) => {
    const everything = ["client", "helo", "sender", "from", "links"].map((of) => ({ zone: "list.example", of }));
    const { notes, results, verdict } = await run(
      { lists: everything, ...more },
      { "7.2.0.192.list.example A": ["127.0.0.2"], "sender.example.list.example A": ["127.0.0.2"] },
      given,
    );
    expect({ notes, results, verdict }).toEqual({ notes: [], results: {}, verdict: "accept" });
  });

  test.each(["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"])(
    "the client %s is in no list",
    async (address) => {
      const { results, verdict } = await run(
        { lists: [{ zone: "list.example" }], unconfirmed_score: 5 },
        {},
        { client: { address } },
      );
      expect(verdict).toBe("accept");
      expect(results["dns-lists"]).toMatchObject({ sum: 0, listed: [], failed: [] });
    },
  );

  test.each([
    ["bad.example", "bad.example", "accept"],
    // Nor is the domain above the host asked about.
    ["bad.example", "other.bad.example", "accept"],
    [".bad.example", "www.bad.example", "accept"],
    ["x.bad.example", "www.bad.example", "reject"],
    ["x.bad.example", "10.0.0.9", "accept"],
  ])("with except_domains %s, a link to %s: %s", async (except, host, expected) => {
    const listed = ["bad.example", "www.bad.example", "9.0.0.10"];
    const dns = Object.fromEntries(listed.map((name) => [`${name}.list.example A`, ["127.0.0.2"]]));
    const options = { lists: [{ zone: "list.example", of: "links" }], except_domains: [except] };
    expect((await run(options, dns, { eml: `\nhttp://${host}/\n` })).verdict).toBe(expected as never);
  });

  test("names of hosts", () => {
    expect(namesFor("a.b.c.d.Example.org.")).toEqual([
      "a.b.c.d.example.org",
      "c.d.example.org",
      "d.example.org",
      "example.org",
    ]);
    expect(namesFor("example.co.uk")).toEqual(["example.co.uk", "co.uk"]);
    for (const none of ["", "localhost", "[192.0.2.1]", "192.0.2.1", "a..b", "a b.c", ".example.org", "a@b.c"]) {
      expect(namesFor(none)).toEqual([]);
    }
  });

  test("hosts of links, as browsers read them", () => {
    const urls = ["HTTP://Bad.Example/", "http://user@bad.example:8080/", "http://%62ad.example", "www.bad.example"];
    expect(
      hostsOf([...urls, "http://[2001:db8::1]/", "/x", "#", "http://", "javascript:1"].map((url) => ({ url }))),
    ).toEqual(["bad.example", "www.bad.example", "2001:db8::1"]);
  });

  test("of many hosts, the same few whatever their order is", () => {
    const hosts = Array.from({ length: 100 }, (_, index) => `h${index}.example`);
    const some = someOf(hosts, 10);
    expect(some).toHaveLength(10);
    expect(someOf(hosts.toReversed(), 10)).toEqual(some);
    expect(some).not.toEqual(hosts.slice(0, 10));
  });
});

test.each([
  ["127.0.0.2", "127.0.0.2", true],
  ["127.0.0.2", "127.0.0.3", false],
  ["127.0.0.2/31", "127.0.0.3", true],
  ["127.0.0.3/31", "127.0.0.2", true],
  ["127.0.0.4/30", "127.0.0.8", false],
  ["127.0.0.0/8", "127.255.0.1", true],
  ["&8", "127.0.0.10", true],
  ["&8", "127.0.0.7", false],
  ["&0x10000", "127.1.0.2", true],
  ["&12", "127.0.0.8", false],
])("the pattern %s and the code %s: %p", (pattern, code, expected) => {
  expect(codeTest(pattern)!(code)).toBe(expected);
});

describe("the sum", () => {
  const dns: TestDns = { [LISTED]: ["127.0.0.2"], "sender.example.dom.example A": ["127.0.1.2"] };
  const DOM = { zone: "dom.example", of: "sender", score: 5 };

  test.each<[string, Record<string, unknown>, string, number]>([
    ["two lists reach it", { lists: [ZEN, DOM], reject_at: 10 }, "reject", 10],
    ["one does not", { lists: [ZEN], reject_at: 10 }, "accept", 5],
    ["codes that do not count", { lists: [{ ...ZEN, codes: ["127.0.0.4"] }] }, "accept", 0],
    ["a negative score", { lists: [ZEN, { ...DOM, score: -3 }], reject_at: 5 }, "accept", 2],
    ["a list that allows", { lists: [ZEN, { zone: "dom.example", of: "sender", allow: true }] }, "accept", 5],
    ["tempfail", { lists: [ZEN], action: "tempfail" }, "tempfail", 5],
    ["mark", { lists: [ZEN], action: "mark" }, "accept", 5],
    [
      "a score for each code",
      { lists: [{ zone: "zen.example", scores: { "127.0.0.2": 3, "127.0.0.0/8": 4 } }], reject_at: 7 },
      "reject",
      7,
    ],
  ])("%s", async (_, options, expected, sum) => {
    for (const at of ["recipient", "end"]) {
      const { results, verdict } = await run({ ...options, at }, dns);
      expect(verdict).toBe(expected as never);
      expect(results["dns-lists"]).toMatchObject({ sum });
    }
  });

  test("refused at RCPT as soon as it is certain, else at the end", async () => {
    const links = { zone: "links.example", of: "links", score: 5 };
    const phases = async (lists: unknown[], more: object = {}) => {
      const outcome = await run({ lists, reject_at: 5, ...more }, dns, { eml: "\nhttp://sender.example/\n" });
      return outcome.phases.filter(({ verdict }) => verdict === "reject").map(({ phase }) => phase);
    };
    expect(await phases([ZEN])).toEqual(["envrcpt"]);
    expect(await phases([ZEN], { at: "end" })).toEqual(["eom"]);
    expect(await phases([ZEN, links])).toEqual(["envrcpt"]);
    // What is known at the end could still let it pass.
    expect(await phases([ZEN, { ...links, score: -5 }])).toEqual(["eom"]);
    expect(await phases([ZEN, { zone: "links.example", of: "links", allow: true }])).toEqual(["eom"]);
    expect(await phases([{ ...links, zone: "dom.example" }])).toEqual(["eom"]);
  });
});

describe("lists that fail", () => {
  const slow = { records: ["127.0.0.2"], delay: 3_600_000 };

  test("they count for nothing, and are told once", async () => {
    await using session = await openSession(dnsLists, {
      client: CLIENT,
      dns: { [LISTED]: "failed", "7.2.0.192.odd.example A": ["127.255.255.254"] },
      options: { lists: [ZEN, { zone: "odd.example" }], header: "X-Lists" },
    });
    for (let message = 0; message < 2; message++) {
      const outcome = await session.send({ eml: EML });
      expect(outcome.verdict).toBe("accept");
      expect(outcome.results["dns-lists"]).toEqual({
        sum: 0,
        verdict: "pass",
        listed: [],
        failed: ["zen.example", "odd.example"],
      });
      expect(outcome.message).toContain("X-Lists: sum 0;\r\n zen.example failed;\r\n odd.example failed\r\n");
      expect(outcome.notes.map(({ level, text }) => [level, text])).toEqual(
        message > 0
          ? []
          : [
              ["warn", "zen.example does not answer, and counts as failed"],
              ["warn", "odd.example does not answer, and counts as failed"],
            ],
      );
    }
  });

  test("one that is silent is waited for as long as the timeout, and not at all if it changes nothing", async () => {
    const options = { lists: [ZEN], timeout: "50ms" };
    const { failures, results, verdict } = await run(options, { [LISTED]: slow });
    expect({ failures, verdict }).toEqual({ failures: [], verdict: "accept" });
    expect(results["dns-lists"]).toMatchObject({ failed: ["zen.example"] });
    // It could add 1 to a sum of 5 at which the message is refused: nobody waits for the hour of its timeout.
    const both = { lists: [ZEN, { zone: "dead.example" }], timeout: "1h", reject_at: 5 };
    const refused = await run(both, { [LISTED]: ["127.0.0.2"], "7.2.0.192.dead.example A": slow });
    expect(refused.verdict).toBe("reject");
  });

  test("a list of good ones that failed refuses nobody for good", async () => {
    for (const good of [
      { zone: "good.example", allow: true },
      { zone: "good.example", score: -5 },
    ]) {
      const { reply, verdict } = await run(
        { lists: [ZEN, good] },
        { [LISTED]: ["127.0.0.2"], "7.2.0.192.good.example A": "failed" },
      );
      expect(verdict).toBe("tempfail");
      expect(reply).toMatchObject({ code: 451, enhanced: "4.7.1" });
    }
  });

  test("after five slow failures it is not waited for, and tried now and then until it answers", async () => {
    let now = 0;
    let looks = 0;
    let answer: Outcome = { status: "failed", reason: "no answer" };
    const health = new ListHealth(() => now);
    const ask = () =>
      health.ask("zen.example", 1000, async () => {
        looks += 1;
        if (answer.status === "failed") now += 1000;
        return answer;
      });
    for (let count = 0; count < 8; count++) expect(await ask()).toEqual({ status: "failed", reason: "no answer" });
    expect(looks).toBe(5);
    now += 5000;
    answer = { status: "clear" };
    // This one does not wait; the next one is asked.
    expect((await ask()).status).toBe("failed");
    await Promise.resolve();
    expect(looks).toBe(6);
    expect((await ask()).status).toBe("clear");
    // Failures that come at once keep nobody waiting.
    for (let count = 0; count < 8; count++) {
      await health.ask("quick.example", 1000, async () => {
        looks += 1;
        return { status: "failed", reason: "REFUSED" };
      });
    }
    expect(looks).toBe(15);
  });

  test("a client that goes away is no failure of the list", async () => {
    const health = new ListHealth();
    for (let count = 0; count < 6; count++) {
      await expect(health.ask("zen.example", 0, () => Promise.reject(new Error("gone")))).rejects.toThrow("gone");
    }
    expect((await health.ask("zen.example", 1000, async () => ({ status: "clear" }))).status).toBe("clear");
  });
});

describe("confirmed names", () => {
  const named: TestDns = { "7.2.0.192.in-addr.arpa PTR": ["mx.good.example"], "mx.good.example A": ["192.0.2.7"] };
  const forged: TestDns = { "7.2.0.192.in-addr.arpa PTR": ["mx.good.example"], "mx.good.example A": ["192.0.2.9"] };

  test.each<[string, TestDns, string]>([
    ["one", named, "accept"],
    ["one that leads elsewhere", forged, "reject"],
    ["none", {}, "reject"],
    ["one that cannot be asked", { "7.2.0.192.in-addr.arpa PTR": "failed" }, "accept"],
  ])("a client with %s", async (_, dns, expected) => {
    const { reply, verdict } = await run({ unconfirmed_score: 1 }, dns);
    expect(verdict).toBe(expected as never);
    if (verdict === "reject") expect(reply?.lines).toEqual(["Service unavailable; 192.0.2.7 has no confirmed name"]);
  });

  test("clients with some names pass", async () => {
    const options = { lists: [ZEN], allow_names: [".good.example"] };
    expect((await run(options, { ...named, [LISTED]: ["127.0.0.2"] })).verdict).toBe("accept");
    expect((await run(options, { ...forged, [LISTED]: ["127.0.0.2"] })).verdict).toBe("reject");
    const others = { ...options, allow_names: ["good.example"] };
    expect((await run(others, { ...named, [LISTED]: ["127.0.0.2"] })).verdict).toBe("reject");
    const failed = { "7.2.0.192.in-addr.arpa PTR": "failed", [LISTED]: ["127.0.0.2"] } as const;
    expect((await run(options, failed)).verdict).toBe("tempfail");
  });

  test("a list of names", async () => {
    const options = { lists: [{ zone: "names.example", of: "name" }] };
    const dns = { "good.example.names.example A": ["127.0.0.2"] };
    expect((await run(options, { ...named, ...dns })).verdict).toBe("reject");
    expect((await run(options, { ...forged, ...dns })).verdict).toBe("accept");
  });
});

describe("words", () => {
  test("of a list, cleaned, and of an administrator", async () => {
    const dns = { [LISTED]: ["127.0.0.2"], "7.2.0.192.zen.example TXT": ["see\r\n550 http://x.example/\0{client} ü%"] };
    const { reply } = await run({ lists: [ZEN] }, dns);
    expect(reply?.lines).toEqual([
      "Service unavailable; 192.0.2.7 is listed by zen.example: see 550 http://x.example/ {client} %",
    ]);
    const own = await run(
      {
        lists: [{ ...ZEN, text: "{what}, see https://x.example/?ip={client}" }],
        reject_text: "554 5.7.1 No ({sum}): {reason}",
      },
      dns,
    );
    expect(own.reply).toEqual({
      code: 554,
      enhanced: "5.7.1",
      lines: ["No (5): 192.0.2.7, see https://x.example/?ip=192.0.2.7"],
    });
  });

  test("a key in the zone is for nobody else", async () => {
    const zone = "secretkey.zen.example";
    const list = { zone, name: "zen", text: "{what} is listed by {list}: {text}" };
    const dns = { "7.2.0.192.secretkey.zen.example A": ["127.0.0.2"], "7.2.0.192.secretkey.zen.example TXT": ["why"] };
    const outcome = await run({ lists: [list], header: "X-Lists" }, dns);
    expect(outcome.reply?.lines).toEqual(["Service unavailable; 192.0.2.7 is listed by zen: why"]);
    const { message, notes, results } = await run({ lists: [list], header: "X-Lists", reject_at: 5 }, dns);
    expect(message).toContain("X-Lists: sum 1;\r\n zen 1 (192.0.2.7 127.0.0.2)\r\n");
    const odd = await run({ lists: [list] }, { "7.2.0.192.secretkey.zen.example A": ["127.255.255.254"] });
    expect(odd.notes).toMatchObject([{ fields: { reason: "zen answered 127.255.255.254" } }]);
    const told = [outcome.notes, notes, results, odd.notes, odd.results];
    expect(JSON.stringify(told)).not.toContain("secretkey");
  });

  test("a text without an end, and one that does not come", async () => {
    const long = await run(
      { lists: [ZEN] },
      { [LISTED]: ["127.0.0.2"], "7.2.0.192.zen.example TXT": ["x".repeat(5000)] },
    );
    expect(long.reply!.lines.join("").length).toBeLessThan(350);
    const late = { records: ["x"], delay: 3_600_000 };
    const silent = await run(
      { lists: [ZEN], timeout: "50ms" },
      { [LISTED]: ["127.0.0.2"], "7.2.0.192.zen.example TXT": late },
    );
    expect(silent.reply?.lines).toEqual(["Service unavailable; 192.0.2.7 is listed by zen.example"]);
  });

  test("the words of a list are asked for only in a refusal", async () => {
    const dns = { [LISTED]: ["127.0.0.2"], "7.2.0.192.zen.example TXT": { records: ["x"], delay: 3_600_000 } };
    expect(await run({ lists: [ZEN], reject_at: 10, timeout: "1h" }, dns)).toMatchObject({ verdict: "accept" });
    const own = { lists: [{ ...ZEN, text: "no" }], timeout: "1h" };
    expect(await run(own, dns)).toMatchObject({ verdict: "reject" });
  });

  test("the header, in place of a sender's own, and the log", async () => {
    const { message, notes } = await run(
      { lists: [ZEN], reject_at: 10, header: "X-Lists" },
      { [LISTED]: ["127.0.0.2", "127.0.0.3"] },
      { eml: `X-Lists: sum 0\nx-lists: sum 0\n${EML}` },
    );
    expect(message.match(/^x-lists: .*(?:\r\n .*)*/gim)).toEqual([
      "X-Lists: sum 5;\r\n zen.example 5 (192.0.2.7 127.0.0.2 127.0.0.3)",
    ]);
    expect(notes.map(({ fields, level, text }) => ({ fields, level, text }))).toEqual([
      { level: "info", text: "pass: zen.example 5 (192.0.2.7 127.0.0.2 127.0.0.3)", fields: { sum: 5, reject_at: 10 } },
    ]);
  });
});

test.each(["clients", "recipients", "senders", "authenticated", "helos"])("with the condition %s", async (key) => {
  const values = {
    clients: ["192.0.2.0/24"],
    recipients: ["example.com"],
    senders: ["sender.example"],
    authenticated: false,
    helos: ["mx.helo.example"],
  };
  const when = { [key]: values[key as keyof typeof values] };
  for (const early of [false, true]) {
    for (const at of ["recipient", "end"]) {
      const options = { lists: [ZEN], early, at };
      expect(await run(options, { [LISTED]: ["127.0.0.2"] }, { when })).toMatchObject({
        failures: [],
        verdict: "reject",
      });
    }
  }
});

test("in observe mode nobody is refused", async () => {
  const { observed, verdict } = await run({ lists: [ZEN] }, { [LISTED]: ["127.0.0.2"] }, { mode: "observe" });
  expect({ verdict, observed: observed.map((each) => each.verdict) }).toEqual({
    verdict: "accept",
    observed: ["reject"],
  });
});

test("each recipient and each message of a session is refused, and the client is asked about once", async () => {
  const asked: string[] = [];
  await using session = await openSession(dnsLists, {
    client: CLIENT,
    dns: { [LISTED]: ["127.0.0.2"] },
    options: { lists: [ZEN] },
  });
  for (let message = 0; message < 2; message++) {
    const { recipients } = await session.send({
      from: "a@example.net",
      to: ["b@example.com", "c@example.com"],
      eml: EML,
    });
    asked.push(...recipients.map(({ verdict }) => verdict));
  }
  expect(asked).toEqual(["reject", "reject", "reject", "reject"]);
});

test.each<[string, Record<string, unknown>, string]>([
  ["nothing to ask", {}, "options.lists: expected at least one list, unconfirmed_score or allow_names"],
  ["no zone", { lists: [{}] }, 'options.lists.0.zone: "zone" is missing'],
  ["a zone that is none", { lists: [{ zone: "zen example" }] }, "options.lists.0.zone: expected the name of a list"],
  [
    "an unknown subject",
    { lists: [{ ...ZEN, of: "body" }] },
    'expected "client", "name", "helo", "sender", "from" or "links"',
  ],
  [
    "a code that is none",
    { lists: [{ ...ZEN, codes: ["128.0.0.2"] }] },
    "options.lists.0.codes.0: expected a code such as",
  ],
  ["a score of 0", { lists: [{ ...ZEN, score: 0 }] }, "options.lists.0.score: expected a number that is not 0, got 0"],
  [
    "two kinds of scores",
    { lists: [{ ...ZEN, scores: { "127.0.0.2": 1 } }] },
    'options.lists.0.score: expected no "score" beside "scores"',
  ],
  [
    "allow with a score",
    { lists: [{ ...ZEN, allow: true }] },
    "options.lists.0.score: expected none beside allow = true",
  ],
  [
    "an unknown placeholder",
    { lists: [{ ...ZEN, text: "{ip}" }] },
    "options.lists.0.text: expected text with no other placeholders",
  ],
  ["a reply that is none", { lists: [ZEN], reject_text: "{reason}" }, "options.reject_text: expected an SMTP reply"],
  [
    "a reply of another class",
    { lists: [ZEN], tempfail_text: "550 x" },
    "options.tempfail_text: expected an SMTP reply",
  ],
  ["a limit of 0", { lists: [ZEN], reject_at: 0 }, "options.reject_at: expected a number above 0"],
  ["an unknown option", { lists: [ZEN], rejectat: 5 }, 'options.rejectat: unknown option; did you mean "reject_at"?'],
])("refused: %s", async (_, options, message) => {
  await expect(run(options)).rejects.toThrow(message);
});
