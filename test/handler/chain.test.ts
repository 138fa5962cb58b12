/** Several filters as one milter: who sees what, who ends what, what each one's failure costs the others. */
import { describe, expect, test } from "bun:test";
import { accept, discard, reject, skip, tempfail } from "../../src/index.ts";
import type { Phase } from "../../src/protocol/phases.ts";
import { ALL, cmd, NR, SKIP } from "../protocol/wire.ts";
import { type AnyFilter, Line, NO_NR, type Placed } from "./harness.ts";

/** A filter that notes its name and phase at each call; `verdicts` give what it returns. */
function noting(
  log: string[],
  name: string,
  verdicts: Partial<Record<Phase, () => unknown>>,
  also: object = {},
): AnyFilter {
  const filter: Record<string, unknown> = { ...also };
  const phases: Phase[] = [
    "connect",
    "helo",
    "envfrom",
    "envrcpt",
    "data",
    "header",
    "eoh",
    "body",
    "eom",
    "abort",
    "close",
  ];
  for (const phase of phases) {
    filter[phase] = () => {
      log.push(`${name}.${phase}`);
      return verdicts[phase]?.();
    };
  }
  return filter as AnyFilter;
}

const MESSAGE = [cmd.mail(), cmd.rcpt(), cmd.data(), cmd.header(), cmd.eoh(), cmd.body(), cmd.eom()];
const NO_SKIP = NO_NR & ~SKIP;

/** The calls of one filter. */
const of = (log: readonly string[], name: string) =>
  log.filter((entry) => entry.startsWith(`${name}.`)).map((entry) => entry.slice(name.length + 1));

describe("chain, accept", () => {
  test("ends that filter's part of the message, and no other's", () => {
    const log: string[] = [];
    const line = Line.to([noting(log, "a", { envfrom: accept }), noting(log, "b", {})], { protocol: NO_SKIP });
    expect(line.send(cmd.connect(), ...MESSAGE)).toEqual(["c", ..."ccccccc"]);
    expect(of(log, "a")).toEqual(["connect", "envfrom"]);
    expect(of(log, "b")).toEqual(["connect", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"]);
    // The next message is for both again.
    log.length = 0;
    line.send(cmd.mail());
    expect(log).toEqual(["a.envfrom", "b.envfrom"]);
  });

  test("at connect ends that filter's part of the connection, but for its close", () => {
    const log: string[] = [];
    const line = Line.to([noting(log, "a", { connect: accept }), noting(log, "b", {})], { protocol: NO_SKIP });
    line.send(cmd.connect(), cmd.helo(), ...MESSAGE, ...MESSAGE, cmd.mail(), cmd.abort(), cmd.quit());
    expect(of(log, "a")).toEqual(["connect", "close"]);
    expect(of(log, "b")).toContain("abort");
    // After QUIT_NC another session begins: it takes part again.
    const second = Line.to([noting(log, "a", { connect: accept })]);
    second.send(cmd.connect(), cmd.quitNc());
    log.length = 0;
    second.send(cmd.connect());
    expect(log).toEqual(["a.connect"]);
  });

  test("goes over the wire once all filters that have anything left have accepted", () => {
    const a: AnyFilter = { envfrom: accept };
    const b: AnyFilter = { envrcpt: () => accept() };
    const c: AnyFilter = { connect: () => undefined };
    const line = Line.to([a, b, c], { protocol: NO_SKIP });
    expect(line.send(cmd.connect(), cmd.mail())).toEqual(["c", "c"]);
    expect(line.send(cmd.rcpt(), cmd.rcpt())).toEqual(["a", "a"]);
  });

  test("stays off the wire while a filter has changes to send", () => {
    const change: AnyFilter = {
      envfrom: (session) => {
        session.message.addHeader("X", "y");
        return accept();
      },
    };
    const line = Line.to([change, { envfrom: accept }]);
    expect(line.send(cmd.mail(), cmd.eom())).toEqual(["c", "hX\0 y\0", "c"]);
  });

  test.each([
    ["a later phase", { eom: () => undefined }, "c"],
    ["the same phase again", { envrcpt: () => undefined }, "c"],
    ["an abort handler", { abort: () => undefined }, "c"],
    ["only an earlier phase", { envfrom: () => undefined }, "a"],
    ["only a close handler", { close: () => undefined }, "a"],
    ["only unknown, which a message's end does not end", { unknown: () => undefined }, "a"],
  ] as const)("at envrcpt, beside a filter with %s", (_name, other, reply) => {
    const line = Line.to([{ envrcpt: () => accept() }, other as AnyFilter]);
    expect(line.send(cmd.connect(), cmd.mail(), cmd.rcpt()).at(-1)).toBe(reply);
  });

  test("at connect, beside a filter with unknown, stays off the wire", () => {
    expect(Line.to([{ connect: accept }, { unknown: () => undefined }]).send(cmd.connect())).toEqual(["c"]);
    expect(Line.to([{ connect: accept }, { close: () => undefined }]).send(cmd.connect())).toEqual(["a"]);
    expect(Line.to([{ connect: accept }, { connect: () => undefined }]).send(cmd.connect())).toEqual(["a"]);
  });
});

describe("chain, refusals", () => {
  test.each([
    ["reject", reject, "r"],
    ["tempfail", tempfail, "t"],
    ["discard", discard, "d"],
  ] as const)("%s of one filter ends the message for all", (_name, make, letter) => {
    const log: string[] = [];
    const filters = [noting(log, "a", {}), noting(log, "b", { data: make }), noting(log, "c", {})];
    const line = Line.to(filters, { protocol: NO_NR });
    expect(line.send(cmd.mail(), cmd.rcpt(), cmd.data())).toEqual(["c", "c", letter]);
    log.length = 0;
    line.send(cmd.header(), cmd.eoh(), cmd.body(), cmd.eom(), cmd.abort());
    expect(log).toEqual([]);
    line.send(cmd.mail());
    expect(log).toEqual(["a.envfrom", "b.envfrom", "c.envfrom"]);
  });

  test("the filters before the one that refuses have run, those behind it have not", () => {
    const log: string[] = [];
    const line = Line.to([noting(log, "a", {}), noting(log, "b", { envfrom: reject }), noting(log, "c", {})]);
    line.send(cmd.mail());
    expect(log).toEqual(["a.envfrom", "b.envfrom"]);
  });

  test("a refusal at connect ends the connection for all; close still runs", () => {
    const log: string[] = [];
    const line = Line.to([noting(log, "a", {}), noting(log, "b", { connect: reject })]);
    expect(line.send(cmd.connect(), cmd.helo(), cmd.mail())).toEqual(["r", "r", "r"]);
    line.send(cmd.quit());
    expect(log).toEqual(["a.connect", "b.connect", "a.close", "b.close"]);
  });

  test("changes of all filters are dropped with a refused message", () => {
    const change: AnyFilter = { eom: (session) => session.message.addHeader("X", "y") };
    for (const [make, letter] of [
      [reject, "r"],
      [discard, "d"],
    ] as const) {
      expect(Line.to([change, { eom: () => make() }]).send(cmd.mail(), cmd.eom())).toEqual([letter]);
    }
  });
});

describe("chain, recipients", () => {
  test("reject and tempfail are for the recipient at hand", () => {
    const seen: string[][] = [];
    const line = Line.to([
      {
        envrcpt: (session, recipient) => {
          seen.push(session.message.recipients.map((one) => one.raw));
          if (recipient.startsWith("<x")) return reject("550 5.1.1 No");
          return recipient.startsWith("<t") ? tempfail() : undefined;
        },
        data: (session) => void seen.push(session.message.recipients.map((one) => one.raw)),
      },
    ]);
    const replies = line.send(
      cmd.mail(),
      cmd.rcpt("<x@a>"),
      cmd.rcpt("<b@a>"),
      cmd.rcpt("<t@a>"),
      cmd.rcpt("<c@a>"),
      cmd.data(),
    );
    expect(replies).toEqual(["y550 5.1.1 No\0", "c", "t", "c", "c"]);
    expect(seen).toEqual([["<x@a>"], ["<b@a>"], ["<b@a>", "<t@a>"], ["<b@a>", "<c@a>"], ["<b@a>", "<c@a>"]]);
  });

  test("a refused recipient is not shown to the filters behind", () => {
    const log: string[] = [];
    Line.to([{ envrcpt: () => reject() }, noting(log, "b", {})]).send(cmd.mail(), cmd.rcpt());
    expect(of(log, "b")).toEqual(["envfrom"]);
  });

  test("discard ends the message, accept the filter's part of it", () => {
    expect(Line.to([{ envrcpt: () => discard() }]).send(cmd.mail(), cmd.rcpt(), cmd.rcpt(), cmd.eom())).toEqual([
      "d",
      "d",
      "d",
    ]);
    let calls = 0;
    const counting: AnyFilter = {
      envrcpt: () => {
        calls += 1;
        return accept();
      },
      eom: () => undefined,
    };
    expect(Line.to([counting, { eom: () => undefined }]).send(cmd.mail(), cmd.rcpt(), cmd.rcpt(), cmd.eom())).toEqual([
      "c",
      "c",
      "c",
    ]);
    expect(calls).toBe(1);
  });
});

describe("chain, recipients that the mail server rejects itself", () => {
  const REJECTED = cmd.macro("R", { "{rcpt_mailer}": "error", "{rcpt_host}": "5.1.1", "{rcpt_addr}": "no" });
  const ACCEPTED = cmd.macro("R", { "{rcpt_mailer}": "local" });

  test("are shown only to filters that asked for them, and are no recipients of the message", () => {
    const log: string[] = [];
    const asking: AnyFilter = {
      rejectedRecipients: true,
      envrcpt: (session, recipient) => void log.push(`a ${recipient} of ${session.message.recipients.length}`),
    };
    const other: AnyFilter = {
      envrcpt: (_session, recipient) => void log.push(`b ${recipient}`),
      eom: (session) => void log.push(`b has ${session.message.recipients.length}`),
    };
    const line = Line.to([asking, other]);
    line.send(cmd.mail(), REJECTED, cmd.rcpt("<x>"), ACCEPTED, cmd.rcpt("<b>"), cmd.eom());
    expect(log).toEqual(["a <x> of 1", "a <b> of 1", "b <b>", "b has 1"]);
  });

  test.each([
    ["accept", accept],
    ["discard", discard],
    ["reject", reject],
    ["tempfail", tempfail],
  ] as const)("what is returned for them changes nothing: %s", (_name, make) => {
    const seen: string[] = [];
    const line = Line.to([
      {
        rejectedRecipients: true,
        envrcpt: (_session, recipient) => {
          seen.push(recipient);
          return recipient === "<x>" ? make() : undefined;
        },
        eom: () => void seen.push("eom"),
      },
    ]);
    expect(line.send(cmd.mail(), REJECTED, cmd.rcpt("<x>"), ACCEPTED, cmd.rcpt("<b>"), cmd.eom())).toEqual([
      "c",
      "c",
      "c",
    ]);
    expect(seen).toEqual(["<x>", "<b>", "eom"]);
  });
});

describe("chain, Postfix's simulated sessions", () => {
  const SIMULATED = cmd.macro("C", { i: "Q1", v: "Postfix 3.10.2" });

  test.each([
    ["reject", () => reject("550 5.1.1 No"), "y550 5.1.1 No\0"],
    ["tempfail", () => tempfail(), "t"],
  ] as const)("%s of a recipient is given for the message at eom", (_name, make, reply) => {
    let calls = 0;
    const filter: AnyFilter = {
      envrcpt: () => {
        calls += 1;
        return make();
      },
    };
    const line = Line.to([filter]);
    expect(line.send(SIMULATED, cmd.connect(), cmd.mail("a@c"), cmd.rcpt("b"), cmd.rcpt("c"))).toEqual(["c", "c"]);
    expect(line.send(cmd.eom())).toEqual([reply]);
    expect(calls).toBe(1);
    expect(line.verdicts).toMatchObject([{ scope: "message", phase: "envrcpt" }]);
  });

  test("a fallback at envrcpt goes the same way", () => {
    const line = Line.to([
      {
        envrcpt: () => {
          throw new Error("broken");
        },
      },
    ]);
    expect(line.send(SIMULATED, cmd.connect(), cmd.mail("a"), cmd.rcpt("b"), cmd.eom())).toEqual(["c", "t"]);
  });

  test.each([
    ["a queue id of Sendmail", { i: "Q1", v: "8.17.1" }],
    ["a queue id without a version", { i: "Q1" }],
    ["Postfix without a queue id", { v: "Postfix 3.10.2" }],
  ])("%s is no simulated session", (_name, macros) => {
    const line = Line.to([{ envrcpt: () => reject() }]);
    expect(line.send(cmd.macro("C", macros as Record<string, string>), cmd.connect(), cmd.mail(), cmd.rcpt())).toEqual([
      "r",
    ]);
  });

  test("the session after it on the same connection is none", () => {
    const line = Line.to([{ envrcpt: () => reject() }]);
    line.send(SIMULATED, cmd.connect(), cmd.quitNc());
    expect(line.send(cmd.macro("C", { v: "Postfix 3.10.2" }), cmd.connect(), cmd.mail(), cmd.rcpt())).toEqual(["r"]);
  });
});

describe("chain, skip", () => {
  /** Of all events only BODY and the end of the message are answered. */
  const BODY_ANSWERED = ALL & ~NR.body;
  const counting = (log: string[], name: string, give: () => unknown): AnyFilter =>
    ({
      body: () => {
        log.push(name);
        return give();
      },
    }) as AnyFilter;

  test("of the only filter is answered with SKIP", () => {
    const log: string[] = [];
    const line = Line.to([counting(log, "a", skip)], { protocol: BODY_ANSWERED });
    expect(line.send(cmd.mail(), cmd.body())).toEqual(["s"]);
    // A mail server that sends on is answered, and the filter is left alone.
    expect(line.send(cmd.body(), cmd.eom())).toEqual(["s", "c"]);
    expect(log).toEqual(["a"]);
    line.send(cmd.mail(), cmd.body());
    expect(log).toEqual(["a", "a"]);
  });

  test("of one of two filters leaves the chunks to the other", () => {
    const log: string[] = [];
    let chunks = 0;
    const line = Line.to([counting(log, "a", skip), counting(log, "b", () => (++chunks < 3 ? undefined : skip()))], {
      protocol: BODY_ANSWERED,
    });
    expect(line.send(cmd.mail(), cmd.body(), cmd.body(), cmd.body())).toEqual(["c", "c", "s"]);
    expect(log).toEqual(["a", "b", "b", "b"]);
  });

  test("is not answered where the mail server did not grant it, nor while a body is collected", () => {
    const log: string[] = [];
    expect(
      Line.to([counting(log, "a", skip)], { protocol: BODY_ANSWERED & ~SKIP }).send(cmd.mail(), cmd.body()),
    ).toEqual(["c"]);
    const collecting: AnyFilter = { collectBody: true, eom: () => undefined };
    expect(
      Line.to([counting(log, "a", skip), collecting], { protocol: BODY_ANSWERED }).send(cmd.mail(), cmd.body()),
    ).toEqual(["c"]);
  });

  test("in the last piece, which comes with the end, changes nothing", () => {
    const log: string[] = [];
    expect(Line.to([counting(log, "a", skip)], { protocol: BODY_ANSWERED }).send(cmd.mail(), cmd.eom("x"))).toEqual([
      "c",
    ]);
    expect(log).toEqual(["a"]);
  });
});

describe("chain, failures", () => {
  const adding = (name: string): AnyFilter => ({ envfrom: (session) => session.message.addHeader(name, "1") });
  const failing: AnyFilter = {
    envfrom: (session) => session.message.addHeader("X-Failed", "1"),
    eom: (session) => {
      session.message.addHeader("X-Failed", "2");
      throw new Error("broken");
    },
  };

  test.each(["continue", "accept"] as const)(
    "drop the changes of the filter that failed, not the others': %s",
    (onError) => {
      const filters: Placed[] = [adding("X-A"), [failing, { onError }], adding("X-B")];
      expect(Line.to(filters).send(cmd.mail(), cmd.eom())).toEqual(["c", "hX-A\0 1\0", "hX-B\0 1\0", "c"]);
    },
  );

  test("continue ignores the failed call alone: the filter's later changes count", () => {
    let calls = 0;
    const filter: AnyFilter = {
      envfrom: (session) => {
        session.message.addHeader("X", "early");
        throw new Error("broken");
      },
      eom: (session) => {
        calls += 1;
        session.message.addHeader("X", "late");
      },
    };
    expect(Line.to([[filter, { onError: "continue" }]]).send(cmd.mail(), cmd.eom())).toEqual(["c", "hX\0 late\0", "c"]);
    expect(calls).toBe(1);
  });

  test("each filter has its own fallbacks, and the first that refuses decides", () => {
    const broken: AnyFilter = {
      envfrom: () => {
        throw new Error("broken");
      },
    };
    const line = Line.to([
      [broken, { onError: "continue" }],
      [broken, { onError: "reject" }],
      [broken, { onError: "tempfail" }],
    ]);
    expect(line.send(cmd.mail())).toEqual(["r"]);
    expect(line.failures.map((failure) => [failure.filter, failure.fallback])).toEqual([
      ["filter1", "continue"],
      ["filter2", "reject"],
    ]);
  });

  test("a later filter sees the message without the changes of one that failed", () => {
    let seen: string[] = [];
    const reading: AnyFilter = {
      eom: (session) => void (seen = [...session.message.headers].map((header) => header.name)),
    };
    Line.to([[failing, { onError: "continue" }], reading]).send(cmd.mail(), cmd.header("A"), cmd.eom());
    expect(seen).toEqual(["A"]);
  });
});

describe("chain, observe mode", () => {
  test("logs verdicts and applies none", () => {
    for (const [phase, make] of [
      ["connect", reject],
      ["helo", tempfail],
      ["envfrom", discard],
      ["envrcpt", reject],
      ["data", reject],
      ["header", reject],
      ["eoh", discard],
      ["body", tempfail],
      ["eom", reject],
    ] as const) {
      const line = Line.to([[{ [phase]: () => make() } as AnyFilter, { isObserved: true }], { eom: () => undefined }], {
        protocol: NO_SKIP,
      });
      const replies = line.send(cmd.connect(), cmd.helo(), ...MESSAGE);
      expect(replies.filter((reply) => reply !== "c")).toEqual([]);
      expect(line.verdicts).toMatchObject([{ isObserved: true, phase, filter: "filter1", verdict: make().kind }]);
    }
  });

  test("what a verdict would have ended is over for that filter", () => {
    const log: string[] = [];
    const line = Line.to([[noting(log, "a", { envfrom: reject }), { isObserved: true }], noting(log, "b", {})]);
    line.send(cmd.mail(), cmd.rcpt(), cmd.data(), cmd.eom());
    expect(of(log, "a")).toEqual(["envfrom"]);
    expect(of(log, "b")).toContain("eom");
  });

  test("changes are logged, shown to the filter itself, and neither sent nor shown to others", () => {
    const seen: string[] = [];
    const observed: AnyFilter = {
      eom: (session) => {
        session.message.addHeader("X", "1");
        session.message.quarantine("why");
        seen.push(`a ${session.message.headers.get("X")}`);
      },
    };
    const other: AnyFilter = { eom: (session) => void seen.push(`b ${session.message.headers.get("X")}`) };
    const line = Line.to([[observed, { isObserved: true }], other]);
    expect(line.send(cmd.mail(), cmd.eom())).toEqual(["c"]);
    expect(seen).toEqual(["a 1", "b undefined"]);
    expect(line.verdicts).toMatchObject([{ isObserved: true, changes: 2, verdict: "quarantine", reason: "why" }]);
  });

  test("changes are logged also if all filters have accepted before the end", () => {
    const observed: AnyFilter = {
      envfrom: (session) => {
        session.message.addHeader("X", "1");
        return accept();
      },
    };
    const line = Line.to([[observed, { isObserved: true }]]);
    line.send(cmd.mail());
    line.send(cmd.rcpt(), cmd.eom());
    expect(line.verdicts).toMatchObject([{ isObserved: true, changes: 1 }]);
  });

  test("a failure is logged with its fallback, which is not applied", () => {
    const broken: AnyFilter = {
      envfrom: () => {
        throw new Error("broken");
      },
    };
    const line = Line.to([[broken, { isObserved: true, onError: "reject" }]]);
    expect(line.send(cmd.mail())).toEqual(["c"]);
    expect(line.failures).toMatchObject([{ cause: "error", fallback: "reject" }]);
  });
});

describe("chain, what belongs to a filter", () => {
  test("state is one object per session and filter, empty at connect", () => {
    const seen: unknown[] = [];
    const make = (name: string): AnyFilter => ({
      connect: (session) => {
        seen.push({ ...session.state });
        session.state["who"] = name;
      },
      eom: (session) => void seen.push(session.state["who"]),
    });
    const line = Line.to([make("a"), make("b")]);
    line.send(cmd.connect(), cmd.mail(), cmd.eom(), cmd.mail(), cmd.eom(), cmd.quitNc(), cmd.connect());
    expect(seen).toEqual([{}, {}, "a", "b", "a", "b", {}, {}]);
  });

  test("state of an UNKNOWN before CONNECT does not reach connect", () => {
    const seen: unknown[] = [];
    const filter: AnyFilter = {
      unknown: (session) => void (session.state["left"] = 1),
      connect: (session) => void seen.push({ ...session.state }),
    };
    Line.to([filter]).send(cmd.connect(), cmd.quitNc(), cmd.unknown(), cmd.connect());
    expect(seen).toEqual([{}, {}]);
  });

  test("options are those of its place", () => {
    const seen: unknown[] = [];
    const filter: AnyFilter = { connect: (session) => void seen.push(session.options) };
    Line.to([
      [filter, { options: { a: 1 } }],
      [filter, { options: { b: 2 } }],
    ]).send(cmd.connect());
    expect(seen).toEqual([{ a: 1 }, { b: 2 }]);
  });

  test("`this` in a handler is the filter", () => {
    const filter = {
      name: "own",
      limit: undefined,
      connect(this: { name: string }) {
        return reject(`550 ${this.name}`);
      },
    };
    const { limit: _, ...rest } = filter;
    expect(Line.to([rest as AnyFilter]).send(cmd.connect())).toEqual(["y550 5.7.1 own\0"]);
  });
});

describe("chain, messages", () => {
  test("abort runs once for an open message, and not for one that is over", () => {
    const log: string[] = [];
    const line = Line.to([noting(log, "a", {})]);
    line.send(cmd.connect(), cmd.mail(), cmd.abort(), cmd.abort(), cmd.mail(), cmd.eom(), cmd.abort());
    expect(log.filter((entry) => entry === "a.abort")).toHaveLength(1);
  });

  test("a lost connection aborts the open message and closes the session, once", () => {
    const log: string[] = [];
    const line = Line.to([noting(log, "a", {})]);
    line.send(cmd.connect(), cmd.mail());
    log.length = 0;
    line.hangUp();
    line.hangUp();
    expect(log).toEqual(["a.abort", "a.close"]);
    expect(line.conversation.isOver).toBe(true);
  });

  test("a HELO, a MAIL and a CONNECT within a message end it", () => {
    for (const [sent, calls] of [
      [cmd.helo(), ["a.abort", "a.helo"]],
      [cmd.mail(), ["a.abort", "a.envfrom"]],
      [cmd.connect(), ["a.abort", "a.close", "a.connect"]],
    ] as const) {
      const log: string[] = [];
      const line = Line.to([noting(log, "a", {})]);
      line.send(cmd.connect(), cmd.mail());
      log.length = 0;
      expect(line.send(sent)).toEqual(["c"]);
      expect(log).toEqual([...calls]);
    }
  });

  test("without MAIL there is a message with a sender that was not sent", () => {
    const seen: unknown[] = [];
    const line = Line.to([{ eom: (session) => void seen.push(session.message.sender) }]);
    expect(line.send(cmd.header("A", " 1"), cmd.eom())).toEqual(["c"]);
    expect(seen).toEqual([{ raw: "", address: "", local: "", domain: "", mailbox: "", params: [] }]);
  });

  test("reports of messages that pass are given if they are wanted, with what was changed", () => {
    const filter: AnyFilter = { eom: (session) => session.message.addHeader("X", "1") };
    const wanted = Line.to([filter], { reportsAccepted: true });
    wanted.send(cmd.connect(), cmd.mail(), cmd.rcpt(), cmd.eom());
    expect(wanted.verdicts).toMatchObject([
      {
        verdict: "accept",
        sender: "<a@c.test>",
        recipients: ["<b@mx.test>"],
        client: "c.test [192.0.2.7]",
        changes: 1,
      },
    ]);
    const unwanted = Line.to([filter], { protocol: ALL });
    unwanted.send(cmd.connect(), cmd.mail(), cmd.eom());
    expect(unwanted.verdicts).toEqual([]);
  });
});
