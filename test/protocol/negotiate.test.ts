/** docs/protocol.md, "Negotiation": what is wanted, cut to what was offered and to what the version knows. */
import { describe, expect, test } from "bun:test";
import { namesOf, ACTION, PROTOCOL } from "../../src/protocol/constants.ts";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { negotiate, readOffer, type Wants } from "../../src/protocol/negotiate.ts";
import { forSeeds, mustEqual } from "./random.ts";
import { fromHex } from "./wire.ts";

const EVERYTHING: Wants = { actions: 0x1ff, protocol: 0x1fffff, macros: {} };

function answer(version: number, actions: number, protocol: number, wants: Wants = EVERYTHING) {
  return negotiate({ version, actions, protocol }, wants);
}

describe("readOffer", () => {
  test("reads three words, and passes over what follows", () => {
    const bytes = fromHex("ff 00000006 000001ff 001fffff 00000000 78");
    expect(readOffer(bytes, 1, bytes.length)).toEqual({ version: 6, actions: 0x1ff, protocol: 0x1fffff });
  });

  test("reads words without a sign", () => {
    const bytes = fromHex("80000006 ffffffff f0000000");
    expect(readOffer(bytes, 0, 12)).toEqual({ version: 0x80000006, actions: 0xffffffff, protocol: 0xf0000000 });
  });

  test.each([
    ["11 bytes", "00000006 000001ff 001fff", "PMILTER_ERR_TOO_SHORT"],
    ["nothing", "", "PMILTER_ERR_TOO_SHORT"],
    ["version 1", "00000001 0000000f 0000003f", "PMILTER_ERR_VERSION"],
    ["version 0", "00000000 0000000f 0000003f", "PMILTER_ERR_VERSION"],
  ])("refuses %s", (_name, hex, code) => {
    const bytes = fromHex(hex);
    try {
      readOffer(bytes, 0, bytes.length);
      expect.unreachable();
    } catch (error) {
      expect((error as ProtocolError).code as string).toBe(code);
    }
  });
});

describe("negotiate", () => {
  test.each([
    [2, 2],
    [3, 3],
    [4, 4],
    [5, 5],
    [6, 6],
    [7, 6],
    [8, 6],
    [0xffffffff, 6],
  ])("answers version %d with %d", (offered, answered) => {
    expect(answer(offered, 0x1ff, 0x1fffff).version).toBe(answered);
  });

  test("an offer of 0 stands for the flags of version 1", () => {
    const { actions, protocol } = answer(6, 0, 0);
    expect([actions, protocol]).toEqual([0x0f, 0x3f]);
  });

  test("never sets a bit that was not offered, nor one that was not wanted", () => {
    forSeeds(3000, (random) => {
      const version = 2 + random.below(7);
      const offer = { version, actions: random.u32(), protocol: random.u32() };
      const wants = { actions: random.u32() & 0x1ff, protocol: random.u32() & 0x1fffff, macros: {} };
      const given = negotiate(offer, wants);
      mustEqual(given.actions & ~offer.actions, 0, "actions outside the offer");
      mustEqual(given.actions & ~wants.actions, 0, "actions not wanted");
      mustEqual(given.protocol & ~offer.protocol, 0, "protocol flags outside the offer");
      mustEqual(given.protocol & ~wants.protocol, 0, "protocol flags not wanted");
    });
  });

  test("grants with version 6 all that is offered and wanted", () => {
    forSeeds(1000, (random) => {
      const actions = 1 + random.below(0xff);
      const protocol = 1 + random.below(0x1fffff);
      const given = answer(6, actions, protocol);
      mustEqual([given.actions, given.protocol], [actions, protocol], "masks");
    });
  });

  test("strips the internal bits 28 to 30 and every bit without a name", () => {
    expect(answer(6, 0xffffffff, 0xffffffff, { ...EVERYTHING, protocol: -1, actions: -1 }).protocol).toBe(0x1fffff);
    expect(answer(6, 0x1ff, 0x70000000).protocol).toBe(0);
  });

  test("asks an older version for nothing that it does not have", () => {
    const names = (version: number) => namesOf(PROTOCOL, answer(version, 0xffffffff, 0xffffffff).protocol);
    const old = ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOBODY", "NOHDRS", "NOEOH", "NR_HDR"];
    expect(names(2)).toEqual(old);
    expect(names(3)).toEqual([...old, "NOUNKNOWN"]);
    expect(names(4)).toEqual([...old, "NOUNKNOWN", "NODATA"]);
    expect(names(5)).toEqual([...old, "NOUNKNOWN", "NODATA"]);
    expect(names(6)).toHaveLength(21);
  });

  test("uses no action of version 6 with an older version", () => {
    for (const version of [2, 3, 4, 5]) {
      expect(namesOf(ACTION, answer(version, 0x1ff, 0x1fffff).actions)).toEqual([
        "ADDHDRS",
        "CHGBODY",
        "ADDRCPT",
        "DELRCPT",
        "CHGHDRS",
        "QUARANTINE",
      ]);
      const macros = { CONNECT: ["j"] };
      expect(answer(version, 0x1ff, 0x1fffff, { ...EVERYTHING, macros }).lists).toEqual([]);
    }
  });
});

describe("negotiate, macro lists", () => {
  const ask = (macros: Wants["macros"], actions = 0x1ff) =>
    negotiate({ version: 6, actions, protocol: 0x1fffff }, { actions: 0, protocol: 0, macros });

  test("sets SETSYMLIST if, and only if, there is a list", () => {
    expect(ask({ CONNECT: ["j"] }).actions).toBe(0x100);
    expect(ask({}).actions).toBe(0);
    expect(
      negotiate({ version: 6, actions: 0x1ff, protocol: 0 }, { actions: 0x1ff, protocol: 0, macros: {} }).actions,
    ).toBe(0xff);
  });

  test("sends no list where SETSYMLIST was not offered", () => {
    const given = ask({ CONNECT: ["j"] }, 0x0ff);
    expect([given.actions, given.lists]).toEqual([0, []]);
  });

  test("numbers stages as SETSYMLIST does, in ascending order", () => {
    const given = ask({ EOH: ["h"], EOM: ["e"], DATA: ["d"], RCPT: ["r"], MAIL: ["m"], HELO: ["l"], CONNECT: ["c"] });
    expect(given.lists.map((list) => `${list.stage}${list.names.join()}`)).toEqual([
      "0c",
      "1l",
      "2m",
      "3r",
      "4d",
      "5e",
      "6h",
    ]);
  });

  test("asks for EOM and EOH together or for neither, since Sendmail looks at the wrong flag", () => {
    expect(ask({ EOM: ["{msg_id}"] }).lists.map((list) => list.stage)).toEqual([5, 6]);
    expect(ask({ EOH: ["x"] }).lists.map((list) => list.stage)).toEqual([5, 6]);
    expect(ask({ EOH: ["x"] }).lists[0]!.names).toContain("{msg_id}");
    expect(ask({ RCPT: ["x"] }).lists.map((list) => list.stage)).toEqual([3]);
  });
});
