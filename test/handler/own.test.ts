/** What belongs to a filter: the result of its start(), and its objects of a session and of a message. */
import { TIMERS } from "../../src/testing/in-memory.ts";
import { testServices } from "../../src/testing/services.ts";
import { describe, expect, test } from "bun:test";
import { defineFilter } from "../../src/index.ts";
import { LoadError } from "../../src/handler/load-failure.ts";
import { startFilters, stopFilters } from "../../src/handler/start.ts";
import { runFilter } from "../../src/testing/index.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, chainOf, Line } from "./harness.ts";

const HOME = { folder: "/etc/pmilter", isCheck: false };
const SERVICES = testServices(TIMERS);
const MESSAGE = [cmd.mail(), cmd.rcpt(), cmd.eom()];

describe("session.own", () => {
  test("is what start() returned, of each place in the chain its own, also for one module twice", async () => {
    const seen: unknown[] = [];
    const filter = defineFilter({
      async start(options: { name: string }) {
        return { opened: options.name };
      },
      stop(own) {
        seen.push(`stop ${own.opened}`);
      },
      connect(session) {
        seen.push(session.own.opened);
      },
    });
    const chain = chainOf([
      [filter, { options: { name: "first" } }],
      [filter, { options: { name: "second" } }],
    ]);
    await startFilters(chain.filters, HOME, SERVICES);
    const line = new Line(chain);
    line.send(cmd.optneg(), cmd.connect());
    await stopFilters(chain.filters, (_, error) => seen.push(error));
    expect(seen).toEqual(["first", "second", "stop first", "stop second"]);
  });

  test("is undefined without a start()", () => {
    const seen: unknown[] = [];
    Line.to([{ connect: (session) => void seen.push(session.own) }]).send(cmd.connect());
    expect(seen).toEqual([undefined]);
  });

  test("is there in runFilter, and stop() gets it", async () => {
    const seen: unknown[] = [];
    const filter = defineFilter({
      start: () => ({ count: 0 }),
      stop: ({ count }) => void seen.push(count),
      envfrom: (session) => void (session.own.count += 1),
      eom: (session) => void (session.own.count += 1),
    });
    const { failures } = await runFilter(filter, { eml: "Subject: x\n\n" });
    expect([failures, seen]).toEqual([[], [2]]);
  });
});

describe("starting and stopping", () => {
  const eom = () => undefined;

  test("a start() that fails is named, and those behind it are not started", async () => {
    const started: string[] = [];
    const { filters } = chainOf([
      { eom, start: () => void started.push("a") },
      { eom, start: () => Promise.reject(new Error("no such table")) },
      { eom, start: () => void started.push("c") },
    ]);
    const told: string[] = [];
    const error = await startFilters(filters, HOME, SERVICES, ({ loaded }, what) =>
      told.push(`${loaded.name}: ${what}`),
    ).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(LoadError);
    expect((error as LoadError).failure.message).toBe("start() of filter filter2 failed: no such table");
    expect(started).toEqual(["a"]);
    expect(told).toEqual(["filter1: start() of filter filter1 failed", "filter2: start() of filter filter2 failed"]);
  });

  test("a stop() that fails keeps no other from being stopped", async () => {
    const stopped: string[] = [];
    const fail = () => {
      throw new Error("gone");
    };
    const { filters } = chainOf([
      { eom, stop: fail },
      { eom, stop: () => void stopped.push("b") },
    ]);
    const failures: string[] = [];
    await stopFilters(filters, ({ loaded }, error) => failures.push(`${loaded.name}: ${String(error)}`));
    expect([stopped, failures]).toEqual([["b"], ["filter1: Error: gone"]]);
  });

  test("runFilter rejects with what start() or stop() threw", async () => {
    const error = new Error("no such table");
    const fail = () => {
      throw error;
    };
    for (const filter of [
      { eom, start: fail },
      { eom, stop: fail },
    ]) {
      expect(await runFilter(filter, { eml: "" }).catch((thrown: unknown) => thrown)).toBe(error);
    }
  });
});

describe("session.state and message.state", () => {
  test("begin as the filter says, once for a session and once for each message", () => {
    const seen: string[] = [];
    let made = 0;
    const filter = defineFilter({
      state: () => ({ session: ++made, messages: 0 }),
      messageState: () => ({ message: ++made, recipients: 0 }),
      envfrom(session) {
        session.state.messages += 1;
      },
      envrcpt(session) {
        session.message.state.recipients += 1;
      },
      eom(session) {
        seen.push(`${JSON.stringify(session.state)} ${JSON.stringify(session.message.state)}`);
      },
    });
    const line = Line.to([filter, filter]);
    line.send(cmd.connect(), cmd.mail(), cmd.rcpt(), cmd.rcpt(), cmd.eom(), ...MESSAGE, cmd.quitNc());
    line.send(cmd.connect(), ...MESSAGE);
    expect(seen).toEqual([
      '{"session":1,"messages":1} {"message":3,"recipients":2}',
      '{"session":2,"messages":1} {"message":4,"recipients":2}',
      '{"session":1,"messages":2} {"message":5,"recipients":1}',
      '{"session":2,"messages":2} {"message":6,"recipients":1}',
      '{"session":7,"messages":1} {"message":9,"recipients":1}',
      '{"session":8,"messages":1} {"message":10,"recipients":1}',
    ]);
  });

  test("are empty objects of each filter by default", () => {
    const seen: unknown[] = [];
    const filter = (name: string): AnyFilter => ({
      envfrom(session) {
        session.state[name] = session.message.state[name] = 1;
      },
      eom(session) {
        seen.push(session.state, session.message.state);
      },
    });
    Line.to([filter("a"), filter("b")]).send(cmd.connect(), ...MESSAGE);
    expect(seen).toEqual([{ a: 1 }, { a: 1 }, { b: 1 }, { b: 1 }]);
  });

  test("a message that was aborted leaves nothing to the next, and what a handler kept stays what it was", () => {
    const kept: { state: Record<string, unknown> }[] = [];
    const filter: AnyFilter = {
      envfrom(session) {
        session.message.state["number"] = kept.length;
        kept.push(session.message);
      },
      abort(session) {
        session.message.state["aborted"] = true;
      },
    };
    Line.to([filter]).send(cmd.connect(), cmd.mail(), cmd.abort(), cmd.mail(), cmd.eom());
    expect(kept.map(({ state }) => state)).toEqual([{ number: 0, aborted: true }, { number: 1 }]);
  });

  test("a state() or messageState() that throws is the failure of the handler that asked", () => {
    const fail = () => {
      throw new Error("no state");
    };
    for (const filter of [
      { state: fail, envfrom: (session) => void session.state },
      { messageState: fail, envfrom: (session) => void session.message.state },
    ] satisfies AnyFilter[]) {
      const line = Line.to([filter]);
      line.send(cmd.connect());
      expect(line.send(cmd.mail())).toEqual(["t"]);
      expect(line.failures.map(({ cause, message, phase }) => [cause, phase, message])).toEqual([
        ["error", "envfrom", "Error: no state"],
      ]);
    }
  });
});

test("session.trial is what the host of the conversation says", () => {
  const seen: boolean[] = [];
  const filter: AnyFilter = { envfrom: (session) => void seen.push(session.trial) };
  const line = Line.to([filter]);
  line.send(cmd.connect(), ...MESSAGE);
  line.host.isTrial = true;
  line.send(...MESSAGE);
  expect(seen).toEqual([false, true]);
});
