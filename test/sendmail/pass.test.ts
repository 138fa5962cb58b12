/**
 * Mail that nobody objects to: what Sendmail delivers is what it delivers without a filter, which is what was sent as far
 * as Sendmail keeps it, and the filter saw all of it, whatever its shape.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { FROM, MESSAGE, oneFilter, parts, said, scripted, TO } from "../integration/support.ts";
import { describeWith } from "../support/available.ts";
import { sendmailTool } from "../support/sendmail.ts";
import { fieldsOf, OWN_FIELDS, type Site, startSite, withoutOwn } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(30_000);

/** What the `seen` behaviour prints of a message. */
interface Seen {
  readonly sender: readonly [raw: string, address: string, params: readonly string[]];
  readonly recipients: readonly string[];
  readonly headers: readonly (readonly [string, string])[];
  readonly chunks: number;
  readonly bytes: number;
  readonly sha: string;
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
      const sha = new Bun.CryptoHasher("sha256").update(Buffer.concat(chunks)).digest("hex");
      const recipients = message.recipients.map((recipient) => recipient.raw);
      const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      const headers = state["headers"] ?? [];
      console.log(
        JSON.stringify({ sender: [raw, address, params], recipients, headers, chunks: chunks.length, bytes, sha }),
      );
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

describeWith(sendmailTool, "Sendmail: mail that passes", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: { seen: oneFilter(FILTER), collecting },
      // Its default for all header fields together is 32 KB.
      sendmail: () => ({ defines: { confMAX_HEADERS_LENGTH: "200000" } }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /**
   * Sends to the `seen` behaviour; gives the message as delivered without Sendmail's fields, and what the filter saw. It
   * must be what Sendmail delivers without a filter.
   */
  async function pass(options: Parameters<Site["send"]>[0]) {
    const from = site.pmilter().prints.all.length;
    const delivered = await site.deliver({ as: "seen", ...options });
    const seen = JSON.parse(await site.pmilter().prints.next(/^\{"sender/, { from })) as Seen;
    const text = withoutOwn(delivered.text);
    const unfiltered = await site.deliver({ as: "seen", ...options, service: "smtp" });
    expect(parts(text).body === parts(unfiltered.text).body).toBe(true);
    expect(fieldsOf(delivered)).toEqual(fieldsOf(unfiltered));
    return { delivered, seen, text };
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
    expect(text).toBe(message.replace(",\r\n\tCarol", ", Carol"));
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
    ["no body", "From: <a@example.test>\r\nSubject: a\r\n\r\n", 0],
    ["dots and empty lines", "From: <a@example.test>\r\n\r\n.\r\n..\r\n\r\n.a\r\n", 13],
    ["8-bit, control characters", "From: <a@example.test>\r\n\r\n\x01\xff\x7f\r\n", 5],
    ["a body that looks like more headers", "From: <a@example.test>\r\n\r\nX-Not: a header\r\n\r\nb\r\n", 22],
  ])("%s", async (_, message, bytes) => {
    const { text, seen } = await pass({ message, mailParams: "BODY=8BITMIME" });
    expect(text).toBe(message);
    expect(seen.bytes).toBe(bytes);
  });

  test("a long line is whole for the filter; Sendmail cuts it on delivery", async () => {
    const line = "x".repeat(5000);
    const { text, seen } = await pass({ message: `From: <a@example.test>\r\n\r\n${line}\r\n` });
    expect(seen.bytes).toBe(5002);
    expect(text.replaceAll("!\r\n ", "")).toBe(`From: <a@example.test>\r\n\r\n${line}\r\n`);
  });

  test("a lone LF: Sendmail refuses the message itself, before the filter sees its content", async () => {
    const { prints } = site.pmilter();
    const from = prints.all.length;
    const { last } = await site.send({ as: "seen", message: "From: <a@example.test>\r\n\r\na\nb\r\n" });
    expect(said(last)).toContain("Bare linefeed (LF) not allowed");
    await pass({ message: MESSAGE });
    expect(prints.all.slice(from).filter((text) => text.startsWith('{"sender'))).toHaveLength(1);
  });

  test("a message without header and one without From: Sendmail makes what must be there", async () => {
    const { delivered, seen, text } = await pass({ message: "\r\nbody only\r\n" });
    expect(seen).toMatchObject({ headers: [], bytes: 11 });
    expect(text).toEndWith("\r\n\r\nbody only\r\n");
    expect(fieldsOf(delivered).slice(0, 2)).toEqual(OWN_FIELDS.slice(0, 2));
    expect(fieldsOf(delivered)).toContain("From: alice@example.test");
  });

  test("60 KB of headers, folded and in many fields, within confMAX_HEADERS_LENGTH", async () => {
    const folded = Array.from({ length: 1180 }, (_, line) => `line ${line}`.padEnd(47, ".")).join("\r\n ");
    const many = Array.from({ length: 500 }, (_, n) => `X-Many-${n}: ${"z".repeat(80)}`).join("\r\n");
    const message = `From: <a@example.test>\r\nX-Folded: ${folded}\r\n${many}\r\n\r\nbody\r\n`;
    const { text, seen } = await pass({ message });
    expect(text === message).toBe(true);
    expect(seen.headers[1]![1] === folded.replaceAll("\r\n", "\n")).toBe(true);
    expect(seen.headers).toHaveLength(502);
  });

  test("headers over confMAX_HEADERS_LENGTH: Sendmail refuses the message itself, and the filter is told of its end", async () => {
    const many = Array.from({ length: 3000 }, (_, n) => `X-Many-${n}: ${"z".repeat(80)}`).join("\r\n");
    const { last } = await site.send({ as: "seen", message: `${many}\r\n\r\nbody\r\n` });
    expect(said(last)).toMatch(/^552 5\.\d\.\d Headers too large/);
  });

  test("UTF-8 in the headers and the body; Sendmail 8.17 of Debian has no SMTPUTF8", async () => {
    const message = "Subject: grüße 日本\r\nFrom: <jurgen@example.test>\r\n\r\nпривет 🎉\r\n";
    const { seen, text } = await pass({ message: Buffer.from(message), mailParams: "BODY=8BITMIME" });
    expect(Buffer.from(text, "latin1").toString("utf8")).toBe(message);
    expect(seen.headers[0]).toEqual(["Subject", "grüße 日本"]);
    const { last } = await site.send({ from: "jürgen@exämple.test", mailParams: "SMTPUTF8" });
    expect(last.code).toBeGreaterThanOrEqual(500);
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
      to.map((address) =>
        kept.includes(address)
          ? `250 2.1.5 <${address}>... Recipient ok`
          : `550 5.1.1 <${address}>... No <${address}> here`,
      ),
    );
    const delivered = site.delivered(result.last);
    expect(delivered.to.map(({ address }) => address).sort()).toEqual(kept.toSorted());
    expect(JSON.parse(await site.pmilter().prints.next(/^\[/, { from }))).toEqual(kept);
  });

  test("all recipients refused: the message ends there", async () => {
    const result = await site.send({ as: "refuse", to: ["7@example.org", "77@example.org"] });
    expect(said(result.last)).toBe("550 5.1.1 <77@example.org>... No <77@example.org> here");
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
    const { prints } = site.pmilter("collecting");
    const { data } = await site.deliver({ service: "collecting", message });
    expect(Buffer.from(data.subarray(data.length - message.length)).equals(message)).toBe(true);

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
