/** A session that was begun in another worker: its opening is replayed, and the verdicts that it brings are in force. */
import { describe, expect, test } from "bun:test";
import { PLAIN_REPLIES, ReplyWriter } from "../../src/protocol/encode.ts";
import type { Resumption } from "../../src/protocol/resumption.ts";
import { MilterSession } from "../../src/protocol/session.ts";
import { cmd, packetsOf } from "./wire.ts";

const OPENING = [cmd.macro("C", { j: "mx" }), cmd.connect(), cmd.macro("H", { v: "1" }), cmd.helo()];

const RESUMPTION: Resumption = {
  version: 6,
  actions: 0x1ff,
  protocol: 0,
  opening: Buffer.concat(OPENING),
  answersOpening: false,
  waitedMs: 0,
  pending: null,
  nextMessage: null,
  partial: new Uint8Array(0),
  lost: null,
};

/** A session that was resumed, and lets each event pass. */
class Resumed {
  readonly writer = new ReplyWriter();
  readonly session = new MilterSession(
    { actions: 0, protocol: 0, macros: {} },
    { packet: 1 << 20, macros: 4096 },
    this.writer,
  );
  /** The events since this was last asked. */
  events: string[] = [];

  constructor(resumption: Partial<Resumption>) {
    this.session.resume({ ...RESUMPTION, ...resumption });
  }

  /** @returns the codes of the replies */
  run(bytes?: Uint8Array, refuses?: string): string {
    const { session, writer } = this;
    this.events = [];
    if (bytes !== undefined) session.push(bytes);
    session.survey();
    for (let event = session.next(); event !== null; event = session.next()) {
      this.events.push(event.name);
      if (event.name === refuses) session.decideConnection(PLAIN_REPLIES.REJECT);
      else session.proceed();
      if (event.name === "eom" || event.name === "abort") session.endMessage();
    }
    const codes = packetsOf(writer.copy()).map((reply) => reply[0]);
    writer.clear();
    return codes.join("");
  }
}

describe("the opening", () => {
  test("is replayed without replies, and the next command gets its own", () => {
    const resumed = new Resumed({});
    expect(resumed.session.isInOpening).toBe(true);
    expect([resumed.run(), resumed.events]).toEqual(["", ["connect", "helo"]]);
    expect(resumed.session.macros.get("j")).toBe("mx");
    expect([resumed.run(cmd.mail()), resumed.events]).toEqual(["c", ["envfrom"]]);
    expect([resumed.session.isInOpening, resumed.session.isReplay]).toEqual([false, false]);
  });

  test("gets the reply that its last packet still waits for", () => {
    const resumed = new Resumed({ answersOpening: true });
    expect(resumed.run()).toBe("c");
    expect(resumed.run(cmd.mail())).toBe("c");
  });

  test("does not count as unread, and owes only the reply that is still to come", () => {
    for (const [answersOpening, owed] of [
      [false, 1],
      [true, 2],
    ] as const) {
      const { session } = new Resumed({ answersOpening });
      session.push(cmd.mail());
      session.survey();
      expect([session.untaken, session.unread.owed, session.isOpeningAhead]).toEqual([1, owed, false]);
    }
  });

  test("is not all that began the session, where a further HELO has come behind it", () => {
    const { session } = new Resumed({ answersOpening: true });
    session.push(cmd.helo("other"));
    session.survey();
    expect(session.isOpeningAhead).toBe(true);
  });
});

describe("a pending verdict", () => {
  const onMessage = { pending: { scope: "message", packet: PLAIN_REPLIES.TEMPFAIL } } as const;
  const onConnection = { pending: { scope: "connection", packet: PLAIN_REPLIES.REJECT } } as const;

  test("on the message is the reply to the rest of it, and the next message is asked about", () => {
    const resumed = new Resumed(onMessage);
    const { session } = resumed;
    expect([session.resumableState, String.fromCharCode(session.pendingCode)]).toEqual(["decided", "t"]);
    expect(resumed.run(Buffer.concat([cmd.rcpt(), cmd.eom()]))).toBe("tt");
    expect([resumed.run(cmd.mail()), resumed.events]).toEqual(["c", ["envfrom"]]);
  });

  test("on the connection is the reply to all commands", () => {
    const resumed = new Resumed(onConnection);
    expect(resumed.session.resumableState).toBe("refused");
    expect(resumed.run(Buffer.concat([cmd.mail(), cmd.rcpt()]))).toBe("rr");
    expect(resumed.session.state).toBe("refused");
  });

  test("on the message gives way where handlers refuse the opening", () => {
    const resumed = new Resumed(onMessage);
    expect(resumed.run(undefined, "helo")).toBe("");
    expect(resumed.run(cmd.rcpt())).toBe("r");
  });

  test("on the next message is the reply to its first command, and no handler is asked about it", () => {
    const resumed = new Resumed({ nextMessage: PLAIN_REPLIES.TEMPFAIL });
    expect(resumed.session.hasMacrosAhead).toBe(true);
    resumed.run();
    expect([resumed.run(Buffer.concat([cmd.mail(), cmd.rcpt()])), resumed.events]).toEqual(["tt", []]);
    expect([resumed.run(cmd.abort()), resumed.run(cmd.mail())]).toEqual(["", "c"]);
  });
});

describe("a partial packet", () => {
  test("that was kept is completed by the next read", () => {
    const mail = cmd.mail();
    const resumed = new Resumed({ partial: mail.subarray(0, 7) });
    expect(resumed.run()).toBe("");
    expect([resumed.run(mail.subarray(7)), resumed.events]).toEqual(["c", ["envfrom"]]);
  });

  test("that was lost is passed over, and gets its reply by its code alone", () => {
    const resumed = new Resumed({
      pending: { scope: "message", packet: PLAIN_REPLIES.REJECT },
      lost: { missing: 9, code: 0x52 },
    });
    expect(resumed.run()).toBe("");
    expect(resumed.run(Buffer.from("123456789"))).toBe("r");
  });
});
