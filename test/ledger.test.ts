/** The record in shared memory: what is written is read, also through another view of the same memory. */
import { describe, expect, test } from "bun:test";
import { Ledger } from "../src/ledger.ts";
import { cmd } from "./protocol/wire.ts";

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

describe("Ledger", () => {
  test("a record is read as it was written, by whoever maps the memory", () => {
    const ledger = Ledger.create(2, 4);
    const other = new Ledger(ledger.layout);
    ledger.open(3, 0x74);
    ledger.setOptions(3, 6, 0x1ff, 0x1fffff);
    ledger.enter(1, 3, 17, 2, 0x4d, 5000);
    expect(other.read(3)).toMatchObject({
      due: 17,
      owed: 2,
      firstOwed: 0x4d,
      fallback: 0x74,
      isInMessage: false,
      version: 6,
      actions: 0x1ff,
      protocol: 0x1fffff,
    });
    ledger.leave(1, 3, true, 1);
    expect(other.read(3)).toMatchObject({ owed: 1, isInMessage: true });
    ledger.leave(1, 3, false, 0);
    expect(other.read(3)).toMatchObject({ owed: 0, isInMessage: false });
  });

  test("busy tells the slot and since when, for that worker alone", () => {
    const ledger = Ledger.create(2, 4);
    expect(ledger.busy(0)).toBeNull();
    ledger.enter(0, 0, 0, 0, 0, 1234);
    expect([ledger.busy(0), ledger.busy(1)]).toEqual([{ slot: 0, since: 1234 }, null]);
    ledger.enter(1, 3, 0, 0, 0, 0);
    expect(ledger.busy(1)).not.toBeNull();
    ledger.leave(0, 0, false, 0);
    expect([ledger.busy(0), ledger.busy(1)?.slot]).toEqual([null, 3]);
  });

  test("slots do not touch each other, the first and the last included", () => {
    const ledger = Ledger.create(3, 5);
    for (let slot = 0; slot < 5; slot++) {
      ledger.open(slot, 100 + slot);
      ledger.setOptions(slot, slot, slot, slot);
      keep(ledger, slot, cmd.connect(`host${slot}`.repeat(100)));
    }
    for (let worker = 0; worker < 3; worker++) expect(ledger.busy(worker)).toBeNull();
    for (let slot = 0; slot < 5; slot++) {
      expect(ledger.read(slot)).toMatchObject({ fallback: 100 + slot, version: slot });
      expect(contextOf(ledger, slot)).toBe(together(cmd.connect(`host${slot}`.repeat(100))));
    }
  });

  test("a slot that is given to a new connection is empty", () => {
    const ledger = Ledger.create(1, 1);
    ledger.open(0, 1);
    keep(ledger, 0, cmd.connect());
    ledger.enter(0, 0, 5, 1, 0x43, 1);
    ledger.leave(0, 0, true, 1);
    ledger.open(0, 2);
    expect(ledger.read(0)).toMatchObject({
      due: 0,
      owed: 0,
      firstOwed: 0,
      fallback: 2,
      isInMessage: false,
      version: 0,
    });
    expect(contextOf(ledger, 0)).toBe("");
  });
});

describe("Ledger.keepContext", () => {
  const opened = () => {
    const ledger = Ledger.create(1, 2);
    ledger.open(1, 0x74);
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
    ledger.open(0, 1);
    ledger.open(1, 2);
    keep(ledger, 1, connect);
    keep(ledger, 0, cmd.connect("x".repeat(990)));
    keep(ledger, 0, cmd.connect("x".repeat(3000)));
    expect(contextOf(ledger, 1)).toBe(together(connect));
    expect(ledger.read(1).fallback).toBe(2);
  });
});
