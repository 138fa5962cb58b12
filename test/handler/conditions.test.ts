/** The conditions of a filter, `[filter.when]`: what each test says, when it is asked, and what a filter is left out of. */
import { describe, expect, test } from "bun:test";
import { parseConfig } from "../../src/config/load.ts";
import { Chains } from "../../src/handler/chain.ts";
import { ALL_DRAWS, isInScope, tooEarly, type When } from "../../src/handler/conditions.ts";
import { accept, reject } from "../../src/handler/verdict.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { type Phase, PHASE_NAMES } from "../../src/protocol/phases.ts";
import { Conversation } from "../../src/handler/conversation.ts";
import { cmd, NR } from "../protocol/wire.ts";
import { type AnyFilter, chainOf, FakeHost, Line, type Placed, settled } from "./harness.ts";

/** A filter that notes each call of its phases. */
function noting(calls: string[], phases: readonly Phase[], more: Partial<AnyFilter> = {}): AnyFilter {
  const handlers = phases.map((phase) => [phase, () => void calls.push(phase)]);
  return { ...Object.fromEntries(handlers), ...more };
}

const POSTFIX = { v: "Postfix 3.7.11" };

interface Mail {
  readonly helo?: string;
  readonly macros?: Readonly<Record<string, string>>;
  readonly from?: string;
  readonly to?: readonly string[];
}

/** The packets of a message, from MAIL on. */
function mail({ from = "<a@c.test>", macros = {}, to = ["<b@mx.test>"] }: Mail = {}): Buffer[] {
  return [
    cmd.macro("M", macros),
    cmd.mail(from),
    ...to.map((recipient) => cmd.rcpt(recipient)),
    cmd.data(),
    cmd.header(),
    cmd.eoh(),
    cmd.body(),
    cmd.eom(),
  ];
}

/** Whether a filter with these conditions ran at `eom`. */
function ran(
  when: string,
  {
    connect = cmd.connect(),
    helo = "c.test",
    stage = POSTFIX,
    ...rest
  }: Mail & {
    readonly connect?: Buffer;
    readonly stage?: Readonly<Record<string, string>>;
  } = {},
): boolean {
  const calls: string[] = [];
  const line = Line.to([[noting(calls, ["eom"]), { when }]]);
  line.send(cmd.macro("C", stage), connect, ...(helo === "" ? [] : [cmd.helo(helo)]), ...mail(rest));
  expect(line.host.mistakes).toEqual([]);
  return calls.length > 0;
}

describe("clients", () => {
  test.each<[string, string, string, boolean]>([
    ['clients = "192.0.2.0/24"', "c.test", "192.0.2.7", true],
    ['clients = "192.0.3.0/24"', "c.test", "192.0.2.7", false],
    ['not_clients = "192.0.2.0/24"', "c.test", "192.0.2.7", false],
    ['clients = ["c.test"]', "C.Test", "192.0.2.7", true],
    ['clients = ["c.test"]', "mail.c.test", "192.0.2.7", false],
    ['clients = [".c.test"]', "a.mail.c.test", "192.0.2.7", true],
    ['clients = [".c.test"]', "c.test", "192.0.2.7", false],
    ['clients = [".test"]', "evil-c.test.example", "192.0.2.7", false],
    ['clients = ["unknown"]', "unknown", "192.0.2.7", false],
    ['clients = ["203.0.113.0/24", "c.test"]', "c.test", "192.0.2.7", true],
    ['clients = "192.0.0.0/16"\nnot_clients = "192.0.2.7"', "c.test", "192.0.2.7", false],
  ])("%s: %s [%s] %p", (when, hostname, address, expected) => {
    expect(ran(when, { connect: cmd.connect(hostname, address) })).toBe(expected);
  });

  test.each<[Readonly<Record<string, string>>, boolean]>([
    [{ v: "8.18.1", "{client_resolve}": "OK" }, true],
    [{ v: "8.18.1", "{client_resolve}": "FORGED" }, false],
    [{ v: "8.18.1", "{client_resolve}": "FAIL" }, false],
    [{ v: "8.18.1" }, false],
    [{}, false],
    [POSTFIX, true],
  ])("a name counts if it is confirmed: %j %p", (stage, expected) => {
    expect(ran('clients = "c.test"', { stage })).toBe(expected);
    // A name that is not confirmed is no reason to leave the filter out.
    expect(ran('not_clients = "c.test"', { stage })).toBe(!expected);
  });

  test("the macro of Sendmail is asked for if a name counts", () => {
    const asked = (when: string) => chainOf([[noting([], ["eom"]), { when }]]).wants.macros.CONNECT;
    expect(asked('clients = "c.test"')).toContain("{client_resolve}");
    expect(asked('clients = "192.0.2.0/24"')).not.toContain("{client_resolve}");
  });
});

describe("what MAIL and HELO say", () => {
  test.each<[string, Mail, boolean]>([
    ['helos = ".c.test"', { helo: "MX.c.test." }, true],
    ['helos = ".c.test"', { helo: "c.test" }, false],
    ['helos = ["[192.0.2.7]"]', { helo: "[192.0.2.7]" }, true],
    ['helos = ".c.test"', { helo: "" }, false],
    ["tls = true", { macros: { "{tls_version}": "TLSv1.3" } }, true],
    ["tls = true", {}, false],
    ["tls = false", {}, true],
    ["authenticated = false", { macros: { "{auth_authen}": "boss" } }, false],
    ["authenticated = true", { macros: { "{auth_type}": "PLAIN" } }, true],
    ['users = ["boss"]', { macros: { "{auth_authen}": "boss" } }, true],
    ['users = ["boss"]', { macros: { "{auth_authen}": "Boss" } }, false],
    ['users = ["boss"]', {}, false],
    ["tls = false\nauthenticated = true", { macros: { "{auth_authen}": "boss" } }, true],
    ["tls = true\nauthenticated = true", { macros: { "{auth_authen}": "boss" } }, false],
  ])("%s with %j: %p", (when, given, expected) => {
    expect(ran(when, given)).toBe(expected);
  });

  test.each<[string, string, boolean]>([
    ['"example.com"', "<x@EXAMPLE.com>", true],
    ['"example.com"', "<x@mail.example.com>", false],
    ['".example.com"', "<x@mail.example.com>", true],
    ['".example.com"', "<x@example.com>", false],
    ['"müller.example"', "<x@xn--mller-kva.example>", true],
    ['"xn--mller-kva.example"', "<x@MÜLLER.example>", true],
    ['"boss@example.org"', '<"boss"@Example.org.>', true],
    ['"boss@example.org"', "<@relay.test,@b.test:boss@example.org>", true],
    ['"boss@example.org"', "<BOSS@example.org>", true],
    ['"boss@example.org"', "<boss@example.org.evil.test>", false],
    ['"boss@example.org"', "boss@example.org", true],
    ['"example.org"', "<example.org!boss>", true],
    ['"example.org"', "<>", false],
    ['"<>"', "<>", true],
    // Mail servers take these for the null sender.
    ['"<>"', '<"">', true],
    ['"<>"', "< >", true],
    ['"<>"', "<()>", true],
    ['"example.org"', "<x@example.org@>", true],
    ['"example.org"', '<"x@example.org">', true],
    ['"<>"', "<x@example.org>", false],
    ['"example.org"', "<boss>", false],
  ])("senders = %s, MAIL FROM:%s: %p", (pattern, from, expected) => {
    const raw = Buffer.from(from, "utf8").toString("latin1");
    expect(ran(`senders = ${pattern}`, { from: raw })).toBe(expected);
    expect(ran(`not_senders = ${pattern}`, { from: raw })).toBe(!expected);
  });

  test("local is mail that Postfix made a session up for", () => {
    const local = { ...POSTFIX, i: "4Q1" };
    expect(ran("local = true", { stage: local })).toBe(true);
    expect(ran("local = false", { stage: local })).toBe(false);
    expect(ran("local = true")).toBe(false);
    expect(ran("local = false")).toBe(true);
  });
});

describe("when conditions are asked", () => {
  test("a filter that is left out is not called at all: not at abort, close, or an unknown command", () => {
    const calls: string[] = [];
    const line = Line.to([[noting(calls, PHASE_NAMES), { when: 'clients = "198.51.100.0/24"' }]]);
    line.send(cmd.connect(), cmd.helo(), cmd.unknown(), ...mail(), cmd.mail(), cmd.rcpt(), cmd.abort(), cmd.quit());
    expect(calls).toEqual([]);
    const others: string[] = [];
    const taken = Line.to([[noting(others, PHASE_NAMES), { when: 'clients = "192.0.2.0/24"' }]]);
    taken.send(cmd.connect(), cmd.helo(), cmd.unknown(), ...mail(), cmd.mail(), cmd.rcpt(), cmd.abort(), cmd.quit());
    expect([...new Set(others)].toSorted()).toEqual([...PHASE_NAMES].toSorted());
  });

  test("each message is asked anew", () => {
    const calls: string[] = [];
    const line = Line.to([[noting(calls, ["envfrom", "eom", "close"]), { when: 'senders = "one.test"' }]]);
    line.send(cmd.connect(), cmd.helo());
    line.send(...mail({ from: "<x@two.test>" }));
    expect(calls).toEqual([]);
    line.send(...mail({ from: "<x@one.test>" }), ...mail({ from: "<>" }));
    line.send(cmd.mail("<x@two.test>"), cmd.abort(), cmd.mail("<x@one.test>"), cmd.abort(), cmd.quit());
    expect(calls).toEqual(["envfrom", "eom", "envfrom", "close"]);
  });

  test("close is not called for a filter that had no message, and is for one of the connection", () => {
    const calls: string[] = [];
    const line = Line.to([
      [noting(calls, ["envfrom", "close"]), { when: 'senders = "one.test"' }],
      [{ close: () => void calls.push("second close") }, { when: 'helos = "c.test"' }],
      [{ close: () => void calls.push("third close") }, { when: 'helos = "d.test"' }],
    ]);
    line.send(cmd.connect(), cmd.helo(), ...mail(), cmd.quit());
    expect(calls).toEqual(["second close"]);
  });

  test("another HELO, and STARTTLS between two, count from then on", () => {
    const calls: string[] = [];
    const line = Line.to([
      [noting(calls, ["helo", "envfrom"]), { when: 'helos = "second.test"' }],
      [{ eom: () => void calls.push("tls") }, { when: "tls = true" }],
    ]);
    line.send(cmd.connect(), cmd.helo("first.test"), ...mail());
    expect(calls).toEqual([]);
    line.send(cmd.helo("second.test"), ...mail({ macros: { "{tls_version}": "TLSv1.3" } }));
    expect(calls).toEqual(["helo", "envfrom", "tls"]);
    line.send(cmd.helo("first.test"), ...mail());
    expect(calls).toEqual(["helo", "envfrom", "tls"]);
  });

  test("the next session on the connection is another client", () => {
    const calls: string[] = [];
    const line = Line.to([[noting(calls, ["connect", "eom", "close"]), { when: 'clients = "192.0.2.7"' }]]);
    line.send(cmd.connect("a", "192.0.2.8"), cmd.helo(), ...mail(), cmd.quitNc());
    line.send(cmd.connect("a", "192.0.2.7"), cmd.helo(), ...mail(), cmd.quitNc());
    line.send(cmd.connect("a", "192.0.2.8"), cmd.helo(), ...mail(), cmd.quitNc());
    expect(calls).toEqual(["connect", "eom", "close"]);
  });

  test("its body is not collected, and too large a body is no matter of its own", () => {
    const sizes: number[] = [];
    const collect: AnyFilter = { collectBody: true, eom: ({ message }) => void sizes.push(message.body().length) };
    const line = Line.to([[collect, { when: 'senders = "one.test"' }]], { limits: { body: 10 } });
    line.send(cmd.connect(), cmd.helo());
    expect(line.send(cmd.mail("<x@two.test>"), cmd.rcpt(), cmd.body("x".repeat(100)), cmd.eom())).toEqual(["c"]);
    expect(line.conversation.message).toBeNull();
    expect(line.send(cmd.mail("<x@one.test>"), cmd.rcpt(), cmd.body("x".repeat(100)), cmd.eom())[0]).toStartWith(
      "y552 5.3.4",
    );
    line.send(cmd.mail("<x@one.test>"), cmd.rcpt(), cmd.body("xyz"), cmd.eom());
    expect(sizes).toEqual([3]);
    line.send(cmd.mail("<x@two.test>"), cmd.rcpt(), cmd.body("xyz"));
    expect(line.conversation.message!.body()).toHaveLength(0);
  });

  test("it does not keep the acceptance of others from being sent early", () => {
    const early = (when: string) => {
      const line = Line.to([{ envfrom: () => accept() }, [noting([], ["eom"]), { when }]]);
      line.send(cmd.connect(), cmd.helo());
      return line.send(cmd.mail("<x@two.test>"));
    };
    expect(early('senders = "one.test"')).toEqual(["a"]);
    expect(early('senders = "two.test"')).toEqual(["c"]);
    expect(early('clients = "198.51.100.1"')).toEqual(["a"]);
    expect(early('recipients = "one.test"')).toEqual(["c"]);
    const ofConnection = (when: string) => {
      const line = Line.to([{ connect: () => accept() }, [noting([], ["eom"]), { when }]]);
      return line.send(cmd.connect());
    };
    expect(ofConnection('clients = "198.51.100.1"')).toEqual(["a"]);
    // The sender is still to come, and so may another HELO.
    expect(ofConnection('senders = "one.test"')).toEqual(["c"]);
    expect(ofConnection('helos = "d.test"')).toEqual(["c"]);
  });

  test("the mail server sends what conditions read, and no more", () => {
    const protocol = (when: string, filter: AnyFilter = { close() {} }) => chainOf([[filter, { when }]]).wants.protocol;
    const NOMAIL = 0x4;
    const NORCPT = 0x8;
    expect(protocol('clients = "192.0.2.1"') & (NOMAIL | NORCPT)).toBe(NOMAIL | NORCPT);
    expect(protocol('senders = "one.test"') & (NOMAIL | NORCPT)).toBe(NORCPT);
    expect(protocol('recipients = "one.test"') & (NOMAIL | NORCPT)).toBe(0);
    // Only `split` answers recipients.
    expect(protocol('recipients = "one.test"') & NR.envrcpt).toBe(NR.envrcpt);
    expect(protocol('recipients = "one.test"\nrecipients_match = "split"') & NR.envrcpt).toBe(0);
  });
});

describe("recipients", () => {
  const to = ["<a@one.test>", "<b@two.test>", "<c@one.test>"];
  const WHEN = 'recipients = "one.test"';

  /** The recipients at whose `envrcpt` it was called, and the later phases. */
  function called(when: string, recipients: readonly string[], before: readonly Placed[] = []): string[] {
    const calls: string[] = [];
    const filter: AnyFilter = {
      ...noting(calls, ["data", "header", "eoh", "body", "eom"]),
      envrcpt: (_: unknown, recipient: string) => void calls.push(recipient),
    };
    const line = Line.to([...before, [filter, { when }]]);
    line.send(cmd.connect(), cmd.helo(), ...mail({ to: recipients }));
    return calls;
  }
  const CONTENT = ["data", "header", "eoh", "body", "eom"];

  test("envrcpt is called for those that match, later phases as recipients_match says", () => {
    expect(called(WHEN, to)).toEqual(["<a@one.test>", "<c@one.test>", ...CONTENT]);
    expect(called(`${WHEN}\nrecipients_match = "every"`, to)).toEqual(["<a@one.test>", "<c@one.test>"]);
    expect(called(`${WHEN}\nrecipients_match = "every"`, ["<A@One.test>"])).toEqual(["<A@One.test>", ...CONTENT]);
    expect(called(WHEN, ["<b@two.test>"])).toEqual([]);
    expect(called('not_recipients = "one.test"', to)).toEqual(["<b@two.test>", ...CONTENT]);
    expect(called('recipients = [".test", "x@one.test"]\nnot_recipients = "a@one.test"', to)).toEqual(
      ["<b@two.test>", "<c@one.test>", ...CONTENT].filter((call) => call !== "<b@two.test>" || true),
    );
  });

  test("those that another filter refused do not count", () => {
    const refusing: AnyFilter = {
      envrcpt: (_: unknown, recipient: string) => (recipient === "<a@one.test>" ? reject() : undefined),
    };
    expect(called(WHEN, ["<a@one.test>", "<b@two.test>"], [refusing])).toEqual([]);
    expect(called(`${WHEN}\nrecipients_match = "every"`, ["<b@two.test>"], [refusing])).toEqual([]);
    const refusingOther: AnyFilter = {
      envrcpt: (_: unknown, recipient: string) => (recipient === "<b@two.test>" ? reject() : undefined),
    };
    expect(called(`${WHEN}\nrecipients_match = "every"`, to, [refusingOther])).toEqual([
      "<a@one.test>",
      "<c@one.test>",
      ...CONTENT,
    ]);
  });

  test("those that the mail server refused do not count", () => {
    const calls: string[] = [];
    const line = Line.to([[noting(calls, ["eom"]), { when: WHEN }], { envrcpt() {}, rejectedRecipients: true }]);
    line.send(cmd.connect(), cmd.helo(), cmd.mail());
    line.send(cmd.macro("R", { "{rcpt_mailer}": "error" }), cmd.rcpt("<a@one.test>"));
    line.send(cmd.macro("R", { "{rcpt_mailer}": "smtp" }), cmd.rcpt("<b@two.test>"), cmd.data(), cmd.eom());
    expect(calls).toEqual([]);
  });

  test("abort is called for a filter that saw something of the message", () => {
    const calls: string[] = [];
    const line = Line.to([[noting(calls, ["envrcpt", "abort"]), { when: WHEN }]]);
    line.send(cmd.connect(), cmd.helo(), cmd.mail(), cmd.rcpt("<b@two.test>"), cmd.abort());
    expect(calls).toEqual([]);
    line.send(cmd.mail(), cmd.rcpt("<a@one.test>"), cmd.abort());
    expect(calls).toEqual(["envrcpt", "abort"]);
  });
});

describe("split", () => {
  const SPLIT = 'recipients = "one.test"\nrecipients_match = "split"';
  const AGAIN = expect.stringMatching(/^y452 4\.5\.3 /);

  function line(placed: readonly Placed[], macros: Readonly<Record<string, string>> = {}): Line {
    const made = Line.to(placed);
    made.send(cmd.macro("C", POSTFIX), cmd.connect(), cmd.helo(), cmd.macro("M", macros), cmd.mail());
    return made;
  }
  const replies = (made: Line, ...recipients: readonly string[]) =>
    recipients.map((recipient) => made.send(cmd.rcpt(recipient))[0]);

  test("a recipient that is judged otherwise than the first one is to come again", () => {
    const calls: string[] = [];
    const made = line([[noting(calls, ["eom"]), { when: SPLIT }]]);
    expect(replies(made, "<a@one.test>", "<b@two.test>", "<c@one.test>", "<d@three.test>")).toEqual([
      "c",
      AGAIN,
      "c",
      AGAIN,
    ]);
    expect(made.conversation.message!.recipients.map(({ raw }) => raw)).toEqual(["<a@one.test>", "<c@one.test>"]);
    made.send(cmd.data(), cmd.eom());
    expect(calls).toEqual(["eom"]);
    made.send(cmd.mail());
    expect(replies(made, "<b@two.test>", "<a@one.test>", "<d@three.test>")).toEqual(["c", AGAIN, "c"]);
    made.send(cmd.data(), cmd.eom());
    expect(calls).toEqual(["eom"]);
  });

  test("five in a message, then as any", () => {
    const calls: string[] = [];
    const made = line([[noting(calls, ["eom"]), { when: SPLIT }]]);
    const others = [1, 2, 3, 4, 5, 6, 7].map((number) => `<x${number}@two.test>`);
    expect(replies(made, "<a@two.test>", ...others.map((each) => each.replace("two", "one")))).toEqual([
      "c",
      ...new Array(5).fill(AGAIN),
      "c",
      "c",
    ]);
    made.send(cmd.data(), cmd.eom());
    expect(calls).toEqual(["eom"]);
    // The next message has five of its own.
    made.send(cmd.mail());
    expect(replies(made, "<a@one.test>", ...others)).toEqual(["c", ...new Array(5).fill(AGAIN), "c", "c"]);
  });

  test("never for authenticated or local mail", () => {
    const authenticated = line([[noting([], ["eom"]), { when: SPLIT }]], { "{auth_authen}": "boss" });
    expect(replies(authenticated, "<a@one.test>", "<b@two.test>")).toEqual(["c", "c"]);
    const local = Line.to([[noting([], ["eom"]), { when: SPLIT }]]);
    local.send(cmd.macro("C", { ...POSTFIX, i: "4Q1" }), cmd.connect(), cmd.helo(), cmd.mail());
    expect(replies(local, "<a@one.test>", "<b@two.test>")).toEqual(["c", "c"]);
  });

  test("not where its other conditions do not hold, nor by a filter in observe mode or one that has accepted", () => {
    const other = line([[noting([], ["eom"]), { when: `${SPLIT}\nsenders = "one.test"` }]]);
    expect(replies(other, "<a@one.test>", "<b@two.test>")).toEqual(["c", "c"]);
    const observing = line([[noting([], ["eom"]), { when: SPLIT, isObserved: true }], { envrcpt() {} }]);
    expect(replies(observing, "<a@one.test>", "<b@two.test>")).toEqual(["c", "c"]);
    const accepting: AnyFilter = { envrcpt: () => accept(), eom() {} };
    const accepted = line([[accepting, { when: SPLIT }], { eom() {} }]);
    expect(replies(accepted, "<a@one.test>", "<b@two.test>")).toEqual(["c", "c"]);
  });

  test("several filters: whichever judges otherwise", () => {
    const made = line([
      [noting([], ["eom"]), { when: SPLIT }],
      [noting([], ["eom"]), { when: 'recipients = ["one.test", "two.test"]\nrecipients_match = "split"' }],
    ]);
    expect(replies(made, "<a@two.test>", "<b@one.test>", "<c@three.test>", "<d@two.test>")).toEqual([
      "c",
      AGAIN,
      AGAIN,
      "c",
    ]);
    expect(made.verdicts.map(({ filter, recipient }) => [filter, recipient])).toEqual([
      ["filter1", "<b@one.test>"],
      ["filter2", "<c@three.test>"],
    ]);
  });

  test("the first is the first that was accepted, and handlers do not see one that comes again", () => {
    const seen: string[] = [];
    const refusing: AnyFilter = {
      envrcpt: (_: unknown, recipient: string) => {
        seen.push(recipient);
        return recipient === "<a@one.test>" ? reject() : undefined;
      },
    };
    const made = line([refusing, [noting([], ["eom"]), { when: SPLIT }]]);
    expect(replies(made, "<a@one.test>", "<b@two.test>", "<c@one.test>", "<d@two.test>")).toEqual([
      expect.stringMatching(/^r|^y5/),
      "c",
      AGAIN,
      "c",
    ]);
    expect(seen).toEqual(["<a@one.test>", "<b@two.test>", "<d@two.test>"]);
  });

  test("the log names the filter, the condition, and no line of a handler", () => {
    const made = line([[noting([], ["eom"]), { when: SPLIT }]]);
    replies(made, "<a@one.test>", "<b@two.test>");
    expect(made.verdicts).toMatchObject([
      {
        verdict: "tempfail",
        scope: "recipient",
        recipient: "<b@two.test>",
        filter: "filter1",
        phase: "envrcpt",
        reason: "recipients_match",
        site: null,
        isFallback: false,
      },
    ]);
    expect(made.host.counts).toMatchObject({ recipientsRefused: 1 });
  });
});

describe("listeners and share", () => {
  const FIRST = { listener: "inet:127.0.0.1:1", draw: 0 };
  const SECOND = { listener: "inet:127.0.0.1:2", draw: 0 };

  /** All bytes that are sent to the mail server, negotiation included. */
  function wire(filters: readonly Placed[], start: typeof FIRST): string {
    const writer = new ReplyWriter();
    const host = new FakeHost(false);
    const conversation = new Conversation(new Chains(chainOf(filters)).for(start), writer, host);
    for (const packet of [cmd.optneg(), cmd.connect(), cmd.helo(), ...mail()]) {
      conversation.session.push(packet);
      conversation.pump();
    }
    expect(host.mistakes).toEqual([]);
    return Buffer.from(writer.copy()).toString("hex");
  }

  test("where they do not hold, not a byte is sent that would not be without the filter", () => {
    const stamp: AnyFilter = { envfrom() {}, eom: ({ message }) => message.addHeader("X-A", "1") };
    const large: AnyFilter = { ...noting([], PHASE_NAMES), collectBody: true, macros: { helo: ["{verify}"] } };
    const scoped: Placed = [large, { when: 'listeners = "inet:127.0.0.1:1"' }];
    const without = wire([stamp], FIRST);
    for (const order of [
      [stamp, scoped],
      [scoped, stamp],
    ]) {
      expect(wire(order, SECOND)).toBe(without);
      expect(wire(order, FIRST)).not.toBe(without);
    }
    expect(wire([scoped], SECOND)).toBe(wire([], FIRST));
    expect(wire([[large, { when: 'share = "0.001%"' }], stamp], { listener: "", draw: 12345 })).toBe(without);
  });

  test("filters keep their places: changes of others come in their order, and reports name the right one", () => {
    const changing = (name: string): AnyFilter => ({
      name,
      eom: ({ message }) => message.addHeader(name, String(message.headers.length)),
    });
    const chains = new Chains(
      chainOf([
        [changing("A"), { when: 'listeners = "inet:127.0.0.1:1"' }],
        [changing("B"), { when: 'listeners = "inet:127.0.0.1:2"' }],
        changing("C"),
      ]),
    );
    const added = (start: typeof FIRST) => {
      const line = new Line(chains.for(start));
      line.send(cmd.optneg(), cmd.connect(), cmd.helo());
      return line.send(...mail()).filter((reply) => reply.startsWith("h"));
    };
    expect(added(FIRST)).toEqual(["hA\0 1\0", "hC\0 2\0"]);
    expect(added(SECOND)).toEqual(["hB\0 1\0", "hC\0 2\0"]);
    expect(chains.for(SECOND).filters.map(({ index }) => index)).toEqual([1, 2]);
    // One chain for all sessions with the same filters.
    expect(chains.for(SECOND)).toBe(chains.for({ ...SECOND, draw: 99 }));
    expect(new Chains(chainOf([changing("A")])).for(FIRST).filters).toHaveLength(1);
  });

  test("a share is as large as it says, the same for the same session, and independent for each filter", () => {
    const scope = { listeners: null, share: ALL_DRAWS / 10 };
    const sessions = Array.from({ length: 40_000 }, (_, draw) => ({
      listener: null,
      draw: Math.imul(draw, 0x9e3779b1),
    }));
    const taken = (name: string) => sessions.filter((session) => isInScope(scope, name, session));
    const [a, b] = [taken("a"), taken("b")];
    for (const found of [a, b]) expect(Math.abs(found.length - 4000)).toBeLessThan(300);
    expect(taken("a")).toEqual(a);
    const both = a.filter((session) => b.includes(session));
    expect(Math.abs(both.length - 400)).toBeLessThan(100);
    expect(sessions.filter((session) => isInScope({ listeners: null, share: ALL_DRAWS }, "a", session))).toHaveLength(
      40_000,
    );
  });
});

describe("a handler that runs before a condition is known", () => {
  const [filter] = parseConfig('[[filter]]\npath = "a.ts"\n[filter.when]\n', "/etc/pmilter.toml", {}).filters;
  const when = (given: Partial<When>): When => ({ ...filter!.when!, ...given });

  test.each<[Phase[], Partial<When>, { phase: string; key: string; knownAt: string } | null]>([
    [["connect"], { share: 1, listeners: [] }, null],
    [["connect", "unknown"], { local: true }, null],
    [["connect", "eom"], { helos: ["x"] }, { phase: "connect", key: "helos", knownAt: "helo" }],
    [["helo", "eom"], { helos: ["x"] }, null],
    [["helo"], { tls: true }, { phase: "helo", key: "tls", knownAt: "envfrom" }],
    [["unknown"], { notSenders: ["x"] }, { phase: "unknown", key: "not_senders", knownAt: "envfrom" }],
    [["envfrom", "envrcpt"], { users: ["x"] }, null],
    [["envfrom"], { recipients: ["x"] }, { phase: "envfrom", key: "recipients", knownAt: "envrcpt" }],
    [["envrcpt", "eom", "abort", "close"], { recipients: ["x"], senders: ["x"] }, null],
  ])("%j with %j", (phases, given, expected) => {
    expect(tooEarly(phases, when(given))).toEqual(expected as never);
  });
});

test("outcome is told of the messages that the conditions hold for, and of those that the filter was called in", async () => {
  const told: string[] = [];
  const filter: AnyFilter = {
    envrcpt: () => undefined,
    outcome: ({ message }, { verdict }) => void told.push(`${message.sender.address} ${verdict}`),
  };
  const line = Line.to([
    [filter, { when: 'senders = "one.test"\nrecipients = "mx.test"\nrecipients_match = "every"' }],
  ]);
  line.send(cmd.connect());
  for (const [sender, ...recipients] of [
    ["a@one.test", "x@mx.test"],
    ["b@two.test", "x@mx.test"],
    ["c@one.test", "x@other.test"],
    // Called at the first recipient, and left out at the second.
    ["d@one.test", "x@mx.test", "x@other.test"],
  ]) {
    line.send(cmd.mail(`<${sender}>`), ...recipients.map((each) => cmd.rcpt(`<${each}>`)), cmd.eom());
  }
  await settled();
  expect(told).toEqual(["a@one.test accept", "d@one.test accept"]);
});
