/** The record in shared memory: what is written is read, also through another view of the same memory. */
import { describe, expect, test } from "bun:test";
import { Framer } from "../../src/protocol/framer.ts";
import { PHASES } from "../../src/protocol/phases.ts";
import { AHEAD_FLAGS, FLAG, SessionRecords } from "../../src/shared/session-records.ts";
import { Survey } from "../../src/protocol/survey.ts";
import { cmd } from "../protocol/wire.ts";

/** Gives the records a whole packet, as the session's tap does. */
function keep(records: SessionRecords, slot: number, bytes: Uint8Array): void {
  const padded = Buffer.concat([Buffer.from("xx"), bytes, Buffer.from("yy")]);
  records.keepOpening(slot, bytes[4]!, padded, 2 + 5, 2 + bytes.length);
}

const openingOf = (records: SessionRecords, slot: number) => {
  const { opening } = records.read(slot);
  return opening === null ? null : Buffer.from(opening).toString("latin1");
};
const together = (...packets: readonly Buffer[]) => Buffer.concat(packets).toString("latin1");

/** Puts on record what a read of these bytes has brought. */
function keepRead(records: SessionRecords, slot: number, bytes: Uint8Array): void {
  const framer = new Framer(1 << 20);
  const survey = new Survey();
  framer.push(bytes);
  framer.survey(survey, new Uint8Array(256).fill(1), 0);
  records.setOwed(slot, survey.owed, survey.firstOwed, survey.untaken);
  records.setPartial(slot, framer, survey);
}

describe("SessionRecords", () => {
  test("a record is read as it was written, by whoever maps the memory", () => {
    const records = SessionRecords.create(4);
    const other = new SessionRecords(records.layout);
    records.offer(3);
    expect(other.isAdopted(3)).toBe(false);
    records.adopt(3);
    expect(other.isAdopted(3)).toBe(true);
    records.setOptions(3, 6, 0x1ff, 0x1fffff);
    records.setState(3, "connected", 0);
    keepRead(records, 3, Buffer.concat([cmd.mail(), cmd.rcpt(), cmd.body("half").subarray(0, 7)]));
    records.setQueueId(3, Buffer.from("xx4ZB1yy"), 2, 6);
    expect(other.read(3)).toMatchObject({
      state: "connected",
      owed: 2,
      firstOwed: 0x4d,
      untaken: 2,
      missing: 2,
      partial: new Uint8Array(cmd.body("half").subarray(0, 7)),
      isPartialKept: true,
      call: null,
      version: 6,
      actions: 0x1ff,
      protocol: 0x1fffff,
      isHalfSent: false,
      isOver: false,
      queueId: "4ZB1",
    });
    records.enter(3, PHASES.envfrom, 5, 1);
    expect(other.read(3)).toMatchObject({ call: { phase: "envfrom", filter: 5 }, untaken: 1 });
    records.setState(3, "message", 0x72);
    records.setOwed(3, 1, 0x52, 0);
    records.setFlags(3, FLAG.UNSENT);
    expect(other.read(3)).toMatchObject({
      state: "message",
      pendingCode: 0x72,
      owed: 1,
      firstOwed: 0x52,
      untaken: 0,
      isHalfSent: true,
    });
    expect(other.read(3).call).not.toBeNull();
    records.setFlags(3, FLAG.OVER, FLAG.UNSENT);
    records.endCall(3);
    records.setOwed(3, 0, 0, 0);
    expect(other.read(3)).toMatchObject({ owed: 0, call: null, isHalfSent: false, isOver: true });
  });

  test("of a packet that has begun it keeps all that fits, else length, code and the byte behind it", () => {
    const records = SessionRecords.create(2);
    const begun = (size: number) => cmd.body("x".repeat(size)).subarray(0, 5 + size - 1);
    const kept = (size: number) => {
      records.offer(0);
      keepRead(records, 0, begun(size));
      const { missing, partial: bytes, isPartialKept } = records.read(0);
      return {
        length: bytes.length,
        missing,
        isPartialKept,
        isRight: Buffer.from(bytes).equals(begun(size).subarray(0, bytes.length)),
      };
    };
    expect(kept(400)).toEqual({ length: 404, missing: 1, isPartialKept: true, isRight: true });
    expect(kept(5000)).toEqual({ length: 6, missing: 1, isPartialKept: false, isRight: true });
  });

  test("the packets that begin a session make what is kept of a begun one give way", () => {
    const records = SessionRecords.create(1);
    keepRead(records, 0, cmd.body("x".repeat(600)).subarray(0, 600));
    expect(records.read(0).isPartialKept).toBe(true);
    keep(records, 0, cmd.connect("x".repeat(400)));
    expect(records.read(0)).toMatchObject({ isPartialKept: false, missing: 5 });
    expect(openingOf(records, 0)).toBe(together(cmd.connect("x".repeat(400))));
  });

  test("how long a phase has waited is told to whoever reads it, what was waited elsewhere included", () => {
    const records = SessionRecords.create(2);
    records.wait(1, 0);
    expect(records.read(1).waitedMs).toBeLessThan(60_000);
    records.wait(1, 100_000);
    expect(records.read(1).waitedMs).toBeGreaterThanOrEqual(100_000);
    expect(records.read(1).waitedMs).toBeLessThan(160_000);
  });

  test("slots do not touch each other, the first and the last included", () => {
    const records = SessionRecords.create(5);
    for (let slot = 0; slot < 5; slot++) {
      records.offer(slot);
      records.setOptions(slot, slot, slot, slot);
      records.setQueueId(slot, Buffer.from(`ID${slot}`.padEnd(60, "x")), 0, 60);
      keep(records, slot, cmd.connect(`host${slot}`.repeat(100)));
      keepRead(records, slot, cmd.body("y".repeat(300)).subarray(0, 300));
    }
    for (let slot = 0; slot < 5; slot++) {
      expect(records.read(slot)).toMatchObject({
        version: slot,
        isPartialKept: true,
        missing: 5,
        queueId: `ID${slot}`.padEnd(24, "x"),
      });
      expect(openingOf(records, slot)).toBe(together(cmd.connect(`host${slot}`.repeat(100))));
    }
  });

  test("a slot that is offered anew is empty", () => {
    const records = SessionRecords.create(1);
    records.adopt(0);
    keep(records, 0, cmd.connect());
    records.setState(0, "message", 0x72);
    records.setOwed(0, 1, 0x43, 3);
    records.setFlags(0, FLAG.OVER | AHEAD_FLAGS);
    records.setFlags(0, FLAG.ANEW | FLAG.READ | FLAG.UNSENT);
    expect(records.read(0)).toMatchObject({
      isOver: true,
      hasMacrosAhead: true,
      isOpeningAhead: true,
      isInOpening: true,
      answersOpening: true,
      isAnew: true,
      hasRead: true,
    });
    records.setFlags(0, FLAG.IN_OPENING, AHEAD_FLAGS);
    expect(records.read(0)).toMatchObject({
      isOver: true,
      hasMacrosAhead: false,
      isOpeningAhead: false,
      isInOpening: true,
      answersOpening: false,
      isAnew: true,
    });
    records.offer(0);
    expect(records.read(0)).toEqual({
      waitedMs: expect.any(Number),
      state: "start",
      pendingCode: 0,
      owed: 0,
      firstOwed: 0,
      untaken: 0,
      missing: 0,
      partial: new Uint8Array(0),
      isPartialKept: false,
      call: null,
      version: 0,
      actions: 0,
      protocol: 0,
      opening: new Uint8Array(0),
      isHalfSent: false,
      isOver: false,
      hasMacrosAhead: false,
      isOpeningAhead: false,
      isInOpening: false,
      answersOpening: false,
      isAnew: false,
      hasRead: false,
      queueId: "",
      user: "",
      sender: null,
      messageMs: expect.any(Number),
    });
    expect(records.isAdopted(0)).toBe(false);
  });
});

describe("SessionRecords.keepOpening", () => {
  const opened = () => {
    const records = SessionRecords.create(2);
    records.offer(1);
    return records;
  };
  const [macroC, connect, macroH, helo] = [
    cmd.macro("C", { j: "mx" }),
    cmd.connect(),
    cmd.macro("H", { v: "1" }),
    cmd.helo(),
  ];

  test("keeps CONNECT, HELO and their macros as they came, and nothing else", () => {
    const records = opened();
    for (const bytes of [
      macroC,
      connect,
      macroH,
      helo,
      cmd.macro("M", { i: "1" }),
      cmd.mail(),
      cmd.rcpt(),
      cmd.body(),
      cmd.eom(),
    ]) {
      keep(records, 1, bytes);
    }
    expect(openingOf(records, 1)).toBe(together(macroC, connect, macroH, helo));
  });

  test("a second HELO replaces the first, with its macros", () => {
    const records = opened();
    for (const bytes of [macroC, connect, macroH, helo]) keep(records, 1, bytes);
    const [newMacros, newHelo] = [cmd.macro("H", { "{tls_version}": "TLSv1.3" }), cmd.helo("other.test")];
    keep(records, 1, newMacros);
    keep(records, 1, newHelo);
    expect(openingOf(records, 1)).toBe(together(macroC, connect, newMacros, newHelo));
  });

  test("a second HELO replaces the first where there are no macros", () => {
    const records = opened();
    for (const bytes of [connect, helo, cmd.helo("second"), cmd.helo("third")]) keep(records, 1, bytes);
    expect(openingOf(records, 1)).toBe(together(connect, cmd.helo("third")));
  });

  test("a CONNECT, or its macros, begin anew", () => {
    const records = opened();
    for (const bytes of [macroC, connect, macroH, helo, cmd.macro("C", { j: "two" }), cmd.connect("two.test")])
      keep(records, 1, bytes);
    expect(openingOf(records, 1)).toBe(together(cmd.macro("C", { j: "two" }), cmd.connect("two.test")));
    keep(records, 1, cmd.connect("three.test"));
    expect(openingOf(records, 1)).toBe(together(cmd.connect("three.test")));
  });

  /** The most that a record holds, found by trying. */
  const room = (() => {
    const fits = (size: number) => {
      const records = opened();
      keep(records, 1, cmd.connect("x".repeat(size - 5 - 14)));
      return openingOf(records, 1) !== null;
    };
    let size = 500;
    while (fits(size + 1)) size++;
    return size;
  })();

  test("a record that does not fit is null, exactly from one byte more", () => {
    expect(room).toBeGreaterThan(900);
    for (const [extra, isKept] of [
      [0, true],
      [1, false],
    ] as const) {
      const records = opened();
      keep(records, 1, connect);
      const size = room - connect.length + extra;
      keep(records, 1, cmd.helo("h".repeat(size - 6)));
      expect(openingOf(records, 1) !== null).toBe(isKept);
    }
  });

  test("once CONNECT or its macros did not fit, nothing that follows makes the record look whole", () => {
    for (const first of [
      [cmd.macro("C", { j: "x".repeat(2000) }), connect],
      [macroC, cmd.connect("x".repeat(2000))],
      [cmd.connect("x".repeat(2000))],
    ]) {
      for (const then of [[macroH, helo], [helo], [macroH, helo, macroH, helo]]) {
        const records = opened();
        for (const bytes of [...first, ...then]) keep(records, 1, bytes);
        expect(openingOf(records, 1)).toBeNull();
      }
    }
  });

  test("after a HELO that did not fit, one that does is kept with the CONNECT before it", () => {
    const records = opened();
    for (const bytes of [macroC, connect, cmd.macro("H", { v: "x".repeat(2000) }), helo]) keep(records, 1, bytes);
    expect(openingOf(records, 1)).toBeNull();
    keep(records, 1, macroH);
    keep(records, 1, helo);
    expect(openingOf(records, 1)).toBe(together(macroC, connect, macroH, helo));
  });

  test("a new session makes the record whole again", () => {
    const records = opened();
    for (const bytes of [cmd.connect("x".repeat(2000)), macroC, connect]) keep(records, 1, bytes);
    expect(openingOf(records, 1)).toBe(together(macroC, connect));
  });

  test("a record that does not fit leaves the next slot alone", () => {
    const records = SessionRecords.create(2);
    keep(records, 1, connect);
    keep(records, 0, cmd.connect("x".repeat(990)));
    keep(records, 0, cmd.connect("x".repeat(3000)));
    expect(openingOf(records, 1)).toBe(together(connect));
  });

  test("a opening is kept packet by packet when a session goes on elsewhere", () => {
    const records = opened();
    records.setOpening(1, Buffer.concat([macroC, connect, macroH, helo]));
    expect(openingOf(records, 1)).toBe(together(macroC, connect, macroH, helo));
    keep(records, 1, cmd.helo("second"));
    expect(openingOf(records, 1)).toBe(together(macroC, connect, cmd.helo("second")));
    records.forgetOpening(1);
    expect(openingOf(records, 1)).toBe("");
  });
});
