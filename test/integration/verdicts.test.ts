/**
 * Verdicts at every phase as the SMTP client sees them: with the mail server's own words, with a filter's, and with
 * content verdicts given where they are found or at the end of the message, which the client must not notice.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool, queueIdOf } from "../support/postfix.ts";
import { connectSmtp, type SmtpClient } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { clientName, FROM, MESSAGE, oneFilter, outcome, said, type Site, startSite, TO } from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
setDefaultTimeout(30_000);

/** Decides at the phase and in the way that the client's name says: `PHASE-WAY.client.test`. */
const FILTER = `
import { defineFilter, discard, reject, tempfail } from "pmilter";
const ways = {
  reject: () => reject(),
  tempfail: () => tempfail(),
  discard: () => discard(),
  text: () => reject("554 5.7.7 Not 100% welcome, %s\\nsecond line: 50%%\\n3 strikes"),
  later: () => tempfail("450 4.2.0 5% full\\ncome back"),
  close: () => tempfail("421 4.3.2 100% gone\\nbye"),
  bare: () => reject("550"),
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
const REJECTED = "550 5.7.1 Command rejected";
const UNAVAILABLE = "451 4.7.1 Service unavailable - try again later";

const CONTENT = { header: "end", eoh: "end", body: "end" } as const;
/** The step of the SMTP dialogue that carries the verdict of a phase. */
const STEPS = { envfrom: "mail", envrcpt: "rcpt", data: "data", ...CONTENT, eom: "end" } as const;
const REPLIES = {
  reject: REJECTED,
  tempfail: UNAVAILABLE,
  text: TEXT,
  later: LATER,
  close: CLOSE,
  bare: "550 5.7.1 Command rejected",
} as const;

describeWith(postfixTool, "verdicts at each phase", () => {
  let site: Site;
  const accepted: string[] = [];
  beforeAll(async () => {
    site = await startSite({
      filters: { deferred: oneFilter(FILTER), immediate: oneFilter(FILTER, { defer_content: false }) },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  const table = Object.entries(STEPS).flatMap(([phase, step]) =>
    Object.entries(REPLIES).map(([way, reply]) => ({ name: `${phase}-${way}`, expected: `${step}: ${reply}` })),
  );
  test.each(table)("$name gives the client $expected", async ({ name, expected }) => {
    expect(outcome(await site.send({ as: name }))).toBe(expected);
    expect(outcome(await site.send({ as: name, service: "immediate" }))).toBe(expected);
  });

  test.each(Object.keys(STEPS))("%s-discard tells the client that the message was taken", async (phase) => {
    for (const service of ["deferred", "immediate"]) {
      const result = await site.send({ as: `${phase}-discard`, service });
      expect(outcome(result)).toBe("end: 250 2.0.0 Ok: queued");
      await site.postfix.waitForLog(new RegExp(`milter-discard: .* from ${phase}-discard\\.client\\.test`));
    }
  });

  test.each([
    ["reject", "554 mx.example.test ESMTP not accepting connections", REJECTED],
    ["text", "554 mx.example.test ESMTP not accepting connections", TEXT],
    ["tempfail", "220 mx.example.test ESMTP Postfix", UNAVAILABLE],
    ["later", "220 mx.example.test ESMTP Postfix", LATER],
  ])("connect-%s is for the whole connection", async (way, greeting, reply) => {
    await using client = await connected();
    expect(said(await client.xclient({ name: clientName(`connect-${way}`) }))).toBe(greeting);
    expect((await client.ehlo("a.test")).code).toBe(250);
    expect(said(await client.mail(FROM))).toBe(reply);
    await client.rset();
    expect(said(await client.mail(FROM))).toBe(reply);
    expect((await client.quit()).code).toBe(221);
  });

  test.each([
    ["reject", REJECTED],
    ["text", TEXT],
    ["tempfail", UNAVAILABLE],
    ["later", LATER],
  ])("helo-%s is for the whole connection, from MAIL on", async (way, reply) => {
    await using client = await connected();
    expect((await client.xclient({ name: clientName(`helo-${way}`) })).code).toBe(220);
    expect((await client.ehlo("a.test")).code).toBe(250);
    for (const from of [FROM, ""]) expect(said(await client.mail(from))).toBe(reply);
    expect((await client.quit()).code).toBe(221);
  });

  test("421 at connect and helo closes the connection", async () => {
    const atConnect = await site.send({ as: "connect-close" });
    expect(outcome(atConnect)).toBe("xclient: 421 mx.example.test Service unavailable - try again later");
    await using client = await connected();
    await client.xclient({ name: clientName("helo-close") });
    expect(said(await client.ehlo("a.test"))).toBe(CLOSE);
    expect((await client.mail(FROM)).code).toBe(0);
  });

  test("421 closes the connection at a later phase too", async () => {
    await using client = await connected();
    await client.xclient({ name: clientName("eom-close") });
    await client.ehlo("a.test");
    await client.mail(FROM);
    await client.rcpt(TO);
    expect(said(await client.data(MESSAGE))).toBe(CLOSE);
    expect((await client.mail(FROM)).code).toBe(0);
  });

  test.each([
    ["reject", REJECTED],
    ["text", TEXT],
    ["tempfail", UNAVAILABLE],
    ["later", LATER],
  ])("unknown-%s changes the reply to the command, and nothing else", async (way, answer) => {
    await using client = await connected();
    await client.xclient({ name: clientName(`unknown-${way}`) });
    await client.ehlo("a.test");
    expect(said(await client.command("FROBNICATE 1"))).toBe(answer);
    await client.mail(FROM);
    expect(said(await client.command("FROBNICATE 2"))).toBe(answer);
    await client.rcpt(TO);
    const reply = await client.data(MESSAGE);
    accepted.push(queueIdOf(reply));
    await site.delivered(reply);
  });

  test("nothing that was refused or discarded was delivered", async () => {
    const { last } = await site.send({ as: "nothing-special" });
    accepted.push(queueIdOf(last));
    await site.delivered(last);
    await waitFor(async () => (await site.postfix.queue()).length === 0, { what: "an empty queue" });
    expect(site.sink.messages).toHaveLength(accepted.length);
    for (const id of accepted) expect(site.deliveriesOf(id)).toHaveLength(1);
  });

  async function connected(): Promise<SmtpClient> {
    const client = await connectSmtp({ port: site.port() });
    await client.ehlo("a.test");
    return client;
  }
});
