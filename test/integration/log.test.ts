/**
 * What the log says of messages: one line for each that ends other than accepted, with all that an administrator looks
 * for, and nothing in it that a client could forge.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE, TO } from "./site.ts";
import { clientName } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

/** Ends the message as the client's name says: `PHASE-WAY.client.test`. */
const SOURCE = `import { defineFilter, discard, reject, tempfail } from "pmilter";
function verdict(way) {
  if (way === "reject") return reject("550 5.7.1 No \\"quotes\\" 100%\\nline two");
  if (way === "tempfail") return tempfail();
  if (way === "discard") return discard();
}
function step(session) {
  const [phase, way] = session.client.hostname.split(".")[0].split("-");
  if (phase !== session.phase) return;
  if (way === "subject") throw new Error(session.message.headers.get("subject"));
  if (way === "throw") throw new Error("oh no\\nforged line");
  return verdict(way);
}
const eom = (session) => {
  if (session.client.hostname.startsWith("eom-quarantine")) session.message.quarantine("sus \\"picious\\"");
  if (session.client.hostname.startsWith("eom-accept")) session.message.addHeader("X-A", "1");
  return step(session);
};
export default defineFilter({ envfrom: step, envrcpt: step, data: step, header: step, eoh: step, body: step, eom });
`;
const PHASES = ["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"] as const;
const lineOf = (text: string) => SOURCE.slice(0, SOURCE.indexOf(text)).split("\n").length;
/** Where a verdict is written, or an error thrown. */
const LINES: Readonly<Record<string, number>> = {
  reject: lineOf('reject("'),
  tempfail: lineOf("tempfail()"),
  discard: lineOf("discard()"),
  throw: lineOf('throw new Error("oh'),
  subject: lineOf("throw new Error(session"),
  quarantine: lineOf(".quarantine("),
};
const config = '[[filter]]\npath = "rules.ts"\nname = "my rules"\n';
const files = { "rules.ts": SOURCE };

describeBehindEach("the log", (server) => {
  const isPostfix = server.name === "Postfix";
  /** Behind Sendmail each behaviour's client has an address of its own. */
  const address = isPostfix ? /\[127\.0\.0\.1\]/ : /\[127\.1\.\d+\.\d+\]/;
  /** A log line without its time, and with words for what differs from run to run. */
  const withoutPlace = (line: string) =>
    line
      .replace(/^\[.*? GMT\]/, "")
      .replace(address, "[ADDRESS]")
      .replace(/ helo=\S+/, " helo=HELO")
      .replace(/ message_id=<\S+>/, " message_id=<ID>")
      .replace(/ size=\d+/, " size=SIZE")
      .replace(/ ms=\d+/, " ms=MS")
      .replace(/ version=[0-9a-f]{12}/, " version=VERSION");
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      notice: { config, files, server: { workers: 1 } },
      info: { config, files, server: { workers: 1, log_level: "info" } },
      json: { config, files, server: { workers: 1, log_format: "json" } },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** The log lines of one message: those up to the line of the next one, in the same worker. */
  async function linesOf(as: string, options: Parameters<MailSite["send"]>[0] = {}): Promise<string[]> {
    const service = options.service ?? "notice";
    const { log } = site.pmilter(service);
    const from = log.all.length;
    await site.send({ service, as, to: [TO, "c@example.org"], ...options });
    await site.send({ service, from: "sentinel@example.test", as: "envfrom-reject" });
    await log.next(/sentinel@example\.test/, { from });
    return log.all.slice(from, -1);
  }

  const table = PHASES.flatMap((phase) => ["reject", "tempfail", "discard"].map((way) => ({ phase, way })));
  test.each(table)("$way at $phase: one notice line with everything in it", async ({ phase, way }) => {
    const as = `${phase}-${way}`;
    const lines = await linesOf(as);
    const forRecipient = phase === "envrcpt" && way !== "discard";
    // Each recipient is refused by itself.
    expect(lines).toHaveLength(forRecipient ? 2 : 1);
    const recipients = phase.startsWith("env") ? "" : "to=<bob@example.org>,<c@example.org> ";
    const recipient = "recipient=<bob@example.org> ";
    const found = phase === "envrcpt" && !forRecipient ? recipient : "";
    // Content that is refused at the end was received as a whole.
    const isContent = ["header", "eoh", "body", "eom"].includes(phase);
    const reply = way === "reject" ? ' reply="550-5.7.1 No \\"quotes\\" 100%\\r\\n550 5.7.1 line two"' : "";
    // Postfix names it once it has accepted a recipient.
    const queueId = isPostfix && PHASES.indexOf(phase) < 2 ? "" : "queue_id=ID ";
    expect(withoutPlace(lines[0]!).replace(/queue_id=\w+/, "queue_id=ID")).toBe(
      `[notice]: ${way}${forRecipient ? " recipient" : ""}: ${forRecipient ? recipient : ""}` +
        `${queueId}client="${clientName(as)} [ADDRESS]" helo=HELO from=<${FROM}> ${found}${recipients}` +
        `${isContent ? "size=SIZE " : ""}ms=MS version=VERSION ` +
        `filter="my rules" phase=${phase} at=rules.ts:${LINES[way]}${reply}`,
    );
    expect(lines[0]).toMatch(/^\[[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\]/);
  });

  test("a handler that throws: the failure, and one notice line of the verdict that its fallback is", async () => {
    for (const phase of PHASES) {
      const lines = await linesOf(`${phase}-throw`, { to: TO });
      const place = `filter="my rules" phase=${phase} at=rules.ts:${LINES["throw"]}`;
      expect(lines).toHaveLength(2);
      expect(lines[0]).toContain("[error]: handler failed: ");
      expect(lines[0]).toEndWith(`${place} error="Error: oh no\\nforged line" fallback=tempfail`);
      expect(lines[1]).toContain("[notice]: tempfail");
      expect(lines[1]).toEndWith(`${place} fallback=true`);
    }
  });

  test("quarantine: one notice line, with its reason", async () => {
    const [line, ...others] = await linesOf("eom-quarantine");
    expect(others).toEqual([]);
    expect(line).toMatch(
      /\[notice\]: quarantine: queue_id=\w+ client=.* from=<alice@example\.test> to=<bob@example\.org>,<c@example\.org> /,
    );
    expect(line).toEndWith(`phase=eom at=rules.ts:${LINES["quarantine"]} changes=1 reason="sus \\"picious\\""`);
  });

  test("Message-ID and size are those of the message that the client sent", async () => {
    const message = `Subject: a\r\n folded\r\nMessage-ID: <1.2@example.test>\r\n\r\none\r\n..two\r\n${"x".repeat(70)}\r\n`;
    for (const as of ["header-reject", "eom-reject"]) {
      const [line] = await linesOf(as, { message });
      expect(line).toContain(" message_id=<1.2@example.test> ");
      expect(line).toContain(` size=${message.length} `);
    }
  });

  test("the queue id is the mail server's", async () => {
    const [line] = await linesOf("eom-quarantine");
    const id = /queue_id=(\w+)/.exec(line!)![1]!;
    expect(await site.queueIds()).toContain(id);
  });

  test("accepted messages: one line at info, none at notice", async () => {
    expect(await linesOf("eom-accept")).toEqual([]);
    const lines = await linesOf("eom-accept", { service: "info" });
    expect(lines.map(withoutPlace)).toEqual([
      expect.stringMatching(
        /^\[info\]: accept: queue_id=\w+ client="eom-accept\.client\.test \[ADDRESS\]" helo=HELO from=<alice@example\.test> to=<bob@example\.org>,<c@example\.org> size=SIZE ms=MS version=VERSION phase=eom changes=1$/,
      ),
    ]);
  });

  test("many recipients are counted", async () => {
    const to = Array.from({ length: 14 }, (_, n) => `user${n}@example.org`);
    const [line] = await linesOf("eom-reject", { to });
    expect(line).toContain("to=<user0@example.org>,<user1@example.org>,");
    expect(line).toContain(",<user9@example.org> (and 4 more) size=");
  });

  test("client text with quotes, spaces, controls and bytes that are no text is escaped, and forges no line", async () => {
    const { log } = site.pmilter();
    const from = log.all.length;
    await using client = await site.connect("eom-reject");
    const senders = [
      '"x\\"y phase=eom reply=no"@example.test',
      '"tab\t\x01\x1b[31m"@example.test',
      // Sendmail takes no longer ones, and Debian's no SMTPUTF8.
      `"${"long".repeat(isPostfix ? 100 : 50)}"@example.test`,
      ...(isPostfix ? ["\u202eevil\u2066@example.test"] : []),
    ];
    for (const sender of senders) {
      client.write(Buffer.from(`MAIL FROM:<${sender}>${isPostfix ? " SMTPUTF8" : ""}\r\n`));
      expect((await client.read()).code).toBe(250);
      await client.rcpt('"a, b"@example.org');
      expect((await client.data(MESSAGE)).code).toBe(550);
    }
    await client.quit();
    const message = 'Subject: \xe9\xff "q\x07\r\n [error]: folded\r\n\r\n';
    await site.send({ as: "eom-subject", message, mailParams: "BODY=8BITMIME" });
    const failure = await log.next(/handler failed/, { from });
    expect(failure).toEndWith(
      `at=rules.ts:${LINES["subject"]} error="Error: \\xe9\\xff \\"q\\x07\\n [error]: folded" fallback=tempfail`,
    );
    const lines = log.all
      .slice(from, from + senders.length)
      .map((line) =>
        / from=("(?:[^"\\]|\\.)*"|\S+) to=("(?:[^"\\]|\\.)*"|\S+) size=.* filter="my rules" phase=eom /
          .exec(line)!
          .slice(1),
      );
    const to = '"<\\"a, b\\"@example.org>"';
    expect(lines).toEqual([
      ['"<\\"x\\\\\\"y phase=eom reply=no\\"@example.test>"', to],
      ['"<\\"tab\\t\\x01\\x1b[31m\\"@example.test>"', to],
      [expect.stringMatching(isPostfix ? /^"<\\"(long){60,64}.{0,4}…"$/ : /^"<\\"(long){50}\\"@example\.test>"$/), to],
      ...(isPostfix ? [['"<\\u202eevil\\u2066@example.test>"', to]] : []),
    ]);
    // oxlint-disable-next-line no-control-regex
    expect(log.text).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]/);
  });

  test("in JSON the same are fields", async () => {
    const { log } = site.pmilter("json");
    const from = log.all.length;
    const { last } = await site.send({ service: "json", as: "eom-discard" });
    const entry = JSON.parse(await log.next(/"verdict":"discard"/, { from })) as Record<string, unknown>;
    expect(entry).toMatchObject({
      level: "notice",
      verdict: "discard",
      scope: "message",
      queue_id: server.queueIdOf(last),
      client: expect.stringMatching(new RegExp(`^eom-discard\\.client\\.test ${address.source}$`)),
      from: `<${FROM}>`,
      to: [`<${TO}>`],
      filter: "my rules",
      phase: "eom",
      at: `rules.ts:${LINES["discard"]}`,
    });
    expect(new Date(entry["time"] as string).getTime()).toBeWithin(Date.now() - 60_000, Date.now() + 1);
  });
});
