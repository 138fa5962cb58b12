/**
 * Where Sendmail differs from Postfix, as docs say it does: what it tells of the client, which macros come when, which
 * replies it takes at which phase.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { FROM, MESSAGE, TO } from "../integration/site.ts";
import { oneFilter, outcome, said } from "../integration/support.ts";
import { describeWith } from "../support/available.ts";
import { queueIdOf, sendmailTool } from "../support/sendmail.ts";
import { connectSmtp, sendMail } from "../support/smtp-client.ts";
import { fieldsOf, type Site, startSite } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(120_000);

/** Prints `CLIENT {…}`: at each phase, what is known of the client and which of many macros are there. */
const FACTS = `
import { defineFilter } from "pmilter";
const NAMES = [
  "i", "j", "v", "_", "{daemon_name}", "{daemon_addr}", "{if_name}", "{if_addr}", "{client_addr}", "{client_name}", "{client_resolve}",
  "{mail_addr}", "{mail_mailer}", "{mail_host}", "{rcpt_addr}", "{rcpt_mailer}", "{rcpt_host}", "{msg_id}", "{verify}",
];
function note(session) {
  const { client, queueId, daemonName, myHostname, phase } = session;
  const macros = Object.fromEntries(NAMES.flatMap((name) => {
    const value = session.macros.get(name);
    return value === undefined ? [] : [[name, value]];
  }));
  console.log(client.hostname, JSON.stringify({ phase, client, queueId, daemonName, myHostname, macros }));
}
const phases = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "unknown", "abort", "close"];
export default defineFilter({
  ...Object.fromEntries(phases.map((phase) => [phase, note])),
  ...(globalThis.MORE ?? {}),
});
`;
/** The same, with lists of its own. */
const ASKING = FACTS.replace(
  "...(globalThis.MORE ?? {})",
  `macros: {
    connect: ["{client_addr}", "{client_resolve}"], helo: ["{verify}", "{client_name}"],
    envfrom: ["{client_addr}"], eom: ["{client_name}"],
  }`,
);

/** Decides what Sendmail would not take, or takes as nobody else does. */
const REPLIES = `
import { defineFilter, discard, reject, skip } from "pmilter";
const is = (session, name) => session.client.hostname.startsWith(name + ".");
export default defineFilter({
  connect: (session) => is(session, "discard-connect") ? discard() : undefined,
  helo: (session) => is(session, "discard-helo") ? discard() : undefined,
  envrcpt(session, recipient) {
    if (is(session, "all")) return recipient.startsWith("<discard") ? discard() : undefined;
    return recipient.startsWith("<no") ? reject("554 5.1.1 not " + recipient) : undefined;
  },
  header: (session) => is(session, "skip-header") ? skip() : undefined,
  body(session, chunk) {
    console.log(session.client.hostname, "body", chunk.length);
    return is(session, "skip") ? skip() : undefined;
  },
  eom(session) { console.log(session.client.hostname, "eom"); session.message.addHeader("X-Eom", "1"); },
});
`;

/** Wants to see recipients that Sendmail rejects itself, and would change nothing about them. */
const REJECTED_RECIPIENTS = `
import { accept, defineFilter } from "pmilter";
export default defineFilter({
  rejectedRecipients: true,
  envrcpt(session, recipient) {
    const { macros, message } = session;
    const known = ["{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"].map((name) => macros.get(name));
    console.log(JSON.stringify([recipient, ...known]));
    return recipient.startsWith("<nobody") ? accept() : undefined;
  },
  eom({ message }) { console.log(JSON.stringify(message.recipients.map(({ address }) => address))); },
});
`;
/**
 * Sendmail rejects three recipients itself: one who is no user of its own host, `gone`, for whom it has no mailer, and
 * `barred` by a ruleset.
 */
const RULES = [
  "MAILER(`local')",
  "LOCAL_RULE_0",
  'R gone < @ $* > $*\t$#error $@ 5.1.1 $: "550 No such user"',
  "LOCAL_RULESETS",
  "SLocal_check_rcpt",
  "R$*\t$: $1 $| $>CanonAddr $1",
  'R$* $| barred < @ $* > $*\t$#error $@ 5.7.1 $: "550 Barred"',
  "R$* $| $*\t$: $1",
].join("\n");

interface Facts {
  readonly phase: string;
  readonly client: {
    readonly hostname: string;
    readonly family: string;
    readonly address: string;
    readonly port: number;
  };
  readonly queueId: string;
  readonly daemonName: string;
  readonly myHostname: string;
  readonly macros: Readonly<Record<string, string>>;
}

describeWith(sendmailTool, "Sendmail: what it does unlike Postfix", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: {
        facts: oneFilter(FACTS, { debug: 2, log_level: "debug" }),
        rejected: oneFilter(REJECTED_RECIPIENTS),
        asking: oneFilter(ASKING, { debug: 2, log_level: "debug" }),
        replies: oneFilter(REPLIES, { debug: 2, log_level: "debug" }),
        immediate: oneFilter(REPLIES, { debug: 2, log_level: "debug", defer_content: false }),
      },
      sendmail: ({ facts }) => ({ mc: RULES, services: [{ name: "six", inet6: true, milters: facts! }] }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** What the filter printed of a session with one message, by phase (the last of each), up to its close. */
  async function factsOf(as: string, service = "facts"): Promise<Record<string, Facts>> {
    await using client = await site.connect(as, { service });
    await client.command("FROBNICATE");
    await client.mail(FROM);
    await client.rcpt(TO);
    expect((await client.data(MESSAGE)).code).toBe(250);
    await client.mail("");
    await client.rset();
    await client.quit();
    return await printed(`${as}.client.test`, service);
  }

  async function printed(hostname: string, service: string): Promise<Record<string, Facts>> {
    const { prints } = site.pmilter(service);
    await prints.next(new RegExp(`^${hostname.replaceAll(/[[\]]/g, "\\$&")} .*"phase":"close"`));
    const mine = prints.all.filter((line) => line.startsWith(`${hostname} `));
    const facts = mine.map((line) => JSON.parse(line.slice(hostname.length + 1)) as Facts);
    return Object.fromEntries(facts.toReversed().map((each) => [each.phase, each]));
  }

  test("the client's address and name, IPv4", async () => {
    const { connect } = await factsOf("plain");
    expect(connect).toMatchObject({
      client: { hostname: "plain.client.test", family: "inet", address: expect.stringMatching(/^127\.1\./) },
      daemonName: "facts",
      myHostname: "mx.example.test",
    });
    expect(connect!.client.port).toBeGreaterThan(0);
    expect(connect!.macros).toMatchObject({ j: "mx.example.test", v: expect.stringMatching(/^8\.1\d\./) });
    expect(connect!.macros["_"]).toMatch(/^plain\.client\.test \[127\.1\.\d+\.\d+\]$/);
  });

  test("IPv6: with the prefix and without compression on the wire, plain for handlers", async () => {
    const result = await sendMail({
      host: "::1",
      port: site.sendmail.port("six"),
      from: FROM,
      to: TO,
      message: MESSAGE,
    });
    expect(result.accepted).toBe(true);
    const { connect } = await printed("localhost", "facts");
    expect(connect!.client).toMatchObject({ hostname: "localhost", family: "inet6", address: "::1" });
    expect(connect!.macros["_"]).toBe("localhost [IPv6:0:0:0:0:0:0:0:1]");
    await site.pmilter("facts").log.next(/ > CONNECT \d+ bytes "localhost\\x006.*IPv6:0:0:0:0:0:0:0:1/);
  });

  test("a client without a name is its address in brackets", async () => {
    await using client = await connectSmtp({ port: await site.sendmail.portFor("", "facts") });
    await client.ehlo("a.test");
    await client.quit();
    const line = await site.pmilter("facts").prints.next(/^\[127\.1\.\d+\.\d+\] .*"phase":"connect"/);
    const hostname = line.split(" ")[0]!;
    const { connect } = await printed(hostname, "facts");
    expect(hostname).toBe(`[${connect!.client.address}]`);
  });

  test("macros by phase: the queue id since it is asked for at CONNECT, none of its own for DATA, EOH, HEADER, BODY, UNKNOWN", async () => {
    const facts = await factsOf("macros");
    const id = facts["eom"]!.queueId;
    expect(id).toMatch(/^\w{14}$/);
    for (const phase of ["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"]) {
      expect([phase, facts[phase]!.queueId]).toEqual([phase, id]);
    }
    expect(facts["envfrom"]!.macros).toMatchObject({
      i: id,
      "{mail_addr}": FROM,
      "{mail_mailer}": "relay",
      "{mail_host}": "[127.0.0.1]",
    });
    expect(facts["envrcpt"]!.macros).toMatchObject({
      "{rcpt_addr}": TO,
      "{rcpt_mailer}": "relay",
      "{rcpt_host}": "[127.0.0.1]",
    });
    // Later phases see the earlier stages' macros, and {msg_id} comes at EOM.
    expect(facts["body"]!.macros).toEqual(facts["envrcpt"]!.macros);
    expect(facts["body"]!.macros["{msg_id}"]).toBeUndefined();
    expect(facts["eom"]!.macros["{msg_id}"]).toMatch(new RegExp(`^<\\d{12}\\.${id}@mx\\.example\\.test>$`));
    expect(facts["unknown"]!.macros["{mail_addr}"]).toBeUndefined();
    // By default it comes with MAIL. What connect, unknown and close have is the one of the session's first message.
    for (const phase of ["connect", "helo", "unknown", "close"]) expect(facts[phase]!.queueId).toBe(id);
    // Not asked for, so not sent.
    expect(facts["eom"]!.macros["{client_addr}"]).toBeUndefined();
  });

  test("the queue id of each message of a session is its own", async () => {
    await using client = await site.connect("ids", { service: "asking" });
    const replies = [];
    for (let message = 0; message < 2; message++) {
      await client.mail(FROM);
      await client.rcpt(TO);
      replies.push(await client.data(MESSAGE));
    }
    await client.quit();
    const { prints } = site.pmilter("asking");
    await prints.next(/^ids\.client\.test .*"phase":"close"/);
    const eoms = prints.all.filter((line) => /^ids\..*"phase":"eom"/.test(line));
    const seen = eoms.map((line) => (JSON.parse(line.slice(line.indexOf("{"))) as Facts).queueId);
    expect(seen).toEqual(replies.map(queueIdOf));
    expect(new Set(seen).size).toBe(2);
  });

  test("macros that a filter asks for come besides the defaults; EOM's list counts, since EOH's is sent too", async () => {
    const facts = await factsOf("asking", "asking");
    const address = facts["connect"]!.client.address;
    expect(facts["connect"]!.macros).toMatchObject({
      j: "mx.example.test",
      "{client_addr}": address,
      "{client_resolve}": "OK",
    });
    expect(facts["helo"]!.macros).toMatchObject({ "{client_name}": "asking.client.test" });
    expect(facts["envfrom"]!.macros).toMatchObject({ i: facts["eom"]!.queueId, "{mail_addr}": FROM });
    const stages = [
      ...site
        .pmilter("asking")
        .log.all.join("\n")
        .matchAll(/ > MACRO \d+ bytes "(\w)/g),
    ].map((m) => m[1]);
    // EOH and EOM each have a stage now; HEADER, BODY and UNKNOWN never.
    expect(new Set(stages)).toEqual(new Set(["C", "H", "M", "R", "N", "E"]));
    expect(facts["eom"]!.macros).toMatchObject({
      "{msg_id}": expect.any(String),
      "{client_name}": "asking.client.test",
    });
  });

  test("DISCARD at connect and helo is never sent: it is an error of the handler", async () => {
    const { log } = site.pmilter("replies");
    for (const phase of ["connect", "helo"]) {
      const from = log.all.length;
      const result = await site.send({ service: "replies", as: `discard-${phase}` });
      expect(outcome(result)).toBe("mail: 451 4.3.2 Please try again later");
      expect(await log.next(/handler failed/, { from })).toContain(`discard() is no verdict of phase ${phase}`);
      expect(log.all.slice(from).filter((line) => / < DISCARD /.test(line))).toEqual([]);
    }
  });

  test("RCPT verdicts are per recipient, discard() is for the message", async () => {
    const some = await site.send({ service: "replies", as: "some", to: ["no@example.org", TO, "no2@example.org"] });
    expect(some.rcpt.map(said)).toEqual([
      "554 5.1.1 not <no@example.org>",
      `250 2.1.5 <${TO}>... Recipient ok`,
      "554 5.1.1 not <no2@example.org>",
    ]);
    expect(site.delivered(some.last).to).toMatchObject([{ address: TO }]);
    const all = await site.send({ service: "replies", as: "all", to: [TO, "discard@example.org", "c@example.org"] });
    expect(all.rcpt.map(({ code }) => code)).toEqual([250, 250, 250]);
    expect(site.deliveriesOf(queueIdOf(all.last))).toEqual([]);
  });

  test("a recipient that Sendmail rejects for want of a user is shown to who asks for it, and stays rejected", async () => {
    const { prints } = site.pmilter("rejected");
    const to = ["nobody-here@mx.example.test", TO, "barred@example.org", "gone@example.net"];
    const result = await site.send({ service: "rejected", to });
    expect(result.rcpt.map(said)).toEqual([
      "550 5.1.1 <nobody-here@mx.example.test>... User unknown",
      `250 2.1.5 <${TO}>... Recipient ok`,
      "550 5.7.1 <barred@example.org>... Barred",
      "550 5.1.1 <gone@example.net>... No such user",
    ]);
    expect(site.delivered(result.last).to).toMatchObject([{ address: TO }]);
    expect(JSON.parse(await prints.next(/^\["bob@example.org"\]/))).toEqual([TO]);
    // What a ruleset rejects it tells nobody: it leaves RCPT before it comes to the filters.
    expect(prints.all.slice(0, -1).map((line) => JSON.parse(line) as unknown)).toEqual([
      ["<nobody-here@mx.example.test>", "error", "5.1.1", "550 5.1.1 User unknown"],
      [`<${TO}>`, "relay", "[127.0.0.1]", TO],
    ]);
    // Others never see them.
    const from = site.pmilter("facts").prints.all.length;
    await site.send({ service: "facts", as: "others", to });
    await site.pmilter("facts").prints.next(/"phase":"close"/, { from });
    const seen = site
      .pmilter("facts")
      .prints.all.slice(from)
      .filter((line) => line.includes('"phase":"envrcpt"'));
    expect(seen).toHaveLength(1);
  });

  test("SKIP is sent for BODY only, and the end of the message still comes", async () => {
    const message = `${MESSAGE}${`${"z".repeat(998)}\r\n`.repeat(200)}`;
    for (const [service, bodies] of [
      ["immediate", 1],
      ["replies", 1],
    ] as const) {
      const { log, prints } = site.pmilter(service);
      const from = log.all.length;
      const delivered = await site.deliver({ service, as: "skip", message });
      expect(fieldsOf(delivered)).toContain("X-Eom: 1");
      expect(delivered.text.length).toBeGreaterThan(200_000);
      expect(prints.all.filter((line) => line.startsWith("skip.client.test body"))).toHaveLength(bodies);
      const skips = log.all.slice(from).filter((line) => / < SKIP /.test(line));
      // With content deferred nobody waits for an answer to BODY, so the rest comes and is passed over.
      expect(skips).toHaveLength(service === "immediate" ? 1 : 0);
    }
    const { log } = site.pmilter("immediate");
    const from = log.all.length;
    await site.send({ service: "immediate", as: "skip-header" });
    expect(await log.next(/handler failed/, { from })).toContain("skip() is no verdict of phase header");
    expect(log.all.slice(from).filter((line) => / < SKIP /.test(line))).toEqual([]);
  });

  test("negotiation: what Sendmail 8.17 offers by default", () => {
    const offer = site.pmilter("replies").log.all.find((line) => / > OPTNEG /.test(line));
    expect(offer).toEndWith(String.raw`OPTNEG 12 bytes "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"`);
  });
});
