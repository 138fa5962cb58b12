/**
 * The decoders on garbage and on damaged packets: a value or a ProtocolError; and the round trips that others rely on:
 * text of any bytes, and reply texts as the strictest mail server reads them.
 */
import { decodeText, encodeText } from "../../../src/protocol/bytes.ts";
import { COMMAND, REPLY } from "../../../src/protocol/constants.ts";
import { encodeReplyCode, ReplyWriter } from "../../../src/protocol/encode.ts";
import { ProtocolError } from "../../../src/protocol/errors.ts";
import { SessionMacros } from "../../../src/protocol/macros.ts";
import { negotiate, readOffer } from "../../../src/protocol/negotiate.ts";
import { decodeReply, parseSmtpReply } from "../../../src/protocol/replies.ts";
import { formatReplyText, parseReplyText } from "../../../src/protocol/reply-text.ts";
import type { Random } from "../../protocol/random.ts";
import { anyMacro, anyText, damaged } from "../../protocol/streams.ts";
import { ALL, packet } from "../../protocol/wire.ts";
import { must, type Target } from "../target.ts";

const CODES = Object.values(REPLY);
const LINES = ["550 5.7.1 no", "550-a\r\n550 b", "421 4.7.0 %s%%", "550 6", "250 ok", "550", "550 \r\n", "450 5.7.1 x"];

/** Any reply packet that is well formed. */
function anyReply(random: Random): Buffer {
  const text = () => random.pick(["a", "X-A", "<a@c.test>", anyText(random)]);
  switch (random.below(6)) {
    case 0:
      return packet(random.pick([..."cartdsp"]));
    case 1:
      return packet("y", `${random.pick([...LINES, anyText(random)])}\0`);
    case 2:
      return packet(random.pick([..."im"]), random.u32(), `${text()}\0${text()}\0`);
    case 3:
      return packet(random.pick([..."h+2-eq"]), `${text()}\0`, random.pick(["", `${text()}\0`]));
    case 4:
      return packet("b", random.bytes(random.below(30)));
    default:
      return packet("O", 6, random.u32(), random.u32(), random.pick(["", `\0\0\0\x03${text()} ${text()}\0`]));
  }
}

/** Runs what may throw a ProtocolError and nothing else. */
function orProtocolError(run: () => void): void {
  try {
    run();
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    // oxlint-disable-next-line no-control-regex
    must(
      // oxlint-disable-next-line no-control-regex
      error.message.length < 2000 && !/[\u0000-\u001f]/.test(error.message),
      () => `message ${JSON.stringify(error.message)}`,
    );
  }
}

export const repliesTarget: Target = {
  name: "replies",
  unit: "packet",
  generate(random) {
    if (random.chance(0.2)) return random.bytes(random.below(60));
    const make = random.pick([anyReply, anyReply, anyMacro]);
    return damaged(
      random,
      Array.from({ length: 1 + random.below(3) }, () => make(random)),
    );
  },
  check(input, random) {
    // In the middle of other bytes: whoever reads past an end finds something there.
    const around = Buffer.concat([random.bytes(5), input, random.bytes(5)]);
    const start = Math.min(5 + random.pick([0, 4, 5]), around.length - 5);
    const end = around.length - 5;
    const code = random.pick([around[start - 1]!, ...CODES, random.below(256)]);
    orProtocolError(() => {
      const reply = decodeReply(code, around, start, end);
      const again = decodeReply(code, Buffer.from(around.subarray(start, end)));
      must(JSON.stringify(reply) === JSON.stringify(again), "a reply depends on the bytes around it");
    });
    orProtocolError(() => void parseSmtpReply(decodeText(input)));
    orProtocolError(() => checkMacros(around, start, end, random));
    orProtocolError(() => {
      const wants = { actions: random.u32(), protocol: random.u32() & ALL, macros: { EOM: ["i"] } };
      const offer = readOffer(around, start, end);
      const answer = negotiate(offer, wants);
      must(answer.version >= 2 && answer.version <= Math.min(6, offer.version), `version ${answer.version}`);
      must((answer.actions & ~(offer.actions === 0 ? 0xf : offer.actions)) === 0, "an action that was not offered");
      must((answer.protocol & ~(offer.protocol === 0 ? 0x3f : offer.protocol)) === 0, "a flag that was not offered");
      const writer = new ReplyWriter();
      writer.optneg(answer.version, answer.actions, answer.protocol, answer.lists);
      decodeReply(REPLY.OPTNEG, writer.copy(), 5);
    });
    const text = decodeText(around, start, end);
    must(Buffer.from(encodeText(text)).equals(around.subarray(start, end)), "text does not come back as its bytes");
    checkReplyText(
      random.pick([text, `550 5.7.1 ${text}`, `450 ${text}`, `421 4.3.2 a\n${text}`]),
      random.pick([4, 5]),
    );
  },
};

function checkMacros(bytes: Uint8Array, start: number, end: number, random: Random): void {
  const macros = new SessionMacros();
  const isTaken = macros.put(bytes, start, end, random.pick([0, 10, 1000]));
  macros.commit();
  for (const name of ["i", "{i}", "j", "{tls_version}", "", "{", "{}"]) {
    const value = macros.get(name);
    must(isTaken || value === undefined, "a macro of a packet that was over the limit");
    must(value === undefined || !value.includes("\0"), "NUL in the value of a macro");
  }
  macros.clearAfter(COMMAND.CONNECT);
  macros.clearFrom(COMMAND.CONNECT);
  must(macros.get("i") === undefined, "a macro outlives its session");
}

/** What a handler may write reaches the SMTP client as it is; the rest is refused with a RangeError. */
function checkReplyText(text: string, digit: 4 | 5): void {
  let parsed;
  try {
    parsed = parseReplyText(text, digit);
  } catch (error) {
    if (error instanceof RangeError) return;
    throw error;
  }
  const reply = decodeReply(REPLY.REPLYCODE, encodeReplyCode(formatReplyText(parsed)), 5);
  must(reply.kind === "replycode" && reply.code === parsed.code, "another code");
  must(reply.enhanced === parsed.enhanced, () => `enhanced code ${reply.enhanced}, expected ${parsed.enhanced}`);
  const expected = JSON.stringify(parsed.lines);
  must(JSON.stringify(reply.lines) === expected, () => `lines ${JSON.stringify(reply.lines)}, expected ${expected}`);
}
