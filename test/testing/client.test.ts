/** `MilterClient` against a scripted filter in memory: habits, negotiated flags, and what it refuses. */
import { describe, expect, test } from "bun:test";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { PROTOCOL } from "../../src/protocol/constants.ts";
import type { ClientOptions } from "../../src/testing/client-types.ts";
import { MilterClient } from "../../src/testing/client.ts";
import { ClientUsageError, ConversationError } from "../../src/testing/errors.ts";
import type { Habit } from "../../src/testing/habits.ts";
import { CONTINUE, FakeFilter, optneg, packet, type Script, script, SILENCE } from "./fake-filter.ts";

interface Pair {
  readonly client: MilterClient;
  readonly filter: FakeFilter;
}

async function negotiated(as: Habit, play?: Script, options: Partial<ClientOptions> = {}): Promise<Pair> {
  const filter = new FakeFilter(play);
  const client = MilterClient.over(filter, { as, timeoutMs: 1000, macros: { i: "ID" }, ...options });
  await client.negotiate();
  return { client, filter };
}

const V6 = { address: "2001:db8::1", hostname: "v6.test", port: 40000 };

/** A whole message, phase by phase. */
async function converse(client: MilterClient): Promise<void> {
  await client.connect(V6);
  await client.helo("h.test");
  await client.envfrom("<a@c.test>", ["SIZE=9"]);
  await client.envrcpt("<b@d.test>");
  await client.envrcpt("<e@d.test>");
  await client.data();
  await client.header("Message-ID", " <1@c>");
  await client.eoh();
  await client.body(Buffer.from("Hi\r\n"));
  await client.eom();
}

describe("negotiate", () => {
  test("offers version 6 and everything, as both servers do", async () => {
    const { filter, client } = await negotiated("postfix");
    expect(filter.commands).toEqual([{ code: "O", payload: "\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff" }]);
    expect(client.negotiated).toMatchObject({ version: 6, actions: 0x1ff, protocol: 0, leadingSpace: false });
  });

  test("offers what the version has", async () => {
    const answer = script({ O: packet("O", 2, 0x3f, 0) });
    const { filter, client } = await negotiated("sendmail", answer, { offer: { version: 2 } });
    expect(filter.commands[0]!.payload).toBe("\0\0\0\x02\0\0\0\x3f\0\0\0\x7f");
    await client.connect();
    expect(await client.unknown("X")).toEqual({ kind: "none", sent: false });
  });

  test.each<[string, Habit, Uint8Array, Partial<ClientOptions>]>([
    ["a version above the offer", "postfix", packet("O", 7, 0, 0), {}],
    ["version 1", "sendmail", packet("O", 1, 0, 0), {}],
    ["an action outside the offer", "postfix", packet("O", 6, 2, 0), { offer: { actions: 1 } }],
    ["a protocol flag outside the offer, from Sendmail", "sendmail", packet("O", 6, 0, 2), { offer: { protocol: 1 } }],
    ["lists without SETSYMLIST", "postfix", optneg(0, 1, [[0, "j"]]), {}],
    ["another reply", "postfix", CONTINUE, {}],
    ["two replies", "postfix", Buffer.concat([optneg(), CONTINUE]), {}],
  ])("refuses %s", async (_name, as, answer, options) => {
    await expect(negotiated(as, script({ O: answer }), options)).rejects.toMatchObject({ code: "PMILTER_ERR_REPLY" });
  });

  test("passes over a protocol flag outside the offer, as Postfix", async () => {
    const { client } = await negotiated("postfix", script({ O: optneg(3) }), { offer: { protocol: 1 } });
    expect(client.negotiated!.protocol).toBe(1);
  });
});

describe("Postfix's habits", () => {
  test("MACRO before each event, i from the second recipient on, plain IPv6, ABORT after the message", async () => {
    const { client, filter } = await negotiated("postfix");
    await converse(client);
    await client.quit();
    expect(filter.transcript).toEqual([
      "DCj|mail.example.com|{daemon_name}|mail.example.com|{daemon_addr}|::1|v|Postfix 3.10.2|_|v6.test [2001:db8::1]|",
      "Cv6.test|6\x9c\x402001:db8::1|",
      "DH",
      "Hh.test|",
      "DM{mail_addr}|a@c.test|{mail_host}|c.test|{mail_mailer}|smtp|",
      "M<a@c.test>|SIZE=9|",
      "DR{rcpt_addr}|b@d.test|{rcpt_host}|d.test|{rcpt_mailer}|local|",
      "R<b@d.test>|",
      "DRi|ID|{rcpt_addr}|e@d.test|{rcpt_host}|d.test|{rcpt_mailer}|local|",
      "R<e@d.test>|",
      "DTi|ID|",
      "T",
      "DL",
      "LMessage-ID|<1@c>|",
      "DNi|ID|",
      "N",
      "DB",
      "BHi\r\n",
      "DEi|ID|",
      "E",
      "A",
      "Q",
    ]);
    expect(filter.writes.slice(1)).toEqual(["DC", "DH", "DM", "DR", "DR", "DT", "DL", "DN", "DB", "DE", "A", "Q"]);
  });

  test("no i after a recipient that was refused", async () => {
    const { client, filter } = await negotiated("postfix", script({ R: [packet("r")] }));
    await client.connect();
    await client.envfrom("<>");
    await client.envrcpt("<a@b>");
    await client.envrcpt("<c@d>");
    expect(filter.transcript.filter((line) => line.startsWith("DRi"))).toEqual([]);
    expect(filter.transcript).toContain("DM{mail_addr}||{mail_host}|mail.example.com|{mail_mailer}|local|");
  });

  test("the MACRO of a switched-off event is sent, but not that of content", async () => {
    const off = PROTOCOL.NOHELO | PROTOCOL.NODATA | PROTOCOL.NOHDRS | PROTOCOL.NOEOH | PROTOCOL.NOBODY;
    const { client, filter } = await negotiated("postfix", script({ O: optneg(off) }));
    await converse(client);
    expect(filter.letters).toBe("DCDDMDRDRDDEA");
  });

  test.each([["a"], ["r"], ["t"], ["y"]])("closes without QUIT after %s at helo", async (code) => {
    const reply = code === "y" ? packet("y", "550 5.7.1 no\0") : packet(code);
    const { client, filter } = await negotiated("postfix", script({ H: reply }));
    await client.connect();
    await client.helo("x");
    expect(await client.envfrom("<a@b>")).toEqual({ kind: "none", sent: false });
    await client.quit();
    expect(filter.letters).toBe("DCDH");
  });

  test("ABORT also after the filter's own verdict, and once", async () => {
    const { client, filter } = await negotiated("postfix", script({ M: packet("r") }));
    await client.connect();
    await client.envfrom("<a@b>");
    expect(await client.abort()).toEqual({ kind: "none", sent: true });
    expect(await client.abort()).toEqual({ kind: "none", sent: false });
    expect(filter.letters).toBe("DCDMA");
  });

  test("SKIP on any event, until another is due", async () => {
    const { client, filter } = await negotiated("postfix", script({ O: optneg(PROTOCOL.SKIP), L: [packet("s")] }));
    await client.connect();
    await client.envfrom("<a@b>");
    await client.envrcpt("<c@d>");
    expect(await client.header("A", " 1")).toEqual({ kind: "skip" });
    expect(await client.header("B", " 2")).toEqual({ kind: "none", sent: false });
    await client.eoh();
    expect(filter.letters).toBe("DCDMDRDLDN");
  });
});

describe("Sendmail's habits", () => {
  test("i from MAIL on, IPv6: prefix, no MACRO for content, no ABORT after the message", async () => {
    const { client, filter } = await negotiated("sendmail");
    await converse(client);
    await client.quit();
    expect(filter.transcript).toEqual([
      "DCj|mail.example.com|_|v6.test [IPv6:2001:db8:0:0:0:0:0:1]|{daemon_name}|MTA|{if_name}|mail.example.com|{if_addr}|::1|",
      "Cv6.test|6\x9c\x40IPv6:2001:db8:0:0:0:0:0:1|",
      "DH",
      "Hh.test|",
      "DMi|ID|{mail_mailer}|esmtp|{mail_host}|c.test|{mail_addr}|a@c.test|",
      "M<a@c.test>|SIZE=9|",
      "DR{rcpt_mailer}|local|{rcpt_host}|d.test|{rcpt_addr}|b@d.test|",
      "R<b@d.test>|",
      "DR{rcpt_mailer}|local|{rcpt_host}|d.test|{rcpt_addr}|e@d.test|",
      "R<e@d.test>|",
      "T",
      "LMessage-ID|<1@c>|",
      "N",
      "BHi\r\n",
      "DE{msg_id}|<1@c>|",
      "E",
      "Q",
    ]);
  });

  test("ABORT only while the message is open for the filter", async () => {
    const { client, filter } = await negotiated("sendmail", script({ M: [packet("a")] }));
    await client.connect();
    await client.envfrom("<a@b>");
    expect(await client.abort()).toEqual({ kind: "none", sent: false });
    await client.envfrom("<a@b>");
    expect(await client.abort()).toEqual({ kind: "none", sent: true });
    expect(filter.letters).toBe("DCDMDMA");
  });

  test("stays connected after a verdict at connect, and ends with QUIT", async () => {
    const { client, filter } = await negotiated("sendmail", script({ C: packet("r") }));
    await client.connect();
    expect(await client.helo("x")).toEqual({ kind: "none", sent: false });
    await client.quit();
    expect(filter.letters).toBe("DCQ");
  });
});

describe("negotiated flags", () => {
  test("NR: no reply is waited for", async () => {
    const { client, filter } = await negotiated("sendmail", ({ code }) => {
      if (code === "O") return optneg(PROTOCOL.NR_HDR | PROTOCOL.NR_BODY);
      return code === "L" || code === "B" ? SILENCE : undefined;
    });
    await client.connect();
    await client.envfrom("<a@b>");
    await client.envrcpt("<c@d>");
    expect(await client.header("A", "1")).toEqual({ kind: "none", sent: true });
    expect(await client.body(Buffer.alloc(65_536))).toEqual({ kind: "none", sent: true });
    expect(filter.commands.filter(({ code }) => code === "B").map(({ payload }) => payload.length)).toEqual([
      65_535, 1,
    ]);
    expect(await client.eom()).toMatchObject({ kind: "continue", modifications: [] });
  });

  test("HDR_LEADSPC keeps the space after the colon, both ways", async () => {
    const added = Buffer.concat([packet("h", "A\0 b\0"), packet("c")]);
    const { client, filter } = await negotiated("sendmail", script({ O: optneg(PROTOCOL.HDR_LEADSPC), E: added }));
    await client.connect();
    await client.envfrom("<a@b>");
    await client.envrcpt("<c@d>");
    await client.header("A", "  1");
    expect(filter.transcript.at(-1)).toBe("LA|  1|");
    expect((await client.eom()).modifications).toEqual([{ kind: "addHeader", name: "A", value: "b" }]);
  });

  test("without it one space goes, and no more", async () => {
    const { client, filter } = await negotiated("sendmail");
    await client.connect();
    await client.envfrom("<a@b>");
    await client.header("A", "  1");
    await client.header("B", "\t1");
    expect(filter.transcript.slice(-2)).toEqual(["LA| 1|", "LB|\t1|"]);
  });

  test("macro lists replace the defaults; an empty one leaves Postfix at them and silences Sendmail", async () => {
    const lists = optneg(0, 0x1ff, [
      [1, "{client_addr} v"],
      [2, ""],
    ]);
    for (const as of ["postfix", "sendmail"] as const) {
      const { client, filter } = await negotiated(as, script({ O: lists }), { macros: {} });
      await client.connect({ address: "192.0.2.7" });
      await client.helo("x");
      await client.envfrom("<a@b>");
      const version = as === "postfix" ? "Postfix 3.10.2" : "8.17.1";
      expect(filter.transcript).toContain(`DH{client_addr}|192.0.2.7|v|${version}|`);
      expect(filter.transcript.some((line) => line.startsWith("DM"))).toBe(as === "postfix");
    }
  });

  test("Sendmail takes a list for EOM only beside one for EOH", async () => {
    const eomOnly = await negotiated("sendmail", script({ O: optneg(0, 0x1ff, [[5, "j"]]) }));
    expect(eomOnly.client.negotiated!.macros.eom).toEqual(["{msg_id}"]);
    const eohOnly = await negotiated("sendmail", script({ O: optneg(0, 0x1ff, [[6, "j"]]) }));
    expect(eohOnly.client.negotiated!.macros.eom).toEqual([]);
    const both = await negotiated(
      "sendmail",
      script({
        O: optneg(0, 0x1ff, [
          [5, "j"],
          [6, "i"],
        ]),
      }),
    );
    expect(both.client.negotiated!.macros).toMatchObject({ eom: ["j"], eoh: ["i"] });
  });

  test("RCPT_REJ: a recipient that the server refuses is sent only then, with the error in its macros", async () => {
    for (const flag of [0, PROTOCOL.RCPT_REJ]) {
      const { client, filter } = await negotiated("postfix", script({ O: optneg(flag) }));
      await client.connect();
      await client.envfrom("<a@b>");
      const reply = await client.envrcpt("<x@d>", [], { status: "5.1.1", text: "User unknown" });
      expect(reply.kind).toBe(flag === 0 ? "none" : "continue");
      const macro = "DR{rcpt_addr}|User unknown|{rcpt_host}|5.1.1|{rcpt_mailer}|error|";
      expect(filter.transcript.includes(macro)).toBe(flag !== 0);
    }
  });
});

describe("macros", () => {
  test("the caller's override, and go where their name belongs if no list has them", async () => {
    const macros = { j: "own", auth_type: "PLAIN", "{verify}": "OK", "{color}": "red" };
    const { client, filter } = await negotiated("sendmail", undefined, { macros });
    await client.connect();
    await client.helo("x");
    await client.envfrom("<a@b>");
    expect(filter.transcript[0]).toBe(
      "DCj|own|_|localhost [127.0.0.1]|{daemon_name}|MTA|{if_name}|mail.example.com|{if_addr}|127.0.0.1|{color}|red|",
    );
    expect(filter.transcript).toContain("DH{verify}|OK|");
    expect(filter.transcript.find((line) => line.startsWith("DM"))).toMatch(/^DMi\|[0-9A-F]+\|\{auth_type\}\|PLAIN\|/);
  });

  test("macro gives those of the next event by hand", async () => {
    const { client, filter } = await negotiated("sendmail");
    client.macro("connect", { i: "Q1" });
    await client.connect();
    client.macro("unknown", {});
    await client.unknown("WHO");
    expect(filter.writes.slice(1)).toEqual(["DC", "DU"]);
    expect(filter.transcript[0]).toBe("DCi|Q1|");
  });
});

describe("eom", () => {
  async function atEom(as: Habit, reply: Uint8Array, answer = optneg()): Promise<Pair> {
    const pair = await negotiated(as, script({ O: answer, E: reply }));
    await pair.client.connect();
    await pair.client.envfrom("<a@b>");
    await pair.client.envrcpt("<c@d>");
    return pair;
  }

  test("collects modifications and counts PROGRESS", async () => {
    const replies = [
      packet("p"),
      packet("i", 0, "A\0b\0"),
      packet("m", 2, "C\0\0"),
      packet("b", "one"),
      packet("b", "two"),
      packet("p"),
      packet("2", "<e@f>\0NOTIFY=NEVER ORCPT=x\0"),
      packet("q", "why\0"),
      packet("y", "451 4.7.1 later\0"),
    ];
    const { client } = await atEom("postfix", Buffer.concat(replies));
    expect(await client.eom()).toMatchObject({
      kind: "replycode",
      code: 451,
      enhanced: "4.7.1",
      lines: ["later"],
      modifications: [
        { kind: "insertHeader", index: 0, name: "A", value: "b" },
        { kind: "deleteHeader", name: "C", index: 2 },
        { kind: "replaceBody", body: "onetwo" },
        { kind: "addRecipient", address: "<e@f>", params: ["NOTIFY=NEVER", "ORCPT=x"] },
        { kind: "quarantine", reason: "why" },
      ],
    });
    expect(client.progress.get("eom")).toBe(2);
  });

  test("the body in two runs: an error with Postfix, taken by Sendmail", async () => {
    const replies = Buffer.concat([packet("b", "1"), packet("p"), packet("b", "2"), packet("a")]);
    const postfix = await atEom("postfix", replies);
    await expect(postfix.client.eom()).rejects.toThrow("second run");
    const sendmail = await atEom("sendmail", replies);
    expect(await sendmail.client.eom()).toMatchObject({ kind: "accept", modifications: [{ body: "12" }] });
  });

  test("refuses a modification whose action was not negotiated", async () => {
    const { client } = await atEom("postfix", Buffer.concat([packet("h", "A\0b\0"), packet("a")]), optneg(0, 2));
    await expect(client.eom()).rejects.toThrow("addHeader without the action ADDHDRS");
  });

  test("sends a last piece of body when told to", async () => {
    const { client, filter } = await atEom("sendmail", packet("c"));
    await client.eom(Buffer.from("rest"));
    expect(filter.transcript.at(-1)).toBe("Erest");
  });
});

describe("refusals", () => {
  const phases = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "unknown"] as const;
  const letters = {
    connect: "C",
    helo: "H",
    envfrom: "M",
    envrcpt: "R",
    data: "T",
    header: "L",
    eoh: "N",
    body: "B",
    eom: "E",
    unknown: "U",
  };
  /**
   * Which phases each server takes the reply in: docs/protocol.md, "Which reply where", UNKNOWN included where it says
   * "avoid".
   */
  const taken: Record<string, Record<Habit, string>> = {
    c: { postfix: "CHMRTLNBEU", sendmail: "CHMRTLNBEU" },
    a: { postfix: "CHMRTLNBEU", sendmail: "CHMRTLNBEU" },
    r: { postfix: "CHMRTLNBEU", sendmail: "CHMRTLNBEU" },
    t: { postfix: "CHMRTLNBEU", sendmail: "CHMRTLNBEU" },
    d: { postfix: "MRTLNBEU", sendmail: "MRTLNBEU" },
    s: { postfix: "RLNB", sendmail: "B" },
    p: { postfix: "CHMRTLNBE", sendmail: "E" },
    h: { postfix: "E", sendmail: "E" },
    O: { postfix: "", sendmail: "" },
  };

  async function reach(client: MilterClient, phase: (typeof phases)[number]): Promise<unknown> {
    const steps = {
      connect: () => client.connect(),
      helo: () => client.helo("x"),
      envfrom: () => client.envfrom("<a@b>"),
      envrcpt: () => client.envrcpt("<a@b>"),
      data: () => client.data(),
      header: () => client.header("A", "1"),
      eoh: () => client.eoh(),
      body: () => client.body(Buffer.from("x")),
      eom: () => client.eom(),
      unknown: () => client.unknown("WHO"),
    };
    for (const before of phases.slice(0, phase === "unknown" ? 1 : phases.indexOf(phase))) await steps[before]();
    return await steps[phase]();
  }

  for (const as of ["postfix", "sendmail"] as const) {
    for (const [code, where] of Object.entries(taken)) {
      test(`${as} takes the reply ${code} where the protocol table says so`, async () => {
        for (const phase of phases) {
          const first = code === "h" ? packet("h", "A\0b\0") : code === "O" ? optneg() : packet(code);
          const reply = code === "h" || code === "p" ? Buffer.concat([first, CONTINUE]) : first;
          const play = script({ O: [optneg(PROTOCOL.SKIP)], [letters[phase]]: reply });
          const { client } = await negotiated(as, play);
          const isTaken = where[as].includes(letters[phase]);
          const result = await reach(client, phase).then(
            () => "taken",
            (error: unknown) => error,
          );
          if (isTaken) expect(result).toBe("taken");
          else expect(result).toBeInstanceOf(ProtocolError);
        }
      });
    }
  }

  test("SKIP that was not negotiated", async () => {
    const { client } = await negotiated("postfix", script({ B: packet("s") }));
    await expect(reach(client, "body")).rejects.toThrow("body: reply skip is not taken here by postfix");
  });

  test("a reply that nothing waits for fails the next call", async () => {
    const { client, filter } = await negotiated("postfix");
    await client.connect();
    filter.reply(CONTINUE);
    await expect(client.helo("x")).rejects.toThrow("reply CONTINUE that nothing waits for");
  });

  test("the same before quit fails quit, once", async () => {
    const { client, filter } = await negotiated("postfix");
    filter.reply(packet("r"));
    await expect(client.quit()).rejects.toThrow("reply REJECT that nothing waits for");
    await client.quit();
  });

  test("two final replies to one command", async () => {
    const { client } = await negotiated("postfix", script({ C: Buffer.concat([CONTINUE, CONTINUE]) }));
    await expect(client.connect()).rejects.toThrow("connect: a further reply (continue) after the final one");
  });

  test("a malformed reply, naming phase and bytes", async () => {
    const { client } = await negotiated("postfix", script({ C: packet("c", "xy") }));
    await expect(client.connect()).rejects.toThrow('connect: reply CONTINUE: 2 bytes too many; payload "xy"');
  });

  test("silence, after the timeout, naming phase and expectation", async () => {
    const { client, filter } = await negotiated("sendmail", script({ C: SILENCE }), { timeoutMs: 5 });
    const error: unknown = await client.connect().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(ConversationError);
    expect(error).toMatchObject({ code: "PMILTER_ERR_TIMEOUT" });
    expect(String(error)).toContain("connect: no reply within 5 ms, expected continue, accept, reject");
    expect(filter.isClosed).toBe(true);
    await expect(client.helo("x")).rejects.toBe(error);
    await client.quit();
  });

  test("a connection closed where a reply is due", async () => {
    const { client } = await negotiated("postfix", ({ code }, filter) => {
      if (code === "C") filter.close();
      return code === "C" ? SILENCE : undefined;
    });
    await expect(client.connect()).rejects.toMatchObject({ code: "PMILTER_ERR_CLOSED" });
  });

  test("a connection closed between events", async () => {
    const { client, filter } = await negotiated("postfix");
    filter.close();
    await Promise.resolve();
    await expect(client.connect()).rejects.toThrow("connect: the filter has closed the connection");
    await client.quit();
  });

  test("replies may come in any split, in a buffer that is used again", async () => {
    const replies = Buffer.concat([packet("i", 0, "A\0b\0"), packet("b", "body"), packet("y", "550 5.7.1 no\0")]);
    const { client, filter } = await negotiated("postfix", ({ code }) => {
      if (code !== "E") return undefined;
      queueMicrotask(() => {
        const one = Buffer.alloc(1);
        for (const byte of replies) {
          one[0] = byte;
          filter.reply(one);
          one[0] = 0xff;
        }
      });
      return SILENCE;
    });
    await client.connect();
    await client.envfrom("<a@b>");
    await client.envrcpt("<c@d>");
    const reply = await client.eom();
    expect(reply).toMatchObject({ kind: "replycode", code: 550, lines: ["no"] });
    expect(reply.modifications).toEqual([
      { kind: "insertHeader", index: 0, name: "A", value: "b" },
      { kind: "replaceBody", body: "body" },
    ]);
  });

  test("events before the negotiation, and calls that overlap", async () => {
    const client = MilterClient.over(new FakeFilter(), { as: "postfix" });
    await expect(client.connect()).rejects.toBeInstanceOf(ClientUsageError);
    await client.negotiate();
    const first = client.connect();
    await expect(client.helo("x")).rejects.toThrow("helo: called before connect was done");
    await first;
  });
});
