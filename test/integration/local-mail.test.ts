/**
 * Mail that does not come by SMTP (`non_smtpd_milters`): Postfix makes a session up for it, in which a recipient cannot
 * be refused.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { waitFor } from "../support/temp.ts";
import { TO } from "./site.ts";
import { fieldsOf, oneFilter, outcome, parts, type Site, startSite } from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
setDefaultTimeout(120_000);

/** Decides by the sender's local part, or without one the recipient's: `PHASE-WAY@example.test`. */
const FILTER = `
import { defineFilter, discard, reject, tempfail } from "pmilter";
const ways = {
  reject: () => reject("550 5.7.1 not local"),
  tempfail: () => tempfail("451 4.7.1 later"),
  discard: () => discard(),
};
function step(session) {
  const [phase, way] = (session.message.sender.address || session.message.recipients.at(-1)?.address || "").split("@")[0].split("-");
  if (phase === "nobody" && session.phase === "envrcpt" && session.message.recipients.at(-1).address !== "no@example.org") return;
  if (phase === session.phase || (phase === "nobody" && session.phase === "envrcpt")) return ways[way]?.();
}
const values = ({ phase, client, queueId, myHostname, macros, isLocal }) =>
  console.log(JSON.stringify({ phase, client, queueId, myHostname, v: macros.get("v"), isLocal }));
export default defineFilter({
  connect: values,
  helo(session, name) { console.log(JSON.stringify({ helo: name, same: session.helo === name })); },
  envfrom(session, sender, params) {
    console.log(JSON.stringify({ sender, params, address: session.message.sender.address }));
    return step(session);
  },
  envrcpt(session, recipient, params) { console.log(JSON.stringify({ recipient, params })); return step(session); },
  data: step, header: step, eoh: step, body: step,
  eom(session) {
    const verdict = step(session);
    session.message.addHeader("X-Local", session.message.recipients.length + " " + session.queueId);
    if (session.message.sender.address.startsWith("change")) {
      session.message.changeFrom("<changed@example.net>");
      session.message.addRecipient("more@example.net");
      session.message.deleteRecipient(session.message.recipients[0].address);
      session.message.replaceBody("changed\\n");
    }
    return verdict;
  },
});
`;
const MESSAGE = "Subject: local\n\nhello\n";

describeWith(postfixTool, "local mail", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: { local: oneFilter(FILTER) },
      postfix: ({ local }) => ({ nonSmtpdMilters: local! }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** Submits, and gives what Postfix said in its log at the end. */
  async function submit(from: string, to: readonly string[] = [TO]): Promise<void> {
    expect(await site.postfix.submit({ from, to, message: MESSAGE })).toEqual({ exitCode: 0, stderr: "" });
  }

  test("passes, and the made-up session is known with a queue id from connect on", async () => {
    await submit("plain@example.test", [TO, "c@example.org"]);
    const delivered = await site.sink.next();
    const { prints } = site.pmilter();
    const id = /\bid (\w+);/.exec(delivered.text)?.[1];
    expect(delivered).toMatchObject({
      from: "plain@example.test",
      to: [{ address: TO }, { address: "c@example.org" }],
    });
    expect(parts(delivered.text).body).toBe("hello\r\n");
    expect(parts(delivered.text).fields.at(-1)).toBe(`X-Local: 2 ${id}`);
    await prints.next(/"c@example\.org"/);
    expect(prints.all.map((line) => JSON.parse(line) as unknown)).toEqual([
      {
        phase: "connect",
        client: { hostname: "localhost", family: "inet", address: "127.0.0.1", port: 0 },
        queueId: id,
        myHostname: "mx.example.test",
        v: expect.stringMatching(/^Postfix /),
        isLocal: true,
      },
      { helo: "localhost", same: true },
      { sender: "plain@example.test", params: [], address: "plain@example.test" },
      { recipient: TO, params: [] },
      { recipient: "c@example.org", params: [] },
    ]);
  });

  test("the null sender", async () => {
    const { prints } = site.pmilter();
    const from = prints.all.length;
    await submit("");
    expect((await site.sink.next()).from).toBe("");
    expect(JSON.parse(await prints.next(/"sender"/, { from }))).toEqual({ sender: "", params: [], address: "" });
  });

  test("changes are made, of the recipients too", async () => {
    await submit("change@example.test", [TO, "c@example.org"]);
    const delivered = await site.sink.next();
    expect(delivered.from).toBe("changed@example.net");
    expect(delivered.to.map(({ address }) => address).sort()).toEqual(["c@example.org", "more@example.net"]);
    expect(fieldsOf(delivered).at(-1)).toStartWith("X-Local: 2 ");
    expect(parts(delivered.text).body).toBe("changed\r\n");
  });

  test.each(["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"])(
    "reject at %s bounces the message",
    async (phase) => {
      await submit(`${phase}-reject@example.test`);
      await refused(`${phase}-reject`, "reject", "5.7.1 not local", phase);
    },
  );

  test("a recipient that would be refused refuses the message, the other recipient's too", async () => {
    await submit("nobody-reject@example.test", [TO, "no@example.org", "d@example.org"]);
    await refused("nobody-reject", "reject", "5.7.1 not local", "envrcpt");
    const log = await site.postfix.log();
    // At `data`, as this filter asks for replies there; without a handler for it, at the end of the message.
    expect(log).toMatch(/milter-reject: (DATA|END-OF-MESSAGE) from localhost.* from=<nobody-reject@example\.test>/);
    expect(log).not.toContain("milter configuration error");
  });

  test("the log's line names the null sender", async () => {
    await submit("", ["eom-reject@example.org"]);
    await site.pmilter().log.next(/\]: reject: queue_id=\w+ .*from=<> to=eom-reject@example\.org size=\d+ ms=\d+ /);
  });

  test("a recipient's tempfail keeps the message for a later try", async () => {
    await submit("nobody-tempfail@example.test", [TO, "no@example.org"]);
    await refused("nobody-tempfail", "tempfail", "4.7.1 later", "envrcpt");
    const queue = await waitFor(() => site.postfix.queue(), { what: "the message in the queue" });
    expect(queue).toMatchObject([{ queue: "maildrop", sender: "nobody-tempfail@example.test" }]);
  });

  test.each(["envrcpt", "eom"])("discard at %s throws it away", async (phase) => {
    await submit(`${phase}-discard@example.test`);
    await site.postfix.waitForLog(new RegExp(`milter-discard: .* from=<${phase}-discard@example\\.test>`));
    await site
      .pmilter()
      .log.next(new RegExp(`discard: queue_id=\\w+ .* from=${phase}-discard@example\\.test .*phase=${phase} `));
  });

  test("nothing else was delivered, and mail by SMTP does not pass here", async () => {
    const { last } = await site.send({ service: "smtp", from: "eom-reject@example.test" });
    expect(last.code).toBe(250);
    expect(fieldsOf(await site.delivered(last))).not.toContainEqual(expect.stringContaining("X-Local"));
    expect(site.sink.messages).toHaveLength(4);
    expect(outcome(await site.send({ from: "envrcpt-reject@example.test" }))).toBe("rcpt: 550 5.7.1 not local");
  });

  /** Both logs tell of it: Postfix's with the reply, ours with the phase where it was decided. */
  async function refused(sender: string, verdict: string, text: string, phase: string): Promise<void> {
    const [line] = await site.postfix.waitForLog(
      new RegExp(`.*milter-reject: .* from localhost.* from=<${sender}@example\\.test>.*`),
    );
    expect(line).toContain(text);
    const own = await site.pmilter().log.next(new RegExp(`\\]: ${verdict}: queue_id=\\w+ .*from=${sender}@`));
    expect(own).toMatch(
      new RegExp(`client="localhost \\[127\\.0\\.0\\.1\\]" .* phase=${phase} at=filter\\.ts:\\d+ reply="`),
    );
  }
});
