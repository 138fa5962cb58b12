/**
 * Verdicts at every phase as Sendmail's client sees them: with Sendmail's own words, with a filter's, and with content
 * verdicts given where they are found or at the end of the message, which the client must not notice.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { FROM, MESSAGE, oneFilter, outcome, said, TO } from "../integration/support.ts";
import { describeWith } from "../support/available.ts";
import { queueIdOf, sendmailTool } from "../support/sendmail.ts";
import { NO_COMMAND, NO_GREETING, REJECTED, REJECTED_AT_END, type Site, startSite, TRY_LATER } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(30_000);

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
const LATER = "450 4.2.0 5% full | 4.2.0 come back";
const CLOSE = "421 4.3.2 100% gone | 4.3.2 bye";
const GREETING = "220 mx.example.test ESMTP Sendmail";

/** The step of the SMTP dialogue that carries the verdict of a phase. */
const STEPS = {
  envfrom: "mail",
  envrcpt: "rcpt",
  data: "data",
  header: "end",
  eoh: "end",
  body: "end",
  eom: "end",
} as const;
const REPLIES = {
  reject: REJECTED,
  tempfail: TRY_LATER,
  text: TEXT,
  named: "550 5.7.7 Not you, 100%",
  later: LATER,
  close: CLOSE,
  close1: "421 4.3.2 gone",
  bare: REJECTED,
} as const;

/**
 * Sendmail puts the address in front of the first line of what it says to MAIL and RCPT, where it does not repeat the
 * code: not for 421, 451 of its own, and 551, 552, 554.
 */
function withAddress(phase: string, way: string, reply: string): string {
  const address = { envfrom: FROM, envrcpt: TO }[phase];
  if (address === undefined || !["reject", "named", "later", "bare"].includes(way)) return reply;
  return reply.replace(/^(\d{3} [\d.]+) /, `$1 <${address}>... `);
}

describeWith(sendmailTool, "Sendmail: verdicts at each phase", () => {
  let site: Site;
  const accepted: string[] = [];
  beforeAll(async () => {
    site = await startSite({
      filters: { deferred: oneFilter(FILTER), immediate: oneFilter(FILTER, { defer_content: false }) },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  const table = Object.entries(STEPS).flatMap(([phase, step]) =>
    Object.entries(REPLIES).map(([way, reply]) => {
      const said = way === "reject" && step === "end" ? REJECTED_AT_END : withAddress(phase, way, reply);
      return { name: `${phase}-${way}`, expected: `${step}: ${said}` };
    }),
  );
  test.each(table)("$name gives the client $expected", async ({ name, expected }) => {
    expect(outcome(await site.send({ as: name }))).toBe(expected);
    expect(outcome(await site.send({ as: name, service: "immediate" }))).toBe(expected);
  });

  test.each(Object.keys(STEPS))("%s-discard tells the client that the message was taken", async (phase) => {
    for (const service of ["deferred", "immediate"]) {
      const { last } = await site.send({ as: `${phase}-discard`, service });
      const id = queueIdOf(last);
      expect(site.deliveriesOf(id)).toEqual([]);
      expect(await site.sendmail.queue()).not.toContain(id);
    }
  });

  test.each([
    ["reject", NO_GREETING, NO_COMMAND],
    // The text is not used at connect: only its class is.
    ["text", NO_GREETING, NO_COMMAND],
    ["named", NO_GREETING, NO_COMMAND],
    ["tempfail", GREETING, TRY_LATER],
    ["later", GREETING, TRY_LATER],
    // Sendmail looks for "421 ", which the first of several lines does not have.
    ["close", GREETING, TRY_LATER],
  ])("connect-%s is for the whole connection", async (way, greeting, reply) => {
    await using client = await site.connect(`connect-${way}`, { helo: false });
    expect(said(client.greeting)).toStartWith(greeting);
    expect((await client.ehlo("a.test")).code).toBe(250);
    expect(said(await client.mail(FROM))).toBe(reply);
    expect((await client.rset()).code).toBe(250);
    expect(said(await client.mail(""))).toBe(reply);
    expect((await client.quit()).code).toBe(221);
  });

  test.each([
    ["reject", NO_COMMAND],
    ["text", TEXT],
    ["named", "550 5.7.7 Not you, 100%"],
    ["tempfail", TRY_LATER],
    ["later", LATER],
  ])("helo-%s is for the whole connection, from MAIL on", async (way, reply) => {
    await using client = await site.connect(`helo-${way}`, { helo: false });
    expect(said(client.greeting)).toStartWith(GREETING);
    expect((await client.ehlo("a.test")).code).toBe(250);
    for (const from of [FROM, ""]) expect(said(await client.mail(from))).toBe(reply);
    expect((await client.quit()).code).toBe(221);
  });

  test("421 at connect and helo closes the connection", async () => {
    await using atConnect = await site.connect("connect-close1", { helo: false });
    expect(said(atConnect.greeting)).toBe("421 4.7.0 mx.example.test closing connection");
    expect((await atConnect.ehlo("a.test")).code).toBe(0);
    await using atHelo = await site.connect("helo-close", { helo: false });
    expect(said(await atHelo.ehlo("a.test"))).toBe(CLOSE);
    expect((await atHelo.mail(FROM)).code).toBe(0);
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
    // With Postfix a 5xx text is Postfix's own.
    ["text", TEXT],
    ["tempfail", TRY_LATER],
    ["later", LATER],
  ])("unknown-%s changes the reply to the command, and nothing else", async (way, answer) => {
    await using client = await site.connect(`unknown-${way}`);
    expect(said(await client.command("FROBNICATE 1"))).toBe(answer);
    await client.mail(FROM);
    expect(said(await client.command("FROBNICATE 2"))).toBe(answer);
    await client.rcpt(TO);
    const reply = await client.data(MESSAGE);
    accepted.push(queueIdOf(reply));
    site.delivered(reply);
  });

  test("unknown without a verdict: Sendmail's own words", async () => {
    await using client = await site.connect("nothing-special");
    expect(said(await client.command("FROBNICATE"))).toBe('500 5.5.1 Command unrecognized: "FROBNICATE"');
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
    // Sendmail cuts off the eighth bit of what it says to the client.
    expect(outcome(await site.send({ as: "eom-bytes" }))).toStartWith("end: 550 5.7.1 GrC<C\u001fe ");
  });

  test("a text of as many and as long lines as a reply may have", async () => {
    const { last } = await site.send({ as: "eom-many" });
    expect(last.lines).toEqual(Array.from({ length: 32 }, (_, n) => `5.7.1 line ${n} ${"x".repeat(480)}`));
  });

  test("a refused recipient is one recipient: the others get the message", async () => {
    // Its own filter would refuse all: this one only knows the phase, so the message has none left.
    const { rcpt, data } = await site.send({ as: "envrcpt-named", to: [TO, "c@example.org"] });
    expect(rcpt.map(said)).toEqual([TO, "c@example.org"].map((to) => `550 5.7.7 <${to}>... Not you, 100%`));
    expect(data).toBeUndefined();
  });

  test("nothing that was refused or discarded was delivered", async () => {
    const { last } = await site.send({ as: "nothing-special" });
    accepted.push(queueIdOf(last));
    site.delivered(last);
    expect(await site.sendmail.queue()).toEqual([]);
    expect(site.sink.messages).toHaveLength(accepted.length);
    for (const id of accepted) expect(site.deliveriesOf(id)).toHaveLength(1);
  });
});
