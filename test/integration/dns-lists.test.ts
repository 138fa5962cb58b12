/** dns-lists behind both mail servers, with a name server that knows some lists, and with one that is silent. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { startNameServer, type TestNameServer } from "../services/dns/server.ts";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { connectSmtp, sendMail } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE, TO } from "./site.ts";
import { parts, said, type Site, startSite } from "./support.ts";

// A busy machine starts a mail server and several servers slowly.
setDefaultTimeout(120_000);

/** For how long the absence of a name is kept (RFC 2308). */
const SOA = {
  name: "example",
  type: "SOA",
  ttl: 300,
  data: { mname: "ns.example", rname: "h.example", serial: 1, refresh: 1, retry: 1, expire: 1, minimum: 300 },
};

/** Answers of lists; all other names are missing. */
async function startLists(records: Readonly<Record<string, string>>): Promise<TestNameServer> {
  return await startNameServer((name, type) => {
    const data = records[`${name} ${type}`];
    if (data === undefined) return { rcode: 3, authorities: [SOA] };
    return { answers: [{ name, type, ttl: 300, data: type === "TXT" ? [data] : data }] };
  });
}

const dnsTable = ({ address, port }: TestNameServer, more = "") => `[dns]\nservers = ["${address}:${port}"]\n${more}\n`;

const DOMAINS = `[[filter]]
use = "dns-lists"
[filter.options]
header = "X-Lists"
reject_at = 10
lists = [
  { zone = "helo.example", of = "helo", score = 4 },
  { zone = "sender.example", of = "sender", score = 6, codes = ["127.0.1.0/24"] },
  { zone = "from.example", of = "from", score = 6 },
  { zone = "links.example", of = "links", score = 10, text = "a link to {what}" },
]
`;

describeBehindEach("dns-lists", (server) => {
  let lists: TestNameServer;
  let site: MailSite;
  beforeAll(async () => {
    lists = await startLists({
      "bad.helo.helo.example A": "127.0.0.2",
      "bad.test.sender.example A": "127.0.1.2",
      "bad.test.sender.example TXT": "see\r\nhttp://sender.example/",
      "good.test.sender.example A": "127.0.0.2",
      "bad.test.from.example A": "127.0.0.2",
      "bad.link.links.example A": "127.0.0.2",
    });
    site = await server.startSite({ lists: { config: dnsTable(lists) + DOMAINS } });
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
    await lists?.[Symbol.asyncDispose]();
  });

  test("at RCPT, by HELO and sender", async () => {
    const { rcpt, last } = await site.send({ from: "a@bad.test", helo: "mx.bad.helo" });
    expect(last).toBe(rcpt.at(-1)!);
    expect(said(last)).toMatch(
      /^550 5\.7\.1 .*Service unavailable; bad\.test is listed by sender\.example: see http:\/\/sender\.example\/$/,
    );
    expect(await site.pmilter().log.next(/reject recipient: .*filter=dns-lists/)).toContain("sender.example");
    expect(site.pmilter().log.text).toContain(
      "reject: sender.example 6 (bad.test 127.0.1.2), helo.example 4 (bad.helo 127.0.0.2)",
    );
  });

  test("at the end, by From and by a link", async () => {
    const from = await site.send({
      from: "a@bad.test",
      message: MESSAGE.replace("alice@example.test", "a@bad.test"),
    });
    expect(said(from.last)).toContain("Service unavailable; bad.test is listed by sender.example");
    expect(from.last).toBe(from.end!);
    const link = await site.send({ message: `${MESSAGE}\r\nsee https://www.bad.link/ now\r\n` });
    expect(said(link.last)).toContain("550 5.7.1 ");
    expect(said(link.last)).toContain("Service unavailable; a link to bad.link");
  });

  test("a sum below the limit passes, with the header in place of a sender's", async () => {
    const { text } = await site.deliver({ from: "a@bad.test", message: `X-Lists: sum 0\r\n${MESSAGE}` });
    expect(parts(text).fields.filter((field) => /^x-lists:/i.test(field))).toEqual([
      "X-Lists: sum 6;\r\n sender.example 6 (bad.test 127.0.1.2)",
    ]);
    const clear = await site.deliver({ from: "a@good.test" });
    expect(parts(clear.text).fields).toContain("X-Lists: sum 0");
  });
});

const CLIENTS = `[[filter]]
use = "dns-lists"
[filter.options]
lists = [{ zone = "zen.example", of = "client", codes = ["127.0.0.2/31"] }, { zone = "second.example" }]
`;
const LISTED = { addr: "192.0.2.7", name: "mx.bad.test" };

describeWith(postfixTool, "dns-lists, of clients as Postfix tells them", () => {
  let lists: TestNameServer;
  let site: Site;
  beforeAll(async () => {
    lists = await startLists({
      "7.2.0.192.zen.example A": "127.0.0.3",
      [`7${".0".repeat(23)}.8.b.d.0.1.0.0.2.zen.example A`]: "127.0.0.2",
      "8.2.0.192.zen.example A": "127.0.0.10",
    });
    const config = dnsTable(lists) + CLIENTS;
    site = await startSite({
      filters: {
        lists: { config, server: { workers: 2 } },
        early: { config: config.replace("[filter.options]", "[filter.options]\nearly = true") },
        split: { config: `${config}[filter.when]\nrecipients = ["one.test"]\n` },
      },
    });
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
    await lists?.[Symbol.asyncDispose]();
  });

  const send = (xclient: object, more: object = {}, service = "lists") =>
    sendMail({ port: site.port(service), from: FROM, to: TO, message: MESSAGE, xclient, ...more });

  test.each(["lists", "early"])("listed clients are refused, IPv4 and IPv6, and others not (%s)", async (service) => {
    for (const addr of ["192.0.2.7", "IPV6:2001:db8::7"]) {
      const { last } = await send({ ...LISTED, addr }, {}, service);
      const shown = addr.replace("IPV6:", "");
      expect(said(last)).toMatch(
        new RegExp(`^550 5\\.7\\.1 .*Service unavailable; ${shown} is listed by zen\\.example$`),
      );
    }
    for (const addr of ["192.0.2.8", "192.0.2.9"])
      expect((await send({ ...LISTED, addr }, {}, service)).last.code).toBe(250);
  });

  test("with a condition, the recipients that it takes are refused, and no others", async () => {
    const { rcpt } = await send(LISTED, { to: ["a@one.test", "b@two.test"] }, "split");
    expect(rcpt.map(({ code }) => code)).toEqual([550, 250]);
  });

  test("no list is asked about a client that has logged in, or about one on this machine", async () => {
    const before = lists.asked.length;
    expect((await send({ addr: "192.0.2.70", login: "jane" })).last.code).toBe(250);
    expect((await send({ name: "own.test" })).last.code).toBe(250);
    expect(lists.asked.slice(before)).toEqual([]);
  });

  test.each([
    ["lists", "192.0.2.51", "MAIL"],
    ["early", "192.0.2.52", "CONNECT"],
  ])("%s: the lists are asked about %s at %s", async (service, addr, phase) => {
    await using client = await connectSmtp({ port: site.port(service) });
    const question = `udp ${addr.split(".").toReversed().join(".")}.zen.example A`;
    const isAsked = () => lists.asked.includes(question);
    await client.ehlo("a.test");
    await client.xclient({ addr, name: "mx.test" });
    await client.ehlo("a.test");
    if (phase === "CONNECT") await waitFor(isAsked, { what: "the question" });
    expect(isAsked()).toBe(phase === "CONNECT");
    await client.mail(FROM);
    await waitFor(isAsked, { what: "the question" });
    await client.quit();
  });

  test("a hundred connections of a client ask each list once", async () => {
    const before = lists.asked.length;
    const xclient = { addr: "192.0.2.99", name: "mx.many.test" };
    for (let round = 0; round < 10; round++) {
      const sent = await Promise.all(Array.from({ length: 10 }, () => send(xclient)));
      expect(sent.map(({ last }) => last.code)).toEqual(Array(10).fill(250));
    }
    expect(lists.asked.slice(before).toSorted()).toEqual([
      "udp 99.2.0.192.second.example A",
      "udp 99.2.0.192.zen.example A",
    ]);
  });
});

describe("a dead list", () => {
  describeWith(postfixTool, "behind Postfix", () => {
    test("costs nobody more than its timeout, is no listing, and is told once", async () => {
      await using stack = new AsyncDisposableStack();
      const silent = stack.use(await startNameServer(() => ({ isSilent: true })));
      // The DNS itself would wait for minutes: what ends the wait is the filter's own timeout.
      const config = `${dnsTable(silent, "timeout = 120\nattempts = 1")}${CLIENTS.replace("[filter.options]", '[filter.options]\ntimeout = "300ms"')}`;
      const site = stack.use(await startSite({ filters: { lists: { config, server: { workers: 1 } } } }));
      const send = (addr: string) =>
        sendMail({ port: site.port(), from: FROM, to: TO, message: MESSAGE, xclient: { addr, name: "mx.test" } });
      const sent = await Promise.all(Array.from({ length: 20 }, (_, index) => send(`192.0.2.${index + 1}`)));
      expect(sent.map(({ last }) => last.code)).toEqual(Array(20).fill(250));
      for (let index = 0; index < 5; index++) expect((await send(`192.0.2.${index + 100}`)).last.code).toBe(250);
      const { text } = site.pmilter().log;
      expect(text).not.toMatch(/fallback|handler failed|too slow/);
      expect(text.match(/zen\.example does not answer/g)).toHaveLength(1);
      expect(silent.asked).toContain("udp 1.2.0.192.zen.example A");
      // After so many slow failures nobody waits for it any more: those who came last were not asked about.
      expect(silent.asked.filter((question) => /^udp 10\d\./.test(question)).length).toBeLessThan(10);
    });
  });
});
