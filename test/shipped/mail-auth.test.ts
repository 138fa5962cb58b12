/** mail-auth: what it says of a message, what becomes of it, and what it does with hostile mail. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { isInNameOf } from "../../handlers/lib/mail-auth/forged.ts";
import mailAuth from "../../handlers/mail-auth.ts";
import { defineFilter } from "../../src/index.ts";
import { runFilter, type SessionOptions, type TestDns } from "../../src/testing/index.ts";
import { RECORDS, signedMails } from "./signed-mail.ts";

// The first test loads the library.
setDefaultTimeout(30_000);

const CLIENT = { address: "192.0.2.7", hostname: "mx.example.net" };
const EML = "From: Jane <jane@from.example>\nSubject: x\n\nHello\n";
/** A message from outside. */
const MAIL = {
  client: CLIENT,
  helo: "mx.helo.example",
  from: "a@from.example",
  to: ["b@example.com"],
  eml: EML,
} as const;
const SPF_PASS = { "from.example TXT": ["v=spf1 ip4:192.0.2.7 -all"] };
const asks = (policy: string): TestDns => ({ "_dmarc.from.example TXT": [`v=DMARC1; p=${policy}`] });

interface Given extends SessionOptions {
  readonly from?: string;
  readonly eml?: string | Uint8Array;
  readonly client?: { readonly address: string; readonly hostname?: string };
  readonly helo?: string;
  readonly macros?: Readonly<Record<string, string>>;
}

async function run(options: Record<string, unknown>, dns: TestDns = {}, given: Given = {}) {
  const outcome = await runFilter(mailAuth, {
    ...MAIL,
    dns,
    options: { authserv_id: "mx.test", ...options },
    ...given,
  });
  expect(outcome.failures).toEqual([]);
  const added = outcome.modifications.flatMap((change) =>
    change.kind === "insertHeader" && change.name === "Authentication-Results" ? [change] : [],
  );
  return { ...outcome, parts: added[0]?.value.split(";\n ") ?? [], added };
}

describe("results", () => {
  test("SPF passes, and with it DMARC; the header comes on top", async () => {
    const { added, results, verdict } = await run({}, { ...SPF_PASS, ...asks("reject") });
    expect(verdict).toBe("accept");
    expect(added).toEqual([
      {
        kind: "insertHeader",
        index: 0,
        name: "Authentication-Results",
        value: [
          "mx.test",
          "spf=pass smtp.mailfrom=from.example",
          "spf=none smtp.helo=mx.helo.example",
          "dkim=none",
          "dmarc=pass policy.dmarc=reject header.from=from.example",
          "arc=none smtp.remote-ip=192.0.2.7",
        ].join(";\n "),
      },
    ]);
    expect(results).toEqual({
      spf: {
        result: "pass",
        domain: "from.example",
        identity: "mailfrom",
        helo: { result: "none", domain: "mx.helo.example", identity: "helo" },
      },
      dkim: { result: "none", signatures: [] },
      dmarc: { result: "pass", domain: "from.example", policy: "reject", reason: "", override: "" },
      arc: { result: "none", instance: 0, sealer: "", reason: "" },
    });
  });

  test("of the null sender, HELO is checked, and counts for DMARC", async () => {
    const dns = { "mx.from.example TXT": ["v=spf1 ip4:192.0.2.7 -all"], ...asks("reject") };
    const { parts, results } = await run({}, dns, { from: "", helo: "mx.from.example" });
    expect(parts.slice(1, 4)).toEqual([
      "spf=pass smtp.helo=mx.from.example",
      "dkim=none",
      "dmarc=pass policy.dmarc=reject header.from=from.example",
    ]);
    expect(results["spf"]).toEqual({ result: "pass", domain: "mx.from.example", identity: "helo" });
  });

  test("where it is known at RCPT whether the filter runs, SPF is checked as well", async () => {
    const { parts } = await run({}, SPF_PASS, { when: { recipients: ["example.com"] } });
    expect(parts[1]).toBe("spf=pass smtp.mailfrom=from.example");
    const { modifications } = await run({}, SPF_PASS, { when: { recipients: ["example.org"] } });
    expect(modifications).toEqual([]);
  });

  test.each([
    ["From: a@from.example\nFrom: b@from.example\n", "multiple-from-fields"],
    ["From: a@from.example, b@other.example\n", "multiple-author-domains"],
    ["Subject: x\n", "no-author-domain"],
  ])("of a message with %j DMARC has no result", async (head, reason) => {
    const { parts, verdict } = await run({ policy: { dmarc_reject: "reject" } }, asks("reject"), {
      eml: `${head}\nx\n`,
    });
    expect(parts).toContain(`dmarc=permerror (${reason})`);
    expect(verdict).toBe("accept");
  });

  test("only the checks that are wanted are told", async () => {
    const { parts, results } = await run({ checks: ["dmarc"] }, { ...SPF_PASS, ...asks("none") });
    expect(parts).toEqual(["mx.test", "dmarc=pass policy.dmarc=none header.from=from.example"]);
    expect(Object.keys(results)).toEqual(["dmarc"]);
  });
});

const SPF_FAIL = { "from.example TXT": ["v=spf1 ip4:198.51.100.1 -all"] };

describe("SPF for filters that decide at RCPT", () => {
  const seen = async (options: Record<string, unknown>, dns: TestDns) => {
    const results: unknown[] = [];
    const probe = defineFilter({
      name: "probe",
      envrcpt({ message }) {
        results.push(message.results.get("spf") ?? null);
      },
    });
    const { failures } = await runFilter([mailAuth, probe], {
      ...MAIL,
      dns,
      options: { authserv_id: "mx.test", ...options },
    });
    expect(failures).toEqual([]);
    return results;
  };

  test("is there with early_spf, and not without", async () => {
    const found = { result: "pass", domain: "from.example", identity: "mailfrom" };
    expect(await seen({ early_spf: true }, SPF_PASS)).toEqual([found]);
    expect(await seen({}, SPF_PASS)).toEqual([null]);
  });

  test("is not waited for longer than the timeout", async () => {
    const silent = { "from.example TXT": { records: ["v=spf1 -all"], delay: 3_600_000 } };
    expect(await seen({ early_spf: true, timeout: "50ms" }, silent)).toEqual([null]);
  });
});

describe("what becomes of a message", () => {
  test.each(["none", "quarantine", "reject"])("that fails in all of it, with p=%s: it is marked", async (policy) => {
    const { modifications, notes, parts, verdict } = await run({}, { ...SPF_FAIL, ...asks(policy) });
    expect({ notes, verdict }).toEqual({ notes: [], verdict: "accept" });
    expect(modifications).toHaveLength(1);
    expect(parts).toContain(`dmarc=fail policy.dmarc=${policy} header.from=from.example`);
  });

  test.each([
    [
      "reject",
      { dmarc_reject: "reject" },
      "reject",
      "550 5.7.26 DMARC failed for from.example, which asks to refuse such mail",
    ],
    ["reject", { dmarc_reject: "tempfail" }, "tempfail", "451 4.7.26 DMARC failed for from.example, try again later"],
    ["quarantine", { dmarc_reject: "reject" }, "accept", ""],
    ["quarantine", { dmarc_quarantine: "reject" }, "reject", "550 5.7.26 DMARC failed"],
    ["none", { dmarc_quarantine: "reject", dmarc_reject: "reject" }, "accept", ""],
    ["none", { spf_fail: "reject" }, "reject", "550 5.7.23 SPF: from.example does not permit 192.0.2.7"],
    [
      "none",
      { spf_fail: "tempfail" },
      "tempfail",
      "451 4.7.23 SPF: from.example does not permit 192.0.2.7, try again later",
    ],
  ])("p=%s with %j: %s", async (asked, policy, expected, text) => {
    const { reply, verdict } = await run({ policy }, { ...SPF_FAIL, ...asks(asked) });
    expect(verdict).toBe(expected as never);
    const said = reply === null ? "" : `${reply.code} ${reply.enhanced} ${reply.lines.join(" ")}`;
    expect(said).toStartWith(text);
  });

  test.each([
    ["dmarc_reject", "reject", "DMARC failed for from.example"],
    ["dmarc_quarantine", "quarantine", "DMARC failed for from.example"],
    ["spf_fail", "none", "SPF failed for from.example"],
  ])("%s = quarantine", async (key, asked, reason) => {
    const { modifications, notes } = await run({ policy: { [key]: "quarantine" } }, { ...SPF_FAIL, ...asks(asked) });
    expect(modifications).toContainEqual({ kind: "quarantine", reason });
    expect(notes.map(({ text }) => text)).toEqual([`quarantine: ${reason}`]);
  });

  test.each<[string, TestDns]>([
    ["SPF", { "from.example TXT": "failed" }],
    ["DMARC", { ...SPF_FAIL, "_dmarc.from.example TXT": "failed" }],
  ])("an answer that fails is no failure: %s", async (_, dns) => {
    const policy = { dmarc_reject: "reject", dmarc_quarantine: "reject", spf_fail: "mark" };
    const { parts, verdict } = await run({ policy }, { ...asks("reject"), ...dns });
    expect(verdict).toBe("accept");
    expect(parts.filter((part) => part.startsWith("dmarc="))).toEqual([expect.stringMatching(/^dmarc=temperror\b/)]);
  });

  test("texts of one's own, and placeholders that there are not", async () => {
    const policy = { dmarc_reject: "reject" };
    const { reply } = await run(
      { policy, dmarc_reject_text: "550 5.7.1 No, {client}: {domain}" },
      { ...SPF_FAIL, ...asks("reject") },
    );
    expect(reply?.lines).toEqual(["No, 192.0.2.7: from.example"]);
    expect(run({ dmarc_reject_text: "550 5.7.1 {sender}" })).rejects.toThrow("{domain} and {client} as placeholders");
    expect(run({ spf_tempfail_text: "550 5.7.1 x" })).rejects.toThrow("spf_tempfail_text");
  });

  test.each<[string, Given, Record<string, unknown>?]>([
    ["has logged in", { macros: { auth_authen: "jane", auth_type: "PLAIN" } }],
    ["is in own_networks", {}, { own_networks: ["192.0.2.0/24"] }],
  ])("mail of a client that %s is not judged", async (_, given, more = {}) => {
    const policy = { dmarc_reject: "reject", spf_fail: "reject" };
    const dns = { ...SPF_FAIL, ...asks("reject") };
    const { modifications, results, verdict } = await run({ policy, ...more }, dns, given);
    expect({ modifications, results, verdict }).toEqual({ modifications: [], results: {}, verdict: "accept" });
  });
});

describe("mail that was sealed", () => {
  const dns = Object.fromEntries(Object.entries(RECORDS).map(([name, text]) => [`${name} TXT`, [text]]));
  const reject = { policy: { dmarc_reject: "reject" } };
  const mailOf = async (name: string) => {
    const found = (await signedMails()).find((mail) => mail.name === name);
    return { eml: found!.eml, from: "list@list.test" };
  };

  test.each<[string, string[], string, string]>([
    ["by a list, sealed", ["list.test"], "accept", "dmarc=fail (sealed by list.test)"],
    ["by a list, sealed", [], "reject", "dmarc=fail policy"],
    ["by a list, sealed", ["other.test"], "reject", "dmarc=fail policy"],
    ["by a list, sealed and changed afterwards", ["list.test"], "reject", "dmarc=fail policy"],
    ["by a list that found it bad, sealed", ["list.test"], "reject", "dmarc=fail policy"],
    ["by two lists, sealed", ["list.test"], "accept", "dmarc=fail (sealed by list.test)"],
    ["another body", ["list.test"], "reject", "dmarc=fail policy"],
    ["relaxed", [], "accept", "dmarc=pass"],
  ])("%s, trusted %j: %s", async (name, trusted_sealers, expected, part) => {
    const options = { trusted_sealers };
    const { verdict } = await run({ ...reject, ...options }, dns, await mailOf(name));
    expect(verdict).toBe(expected as never);
    const { parts } = await run(options, dns, await mailOf(name));
    expect(parts.find((text) => text.startsWith("dmarc="))).toStartWith(part);
  });

  test("a key of the chain that cannot be asked for leaves open what a trusted sealer says", async () => {
    const lost: TestDns = { ...dns, "s._domainkey.list.test TXT": "failed" };
    const { parts, verdict } = await run(
      { ...reject, trusted_sealers: ["list.test"] },
      lost,
      await mailOf("by a list, sealed"),
    );
    expect(verdict).toBe("accept");
    expect(parts.filter((part) => /^(?:arc|dmarc)=/.test(part)).map((part) => part.split(" ")[0])).toEqual([
      "dmarc=temperror",
      "arc=temperror",
    ]);
    expect((await run(reject, lost, await mailOf("by a list, sealed"))).verdict).toBe("reject");
  });

  test("a key that cannot be asked for leaves DMARC open", async () => {
    const { parts, verdict } = await run(
      reject,
      { ...dns, "r._domainkey.signed.test TXT": "failed" },
      await mailOf("relaxed"),
    );
    expect(verdict).toBe("accept");
    expect(parts.filter((part) => /^(?:dkim|dmarc)=/.test(part)).map((part) => part.split(" ")[0])).toEqual([
      "dkim=temperror",
      "dmarc=temperror",
    ]);
  });
});

describe("results that a sender wrote", () => {
  const OURS = [
    "mx.test; spf=pass smtp.mailfrom=bank.example",
    " mx.test;dkim=pass",
    "MX.Test; spf=pass",
    "mx.test.; spf=pass",
    '"mx.test"; spf=pass',
    '"m\\x.test" 1; spf=pass',
    "mx.test 1; spf=pass",
    "mx.test/1; spf=pass",
    "(a (nested) comment) mx.test (x) 1; spf=pass",
    "(a \\) comment;) mx.test; spf=pass",
    "\n mx.test;\n spf=pass",
    "\u00a0mx.test; spf=pass",
    "mx.test",
    "(mx.test; spf=pass",
    '"mx.test; spf=pass',
  ];
  const OTHERS = [
    "mx.other; spf=pass",
    "mx.test.other; spf=pass",
    "a.mx.test; spf=pass",
    "(mx.test) mx.other; spf=pass",
    '"mx.test;"; spf=pass',
    "mx.other 1; spf=pass smtp.helo=mx.test",
    "",
  ];
  test.each(OURS)("%j is in our name", (value) => {
    expect(isInNameOf(value, "mx.test")).toBe(true);
  });
  test.each(OTHERS)("%j is not", (value) => {
    expect(isInNameOf(value, "mx.test")).toBe(false);
  });

  const forged =
    "AUTHENTICATION-RESULTS : mx.test; spf=pass\nFrom: a@from.example\nauthentication-results: (x) MX.test;\n dkim=pass\nAuthentication-Results: mx.other; spf=pass\n\nx\n";
  const left = (message: string) => message.split("\r\n").filter((line) => /^authentication-results/i.test(line));

  test("is removed wherever it stands, and that of others is not", async () => {
    const { message } = await run({}, {}, { eml: forged });
    expect(left(message)).toEqual(["Authentication-Results: mx.test;", "Authentication-Results: mx.other; spf=pass"]);
  });

  test("is removed from a user's mail, and kept from one's own servers", async () => {
    const user = await run({}, {}, { eml: forged, macros: { auth_authen: "jane", auth_type: "PLAIN" } });
    expect(left(user.message)).toEqual(["Authentication-Results: mx.other; spf=pass"]);
    const relay = await run({ own_networks: ["192.0.2.7"] }, {}, { eml: forged });
    expect(left(relay.message)).toHaveLength(3);
  });

  test("the name is the mail server's where none is given", async () => {
    const given = { authserv_id: undefined };
    const { added } = await run(given, {}, { macros: { j: "mail.example.org" } });
    expect(added[0]!.value).toStartWith("mail.example.org;");
  });
});

describe("hostile mail", () => {
  /** What no domain, selector or result has, in a header as in a log. */
  const NASTY = [
    "\u001b[31mred",
    "x\r\n y",
    "x; spf=pass",
    "x (comment",
    'x"y',
    "x\\y",
    "b\u00fccher",
    "\u202eevil",
    "x\u0000y",
    "a".repeat(300),
  ];
  const isClean = (value: string) => /^(?:[ -~]|\n )+$/.test(value);

  test.each(NASTY)("%j in each place where it could come from", async (nasty) => {
    const tag = nasty.replaceAll(/[\r\n\0]/g, "");
    const signature = (d: string, s: string, a = "rsa-sha256", b = "eA==") =>
      `DKIM-Signature: v=1; a=${a}; d=${d}; s=${s}; h=from; bh=eA==; b=${b}`;
    const eml = [
      signature(tag, "s"),
      signature("from.example", tag),
      signature("from.example", "s", tag),
      signature("from.example", "s", "rsa-sha256", tag),
      `ARC-Seal: i=1; a=rsa-sha256; cv=none; d=${tag}; s=${tag}; b=eA==`,
      "ARC-Message-Signature: i=1; a=rsa-sha256; d=from.example; s=s; h=from; bh=eA==; b=eA==",
      `ARC-Authentication-Results: i=1; ${tag}; dmarc=${tag}`,
      `From: a@${tag}`,
      "",
      "x",
    ].join("\n");
    const dns: TestDns = {
      "from.example TXT": [`v=spf1 include:${nasty} exp=${nasty} -all`],
      "_dmarc.from.example TXT": [`v=DMARC1; p=${nasty}; rua=${nasty}`],
      "s._domainkey.from.example TXT": [`v=DKIM1; k=${nasty}; p=${nasty}`],
    };
    for (const given of [
      { eml },
      { helo: nasty.replaceAll("\0", "") },
      { from: `a@${tag}` },
      { from: `"${tag}"@from.example` },
    ]) {
      const { added, results, verdict } = await run({ policy: { spf_fail: "quarantine" } }, dns, given);
      expect(verdict).toBe("accept");
      expect(added).toHaveLength(1);
      expect(isClean(added[0]!.value)).toBe(true);
      for (const part of added[0]!.value.split(";\n ").slice(1)) {
        expect(part).toMatch(
          /^(?:spf|dkim|dmarc|arc)=[a-z]+(?: \([\w .:=/+-]*\))?(?: [a-z]+\.[a-z-]+=(?:[\w.+/-]+|"[\w.+/=:-]+"))*$/,
        );
      }
      expect(isClean(JSON.stringify(results))).toBe(true);
    }
  });

  test("of a thousand signatures ten are verified, and as many keys asked for", async () => {
    const signature = (at: number) =>
      `DKIM-Signature: v=1; a=rsa-sha256; d=d${at}.example; s=s; h=from; l=${at}; bh=eA==; b=eA==\n`;
    const eml = Array.from({ length: 1000 }, (_, at) => signature(at)).join("") + EML;
    const { parts } = await run({ checks: ["dkim"] }, {}, { eml });
    expect(parts).toHaveLength(12);
    expect(parts.at(-1)).toBe("dkim=policy (990 more signatures not verified)");
  });
});
