/** `outcome`: what became of a message, told once, after its end, whatever the end was. */
import { describe, expect, test } from "bun:test";
import { accept, defineFilter, discard, type MessageOutcome, reject, tempfail, UsageError } from "../../src/index.ts";
import { runFilter } from "../../src/testing/index.ts";
import { ALL, cmd } from "../protocol/wire.ts";
import { type AnyFilter, HANDLER_TIMEOUT_MS, Line, NO_NR, type Placed, settled } from "./harness.ts";

const BEGIN = [cmd.connect(), cmd.helo("c.test"), cmd.macro("M", { i: "4ZB1" }), cmd.mail("<a@c.test>")];
const REST = [cmd.rcpt("<b@mx.test>"), cmd.header("Subject", "hi"), cmd.eom()];

/** A filter that notes what it is told. */
function told(also: AnyFilter = {}) {
  const outcomes: MessageOutcome[] = [];
  const filter: AnyFilter = { ...also, outcome: (_session, outcome) => void outcomes.push(outcome) };
  return { filter, outcomes };
}

/** What a filter is told of a message, with these filters behind it. */
async function outcomesOf(filters: readonly Placed[], ...packets: readonly Uint8Array[]): Promise<MessageOutcome[]> {
  const { filter, outcomes } = told();
  const line = Line.to([filter, ...filters]);
  line.send(...packets);
  await settled();
  expect(line.host.mistakes).toEqual([]);
  return outcomes;
}

describe("outcome tells", () => {
  test("of a message that all let pass", async () => {
    expect(await outcomesOf([], ...BEGIN, ...REST)).toEqual([
      {
        verdict: "accept",
        reply: null,
        filter: null,
        recipients: [{ address: "b@mx.test", verdict: "accept" }],
        changes: 0,
      },
    ]);
  });

  test("of changes, and of a quarantine with its filter", async () => {
    const changes: AnyFilter = {
      eom({ message }) {
        message.addHeader("X-A", "1");
        message.addRecipient("<more@mx.test>");
      },
    };
    const [changed] = await outcomesOf([changes], ...BEGIN, ...REST);
    expect(changed).toMatchObject({ verdict: "accept", changes: 2, filter: null });
    const [held] = await outcomesOf([{ eom: ({ message }) => message.quarantine("x") }], ...BEGIN, ...REST);
    expect(held).toMatchObject({ verdict: "quarantine", filter: "filter2", changes: 1 });
    expect(held!.recipients).toEqual([{ address: "b@mx.test", verdict: "quarantine" }]);
  });

  test.each([
    ["reject", () => reject("550 5.7.1 No"), { code: 550, enhanced: "5.7.1", lines: ["No"] }],
    ["tempfail", () => tempfail(), null],
    ["discard", () => discard(), null],
  ] as const)("of a %s, at each phase, with its reply and filter", async (verdict, give, reply) => {
    for (const phase of ["envfrom", "data", "header", "eoh", "body", "eom"] as const) {
      const filter = { [phase]: give } as AnyFilter;
      const packets = [...BEGIN, cmd.rcpt("<b@mx.test>"), cmd.data(), cmd.header(), cmd.eoh(), cmd.body(), cmd.eom()];
      expect(await outcomesOf([filter], ...packets)).toEqual([
        {
          verdict,
          reply: reply as MessageOutcome["reply"],
          filter: "filter2",
          recipients: phase === "envfrom" ? [] : [{ address: "b@mx.test", verdict }],
          changes: 0,
        },
      ]);
    }
  });

  test("of each recipient what became of it, in the order of RCPT", async () => {
    const filter: AnyFilter = {
      envrcpt(_session, recipient) {
        if (recipient.includes("never")) return reject("550 5.1.1 No");
        return recipient.includes("later") ? tempfail() : undefined;
      },
    };
    const packets = ["<never1@x>", "<a@x>", "<later@x>", "<b@x>", "<never2@x>"].map((each) => cmd.rcpt(each));
    const [accepted] = await outcomesOf([filter], ...BEGIN, ...packets, cmd.eom());
    expect(accepted!.recipients.map(({ address, verdict }) => `${address} ${verdict}`)).toEqual([
      "never1@x reject",
      "a@x accept",
      "later@x tempfail",
      "b@x accept",
      "never2@x reject",
    ]);
    const [refused] = await outcomesOf([{ ...filter, eom: () => tempfail() }], ...BEGIN, ...packets, cmd.eom());
    expect(refused!.recipients.map(({ verdict }) => verdict).join(" ")).toBe(
      "reject tempfail tempfail tempfail reject",
    );
    const [aborted] = await outcomesOf([filter], ...BEGIN, ...packets, cmd.abort());
    expect(aborted!.recipients.map(({ verdict }) => verdict).join(" ")).toBe("reject aborted tempfail aborted reject");
  });

  test("of a recipient's refusals only so many", async () => {
    const packets = Array.from({ length: 1500 }, (_, index) => cmd.rcpt(`<r${index}@x>`));
    const [outcome] = await outcomesOf([{ envrcpt: () => reject() }], ...BEGIN, Buffer.concat(packets), cmd.abort());
    expect(outcome!.recipients).toHaveLength(1000);
  });

  test("of a message that was aborted: by ABORT, by the next one, by QUIT, by a lost connection", async () => {
    for (const end of [cmd.abort(), cmd.mail("<next@c.test>"), cmd.quit(), cmd.quitNc()]) {
      expect((await outcomesOf([], ...BEGIN, end))[0]).toMatchObject({ verdict: "aborted", filter: null, reply: null });
    }
    const { filter, outcomes } = told();
    const line = Line.to([filter]);
    line.send(...BEGIN);
    line.hangUp();
    await settled();
    expect(outcomes.map(({ verdict }) => verdict)).toEqual(["aborted"]);
  });

  test("of a message that a handler is awaited for when the connection goes", async () => {
    const { filter, outcomes } = told({ eom: () => new Promise(() => undefined) });
    const line = Line.to([filter]);
    line.send(...BEGIN, ...REST);
    await settled();
    expect(outcomes).toEqual([]);
    line.hangUp();
    await settled();
    expect(outcomes.map(({ verdict }) => verdict)).toEqual(["aborted"]);
  });

  test("of a fallback, and of a limit", async () => {
    const fails = (): never => {
      throw new Error("no");
    };
    expect((await outcomesOf([{ eom: fails }], ...BEGIN, ...REST))[0]).toMatchObject({
      verdict: "tempfail",
      filter: "filter2",
    });
    const { filter, outcomes } = told();
    const line = Line.to([filter], { limits: { recipients: 1 } });
    line.send(...BEGIN, cmd.rcpt("<a@x>"), cmd.rcpt("<b@x>"), cmd.data(), cmd.eom());
    await settled();
    expect(outcomes).toMatchObject([{ verdict: "tempfail", filter: null }]);
  });

  test("nothing of a connection that was refused, nor before MAIL", async () => {
    expect(await outcomesOf([{ connect: () => reject() }], ...BEGIN, ...REST)).toEqual([]);
    expect(await outcomesOf([{ helo: () => reject() }], ...BEGIN, ...REST)).toEqual([]);
    expect(await outcomesOf([], cmd.connect(), cmd.helo(), cmd.abort(), cmd.quit())).toEqual([]);
  });

  test("each filter that asks, once for each message", async () => {
    const [a, b] = [told(), told()];
    const line = Line.to([a.filter, [b.filter, { isObserved: true }]]);
    line.send(...BEGIN, ...REST, cmd.mail(), cmd.abort(), cmd.mail(), ...REST, cmd.quit());
    await settled();
    expect([a, b].map(({ outcomes }) => outcomes.map(({ verdict }) => verdict))).toEqual([
      ["accept", "aborted", "accept"],
      ["accept", "aborted", "accept"],
    ]);
    expect(Object.isFrozen(a.outcomes[0]) && Object.isFrozen(a.outcomes[0]!.recipients)).toBe(true);
  });

  test("nothing of what an observing filter would have done", async () => {
    expect((await outcomesOf([[{ eom: () => reject() }, { isObserved: true }]], ...BEGIN, ...REST))[0]).toMatchObject({
      verdict: "accept",
      filter: null,
    });
  });
});

describe("a filter with outcome", () => {
  test("keeps the chain from accepting early, also once it has accepted itself", async () => {
    const { filter, outcomes } = told({ envfrom: () => accept() });
    const line = Line.to([filter, { envfrom: () => accept() }], { protocol: NO_NR });
    expect(line.send(cmd.connect(), cmd.mail())).not.toContain("a");
    line.send(...REST);
    await settled();
    expect(outcomes).toMatchObject([{ verdict: "accept", recipients: [{ address: "b@mx.test" }] }]);
    // The connection itself was accepted by it: its part is over.
    const left = told({ connect: () => accept() });
    const over = Line.to([left.filter], { protocol: NO_NR });
    expect(over.send(cmd.connect())).toEqual(["a"]);
    over.send(cmd.mail(), ...REST);
    await settled();
    expect(left.outcomes).toEqual([]);
  });

  test("and nothing else is sent what it reads, without a reply", () => {
    const line = Line.to([told().filter]);
    const { protocol } = line.conversation.session.options;
    // NOHELO, NOMAIL, NORCPT, NOHDRS are not asked for; NOBODY, NOEOH, NODATA, NOUNKNOWN are.
    expect(protocol & 0x2f & ~0x1).toBe(0);
    expect(protocol & 0x350).toBe(0x350);
    expect(ALL & protocol).toBe(protocol);
  });
});

describe("the session in outcome", () => {
  test("has the values of the message's end, while the next message runs", async () => {
    const seen: unknown[] = [];
    const release = Promise.withResolvers<void>();
    const filter = defineFilter({
      state: () => ({ messages: 0 }),
      messageState: () => ({ number: 0 }),
      envfrom(session) {
        session.state.messages += 1;
        session.message.state.number = session.state.messages;
        session.message.results.set("number", session.state.messages);
      },
      eom(session) {
        session.message.changeHeader("Subject", `changed ${session.message.state.number}`);
      },
      async outcome(session, { verdict }) {
        await release.promise;
        const { auth, client, helo, isLocal, message, phase, queueId, state, trial } = session;
        seen.push({
          verdict,
          phase,
          queueId,
          helo,
          auth: auth.authen,
          hostname: client.hostname,
          isLocal,
          trial,
          sender: message.sender.address,
          to: message.recipients.map(({ address }) => address),
          subject: message.headers.get("Subject"),
          number: message.state.number,
          result: message.results.get("number"),
          messages: state.messages,
        });
      },
    });
    const line = Line.to([filter]);
    line.send(cmd.macro("C", { j: "mx.test" }), cmd.connect("c.test", "192.0.2.7"), cmd.helo("first.test"));
    line.send(cmd.macro("M", { i: "ONE", "{auth_authen}": "boss" }), cmd.mail("<1@c.test>"), ...REST);
    line.send(cmd.macro("M", { i: "TWO" }), cmd.mail("<2@c.test>"), cmd.rcpt("<x@mx.test>"));
    release.resolve();
    await settled();
    const one = {
      verdict: "accept",
      phase: "outcome",
      queueId: "ONE",
      helo: "first.test",
      auth: "boss",
      hostname: "c.test",
      isLocal: false,
      trial: false,
      sender: "1@c.test",
      to: ["b@mx.test"],
      subject: "changed 1",
      number: 1,
      result: 1,
      // Of the session, which goes on.
      messages: 2,
    };
    expect(seen).toEqual([one]);
    line.send(cmd.helo("second.test"), cmd.quit());
    await settled();
    expect(seen[1]).toMatchObject({ verdict: "aborted", queueId: "TWO", auth: "", number: 2, subject: undefined });
  });

  test("changes nothing: it throws, and the next message is as it was", async () => {
    const errors: unknown[] = [];
    const filter: AnyFilter = {
      collectBody: true,
      eom: () => undefined,
      outcome(session) {
        const message = session.message as unknown as Record<string, (...args: unknown[]) => unknown>;
        const results = session.message.results as unknown as { set(name: string, value: number): void };
        for (const change of [
          () => message["addHeader"]!("X-A", "1"),
          () => message["addRecipient"]!("<x@y.test>"),
          () => message["body"]!(),
          () => results.set("a", 1),
        ]) {
          try {
            change();
          } catch (error) {
            errors.push(error instanceof UsageError ? error.code : error);
          }
        }
      },
    };
    const line = Line.to([filter]);
    line.send(...BEGIN, ...REST);
    await settled();
    expect(errors).toEqual(["PMILTER_ERR_OVER", "PMILTER_ERR_OVER", "PMILTER_ERR_NOT_HERE", "PMILTER_ERR_OVER"]);
    expect(line.send(cmd.mail(), cmd.rcpt(), cmd.eom())).toEqual(["c"]);
  });

  test("shows no changes of a message that was refused", async () => {
    const subjects: unknown[] = [];
    const filter: AnyFilter = {
      eoh: ({ message }) => message.changeHeader("Subject", "changed"),
      eom: () => reject(),
      outcome: ({ message }) => void subjects.push(message.headers.get("Subject")),
    };
    Line.to([filter]).send(...BEGIN, ...REST);
    await settled();
    expect(subjects).toEqual(["hi"]);
  });

  test("logs with the values of its message", async () => {
    const filter: AnyFilter = { outcome: (session, { verdict }) => void session.log(verdict) };
    const line = Line.to([filter]);
    line.send(...BEGIN, ...REST, cmd.macro("M", { i: "NEXT" }), cmd.mail());
    await settled();
    expect(line.host.reports).toMatchObject([
      { kind: "note", text: "accept", queueId: "4ZB1", phase: "outcome", filter: "filter1", isKept: true },
    ]);
  });
});

describe("a call of outcome", () => {
  test("comes after the reply", async () => {
    const order: string[] = [];
    const line = Line.to([{ outcome: () => void order.push("outcome") }]);
    order.push(...line.send(...BEGIN, ...REST));
    await settled();
    expect(order).toEqual(["c", "outcome"]);
  });

  test("that fails is logged, and changes nothing: not for the mail server, nor for another filter", async () => {
    const { filter, outcomes } = told();
    const fails = (): never => {
      throw new Error("no");
    };
    const line = Line.to([{ outcome: fails }, { outcome: () => Promise.reject(new Error("later")) }, filter]);
    expect(line.send(...BEGIN, ...REST)).toEqual(["c"]);
    await settled();
    expect(line.failures).toMatchObject([
      { cause: "error", phase: "outcome", filter: "filter1", message: "Error: no", fallback: "none", queueId: "4ZB1" },
      { cause: "error", phase: "outcome", filter: "filter2", message: "Error: later", fallback: "none" },
    ]);
    expect(line.host.counts).toMatchObject({ messages: 1, accepted: 1 });
    expect(outcomes).toHaveLength(1);
  });

  test("that is too slow is given up: its signal says so, and what comes later is late", async () => {
    const reasons: string[] = [];
    const wait = Promise.withResolvers<void>();
    const filter: AnyFilter = {
      async outcome({ signal }) {
        signal.addEventListener("abort", () => reasons.push((signal.reason as Error).name));
        await wait.promise;
        throw new Error("late");
      },
    };
    const line = Line.to([[filter, { timeoutMs: 2000 }]]);
    line.send(...BEGIN, ...REST);
    await settled();
    line.host.advance(1999);
    expect(reasons).toEqual([]);
    line.host.advance(1);
    expect(reasons).toEqual(["TimeoutError"]);
    wait.resolve();
    await settled();
    expect(line.failures.map(({ cause, message }) => `${cause} ${message}`)).toEqual([
      "timeout Error: not settled after 2 s",
      "late Error: late",
    ]);
    await line.host.outcomes.finish(0);
  });

  test("that returns a verdict, or makes one, decides nothing", async () => {
    const line = Line.to([{ outcome: (() => reject()) as unknown as () => void }]);
    expect(line.send(...BEGIN, ...REST)).toEqual(["c"]);
    await settled();
    expect(line.host.reports).toEqual([]);
    expect(line.send(cmd.mail(), ...REST)).toEqual(["c"]);
  });

  test("is waited for at the end of its worker, for a while, and then given up", async () => {
    const reasons: string[] = [];
    const wait = Promise.withResolvers<void>();
    let isThrough = false;
    const filter: AnyFilter = {
      async outcome({ signal }) {
        signal.addEventListener("abort", () => reasons.push((signal.reason as Error).message));
        await wait.promise;
        isThrough = true;
      },
    };
    const line = Line.to([filter]);
    line.send(...BEGIN, ...REST);
    const ended = line.host.outcomes.finish(60_000);
    await settled();
    wait.resolve();
    await ended;
    expect([isThrough, reasons]).toEqual([true, []]);
    const stuck = Line.to([
      {
        ...filter,
        outcome: ({ signal }) => (
          signal.addEventListener("abort", () => reasons.push((signal.reason as Error).message)),
          new Promise(() => undefined)
        ),
      },
    ]);
    stuck.send(...BEGIN, ...REST);
    await settled();
    await stuck.host.outcomes.finish(1);
    expect(reasons).toEqual(["the worker ends"]);
  });

  test("is not made where too many are running, which is logged", async () => {
    const filter: AnyFilter = { outcome: () => new Promise(() => undefined) };
    const line = Line.to([filter]);
    line.send(cmd.connect());
    for (let message = 0; message < 1001; message++) line.send(cmd.mail(), cmd.eom());
    await settled();
    expect(line.failures).toMatchObject([{ cause: "limit", phase: "outcome", filter: "filter1" }]);
    line.host.advance(HANDLER_TIMEOUT_MS);
    expect(line.failures).toHaveLength(1001);
    await line.host.outcomes.finish(0);
  });

  test("is awaited by runFilter before stop()", async () => {
    const order: string[] = [];
    const filter = defineFilter({
      start: () => ({ isOpen: true }),
      async outcome(session, { verdict, recipients }) {
        await Promise.resolve();
        order.push(`${verdict} ${recipients.length} ${session.own.isOpen}`);
      },
      stop: (own) => {
        own.isOpen = false;
        order.push("stop");
      },
    });
    const { failures } = await runFilter(filter, { eml: "Subject: x\n\n", to: ["a@b.test", "c@d.test"] });
    expect([failures, order]).toEqual([[], ["accept 2 true", "stop"]]);
  });
});
