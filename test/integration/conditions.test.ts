/** Conditions as real mail servers meet them: what they tell of a client, and recipients that are asked to come again. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { startPmilter } from "../support/pmilter.ts";
import { postfixTool, startPostfix } from "../support/postfix.ts";
import { connectSmtp } from "../support/smtp-client.ts";
import { startSmtpSink } from "../support/smtp-sink.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE } from "./site.ts";
import { said } from "./support.ts";

setDefaultTimeout(120_000);

/** Each filter adds its name, where it runs. */
const MARK = `export default { eom({ message, options }) { message.addHeader("X-Ran", options.name); } };\n`;
const filter = (name: string, when: string) =>
  `[[filter]]\npath = "mark.ts"\nname = "${name}"\n[filter.options]\nname = "${name}"\n[filter.when]\n${when}\n`;

const CONFIG = [
  filter("client", 'clients = ".client.test"'),
  filter("other client", 'not_clients = ".client.test"'),
  filter("network", 'clients = ["127.0.0.0/8", "192.0.2.0/24"]'),
  filter("elsewhere", 'clients = ["198.51.100.0/24"]'),
  filter("helo", 'helos = "client.example.test"'),
  filter("no tls", "tls = false\nauthenticated = false\nlocal = false"),
  filter("tls", "tls = true"),
  filter("user", 'users = "boss"'),
  filter("sender", 'senders = "boss@example.test"'),
  filter("null sender", 'senders = "<>"'),
  filter("any", 'recipients = "example.org"'),
  filter("every", 'recipients = "example.org"\nrecipients_match = "every"'),
  filter("share", 'share = "100%"'),
].join("");

const ranIn = ({ text }: { readonly text: string }) =>
  [...text.matchAll(/^X-Ran: (.*)\r$/gm)].map(([, name]) => name!).toSorted();

describeBehindEach("conditions", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      when: { config: CONFIG, files: { "mark.ts": MARK }, server: { workers: 1 } },
      split: {
        config: filter("split", 'recipients = ["one.test"]\nrecipients_match = "split"'),
        files: { "mark.ts": MARK },
        server: { workers: 1 },
      },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("a filter runs where its conditions hold", async () => {
    const always = ["no tls", "share"];
    const sent = await site.deliver({ as: "x", from: '"boss"@EXAMPLE.test', to: ["a@example.org", "b@example.com"] });
    expect(ranIn(sent)).toEqual(["any", "client", "helo", "network", "sender", ...always].toSorted());
    const other = await site.deliver({ from: "", to: ["a@EXAMPLE.org"], helo: "other.test" });
    const isNamed = ranIn(other).includes("client");
    expect(ranIn(other)).toEqual(
      ["any", "every", isNamed ? "client" : "other client", "network", "null sender", ...always].toSorted(),
    );
  });

  test("several messages of one session, each by its own", async () => {
    const varying = new Set(["sender", "any", "every"]);
    const client = await site.connect();
    const ran: string[][] = [];
    for (const [from, to] of [
      ["boss@example.test", "a@example.com"],
      ["alice@example.test", "a@example.org"],
      ["boss@example.test", "a@example.com"],
    ] as const) {
      await client.mail(from);
      await client.rcpt(to);
      const end = await client.data(MESSAGE);
      ran.push(ranIn(await site.delivered(end)).filter((name) => varying.has(name)));
    }
    await client.quit();
    expect(ran).toEqual([["sender"], ["any", "every"], ["sender"]]);
  });

  test("split: a recipient with other rules comes again, five times in a message, and the session stays open", async () => {
    const client = await site.connect(undefined, { service: "split" });
    const again = (reply: { readonly code: number; readonly lines: readonly string[] }) =>
      /^452 4\.5\.3 .*Too many recipients with different rules/.test(said(reply as never));
    for (let message = 0; message < 3; message++) {
      expect((await client.mail(FROM)).code).toBe(250);
      expect((await client.rcpt("a@one.test")).code).toBe(250);
      const others: boolean[] = [];
      for (let index = 0; index < 7; index++) {
        const reply = await client.rcpt(`x${index}@two.test`);
        others.push(again(reply));
        if (!again(reply)) expect(reply.code).toBe(250);
      }
      expect(others).toEqual([true, true, true, true, true, false, false]);
      const delivered = await site.delivered(await client.data(MESSAGE));
      expect(ranIn(delivered)).toEqual(["split"]);
    }
    await client.quit();
    expect(site.pmilter("split").log.text).toMatch(
      /tempfail recipient: recipient=<x0@two\.test> .*filter=split phase=envrcpt reason=recipients_match reply="452 4\.5\.3 /,
    );
  });
});

/** Those that Postfix has by default. */
const ERROR_LIMITS = { smtpd_soft_error_limit: "10", smtpd_hard_error_limit: "20" };

describeWith(postfixTool, "split, with a Postfix that delivers to a Postfix", () => {
  test("its queue manager keeps the recipients that come again, and every one gets the message once, by its rules", async () => {
    await using stack = new AsyncDisposableStack();
    const sink = stack.use(await startSmtpSink());
    const pmilter = stack.use(
      await startPmilter({
        config: filter("split", 'recipients = ["one.test"]\nrecipients_match = "split"'),
        files: { "mark.ts": MARK },
        server: { workers: 1 },
      }),
    );
    const receiver = stack.use(
      await startPostfix({ sinkPort: sink.port, milters: pmilter.addresses[0]!, mainCf: ERROR_LIMITS }),
    );
    const sender = stack.use(
      await startPostfix({
        sinkPort: receiver.port(),
        // A retry asked for by postqueue is not put off.
        mainCf: { minimal_backoff_time: "1s", maximal_backoff_time: "2s", smtp_destination_recipient_limit: "50" },
      }),
    );
    const to = [
      ...[1, 2, 3].map((number) => `in${number}@one.test`),
      ...[1, 2, 3, 4].map((number) => `out${number}@two.test`),
    ];
    await sender.submit({ from: FROM, to, message: MESSAGE });
    const deliveries = () =>
      sink.messages.map((message) => ({
        ran: ranIn(message),
        to: message.to.map(({ address }) => address).toSorted(),
      }));
    const isDone = () => deliveries().flatMap((each) => each.to).length >= to.length;
    await waitFor(
      async () => {
        if (isDone()) return true;
        await sender.flush();
        return false;
      },
      { what: "all recipients to have the message", intervalMs: 500 },
    );
    const found = deliveries();
    expect(found.flatMap((each) => each.to).toSorted()).toEqual(to.toSorted());
    for (const { ran, to: recipients } of found) {
      const isInside = recipients[0]!.endsWith("@one.test");
      expect(recipients.every((address) => address.endsWith("@one.test") === isInside)).toBe(true);
      expect(ran).toEqual(isInside ? ["split"] : []);
    }
    // Postfix has not counted too many errors.
    expect(await receiver.log()).not.toMatch(/too many errors/);

    // A message that is accepted ends the count: five in each, thirty in the session.
    await using client = await connectSmtp({ port: receiver.port() });
    await client.ehlo("a.test");
    for (let message = 0; message < 6; message++) {
      expect((await client.mail(FROM)).code).toBe(250);
      const codes: number[] = [];
      codes.push((await client.rcpt("a@one.test")).code);
      for (let index = 0; index < 6; index++) codes.push((await client.rcpt(`x${index}@two.test`)).code);
      expect(codes).toEqual([250, 452, 452, 452, 452, 452, 250]);
      expect((await client.data(MESSAGE)).code).toBe(250);
    }
    expect((await client.quit()).code).toBe(221);
    expect(await receiver.log()).not.toMatch(/too many errors/);
  });
});

describeWith(postfixTool, "local mail, behind Postfix", () => {
  test("local = true takes what its sendmail command brings, and split asks nobody there", async () => {
    await using stack = new AsyncDisposableStack();
    const sink = stack.use(await startSmtpSink());
    const pmilter = stack.use(
      await startPmilter({
        config:
          filter("local", "local = true") +
          filter("smtp", "local = false") +
          filter("split", 'recipients = ["one.test"]\nrecipients_match = "split"'),
        files: { "mark.ts": MARK },
        server: { workers: 1 },
      }),
    );
    const postfix = stack.use(await startPostfix({ sinkPort: sink.port, nonSmtpdMilters: pmilter.addresses[0]! }));
    await postfix.submit({ from: FROM, to: ["a@one.test", "b@two.test"], message: MESSAGE });
    const message = await sink.next();
    expect(ranIn(message)).toEqual(["local", "split"]);
    expect(message.to).toHaveLength(2);
  });
});
