/** `session.signal`: when nothing waits for a call any more, and never otherwise. */
import { describe, expect, test } from "bun:test";
import { runFilter } from "../../src/testing/index.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, HANDLER_TIMEOUT_MS, Line, NO_NR, settled } from "./harness.ts";

/** A handler of `phase` that takes its signal and waits until the test says so. */
function waiting(phase: string) {
  const signals: AbortSignal[] = [];
  const reasons: string[] = [];
  const wait = Promise.withResolvers<void>();
  const handler = async (session: { readonly signal: AbortSignal }) => {
    const { signal } = session;
    signals.push(signal);
    const note = () => reasons.push(`${(signal.reason as DOMException).name}: ${(signal.reason as Error).message}`);
    if (signal.aborted) note();
    else signal.addEventListener("abort", note);
    await wait.promise;
  };
  return { filter: { [phase]: handler } as AnyFilter, reasons, signals, resolve: wait.resolve };
}

describe("session.signal aborts", () => {
  test("when the time of the call is over", async () => {
    const { filter, reasons, resolve } = waiting("envfrom");
    const line = Line.to([filter]);
    line.send(cmd.connect(), cmd.mail());
    line.host.advance(HANDLER_TIMEOUT_MS);
    expect(reasons).toEqual(["TimeoutError: the time of this call is over: not settled after 8 s"]);
    // Once only, whatever comes then.
    line.hangUp();
    resolve();
    await settled();
    expect(reasons).toHaveLength(1);
  });

  test("when the connection is gone", async () => {
    const { filter, reasons } = waiting("eom");
    const line = Line.to([filter]);
    line.send(cmd.connect(), cmd.mail(), cmd.eom());
    expect(reasons).toEqual([]);
    line.hangUp();
    expect(reasons).toEqual(["AbortError: the connection is gone"]);
  });

  test.each([
    ["an ABORT", [cmd.abort()], "the mail server has aborted the message"],
    ["a QUIT", [cmd.quit()], "the SMTP session is over"],
    ["a QUIT_NC", [cmd.quitNc()], "the SMTP session is over"],
    ["an ABORT behind other packets", [cmd.rcpt(), cmd.abort(), cmd.mail()], "the mail server has aborted the message"],
    [
      "an ABORT in pieces",
      [cmd.abort().subarray(0, 3), cmd.abort().subarray(3)],
      "the mail server has aborted the message",
    ],
  ])("when %s comes while the handler is awaited", (_name, packets, why) => {
    const { filter, reasons } = waiting("envfrom");
    const line = Line.to([filter]);
    line.send(cmd.connect(), cmd.mail());
    expect(reasons).toEqual([]);
    line.send(...packets);
    expect(reasons).toEqual([`AbortError: ${why}`]);
  });

  test("at once where the ABORT came in the same read, and where the handler looks late", async () => {
    const { filter, reasons } = waiting("envfrom");
    const line = Line.to([filter]);
    line.send(cmd.connect(), Buffer.concat([cmd.mail(), cmd.abort()]));
    expect(reasons).toEqual(["AbortError: the mail server has aborted the message"]);

    const { promise, resolve } = Promise.withResolvers<void>();
    const seen: boolean[] = [];
    const late = Line.to([
      {
        async envfrom(session) {
          await promise;
          seen.push(session.signal.aborted);
        },
      },
    ]);
    late.send(cmd.connect(), cmd.mail(), cmd.abort());
    resolve();
    await settled();
    expect(seen).toEqual([true]);
  });

  test("for a handler that looks only after its time was over", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const seen: boolean[] = [];
    const line = Line.to([
      {
        async envfrom(session) {
          await promise;
          seen.push(session.signal.aborted);
        },
      },
    ]);
    line.send(cmd.connect(), cmd.mail());
    line.host.advance(HANDLER_TIMEOUT_MS);
    resolve();
    await settled();
    expect(seen).toEqual([true]);
  });

  test("a handler that ends by its signal has not failed beyond that", async () => {
    const byItself: AnyFilter = {
      async envfrom({ signal }) {
        await new Promise((_, refuse) => signal.addEventListener("abort", () => refuse(signal.reason)));
      },
    };
    const timedOut = Line.to([byItself]);
    timedOut.send(cmd.connect(), cmd.mail());
    timedOut.host.advance(HANDLER_TIMEOUT_MS);
    await settled();
    expect(timedOut.failures).toMatchObject([{ cause: "timeout" }]);
    const aborted = Line.to([byItself]);
    aborted.send(cmd.connect(), cmd.mail());
    aborted.hangUp();
    await settled();
    expect(aborted.failures).toEqual([]);
  });

  test("in runFilter too, when the time of the call is over", async () => {
    const reasons: unknown[] = [];
    const { failures } = await runFilter(
      {
        async envfrom(session) {
          const { signal } = session;
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          reasons.push((signal.reason as Error).name);
        },
      },
      { eml: "Subject: x\n\n" },
    );
    expect(failures.map(({ cause }) => cause)).toEqual(["timeout"]);
    expect(reasons).toEqual(["TimeoutError"]);
  }, 30_000);
});

describe("session.signal does not abort", () => {
  test("after a normal end, and each call has its own", async () => {
    const signals: AbortSignal[] = [];
    const filter: AnyFilter = {
      envfrom(session) {
        signals.push(session.signal, session.signal);
      },
      async envrcpt(session) {
        signals.push(session.signal);
        await Promise.resolve();
      },
      eom: (session) => void signals.push(session.signal),
      abort: (session) => void signals.push(session.signal),
      close: (session) => void signals.push(session.signal),
    };
    const line = Line.to([filter]);
    line.send(cmd.connect(), cmd.mail(), cmd.rcpt());
    await settled();
    line.send(cmd.eom(), cmd.mail());
    line.hangUp();
    await settled();
    line.host.advance(10 * HANDLER_TIMEOUT_MS);
    expect(signals).toHaveLength(8);
    expect(new Set(signals).size).toBe(6);
    expect(signals.map(({ aborted }) => aborted)).toEqual(Array.from({ length: 8 }, () => false));
  });

  test("for the next message, or for what comes behind the end of the message", () => {
    const { filter, reasons } = waiting("header");
    const line = Line.to([filter]);
    line.send(cmd.connect(), cmd.mail(), cmd.header(), cmd.eom(), cmd.mail(), cmd.abort());
    expect(reasons).toEqual([]);
  });

  test("at helo for an ABORT, which is of no message then", () => {
    const { filter, reasons } = waiting("helo");
    const line = Line.to([filter]);
    line.send(cmd.connect(), cmd.helo(), cmd.abort());
    expect(reasons).toEqual([]);
    line.send(cmd.quit());
    expect(reasons).toEqual(["AbortError: the SMTP session is over"]);
  });

  test("of a filter whose handler is not the one that is awaited", async () => {
    const first = waiting("envfrom");
    const line = Line.to(
      [{ envfrom: (session) => void first.signals.push(session.signal) }, waiting("envfrom").filter],
      {
        protocol: NO_NR,
      },
    );
    line.send(cmd.connect(), cmd.mail());
    line.hangUp();
    await settled();
    expect(first.signals.map(({ aborted }) => aborted)).toEqual([false]);
  });
});
