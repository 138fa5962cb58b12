/** What dkim-sign makes, verified by others in the mail that both mail servers deliver. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { CANONICALIZATIONS } from "../../handlers/lib/dkim-sign/canonical.ts";
import { startNameServer, type TestNameServer } from "../services/dns/server.ts";
import { makeKeys } from "../shipped/dkim-keys.ts";
import { describeWith } from "../support/available.ts";
import { corpusMails, corpusTool } from "../support/corpus.ts";
import { DKIMPY, type Judgement, MAIL_DKIM } from "../support/judges/signatures.ts";
import type { SinkMessage } from "../support/smtp-sink.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";
import { parts, startSite } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(300_000);

const KEYS = makeKeys("example.test");
const SEALER = makeKeys("sealer.test");
const RECORDS = { ...KEYS.records, ...SEALER.records };

const DECORATION = `[[filter]]
use = "banner"
[filter.options]
text = "Achtung!"
origin = "any"

[[filter]]
use = "disclaimer"
[filter.options]
text = "Außendienst & Co."
origin = "any"
`;

/** The sender of mail that is signed in all canonicalizations, each of which has a sender of its own. */
const ALL = "alice@all.test";
const senderOf = (at: number) => `alice@form${at % CANONICALIZATIONS.length}.test`;

/** Mail of one's own: with a signature of each key. */
const SIGN = `${DECORATION}${CANONICALIZATIONS.map(
  (canonicalization, at) => `
[[filter]]
use = "dkim-sign"
[filter.options]
own_networks = ["127.0.0.0/8"]
canonicalization = "${canonicalization}"
${KEYS.toml}
[filter.when]
senders = ["form${at}.test", "all.test"]
`,
).join("")}`;

/** Other mail: results, then a seal. */
function sealing(port: number): string {
  return `[dns]
servers = ["127.0.0.1:${port}"]

[[filter]]
use = "mail-auth"
[filter.options]
checks = ["spf", "dkim", "arc"]

${DECORATION}
[[filter]]
use = "dkim-sign"
[filter.options]
${KEYS.toml}
[filter.options.seal]
domain = "sealer.test"
selector = "r"
file = "sealer.pem"
`;
}

/** What a judge says of signatures that are right; Mail::DKIM knows no Ed25519. */
const RIGHT = {
  python: ["rsa-sha256 pass", "ed25519-sha256 pass"],
  perl: ["rsa-sha256 pass", "ed25519-sha256 invalid"],
};
const inAll = (words: readonly string[]) => CANONICALIZATIONS.flatMap(() => words);

/** Our signatures, sorted out of those that a message had. */
function ours({ dkim }: Judgement): string[] {
  return dkim.filter(({ d }) => d === "example.test").map(({ a, result }) => `${a} ${result}`);
}

interface Verdicts {
  readonly python: readonly Judgement[];
  readonly perl: readonly Judgement[];
}

async function judge(messages: readonly SinkMessage[]): Promise<Verdicts> {
  const mails = messages.map(({ data }) => data);
  const [python, perl] = await Promise.all([DKIMPY.judge(RECORDS, mails), MAIL_DKIM.judge(RECORDS, mails)]);
  return { python, perl };
}

/** A mail of the corpus as one of one's own users would send it; null for one whose From has no address. */
function ownMail(eml: Uint8Array): string | null {
  const text = Buffer.from(eml)
    .toString("latin1")
    .replace(/^From [^\n]*\n/, "")
    .replaceAll(/\r?\n/g, "\r\n");
  const end = text.indexOf("\r\n\r\n") + 2;
  const head = text.slice(0, end);
  const from = /^From:.*<[\w.+-]+@[\w.-]+>\r$/m;
  if (head.match(/^From[ \t]*:/gim)?.length !== 1 || !from.test(head)) return null;
  return head.replace(from, (field) => field.replace(/@[\w.-]+>\r$/, "@example.test>\r")) + text.slice(end);
}

function* ownMails(count: number): Generator<string> {
  let wanted = count;
  let index = 0;
  for (const { eml } of corpusMails()) {
    // A part of all groups.
    if (index++ % 7 !== 0) continue;
    const mail = ownMail(eml);
    if (mail === null) continue;
    yield mail;
    if (--wanted === 0) return;
  }
}

/** It breaks long lines, completes addresses, and adds Date and Message-ID. */
const POSTFIX_DEFAULTS = {
  smtp_line_length_limit: "998",
  local_header_rewrite_clients: "permit_inet_interfaces",
  always_add_missing_headers: "yes",
};

const MAILS = { Postfix: 500, Sendmail: 100 };

describeWith([DKIMPY.tool, MAIL_DKIM.tool], "dkim-sign, with judges", () => {
  describeBehindEach("signatures", (server) => {
    let site: MailSite;
    let names: TestNameServer;
    beforeAll(async () => {
      names = await startNameServer((name, type) => {
        const text = type === "TXT" ? (RECORDS as Record<string, string>)[name.toLowerCase()] : undefined;
        if (text === undefined) return { rcode: 3 };
        return { answers: [{ name, type: "TXT", ttl: 60, data: text.match(/.{1,255}/g)! }] };
      });
      const filters = {
        sign: { config: SIGN, files: KEYS.files },
        seal: { config: sealing(names.port), files: { ...KEYS.files, "sealer.pem": SEALER.files["r.pem"]! } },
      };
      // Other tests have Postfix leave the message as it is.
      const postfix = () => ({ mainCf: POSTFIX_DEFAULTS });
      site = await (server.name === "Postfix" ? startSite({ filters, postfix }) : server.startSite(filters));
    });
    afterAll(async () => {
      await site?.[Symbol.asyncDispose]();
      await names?.[Symbol.asyncDispose]();
    });

    const sendAll = async (mails: Iterable<string>, sender: (at: number) => string): Promise<SinkMessage[]> => {
      const start = site.sink.messages.length;
      let sent = 0;
      await using client = await site.connect();
      for (const mail of mails) {
        await client.mail(sender(sent), "BODY=8BITMIME");
        await client.rcpt("bob@example.org");
        const { code, text } = await client.data(mail);
        if (code !== 250) throw new Error(`${mail.slice(0, 200)}: ${code} ${text}`);
        sent += 1;
      }
      await waitFor(() => site.sink.messages.length >= start + sent, { what: `${sent} messages` });
      return site.sink.messages.slice(start);
    };

    describeWith(corpusTool(), "the corpus", () => {
      test(`${MAILS[server.name]} mails, with banner and footer, in all canonicalizations`, async () => {
        const delivered = await sendAll(ownMails(MAILS[server.name]), senderOf);
        expect(delivered).toHaveLength(MAILS[server.name]);
        const { perl, python } = await judge(delivered);
        const wrong = delivered.flatMap(({ text }, at) => {
          const found = { python: ours(python[at]!), perl: ours(perl[at]!) };
          return Bun.deepEquals(found, RIGHT)
            ? []
            : [{ ...found, header: parts(text).fields.join("\n").slice(0, 3000) }];
        });
        expect(wrong).toEqual([]);
      });
    });

    describe("what mail servers change", () => {
      const HEAD = "From: Alice <alice@example.test>\r\nSubject: x\r\n";
      const long = "x".repeat(3000);
      const mime = `${HEAD}MIME-Version: 1.0\r\nContent-Type: `;
      const names64 = Array.from({ length: 64 }, (_, at) => `"User, ${at}" <u${at}@example.org>`).join(",");
      const MESSAGES: readonly (readonly [string, string])[] = [
        ["no Date, no Message-ID, no To", `${HEAD}\r\nbody\r\n`],
        ["no final line end", `${HEAD}\r\nbody`],
        ["empty lines at the end", `${HEAD}\r\nbody \t\r\n\r\n \r\n\r\n`],
        ["no body", `${HEAD}\r\n`],
        ["a body of white space", `${HEAD}\r\n \r\n\t\r\n`],
        [
          "a list without spaces",
          `${HEAD}To: a@example.org,b@example.org ,\r\n\t"C, D"<c@example.org>\r\n\r\nbody\r\n`,
        ],
        ["a long list", `${HEAD}Cc: ${names64.slice(0, 900)}\r\n\r\nbody\r\n`],
        ["a list of long lines", `${HEAD}Cc: ${names64}\r\n\r\nbody\r\n`],
        ["a user without a domain", `${HEAD}To: bob, "x" <y@example.org>\r\n\r\nbody\r\n`],
        ["a name that is quoted", `From: Al.I.Ce O'Hara <alice@example.test>\r\nSubject: x\r\n\r\nbody\r\n`],
        ["a comment", `From: alice@example.test(Alice A.)\r\nSubject: x\r\n\r\nbody\r\n`],
        ["a group", `${HEAD}To: people: a@example.org,b@example.org;\r\n\r\nbody\r\n`],
        ["nobody", `${HEAD}To: undisclosed-recipients:;\r\n\r\nbody\r\n`],
        ["8 bits in the header", `From: J\xfcrgen <alice@example.test>\r\nSubject: gr\xfcn\xc3\xbc\r\n\r\nbody\r\n`],
        ["folds", `${HEAD}References: <a@b>\r\n\t<c@d>\r\n   <e@f>\r\nX-Y: z\r\n\r\nbody\r\n`],
        ["no space behind the colon", `From:alice@example.test\r\nSubject:hi\r\nTo:b@example.org\r\n\r\nbody\r\n`],
        ["a long line", `${HEAD}\r\n${long}\r\nmore\r\n`],
        ["a line of 995", `${HEAD}\r\n${"x".repeat(995)}\r\nmore\r\n`],
        ["a long line in a file", `${mime}application/x-data; name=a\r\n\r\n${long}\r\n`],
        ["a long line in a part", `${mime}multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n${long}\r\n--b--\r\n`],
        ["an open multipart", `${mime}multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n`],
        ["lone CR and NUL", `${HEAD}\r\na\rb\0c\r\n`],
        ["lines with a dot and From", `${HEAD}\r\n.\r\n..\r\nFrom here\r\n>From\r\n`],
        ["a sub-domain", `From: <alice@mail.example.test>\r\nSubject: x\r\n\r\nbody\r\n`],
        [
          "Bcc and trace fields",
          `Received: from x by y; z\r\nReturn-Path: <a@b>\r\n${HEAD}Bcc: c@example.org\r\n\r\nbody\r\n`,
        ],
        ["ten times one field", `${HEAD}${"Comments: x\r\n".repeat(20)}${"List-Help: <x>\r\n".repeat(12)}\r\nbody\r\n`],
      ];

      test("breaks no signature", async () => {
        // Sendmail takes no lone CR.
        const messages = MESSAGES.filter(([name]) => server.name !== "Sendmail" || !name.startsWith("lone CR"));
        const delivered = await sendAll(
          messages.map(([, message]) => message),
          () => ALL,
        );
        const { perl, python } = await judge(delivered);
        const found = messages.map(([name], at) => [name, ours(python[at]!), ours(perl[at]!)]);
        expect(found).toEqual(messages.map(([name]) => [name, inAll(RIGHT.python), inAll(RIGHT.perl)]));
        for (const { text } of delivered) expect(text).not.toMatch(/[;:\s]l=|h=[^;]*\b(?:Bcc|Received|Return-Path)\b/);
      });

      test("what has no single From of ours is not signed", async () => {
        const OTHERS = [
          "From: alice@example.test\r\nFrom: bob@example.test",
          "X-Y: z\r\nFrom : alice@example.test\r\nFrom: bob@example.test",
          "From: <>",
          "From: people:;",
          "From: alice@example.org",
          "From: alice@notexample.test",
          "From: alice@test",
          "From: alice@example.test.evil.org",
          'From: "alice@example.test" <x@evil.org>',
          "From: evil@evil.org (alice@example.test)",
          "Subject: alice@example.test",
        ];
        const delivered = await sendAll(
          OTHERS.map((from) => `${from}\r\n\r\nbody\r\n`),
          () => ALL,
        );
        const signed = delivered.map(({ text }) => text.includes("DKIM-Signature"));
        expect(signed).toEqual(OTHERS.map(() => false));
      });
    });

    describe("seals", () => {
      test("mail from outside, forwarded twice", async () => {
        const first = await site.deliver({ service: "seal" });
        const { text } = first;
        expect(text.match(/^ARC-Seal: i=1; .*cv=none/gms)).toHaveLength(1);
        expect(text).not.toContain("DKIM-Signature");
        // The second hop gets what the first one delivered, and judges its chain.
        const second = await site.deliver({ service: "seal", message: text });
        expect(second.text.replaceAll(/\r\n\s+/g, " ")).toMatch(/^ARC-Seal: i=2; .*cv=pass/m);
        const { perl, python } = await judge([first, second]);
        expect([python, perl].map((each) => each.map(({ arc }) => arc))).toEqual([
          ["pass", "pass"],
          ["pass", "pass"],
        ]);
        expect(second.text.replaceAll(/\r\n\s+/g, " ")).toMatch(/^ARC-Authentication-Results: i=2; .*arc=pass/m);
      });

      test("a chain that fails is left as it is", async () => {
        const { text } = await site.deliver({ service: "seal" });
        const broken = text.replace("ARC-Seal: i=1;", "ARC-Seal: i=3;");
        const again = await site.deliver({ service: "seal", message: broken });
        expect(again.text.match(/^ARC-Seal:/gm)).toHaveLength(1);
      });
    });
  });
});
