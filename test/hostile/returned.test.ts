/**
 * Handlers that return what cannot be looked at: values that throw when they are read, awaited or compared. Each is a
 * failed call of its handler like any other, and never a mistake of the server's.
 */
// Thenables are what these tests are about.
// oxlint-disable unicorn/no-thenable
import { describe, expect, test } from "bun:test";
import { reject, type Verdict } from "../../src/index.ts";
import { type AnyFilter, Line, play } from "../handler/harness.ts";
import { cmd } from "../protocol/wire.ts";

const fail = (): never => {
  throw new Error("from the value");
};

function revoked(target: object): object {
  const { proxy, revoke } = Proxy.revocable(target, {});
  revoke();
  return proxy;
}

const branded = (members: object): object => ({ [Symbol.for("pmilter.verdict")]: true, ...members });

/** Values that are no verdict, whatever is done with them. */
const ODD: readonly [string, () => unknown][] = [
  ["an object whose then throws", () => Object.defineProperty({}, "then", { get: fail })],
  ["an object whose then throws the second time", () => thenOnce()],
  ["a thenable that throws", () => ({ then: fail })],
  ["a proxy whose has throws", () => new Proxy({}, { has: fail })],
  ["a proxy whose get throws", () => new Proxy({}, { get: fail })],
  ["a proxy whose get throws, with a then", () => new Proxy({ then: () => undefined }, { get: fail })],
  ["a proxy whose getPrototypeOf throws", () => new Proxy({}, { getPrototypeOf: fail })],
  ["a proxy that throws something that cannot be shown", () => new Proxy({}, { has: () => throwThis(revoked({})) })],
  ["a revoked proxy", () => revoked({})],
  ["a revoked proxy of a function", () => revoked(() => undefined)],
  ["a revoked proxy of a promise", () => revoked(Promise.resolve())],
  ["a proxy of a promise", () => new Proxy(Promise.resolve(), {})],
  ["a promise whose constructor throws", () => Object.defineProperty(Promise.resolve(), "constructor", { get: fail })],
  ["a promise whose own then throws", () => Object.assign(Promise.resolve(), { then: fail })],
  ["a symbol", () => Symbol("odd")],
  ["a number", () => 5],
  ["null", () => null],
  ["a function", () => () => undefined],
  ["a branded object without a kind", () => branded({})],
  ["a branded object whose kind throws", () => Object.defineProperty(branded({}), "kind", { get: fail })],
  ["a branded object of a kind that there is not", () => branded({ kind: "constructor" })],
  ["a branded object whose kind is no string", () => branded({ kind: Symbol("kind") })],
  ["a branded object with a reply that throws", () => branded({ kind: "reject", reply: revoked({}) })],
  ["a branded object with lines that are none", () => branded({ kind: "reject", reply: { code: 550, lines: 5 } })],
  ["a branded object with a line that cannot be sent", () => branded({ kind: "reject", reply: reply(["a\u0000b"]) })],
];

function thenOnce(): object {
  let reads = 0;
  return Object.defineProperty({}, "then", { get: () => (reads++ === 0 ? (done: () => void) => done() : fail()) });
}

function throwThis(value: unknown): never {
  throw value;
}

const reply = (lines: readonly string[]) => ({ code: 550, enhanced: "5.7.1", lines });

/** Steps of a message. */
const PHASES = ["envfrom", "envrcpt", "header", "eoh", "body", "eom"] as const;

/** A message up to its end: what was answered at each step that has an answer. */
const message = (line: Line): Promise<string> => play(line, PHASES);

/** What a message gets that all handlers let pass. */
const PASSED = "envfrom:c envrcpt:c eom:c";
/** And one whose handler failed, by where it failed. */
const FELL_BACK = {
  envfrom: "envfrom:t envrcpt:t eom:t",
  envrcpt: "envfrom:c envrcpt:t eom:c",
  header: "envfrom:c envrcpt:c eom:t",
  eoh: "envfrom:c envrcpt:c eom:t",
  body: "envfrom:c envrcpt:c eom:t",
  eom: "envfrom:c envrcpt:c eom:t",
} as const;
/** Some are awaited, and say nothing in the end. */
const AWAITED = ["a proxy of a promise", "an object whose then throws the second time"];

function lineOf(phase: (typeof PHASES)[number], result: () => unknown, reportsAccepted = false): Line {
  let isFirst = true;
  const filter = {
    envfrom: () => undefined,
    envrcpt: () => undefined,
    [phase]: () => {
      if (!isFirst) return undefined;
      isFirst = false;
      return result();
    },
  };
  const line = Line.to([filter as AnyFilter], { reportsAccepted });
  line.send(cmd.connect());
  return line;
}

describe.each(ODD)("%s", (what, make) => {
  test.each(PHASES)("returned at %s, at once and later", async (phase) => {
    for (const result of [make, async () => make(), async () => (await Promise.resolve(), make())]) {
      const line = lineOf(phase, result);
      const replies = await message(line);
      const isFine = line.failures.length === 0;
      if (isFine) expect(AWAITED).toContain(what);
      expect(replies).toBe(isFine ? PASSED : FELL_BACK[phase]);
      expect(line.failures.map(({ cause, fallback }) => `${cause} ${fallback}`)).toEqual(
        isFine ? [] : ["error tempfail"],
      );
      expect(line.host.mistakes).toEqual([]);
      // Nothing is awaited any more, and no progress is due.
      expect(line.host.timers).toEqual([]);
      expect(await message(line)).toBe(PASSED);
    }
  });
});

describe("a verdict of another copy of the module", () => {
  const copies: readonly [string, () => unknown][] = [
    ["its members", () => ({ ...(reject("550 5.7.1 one\ntwo") as object) })],
    ["an object that inherits from it", () => Object.create(reject("550 5.7.1 one\ntwo") as object)],
    ["a proxy of it", () => new Proxy(reject("550 5.7.1 one\ntwo") as object, {})],
    ["one made by hand", () => branded({ kind: "reject", reply: reply(["one", "two"]) })],
  ];

  test.each(copies)("%s is taken", async (_, make) => {
    const line = lineOf("eom", make);
    expect(await message(line)).toBe("envfrom:c envrcpt:c eom:y550-5.7.1 one\r\n550 5.7.1 two\0");
    expect(line.failures).toEqual([]);
  });

  test("a verdict cannot be changed once it is made", () => {
    const verdict: Verdict = reject("550 5.7.1 one");
    expect(() => Object.assign(verdict, { kind: "accept" })).toThrow(TypeError);
  });
});
