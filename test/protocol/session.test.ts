/**
 * `MilterSession`: the worked session (docs/protocol.md, "Worked session") byte for byte, and what one connection lives
 * through: several messages, several sessions, odd packets, an end anywhere.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { UNKNOWN_CLIENT } from "../../src/protocol/client.ts";
import { encodeReplyCode, PLAIN_REPLIES, ReplyWriter } from "../../src/protocol/encode.ts";
import { ProtocolError } from "../../src/protocol/errors.ts";
import type { Wants } from "../../src/protocol/negotiate.ts";
import { type EventPhase, MilterSession } from "../../src/protocol/session.ts";
import { ALL_NR, cmd, fromHex, packet, packetsOf } from "./wire.ts";

setDefaultTimeout(120_000);

const LIMITS = { packet: 1 << 20, macros: 4096 };
const NOTHING: Wants = { actions: 0, protocol: 0, macros: {} };

/** An owner that notes each event with its payload, and decides as it is told. */
class Owner {
  readonly writer = new ReplyWriter();
  readonly session: MilterSession;
  readonly log: string[] = [];
  /** What to do at an event, instead of letting it pass. */
  decide: (event: EventPhase, payload: string) => boolean = () => false;

  constructor(wants: Wants = NOTHING, limits = LIMITS) {
    this.session = new MilterSession(wants, limits, this.writer);
  }

  /** Sends and gives the replies. */
  send(...chunks: readonly Uint8Array[]): string[] {
    for (const chunk of chunks) {
      this.session.push(chunk);
      for (let event = this.session.next(); event !== null; event = this.session.next()) this.#take(event);
    }
    return this.replies();
  }

  hangUp(): void {
    for (let event = this.session.hangUp(); event !== null; event = this.session.hangUp()) this.#take(event);
  }

  replies(): string[] {
    const sent = packetsOf(this.writer.copy());
    this.writer.clear();
    return sent;
  }

  #take(event: EventPhase): void {
    const { bytes, start, end } = this.session;
    const isDecided = event.command === 0 || event.name === "abort";
    const payload = isDecided ? "" : Buffer.from(bytes.subarray(start, end)).toString("latin1");
    this.log.push(payload === "" ? event.name : `${event.name} ${payload}`);
    if (this.decide(event, payload)) return;
    if (event.name === "abort") this.session.endMessage();
    else if (event.name === "close") this.session.endSession();
    else {
      this.session.proceed();
      if (event.name === "eom") this.session.endMessage();
    }
  }
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof ProtocolError ? error.code : String(error);
  }
  return "none";
}

/** The packets of the worked session, `>` from the mail server, `<` from the filter. */
const WORKED: readonly [who: ">" | "<", hex: string][] = [
  [">", "00 00 00 0d 4f 00 00 00 06 00 00 01 ff 00 1f ff ff"],
  [
    "<",
    `00 00 00 2b 4f 00 00 00 06 00 00 01 31 00 00 05 80 00 00 00 03 7b 72 63 70 74 5f 61 64 64 72 7d
     20 7b 72 63 70 74 5f 6d 61 69 6c 65 72 7d 00`,
  ],
  [">", "00 00 00 0c 44 43 6a 00 6d 78 2e 74 65 73 74 00"],
  [">", "00 00 00 15 43 63 2e 74 65 73 74 00 34 9c 40 31 39 32 2e 30 2e 32 2e 37 00"],
  ["<", "00 00 00 01 63"],
  [">", "00 00 00 02 44 48"],
  [">", "00 00 00 08 48 63 2e 74 65 73 74 00"],
  ["<", "00 00 00 01 63"],
  [">", "00 00 00 17 44 4d 7b 6d 61 69 6c 5f 61 64 64 72 7d 00 61 40 63 2e 74 65 73 74 00"],
  [">", "00 00 00 14 4d 3c 61 40 63 2e 74 65 73 74 3e 00 53 49 5a 45 3d 39 39 00"],
  ["<", "00 00 00 01 63"],
  [
    ">",
    `00 00 00 2c 44 52 7b 72 63 70 74 5f 61 64 64 72 7d 00 62 40 6d 78 2e 74 65 73 74 00 7b 72 63 70
     74 5f 6d 61 69 6c 65 72 7d 00 6c 6f 63 61 6c 00`,
  ],
  [">", "00 00 00 0d 52 3c 62 40 6d 78 2e 74 65 73 74 3e 00"],
  ["<", "00 00 00 01 63"],
  [">", "00 00 00 0d 52 3c 78 40 6d 78 2e 74 65 73 74 3e 00"],
  ["<", "00 00 00 18 79 35 35 30 20 35 2e 31 2e 31 20 4e 6f 20 73 75 63 68 20 75 73 65 72 00"],
  [">", "00 00 00 09 44 54 69 00 34 5a 42 31 00"],
  [">", "00 00 00 01 54"],
  ["<", "00 00 00 01 63"],
  [">", "00 00 00 11 4c 46 72 6f 6d 00 3c 61 40 63 2e 74 65 73 74 3e 00"],
  [">", "00 00 00 13 4c 53 75 62 6a 65 63 74 00 68 69 0a 20 74 68 65 72 65 00"],
  [">", "00 00 00 01 4e"],
  ["<", "00 00 00 01 63"],
  [">", "00 00 00 08 42 48 65 6c 6c 6f 0d 0a"],
  ["<", "00 00 00 01 73"],
  [">", "00 00 00 09 44 45 69 00 34 5a 42 31 00"],
  [">", "00 00 00 01 45"],
  ["<", "00 00 00 01 70"],
  ["<", "00 00 00 12 69 00 00 00 00 58 2d 50 6d 69 6c 74 65 72 00 6f 6b 00"],
  ["<", "00 00 00 14 6d 00 00 00 01 53 75 62 6a 65 63 74 00 5b 78 5d 20 68 69 00"],
  ["<", "00 00 00 01 61"],
  [">", "00 00 00 01 41"],
  [">", "00 00 00 01 51"],
];

/** The filter of the worked session: one recipient refused, SKIP, an inserted and a changed header. */
function workedOwner(): Owner {
  const owner = new Owner({
    actions: 0x31,
    protocol: 0x580,
    macros: { RCPT: ["{rcpt_addr}", "{rcpt_mailer}"] },
  });
  owner.decide = (event, payload) => {
    const { session, writer } = owner;
    if (event.name === "envrcpt" && payload.startsWith("<x@")) {
      session.answer(encodeReplyCode("550 5.1.1 No such user"));
    } else if (event.name === "body") {
      session.answer(PLAIN_REPLIES.SKIP);
    } else if (event.name === "eom") {
      writer.packet(PLAIN_REPLIES.PROGRESS);
      writer.insertHeader(0, "X-Pmilter", "ok");
      writer.changeHeader(1, "Subject", "[x] hi");
      session.answer(PLAIN_REPLIES.ACCEPT);
      session.endMessage();
    } else return false;
    return true;
  };
  return owner;
}

const WORKED_LOG = [
  "connect c.test\x004\x9c\x40192.0.2.7\0",
  "helo c.test\0",
  "envfrom <a@c.test>\0SIZE=99\0",
  "envrcpt <b@mx.test>\0",
  "envrcpt <x@mx.test>\0",
  "data",
  "header From\0<a@c.test>\0",
  "header Subject\0hi\n there\0",
  "eoh",
  "body Hello\r\n",
  "eom",
  "close",
];

describe("MilterSession, the worked session", () => {
  test("each packet is answered as in the document, byte for byte", () => {
    const owner = workedOwner();
    for (let at = 0; at < WORKED.length;) {
      const seen = owner.send(fromHex(WORKED[at]![1]));
      const expected: string[] = [];
      for (at += 1; WORKED[at]?.[0] === "<"; at++) expected.push(...packetsOf(fromHex(WORKED[at]![1])));
      expect(seen).toEqual(expected);
    }
    expect(owner.log).toEqual(WORKED_LOG);
  });

  test.each([
    ["whole", (bytes: Buffer) => [bytes]],
    ["byte by byte", (bytes: Buffer) => [...bytes].map((byte) => Buffer.of(byte))],
  ])("gives the same replies and events %s", (_name, cut) => {
    const owner = workedOwner();
    const sent = Buffer.concat(WORKED.filter(([who]) => who === ">").map(([, hex]) => fromHex(hex)));
    const expected = WORKED.filter(([who]) => who === "<").flatMap(([, hex]) => packetsOf(fromHex(hex)));
    expect(owner.send(...cut(sent))).toEqual(expected);
    expect(owner.log).toEqual(WORKED_LOG);
    expect(owner.session.isOver).toBe(true);
  });
});

describe("MilterSession", () => {
  test("macros live as long as their message or connection", () => {
    const owner = new Owner();
    const seen: string[] = [];
    owner.decide = (event) => {
      const { macros } = owner.session;
      seen.push(`${event.name} ${["j", "{tls}", "i", "{rcpt}"].map((name) => macros.get(name) ?? "-").join(" ")}`);
      return false;
    };
    owner.send(cmd.optneg(), cmd.macro("C", { j: "mx" }), cmd.connect(), cmd.macro("H", { "{tls}": "1" }), cmd.helo());
    owner.send(cmd.macro("M", { i: "Q1" }), cmd.mail(), cmd.macro("R", { "{rcpt}": "b" }), cmd.rcpt(), cmd.rcpt());
    owner.send(cmd.macro("E", { i: "Q2" }), cmd.eom(), cmd.abort(), cmd.mail(), cmd.macro("H"), cmd.helo());
    expect(seen).toEqual([
      "connect mx - - -",
      "helo mx 1 - -",
      "envfrom mx 1 Q1 -",
      "envrcpt mx 1 Q1 b",
      "envrcpt mx 1 Q1 b",
      "eom mx 1 Q2 b",
      "envfrom mx 1 - -",
      "abort mx 1 - -",
      "helo mx - - -",
    ]);
  });

  test("a MAIL that ends the message before it keeps its own macros", () => {
    const owner = new Owner();
    const seen: string[] = [];
    owner.decide = (event) => {
      seen.push(`${event.name} ${owner.session.macros.get("{mail_addr}") ?? "-"}`);
      return false;
    };
    owner.send(cmd.optneg(), cmd.connect(), cmd.macro("M", { "{mail_addr}": "one" }), cmd.mail());
    owner.send(cmd.macro("M", { "{mail_addr}": "two" }), cmd.mail());
    expect(seen.at(-1)).toBe("envfrom two");
  });

  test("a CONNECT without QUIT_NC keeps its own macros", () => {
    const owner = new Owner();
    owner.send(cmd.optneg(), cmd.macro("C", { j: "one" }), cmd.connect());
    const seen: string[] = [];
    owner.decide = (event) => {
      seen.push(`${event.name} ${owner.session.macros.get("j") ?? "-"}`);
      return false;
    };
    owner.send(cmd.macro("C", { j: "two" }), cmd.connect());
    expect(seen.at(-1)).toBe("connect two");
  });

  test("macros of UNKNOWN live for that one command", () => {
    const owner = new Owner();
    const seen: string[] = [];
    owner.decide = (event) => {
      seen.push(`${event.name} ${owner.session.macros.get("i") ?? "-"}`);
      return false;
    };
    owner.send(cmd.optneg(), cmd.connect(), cmd.macro("M", { i: "Q1" }), cmd.mail());
    seen.length = 0;
    owner.send(cmd.macro("U", { i: "U1" }), cmd.unknown(), cmd.unknown(), cmd.data());
    expect(seen).toEqual(["unknown U1", "unknown Q1", "data Q1"]);
  });

  test("serves many messages, each beginning afresh", () => {
    const owner = new Owner();
    owner.send(cmd.optneg(), cmd.connect(), cmd.helo());
    owner.log.length = 0;
    for (let count = 0; count < 3; count++) {
      expect(owner.send(cmd.mail(), cmd.rcpt(), cmd.data(), cmd.header(), cmd.eoh(), cmd.body(), cmd.eom())).toEqual(
        Array.from({ length: 7 }, () => "c"),
      );
      expect(owner.send(cmd.abort(), cmd.abort())).toEqual([]);
    }
    expect(owner.log.filter((event) => event === "eom")).toHaveLength(3);
    expect(owner.log).not.toContain("abort");
  });

  test("QUIT_NC ends the session and keeps what was negotiated", () => {
    const owner = new Owner({ ...NOTHING, protocol: ALL_NR });
    owner.send(cmd.optneg(), cmd.macro("C", { j: "mx" }), cmd.connect("one.test"), cmd.mail());
    const { options } = owner.session;
    owner.log.length = 0;
    owner.send(cmd.quitNc());
    expect(owner.log).toEqual(["abort", "close"]);
    expect(owner.session.client).toBe(UNKNOWN_CLIENT);
    expect(owner.session.macros.get("j")).toBeUndefined();
    expect(owner.session.isOver).toBe(false);
    expect(owner.session.options).toBe(options);
    expect(owner.send(cmd.connect("two.test"), cmd.mail(), cmd.eom())).toEqual(["c"]);
    expect(owner.session.client.hostname).toBe("two.test");
    expect(owner.log.filter((event) => event === "close")).toHaveLength(1);
  });

  test("QUIT_NC twice, or right after OPTNEG, gives one close", () => {
    const owner = new Owner();
    owner.send(cmd.optneg(), cmd.quitNc(), cmd.quitNc(), cmd.quit());
    expect(owner.log).toEqual(["close"]);
  });

  test("an UNKNOWN between two sessions belongs to a session that is closed too", () => {
    const owner = new Owner();
    owner.send(cmd.optneg(), cmd.connect(), cmd.quitNc());
    owner.log.length = 0;
    owner.send(cmd.unknown("X"));
    owner.hangUp();
    expect(owner.log).toEqual(["unknown X\0", "close"]);
  });

  test("nothing is taken after QUIT", () => {
    const owner = new Owner();
    owner.send(cmd.optneg(), cmd.connect());
    expect(owner.send(Buffer.concat([cmd.quit(), cmd.connect(), cmd.mail()]))).toEqual([]);
    expect(owner.log).toEqual(["connect c.test\x004\x9c\x40192.0.2.7\0", "close"]);
  });

  test.each([
    ["the CONTINUE of its end", cmd.eom("Bye\r\n"), ["body Bye\r\n", "eom"], ["c"]],
    ["nothing before the end", cmd.body("Bye\r\n"), ["body Bye\r\n"], []],
  ])("a piece of body gets %s", (_name, sent, log, replies) => {
    const owner = new Owner({ ...NOTHING, protocol: ALL_NR });
    owner.send(cmd.optneg(), cmd.mail());
    owner.log.length = 0;
    expect(owner.send(sent)).toEqual(replies);
    expect(owner.log).toEqual(log);
  });

  test("wantsReply tells whether the event gets a reply of its own, a piece of body in BODYEOB not", () => {
    const seen: string[] = [];
    const owner = new Owner({ ...NOTHING, protocol: 0x80 });
    owner.decide = (event) => {
      seen.push(`${event.name} ${owner.session.wantsReply}`);
      return false;
    };
    owner.send(cmd.optneg(), cmd.mail(), cmd.header(), cmd.eoh(), cmd.body(), cmd.eom("x"), cmd.quit());
    expect(seen).toEqual([
      "envfrom true",
      "header false",
      "eoh true",
      "body true",
      "body false",
      "eom true",
      "close false",
    ]);
  });

  test("empty and odd MACRO packets are harmless, at every place", () => {
    const odd = [
      packet("D", "C"),
      packet("D", "L", "a\0"),
      packet("D", "\xff", "a\0b\0c\0"),
      packet("D", "M", "\0\0\0"),
    ];
    const owner = new Owner();
    owner.send(cmd.optneg());
    for (const command of [
      cmd.connect(),
      cmd.helo(),
      cmd.mail(),
      cmd.rcpt(),
      cmd.data(),
      cmd.header(),
      cmd.eoh(),
      cmd.body(),
    ]) {
      expect(owner.send(...odd, command, ...odd)).toEqual(["c"]);
    }
    expect(owner.send(...odd, cmd.eom(), ...odd, cmd.abort(), ...odd, cmd.quit())).toEqual(["c"]);
  });

  test("macros over the limit are noted, at the limit not, and leave no older values of their stage", () => {
    const owner = new Owner(NOTHING, { packet: 1 << 20, macros: 20 });
    const seen: unknown[] = [];
    owner.decide = () => {
      seen.push(owner.session.macrosOverLimit, owner.session.macros.get("i")?.length);
      return false;
    };
    owner.send(cmd.optneg(), cmd.mail());
    for (const [size, expected] of [
      [19, [false, 16]],
      [20, [false, 17]],
      [21, [true, undefined]],
    ] as const) {
      seen.length = 0;
      owner.send(cmd.macro("R", { i: "x".repeat(size - 3) }), cmd.rcpt());
      expect(seen).toEqual([...expected]);
    }
  });

  test("the connection may end after any byte: abort only if a message is open, close once", () => {
    const packets = [
      cmd.optneg(),
      cmd.macro("C", { j: "mx" }),
      cmd.connect(),
      cmd.helo(),
      cmd.mail(),
      cmd.rcpt(),
      cmd.data(),
      cmd.header(),
      cmd.eoh(),
      cmd.body(),
      cmd.eom(),
      cmd.abort(),
      cmd.mail(),
      cmd.quitNc(),
      cmd.connect(),
    ];
    const stream = Buffer.concat(packets);
    const ends = packets.map((_, count) => Buffer.concat(packets.slice(0, count + 1)).length);
    /** Whole packets within so many bytes. */
    const wholeIn = (bytes: number) => ends.filter((end) => end <= bytes).length;
    for (let length = 0; length <= stream.length; length++) {
      const owner = new Owner();
      owner.send(stream.subarray(0, length));
      owner.log.length = 0;
      owner.hangUp();
      const whole = wholeIn(length);
      const inMessage = (whole >= 5 && whole <= 10) || whole === 13;
      const expected = whole === 0 || whole === 14 ? [] : inMessage ? ["abort", "close"] : ["close"];
      expect(owner.log).toEqual(expected);
      expect(owner.replies()).toEqual([]);
    }
  });

  test("tap sees each packet of use, with its payload", () => {
    const owner = new Owner();
    const seen: string[] = [];
    owner.session.tap = {
      seen: (code, bytes, start, end) =>
        seen.push(String.fromCharCode(code) + Buffer.from(bytes.subarray(start, end)).toString("latin1")),
    };
    const sent = [
      cmd.optneg(),
      cmd.macro("C", { j: "mx" }),
      cmd.connect(),
      cmd.helo(),
      cmd.mail(),
      cmd.body(),
      cmd.eom("x"),
    ];
    owner.send(...sent);
    expect(seen).toEqual(sent.map((bytes) => bytes.toString("latin1", 4)));
  });
});

describe("MilterSession, CONNECT", () => {
  test.each([
    ["IPv4", "host.test\x004\x9c\x40192.0.2.7\0", ["host.test", "inet", "192.0.2.7", 40000]],
    ["IPv6 as Postfix writes it", "v6.test\x006\x9c\x402001:db8::1\0", ["v6.test", "inet6", "2001:db8::1", 40000]],
    ["IPv6 as Sendmail writes it", "h\x006\0\x19IPv6:2001:db8:0:0:0:0:0:1\0", ["h", "inet6", "2001:db8::1", 25]],
    ["IPv6 in upper case and brackets", "h\x006\0\0[IPv6:2001:DB8::A]\0", ["h", "inet6", "2001:db8::a", 0]],
    ["an address that is none", "h\x006\0\0nonsense::zz\0", ["h", "inet6", "nonsense::zz", 0]],
    ["brackets behind the prefix", "h\x006\0\0IPv6:[2001:db8::1]\0", ["h", "inet6", "2001:db8::1", 0]],
    ["an IPv4-mapped address", "h\x006\0\0::ffff:192.0.2.1\0", ["h", "inet6", "::ffff:192.0.2.1", 0]],
    ["the same in hex", "h\x006\0\0IPv6:0:0:0:0:0:FFFF:C000:0201\0", ["h", "inet6", "::ffff:192.0.2.1", 0]],
    ["an IPv4-compatible address", "h\x006\0\0::192.0.2.1\0", ["h", "inet6", "::192.0.2.1", 0]],
    ["an IPv4-translated address", "h\x006\0\0::ffff:0:192.0.2.1\0", ["h", "inet6", "::ffff:0:192.0.2.1", 0]],
    ["an address of NAT64", "h\x006\0\x0064:ff9b::c000:201\0", ["h", "inet6", "64:ff9b::192.0.2.1", 0]],
    [
      "an address that only looks like those",
      "h\x006\0\x002001:db8::ffff:c000:201\0",
      ["h", "inet6", "2001:db8::ffff:c000:201", 0],
    ],
    ["the loopback address", "h\x006\0\0IPv6:0:0:0:0:0:0:0:1\0", ["h", "inet6", "::1", 0]],
    ["no address at all", "h\x006\0\0::\0", ["h", "inet6", "::", 0]],
    ["an address with a zone", "h\x006\0\0IPv6:FE80:0:0:0:0:0:0:1%eth0\0", ["h", "inet6", "fe80::1%eth0", 0]],
    ["an unknown address", "unknown\x004\x9c\x40unknown\0", ["unknown", "unknown", "", 40000]],
    ["an unknown IPv6 address", "unknown\x006\0\0IPv6:unknown\0", ["unknown", "unknown", "", 0]],
    ["an unknown address in brackets", "[unknown]\x004\0\0[UNAVAILABLE]\0", ["[unknown]", "unknown", "", 0]],
    ["an empty address", "unknown\x004\0\0\0", ["unknown", "unknown", "", 0]],
    ["a unix socket whose path is a word", "localhost\0L\0\0unknown\0", ["localhost", "unix", "unknown", 0]],
    ["a unix socket", "localhost\0L\0\0/run/sock\0", ["localhost", "unix", "/run/sock", 0]],
    ["an unknown family", "unknown\0U", ["unknown", "unknown", "", 0]],
    ["an unknown family with bytes behind it", "unknown\0U\0\0x\0", ["unknown", "unknown", "", 0]],
    ["the highest port", "h\x004\xff\xff10.0.0.1\0", ["h", "inet", "10.0.0.1", 65535]],
  ])("reads %s", (_name, payload, expected) => {
    const owner = new Owner();
    owner.send(cmd.optneg(), packet("C", payload));
    const { hostname, family, address, port } = owner.session.client;
    expect([hostname, family, address, port]).toEqual(expected);
  });

  test("reads the hex of the document", () => {
    const owner = new Owner();
    owner.send(
      cmd.optneg(),
      fromHex("00 00 00 18 43 76 36 2e 74 65 73 74 00 36 9c 40 32 30 30 31 3a 64 62 38 3a 3a 31 00"),
    );
    expect(owner.session.client).toEqual({ hostname: "v6.test", family: "inet6", address: "2001:db8::1", port: 40000 });
    owner.send(cmd.quitNc(), fromHex("00 00 00 0a 43 75 6e 6b 6e 6f 77 6e 00 55"));
    expect(owner.session.client).toEqual({ hostname: "unknown", family: "unknown", address: "", port: 0 });
  });
});

describe("MilterSession, malformed payloads", () => {
  test.each([
    ["OPTNEG too short", packet("O", 6, 0x1ff), "PMILTER_ERR_TOO_SHORT"],
    ["OPTNEG of version 1", packet("O", 1, 0x0f, 0x3f), "PMILTER_ERR_VERSION"],
    ["CONNECT without NUL", packet("C", "host"), "PMILTER_ERR_MISSING_NUL"],
    ["CONNECT without a family", packet("C", "host\0"), "PMILTER_ERR_TOO_SHORT"],
    ["CONNECT of another family", packet("C", "host\x005\0\0x\0"), "PMILTER_ERR_FAMILY"],
    ["CONNECT without a port", packet("C", "host\x004\0"), "PMILTER_ERR_TOO_SHORT"],
    ["CONNECT with an address without NUL", packet("C", "host\x004\0\x00192.0.2.7"), "PMILTER_ERR_MISSING_NUL"],
    ["CONNECT without an address", packet("C", "host\x004\0\0"), "PMILTER_ERR_MISSING_NUL"],
    ["HELO without NUL", packet("H", "x"), "PMILTER_ERR_MISSING_NUL"],
    ["HELO with nothing", packet("H"), "PMILTER_ERR_MISSING_NUL"],
    ["MAIL with nothing", packet("M"), "PMILTER_ERR_MISSING_NUL"],
    ["MAIL with an argument without NUL", packet("M", "<a>\0SIZE=1"), "PMILTER_ERR_MISSING_NUL"],
    ["RCPT without NUL", packet("R", "<b>"), "PMILTER_ERR_MISSING_NUL"],
    ["HEADER with one string", packet("L", "Subject\0"), "PMILTER_ERR_MISSING_NUL"],
    ["HEADER without the last NUL", packet("L", "Subject\0hi"), "PMILTER_ERR_MISSING_NUL"],
    ["UNKNOWN without NUL", packet("U", "WHAT"), "PMILTER_ERR_MISSING_NUL"],
    ["MACRO without a stage", packet("D"), "PMILTER_ERR_TOO_SHORT"],
    ["MACRO without the last NUL", packet("D", "Cj\0mx"), "PMILTER_ERR_MISSING_NUL"],
    ["a second OPTNEG", cmd.optneg(), "PMILTER_ERR_ORDER"],
  ])("%s", (_name, sent, code) => {
    const owner = new Owner();
    if (!code.startsWith("PMILTER_ERR_V") && !(sent[4] === 0x4f && sent.length < 17)) owner.send(cmd.optneg());
    // Behind it lie bytes with NULs, which belong to another packet.
    expect(codeOf(() => owner.send(Buffer.concat([sent, cmd.mail("<\0>")])))).toBe(code);
    owner.hangUp();
    expect(owner.session.isOver).toBe(true);
  });

  test("a packet of exactly the limit is taken, one above is not", () => {
    for (const [size, code] of [
      [99, "none"],
      [100, "none"],
      [101, "PMILTER_ERR_PACKET_TOO_LARGE"],
    ] as const) {
      const owner = new Owner(NOTHING, { packet: 100, macros: 100 });
      owner.send(cmd.optneg(), cmd.mail());
      expect(codeOf(() => owner.send(cmd.body("x".repeat(size - 1))))).toBe(code);
    }
  });
});
