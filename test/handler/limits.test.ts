/** The limits of the configuration: one below, at, one above, and each fallback; memory stays within them. */
import { describe, expect, test } from "bun:test";
import type { Fallback } from "../../src/handler/fallback.ts";
import type { Limits } from "../../src/handler/chain.ts";
import { accept } from "../../src/index.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, Line, NO_NR, type Placed } from "./harness.ts";

const FALLBACKS: readonly [Fallback, string][] = [
  ["tempfail", "t"],
  ["reject", "r"],
  ["accept", "a"],
  ["continue", "c"],
];

/** By limit: its value, and packets of a message that has so much. */
const CASES: readonly [limit: keyof Limits, value: number, make: (amount: number) => Buffer[]][] = [
  ["headers", 5, (amount) => Array.from({ length: amount }, () => cmd.header("A", " 1"))],
  // A name, a value and two NULs each.
  ["headerBytes", 50, (amount) => [cmd.header("A", "x".repeat(20)), cmd.header("B", "x".repeat(amount - 26))]],
  ["recipients", 5, (amount) => Array.from({ length: amount }, () => cmd.rcpt())],
  ["body", 1000, (amount) => [cmd.body("x".repeat(600)), cmd.body("x".repeat(amount - 600))]],
  ["macros", 100, (amount) => [cmd.macro("R", { i: "x".repeat(amount - 3) }), cmd.rcpt()]],
];

const TOO_LARGE = "y552 5.3.4 Message too big\0";

describe.each(CASES)("limits.%s", (limit, value, make) => {
  const filter: AnyFilter = { collectBody: true, eom: () => undefined };

  test.each(FALLBACKS)("one above gets the fallback %s, at and below it nothing", (onError, letter) => {
    for (const amount of [value - 1, value, value + 1]) {
      const line = Line.to([filter], { limits: { [limit]: value }, onError });
      const sent = line.send(cmd.mail(), ...make(amount), cmd.eom());
      const isOver = amount > value;
      // A body is as large when it comes again.
      const isBody = limit === "body";
      expect(sent).toEqual([isOver ? (isBody ? TOO_LARGE : letter) : "c"]);
      expect(line.failures.map((failure) => [failure.cause, failure.filter, failure.fallback])).toEqual(
        isOver ? [["limit", null, isBody ? "reject" : onError]] : [],
      );
      // The next message is not concerned.
      expect(line.send(cmd.mail(), cmd.header(), cmd.body(), cmd.eom())).toEqual(["c"]);
    }
  });

  test("is reported once a message, by its name in the configuration", () => {
    const line = Line.to([filter], { limits: { [limit]: value }, onError: "continue" });
    line.send(cmd.mail(), ...make(value + 1), ...make(value + 1), cmd.eom());
    const name = limit.replace(/[A-Z]/, (upper) => `_${upper.toLowerCase()}`);
    expect(line.failures).toHaveLength(1);
    expect(line.failures[0]!.message).toContain(`limits.${name}`);
  });
});

describe("limits, on_error = continue", () => {
  test("a header behind the limit does not make the index of another wrong", () => {
    const filter: AnyFilter = { eom: (session) => session.message.changeHeader("A", "new", 2) };
    const line = Line.to([filter], { limits: { headerBytes: 20 }, onError: "continue" });
    const replies = line.send(
      cmd.mail(),
      cmd.header("A", " 1"),
      cmd.header("A", "x".repeat(30)),
      cmd.header("A", " 3"),
      cmd.eom(),
    );
    // The second A of the message is the long one: what a filter has not seen it must not change.
    expect(replies).not.toContain("m\0\0\0\x02A\0 new\0");
  });
});

describe("limits.body, and who collects", () => {
  const EOM: AnyFilter = { eom: () => undefined };
  const BIG = [cmd.mail(), cmd.body("12345678"), cmd.body("abcdefgh"), cmd.body("Z"), cmd.eom()];
  const line = (...filters: readonly Placed[]) => Line.to(filters, { limits: { body: 10 } });

  test("a filter that only observes has no part of it, and nothing is refused", () => {
    let seen = "";
    const observer: AnyFilter = { collectBody: true, eom: () => void (seen = "a body with a gap") };
    const other: AnyFilter = { eom: ({ message }) => message.addHeader("X", "1") };
    const observed = line([observer, { isObserved: true }], other);
    expect(observed.send(...BIG)).toEqual(["hX\0 1\0", "c"]);
    expect(seen).toBe("");
    expect(observed.failures.map(({ cause, fallback }) => [cause, fallback])).toEqual([["limit", "none"]]);
    // The next message is not concerned.
    observed.send(cmd.mail(), cmd.body("small"), cmd.eom());
    expect(seen).toBe("a body with a gap");
  });

  test("one that observes does not save the message from one that decides", () => {
    const both = line([{ collectBody: true, ...EOM }, { isObserved: true }], { collectBody: true, ...EOM });
    expect(both.send(...BIG)).toEqual([TOO_LARGE]);
  });

  test("a filter that has accepted the message does not read it any more", () => {
    const accepted = line({ collectBody: true, envfrom: () => accept(), ...EOM }, EOM);
    expect(accepted.send(...BIG)).toEqual(["c", "c"]);
    expect(accepted.failures).toEqual([]);
  });

  test("with a reply to each piece of body the refusal comes with the one that passed it, and stays", () => {
    const answered = Line.to([{ collectBody: true, ...EOM }], {
      limits: { body: 10 },
      protocol: NO_NR,
    });
    const replies = answered.send(...BIG);
    expect(replies.slice(0, replies.indexOf(TOO_LARGE) + 1)).toEqual(["c", "c", TOO_LARGE]);
    expect(answered.send(cmd.mail(), cmd.eom()).at(-1)).toBe("c");
  });
});
