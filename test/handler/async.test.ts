/** Handlers that are awaited: order, time limits by a clock that the test moves, progress, and what comes too late. */
import { describe, expect, test } from "bun:test";
import { accept, reject } from "../../src/index.ts";
import { ALL, cmd } from "../protocol/wire.ts";
import { type AnyFilter, HANDLER_TIMEOUT_MS, Line, NO_NR, settled } from "./harness.ts";

/** A handler's promise in the hands of the test. */
function held(): {
  handler: () => Promise<unknown>;
  resolve: (value?: unknown) => void;
  reject: (error: unknown) => void;
  calls: number;
} {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const one = { calls: 0, resolve, reject, handler: () => ((one.calls += 1), promise) };
  return one;
}

const at = (phase: string, handler: () => unknown, also: object = {}): AnyFilter =>
  ({ [phase]: handler, ...also }) as AnyFilter;

describe("Conversation, awaited handlers", () => {
  test("nothing further is taken until the handler settles; then all of it, in order", async () => {
    const wait = held();
    const log: string[] = [];
    const line = Line.to([
      {
        envfrom: async () => {
          log.push("from");
          await wait.handler();
          log.push("from done");
        },
        envrcpt: (_session, recipient) => void log.push(recipient),
        eom: () => void log.push("eom"),
      },
    ]);
    expect(line.send(cmd.mail(), cmd.rcpt("<1>"), cmd.rcpt("<2>"), cmd.eom())).toEqual([]);
    await settled();
    expect(log).toEqual(["from"]);
    expect(line.conversation.isWaiting).toBe(true);
    wait.resolve();
    await settled();
    expect(line.replies()).toEqual(["c", "c", "c", "c"]);
    expect(log).toEqual(["from", "from done", "<1>", "<2>", "eom"]);
    expect(line.host.timers).toEqual([]);
  });

  test("the filters of a phase run one after the other", async () => {
    const [first, second] = [held(), held()];
    const line = Line.to([at("envfrom", first.handler), at("envfrom", second.handler)]);
    line.send(cmd.mail());
    await settled();
    expect([first.calls, second.calls]).toEqual([1, 0]);
    first.resolve();
    await settled();
    expect([second.calls, line.replies()]).toEqual([1, []]);
    second.resolve(reject());
    await settled();
    expect(line.replies()).toEqual(["r"]);
  });

  test("commands cut anywhere while a handler is awaited are taken whole afterwards", async () => {
    const wait = held();
    const names: string[] = [];
    const line = Line.to([
      at("envfrom", wait.handler, { header: (_: unknown, name: string) => void names.push(name) }),
    ]);
    line.send(cmd.mail());
    const rest = Buffer.concat([cmd.header("One", "x"), cmd.header("Two", "y"), cmd.eom()]);
    for (const byte of rest) line.send(Buffer.of(byte));
    wait.resolve();
    await settled();
    expect(line.replies()).toEqual(["c", "c"]);
    expect(names).toEqual(["One", "Two"]);
  });

  test("a thenable counts as a promise", async () => {
    // oxlint-disable-next-line unicorn/no-thenable -- that is what it is about
    const line = Line.to([at("envfrom", () => ({ then: (resolve: (value: unknown) => void) => resolve(reject()) }))]);
    const replies = line.send(cmd.mail(), cmd.rcpt());
    await settled();
    expect([...replies, ...line.replies()]).toEqual(["r", "r"]);
  });

  test("changes made after the first await count", async () => {
    const line = Line.to([
      {
        eom: async (session) => {
          await Promise.resolve();
          session.message.addHeader("X", "1");
        },
      },
    ]);
    line.send(cmd.mail(), cmd.eom());
    await settled();
    expect(line.replies()).toEqual(["hX\0 1\0", "c"]);
  });
});

describe("Conversation, time limits", () => {
  test.each([
    ["envfrom", HANDLER_TIMEOUT_MS, cmd.mail()],
    ["eom", 240_000, cmd.eom()],
  ] as const)("%s has its time to the millisecond", (phase, ms, sent) => {
    const line = Line.to([at(phase, held().handler)]);
    line.send(cmd.connect(), sent);
    line.host.advance(ms - 1);
    expect(line.replies().filter((reply) => reply !== "p")).toEqual([]);
    line.host.advance(1);
    expect(line.replies().filter((reply) => reply !== "p")).toEqual(["t"]);
    expect(line.failures).toMatchObject([{ cause: "timeout", phase, fallback: "tempfail" }]);
  });

  test("the time is the whole chain's: what one filter used the next has not", async () => {
    const first = held();
    const second = held();
    const line = Line.to([at("envfrom", first.handler), [at("envfrom", second.handler), { onTimeout: "reject" }]]);
    line.send(cmd.mail());
    line.host.advance(5000);
    first.resolve();
    await settled();
    line.host.advance(2999);
    expect(line.replies()).toEqual([]);
    line.host.advance(1);
    expect(line.replies()).toEqual(["r"]);
    expect(line.failures).toMatchObject([{ filter: "filter2", cause: "timeout" }]);
  });

  test("each phase has its time anew", async () => {
    const waits = [held(), held()];
    let call = 0;
    const line = Line.to([at("envrcpt", () => waits[call++]!.handler())]);
    line.send(cmd.mail(), cmd.rcpt(), cmd.rcpt());
    line.host.advance(7000);
    waits[0]!.resolve();
    await settled();
    expect(line.replies()).toEqual(["c"]);
    line.host.advance(7999);
    expect(line.replies()).toEqual([]);
    line.host.advance(1);
    expect(line.replies()).toEqual(["t"]);
  });

  test("a filter's own limit may shorten its time and never lengthens it", () => {
    const short = Line.to([[at("envfrom", held().handler), { timeoutMs: 500 }]]);
    short.send(cmd.mail());
    short.host.advance(499);
    expect(short.replies()).toEqual([]);
    short.host.advance(1);
    expect(short.replies()).toEqual(["t"]);
    const long = Line.to([[at("envfrom", held().handler), { timeoutMs: 60_000 }]]);
    long.send(cmd.mail());
    long.host.advance(HANDLER_TIMEOUT_MS);
    expect(long.replies()).toEqual(["t"]);
  });

  test("after a timeout that continues, the next filter runs with what is left", async () => {
    const second = held();
    const line = Line.to([
      [at("envfrom", held().handler), { timeoutMs: 1000, onTimeout: "continue" }],
      at("envfrom", second.handler),
    ]);
    line.send(cmd.mail());
    line.host.advance(1000);
    expect(second.calls).toBe(1);
    second.resolve();
    await settled();
    expect(line.replies()).toEqual(["c"]);
  });

  test("a handler that settles in time leaves no timer", async () => {
    const wait = held();
    const line = Line.to([at("eom", wait.handler)]);
    line.send(cmd.mail(), cmd.eom());
    expect(line.host.timers.length).toBeGreaterThan(0);
    wait.resolve();
    await settled();
    expect(line.host.timers).toEqual([]);
  });

  test("a handler that does not wait costs no timer", () => {
    const line = Line.to([at("eom", () => undefined)]);
    line.send(cmd.connect(), cmd.mail(), cmd.eom());
    expect(line.host.timers).toEqual([]);
  });
});

describe("Conversation, progress", () => {
  test("is sent at eom every 3 s until the handlers are through", async () => {
    const wait = held();
    const second = held();
    const line = Line.to([at("eom", wait.handler), at("eom", second.handler)]);
    line.send(cmd.mail(), cmd.eom());
    line.host.advance(2999);
    expect(line.replies()).toEqual([]);
    line.host.advance(1);
    expect(line.replies()).toEqual(["p"]);
    line.host.advance(9000);
    expect(line.replies()).toEqual(["p", "p", "p"]);
    // It goes on, in the same rhythm, while the second filter works.
    line.host.advance(1500);
    wait.resolve();
    await settled();
    line.host.advance(1500);
    expect(line.replies()).toEqual(["p"]);
    second.resolve();
    await settled();
    expect(line.replies()).toEqual(["c"]);
    line.host.advance(60_000);
    expect(line.replies()).toEqual([]);
  });

  test("leaves at once, by a flush of its own", () => {
    const line = Line.to([at("eom", held().handler)]);
    line.send(cmd.mail(), cmd.eom());
    line.replies();
    let isFlushed = false;
    line.host.flush = () => {
      isFlushed = true;
    };
    line.host.advance(3000);
    expect(isFlushed).toBe(true);
  });

  test.each([
    ["connect", [cmd.connect()]],
    ["helo", [cmd.helo()]],
    ["envfrom", [cmd.mail()]],
    ["envrcpt", [cmd.mail(), cmd.rcpt()]],
    ["data", [cmd.mail(), cmd.data()]],
    ["header", [cmd.mail(), cmd.header()]],
    ["eoh", [cmd.mail(), cmd.eoh()]],
    ["body", [cmd.mail(), cmd.body()]],
    ["unknown", [cmd.unknown()]],
    ["abort", [cmd.mail(), cmd.abort()]],
    ["close", [cmd.connect(), cmd.quit()]],
  ] as const)("is never sent at %s", (phase, sent) => {
    for (const protocol of [ALL, NO_NR]) {
      const line = Line.to([at(phase, held().handler)], { protocol });
      line.send(...sent);
      expect(line.conversation.isWaiting).toBe(true);
      line.replies();
      line.host.advance(HANDLER_TIMEOUT_MS - 1);
      expect(line.replies()).toEqual([]);
    }
  });

  test("is sent also for a piece of body that came with the end: the mail server waits for both", async () => {
    const body = held();
    const line = Line.to([{ body: body.handler as never, eom: held().handler as never }]);
    line.send(cmd.mail(), cmd.eom("x"));
    line.host.advance(7000);
    expect(line.replies()).toEqual(["p", "p"]);
    body.resolve();
    await settled();
    line.host.advance(3000);
    expect(line.replies()).toEqual(["p"]);
  });

  test("is not sent to servers older than it", () => {
    for (const [version, actions, expected] of [
      [2, 0x1f, 0],
      [2, 0x3f, 3],
      [4, 0x1f, 0],
      [6, 0x1f, 3],
    ] as const) {
      const line = Line.to([at("eom", held().handler)], { version, actions, protocol: 0x7f });
      line.send(cmd.mail(), cmd.eom());
      line.replies();
      line.host.advance(9500);
      expect(line.replies()).toHaveLength(expected);
    }
  });
});

describe("Conversation, what comes too late", () => {
  test("a verdict after the time is over changes nothing and is not reported", async () => {
    const wait = held();
    const line = Line.to([[at("envfrom", wait.handler, { eom: () => undefined }), { onTimeout: "continue" }]]);
    line.send(cmd.mail());
    line.host.advance(HANDLER_TIMEOUT_MS);
    expect(line.replies()).toEqual(["c"]);
    wait.resolve(reject());
    await settled();
    expect(line.send(cmd.eom())).toEqual(["c"]);
    expect(line.failures).toHaveLength(1);
  });

  test("a rejection after the time is over is reported as late, and changes nothing", async () => {
    const wait = held();
    const line = Line.to([at("envfrom", wait.handler)]);
    line.send(cmd.mail());
    line.host.advance(HANDLER_TIMEOUT_MS);
    expect(line.replies()).toEqual(["t"]);
    wait.reject(new Error("much too late"));
    await settled();
    expect(line.replies()).toEqual([]);
    expect(line.failures).toMatchObject([
      { cause: "timeout", fallback: "tempfail" },
      { cause: "late", fallback: "none", phase: "envfrom", filter: "filter1", message: "Error: much too late" },
    ]);
    expect(line.send(cmd.mail())).toEqual([]);
  });

  test("a handler that settles during the next wait does not end that", async () => {
    const waits = [held(), held()];
    let call = 0;
    const line = Line.to([[at("envrcpt", () => waits[call++]!.handler()), { onTimeout: "continue" }]]);
    line.send(cmd.mail(), cmd.rcpt(), cmd.rcpt());
    line.host.advance(HANDLER_TIMEOUT_MS);
    expect(line.replies()).toEqual(["c"]);
    waits[0]!.resolve(reject());
    await settled();
    expect(line.replies()).toEqual([]);
    waits[1]!.resolve();
    await settled();
    expect(line.replies()).toEqual(["c"]);
  });

  test("a message kept past its end cannot change the next one", async () => {
    const wait = held();
    const codes: string[] = [];
    let calls = 0;
    const line = Line.to([
      [
        {
          eom: async (session) => {
            if (calls++ > 0) return;
            const { message } = session;
            message.addHeader("X-Early", "1");
            await wait.handler();
            for (const change of [
              () => message.addHeader("X-Late", "1"),
              () => message.insertHeader(0, "X-Late", "1"),
              () => message.changeHeader("Subject", "late"),
              () => message.deleteHeader("Subject"),
              () => message.changeFrom("late@a"),
              () => message.addRecipient("late@a"),
              () => message.deleteRecipient("b@mx.test"),
              () => message.replaceBody("late"),
              () => message.quarantine("late"),
            ]) {
              try {
                change();
                codes.push("none");
              } catch (error) {
                codes.push((error as { code: string }).code);
              }
            }
            codes.push(message.sender.raw, message.headers.get("Subject") ?? "-");
          },
          header: () => undefined,
        },
        { onTimeout: "tempfail" },
      ],
    ]);
    line.send(cmd.mail("<first>"), cmd.header("Subject", " one"), cmd.eom());
    line.host.advance(240_000);
    line.replies();
    line.send(cmd.mail("<second>"), cmd.header("Subject", " two"));
    wait.resolve();
    await settled();
    // What was received can still be read; nothing can be changed.
    expect(codes).toEqual([...Array.from({ length: 9 }, () => "PMILTER_ERR_OVER"), "<first>", "one"]);
    line.send(cmd.eom());
    await settled();
    expect(line.replies()).toEqual(["c"]);
  });

  test("after accept the message cannot be changed any more, and what was changed stays", async () => {
    const kept: { change: () => void }[] = [];
    const line = Line.to([
      {
        envfrom: (session) => {
          session.message.addHeader("X", "1");
          kept.push({ change: () => session.message.addHeader("X", "2") });
          return accept();
        },
      },
      { eom: () => undefined },
    ]);
    line.send(cmd.mail());
    expect(() => kept[0]!.change()).toThrow("over for this filter");
    expect(line.send(cmd.eom())).toEqual(["hX\0 1\0", "c"]);
  });
});

describe("Conversation, a connection lost while a handler is awaited", () => {
  test("aborts the message and closes the session; the handler's end changes nothing", async () => {
    const wait = held();
    const log: string[] = [];
    const line = Line.to([
      at("eom", wait.handler, { abort: () => void log.push("abort"), close: () => void log.push("close") }),
    ]);
    line.send(cmd.connect(), cmd.mail(), cmd.eom());
    line.replies();
    line.hangUp();
    expect(log).toEqual(["abort", "close"]);
    expect([line.conversation.isOver, line.host.timers]).toEqual([true, []]);
    wait.resolve(reject());
    await settled();
    expect([line.replies(), log, line.failures]).toEqual([[], ["abort", "close"], []]);
  });

  test("a rejection afterwards is reported as late", async () => {
    const wait = held();
    const line = Line.to([at("envfrom", wait.handler)]);
    line.send(cmd.mail());
    line.hangUp();
    wait.reject(new Error("nobody there"));
    await settled();
    expect(line.failures).toMatchObject([{ cause: "late", message: "Error: nobody there" }]);
  });

  test("abort and close handlers are awaited one after the other", async () => {
    const [abort, close] = [held(), held()];
    const line = Line.to([{ abort: abort.handler as never, close: close.handler as never }]);
    line.send(cmd.connect(), cmd.mail());
    line.hangUp();
    expect([abort.calls, close.calls, line.conversation.isOver]).toEqual([1, 0, false]);
    abort.resolve();
    await settled();
    expect([abort.calls, close.calls, line.conversation.isOver]).toEqual([1, 1, false]);
    close.resolve();
    await settled();
    expect(line.conversation.isOver).toBe(true);
  });

  test("an abort handler that is awaited does not run again", async () => {
    const abort = held();
    const log: string[] = [];
    const line = Line.to([at("abort", abort.handler, { close: () => void log.push("close") })]);
    line.send(cmd.connect(), cmd.mail(), cmd.abort());
    expect(abort.calls).toBe(1);
    line.hangUp();
    abort.resolve();
    await settled();
    expect([abort.calls, log]).toEqual([1, ["close"]]);
  });

  test("a close handler that is awaited does not run again", async () => {
    const close = held();
    const line = Line.to([at("close", close.handler)]);
    line.send(cmd.connect(), cmd.quit());
    line.hangUp();
    close.resolve();
    await settled();
    expect(close.calls).toBe(1);
  });
});

describe("Conversation, content handlers that are still to run when the end has come", () => {
  const slow = (log: string[]) => {
    const waits: ReturnType<typeof held>[] = [];
    const header = (_: unknown, name: string) => {
      log.push(name);
      waits.push(held());
      return waits.at(-1)!.handler();
    };
    return { filter: at("header", header as never, { eom: () => void log.push("eom") }), waits };
  };

  test("the mail server gets progress while they run, and the verdict at the end", async () => {
    const log: string[] = [];
    const { filter, waits } = slow(log);
    const line = Line.to([filter]);
    line.send(cmd.mail(), cmd.header("A", "1"));
    line.host.advance(4000);
    expect(line.replies()).toEqual([]);
    line.send(cmd.header("B", "2"), cmd.eom());
    line.host.advance(3500);
    expect(line.replies()).toEqual(["p"]);
    waits[0]!.resolve();
    await settled();
    // Settled within three seconds of the last one: progress goes on all the same.
    line.host.advance(2600);
    expect(line.replies()).toEqual(["p"]);
    waits[1]!.resolve(reject());
    await settled();
    expect(line.replies()).toEqual(["r"]);
    expect(log).toEqual(["A", "B"]);
    expect(line.host.timers).toEqual([]);
  });

  test("all of them together have the time of eom, counted from when the end was read", async () => {
    const log: string[] = [];
    const { filter, waits } = slow(log);
    const line = Line.to([filter]);
    line.send(cmd.mail(), ...Array.from({ length: 60 }, (_, index) => cmd.header(`H${index}`, "1")), cmd.eom());
    for (let time = 0; time < 239_000; time += 5000) {
      line.host.advance(Math.min(5000, 239_000 - time));
      waits.at(-1)!.resolve();
      await settled();
    }
    expect(line.replies().filter((reply) => reply !== "p")).toEqual([]);
    line.host.advance(1000);
    await settled();
    expect(line.replies().filter((reply) => reply !== "p")).toEqual(["t"]);
    expect(line.failures).toMatchObject([{ cause: "timeout", phase: "header", fallback: "tempfail" }]);
    expect(log).toHaveLength(49);
  });

  test("what was sent in one read with its end is no different", () => {
    const line = Line.to([at("header", held().handler)]);
    line.send(Buffer.concat([cmd.mail(), cmd.header(), cmd.eom()]));
    line.host.advance(7000);
    expect(line.replies()).toEqual(["p", "p"]);
    line.host.advance(1000);
    expect(line.replies()).toEqual(["t"]);
  });

  test("a backlog whose end is not known, since reading is paused, has the time of one phase in all", async () => {
    const log: string[] = [];
    const { filter, waits } = slow(log);
    const line = Line.to([filter]);
    line.send(cmd.mail(), cmd.header("A", "1"));
    line.host.advance(5000);
    line.isPaused = true;
    line.send(cmd.header("B", "2"), cmd.header("C", "3"));
    line.host.advance(2000);
    waits[0]!.resolve();
    await settled();
    line.host.advance(5999);
    expect(line.failures).toEqual([]);
    line.host.advance(1);
    expect(line.failures).toMatchObject([{ cause: "timeout", phase: "header", fallback: "tempfail" }]);
    expect(line.send(cmd.eom())).toEqual(["t"]);
    expect(log).toEqual(["A", "B"]);
  });

  test("a backlog whose end is known has the time of eom and sends progress, though reading is paused", async () => {
    const log: string[] = [];
    const { filter, waits } = slow(log);
    const line = Line.to([filter]);
    line.isPaused = true;
    line.send(cmd.mail(), cmd.header("A", "1"));
    line.host.advance(5000);
    line.send(Buffer.concat([cmd.header("B", "2"), cmd.header("C", "3"), cmd.eom()]));
    for (const wait of [0, 1, 2]) {
      line.host.advance(wait === 0 ? 2000 : 7000);
      waits[wait]!.resolve();
      await settled();
    }
    expect(line.replies()).toEqual(["p", "p", "p", "p", "p", "c"]);
    expect([log, line.failures]).toEqual([["A", "B", "C", "eom"], []]);
  });

  test("the end of a message says nothing of the next one, which came in the same read", async () => {
    const log: string[] = [];
    const { filter, waits } = slow(log);
    const line = Line.to([filter]);
    line.send(Buffer.concat([cmd.mail(), cmd.header("A", "1"), cmd.eom(), cmd.mail(), cmd.header("B", "2")]));
    waits[0]!.resolve();
    await settled();
    expect(line.replies()).toEqual(["c"]);
    line.host.advance(7999);
    expect(line.replies()).toEqual([]);
    expect(log).toEqual(["A", "eom", "B"]);
  });

  test("once a backlog was caught up, each phase has its own time again", async () => {
    const log: string[] = [];
    const { filter, waits } = slow(log);
    const line = Line.to([filter]);
    line.isPaused = true;
    line.send(cmd.mail(), cmd.header("A", "1"));
    line.host.advance(7000);
    waits[0]!.resolve();
    await settled();
    line.isPaused = false;
    line.conversation.caughtUp();
    line.send(cmd.header("B", "2"));
    line.host.advance(7999);
    expect(line.failures).toEqual([]);
    line.host.advance(1);
    expect(line.failures).toHaveLength(1);
  });

  test("where each of them is answered, the mail server waits for each alone", () => {
    const line = Line.to([at("header", held().handler)], { protocol: NO_NR });
    expect(line.send(Buffer.concat([cmd.mail(), cmd.header(), cmd.eom()]))).toEqual(["c"]);
    line.host.advance(7000);
    expect(line.replies()).toEqual([]);
  });

  test("abort handlers run if the message is given up before its end has its reply", async () => {
    const log: string[] = [];
    const wait = held();
    const line = Line.to([
      at("header", wait.handler as never, { abort: () => void log.push("abort"), eom: () => void log.push("eom") }),
    ]);
    line.send(cmd.mail(), cmd.header(), cmd.abort(), cmd.mail());
    wait.resolve(reject());
    await settled();
    expect(log).toEqual(["abort"]);
    expect(line.replies()).toEqual([]);
  });

  test("abort handlers run if the message is given up after its verdict was found, and nobody is told of that", () => {
    const log: string[] = [];
    const line = Line.to([at("header", () => reject(), { abort: () => void log.push("abort") })]);
    line.send(cmd.mail());
    line.replies();
    expect(line.send(cmd.header(), cmd.abort(), cmd.abort())).toEqual([]);
    expect([log, line.verdicts, line.host.counts]).toEqual([["abort"], [], {}]);
  });

  test("abort handlers run if the connection is lost while they are, with the end unread behind them", async () => {
    const log: string[] = [];
    const wait = held();
    const line = Line.to([
      at("header", wait.handler as never, { abort: () => void log.push("abort"), eom: () => void log.push("eom") }),
    ]);
    line.send(cmd.mail(), cmd.header(), cmd.eom());
    line.hangUp();
    wait.resolve(reject());
    await settled();
    expect([log, line.host.timers]).toEqual([["abort"], []]);
  });

  test("an ABORT that was sent behind the end comes after its reply: the message is over, and no abort handler runs", async () => {
    const log: string[] = [];
    const wait = held();
    const line = Line.to([at("header", wait.handler as never, { abort: () => void log.push("abort") })]);
    line.send(cmd.mail());
    line.replies();
    expect(line.send(cmd.header(), cmd.eom(), cmd.abort())).toEqual([]);
    wait.resolve(reject());
    await settled();
    expect([line.replies(), log]).toEqual([["r"], []]);
  });

  test("what they have used of the time of eom its own handlers have not, progress or no", async () => {
    const log: string[] = [];
    const { filter, waits } = slow(log);
    const line = Line.to([{ ...filter, eom: held().handler as never }]);
    line.send(cmd.mail(), ...Array.from({ length: 20 }, (_, index) => cmd.header(`H${index}`, "1")), cmd.eom());
    for (let call = 0; call < 20; call++) {
      line.host.advance(5000);
      waits.at(-1)!.resolve();
      await settled();
    }
    expect(log).toHaveLength(20);
    line.host.advance(139_999);
    expect(line.failures).toEqual([]);
    line.host.advance(1);
    expect(line.failures).toMatchObject([{ cause: "timeout", phase: "eom", fallback: "tempfail" }]);
    expect(line.replies().at(-1)).toBe("t");
  });

  test("a filter's own limit rules for each of them all the same", () => {
    const line = Line.to([[at("header", held().handler), { timeoutMs: 500, onTimeout: "reject" }]]);
    line.send(cmd.mail());
    line.replies();
    line.send(Buffer.concat([cmd.header(), cmd.eom()]));
    line.host.advance(500);
    expect(line.replies()).toEqual(["r"]);
  });
});
