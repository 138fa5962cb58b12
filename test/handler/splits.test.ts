/**
 * Whole conversations under any split, and under garbage: the same events and replies whatever the reads; random bytes
 * give events or a ProtocolError and nothing else, and the next connection works.
 */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { reject, skip, tempfail } from "../../src/index.ts";
import { CommandWriter } from "../../src/protocol/commands.ts";
import { COMMAND, FAMILY } from "../../src/protocol/constants.ts";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { forSeeds, mustEqual, type Random } from "../protocol/random.ts";
import { ALL, cmd, packet } from "../protocol/wire.ts";
import { type AnyFilter, chainOf, Line, NO_NR } from "./harness.ts";

setDefaultTimeout(120_000);

/** A filter that notes all it is given, refuses some of it, and changes messages. */
function noting(log: string[]): AnyFilter {
  return {
    collectBody: true,
    connect: (session) => void log.push(`connect ${JSON.stringify(session.client)} ${session.macros.get("j")}`),
    helo: (session, name) => {
      log.push(`helo ${name} ${session.tls.version}`);
      return name === "bad" ? reject() : undefined;
    },
    envfrom: (_session, sender, params) => {
      log.push(`envfrom ${sender} ${params.join()}`);
      return sender.includes("x") ? tempfail("451 4.7.1 later") : undefined;
    },
    envrcpt: (session, recipient) => {
      log.push(`envrcpt ${recipient} ${session.queueId}`);
      return recipient.includes("x") ? reject("550 5.1.1 no") : undefined;
    },
    header: (_session, name, value) => {
      log.push(`header ${name}=${value}`);
      return name === "Bad" ? reject() : undefined;
    },
    body: (_session, chunk) => {
      log.push(`body ${chunk.length}`);
      return chunk.length > 50 ? skip() : undefined;
    },
    eom: (session) => {
      log.push(
        `eom ${session.message.body().length} ${session.message.recipients.length} ${session.message.headers.length}`,
      );
      session.message.addHeader("X-Seen", String(session.message.headers.length));
    },
    unknown: (_session, command) => void log.push(`unknown ${command}`),
    abort: () => void log.push("abort"),
    close: () => void log.push("close"),
  };
}

/** Commands in an order that makes sense, mostly, by the naive writer. */
function naiveStream(random: Random): Buffer {
  const text = () => random.bytes(random.below(12)).toString("latin1").replaceAll("\0", "n");
  const body = () => random.bytes(random.pick([0, 3, 40, 200]));
  const any: (() => Buffer)[] = [
    () => cmd.macro(random.pick([..."CHMRTNEULB"]), { i: text(), j: text(), "{tls_version}": text() }),
    () => cmd.connect(random.pick(["c.test", "unknown"])),
    () => cmd.helo(random.pick(["c.test", "bad", text()])),
    () => cmd.mail(random.pick(["<a@c>", "<x@c>", "", text()]), ...random.pick([[], ["SIZE=1"], ["A=1", "B=2"]])),
    () => cmd.rcpt(random.pick(["<b@c>", "<x@c>"])),
    () => cmd.data(),
    () => cmd.header(random.pick(["Subject", "Bad", "A"]), text()),
    () => cmd.eoh(),
    () => cmd.body(body()),
    () => cmd.eom(body()),
    () => cmd.abort(),
    () => cmd.quitNc(),
    () => cmd.unknown(text()),
  ];
  const message = () => [
    cmd.mail(random.pick(["<a@c>", "<a@c>", "<x@c>"])),
    ...Array.from({ length: random.below(3) }, () => cmd.rcpt(random.pick(["<b@c>", "<x@c>"]))),
    cmd.data(),
    ...Array.from({ length: random.below(3) }, () => cmd.header("A", text())),
    cmd.eoh(),
    cmd.body(body()),
    cmd.eom(),
  ];
  const parts = [cmd.optneg(6, 0x1ff, random.pick([ALL, NO_NR])), cmd.connect(), cmd.helo()];
  for (let count = random.below(6); count > 0; count--) {
    parts.push(...(random.chance(0.5) ? message() : [random.pick(any)()]));
  }
  if (random.chance(0.5)) parts.push(cmd.quit());
  return Buffer.concat(parts);
}

/** A stream of the writer that `MilterClient` uses. */
function clientStream(random: Random): Buffer {
  const writer = new CommandWriter();
  writer.optneg(6, 0x1ff, random.pick([ALL, NO_NR]));
  writer.macro(COMMAND.CONNECT, [["j", "mx.test"]]);
  writer.connect("c.test", random.pick([FAMILY.INET, FAMILY.UNKNOWN]), 25, "192.0.2.7");
  writer.helo("c.test");
  for (let count = 1 + random.below(3); count > 0; count--) {
    writer.mail("<ä@c>", ["SIZE=1"]);
    writer.macro(COMMAND.RCPT, [["i", "Q"]]);
    writer.rcpt(random.pick(["<b@c>", "<x@c>"]));
    writer.data();
    writer.header("Subject", " folded\n line");
    writer.eoh();
    writer.body(random.bytes(random.below(100)));
    writer.bodyeob(random.chance(0.3) ? random.bytes(5) : undefined);
    writer.abort();
  }
  if (random.chance(0.5)) writer.quitNc();
  else writer.quit();
  return Buffer.from(writer.copy());
}

interface Ran {
  readonly log: readonly string[];
  readonly replies: readonly string[];
  readonly error: string;
  readonly line: Line;
}

function run(pieces: Iterable<Uint8Array>): Ran {
  const log: string[] = [];
  const line = new Line(chainOf([noting(log)], { limits: { packet: 70_000 } }));
  const replies: string[] = [];
  let error = "";
  try {
    for (const piece of pieces) replies.push(...line.send(piece));
  } catch (problem) {
    if (!(problem instanceof ProtocolError)) throw problem;
    error = problem.code;
    replies.push(...line.replies());
  }
  line.hangUp();
  return { log, replies, error, line };
}

const summary = ({ log, replies, error }: Ran) => JSON.stringify({ log, replies, error });
const byteByByte = (bytes: Uint8Array) => Array.from(bytes, (byte) => Buffer.of(byte));

describe("Conversation, splits", () => {
  test.each([
    ["the naive writer", naiveStream, 500],
    ["MilterClient's writer", clientStream, 150],
  ] as const)("streams of %s give the same events and replies whatever the cuts", (_name, make, count) => {
    let events = 0;
    forSeeds(count, (random) => {
      const stream = make(random);
      const whole = run([stream]);
      mustEqual(whole.error, "", "error");
      mustEqual(whole.line.failures, [], "failures");
      mustEqual(summary(run(byteByByte(stream))), summary(whole), "byte by byte");
      mustEqual(summary(run(random.cut(stream))), summary(whole), "random cuts");
      events += whole.log.length;
    });
    expect(events).toBeGreaterThan(500);
  });

  test("each command gets exactly the reply it is owed, whatever the stream", () => {
    // Nothing granted takes a reply away, and nothing changes a message: one reply a command that has one.
    const OWED = new Set("CHMRTLNBEU");
    forSeeds(800, (random) => {
      const stream = naiveStream(random);
      stream.writeUInt32BE(NO_NR, 13);
      const line = new Line(chainOf([{ ...noting([]), eom: () => undefined }]));
      let owed = 1;
      for (let at = 0; at < stream.length; at += 4 + stream.readUInt32BE(at)) {
        if (OWED.has(String.fromCharCode(stream[at + 4]!))) owed += 1;
      }
      const replies = random.cut(stream).flatMap((piece) => line.send(piece));
      mustEqual(replies.length, owed, "replies");
    });
  });
});

describe("Conversation, garbage", () => {
  /** The next connection is not concerned. */
  function mustWork(): void {
    const { replies, error } = run([cmd.optneg(6, 0x1ff, ALL), cmd.connect(), cmd.mail(), cmd.eom()]);
    mustEqual([replies.slice(1), error], [["c", "c", "hX-Seen\0 0\0", "c"], ""], "the next connection");
  }

  test("random bytes give events or a ProtocolError, and nothing else", () => {
    const errors = new Set<string>();
    forSeeds(3000, (random) => {
      const bytes = random.bytes(random.below(80));
      // A length that can be met, and a command that there is, get further than noise does.
      if (bytes.length > 5 && random.chance(0.7)) {
        bytes.writeUInt32BE(1 + random.below(bytes.length), 0);
        bytes[4] = random.pick([..."OCHMRTLNBEADQKU"]).charCodeAt(0);
      }
      const start = random.chance(0.7) ? [cmd.optneg()] : [];
      errors.add(run([...start, ...random.cut(bytes)]).error);
    });
    expect([...errors].toSorted()).toEqual(
      expect.arrayContaining(["", "PMILTER_ERR_MISSING_NUL", "PMILTER_ERR_PACKET_TOO_LARGE"]),
    );
    mustWork();
  });

  test("mutated streams give events or a ProtocolError, the same for any cuts", () => {
    const errors = new Set<string>();
    forSeeds(1200, (random) => {
      const stream = naiveStream(random);
      for (let count = 1 + random.below(4); count > 0; count--) {
        const at = random.below(stream.length);
        stream[at] = random.chance(0.5) ? random.below(256) : stream[at]! ^ (1 << random.below(8));
      }
      const whole = run([stream]);
      mustEqual(summary(run(random.cut(stream))), summary(whole), "cuts");
      errors.add(whole.error);
    });
    expect(errors.size).toBeGreaterThan(5);
    mustWork();
  });

  test("packets of any code and payload give events or a ProtocolError", () => {
    forSeeds(2500, (random) => {
      const packets = Array.from({ length: 1 + random.below(6) }, () =>
        packet(
          random.pick([..."OCHMRTLNBEADQKU\x00\xff"]),
          random.bytes(random.below(12)),
          random.pick(["", "\0", "a\0b\0"]),
        ),
      );
      run([cmd.optneg(), ...packets]);
    });
    mustWork();
  });

  test("a session that broke off still gets abort and close, once", () => {
    const { log, error } = run([cmd.optneg(), cmd.connect(), cmd.mail(), packet("?")]);
    expect(error).toBe("PMILTER_ERR_COMMAND");
    expect(log.slice(-2)).toEqual(["abort", "close"]);
  });

  test("promised lengths cost no memory", () => {
    const allocate = spyOn(Buffer, "allocUnsafeSlow");
    try {
      const line = new Line(chainOf([noting([])], { limits: { packet: 1 << 20 } }));
      line.send(cmd.optneg());
      allocate.mockClear();
      line.send(Buffer.from("000fffff4200", "hex"));
      const reserved = allocate.mock.calls.reduce((sum, [size]) => sum + size, 0);
      expect(reserved).toBeLessThan(10_000);
      expect(line.conversation.session.framer.restBytes).toBe(6);
    } finally {
      allocate.mockRestore();
    }
  });
});
