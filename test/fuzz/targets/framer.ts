/**
 * The framer against a reader that is as simple as it can be, under any split: the same packets and the same error, the
 * same account of what is due and owed; what was lent stays as it was, and memory is reserved for what has arrived only.
 */
import { ProtocolError } from "../../../src/protocol/errors.ts";
import { Framer } from "../../../src/protocol/framer.ts";
import { Survey } from "../../../src/protocol/survey.ts";
import type { Random } from "../../protocol/random.ts";
import { anyStream, noise } from "../../protocol/streams.ts";
import { Fault, must, type Target } from "../target.ts";

const LIMITS = [1, 10, 100, 70_000, 1 << 20] as const;
/** Codes that the survey is told to count. */
const OWED = new Uint8Array(256);
for (const letter of "OCHMRE") OWED[letter.charCodeAt(0)] = 1;

interface Read {
  /** Each packet: code and payload, in latin1. */
  readonly packets: readonly string[];
  readonly error: string;
}

/** The naive reader: it has everything at once. */
function readAll(stream: Buffer, limit: number): Read {
  const packets: string[] = [];
  for (let at = 0; stream.length - at >= 4;) {
    const length = stream.readUInt32BE(at);
    if (length === 0) return { packets, error: "PMILTER_ERR_LENGTH_ZERO" };
    if (length > limit) return { packets, error: "PMILTER_ERR_PACKET_TOO_LARGE" };
    if (stream.length - at - 4 < length) break;
    packets.push(stream.toString("latin1", at + 4, at + 4 + length));
    at += 4 + length;
  }
  return { packets, error: "" };
}

/** What {@link Framer.survey} should find in bytes that hold no error. */
function account(rest: Buffer): { due: number; owed: number; firstOwed: number } {
  let owed = 0;
  let firstOwed = 0;
  let at = 0;
  while (rest.length - at >= 4 && rest.length - at - 4 >= rest.readUInt32BE(at)) {
    const code = rest[at + 4]!;
    if (OWED[code] === 1) firstOwed = owed++ === 0 ? code : firstOwed;
    at += 4 + rest.readUInt32BE(at);
  }
  const left = rest.length - at;
  const due = left === 0 ? 0 : left < 4 ? 4 - left : 4 + rest.readUInt32BE(at) - left;
  return { due, owed, firstOwed };
}

const current = (framer: Framer) =>
  String.fromCharCode(framer.code) + Buffer.from(framer.bytes.subarray(framer.start, framer.end)).toString("latin1");

/** @param make the framer to test; for the fuzzer's own test */
export function framerTarget(make: (limit: number) => Framer = (limit) => new Framer(limit)): Target {
  return {
    name: "framer",
    unit: "packet",
    generate: (random) => (random.chance(0.2) ? noise(random) : anyStream(random)),
    check(input, random) {
      const stream = Buffer.from(input);
      const limit = random.pick(LIMITS);
      const expected = readAll(stream, limit);
      const largest = reserved(() => {
        const seen = drive(make(limit), stream, limit, random);
        must(seen.error === expected.error, () => `error "${seen.error}", expected "${expected.error}"`);
        must(seen.packets.length === expected.packets.length, () => {
          return `${seen.packets.length} packets, expected ${expected.packets.length}`;
        });
        for (const [at, packet] of expected.packets.entries()) {
          must(
            seen.packets[at] === packet,
            () => `packet ${at}: ${quote(seen.packets[at]!)}, expected ${quote(packet)}`,
          );
        }
      });
      must(largest <= Math.max(1024, 2 * stream.length), () => `reserved ${largest} bytes for ${stream.length}`);
    },
  };
}

function drive(framer: Framer, stream: Buffer, limit: number, random: Random): Read {
  const packets: string[] = [];
  const lent: { readonly bytes: Uint8Array; readonly text: string }[] = [];
  const survey = new Survey();
  let pushed = 0;
  let taken = 0;
  const reads = random.chance(0.2) ? Array.from(stream, (byte) => Buffer.of(byte)) : random.cut(stream);
  if (random.chance(0.1)) reads.splice(random.below(reads.length + 1), 0, Buffer.alloc(0));
  try {
    for (const read of reads) {
      // As the socket gives it: memory of its own.
      const chunk = new Uint8Array(read);
      survey.isCurrent = false;
      framer.push(chunk);
      pushed += read.length;
      const rest = stream.subarray(taken, pushed);
      const isSurveyed = random.chance(0.5) && readAll(rest, limit).error === "";
      let { owed } = account(isSurveyed ? rest : Buffer.alloc(0));
      if (isSurveyed) {
        framer.survey(survey, OWED, 0);
        const found = JSON.stringify({ due: survey.missing, owed: survey.owed, firstOwed: survey.firstOwed });
        must(
          found === JSON.stringify(account(rest)),
          () => `survey ${found}, expected ${JSON.stringify(account(rest))}`,
        );
      }
      let isDry = false;
      for (let most = random.pick([0, 1, 2, 9999, 9999]); most > 0 && !isDry; most--) {
        if (!framer.next()) isDry = true;
        else {
          survey.take(framer.code);
          const packet = current(framer);
          packets.push(packet);
          taken += 4 + packet.length;
          if (OWED[framer.code] === 1) owed -= 1;
        }
        if (isSurveyed) must(survey.owed === owed, () => `owed ${survey.owed} after taking, expected ${owed}`);
        must(framer.restBytes === pushed - taken, () => `restBytes ${framer.restBytes}, expected ${pushed - taken}`);
        must(framer.hasRest === pushed > taken, () => `hasRest ${framer.hasRest} with ${pushed - taken} left`);
        if (!isDry && random.chance(0.1)) {
          framer.lend();
          lent.push({ bytes: framer.bytes.subarray(framer.start, framer.end), text: current(framer).slice(1) });
        }
      }
    }
    while (framer.next()) packets.push(current(framer));
  } catch (error) {
    if (error instanceof Fault || !(error instanceof ProtocolError)) throw error;
    return { packets, error: error.code };
  } finally {
    for (const { bytes, text } of lent) {
      must(Buffer.from(bytes).toString("latin1") === text, () => `a lent packet of ${text.length} bytes has changed`);
    }
  }
  return { packets, error: "" };
}

/** The largest buffer that was reserved meanwhile. */
function reserved(run: () => void): number {
  const { allocUnsafeSlow } = Buffer;
  let largest = 0;
  Buffer.allocUnsafeSlow = (size) => {
    largest = Math.max(largest, size);
    return allocUnsafeSlow(size);
  };
  try {
    run();
  } finally {
    Buffer.allocUnsafeSlow = allocUnsafeSlow;
  }
  return largest;
}

function quote(packet: string): string {
  const text = JSON.stringify(packet);
  return text.length > 100 ? `${text.slice(0, 100)}… (${packet.length} bytes)` : text;
}
