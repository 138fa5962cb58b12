/** docs/protocol.md, "Life time of macros"; and odd packets, which do nothing. */
import { describe, expect, test } from "bun:test";
import { COMMAND } from "../../src/protocol/constants.ts";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { SessionMacros } from "../../src/protocol/macros.ts";

/** Puts the payload of a MACRO packet, between bytes that must not be looked at, and takes its command. */
function put(macros: SessionMacros, payload: string, limit = 1000): boolean {
  const bytes = Buffer.from(`x\0${payload}y\0z\0`, "latin1");
  const isWithin = macros.put(bytes, 2, 2 + payload.length, limit);
  macros.commit();
  return isWithin;
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof ProtocolError ? error.code : String(error);
  }
  return "none";
}

const IN_ORDER = ["C", "H", "M", "R", "T", "N", "E"] as const;

describe("Macros.get", () => {
  test("finds values, empty ones too, and gives undefined for what was not sent", () => {
    const macros = new SessionMacros();
    put(macros, "Cj\0mx.test\0{daemon_name}\0\0");
    expect([macros.get("j"), macros.get("{daemon_name}"), macros.get("v")]).toEqual(["mx.test", "", undefined]);
  });

  test("finds one-letter names with and without braces, longer ones only as they came", () => {
    const macros = new SessionMacros();
    put(macros, "Ci\0one\0{j}\0two\0{long}\0three\0bare\0four\0");
    expect([macros.get("i"), macros.get("{i}"), macros.get("j"), macros.get("{j}")]).toEqual([
      "one",
      "one",
      "two",
      "two",
    ]);
    expect([macros.get("{long}"), macros.get("long"), macros.get("bare"), macros.get("{bare}")]).toEqual([
      "three",
      undefined,
      "four",
      undefined,
    ]);
  });

  test("looks from the latest stage back to the first", () => {
    const macros = new SessionMacros();
    for (const stage of IN_ORDER) {
      put(macros, `${stage}i\0${stage}\0`);
      expect(macros.get("i")).toBe(stage);
    }
  });

  test("EOM wins over EOH", () => {
    const macros = new SessionMacros();
    put(macros, "Ei\0eom\0");
    put(macros, "Ni\0eoh\0");
    expect(macros.get("i")).toBe("eom");
  });

  test("never mistakes a value for a name", () => {
    const macros = new SessionMacros();
    put(macros, "Ca\0i\0b\0c\0");
    expect([macros.get("i"), macros.get("c"), macros.get("b")]).toEqual([undefined, undefined, "c"]);
  });

  test("decodes values that are not UTF-8 byte for byte", () => {
    const macros = new SessionMacros();
    put(macros, "C{cert_subject}\0\xe9\0");
    expect(macros.get("{cert_subject}")).toBe("\udce9");
  });
});

describe("Macros.put", () => {
  test("replaces what its stage had, also with less and with nothing", () => {
    const macros = new SessionMacros();
    put(macros, "Rone\0aaaaaaaa\0two\0bbbbbbbb\0");
    put(macros, "Rone\0c\0");
    expect([macros.get("one"), macros.get("two")]).toEqual(["c", undefined]);
    put(macros, "R");
    expect(macros.get("one")).toBeUndefined();
  });

  test("drops a last name without a value", () => {
    const macros = new SessionMacros();
    put(macros, "Ca\0b\0c\0");
    expect([macros.get("a"), macros.get("c")]).toEqual(["b", undefined]);
    put(macros, "Ca\0");
    expect(macros.get("a")).toBeUndefined();
  });

  test.each(["L", "B", "A", "Q", "O", "\x01", "\xff"])("passes over macros of the stage %j", (stage) => {
    const macros = new SessionMacros();
    expect(put(macros, `${stage}x\0y\0`)).toBe(true);
    expect(macros.get("x")).toBeUndefined();
  });

  test("copies: the packet's bytes may be overwritten", () => {
    const macros = new SessionMacros();
    const bytes = Buffer.from("Cj\0mx.test\0");
    macros.put(bytes, 0, bytes.length, 1000);
    bytes.fill(0xee);
    macros.commit();
    expect(macros.get("j")).toBe("mx.test");
  });

  test("refuses a packet without a stage byte, and one that does not end with NUL", () => {
    expect(codeOf(() => put(new SessionMacros(), ""))).toBe("PMILTER_ERR_TOO_SHORT");
    expect(codeOf(() => put(new SessionMacros(), "Cj\0mx"))).toBe("PMILTER_ERR_MISSING_NUL");
    expect(codeOf(() => put(new SessionMacros(), "C"))).toBe("none");
  });
});

describe("Macros.put, limits", () => {
  test("takes as many bytes as the limit and drops one more, which leaves the stage without any", () => {
    const macros = new SessionMacros();
    expect(put(macros, "Ri\x0012345\0", 8)).toBe(true);
    expect(macros.get("i")).toBe("12345");
    expect(put(macros, "Ri\x00123456\0", 8)).toBe(false);
    expect(macros.get("i")).toBeUndefined();
  });
});

describe("Macros.commit", () => {
  test("what has arrived is in force with its command, not before", () => {
    const macros = new SessionMacros();
    put(macros, "Mi\0old\0");
    const bytes = Buffer.from("Mi\0new\0");
    macros.put(bytes, 0, bytes.length, 1000);
    expect(macros.get("i")).toBe("old");
    macros.clearFrom(COMMAND.MAIL);
    expect(macros.get("i")).toBeUndefined();
    macros.commit();
    expect(macros.get("i")).toBe("new");
    macros.commit();
    expect(macros.get("i")).toBe("new");
  });

  test("the macros of UNKNOWN are over with the next command", () => {
    const macros = new SessionMacros();
    put(macros, "Ci\0c\0");
    put(macros, "Ui\0u\0");
    expect(macros.get("i")).toBe("u");
    macros.commit();
    expect(macros.get("i")).toBe("c");
  });
});

describe("Macros.clearAfter and clearFrom", () => {
  const commands = { C: COMMAND.CONNECT, H: COMMAND.HELO, M: COMMAND.MAIL, R: COMMAND.RCPT } as const;

  /** A value under its own name at every stage. */
  function full(): SessionMacros {
    const macros = new SessionMacros();
    for (const stage of IN_ORDER) put(macros, `${stage}{${stage}_x}\0${stage}\0`);
    return macros;
  }

  const left = (macros: SessionMacros) => IN_ORDER.filter((stage) => macros.get(`{${stage}_x}`) === stage).join("");

  test.each([
    ["C", "C"],
    ["H", "CH"],
    ["M", "CHM"],
    ["R", "CHMR"],
  ] as const)("when %s is processed, %s stay", (command, stay) => {
    const macros = full();
    macros.clearAfter(commands[command]);
    expect(left(macros)).toBe(stay);
  });

  test("the end of a message leaves those of the connection, the end of a session none", () => {
    const macros = full();
    macros.clearFrom(COMMAND.MAIL);
    expect(left(macros)).toBe("CH");
    macros.clearFrom(COMMAND.CONNECT);
    expect(left(macros)).toBe("");
  });
});
