/** Mail that nobody objects to: what is delivered is what was sent, and the filter saw all of it, whatever its shape. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import {
  FROM,
  MESSAGE,
  oneFilter,
  parts,
  said,
  scripted,
  type Site,
  startSite,
  TO,
  withoutReceived,
} from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
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

describeWith(postfixTool, "mail that passes", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: { seen: oneFilter(FILTER), collecting },
      postfix: () => ({ mainCf: { default_destination_recipient_limit: "200" } }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /**
   * Sends to the `seen` behaviour; gives the message as delivered without Received, and what the filter saw. It must be
   * what Postfix delivers without a filter.
   */
  async function pass(options: Parameters<Site["send"]>[0]) {
    const from = site.pmilter().prints.all.length;
    const delivered = await site.deliver({ as: "seen", ...options });
    const seen = JSON.parse(await site.pmilter().prints.next(/^\{"sender/, { from })) as Seen;
    const text = withoutReceived(delivered.text);
    const unfiltered = await site.deliver({ ...options, service: "smtp" });
    expect(text === withoutReceived(unfiltered.text)).toBe(true);
    return { delivered, seen, text };
  }

  test("headers of every shape arrive as they were sent, and the filter sees them", async () => {
    const message = [
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
      "X-Latin1: \xe9\xff\x80",
      "",
      "body",
      "",
    ].join("\r\n");
    const { text, seen } = await pass({ message, mailParams: "BODY=8BITMIME" });
    expect(text).toBe(message);
    expect(seen.headers).toEqual([
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
      ["X-Latin1", "\udce9\udcff\udc80"],
    ]);
  });

  test.each([
    ["no body", "Subject: a\r\n\r\n", 0],
    ["no header", "\r\nbody only\r\n", 11],
    ["dots and empty lines", "Subject: a\r\n\r\n.\r\n..\r\n\r\n.a\r\n", 13],
    ["8-bit, control characters, a long line", `Subject: a\r\n\r\n\x01\xff\x7f${"x".repeat(5000)}\r\n`, 5005],
  ])("%s", async (_, message, bytes) => {
    const { text, seen } = await pass({ message, mailParams: "BODY=8BITMIME" });
    expect(text).toBe(message);
    expect(seen.bytes).toBe(bytes);
  });

  test("headers of just under 60,000 bytes, folded and as one line; Postfix cuts longer ones, and the filter sees that", async () => {
    const folded = Array.from({ length: 1180 }, (_, line) => `line ${line}`.padEnd(47, ".")).join("\r\n ");
    const line = "y".repeat(59_980);
    const message = `Subject: a\r\nX-Folded: ${folded}\r\nX-Line: ${line}\r\n\r\nbody\r\n`;
    const whole = await pass({ message });
    expect(whole.text === message).toBe(true);
    expect(whole.seen.headers[1]![1] === folded.replaceAll("\r\n", "\n")).toBe(true);
    expect(whole.seen.headers[2]![1] === line).toBe(true);

    // Without a filter it is the same; header_size_limit has no part in it.
    const cut = await pass({ message: message.replace(line, `${line}${line}`) });
    const value = cut.seen.headers[2]![1];
    expect(value).toHaveLength(60_000 - "X-Line: ".length);
    expect(parts(cut.text).fields[2] === `X-Line: ${value}`).toBe(true);
  });

  test("UTF-8 in the envelope, the headers and the body (SMTPUTF8)", async () => {
    const message = "Subject: grüße 日本\r\nFrom: <jürgen@exämple.test>\r\n\r\nпривет 🎉\r\n";
    const { delivered, seen, text } = await pass({
      from: "jürgen@exämple.test",
      to: "用户@例え.test",
      message: Buffer.from(message),
      mailParams: "SMTPUTF8 BODY=8BITMIME",
    });
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
      to.map((address) => (kept.includes(address) ? "250 2.1.5 Ok" : `550 5.1.1 No <${address}> here`)),
    );
    const delivered = await site.delivered(result.last);
    expect(delivered.to.map(({ address }) => address).sort()).toEqual(kept.toSorted());
    expect(JSON.parse(await site.pmilter().prints.next(/^\[/, { from }))).toEqual(kept);
  });

  test("all recipients refused: the message ends there", async () => {
    const result = await site.send({ as: "refuse", to: ["7@example.org", "77@example.org"] });
    expect(said(result.last)).toBe("550 5.1.1 No <77@example.org> here");
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
    const message = Buffer.concat([Buffer.from("Subject: big\r\n\r\n"), body]);
    expect(body.length).toBeGreaterThan(5_000_000);
    const prints = site.pmilter("collecting").prints;
    const delivered = await site.deliver({ service: "collecting", message });
    const { data } = delivered;
    expect(Buffer.from(data.subarray(data.length - message.length)).equals(message)).toBe(true);
    expect(withoutReceived(delivered.text).length).toBe(message.length);

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
