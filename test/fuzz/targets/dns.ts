/**
 * The reader of DNS answers, on answers that are right, damaged or noise: an answer, nothing or UnreadableReply; names and
 * addresses that may stand in a log; and for right ones the records that another reader finds.
 */
import dnsPacket, { type Packet } from "dns-packet";
import { isIP } from "node:net";
import type { RecordType } from "../../../src/dns/answer.ts";
import { decodeText } from "../../../src/protocol/bytes.ts";
import { readReply } from "../../../src/services/dns/read-reply.ts";
import { decodeReply, type Reply, UnreadableReply } from "../../../src/services/dns/wire.ts";
import type { Random } from "../../protocol/random.ts";
import { must, type Target } from "../target.ts";

const TYPES = ["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT"] as const;
type Type = (typeof TYPES)[number];
const NAMES = ["x.example", "X.Example", "a.x.example", "y.example", `${"a".repeat(63)}.example`] as const;
const ID = 7;
const TTL = 60;
/** In front of the message: the index of the type, and its length if it is right: one that was made smaller is not. */
const FRONT = 3;

/** Bytes of an answer to a question for `x.example`. */
function anyAnswer(random: Random, type: Type): Buffer {
  const aliases = random.chance(0.3) ? random.below(15) : 0;
  const answers = Array.from({ length: random.below(6) }, () => record(random, type));
  for (let at = 0; at < aliases; at++) answers.push(record(random, "CNAME"));
  return dnsPacket.encode({
    type: "response",
    id: ID,
    flags: (1 << 8) | (1 << 7) | random.pick([0, 0, 0, 2, 3, 5]) | (random.chance(0.05) ? 1 << 9 : 0),
    questions: [{ name: random.pick(["x.example", "X.EXAMPLE"]), type }],
    answers,
    authorities: random.chance(0.3) ? [record(random, "NS")] : [],
  } as Packet);
}

function record(random: Random, type: Type): object {
  const data = {
    A: () => `192.0.2.${random.below(256)}`,
    AAAA: () => `2001:db8::${random.below(0xffff).toString(16)}`,
    CNAME: () => random.pick(NAMES),
    MX: () => ({ preference: random.below(0xffff), exchange: random.pick(NAMES) }),
    NS: () => random.pick(NAMES),
    PTR: () => random.pick(NAMES),
    SRV: () => ({ priority: 1, weight: 2, port: random.below(0xffff), target: random.pick(NAMES) }),
    TXT: () => Array.from({ length: 1 + random.below(4) }, () => random.bytes(random.below(256))),
  }[type]();
  return { type, name: random.pick(["x.example", ...NAMES]), ttl: TTL, data };
}

function damagedAnswer(random: Random, answer: Buffer): Buffer {
  const bytes = Buffer.from(answer);
  for (let count = 1 + random.below(6); count > 0; count--) {
    // Pointers into names are what loops are made of.
    if (random.chance(0.3)) bytes.writeUInt16BE(0xc000 | random.below(bytes.length), random.below(bytes.length - 1));
    else bytes[random.below(bytes.length)] = random.below(256);
  }
  return random.chance(0.3) ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

export const dnsTarget: Target = {
  name: "dns",
  unit: "line",
  generate(random) {
    const index = random.below(TYPES.length);
    const type = TYPES[index]!;
    if (random.chance(0.1)) return Buffer.concat([Buffer.of(index, 0, 0), random.bytes(random.below(80))]);
    const answer = anyAnswer(random, type);
    if (random.chance(0.7)) return Buffer.concat([Buffer.of(index, 0, 0), damagedAnswer(random, answer)]);
    return Buffer.concat([Buffer.of(index, answer.length >> 8, answer.length & 255), answer]);
  },
  check(input) {
    const type = TYPES[(input[0] ?? 0) % TYPES.length]!;
    const message = Buffer.from(input.subarray(FRONT));
    const isRight = message.length > 0 && message.length === ((input[1]! << 8) | input[2]!);
    const question = { name: "x.example", type };
    let reply: Reply | null;
    try {
      reply = decodeReply(message, ID, question);
    } catch (error) {
      if (!(error instanceof UnreadableReply)) throw error;
      must(!isRight, () => `unreadable: ${error.message}`);
      return;
    }
    if (reply === null) {
      must(!isRight, "not taken for the answer");
      return;
    }
    for (const { data, name } of reply.answers) {
      must(isPlain(name), () => `the name ${JSON.stringify(name)}`);
      if ("alias" in data) must(isPlain(data.alias), () => `the alias ${JSON.stringify(data.alias)}`);
      else if (data.record !== null) checkRecord(type, data.record);
    }
    if (isRight) compare(type, reply, message);
    const said = readReply(reply, question);
    if ("answer" in said && said.answer.status === "found") {
      must(said.answer.records.length > 0, "found without records");
      must(said.answer.ttl <= TTL || !isRight, () => `kept for ${said.answer.ttl} s`);
    }
  },
};

/** Text of names: what ends lines, and spaces, are written as `\DDD`. */
function isPlain(name: string): boolean {
  return name.length <= 4 * 255 && /^[!-~]*$/.test(name);
}

function checkRecord(type: RecordType, found: unknown): void {
  const text = JSON.stringify(found);
  if (type === "A" || type === "AAAA") must(isIP(found as string) === (type === "A" ? 4 : 6), `the address ${text}`);
  else if (type !== "TXT") must(isPlain(text.replaceAll(" ", "")), `the record ${text}`);
}

/** Records by the other reader, in the forms of ours. */
function compare(type: Type, reply: Reply, message: Buffer): void {
  if (reply.isCut) return;
  const other = (dnsPacket.decode(message).answers ?? []).filter((answer) => answer.type === type);
  const theirs = other.map((answer) => textOf(type, (answer as { data: unknown }).data));
  const ours = reply.answers.flatMap(({ data }) =>
    "record" in data && data.record !== null
      ? [textOf(type, data.record)]
      : "alias" in data && type === "CNAME"
        ? [data.alias]
        : [],
  );
  must(
    JSON.stringify(ours) === JSON.stringify(theirs),
    () => `records ${JSON.stringify(ours)}, expected ${JSON.stringify(theirs)}`,
  );
}

interface AnyRecord {
  readonly exchange?: string;
  readonly name?: string;
  readonly port?: number;
  readonly preference?: number;
  readonly priority?: number;
  readonly target?: string;
}

function textOf(type: Type, data: unknown): string {
  const { exchange, name, port, preference, priority, target } = data as AnyRecord;
  if (type === "MX") return `${preference ?? priority} ${exchange}`;
  if (type === "SRV") return `${port} ${target ?? name}`;
  if (type === "TXT") return typeof data === "string" ? data : decodeText(Buffer.concat(data as Buffer[]));
  return String(data);
}
