/** mail-auth behind both mail servers, beside verifiers by others who get the mail as it was delivered. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { startNameServer, type TestNameServer } from "../services/dns/server.ts";
import { RECORDS, signedMails } from "../shipped/signed-mail.ts";
import { describeWith } from "../support/available.ts";
import { DKIMPY, MAIL_DKIM } from "../support/judges/signatures.ts";
import { postfixTool } from "../support/postfix.ts";
import { sendMail } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE, TO } from "./site.ts";
import { parts, startSite } from "./support.ts";

// A busy machine starts a mail server and several servers slowly.
setDefaultTimeout(120_000);

const RECORD_BYTES = 255;
/** A text as a record has it: in strings of at most 255 bytes. */
const strings = (text: string) => text.match(new RegExp(`.{1,${RECORD_BYTES}}`, "gs"))!;

async function startNames(records: Readonly<Record<string, string>>): Promise<TestNameServer> {
  return await startNameServer((name, type) => {
    const text = type === "TXT" ? records[name] : undefined;
    return text === undefined ? { rcode: 3 } : { answers: [{ name, type, ttl: 300, data: strings(text) }] };
  });
}

const config = ({ address, port }: TestNameServer, options = "", dns = "") => `[dns]
servers = ["${address}:${port}"]
${dns}
[[filter]]
use = "mail-auth"
[filter.options]
authserv_id = "mx.example.test"
${options}
`;

const resultsOf = (text: string) => {
  const [top = ""] = parts(text).fields;
  expect(top).toStartWith("Authentication-Results: mx.example.test;");
  return top.split(";").map((part) => part.trim());
};

interface Said {
  readonly dkim: readonly string[];
  readonly arc: string;
}

/** What each says, in the order of the signatures: ours; and dkimpy and Mail::DKIM, where they say something else. */
interface Expected {
  readonly ours: Said;
  readonly dkimpy?: Partial<Said>;
  readonly perl?: Partial<Said>;
}

const PASS = { dkim: ["pass"], arc: "none" };
const FAIL = { dkim: ["fail"], arc: "none" };
const EXPECTED: Readonly<Record<string, Expected>> = {
  unsigned: { ours: { dkim: [], arc: "none" } },
  relaxed: { ours: PASS },
  "simple, and no space behind Subject:": { ours: PASS },
  "simple/relaxed": { ours: PASS },
  "relaxed/simple": { ours: PASS },
  // Mail::DKIM knows no Ed25519.
  ed25519: { ours: PASS, perl: { dkim: ["invalid"] } },
  "two signatures": { ours: { dkim: ["pass", "pass"], arc: "none" }, perl: { dkim: ["pass", "invalid"] } },
  // RFC 8301 3.2 is younger than Mail::DKIM.
  "weak key": { ours: { dkim: ["policy"], arc: "none" }, dkimpy: { dkim: ["error"] }, perl: { dkim: ["pass"] } },
  // dkimpy takes signatures that have expired.
  expired: { ours: { dkim: ["neutral"], arc: "none" }, dkimpy: { dkim: ["pass"] }, perl: { dkim: ["invalid"] } },
  "another body": { ours: FAIL, dkimpy: { dkim: ["error"] } },
  "another Subject": { ours: FAIL },
  "without a key": {
    ours: { dkim: ["neutral"], arc: "none" },
    dkimpy: { dkim: ["fail"] },
    perl: { dkim: ["invalid"] },
  },
  "by a list, sealed": { ours: { dkim: ["fail"], arc: "pass" }, dkimpy: { dkim: ["error"] } },
  "by a list, sealed and changed afterwards": { ours: { dkim: ["fail"], arc: "fail" }, dkimpy: { dkim: ["error"] } },
  "by a list that found it bad, sealed": { ours: { dkim: ["fail"], arc: "pass" }, dkimpy: { dkim: ["error"] } },
  "by two lists, sealed": { ours: { dkim: ["fail"], arc: "pass" }, dkimpy: { dkim: ["error"] } },
};

/** The first word: a verifier's own explanation does not count. */
const word = (result: string) => result.replace(/:.*/, "");

describeWith([DKIMPY.tool, MAIL_DKIM.tool], "judges", () => {
  describeBehindEach("mail-auth", (server) => {
    let names: TestNameServer;
    let site: MailSite;
    beforeAll(async () => {
      names = await startNames({ ...RECORDS, "signed.test": "v=spf1 -all" });
      site = await server.startSite({
        auth: { config: config(names, 'trusted_sealers = ["list.test"]') },
      });
    });
    afterAll(async () => {
      await site?.[Symbol.asyncDispose]();
      await names?.[Symbol.asyncDispose]();
    });

    test("says of each mail what others say", async () => {
      const mails = await signedMails();
      const delivered: Uint8Array[] = [];
      const ours: Said[] = [];
      for (const { eml } of mails) {
        const { data, text } = await site.deliver({ from: "alice@signed.test", message: eml });
        delivered.push(data);
        const results = resultsOf(text);
        const of = (method: string) =>
          results.flatMap((part) => (part.startsWith(`${method}=`) ? [/=(\w+)/.exec(part)![1]!] : []));
        ours.push({ dkim: of("dkim").filter((result) => result !== "none"), arc: of("arc")[0]! });
      }
      const [dkimpy, perl] = await Promise.all([DKIMPY.judge(RECORDS, delivered), MAIL_DKIM.judge(RECORDS, delivered)]);
      const words = ({ arc, dkim }: (typeof dkimpy)[number]): Said => ({
        dkim: dkim.map(({ result }) => word(result)),
        arc: word(arc),
      });
      const seen = mails.map(({ name }, at) => [
        name,
        { ours: ours[at], dkimpy: words(dkimpy[at]!), perl: words(perl[at]!) },
      ]);
      const expected = Object.entries(EXPECTED).map(([name, { dkimpy: python, ours: own, perl: perls }]) => [
        name,
        { ours: own, dkimpy: { ...own, ...python }, perl: { ...own, ...perls } },
      ]);
      expect(seen).toEqual(expected);
    });

    test("results in our name are removed, and ours stand on top; those of others stay", async () => {
      const forged = [
        "Authentication-Results: mx.example.test; dmarc=pass header.from=bank.example",
        'AUTHENTICATION-RESULTS: "MX.example.test" 1; spf=pass smtp.mailfrom=bank.example',
        "Authentication-Results: (x)\r\n mx.example.test (y); dkim=pass header.d=bank.example",
        "Authentication-Results: mx.other.test; dkim=pass header.d=other.example",
      ];
      const [above, ...below] = forged;
      const message = [above, "From: a@bank.example", ...below, "Subject: x", "", "x", ""].join("\r\n");
      const { text } = await site.deliver({ from: "a@bank.example", message });
      expect(resultsOf(text)).toContain("dmarc=none header.from=bank.example");
      const left = parts(text).fields.filter((field) => /^authentication-results:/i.test(field));
      expect(left.slice(1)).toEqual([forged.at(-1)!]);
    });
  });
});

describeWith(postfixTool, "mail-auth, behind Postfix, with a silent name server", () => {
  test("says temperror within its timeout, refuses nothing, and keeps no other session waiting", async () => {
    await using stack = new AsyncDisposableStack();
    const silent = stack.use(await startNameServer(() => ({ isSilent: true })));
    const policy = 'policy = { dmarc_reject = "reject", dmarc_quarantine = "reject", spf_fail = "reject" }';
    // The DNS itself would wait for minutes: what ends the wait is the filter's own timeout.
    const text = config(silent, `timeout = "6s"\n${policy}`, "timeout = 120\nattempts = 1");
    const site = stack.use(
      await startSite({
        filters: { auth: { config: text, server: { workers: 1 } } },
        postfix: ({ auth }) => ({ nonSmtpdMilters: auth! }),
      }),
    );
    const signed = (await signedMails()).find(({ name }) => name === "two signatures")!;
    const send = (xclient: object, message: string) =>
      sendMail({ port: site.port(), from: FROM, to: TO, message, xclient: { name: "mx.test", ...xclient } });
    let waiting = 0;
    const judged = Array.from({ length: 5 }, async (_, index) => {
      waiting += 1;
      const { last } = await send({ addr: `192.0.2.${index + 1}` }, signed.eml);
      waiting -= 1;
      return last;
    });
    const others = await Promise.all(
      Array.from({ length: 40 }, (_, index) => send({ addr: `198.51.100.${index + 1}`, login: "jane" }, MESSAGE)),
    );
    expect(others.map(({ last }) => last.code)).toEqual(Array(40).fill(250));
    expect(waiting).toBe(5);
    const replies = await Promise.all(judged);
    expect(replies.map(({ code }) => code)).toEqual(Array(5).fill(250));
    const results = resultsOf((await site.delivered(replies[0]!)).text);
    expect(results.slice(1).map((part) => part.split(" ")[0])).toEqual([
      "spf=temperror",
      "spf=temperror",
      "dkim=temperror",
      "dkim=temperror",
      "dmarc=temperror",
      "arc=none",
    ]);
    expect(site.pmilter().log.text).not.toMatch(/fallback|handler failed|too slow/);

    // What the mail server makes itself is not judged, nor are results removed that a server of ours wrote.
    const asked = silent.asked.length;
    const own = "Authentication-Results: mx.example.test; spf=pass";
    const local = await site.postfix.submit({ from: "", to: [TO], message: `X-Local: yes\r\n${own}\r\n${MESSAGE}` });
    expect(local).toEqual({ exitCode: 0, stderr: "" });
    const isLocal = ({ text: mail }: { readonly text: string }) => mail.includes("X-Local: yes");
    await waitFor(() => site.sink.messages.some(isLocal), { what: "the local mail" });
    const { text: delivered } = site.sink.messages.find(isLocal)!;
    expect(parts(delivered).fields.filter((field) => field.startsWith("Authentication-Results:"))).toEqual([own]);
    expect(silent.asked.slice(asked)).toEqual([]);
  });
});
