/** `collectBody`: which body each filter of a chain gets, and the fate of a message whose body is larger. */
import { describe, expect, test } from "bun:test";
import { accept, type CollectBody, reject } from "../../src/index.ts";
import { checkBodyLimit, checkCollectBody } from "../../src/handler/collect-body.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, Line, type Placed } from "./harness.ts";

const TOO_LARGE = "y552 5.3.4 Message too big\0";
const text = (body: Uint8Array | null) => (body === null ? null : Buffer.from(body).toString());

/** A filter that notes the body that it gets at `eom`, as text. */
class Reader {
  readonly seen: (string | null)[] = [];
  readonly filter: AnyFilter;

  constructor(collectBody: boolean | CollectBody, rest: AnyFilter = {}) {
    const eom: AnyFilter["eom"] = ({ message }) => void this.seen.push(text(message.body()));
    this.filter = { collectBody: collectBody as true, eom, ...rest };
  }
}

const send = (line: Line, ...pieces: readonly string[]) =>
  line.send(cmd.mail(), ...pieces.map((piece) => cmd.body(piece)), cmd.eom());
const to = (...filters: readonly Placed[]) =>
  Line.to(filters, { limits: { body: 20 }, onError: "accept", reportsAccepted: true });

describe("a body of the size that a filter collects, and one byte more", () => {
  test("over: reject, which is the default", () => {
    for (const collectBody of [{ max: 10 }, { max: 10, over: "reject" }] as const) {
      const reader = new Reader(collectBody);
      const line = to([reader.filter, { onError: "accept" }]);
      expect(send(line, "12345", "67890")).toEqual(["c"]);
      expect(send(line, "12345", "678901")).toEqual([TOO_LARGE]);
      expect(reader.seen).toEqual(["1234567890"]);
      expect(line.failures.map(({ cause, fallback, filter, message }) => [cause, fallback, filter, message])).toEqual([
        ["limit", "reject", "filter1", "RangeError: a body of more than 10 bytes to collect (collectBody.max)"],
      ]);
    }
  });

  test("over: skip", () => {
    const reader = new Reader({ max: "0.009765625KB", over: "skip" });
    const line = to(reader.filter);
    expect(send(line, "1234567890")).toEqual(["c"]);
    expect(send(line, "1234567890", "1", "2")).toEqual(["c"]);
    expect(send(line, "")).toEqual(["c"]);
    expect(reader.seen).toEqual(["1234567890", null, ""]);
    expect(line.failures).toEqual([]);
    expect(line.host.reports.filter(({ kind }) => kind === "skipped body")).toMatchObject([
      { filter: "filter1", phase: "body", message: "a body of more than 10 bytes to collect (collectBody.max)" },
    ]);
  });

  test.each([
    ["tempfail", "t"],
    ["reject", "r"],
    ["accept", "c"],
    ["continue", "c"],
  ] as const)("over: fallback, on_error = %s", (onError, letter) => {
    const reader = new Reader({ max: 10, over: "fallback" });
    const other = new Reader(true);
    const line = to([reader.filter, { onError }], other.filter);
    expect(send(line, "12345678901")).toEqual([letter]);
    expect(reader.seen).toEqual([]);
    expect(other.seen).toEqual(letter === "c" ? ["12345678901"] : []);
    expect(line.failures).toMatchObject([{ cause: "limit", filter: "filter1", fallback: onError }]);
    expect(send(line, "small")).toEqual(["c"]);
    expect(reader.seen).toEqual(["small"]);
  });

  test("without max it is limits.body", () => {
    const reader = new Reader({ over: "skip" });
    expect(send(to(reader.filter), "x".repeat(21))).toEqual(["c"]);
    expect(reader.seen).toEqual([null]);
  });
});

describe("several filters", () => {
  test("each has its own rule, and the others get the body all the same", () => {
    const small = new Reader({ max: 4, over: "skip" });
    const middle = new Reader({ max: 8, over: "fallback" });
    const large = new Reader({ max: 16, over: "skip" });
    const line = to(small.filter, [middle.filter, { onError: "continue" }], large.filter);
    send(line, "abc");
    send(line, "abcde");
    send(line, "abcde", "fghij");
    send(line, "abcde", "fghij", "klmnop", "q");
    expect(small.seen).toEqual(["abc", null, null, null]);
    expect(middle.seen).toEqual(["abc", "abcde"]);
    expect(large.seen).toEqual(["abc", "abcde", "abcdefghij", null]);
  });

  test("a filter that has left the message does not count, before the body or in it", () => {
    const early = new Reader({ max: 4 }, { envfrom: () => accept() });
    const late = new Reader({ max: 8 }, { body: (_session, chunk) => (chunk[0] === 0x61 ? accept() : undefined) });
    const line = to(early.filter, late.filter, { eom() {} });
    expect(send(line, "abcde", "fghij")).toEqual(["c", "c"]);
    expect(send(line, "ABCDE", "FGHIJ")).toEqual(["c", TOO_LARGE]);
  });

  test("in observe mode nothing is refused, whatever the rule, and nothing of the message changes", () => {
    for (const over of ["reject", "skip", "fallback"] as const) {
      const observer = new Reader({ max: 4, over });
      const decider = new Reader({ max: 10 });
      const line = to([observer.filter, { isObserved: true, onError: "reject" }], decider.filter);
      expect(send(line, "abcde")).toEqual(["c"]);
      expect(observer.seen).toEqual(over === "skip" ? [null] : []);
      expect(decider.seen).toEqual(["abcde"]);
    }
  });

  test("a body that an earlier filter put in its place is the body, unless that is too large as well", () => {
    const replacer: AnyFilter = {
      collectBody: true,
      eom: ({ message }) => message.replaceBody(Buffer.from(message.body()).toString().toUpperCase().slice(0, 12)),
    };
    const reader = new Reader({ max: 8, over: "skip" });
    const line = to(replacer, reader.filter);
    send(line, "abc");
    send(line, "abcdefghijk");
    replacer.eom = ({ message }) => message.replaceBody("short");
    const shortens = to(replacer, reader.filter);
    send(shortens, "abcdefghijk");
    expect(reader.seen).toEqual(["ABC", null, "short"]);
  });
});

test("the body is not there before eom", () => {
  const filter: AnyFilter = { collectBody: true, body: ({ message }) => void (message as { body?(): void }).body!() };
  const line = to(filter);
  send(line, "abc");
  expect(line.failures[0]!.message).toContain("message.body() is there at eom");
});

test("a filter that is sure of its verdict stops the collecting for all", () => {
  const reader = new Reader(true);
  const line = to(reader.filter, { body: () => reject("550 5.7.1 No") });
  expect(send(line, "abc", "x".repeat(30))).toEqual(["y550 5.7.1 No\0"]);
  expect(line.failures).toEqual([]);
});

describe("the value", () => {
  test.each([
    ["yes", /must be a boolean, or \{ max, over \}, got "yes"/],
    [[], /got an array/],
    [null, /got null/],
    [{ maximum: 5 }, /no "maximum"; it may have max, over/],
    [{ max: 0 }, /collectBody.max: expected a size such as .*, got 0$/],
    [{ max: 1.5 }, /got 1\.5/],
    [{ max: "10 mb" }, /got "10 mb"; write "10MB"/],
    [{ max: "100" }, /write 100, without quotes/],
    [{ over: "drop" }, /collectBody.over: expected "reject", "skip" or "fallback", got "drop"/],
  ])("%j is refused", (value, message) => {
    expect(() => checkCollectBody(value)).toThrow(message);
  });

  test("max above limits.body is refused, and both are named", () => {
    const collection = checkCollectBody({ max: "1KB" });
    expect(() => checkBodyLimit(collection, 1023)).toThrow(/collectBody.max is 1024 bytes, above limits.body.* 1023/);
    checkBodyLimit(collection, 1024);
    checkBodyLimit(checkCollectBody(true), 1);
    checkBodyLimit(checkCollectBody(false), 1);
  });
});
