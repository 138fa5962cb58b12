/**
 * SMTP sessions in all their shapes: which handlers run, in which order and how often.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE, TO } from "./site.ts";
import { oneFilter } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

/** Prints `CLIENT PHASE ARGUMENT…`; accepts at the phase that the client's name gives: `accept-PHASE…`. */
const TRACE = `
import { accept, defineFilter, reject } from "pmilter";
const nap = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 4));
function note(session, ...args) {
  const name = session.client.hostname.split(".")[0];
  console.log([name, session.phase, ...args].join(" "));
  const [way, phase] = name.split("-");
  const verdict = way === "accept" && phase === session.phase ? accept() : undefined;
  return way === "async" ? nap().then(() => { console.log([name, session.phase, "done"].join(" ")); }) : verdict;
}
export default defineFilter({
  connect: (session) => note(session),
  helo: (session, name) => note(session, name),
  envfrom(session, sender) {
    session.state.messages = (session.state.messages ?? 0) + 1;
    session.message.addHeader("X-Message", session.state.messages + " " + sender);
    return note(session, sender);
  },
  envrcpt(session, recipient) {
    const verdict = note(session, recipient);
    return recipient.startsWith("<no") ? reject("550 5.1.1 no") : verdict;
  },
  data: (session) => note(session),
  header: (session, name) => note(session, name),
  eoh: (session) => note(session),
  body: (session, chunk) => note(session, chunk.length),
  eom(session) {
    const { recipients, headers } = session.message;
    const verdict = note(session, recipients.length, headers.length, session.state.messages);
    return headers.get("subject") === "bad" ? reject("554 5.7.1 bad") : verdict;
  },
  abort: (session) => { note(session); },
  close: (session) => { note(session); },
});
`;
const OTHER = 'export default { eom: ({ message }) => message.addHeader("X-Other", "1") };';

describeBehindEach("SMTP sessions", (server) => {
  const { fieldsOf, ownFields } = server;
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      trace: oneFilter(TRACE),
      pair: {
        server: { workers: 1 },
        config: '[[filter]]\npath = "filter.ts"\n[[filter]]\npath = "other.ts"\n',
        files: { "filter.ts": TRACE, "other.ts": OTHER },
      },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** What the session's handlers printed, up to its close. */
  async function traced(as: string, service = "trace"): Promise<string[]> {
    const { prints } = site.pmilter(service);
    await prints.next(new RegExp(`^${as} close`));
    // What follows the close would be wrong: the next session, in the same worker, is behind it.
    await site.send({ service, as: `after-${as}` });
    await prints.next(new RegExp(`^after-${as} close`));
    return prints.all.filter((line) => line.startsWith(`${as} `)).map((line) => line.slice(as.length + 1));
  }

  const ONE = ["data", "header Subject", "header From", "eoh", "body 6"];

  test("several messages on one connection share the session and nothing of the message", async () => {
    await using client = await site.connect("several");
    const ids = [];
    for (const [from, to, subject] of [
      ["one@example.test", [TO], "hello"],
      ["two@example.test", [TO, "c@example.org"], "bad"],
      ["three@example.test", ["no@example.org", "c@example.org"], "hello"],
    ] as const) {
      await client.mail(from);
      for (const each of to) await client.rcpt(each);
      ids.push(await client.data(MESSAGE.replace("hello", subject)));
    }
    await client.quit();
    expect(ids.map(({ code }) => code)).toEqual([250, 554, 250]);
    const [first, , third] = ids;
    expect(fieldsOf(await site.delivered(first!))).toContain("X-Message: 1 <one@example.test>");
    const delivered = await site.delivered(third!);
    expect(fieldsOf(delivered).filter((field) => field.startsWith("X-"))).toEqual([
      "X-Message: 3 <three@example.test>",
    ]);
    expect(delivered.to).toMatchObject([{ address: "c@example.org" }]);
    expect(await traced("several")).toEqual([
      "connect",
      "helo a.test",
      "envfrom <one@example.test>",
      "envrcpt <bob@example.org>",
      ...ONE,
      "eom 1 3 1",
      "envfrom <two@example.test>",
      "envrcpt <bob@example.org>",
      "envrcpt <c@example.org>",
      ...ONE,
      "eom 2 3 2",
      "envfrom <three@example.test>",
      "envrcpt <no@example.org>",
      "envrcpt <c@example.org>",
      ...ONE,
      "eom 1 3 3",
      "close",
    ]);
  });

  test("RSET and EHLO in mid-message abort once; between messages they do not", async () => {
    await using client = await site.connect("resets");
    await client.rset();
    await client.mail(FROM);
    await client.rset();
    await client.rset();
    await client.mail(FROM);
    await client.rcpt(TO);
    await client.ehlo("b.test");
    await client.helo("c.test");
    await client.mail("");
    await client.rcpt("no@example.org");
    await client.rset();
    await client.quit();
    expect(await traced("resets")).toEqual([
      "connect",
      "helo a.test",
      "envfrom <alice@example.test>",
      "abort",
      "envfrom <alice@example.test>",
      "envrcpt <bob@example.org>",
      "abort",
      "helo b.test",
      "helo c.test",
      "envfrom <>",
      "envrcpt <no@example.org>",
      "abort",
      "close",
    ]);
  });

  test.each(["before DATA", "in DATA"])("a client that vanishes %s: abort once, close once", async (when) => {
    const as = when.replace(/ .*/, "-vanished");
    const client = await site.connect(as);
    await client.mail(FROM);
    await client.rcpt(TO);
    if (when === "in DATA") {
      expect((await client.command("DATA")).code).toBe(354);
      client.write("Subject: cut\r\n\r\nhalf a li");
    }
    await client.close();
    const expected = ["connect", "helo a.test", "envfrom <alice@example.test>", "envrcpt <bob@example.org>"];
    const seen = await traced(as);
    expect(seen).toEqual([...expected, ...(when === "in DATA" ? ["data"] : []), "abort", "close"]);
  });

  test("a session without a message, and one that ends before HELO", async () => {
    await using client = await site.connect("empty");
    await client.quit();
    expect(await traced("empty")).toEqual(["connect", "helo a.test", "close"]);
    await using silent = await site.connect("silent", { helo: false });
    await silent.close();
    expect(await traced("silent")).toEqual(["connect", "close"]);
  });

  test("commands in one write (PIPELINING)", async () => {
    await using client = await site.connect("pipelined");
    client.write(`MAIL FROM:<${FROM}>\r\nRCPT TO:<${TO}>\r\nRCPT TO:<no@example.org>\r\nDATA\r\n`);
    const codes = [];
    for (let n = 0; n < 4; n++) codes.push((await client.read()).code);
    expect(codes).toEqual([250, 250, 550, 354]);
    await site.delivered(await client.content(MESSAGE));
    await client.quit();
    expect(await traced("pipelined")).toEqual([
      "connect",
      "helo a.test",
      "envfrom <alice@example.test>",
      "envrcpt <bob@example.org>",
      "envrcpt <no@example.org>",
      ...ONE,
      "eom 1 3 1",
      "close",
    ]);
  });

  test("async handlers of each phase are awaited in order", async () => {
    const delivered = await site.deliver({ as: "async-all", to: [TO, "c@example.org"] });
    expect(fieldsOf(delivered)).toEqual([
      ...ownFields,
      "Subject: hello",
      "From: <alice@example.test>",
      `X-Message: 1 <${FROM}>`,
    ]);
    const phases = [
      "connect",
      "helo",
      "envfrom",
      "envrcpt",
      "envrcpt",
      "data",
      "header",
      "header",
      "eoh",
      "body",
      "eom",
    ];
    const seen = (await traced("async-all")).map((line) =>
      line
        .split(" ")
        .filter((word) => /^[a-z]+$/.test(word))
        .join(" "),
    );
    expect(seen).toEqual([...phases, "close"].flatMap((phase) => [phase, `${phase} done`]));
  });

  test.each([
    ["connect", []],
    ["helo", ["helo client.example.test"]],
    ["envfrom", ["helo client.example.test", "envfrom <alice@example.test>"]],
    ["envrcpt", ["helo client.example.test", "envfrom <alice@example.test>", "envrcpt <bob@example.org>"]],
  ])("accept() at %s: this filter sees no more, another one goes on, and earlier changes stay", async (phase, seen) => {
    const as = `accept-${phase}`;
    const own = phase.startsWith("env") ? ["X-Message: 1 <alice@example.test>"] : [];
    const alone = await site.deliver({ as, to: [TO, "c@example.org"] });
    expect(fieldsOf(alone)).toEqual([...ownFields, "Subject: hello", "From: <alice@example.test>", ...own]);
    expect(alone.to).toHaveLength(2);
    expect(await traced(as)).toEqual(["connect", ...seen, "close"]);

    const paired = await site.deliver({ as, service: "pair" });
    expect(fieldsOf(paired)).toEqual([
      ...ownFields,
      "Subject: hello",
      "From: <alice@example.test>",
      ...own,
      "X-Other: 1",
    ]);
    expect(await traced(as, "pair")).toEqual(["connect", ...seen, "close"]);
  });

  test.each(["connect", "helo", "envfrom"])("accept() at %s and the next message of the session", async (phase) => {
    const as = `accept-${phase}-twice`;
    await using client = await site.connect(as);
    for (const from of ["one@example.test", "two@example.test"]) {
      await client.mail(from);
      await client.rcpt(TO);
      expect((await client.data(MESSAGE)).code).toBe(250);
    }
    await client.quit();
    const senders = (await traced(as)).filter((line) => line.startsWith("envfrom"));
    expect(senders).toEqual(phase === "envfrom" ? ["envfrom <one@example.test>", "envfrom <two@example.test>"] : []);
  });
});
