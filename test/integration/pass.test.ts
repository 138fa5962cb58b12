/**
 * Mail that nobody objects to: what is delivered is what the mail server delivers without a filter, which is what was sent
 * as far as the mail server keeps it, and the filter saw all of it, whatever its shape.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { startSite as startSendmailSite } from "../sendmail/support.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailOptions, type MailSite, MESSAGE, type SiteFilters, TO } from "./site.ts";
import { oneFilter, outcome, parts, said, scripted, startSite as startPostfixSite } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

/** What the `seen` behaviour prints of a message. */
interface Seen {
  readonly sender: readonly [raw: string, address: string, params: readonly string[]];
  readonly recipients: readonly string[];
  readonly headers: readonly (readonly [string, string])[];
  /** One character per byte. */
  readonly body: string;
}

const FILTER = scripted({
  seen: () => ({
    header(session, name, value) {
      ((session.state["headers"] ??= []) as unknown[]).push([name, value]);
    },
    body(session, chunk) {
      ((session.state["chunks"] ??= []) as Uint8Array[]).push(chunk.slice());
    },
    eom({ state, message }) {
      const chunks = (state["chunks"] ?? []) as Uint8Array[];
      const { raw, address, params } = message.sender;
      const recipients = message.recipients.map((recipient) => recipient.raw);
      const headers = state["headers"] ?? [];
      const body = Buffer.concat(chunks).toString("latin1");
      console.log(JSON.stringify({ sender: [raw, address, params], recipients, headers, body }));
    },
  }),
  refuse: ({ reject }) => ({
    envrcpt: (_, recipient) => (recipient.includes("7") ? reject(`550 5.1.1 No ${recipient} here`) : undefined),
    eom: ({ message }) => console.log(JSON.stringify(message.recipients.map(({ address }) => address))),
  }),
});

/** Hashes the body as it passes and as it was collected, with a body handler of one kind. */
const collector = (kind: string, body: string) => `
import { defineFilter } from "pmilter";
const hasher = () => new Bun.CryptoHasher("sha256");
export default defineFilter({
  collectBody: true,
  envfrom(session) { session.state.hash = hasher(); },
  ${body},
  eom(session) {
    const whole = session.message.body();
    const collected = hasher().update(whole).digest("hex");
    console.log("${kind}", whole.length, collected, session.state.hash.digest("hex"));
  },
});
`;
const BODY_HANDLERS = {
  sync: "body(session, chunk) { session.state.hash.update(chunk); }",
  async: "async body(session, chunk) { await Promise.resolve(); session.state.hash.update(chunk); }",
  timer: "body: (session, chunk) => Bun.sleep(0).then(() => { session.state.hash.update(chunk); })",
  none: "data() {}",
};
const collecting = {
  config: Object.keys(BODY_HANDLERS)
    .map((kind) => `[[filter]]\npath = "${kind}.ts"`)
    .join("\n"),
  files: Object.fromEntries(Object.entries(BODY_HANDLERS).map(([kind, body]) => [`${kind}.ts`, collector(kind, body)])),
};

/** What each mail server needs for these messages, and how it answers and completes them. */
const SERVERS = {
  Postfix: {
    // One delivery to all of a hundred recipients; its default is 50 each.
    startSite: (filters: SiteFilters) =>
      startPostfixSite({ filters, postfix: () => ({ mainCf: { default_destination_recipient_limit: "200" } }) }),
    taken: () => "250 2.1.5 Ok",
    refused: (address: string) => `550 5.1.1 No <${address}> here`,
    fieldsOfNone: ["RECEIVED"],
  },
  Sendmail: {
    // Its default for all header fields together is 32 KB.
    startSite: (filters: SiteFilters) =>
      startSendmailSite({ filters, sendmail: () => ({ defines: { confMAX_HEADERS_LENGTH: "200000" } }) }),
    // It puts the recipient before each text, the filter's among them.
    taken: (address: string) => `250 2.1.5 <${address}>... Recipient ok`,
    refused: (address: string) => `550 5.1.1 <${address}>... No <${address}> here`,
    // It makes what a message must have.
    fieldsOfNone: ["RECEIVED", "DATE", "From: alice@example.test", "MESSAGE-ID"],
  },
};

describeBehindEach("mail that passes", (server) => {
  const isPostfix = server.name === "Postfix";
  const { startSite, taken, refused, fieldsOfNone } = SERVERS[server.name];
  let site: MailSite;
  beforeAll(async () => {
    site = await startSite({ seen: oneFilter(FILTER), collecting });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /**
   * Sends to the `seen` behaviour; gives the message as delivered without the mail server's fields, and what the filter
   * saw. It must be what the mail server delivers without a filter.
   */
  async function pass(options: MailOptions) {
    const from = site.pmilter().prints.all.length;
    const delivered = await site.deliver({ as: "seen", ...options });
    const seen = JSON.parse(await site.pmilter().prints.next(/^\{"sender/, { from })) as Seen;
    const unfiltered = await site.deliver({ as: "seen", ...options, service: "smtp" });
    expect(parts(delivered.text).body === parts(unfiltered.text).body).toBe(true);
    expect(server.fieldsOf(delivered)).toEqual(server.fieldsOf(unfiltered));
    return { delivered, seen, text: server.withoutOwn(delivered.text) };
  }

  test("headers of every shape arrive as they were sent, and the filter sees them", async () => {
    const message = [
      "From: <alice@example.test>",
      "Subject: plain",
      "X-None:no space",
      "X-Two:  two spaces",
      "X-Tab:\ttab",
      "X-Empty:",
      "X-Space: ",
      "X-Folded: one",
      "\ttwo",
      "  three ",
      "x-CASE: a",
      "X-Case: b",
      "X-Percent: 100% %s \\n",
      "X-Dollar: $j $&{client_addr} $1 ${x}",
      "X-Latin1: \xe9\xff\x80\x95",
      "To: Bob <bob@example.org>,",
      "\tCarol <carol@example.org>",
      "",
      "body",
      "",
    ].join("\r\n");
    const { text, seen } = await pass({ message, mailParams: "BODY=8BITMIME" });
    // Lists of addresses Sendmail folds anew on delivery; the filter sees them as they were sent.
    expect(text).toBe(isPostfix ? message : message.replace(",\r\n\tCarol", ", Carol"));
    expect(seen.headers).toEqual([
      ["From", "<alice@example.test>"],
      ["Subject", "plain"],
      ["X-None", "no space"],
      ["X-Two", " two spaces"],
      ["X-Tab", "\ttab"],
      ["X-Empty", ""],
      ["X-Space", ""],
      ["X-Folded", "one\n\ttwo\n  three "],
      ["x-CASE", "a"],
      ["X-Case", "b"],
      ["X-Percent", "100% %s \\n"],
      ["X-Dollar", "$j $&{client_addr} $1 ${x}"],
      ["X-Latin1", "\udce9\udcff\udc80\udc95"],
      ["To", "Bob <bob@example.org>,\n\tCarol <carol@example.org>"],
    ]);
  });

  test.each([
    ["no body", ""],
    ["dots and empty lines", ".\r\n..\r\n\r\n.a\r\n"],
    ["8-bit, control characters", "\x01\xff\x7f\r\n"],
    ["a body that looks like more headers", "X-Not: a header\r\n\r\nb\r\n"],
  ])("%s", async (_, body) => {
    const message = `From: <a@example.test>\r\nSubject: a\r\n\r\n${body}`;
    const { text, seen } = await pass({ message, mailParams: "BODY=8BITMIME" });
    expect(text).toBe(message);
    expect(seen.body).toBe(body);
  });

  test("a long line with 8-bit and control characters is whole for the filter; Sendmail cuts it on delivery", async () => {
    const body = `\x01\xff\x7f${"x".repeat(5000)}\r\n`;
    const message = `From: <a@example.test>\r\n\r\n${body}`;
    const { text, seen } = await pass({ message, mailParams: "BODY=8BITMIME" });
    expect(seen.body).toBe(body);
    expect(isPostfix ? text : text.replaceAll("!\r\n ", "")).toBe(message);
  });

  test("a message without header: Sendmail makes what must be there", async () => {
    const { delivered, seen } = await pass({ message: "\r\nbody only\r\n" });
    expect(seen).toMatchObject({ headers: [], body: "body only\r\n" });
    expect(parts(delivered.text).body).toBe("body only\r\n");
    expect(server.fieldsOf(delivered)).toEqual(fieldsOfNone);
  });

  test("60 KB of headers, folded and in many fields", async () => {
    const folded = Array.from({ length: 1180 }, (_, line) => `line ${line}`.padEnd(47, ".")).join("\r\n ");
    const many = Array.from({ length: 500 }, (_, n) => `X-Many-${n}: ${"z".repeat(80)}`).join("\r\n");
    const message = `From: <a@example.test>\r\nX-Folded: ${folded}\r\n${many}\r\n\r\nbody\r\n`;
    const { text, seen } = await pass({ message });
    expect(text === message).toBe(true);
    expect(seen.headers[1]![1] === folded.replaceAll("\r\n", "\n")).toBe(true);
    expect(seen.headers).toHaveLength(502);
  });

  // Sendmail gives a filter no header of more than 65,535 bytes: see test/sendmail/pass.test.ts.
  test.each([59_980, ...(isPostfix ? [119_960] : [])])(
    "a header of %i bytes in one line: Postfix cuts it at 60,000 before the filter, Sendmail only on delivery",
    async (length) => {
      const line = "y".repeat(length);
      const message = `From: <a@example.test>\r\nX-Line: ${line}\r\n\r\nbody\r\n`;
      const { text, seen } = await pass({ message });
      // Without a filter it is the same; header_size_limit has no part in it.
      const value = line.slice(0, 60_000 - "X-Line: ".length);
      expect(seen.headers[1]![1] === value).toBe(true);
      if (isPostfix) expect(text === message.replace(line, value)).toBe(true);
      else expect(text.length).toBeLessThan(message.length);
    },
  );

  test("UTF-8 in the headers and the body", async () => {
    const message = "Subject: grüße 日本\r\nFrom: <jurgen@example.test>\r\n\r\nпривет 🎉\r\n";
    const { seen, text } = await pass({ message: Buffer.from(message), mailParams: "BODY=8BITMIME" });
    expect(Buffer.from(text, "latin1").toString("utf8")).toBe(message);
    expect(seen.headers[0]).toEqual(["Subject", "grüße 日本"]);
  });

  test("UTF-8 in the envelope, too (SMTPUTF8); Sendmail 8.17 of Debian has none", async () => {
    const message = "Subject: grüße 日本\r\nFrom: <jürgen@exämple.test>\r\n\r\nпривет 🎉\r\n";
    const options = {
      from: "jürgen@exämple.test",
      to: "用户@例え.test",
      message: Buffer.from(message),
      mailParams: "SMTPUTF8 BODY=8BITMIME",
    };
    if (!isPostfix) {
      expect(outcome(await site.send(options))).toMatch(/^mail: 5/);
      return;
    }
    const { delivered, seen, text } = await pass(options);
    expect(Buffer.from(text, "latin1").toString("utf8")).toBe(message);
    expect(delivered).toMatchObject({ from: "jürgen@exämple.test", to: [{ address: "用户@例え.test" }] });
    expect(seen.sender).toEqual(["<jürgen@exämple.test>", "jürgen@exämple.test", ["SMTPUTF8", "BODY=8BITMIME"]]);
    expect(seen.recipients).toEqual(["<用户@例え.test>"]);
    expect(seen.headers[0]).toEqual(["Subject", "grüße 日本"]);
  });

  test("the null sender, and ESMTP arguments", async () => {
    const { delivered, seen } = await pass({ from: "", mailParams: "SIZE=1000 RET=HDRS ENVID=a+2Bb" });
    expect(delivered.from).toBe("");
    expect(delivered.fromParams).toMatchObject({ RET: "HDRS", ENVID: "a+2Bb" });
    expect(seen.sender).toEqual(["<>", "", ["SIZE=1000", "RET=HDRS", "ENVID=a+2Bb"]]);
  });

  test("100 recipients of which 19 are refused, each by its own reply", async () => {
    const to = Array.from({ length: 100 }, (_, n) => `user${n}@example.org`);
    const kept = to.filter((address) => !address.includes("7"));
    const from = site.pmilter().prints.all.length;
    const result = await site.send({ as: "refuse", to });
    expect(kept).toHaveLength(81);
    expect(result.rcpt.map(said)).toEqual(
      to.map((address) => (kept.includes(address) ? taken(address) : refused(address))),
    );
    const delivered = await site.delivered(result.last);
    expect(delivered.to.map(({ address }) => address).sort()).toEqual(kept.toSorted());
    expect(JSON.parse(await site.pmilter().prints.next(/^\[/, { from }))).toEqual(kept);
  });

  test("all recipients refused: the message ends there", async () => {
    const result = await site.send({ as: "refuse", to: ["7@example.org", "77@example.org"] });
    expect(said(result.last)).toBe(refused("77@example.org"));
    expect(result.data).toBeUndefined();
  });

  test("5 MB pass body handlers of each kind, and are collected, byte for byte", async () => {
    const line = Buffer.alloc(77, 0);
    for (let at = 0; at < 75; at++) line[at] = 33 + ((at * 7) % 90);
    line.set([13, 10], 75);
    const lines = Array.from({ length: 65_536 }, (_, n) => {
      const copy = Buffer.from(line);
      copy.write(n.toString(16).padStart(8, "0"), 1);
      return copy;
    });
    const body = Buffer.concat(lines);
    const message = Buffer.concat([Buffer.from("From: <a@example.test>\r\nSubject: big\r\n\r\n"), body]);
    expect(body.length).toBeGreaterThan(5_000_000);
    const { prints } = site.pmilter("collecting");
    const delivered = await site.deliver({ service: "collecting", message });
    const { data } = delivered;
    expect(Buffer.from(data.subarray(data.length - message.length)).equals(message)).toBe(true);
    expect(server.withoutOwn(delivered.text).length).toBe(message.length);

    const sha = new Bun.CryptoHasher("sha256").update(body).digest("hex");
    for (const kind of ["sync", "async", "timer"]) {
      expect(await prints.next(new RegExp(`^${kind} `))).toBe(`${kind} ${body.length} ${sha} ${sha}`);
    }
    expect(await prints.next(/^none /)).toStartWith(`none ${body.length} ${sha} `);
  });

  test("an empty message is collected as an empty body", async () => {
    const { prints } = site.pmilter("collecting");
    const from = prints.all.length;
    await site.deliver({ service: "collecting", from: FROM, to: TO, message: "Subject: a\r\n\r\n" });
    expect(await prints.next(/^sync /, { from })).toStartWith("sync 0 ");
    await site.deliver({ service: "collecting", message: MESSAGE });
    expect(await prints.next(/^sync [1-9]/, { from })).toStartWith("sync 6 ");
  });
});
