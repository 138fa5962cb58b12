/**
 * Several filters behind one milter connection: later ones see what earlier ones changed, one that fails takes only its
 * own changes with it, and one in observe mode changes nothing.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE, TO } from "./site.ts";
import { oneFilter, outcome, parts, scripted } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const FIRST = scripted({
  pair: () => ({
    eom({ message }) {
      message.insertHeader(0, "X-First", "top");
      message.changeHeader("Subject", "changed by first");
      message.addHeader("X-List", "a");
      message.deleteHeader("X-Gone");
      message.changeFrom("first@example.net");
      message.addRecipient("added@example.net");
      message.deleteRecipient("a@example.org");
      message.replaceBody("body of first\n");
    },
  }),
  override: () => ({
    eom({ message }) {
      message.changeFrom("first@example.net", ["RET=HDRS"]);
      message.replaceBody("first\n");
      message.quarantine("never mind");
      message.addHeader("X-First", "1");
    },
  }),
});

const LAST = scripted(
  {
    pair: () => ({
      eom({ message }) {
        const { sender, recipients, headers } = message;
        console.log(
          JSON.stringify({
            sender: sender.raw,
            recipients: recipients.map(({ raw }) => raw),
            headers: [...headers].map(({ name, value }) => `${name}: ${value}`),
            body: new TextDecoder().decode(message.body()),
          }),
        );
        message.insertHeader(1, "X-Last", "below X-First");
        message.changeHeader("Subject", `${headers.get("subject")} and last`);
        message.changeHeader("X-List", "b", 2);
        message.addRecipient("last@example.net");
        message.deleteRecipient("added@example.net");
        message.insertHeader(5, "X-Middle", "before the second X-List");
      },
    }),
    override: ({ reject }) => ({
      eom({ message }) {
        message.changeFrom("last@example.net");
        message.replaceBody("last\n");
        if (message.headers.get("subject") === "refused") return reject("554 5.7.0 Refused by last");
        return undefined;
      },
    }),
  },
  { collectBody: true },
);

/** Changes something at each phase, and fails where its options say. */
const FAILING = `
import { defineFilter, reject } from "pmilter";
const mark = (session) => session.message.addHeader("X-" + session.options.name, session.phase);
const step = (session) => {
  if (!session.client.hostname.startsWith(session.options.name)) return;
  mark(session);
  if (session.phase === session.options.fails) throw new Error("broken at " + session.phase);
};
export default defineFilter({ envfrom: step, envrcpt: step, data: step, header: step, eoh: step, body: step, eom: step });
`;
const failing = (name: string, onError: string, fails: string) =>
  `[[filter]]\npath = "failing.ts"\nname = "${name}"\non_error = "${onError}"\noptions = { name = "${name}", fails = "${fails}" }\n`;

/** Would refuse and rewrite everything. */
const OBSERVED = `
import { defineFilter, discard, reject, tempfail } from "pmilter";
export default defineFilter({
  connect: () => undefined,
  envfrom: (_, sender) => sender === "<at-mail@example.test>" ? reject("550 5.7.1 observed") : undefined,
  envrcpt: (_, recipient) => recipient.startsWith("<no") ? tempfail("450 4.2.1 not now") : undefined,
  data: (session) => session.message.sender.address === "at-data@example.test" ? discard() : undefined,
  eom({ message }) {
    message.addHeader("X-Observed", "1");
    message.deleteHeader("Subject");
    message.changeFrom("observed@example.net");
    message.addRecipient("observed@example.net");
    message.replaceBody("observed");
    message.quarantine("observed");
  },
});
`;
const AFTER = `export default { eom: ({ message }) => { message.addHeader("X-Seen", [...message.headers].map(({ name }) => name).join(" ")); } };`;

describeBehindEach("a chain of filters", (server) => {
  const { fieldsOf, ownFields, queueIdOf } = server;
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      pair: {
        config: '[[filter]]\npath = "first.ts"\n[[filter]]\npath = "last.ts"\n',
        files: { "first.ts": FIRST, "last.ts": LAST },
      },
      failing: {
        config: [
          '[[filter]]\npath = "before.ts"\n',
          failing("lenient", "continue", "data"),
          failing("content", "continue", "header"),
          failing("final", "continue", "eom"),
          failing("leaving", "accept", "data"),
          failing("parting", "accept", "eom"),
          failing("strict", "reject", "eom"),
          '[[filter]]\npath = "after.ts"\n',
        ].join(""),
        files: {
          "before.ts": 'export default { eom: ({ message }) => message.addHeader("X-Before", "1") };',
          "failing.ts": FAILING,
          "after.ts": AFTER,
        },
      },
      observed: {
        server: { workers: 1 },
        config: '[[filter]]\npath = "observed.ts"\nmode = "observe"\n[[filter]]\npath = "after.ts"\n',
        files: { "observed.ts": OBSERVED, "after.ts": AFTER },
      },
      alone: { ...oneFilter(OBSERVED), config: '[[filter]]\npath = "filter.ts"\nmode = "observe"\n' },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("the second filter sees the message as the first left it, and its indexes refer to that", async () => {
    const message = "From: <alice@example.test>\r\nSubject: s\r\nX-Gone: 1\r\nX-List: 0\r\n\r\nold\r\n";
    const { last } = await site.send({ as: "pair", message, to: ["a@example.org", "b@example.org"] });
    const delivered = await site.delivered(last);
    expect(JSON.parse(await site.pmilter("pair").prints.next(/^\{/))).toEqual({
      sender: "<first@example.net>",
      recipients: ["<b@example.org>", "<added@example.net>"],
      headers: ["X-First: top", "From: <alice@example.test>", "Subject: changed by first", "X-List: 0", "X-List: a"],
      body: "body of first\r\n",
    });
    expect(fieldsOf(delivered)).toEqual([
      "X-First: top",
      "X-Last: below X-First",
      ...ownFields,
      "From: <alice@example.test>",
      "Subject: changed by first and last",
      "X-List: 0",
      "X-Middle: before the second X-List",
      "X-List: b",
    ]);
    expect(delivered.from).toBe("first@example.net");
    // Sendmail may deliver to each recipient by itself.
    const recipients = site.deliveriesOf(queueIdOf(last)).flatMap(({ to }) => to.map(({ address }) => address));
    expect(recipients.sort()).toEqual(["b@example.org", "last@example.net"]);
    expect(parts(delivered.text).body).toBe("body of first\r\n");
  });

  test("of two senders and bodies the last wins, and a refusal drops all changes", async () => {
    const refused = await site.send({ as: "override", message: MESSAGE.replace("hello", "refused") });
    expect(outcome(refused)).toBe("end: 554 5.7.0 Refused by last");
    const { last } = await site.send({ as: "override" });
    expect(await site.queueIds()).toEqual([queueIdOf(last)]);
    const { content, quarantine, sender } = await site.kept(queueIdOf(last));
    expect(sender).toBe("last@example.net");
    // Postfix does not keep the reason.
    expect(quarantine).toBe(server.name === "Postfix" ? undefined : "never mind");
    expect(content).toEndWith("X-First: 1\n\nlast\n");
  });

  test.each([
    ["lenient", "fails at data, and goes on", ["header", "header", "eoh", "body", "eom"]],
    ["content", "fails at each header, and goes on", ["eoh", "body", "eom"]],
    ["final", "fails at eom", []],
    ["leaving", "fails at data, and takes no more part", []],
    ["parting", "fails at eom, and takes no more part", []],
  ])("a filter that %s: %s: what it had changed is dropped, the others' changes stay", async (as, _, kept) => {
    const delivered = await site.deliver({ as, service: "failing" });
    const own = kept.map((phase) => `X-${as}: ${phase}`);
    const names = own.map((field) => field.split(":")[0]);
    expect(fieldsOf(delivered)).toEqual([
      ...ownFields,
      "Subject: hello",
      "From: <alice@example.test>",
      "X-Before: 1",
      ...own,
      `X-Seen: ${["Subject", "From", "X-Before", ...names].join(" ")}`,
    ]);
  });

  test("a filter that fails at eom with on_error = reject refuses the message", async () => {
    expect(outcome(await site.send({ as: "strict", service: "failing" }))).toBe(`end: ${server.rejectedAtEnd}`);
  });

  test.each(["observed", "alone"])(
    "observe mode applies nothing (%s), and logs what it would have done",
    async (service) => {
      const { log } = site.pmilter(service);
      for (const from of ["at-mail@example.test", "at-data@example.test", FROM]) {
        const delivered = await site.deliver({ service, from, to: [TO, "no@example.org"] });
        expect(delivered.from).toBe(from);
        const to = delivered.to.map(({ address }) => address);
        // Sendmail has an order of its own.
        expect(server.name === "Postfix" ? to : to.sort()).toEqual([TO, "no@example.org"]);
        const seen = service === "observed" ? "X-Seen: Subject From\r\n" : "";
        expect(server.withoutOwn(delivered.text)).toBe(MESSAGE.replace("\r\n\r\n", `\r\n${seen}\r\n`));
      }
      await log.next(/\]: observed quarantine: /, { from: 0 });
      expect(
        log.all.filter((line) => line.includes("]: observed ")).map((line) => line.replace(/^.*\]: /, "")),
      ).toEqual([
        expect.stringMatching(
          /^observed reject: .* from=<at-mail@example\.test> .* phase=envfrom .*reply="550 5\.7\.1 observed"$/,
        ),
        expect.stringMatching(
          /^observed tempfail recipient: recipient=<no@example\.org> .* to=<bob@example\.org> .* phase=envrcpt /,
        ),
        expect.stringMatching(/^observed discard: queue_id=\S+ .* phase=data/),
        expect.stringMatching(/^observed tempfail recipient: .* from=<alice@example\.test> /),
        expect.stringMatching(/^observed quarantine: queue_id=\S+ .* phase=eom .*changes=6 reason=observed$/),
      ]);
    },
  );
});
