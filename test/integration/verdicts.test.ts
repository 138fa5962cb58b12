/**
 * Verdicts at every phase as the SMTP client sees them: with the mail server's own words, with a filter's, and with
 * content verdicts given where they are found or at the end of the message, which the client must not notice.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { NO_COMMAND } from "../sendmail/support.ts";
import type { SmtpClient } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach, type MailServer } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE, TO } from "./site.ts";
import { clientName, oneFilter, outcome, said, Site as PostfixSite } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

/** Decides at the phase and in the way that the client's name says: `PHASE-WAY.client.test`. */
const FILTER = `
import { defineFilter, discard, reject, tempfail } from "pmilter";
const ways = {
  reject: () => reject(),
  tempfail: () => tempfail(),
  discard: () => discard(),
  text: () => reject("554 5.7.7 Not 100% welcome, %s\\nsecond line: 50%%\\n3 strikes"),
  named: () => reject("550 5.7.7 Not you, 100%"),
  later: () => tempfail("450 4.2.0 5% full\\ncome back"),
  close: () => tempfail("421 4.3.2 100% gone\\nbye"),
  close1: () => tempfail("421 4.3.2 gone"),
  bare: () => reject("550"),
  bytes: () => reject("550 5.7.1 Grüße 日本"),
  many: () => reject("554 5.7.1 " + Array.from({ length: 32 }, (_, n) => "line " + n + " " + "x".repeat(480)).join("\\n")),
  long: () => reject("554 5.7.1 " + "word ".repeat(300).trim()),
};
function decide(session) {
  const [phase, way] = session.client.hostname.split(".")[0].split("-");
  if (phase === session.phase) return ways[way]();
}
export default defineFilter({
  connect: decide, helo: decide, envfrom: decide, envrcpt: decide, data: decide, header: decide, eoh: decide,
  body: decide, eom: decide, unknown: decide,
});
`;

const TEXT = "554 5.7.7 Not 100% welcome, %s | 5.7.7 second line: 50%% | 5.7.7 3 strikes";
const NAMED = "550 5.7.7 Not you, 100%";
const LATER = "450 4.2.0 5% full | 4.2.0 come back";
const CLOSE = "421 4.3.2 100% gone | 4.3.2 bye";
const CLOSE1 = "421 4.3.2 gone";
const REJECTED = "550 5.7.1 Command rejected";

const CONTENT = { header: "end", eoh: "end", body: "end" } as const;
/** The step of the SMTP dialogue that carries the verdict of a phase. */
const STEPS = { envfrom: "mail", envrcpt: "rcpt", data: "data", ...CONTENT, eom: "end" } as const;
/** The address that the client gives at a phase. */
const ADDRESSES: Readonly<Record<string, string>> = { envfrom: FROM, envrcpt: TO };

/** What the two say differently, beside what every test may ask `server` for. */
interface Words {
  readonly greeting: string;
  readonly rejectedAtHelo: string;
  /** A filter's text that is not ASCII. */
  readonly bytes: string;
  /** The ways whose reply to MAIL and RCPT has the address in front of the text. */
  readonly withAddress: readonly string[];
}
const WORDS: Readonly<Record<MailServer["name"], Words>> = {
  Postfix: {
    greeting: "220 mx.example.test ESMTP Postfix",
    rejectedAtHelo: REJECTED,
    bytes: "550 5.7.1 Grüße 日本",
    withAddress: [],
  },
  Sendmail: {
    greeting: "220 mx.example.test ESMTP Sendmail",
    rejectedAtHelo: NO_COMMAND,
    // It cuts off the eighth bit of what it says to the client.
    bytes: "550 5.7.1 GrC<C\u001fe f\u0017%f\u001c,",
    // In front of the first line, where it does not repeat the code: not for 421, 451 of its own, and 551, 552, 554.
    withAddress: ["reject", "named", "later", "bare"],
  },
};

describeBehindEach("verdicts at each phase", (server) => {
  const { tryLater } = server;
  const isPostfix = server.name === "Postfix";
  const words = WORDS[server.name];
  let site: MailSite;
  const accepted: string[] = [];
  beforeAll(async () => {
    site = await server.startSite({
      deferred: oneFilter(FILTER),
      immediate: oneFilter(FILTER, { defer_content: false }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** A filter's reply as the client gets it to MAIL or RCPT with this address. */
  const addressed = (way: string, address: string | undefined, reply: string) =>
    address !== undefined && words.withAddress.includes(way)
      ? reply.replace(/^(\d{3} [\d.]+) /, `$1 <${address}>... `)
      : reply;

  const replies = {
    reject: REJECTED,
    tempfail: tryLater,
    text: TEXT,
    named: NAMED,
    later: LATER,
    close: CLOSE,
    close1: CLOSE1,
    bare: REJECTED,
  };
  const table = Object.entries(STEPS).flatMap(([phase, step]) =>
    Object.entries(replies).map(([way, plain]) => {
      const atEnd = way === "reject" && step === "end";
      const reply = atEnd ? server.rejectedAtEnd : addressed(way, ADDRESSES[phase], plain);
      return { name: `${phase}-${way}`, expected: `${step}: ${reply}` };
    }),
  );
  test.each(table)("$name gives the client $expected", async ({ name, expected }) => {
    expect(outcome(await site.send({ as: name }))).toBe(expected);
    expect(outcome(await site.send({ as: name, service: "immediate" }))).toBe(expected);
  });

  test.each(Object.keys(STEPS))("%s-discard tells the client that the message was taken", async (phase) => {
    for (const service of ["deferred", "immediate"]) {
      const result = await site.send({ as: `${phase}-discard`, service });
      const id = server.queueIdOf(result.last);
      expect(outcome(result).replace(id, "ID")).toBe(`end: ${server.accepted}`);
      if (site instanceof PostfixSite)
        await site.postfix.waitForLog(new RegExp(`milter-discard: .* from ${phase}-discard\\.client\\.test`));
      expect(site.deliveriesOf(id)).toEqual([]);
      expect(await site.queueIds()).not.toContain(id);
    }
  });

  const connectTable: Record<MailServer["name"], [way: string, greeting: string, reply: string][]> = {
    Postfix: [
      ["reject", server.noGreeting, REJECTED],
      ["text", server.noGreeting, TEXT],
      ["named", server.noGreeting, NAMED],
      ["tempfail", words.greeting, tryLater],
      ["later", words.greeting, LATER],
    ],
    // The text is not used at connect: only its class is.
    Sendmail: [
      ["reject", server.noGreeting, NO_COMMAND],
      ["text", server.noGreeting, NO_COMMAND],
      ["named", server.noGreeting, NO_COMMAND],
      ["tempfail", words.greeting, tryLater],
      ["later", words.greeting, tryLater],
      // Sendmail looks for "421 ", which the first of several lines does not have.
      ["close", words.greeting, tryLater],
    ],
  };
  test.each(connectTable[server.name])("connect-%s is for the whole connection", async (way, greeting, reply) => {
    await using arrival = await arrive(`connect-${way}`);
    const { client } = arrival;
    expect(arrival.greeting).toBe(greeting);
    expect((await client.ehlo("a.test")).code).toBe(250);
    expect(said(await client.mail(FROM))).toBe(reply);
    expect((await client.rset()).code).toBe(250);
    for (const from of [FROM, ""]) expect(said(await client.mail(from))).toBe(reply);
    expect((await client.quit()).code).toBe(221);
  });

  test.each([
    ["reject", words.rejectedAtHelo],
    ["text", TEXT],
    ["named", NAMED],
    ["tempfail", tryLater],
    ["later", LATER],
  ])("helo-%s is for the whole connection, from MAIL on", async (way, reply) => {
    await using arrival = await arrive(`helo-${way}`);
    const { client } = arrival;
    expect(arrival.greeting).toBe(words.greeting);
    expect((await client.ehlo("a.test")).code).toBe(250);
    for (const from of [FROM, ""]) expect(said(await client.mail(from))).toBe(reply);
    expect((await client.quit()).code).toBe(221);
  });

  test("421 at connect and helo closes the connection", async () => {
    // Of several lines at connect Sendmail makes a reply to MAIL, as above.
    for (const way of isPostfix ? ["close", "close1"] : ["close1"]) {
      await using atConnect = await arrive(`connect-${way}`);
      expect(atConnect.greeting).toBe(server.closing);
      expect((await atConnect.client.ehlo("a.test")).code).toBe(0);
    }
    await using atHelo = await arrive("helo-close");
    expect(said(await atHelo.client.ehlo("a.test"))).toBe(CLOSE);
    expect((await atHelo.client.mail(FROM)).code).toBe(0);
  });

  test.each(Object.keys(STEPS))("421 at %s closes the connection", async (phase) => {
    await using client = await site.connect(`${phase}-close`);
    const replies = [await client.mail(FROM)];
    if (replies[0]!.code === 250) replies.push(await client.rcpt(TO));
    if (replies.at(-1)!.code === 250) replies.push(await client.data(MESSAGE));
    expect(said(replies.at(-1)!)).toBe(CLOSE);
    expect((await client.mail(FROM)).code).toBe(0);
  });

  test.each([
    ["reject", REJECTED],
    ["text", TEXT],
    ["tempfail", tryLater],
    ["later", LATER],
  ])("unknown-%s changes the reply to the command, and nothing else", async (way, answer) => {
    await using client = await site.connect(`unknown-${way}`);
    expect(said(await client.command("FROBNICATE 1"))).toBe(answer);
    await client.mail(FROM);
    expect(said(await client.command("FROBNICATE 2"))).toBe(answer);
    await client.rcpt(TO);
    const reply = await client.data(MESSAGE);
    accepted.push(server.queueIdOf(reply));
    await site.delivered(reply);
  });

  test("unknown without a verdict: the mail server's own words", async () => {
    await using client = await site.connect("nothing-special");
    expect(said(await client.command("FROBNICATE"))).toBe(server.unrecognized);
  });

  test("a text longer than a line, and one that is not ASCII", async () => {
    const { last } = await site.send({ as: "eom-long" });
    expect(last.code).toBe(554);
    expect(last.lines.length).toBeGreaterThan(2);
    for (const line of last.lines) expect(line.length).toBeLessThanOrEqual(512 - 4 - 2);
    expect(
      last.lines
        .map((line) => line.replace("5.7.1 ", ""))
        .join(" ")
        .split(" "),
    ).toEqual(new Array(300).fill("word"));
    expect(outcome(await site.send({ as: "eom-bytes" }))).toBe(`end: ${words.bytes}`);
  });

  test("a text of as many and as long lines as a reply may have", async () => {
    const { last } = await site.send({ as: "eom-many" });
    expect(last.lines).toEqual(Array.from({ length: 32 }, (_, n) => `5.7.1 line ${n} ${"x".repeat(480)}`));
  });

  test("each recipient is refused by itself, and without any there is no message", async () => {
    const to = [TO, "c@example.org"];
    const { rcpt, data } = await site.send({ as: "envrcpt-named", to });
    expect(rcpt.map(said)).toEqual(to.map((address) => addressed("named", address, NAMED)));
    expect(data).toBeUndefined();
  });

  test("nothing that was refused or discarded was delivered", async () => {
    const { last } = await site.send({ as: "nothing-special" });
    accepted.push(server.queueIdOf(last));
    await site.delivered(last);
    // Sendmail delivers before it replies.
    if (isPostfix) await waitFor(async () => (await site.queueIds()).length === 0, { what: "an empty queue" });
    expect(await site.queueIds()).toEqual([]);
    expect(site.sink.messages).toHaveLength(accepted.length);
    for (const id of accepted) expect(site.deliveriesOf(id)).toHaveLength(1);
  });

  /** A client of that behaviour before its EHLO. Postfix learns the name from XCLIENT, and answers with a new greeting. */
  async function arrive(as: string): Promise<AsyncDisposable & { client: SmtpClient; greeting: string }> {
    const client = await (isPostfix ? site.connect() : site.connect(as, { helo: false }));
    const greeting = isPostfix ? await client.xclient({ name: clientName(as) }) : client.greeting;
    return {
      client,
      // Without Sendmail's version and the time.
      greeting: said(greeting).replace(/(?<=ESMTP Sendmail) .*/, ""),
      [Symbol.asyncDispose]: () => client.close(),
    };
  }
});
