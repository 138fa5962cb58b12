/** `collectBody`: which body each filter of a chain gets, and the fate of a message whose body is larger. */
import { describe, expect, test } from "bun:test";
import { accept, type CollectBody, reject } from "../../src/index.ts";
import { checkBodyLimit, checkCollectBody } from "../../src/handler/collect-body.ts";
import type { MappedBody, Spool, SpooledBody } from "../../src/handler/message/spool.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, EOM_TIMEOUT_MS, HANDLER_TIMEOUT_MS, Line, type Placed, settled } from "./harness.ts";

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
    expect(() => checkBodyLimit(collection, 1023)).toThrow(
      /collectBody.max is 1024 bytes, above limits.body \(1023 bytes\): raise limits.body/,
    );
    checkBodyLimit(collection, 1024);
    checkBodyLimit(checkCollectBody(true), 1);
    checkBodyLimit(checkCollectBody(false), 1);
  });
});

describe("a handler that gives the memory of a body away", () => {
  const giveAway = (body: Uint8Array) => structuredClone(body.buffer, { transfer: [body.buffer as ArrayBuffer] });
  const giver: AnyFilter = { collectBody: true, eom: ({ message }) => void giveAway(message.body()) };

  test("the filters behind it fail: an empty body would pass for the message's", () => {
    const reader = new Reader(true);
    const line = to(giver, [reader.filter, { onError: "reject" }]);
    expect(send(line, "virus")[0]).toStartWith("r");
    expect(reader.seen).toEqual([]);
    expect(line.failures.map(({ filter, message }) => [filter, message])).toEqual([
      ["filter2", expect.stringContaining("transferred the memory of its body")],
    ]);
  });

  test("replaces it all the same, also by the same text, and the next message is as ever", () => {
    const reader = new Reader(true);
    const replaces: AnyFilter = {
      collectBody: true,
      eom({ message }) {
        if (Buffer.from(message.body()).toString() !== "old") return;
        giveAway(message.body());
        message.replaceBody("old");
      },
    };
    const line = to(replaces, reader.filter);
    expect(send(line, "old")).toEqual(["bold", "c"]);
    expect(send(line, "next")).toEqual(["c"]);
    expect([line.failures, reader.seen]).toEqual([[], ["old", "next"]]);
  });

  test("an empty body is the handler's own", () => {
    const line = to(giver);
    for (let message = 0; message < 3; message++) expect(line.send(cmd.mail(), cmd.eom())).toEqual(["c"]);
    expect(send(line, "more")).toEqual(["c"]);
    expect(line.failures).toEqual([]);
  });

  test("of a body that another filter has put in place: what is sent stays, also where it is written to", () => {
    const replaces: AnyFilter = { eom: ({ message }) => message.replaceBody("new") };
    const line = to(replaces, { collectBody: true, eom: ({ message }) => void message.body().fill(0) }, giver);
    expect(send(line, "old")).toEqual(["bnew", "c"]);
    expect(line.failures).toEqual([]);
  });
});

/** A spool whose body does what the test says. */
class FakeSpool implements Spool {
  readonly bodies: FakeBody[] = [];

  begin(): FakeBody {
    const body = new FakeBody();
    this.bodies.push(body);
    return body;
  }
}

class FakeBody implements SpooledBody {
  isBehind = false;
  isEnded = false;
  failure: Error | null = null;
  #bytes = Buffer.alloc(0);
  #room: (() => void) | null = null;
  readonly mapping = Promise.withResolvers<void>();

  append(bytes: Uint8Array, start: number, end: number): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes.subarray(start, end)]);
  }
  onRoom(callback: () => void): void {
    this.#room = callback;
  }
  /** It has caught up, or has failed. */
  room(): void {
    this.isBehind = false;
    this.#room?.();
  }
  async map(): Promise<MappedBody> {
    await this.mapping.promise;
    if (this.failure !== null) throw this.failure;
    return { bytes: this.#bytes, isTransferred: false, withHead: (head) => Buffer.concat([head, this.#bytes]) };
  }
  fail(reason: string): Error {
    this.failure ??= new Error(`the spool in /spool: ${reason}`);
    this.mapping.resolve();
    this.room();
    return this.failure;
  }
  handOver(): ArrayBuffer {
    return this.#bytes.buffer.transfer() as ArrayBuffer;
  }
  end(): void {
    this.isEnded = true;
  }
}

describe("a body in the spool", () => {
  const MEBIBYTE = 1024 * 1024;
  const CHUNK = "x".repeat(60_000);
  const begun = (...filters: readonly Placed[]) => {
    const line = Line.to(filters, { onError: "accept" });
    const spool = new FakeSpool();
    line.host.spool = spool;
    const chunks = (count: number) => line.send(...Array.from({ length: count }, () => cmd.body(CHUNK)));
    line.send(cmd.mail(), cmd.header("Subject", " hi"), cmd.eoh());
    return { line, spool, chunks };
  };

  test("up to 1 MB it is in memory, above in the spool, whole in both", async () => {
    const lengths: number[] = [];
    const filter: AnyFilter = { collectBody: true, eom: ({ message }) => void lengths.push(message.body().length) };
    const { line, spool, chunks } = begun(filter);
    chunks(17);
    line.send(cmd.body("x".repeat(MEBIBYTE - 17 * 60_000)));
    expect(line.send(cmd.eom())).toEqual(["c"]);
    expect(spool.bodies).toEqual([]);
    line.send(cmd.mail());
    chunks(17);
    line.send(cmd.body("x".repeat(MEBIBYTE - 17 * 60_000 + 1)));
    expect(line.send(cmd.eom())).toEqual([]);
    spool.bodies[0]!.mapping.resolve();
    await settled();
    expect(line.replies()).toEqual(["c"]);
    expect(lengths).toEqual([MEBIBYTE, MEBIBYTE + 1]);
    expect(spool.bodies[0]!.isEnded).toBe(true);
  });

  test("spool-slow: no event is taken while it is behind; after handler_timeout it has failed", async () => {
    const { line, spool, chunks } = begun([{ collectBody: true, eom() {} }, { onError: "reject" }]);
    chunks(20);
    const body = spool.bodies[0]!;
    body.isBehind = true;
    chunks(1);
    expect(line.conversation.isWaiting).toBe(true);
    chunks(2);
    body.room();
    expect(line.conversation.isWaiting).toBe(false);
    body.isBehind = true;
    chunks(1);
    line.send(cmd.eom());
    line.host.advance(HANDLER_TIMEOUT_MS - 1);
    expect(line.conversation.isWaiting).toBe(true);
    line.host.advance(1);
    await settled();
    expect(line.replies()).toEqual(["r"]);
    expect(line.failures).toMatchObject([{ cause: "spool", filter: "filter1", fallback: "reject", phase: "eom" }]);
    expect(line.failures[0]!.message).toContain("the spool in /spool: nothing was written for 8 s");
    expect(body.isEnded).toBe(true);
    expect(line.host.timers).toEqual([]);
  });

  test("filters before it run meanwhile; progress is sent, and eom_timeout holds", async () => {
    let hasRun = false;
    const early: AnyFilter = { eom: () => void (hasRun = true) };
    const { line, spool, chunks } = begun(early, [{ collectBody: true, eom() {} }, { onError: "tempfail" }]);
    chunks(20);
    line.send(cmd.eom());
    expect(hasRun).toBe(true);
    line.host.advance(EOM_TIMEOUT_MS);
    await settled();
    const replies = line.replies();
    expect(replies.at(-1)).toBe("t");
    expect(replies.slice(0, -1).every((reply) => reply === "p")).toBe(true);
    expect(line.failures).toMatchObject([{ cause: "spool", filter: "filter2", fallback: "tempfail" }]);
    expect(spool.bodies[0]!.isEnded).toBe(true);
  });

  test("if it fails, each filter that collects it has its own fallback, and skip goes on without", async () => {
    const skips = new Reader({ over: "skip" });
    const passes: AnyFilter = { collectBody: true, eom: () => reject() };
    const { line, spool, chunks } = begun([passes, { onError: "continue" }], skips.filter);
    chunks(20);
    line.send(cmd.eom());
    spool.bodies[0]!.fail("ENOSPC");
    await settled();
    expect(line.replies()).toEqual(["c"]);
    expect(skips.seen).toEqual([null]);
    expect(line.failures.map(({ cause, fallback, filter }) => [cause, filter, fallback])).toEqual([
      ["spool", "filter1", "continue"],
      ["spool", "filter2", "none"],
    ]);
  });

  describe("slices of it in a new body", () => {
    const TYPE = cmd.header("Content-Type", " multipart/mixed; boundary=b");
    const PART = "--b\r\nContent-Type: application/octet-stream\r\n\r\n";
    /** Two parts, and the second one of so many bytes. */
    const bodyOf = (bytes: number) => `${PART}first\r\n${PART}${"x".repeat(bytes)}\r\n--b--\r\n`;
    const edits: AnyFilter = {
      collectBody: true,
      eom({ message }) {
        message.mime().parts[0]!.setContent(Buffer.from("new"));
      },
    };
    /** The message is at its end, and the body mapped; what is sent has not left. */
    const ended = async (bytes: number, ...filters: readonly Placed[]) => {
      const { line, spool } = begun(...filters);
      line.send(cmd.mail(), TYPE, cmd.eoh());
      const body = bodyOf(bytes);
      for (let at = 0; at < body.length; at += 60_000) line.send(cmd.body(body.slice(at, at + 60_000)));
      line.send(cmd.eom());
      spool.bodies[0]?.mapping.resolve();
      await settled();
      return {
        line,
        spool,
        expected: bodyOf(bytes).replace("\r\n\r\nfirst", "\r\nContent-Transfer-Encoding: base64\r\n\r\nbmV3"),
      };
    };
    const bodyIn = (replies: readonly string[]) =>
      replies
        .filter((reply) => reply.startsWith("b"))
        .map((reply) => reply.slice(1))
        .join("");

    test("are sent from where they are: it ends once they have left, and no handler writes to them meanwhile", async () => {
      const kept: Uint8Array[] = [];
      const keeps: AnyFilter = {
        collectBody: true,
        eom: ({ message }) => void kept.push(message.mime().parts[1]!.bytes(), message.body()),
      };
      const { expected, line, spool } = await ended(2 * MEBIBYTE, keeps, edits);
      expect(kept.map(({ length }) => length)).toEqual([0, 0]);
      for (const view of kept) view.fill(0);
      expect(spool.bodies[0]!.isEnded).toBe(false);
      const replies = line.replies();
      expect(replies.at(-1)).toBe("c");
      expect(bodyIn(replies) === expected).toBe(true);
      expect(spool.bodies[0]!.isEnded).toBe(true);
      expect(line.failures).toEqual([]);
    });

    test("the connection is gone before they have left: it ends", async () => {
      const { line, spool } = await ended(2 * MEBIBYTE, edits);
      expect(spool.bodies[0]!.isEnded).toBe(false);
      line.hangUp();
      expect(spool.bodies[0]!.isEnded).toBe(true);
    });

    test("in memory: they are copied, since a handler may keep its views and write to them", async () => {
      const kept: Uint8Array[] = [];
      const keeps: AnyFilter = {
        collectBody: true,
        async eom({ message }) {
          await settled();
          kept.push(message.body());
        },
      };
      const { expected, line } = await ended(MEBIBYTE / 2, keeps, edits);
      await settled();
      expect(kept[0]!.length).toBeGreaterThan(MEBIBYTE / 2);
      kept[0]!.fill(0);
      expect(bodyIn(line.replies()) === expected).toBe(true);
    });

    test("a body without any does not keep it, and a filter in observe mode has its changes counted", async () => {
      const replaces: AnyFilter = {
        collectBody: true,
        eom: ({ message }) => message.replaceBody("y".repeat(MEBIBYTE)),
      };
      const without = await ended(2 * MEBIBYTE, replaces);
      expect(without.spool.bodies[0]!.isEnded).toBe(true);
      expect(bodyIn(without.line.replies()) === "y".repeat(MEBIBYTE)).toBe(true);
      const { expected, line } = await ended(2 * MEBIBYTE, [edits, { isObserved: true }], edits);
      expect(bodyIn(line.replies()) === expected).toBe(true);
      expect(line.verdicts.map(({ changes, isObserved }) => [changes, isObserved])).toEqual([[1, true]]);
    });

    test("a later filter reads it put together, and edits that", async () => {
      const seen: string[] = [];
      const reads: AnyFilter = {
        collectBody: true,
        eom({ message }) {
          seen.push(Buffer.from(message.body()).toString("latin1"));
          message.mime().parts[0]!.setContent(Buffer.from("two"));
        },
      };
      const { expected, line, spool } = await ended(2 * MEBIBYTE, edits, reads);
      expect(seen[0] === expected).toBe(true);
      expect(bodyIn(line.replies()) === expected.replace("bmV3", "dHdv")).toBe(true);
      expect(spool.bodies[0]!.isEnded).toBe(true);
    });

    test("its memory was given away since the edit: nothing is sent", async () => {
      const away: AnyFilter = {
        collectBody: true,
        eom({ message }) {
          const { buffer } = message.body();
          const mime = message.mime();
          for (const part of mime.parts.slice(1)) part.remove();
          mime.parts[0]!.replaceWith({ text: "new" });
          structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
        },
      };
      const { line } = begun(away);
      line.send(cmd.mail(), TYPE, cmd.eoh(), cmd.body(bodyOf(200_000)));
      expect(() => line.send(cmd.eom())).toThrow("transferred the memory of its body");
      expect(line.replies()).toEqual([]);
    });
  });

  test("it is given up with the message: aborted, refused by another filter, or with the connection", async () => {
    const refuses: AnyFilter = { body: (_session, chunk) => (chunk[0] === 0x79 ? reject() : undefined) };
    const { line, spool, chunks } = begun({ collectBody: true, eom() {} }, refuses);
    chunks(20);
    line.send(cmd.abort());
    expect(spool.bodies[0]!.isEnded).toBe(true);
    line.send(cmd.mail());
    chunks(20);
    spool.bodies[1]!.isBehind = true;
    line.send(cmd.body("y"));
    expect(spool.bodies[1]!.isEnded).toBe(true);
    expect(line.conversation.isWaiting).toBe(false);
    expect(line.send(cmd.eom())).toEqual(["r"]);
    line.send(cmd.mail());
    chunks(20);
    spool.bodies[2]!.isBehind = true;
    chunks(1);
    line.conversation.hangUp();
    await settled();
    expect(spool.bodies[2]!.isEnded).toBe(true);
    expect(line.host.timers).toEqual([]);
    expect(line.host.mistakes).toEqual([]);
  });
});

describe("raw()", () => {
  test("is the header block, an empty line and the body, with the changes of earlier filters", () => {
    const raws: (string | null)[] = [];
    const reads: AnyFilter = { collectBody: true, eom: ({ message }) => void raws.push(text(message.raw())) };
    const changes: AnyFilter = {
      collectBody: true,
      eom({ message }) {
        message.addHeader("X-Added", "1");
        message.replaceBody("new\r\n");
      },
    };
    const line = Line.to([reads, changes, reads]);
    line.send(
      cmd.mail(),
      cmd.header("Subject", " a\n b"),
      cmd.header("X", "\tc"),
      cmd.eoh(),
      cmd.body("hi\r\n"),
      cmd.eom(),
    );
    expect(raws).toEqual([
      "Subject: a\r\n b\r\nX:\tc\r\n\r\nhi\r\n",
      "Subject: a\r\n b\r\nX:\tc\r\nX-Added: 1\r\n\r\nnew\r\n",
    ]);
  });

  test("has a Received of ours on top if that is asked for, and needs collectBody", () => {
    const raws: (string | null)[] = [];
    const traced: AnyFilter = {
      collectBody: true,
      eom: ({ message }) => void raws.push(text(message.raw({ withReceived: true }))),
    };
    const without: AnyFilter = { eom: ({ message }) => void message.raw() };
    const line = Line.to([traced, [without, { onError: "continue" }]]);
    line.send(cmd.mail(), cmd.header("Subject", " a"), cmd.eoh(), cmd.body("hi\r\n"), cmd.eom());
    expect(raws[0]).toMatch(/^Received: from [^]*\r\nSubject: a\r\n\r\nhi\r\n$/);
    expect(line.failures[0]!.message).toContain("message.raw() needs collectBody");
  });

  test("is null where the body is", () => {
    const raws: (string | null)[] = [];
    const skips = { collectBody: { max: 1, over: "skip" } as unknown as true };
    const line = Line.to([{ ...skips, eom: ({ message }) => void raws.push(text(message.raw())) }]);
    line.send(cmd.mail(), cmd.body("hi"), cmd.eom());
    expect(raws).toEqual([null]);
  });
});
