/**
 * What one session or message leaves behind for another: nothing. And what a handler copies from a client into a reply
 * or a header is that reply or that header, whatever the client wrote.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { accept, reject, tempfail } from "../../src/index.ts";
import { startPmilter } from "../support/pmilter.ts";
import { type AnyFilter, Line, NO_NR, settled } from "../handler/harness.ts";
import { cmd, packet as naive } from "../protocol/wire.ts";
import { encodeText } from "../../src/protocol/bytes.ts";
import { CONNECT, EOM, HELO, MAIL, OPTNEG, packet, RawClient, RCPT, UNKNOWN } from "../server/wire.ts";
import { evilTexts } from "./measure.ts";

setDefaultTimeout(120_000);

const bytesOf = (text: string): string => Buffer.from(encodeText(text)).toString("latin1");

describe("values that handlers copy from a client", () => {
  const texts = evilTexts(1500);

  test("a reply text is one reply of its code, or the handler fails", () => {
    for (const make of [reject, tempfail]) {
      const code = make === reject ? "550" : "451";
      const filter: AnyFilter = { helo: (_, name) => make(`${code} ${name}`) };
      for (const text of texts) {
        const line = Line.to([filter]);
        const [reply] = line.send(cmd.connect(), naive("H", `${bytesOf(text).split("\0")[0]}\0`)).slice(-1);
        if (reply === "t") continue;
        expect(reply![0]).toBe("y");
        expect(reply!.endsWith("\0")).toBe(true);
        const lines = reply!.slice(1, -1).split("\r\n");
        lines.forEach((one, at) => {
          expect(one).toMatch(at < lines.length - 1 ? new RegExp(`^${code}-`) : new RegExp(`^${code} `));
          // oxlint-disable-next-line no-control-regex
          expect(one).not.toMatch(/[\u0000-\u001f\u007f]/);
          expect(one.replaceAll("%%", "")).not.toContain("%");
        });
      }
    }
  });

  test.each<[string, (mail: Parameters<NonNullable<AnyFilter["eom"]>>[0]["message"], text: string) => void]>([
    ["addHeader", (mail, text) => mail.addHeader("X", text)],
    ["insertHeader", (mail, text) => mail.insertHeader(0, "X", text)],
    ["changeHeader", (mail, text) => mail.changeHeader("Subject", text)],
    ["a name", (mail, text) => mail.addHeader(text, "value")],
    ["addRecipient", (mail, text) => mail.addRecipient(text)],
    ["its arguments", (mail, text) => mail.addRecipient("x@mx.test", [text])],
    ["changeFrom", (mail, text) => mail.changeFrom(text)],
    ["quarantine", (mail, text) => mail.quarantine(text)],
  ])("%s writes one packet with its own fields, or throws", (_, change) => {
    let text = "";
    const filter: AnyFilter = { eom: (session) => change(session.message, text), header: () => undefined };
    for (text of texts) {
      const line = Line.to([filter]);
      const sent = line.send(cmd.mail(), cmd.rcpt(), cmd.header(), cmd.eom());
      if (sent.at(-1) === "t") {
        expect(sent).toEqual(["t"]);
        continue;
      }
      expect(sent.at(-1)).toBe("c");
      expect(sent.length).toBeLessThanOrEqual(2);
      if (sent.length === 1) continue;
      const [written] = sent as [string];
      const fields = written.slice("im".includes(written[0]!) ? 5 : 1).split("\0");
      expect(fields.pop()).toBe("");
      expect(fields.length).toBe("him2".includes(written[0]!) ? 2 : 1);
      // A line break is the beginning of a continuation line; elsewhere there is none.
      for (const field of fields) expect(field).not.toMatch("him".includes(written[0]!) ? /\r|\n(?![ \t])/ : /[\r\n]/);
      if ("him".includes(written[0]!)) expect(fields[0]).toMatch(/^[!-9;-~]+$/);
      // oxlint-disable-next-line no-control-regex
      if ("e+2-".includes(written[0]!)) expect(fields[0]).toMatch(/^<[^<>\u0000-\u001f]*>$/);
    }
  });
});

describe("sessions on one connection", () => {
  const seen: string[] = [];
  const note = (phase: string) => (session: Parameters<NonNullable<AnyFilter["close"]>>[0]) => {
    const { macros, state, helo, client } = session as unknown as {
      macros: { get(name: string): string | undefined };
      state: Record<string, unknown>;
      helo: string;
      client: { hostname: string };
    };
    seen.push([phase, client.hostname, helo, macros.get("i"), macros.get("{mail_addr}"), state["first"]].join("|"));
    state["first"] ??= phase;
  };
  const filter = Object.fromEntries(
    ["connect", "helo", "envfrom", "eom", "abort", "close"].map((phase) => [phase, note(phase)]),
  ) as AnyFilter;

  const first = [
    cmd.macro("C", { "{daemon_name}": "one" }),
    cmd.connect("one.test"),
    cmd.helo("one"),
    cmd.macro("M", { i: "ONE", "{mail_addr}": "secret" }),
    cmd.mail(),
  ];

  test.each<[string, readonly Buffer[]]>([
    ["a second CONNECT in the middle of a message", [cmd.connect("two.test")]],
    ["QUIT_NC in the middle of a message", [cmd.quitNc(), cmd.connect("two.test")]],
    ["QUIT_NC twice", [cmd.quitNc(), cmd.quitNc(), cmd.connect("two.test")]],
    ["ABORT, then CONNECT", [cmd.abort(), cmd.connect("two.test")]],
    ["a message without CONNECT after QUIT_NC", [cmd.quitNc()]],
  ])("%s: nothing of the first reaches the second", (_, between) => {
    seen.length = 0;
    const line = Line.to([filter], { protocol: NO_NR });
    line.send(...first, ...between);
    const from = seen.length;
    line.send(cmd.mail(), cmd.eom(), cmd.abort(), cmd.quit());
    const host = between.length > 0 && between.at(-1)!.includes("two.test") ? "two.test" : "";
    // What the first one's end sees is its own.
    expect(seen.slice(0, from).filter((one) => one.startsWith("abort"))).toEqual([
      "abort|one.test|one|ONE|secret|connect",
    ]);
    for (const one of seen.slice(from)) expect(one).toMatch(new RegExp(`^\\w+\\|${host}\\|\\|\\|\\|`));
    expect(seen.slice(from).map((one) => one.split("|")[0])).toEqual(["envfrom", "eom", "close"]);
  });

  test("HELO in a message ends it: the next one has its own macros and no headers of the first", () => {
    const headers: string[][] = [];
    const line = Line.to([
      {
        eom: (session) => void headers.push([...session.message.headers].map(({ value }) => value)),
        abort: () => undefined,
      },
    ]);
    line.send(cmd.connect(), cmd.mail(), cmd.header("A", " first"), cmd.helo(), cmd.mail(), cmd.header("A", " second"));
    line.send(cmd.eom());
    expect(headers).toEqual([["second"]]);
  });

  test("BODYEOB with a last piece, twice: each is a message of its own, and each is looked at", () => {
    const filter2: AnyFilter = {
      body: (_, chunk) => (Buffer.from(chunk).includes("virus") ? reject("550 5.7.1 virus") : undefined),
      eom: () => undefined,
    };
    const line = Line.to([filter2]);
    const replies = line.send(cmd.mail(), cmd.eom("virus"), cmd.eom("clean"), cmd.eom("virus"), cmd.eom());
    expect(replies).toEqual(["y550 5.7.1 virus\0", "c", "y550 5.7.1 virus\0", "c"]);
  });

  test("a verdict given at the end of a message is not that of the next, which has no MAIL", () => {
    const looked: string[] = [];
    const filter2: AnyFilter = {
      header(_session, _name, value) {
        looked.push(value);
        return value === "good" ? accept() : reject("550 5.7.1 bad");
      },
    };
    // Replies are awaited at the end alone, so the verdict on the header is given there.
    const line = Line.to([filter2]);
    expect(line.send(cmd.mail(), cmd.rcpt(), cmd.header("A", " good"), cmd.eom())).toEqual(["a"]);
    expect(line.send(cmd.rcpt(), cmd.header("A", " bad"), cmd.eom())).toEqual(["y550 5.7.1 bad\0"]);
    expect(looked).toEqual(["good", "bad"]);
  });

  test("a view that a handler keeps reads its own message, and changes none, once the next has come", async () => {
    type Mail = Parameters<NonNullable<AnyFilter["eom"]>>[0]["message"];
    const kept: Mail[] = [];
    const line = Line.to([{ eom: (session) => void kept.push(session.message) }]);
    line.send(cmd.mail("<one@c.test>"), cmd.header("A", " one"), cmd.eom());
    line.send(cmd.mail("<two@c.test>"), cmd.header("A", " two"));
    const old = kept[0]!;
    expect(() => old.addHeader("X", "late")).toThrow("over for this filter");
    expect([old.sender.raw, old.headers.get("A")]).toEqual(["<one@c.test>", "one"]);
    expect(line.send(cmd.eom())).toEqual(["c"]);
    await settled();
  });
});

describe("connections of one worker share a writer", () => {
  const FILTER = `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  connect() {}, helo() {}, unknown() {},
  async envfrom(session, from) { if (from === "<slow>") await Bun.sleep(5); },
  envrcpt(session, to) { return reject("550 5.1.1 " + session.client.hostname + " " + to); },
  eom(session) { session.message.addHeader("X-Host", session.client.hostname); },
  abort(session) { if (session.helo === "throws") throw new Error("abort"); },
  async close(session) { if (session.helo === "throws") { await 0; throw new Error("close"); } },
});
`;

  test("a peer that breaks the protocol in the middle of a read gets what was due, and nobody gets its replies", async () => {
    await using server = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: { "filter.ts": FILTER },
    });
    const bad = async (at: number): Promise<void> => {
      using client = await RawClient.connect(server.addresses[0]!);
      const name = `bad${at}.test`;
      const ending = [packet("z"), packet("H", "no end"), packet("C", "x\0"), OPTNEG][at % 4]!;
      await client.send(
        OPTNEG,
        packet("C", `${name}\0U`),
        packet("H", "throws\0"),
        packet("M", at % 2 === 0 ? "<slow>\0" : "<fast>\0"),
        ...Array.from({ length: 5 }, () => RCPT),
        ending,
        EOM,
        RCPT,
      );
      await client.ended();
      expect(client.replies.map(({ code }) => code).join("")).toBe("Occcyyyyy");
      for (const { code, payload } of client.replies) {
        if (code === "y") expect(payload.toString()).toBe(`550 5.1.1 ${name} <to@example.com>\0`);
      }
    };
    const good = async (at: number): Promise<void> => {
      using client = await RawClient.connect(server.addresses[0]!);
      const name = `good${at}.test`;
      expect(await client.ask(OPTNEG, packet("C", `${name}\0U`), HELO)).toBe("Occ");
      for (let round = 0; round < 20; round++) {
        expect(await client.ask(round % 2 === 0 ? MAIL : packet("M", "<slow>\0"))).toBe("c");
        await client.send(RCPT, EOM, UNKNOWN);
        const replies = [await client.reply(), await client.reply(), await client.reply(), await client.reply()];
        expect(replies.map(({ code, payload }) => code + payload.toString())).toEqual([
          `y550 5.1.1 ${name} <to@example.com>\0`,
          `hX-Host\0 ${name}\0`,
          "c",
          "c",
        ]);
      }
    };
    await Promise.all([
      ...Array.from({ length: 5 }, (_, at) => good(at)),
      ...Array.from({ length: 40 }, (_, at) => bad(at)),
    ]);
    using last = await RawClient.connect(server.addresses[0]!);
    expect(await last.ask(OPTNEG, CONNECT, UNKNOWN)).toBe("Occ");
    expect(server.log.text).not.toMatch(/\[crit\]|internal error/);
  });
});
