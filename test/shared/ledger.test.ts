/** The record in shared memory: what is written is read, also through another view of the same memory. */
import { describe, expect, test } from "bun:test";
import { Counters } from "../../src/counters.ts";
import { Ledger } from "../../src/shared/ledger.ts";
import { Framer } from "../../src/protocol/framer.ts";
import { PHASES } from "../../src/protocol/phases.ts";
import { cmd } from "../protocol/wire.ts";

/** Gives the ledger a whole packet, as the session's tap does. */
function keep(ledger: Ledger, slot: number, bytes: Uint8Array): void {
  const padded = Buffer.concat([Buffer.from("xx"), bytes, Buffer.from("yy")]);
  ledger.keepContext(slot, bytes[4]!, padded, 2 + 5, 2 + bytes.length);
}

const contextOf = (ledger: Ledger, slot: number) => {
  const { context } = ledger.read(slot);
  return context === null ? null : Buffer.from(context).toString("latin1");
};
const together = (...packets: readonly Buffer[]) => Buffer.concat(packets).toString("latin1");

/** A framer that has been given these bytes, and looked through them. */
function surveyed(bytes: Uint8Array): Framer {
  const framer = new Framer(1 << 20);
  framer.push(bytes);
  framer.survey(new Uint8Array(256).fill(1));
  return framer;
}

describe("Ledger", () => {
  test("a record is read as it was written, by whoever maps the memory", () => {
    const ledger = Ledger.create(2, 4);
    const other = new Ledger(ledger.layout);
    ledger.offer(3);
    expect(other.isAdopted(3)).toBe(false);
    ledger.adopt(3);
    expect(other.isAdopted(3)).toBe(true);
    ledger.setOptions(3, 6, 0x1ff, 0x1fffff);
    ledger.setState(3, "connected", 0);
    ledger.recordRead(3, surveyed(Buffer.concat([cmd.mail(), cmd.rcpt(), cmd.body("half").subarray(0, 7)])), 2, 0);
    ledger.setQueueId(3, Buffer.from("xx4ZB1yy"), 2, 6);
    expect(other.read(3)).toMatchObject({
      state: "connected",
      owed: 2,
      firstOwed: 0x4d,
      untaken: 2,
      due: 2,
      begun: new Uint8Array(cmd.body("half").subarray(0, 7)),
      hasAllBegun: true,
      call: null,
      version: 6,
      actions: 0x1ff,
      protocol: 0x1fffff,
      isHalfSent: false,
      isOver: false,
      queueId: "4ZB1",
    });
    ledger.enter(1, 3, PHASES.envfrom, 5, 1);
    expect(other.read(3)).toMatchObject({ call: { phase: "envfrom", filter: 5 }, untaken: 1 });
    ledger.setState(3, "message", 0x72);
    ledger.settle(3, true, 1, 0x52, 0, true);
    expect(other.read(3)).toMatchObject({
      state: "message",
      standing: 0x72,
      owed: 1,
      firstOwed: 0x52,
      untaken: 0,
      isHalfSent: true,
    });
    expect(other.read(3).call).not.toBeNull();
    ledger.setSent(3);
    ledger.settle(3, false, 0, 0, 0, false);
    ledger.setOver(3);
    expect(other.read(3)).toMatchObject({ owed: 0, call: null, isHalfSent: false, isOver: true });
  });

  test("of a packet that has begun it keeps all that fits, else length, code and the byte behind it", () => {
    const ledger = Ledger.create(1, 2);
    const begun = (size: number) => cmd.body("x".repeat(size)).subarray(0, 5 + size - 1);
    const kept = (size: number) => {
      ledger.offer(0);
      ledger.recordRead(0, surveyed(begun(size)), 0, 0);
      const { begun: bytes, due, hasAllBegun } = ledger.read(0);
      return {
        length: bytes.length,
        due,
        hasAllBegun,
        isRight: Buffer.from(bytes).equals(begun(size).subarray(0, bytes.length)),
      };
    };
    expect(kept(400)).toEqual({ length: 404, due: 1, hasAllBegun: true, isRight: true });
    expect(kept(5000)).toEqual({ length: 6, due: 1, hasAllBegun: false, isRight: true });
  });

  test("the packets that begin a session make what is kept of a begun one give way", () => {
    const ledger = Ledger.create(1, 1);
    ledger.recordRead(0, surveyed(cmd.body("x".repeat(600)).subarray(0, 600)), 0, 0);
    expect(ledger.read(0).hasAllBegun).toBe(true);
    keep(ledger, 0, cmd.connect("x".repeat(400)));
    expect(ledger.read(0)).toMatchObject({ hasAllBegun: false, due: 5 });
    expect(contextOf(ledger, 0)).toBe(together(cmd.connect("x".repeat(400))));
  });

  test("how long a phase has waited is told to whoever reads it, what was waited elsewhere included", () => {
    const ledger = Ledger.create(1, 2);
    ledger.wait(1, 0);
    expect(ledger.read(1).waitedMs).toBeLessThan(60_000);
    ledger.wait(1, 100_000);
    expect(ledger.read(1).waitedMs).toBeGreaterThanOrEqual(100_000);
    expect(ledger.read(1).waitedMs).toBeLessThan(160_000);
  });

  test("the slot whose handler runs is known, for that worker alone", () => {
    const ledger = Ledger.create(2, 4);
    expect(ledger.busySlot(0)).toBeNull();
    ledger.enter(0, 0, PHASES.connect, 0, 0);
    expect([ledger.busySlot(0), ledger.busySlot(1)]).toEqual([0, null]);
    ledger.enter(1, 3, PHASES.close, 0, 0);
    ledger.leave(0);
    expect([ledger.busySlot(0), ledger.busySlot(1)]).toEqual([null, 3]);
  });

  test("a row is locked by its worker while it writes, or claimed for good, never both", () => {
    const ledger = Ledger.create(2, 1);
    expect(ledger.lock(1)).toBe(true);
    expect([ledger.claim(1), ledger.isClaimed(1)]).toEqual([false, false]);
    ledger.unlock(1);
    expect([ledger.claim(1), ledger.isClaimed(1), ledger.lock(1)]).toEqual([true, true, false]);
    expect([ledger.isClaimed(0), ledger.lock(0)]).toEqual([false, true]);
    ledger.openRow(1);
    expect(ledger.lock(1)).toBe(true);
  });

  test("beats, heap and counts are of one row, and a new worker begins at nothing", () => {
    const ledger = Ledger.create(2, 1);
    ledger.beat(1, 5 * 2 ** 20);
    ledger.count(1, "messages");
    ledger.count(1, "messages");
    ledger.count(1, "internalErrors");
    const counts = (row: number) => new Counters().totals([ledger.counters(row)]);
    expect([ledger.beats(0), ledger.beats(1), ledger.heapBytes(1)]).toEqual([0, 1, 5 * 2 ** 20]);
    ledger.leave(1);
    expect([ledger.beats(0), ledger.beats(1), ledger.heapBytes(1)]).toEqual([0, 2, 5 * 2 ** 20]);
    expect(counts(1)).toMatchObject({ messages: 2, internalErrors: 1, accepted: 0 });
    expect(counts(0)).toMatchObject({ messages: 0, internalErrors: 0 });
    ledger.openRow(1);
    expect([ledger.beats(1), ledger.heapBytes(1), counts(1).messages]).toEqual([0, 0, 0]);
  });

  test("slots do not touch each other nor the rows, the first and the last included", () => {
    const ledger = Ledger.create(3, 5);
    for (let slot = 0; slot < 5; slot++) {
      ledger.offer(slot);
      ledger.setOptions(slot, slot, slot, slot);
      ledger.setQueueId(slot, Buffer.from(`ID${slot}`.padEnd(60, "x")), 0, 60);
      keep(ledger, slot, cmd.connect(`host${slot}`.repeat(100)));
      ledger.recordRead(slot, surveyed(cmd.body("y".repeat(300)).subarray(0, 300)), 0, 0);
    }
    for (let worker = 0; worker < 3; worker++) {
      expect([ledger.busySlot(worker), ledger.beats(worker), ledger.isClaimed(worker)]).toEqual([null, 0, false]);
    }
    for (let slot = 0; slot < 5; slot++) {
      expect(ledger.read(slot)).toMatchObject({
        version: slot,
        hasAllBegun: true,
        due: 5,
        queueId: `ID${slot}`.padEnd(24, "x"),
      });
      expect(contextOf(ledger, slot)).toBe(together(cmd.connect(`host${slot}`.repeat(100))));
    }
  });

  test("a slot that is offered anew is empty", () => {
    const ledger = Ledger.create(1, 1);
    ledger.adopt(0);
    keep(ledger, 0, cmd.connect());
    ledger.setState(0, "message", 0x72);
    ledger.settle(0, true, 1, 0x43, 3, true);
    ledger.setOver(0);
    ledger.setAhead(0, true, true, true, true);
    ledger.setAnew(0);
    ledger.setRead(0);
    expect(ledger.read(0)).toMatchObject({
      isOver: true,
      hasMacrosAhead: true,
      isBeginningAhead: true,
      isInContext: true,
      answersContext: true,
      isAnew: true,
      hasRead: true,
    });
    ledger.setAhead(0, false, false, true, false);
    expect(ledger.read(0)).toMatchObject({
      isOver: true,
      hasMacrosAhead: false,
      isBeginningAhead: false,
      isInContext: true,
      answersContext: false,
      isAnew: true,
    });
    ledger.offer(0);
    expect(ledger.read(0)).toEqual({
      waitedMs: expect.any(Number),
      state: "start",
      standing: 0,
      owed: 0,
      firstOwed: 0,
      untaken: 0,
      due: 0,
      begun: new Uint8Array(0),
      hasAllBegun: false,
      call: null,
      version: 0,
      actions: 0,
      protocol: 0,
      context: new Uint8Array(0),
      isHalfSent: false,
      isOver: false,
      hasMacrosAhead: false,
      isBeginningAhead: false,
      isInContext: false,
      answersContext: false,
      isAnew: false,
      hasRead: false,
      queueId: "",
      user: "",
      sender: null,
      messageMs: expect.any(Number),
    });
    expect(ledger.isAdopted(0)).toBe(false);
  });
});

describe("Ledger.keepContext", () => {
  const opened = () => {
    const ledger = Ledger.create(1, 2);
    ledger.offer(1);
    return ledger;
  };
  const [macroC, connect, macroH, helo] = [
    cmd.macro("C", { j: "mx" }),
    cmd.connect(),
    cmd.macro("H", { v: "1" }),
    cmd.helo(),
  ];

  test("keeps CONNECT, HELO and their macros as they came, and nothing else", () => {
    const ledger = opened();
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
      keep(ledger, 1, bytes);
    }
    expect(contextOf(ledger, 1)).toBe(together(macroC, connect, macroH, helo));
  });

  test("a second HELO replaces the first, with its macros", () => {
    const ledger = opened();
    for (const bytes of [macroC, connect, macroH, helo]) keep(ledger, 1, bytes);
    const [newMacros, newHelo] = [cmd.macro("H", { "{tls_version}": "TLSv1.3" }), cmd.helo("other.test")];
    keep(ledger, 1, newMacros);
    keep(ledger, 1, newHelo);
    expect(contextOf(ledger, 1)).toBe(together(macroC, connect, newMacros, newHelo));
  });

  test("a second HELO replaces the first where there are no macros", () => {
    const ledger = opened();
    for (const bytes of [connect, helo, cmd.helo("second"), cmd.helo("third")]) keep(ledger, 1, bytes);
    expect(contextOf(ledger, 1)).toBe(together(connect, cmd.helo("third")));
  });

  test("a CONNECT, or its macros, begin anew", () => {
    const ledger = opened();
    for (const bytes of [macroC, connect, macroH, helo, cmd.macro("C", { j: "two" }), cmd.connect("two.test")])
      keep(ledger, 1, bytes);
    expect(contextOf(ledger, 1)).toBe(together(cmd.macro("C", { j: "two" }), cmd.connect("two.test")));
    keep(ledger, 1, cmd.connect("three.test"));
    expect(contextOf(ledger, 1)).toBe(together(cmd.connect("three.test")));
  });

  /** The most that a record holds, found by trying. */
  const room = (() => {
    const fits = (size: number) => {
      const ledger = opened();
      keep(ledger, 1, cmd.connect("x".repeat(size - 5 - 14)));
      return contextOf(ledger, 1) !== null;
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
      const ledger = opened();
      keep(ledger, 1, connect);
      const size = room - connect.length + extra;
      keep(ledger, 1, cmd.helo("h".repeat(size - 6)));
      expect(contextOf(ledger, 1) !== null).toBe(isKept);
    }
  });

  test("once CONNECT or its macros did not fit, nothing that follows makes the record look whole", () => {
    for (const first of [
      [cmd.macro("C", { j: "x".repeat(2000) }), connect],
      [macroC, cmd.connect("x".repeat(2000))],
      [cmd.connect("x".repeat(2000))],
    ]) {
      for (const then of [[macroH, helo], [helo], [macroH, helo, macroH, helo]]) {
        const ledger = opened();
        for (const bytes of [...first, ...then]) keep(ledger, 1, bytes);
        expect(contextOf(ledger, 1)).toBeNull();
      }
    }
  });

  test("after a HELO that did not fit, one that does is kept with the CONNECT before it", () => {
    const ledger = opened();
    for (const bytes of [macroC, connect, cmd.macro("H", { v: "x".repeat(2000) }), helo]) keep(ledger, 1, bytes);
    expect(contextOf(ledger, 1)).toBeNull();
    keep(ledger, 1, macroH);
    keep(ledger, 1, helo);
    expect(contextOf(ledger, 1)).toBe(together(macroC, connect, macroH, helo));
  });

  test("a new session makes the record whole again", () => {
    const ledger = opened();
    for (const bytes of [cmd.connect("x".repeat(2000)), macroC, connect]) keep(ledger, 1, bytes);
    expect(contextOf(ledger, 1)).toBe(together(macroC, connect));
  });

  test("a record that does not fit leaves the next slot alone", () => {
    const ledger = Ledger.create(1, 2);
    keep(ledger, 1, connect);
    keep(ledger, 0, cmd.connect("x".repeat(990)));
    keep(ledger, 0, cmd.connect("x".repeat(3000)));
    expect(contextOf(ledger, 1)).toBe(together(connect));
  });

  test("a context is kept packet by packet when a session goes on elsewhere", () => {
    const ledger = opened();
    ledger.setContext(1, Buffer.concat([macroC, connect, macroH, helo]));
    expect(contextOf(ledger, 1)).toBe(together(macroC, connect, macroH, helo));
    keep(ledger, 1, cmd.helo("second"));
    expect(contextOf(ledger, 1)).toBe(together(macroC, connect, cmd.helo("second")));
    ledger.forgetContext(1);
    expect(contextOf(ledger, 1)).toBe("");
  });
});
