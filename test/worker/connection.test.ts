/** A connection in its worker: what is on record at each step, and what it still does once it ends or is released. */
import { TIMERS } from "../../src/testing/in-memory.ts";
import { testServices } from "../../src/testing/services.ts";
import { RunningOutcomes } from "../../src/handler/outcomes.ts";
import { describe, expect, test } from "bun:test";
import { Chain } from "../../src/handler/chain.ts";
import { checkFilter } from "../../src/handler/filter.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { SessionRecords } from "../../src/shared/session-records.ts";
import { WorkerRows } from "../../src/shared/worker-rows.ts";
import type { Changes } from "../../src/handler/types.ts";
import { Connection, type ConnectionHome } from "../../src/worker/connection.ts";
import { ALL, ALL_NR, cmd, packetsOf } from "../protocol/wire.ts";

const LIMITS = { packet: 1 << 20, headers: 9, headerBytes: 1 << 16, recipients: 99, macros: 1 << 12, body: 1 << 16 };

/** A connection with a socket that says what was done to it. */
class Trial {
  readonly calls: string[] = [];
  readonly rows = WorkerRows.create(1);
  readonly records = SessionRecords.create(1);
  readonly home: ConnectionHome;
  readonly connection: Connection;
  written = Buffer.alloc(0);
  /** Milliseconds that pass with each look at the clock. */
  step = 0;
  /** Called by the handler of recipients. */
  atRecipient: () => void = () => undefined;
  /** Number of bytes that the socket takes of a write of so many; negative: the peer is gone. */
  takes: (length: number) => number = (length) => length;
  /** Called by the handler at the end of a message. */
  atEnd: (message: Changes) => void = () => undefined;
  #now = 0;

  constructor() {
    const loaded = checkFilter(
      {
        envrcpt: () => this.atRecipient(),
        eom: ({ message }: { message: Changes }) => this.atEnd(message),
        close() {},
      },
      "trial",
    );
    const filter = { index: 0, loaded, timeoutMs: null, isObserved: false, options: {}, own: undefined, files: {} };
    const chain = new Chain([{ ...filter, onError: "tempfail", onTimeout: "tempfail" }], {
      onError: "tempfail",
      handlerTimeoutMs: 1000,
      eomTimeoutMs: 1000,
      deferContent: false,
      limits: LIMITS,
    });
    this.home = {
      row: 0,
      chainOf: () => chain,
      wantsFor: () => chain.wants,
      services: testServices(TIMERS),
      spool: null,
      writer: new ReplyWriter(1024),
      workerRows: this.rows,
      records: this.records,
      reportsAccepted: false,
      outcomes: new RunningOutcomes(),
      logs: () => false,
      isTrial: false,
      tracesPackets: false,
      now: () => (this.#now += this.step),
      report: () => undefined,
      log: () => undefined,
      closed: () => void this.calls.push("given back"),
      releaseFor: null,
      isStandIn: false,
      released: () => void this.calls.push("handed over"),
    };
    this.connection = new Connection(this.home, 0, "unix:test");
    const tell = (name: string) => () => void this.calls.push(name);
    const socket = {
      write: (bytes: Uint8Array, offset: number, length: number) => {
        const taken = this.takes(length);
        this.written = Buffer.concat([this.written, bytes.subarray(offset, offset + Math.max(0, taken))]);
        return taken;
      },
      shutdown: tell("shutdown"),
      end: tell("end"),
      pause: tell("pause"),
      resume: tell("resume"),
      terminate: tell("terminate"),
    };
    this.connection.opened(socket as never);
  }

  begin(): this {
    this.connection.data(Buffer.concat([cmd.optneg(6, 0x1ff, ALL & ~ALL_NR), cmd.connect(), cmd.helo()]));
    return this;
  }

  /** The codes of what was written since this was last asked. */
  replies(): string {
    const codes = packetsOf(this.written).map((packet) => packet[0]);
    this.written = Buffer.alloc(0);
    return codes.join("");
  }
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("the record of its session", () => {
  test("has the opening, the sender, and between two reads nothing that is owed", () => {
    const trial = new Trial().begin();
    trial.connection.data(Buffer.concat([cmd.macro("M", { i: "4ZB1" }), cmd.mail("<a@b.test>")]));
    const { opening, ...record } = trial.records.read(0);
    expect(Buffer.from(opening!)).toEqual(Buffer.concat([cmd.connect(), cmd.helo()]));
    expect(record).toMatchObject({
      state: "message",
      queueId: "4ZB1",
      sender: "<a@b.test>",
      version: 6,
      hasRead: true,
    });
    expect(record).toMatchObject({ call: null, owed: 0, untaken: 0, missing: 0 });
  });

  test("has the call, the owed replies and the partial packet before a handler runs, and the worker is busy with it", () => {
    const trial = new Trial().begin();
    trial.connection.data(cmd.mail());
    const seen: unknown[] = [];
    trial.atRecipient = () => {
      const { call, isPartialKept, missing, owed, partial, untaken } = trial.records.read(0);
      seen.push({
        call,
        isPartialKept,
        missing,
        owed,
        partial: Buffer.from(partial),
        untaken,
        busy: trial.rows.busySlot(0),
      });
    };
    const half = cmd.rcpt().subarray(0, 7);
    trial.connection.data(Buffer.concat([cmd.rcpt(), cmd.rcpt(), half]));
    const common = { call: { phase: "envrcpt", filter: 0 }, isPartialKept: true, partial: half, busy: 0 };
    const missing = cmd.rcpt().length - half.length;
    expect(seen).toEqual([
      { ...common, missing, owed: 2, untaken: 1 },
      { ...common, missing, owed: 2, untaken: 0 },
    ]);
    expect(trial.records.read(0)).toMatchObject({ call: null, owed: 0, untaken: 0, missing });
    expect(trial.rows.busySlot(0)).toBeNull();
  });
});

describe("a connection that is released", () => {
  const released = () => {
    const trial = new Trial().begin();
    trial.home.releaseFor = { all: [], deferContent: false };
    trial.replies();
    trial.connection.release();
    return trial;
  };

  test("is closed here without its peer noticing, and handed over when the socket is gone, once", () => {
    const trial = released();
    expect(trial.calls).toEqual(["pause", "end"]);
    trial.connection.disconnected();
    trial.connection.disconnected();
    expect(trial.calls).toEqual(["pause", "end", "handed over"]);
    expect(trial.records.read(0)).toMatchObject({ isOver: false, state: "connected" });
  });

  test("reads nothing any more, and is not ended for its peer, whatever happens here", () => {
    const trial = released();
    trial.connection.data(cmd.mail());
    trial.connection.cut("the server stops");
    trial.connection.failed(new Error("a mistake"));
    trial.connection.release();
    expect([trial.calls, trial.replies()]).toEqual([["pause", "end"], ""]);
  });
});

describe("a connection that ends", () => {
  test("is ended for its peer, reads nothing any more, and gives its slot back once", () => {
    const trial = new Trial().begin();
    trial.replies();
    trial.connection.cut("it was idle");
    trial.connection.data(cmd.mail());
    expect([trial.calls, trial.replies()]).toEqual([["shutdown", "end"], ""]);
    expect(trial.records.read(0).isOver).toBe(true);
    trial.home.releaseFor = { all: [], deferContent: false };
    trial.connection.release();
    trial.connection.disconnected();
    trial.connection.disconnected();
    expect(trial.calls).toEqual(["shutdown", "end", "given back"]);
  });

  test("by a mistake is ended for its peer, also if what was thrown throws when it is looked at", () => {
    const throws = (): never => {
      throw new Error("a trap");
    };
    const thrown = new Proxy(new Error("a mistake"), { get: throws, getPrototypeOf: throws, has: throws });
    const trial = new Trial().begin();
    trial.replies();
    trial.connection.failed(thrown);
    expect([trial.calls, trial.replies()]).toEqual([["shutdown", "end"], ""]);
  });

  test("writes nothing into its slot once that was given back: it is another connection's", () => {
    const trial = new Trial().begin();
    trial.connection.disconnected();
    trial.records.offer(0);
    trial.connection.failed(new Error("a mistake"));
    trial.connection.cut("it was idle");
    trial.connection.resume();
    trial.connection.flush();
    expect(trial.records.read(0)).toMatchObject({ isOver: false, state: "start", owed: 0 });
    expect(trial.calls).toEqual(["given back"]);
  });
});

describe("a connection whose turn is over", () => {
  /** It has had its turn with most of 50 commands still to be worked on. */
  const yielding = () => {
    const trial = new Trial().begin();
    trial.connection.data(cmd.mail());
    trial.replies();
    trial.step = 30;
    trial.connection.data(Buffer.concat(Array.from({ length: 50 }, () => cmd.rcpt())));
    const { length } = trial.replies();
    expect(length).toBeGreaterThan(0);
    expect(length).toBeLessThan(50);
    trial.step = 0;
    return { trial, left: 50 - length };
  };

  test("goes on by itself after the others, with what has come meanwhile", async () => {
    const { left, trial } = yielding();
    trial.connection.data(cmd.rcpt());
    expect(trial.replies()).toBe("");
    await turn();
    expect(trial.replies()).toBe("c".repeat(left + 1));
    trial.connection.data(cmd.rcpt());
    expect(trial.replies()).toBe("c");
  });

  test("does not go on if it was ended meanwhile", async () => {
    const { trial } = yielding();
    trial.connection.cut("the server stops");
    await turn();
    expect([trial.replies(), trial.calls]).toEqual(["", ["shutdown", "end"]]);
  });
});

describe("a connection that sends a large body", () => {
  const BODY = Buffer.alloc(3_000_000, "0123456789abcde\n").toString();
  const NEW = Buffer.from(BODY.replaceAll("\n", "\r\n"));

  /** The message has ended, and the reply to it is on its way. */
  const sending = (takes?: Trial["takes"]) => {
    const trial = new Trial().begin();
    trial.replies();
    if (takes !== undefined) trial.takes = takes;
    trial.atEnd = (message) => {
      message.addHeader("X-First", "1");
      message.replaceBody(BODY);
    };
    trial.connection.data(Buffer.concat([cmd.mail(), cmd.eom()]));
    return trial;
  };
  /** What the message's end got. */
  const packets = (trial: Trial) => packetsOf(trial.written).slice(1);

  test("a quarter of a megabyte in a turn, by itself; what comes meanwhile is worked on after it", async () => {
    const trial = sending();
    let turns = 0;
    for (let before = 0; trial.records.read(0).isHalfSent; turns++) {
      expect(trial.written.length - before).toBeLessThanOrEqual(256 * 1024);
      before = trial.written.length;
      if (turns === 2) trial.connection.data(Buffer.concat([cmd.mail(), cmd.rcpt()]));
      await turn();
    }
    expect(turns).toBe(Math.floor((NEW.length + 5 * 48) / (256 * 1024)));
    const [header, ...rest] = packets(trial);
    const body = rest.slice(0, Math.ceil(NEW.length / 65_535));
    expect(header).toBe("hX-First\0 1\0");
    expect(body.map((text) => text.slice(1)).join("") === NEW.toString("latin1")).toBe(true);
    // The final reply, and the replies to the next message.
    expect(rest.slice(body.length)).toEqual(["c", "c", "c"]);
    expect(trial.calls).toEqual([]);
  });

  test("as the socket takes it: nothing is written before it is ready again, and the record says that it is half sent", async () => {
    const trial = sending(() => 0);
    trial.takes = (length) => Math.min(length, 100_000);
    await turn();
    expect(trial.written).toHaveLength(0);
    let drains = 0;
    for (; trial.records.read(0).isHalfSent; drains++) trial.connection.drained();
    expect(drains).toBeGreaterThanOrEqual(Math.floor(NEW.length / 100_000));
    expect(packets(trial).at(-1)).toBe("c");
    expect(trial.records.read(0)).toMatchObject({ isHalfSent: false, owed: 0, untaken: 0 });
  });

  test("no event is taken while it waits, however many were read", () => {
    const trial = new Trial().begin();
    trial.replies();
    let ends = 0;
    trial.atEnd = (message) => {
      ends += 1;
      message.replaceBody(BODY);
    };
    trial.takes = () => 0;
    trial.connection.data(Buffer.concat(Array.from({ length: 20 }, () => [cmd.mail(), cmd.eom()]).flat()));
    expect(ends).toBe(1);
  });

  test("the rest is dropped if the peer goes, is found to be gone, or the connection is cut", async () => {
    const ends: Record<string, (trial: Trial) => void> = {
      goes: (trial) => trial.connection.disconnected(),
      "is gone": (trial) => {
        trial.takes = () => -1;
        trial.connection.drained();
      },
      "is cut": (trial) => trial.connection.cut("the server stops"),
    };
    for (const [name, end] of Object.entries(ends)) {
      const trial = sending();
      const { length } = trial.written;
      end(trial);
      await turn();
      expect([name, trial.written.length]).toEqual([name, length]);
      expect(trial.records.read(0).isOver).toBe(true);
    }
  });
});
