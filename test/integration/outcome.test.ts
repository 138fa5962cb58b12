/** What filters are told of a message after its end, through both mail servers: `outcome`, and `session.isLocal`. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";
import { TO } from "./site.ts";
import { oneFilter, outcome } from "./support.ts";

// A busy machine starts a mail server and a filter slowly.
setDefaultTimeout(60_000);

/** Decides by the local part of the sender, `PHASE-WAY`, and accepts its own part of some; prints what it is told. */
const FILTER = `
import { accept, defineFilter, discard, reject, tempfail } from "pmilter";
const ways = { accept, reject: () => reject("550 5.7.1 No"), tempfail: () => tempfail("451 4.7.1 Later"), discard };
const step = (session) => {
  const [phase, way] = session.message.sender.address.split("@")[0].split("-");
  return phase === session.phase ? ways[way]() : undefined;
};
export default defineFilter({
  name: "teller",
  envfrom: step, data: step, header: step,
  envrcpt: (session, recipient) => (recipient.includes("no@") ? reject("550 5.1.1 No such user") : step(session)),
  eom(session) {
    if (session.message.sender.address.startsWith("change")) session.message.addHeader("X-A", "1");
    if (session.message.sender.address.startsWith("hold")) session.message.quarantine("held");
    return step(session);
  },
  outcome(session, { verdict, reply, filter, recipients, changes }) {
    const { isLocal, message, queueId } = session;
    const { sender, headers } = message;
    console.log(JSON.stringify({ from: sender.address, subject: headers.get("Subject"), verdict, code: reply?.code ?? null,
      filter, changes, isLocal, hasQueueId: queueId !== "",
      recipients: recipients.map(({ address, verdict }) => address + " " + verdict) }));
  },
});
`;

describeBehindEach("outcome", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({ teller: oneFilter(FILTER, { workers: 1 }) });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  const outcomeOf = async (from: string, number = 1) => {
    const { prints } = site.pmilter("teller");
    const line = await prints.next(new RegExp(`"from":"${from}@`));
    expect(prints.all.filter((each) => each.includes(`"from":"${from}@`))).toHaveLength(number);
    return JSON.parse(line) as Record<string, unknown>;
  };

  const passed = { code: null, filter: null, isLocal: false };
  test.each([
    ["plain", { ...passed, verdict: "accept", changes: 0, subject: "hello", recipients: [`${TO} accept`] }],
    ["change", { ...passed, verdict: "accept", changes: 1, subject: "hello", recipients: [`${TO} accept`] }],
    ["hold", { ...passed, verdict: "quarantine", filter: "teller", changes: 1, recipients: [`${TO} quarantine`] }],
    // It has accepted its own part, and learns the end all the same.
    ["envfrom-accept", { ...passed, verdict: "accept", changes: 0, recipients: [`${TO} accept`] }],
    ["envfrom-reject", { verdict: "reject", code: 550, filter: "teller", recipients: [] }],
    ["data-tempfail", { verdict: "tempfail", code: 451, filter: "teller", recipients: [`${TO} tempfail`] }],
    ["header-reject", { verdict: "reject", code: 550, filter: "teller", recipients: [`${TO} reject`] }],
    ["eom-reject", { verdict: "reject", code: 550, subject: "hello", recipients: [`${TO} reject`] }],
    ["eom-discard", { verdict: "discard", code: null, filter: "teller", recipients: [`${TO} discard`] }],
  ])("of a message from %s, once", async (from, expected) => {
    outcome(await site.send({ from: `${from}@example.test` }));
    expect(await outcomeOf(from)).toMatchObject(expected);
  });

  test("of recipients, the refused one too, in their order", async () => {
    await site.send({ from: "some@example.test", to: [TO, "no@example.org", "c@example.org"] });
    expect(await outcomeOf("some")).toMatchObject({
      verdict: "accept",
      recipients: [`${TO} accept`, "no@example.org reject", "c@example.org accept"],
    });
  });

  test("of a message that the client gives up, by RSET and by a lost connection", async () => {
    for (const [from, end] of [
      ["reset", "RSET"],
      ["gone", null],
    ] as const) {
      {
        await using client = await site.connect();
        await client.command(`MAIL FROM:<${from}@example.test>`);
        await client.command(`RCPT TO:<${TO}>`);
        if (end !== null) await client.command(end);
      }
      expect(await outcomeOf(from)).toMatchObject({ verdict: "aborted", recipients: [`${TO} aborted`] });
    }
  });
});
