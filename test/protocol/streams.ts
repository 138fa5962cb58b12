/**
 * What a mail server sends, made at random with the naive writer: streams in a legal order, in any order, and damaged
 * ones. For property tests and the fuzzer; nothing here knows what the answer should be.
 */
import type { Random } from "./random.ts";
import { ALL, ALL_NR, cmd, packet } from "./wire.ts";

/** Text as a client may send it, without NUL: mostly short, any bytes. */
export function anyText(random: Random): string {
  const length = random.chance(0.03) ? random.below(2000) : random.below(12);
  return random.bytes(length).toString("latin1").replaceAll("\0", "n");
}

function anyBody(random: Random): Buffer {
  return random.bytes(random.pick([0, 3, 40, 200, random.chance(0.02) ? 65_535 : 9]));
}

export function anyMacro(random: Random): Buffer {
  const names = [
    "i",
    "j",
    "v",
    "{i}",
    "_",
    "{tls_version}",
    "{auth_type}",
    "{rcpt_mailer}",
    "{daemon_name}",
    "{x}",
    "",
  ];
  const values: Record<string, string> = {};
  for (let count = random.below(5); count > 0; count--) {
    values[random.pick(names)] = random.pick(["", "1", "error", "Postfix 3.9", "8.17.1", anyText(random)]);
  }
  return cmd.macro(random.pick([..."CHMRTNEULB\xff"]), values);
}

function anyConnect(random: Random): Buffer {
  const host = random.pick(["c.test", "unknown", "[192.0.2.7]", anyText(random)]);
  const port = Buffer.of(random.below(256), random.below(256)).toString("latin1");
  const address = random.pick(["192.0.2.7", "IPv6:2001:db8:0:0:0:0:0:1", "[::1]", "/run/x", "", anyText(random)]);
  const family = random.pick([..."446LU"]);
  return packet("C", `${host}\0`, family, family === "U" ? "" : `${port}${address}\0`);
}

const SENDERS = ["<a@c.test>", "<a@c.test>", "<x@c.test>", "<>", "", "a@c.test"] as const;
const RECIPIENTS = ["<b@mx.test>", "<b@mx.test>", "<x@mx.test>", "b@mx.test", "<B@MX.test>"] as const;
const NAMES = ["Subject", "From", "Received", "Bad", "X-A", "x-a", "DKIM-Signature", ""] as const;

/** Any one command, with a payload that is well formed. */
export function anyCommand(random: Random): Buffer {
  switch (random.below(15)) {
    case 0:
      return anyConnect(random);
    case 1:
      return cmd.helo(random.pick(["c.test", "bad", anyText(random)]));
    case 2:
      return cmd.mail(random.pick([...SENDERS, anyText(random)]), ...random.pick([[], ["SIZE=1"], ["A=1", "B=2", ""]]));
    case 3:
      return cmd.rcpt(random.pick([...RECIPIENTS, anyText(random)]), ...random.pick([[], ["NOTIFY=NEVER"]]));
    case 4:
      return cmd.data();
    case 5:
    case 6:
      return cmd.header(
        random.pick([...NAMES, anyText(random)]),
        random.pick([" hi", "\tfolded\n line", anyText(random)]),
      );
    case 7:
      return cmd.eoh();
    case 8:
      return cmd.body(anyBody(random));
    case 9:
      return cmd.eom(random.chance(0.3) ? anyBody(random) : "");
    case 10:
      return random.chance(0.5) ? cmd.abort() : cmd.quitNc();
    case 11:
      return cmd.unknown(anyText(random));
    case 12:
      return random.chance(0.1) ? cmd.quit() : cmd.abort();
    case 13:
      return random.chance(0.05) ? offer(random) : anyMacro(random);
    default:
      return anyMacro(random);
  }
}

/** OPTNEG of any version, with everything on offer, nothing, or some of it. */
export function offer(random: Random): Buffer {
  const version = random.pick([6, 6, 6, 6, 2, 3, 4, 5, 8, 99, random.chance(0.1) ? 1 : 6]);
  const actions = random.pick([0x1ff, 0x1ff, 0x1ff, 0, 0x3f, 0xff, random.u32()]);
  const protocol = random.pick([ALL, ALL, ALL & ~ALL_NR, 0, 0x7f, 0xff, 0x701f_ffff, random.u32()]);
  return random.chance(0.05)
    ? packet("O", version, actions, protocol, random.bytes(random.below(9)))
    : cmd.optneg(version, actions, protocol);
}

/** A message as the mail servers send it, macros before each command. */
function message(random: Random): Buffer[] {
  const parts: Buffer[] = [];
  const add = (stage: string, command: Buffer) => {
    if (random.chance(0.5)) parts.push(cmd.macro(stage, random.chance(0.7) ? { i: `Q${random.below(9)}` } : {}));
    parts.push(command);
  };
  add("M", cmd.mail(random.pick(SENDERS), ...random.pick([[], ["SIZE=99"]])));
  for (let count = random.below(4); count > 0; count--) add("R", cmd.rcpt(random.pick(RECIPIENTS)));
  if (random.chance(0.9)) add("T", cmd.data());
  for (let count = random.below(5); count > 0; count--) {
    parts.push(cmd.header(random.pick(NAMES), random.pick([" hi", "x", " a\n b", anyText(random)])));
  }
  if (random.chance(0.9)) add("N", cmd.eoh());
  for (let count = random.below(3); count > 0; count--) parts.push(cmd.body(anyBody(random)));
  if (random.chance(0.9)) add("E", cmd.eom(random.chance(0.1) ? anyBody(random) : ""));
  if (random.chance(0.5)) parts.push(cmd.abort());
  return parts;
}

/** The commands of one SMTP session after another, in a legal order but for some. */
export function commandsOfSessions(random: Random, odd = 0.3): Buffer[] {
  const parts: Buffer[] = [];
  for (let sessions = random.chance(0.2) ? 1 + random.below(3) : 1; sessions > 0; sessions--) {
    if (random.chance(0.9)) {
      const isSimulated = random.chance(0.1);
      parts.push(cmd.macro("C", isSimulated ? { i: "Q0", v: "Postfix 3.9" } : { j: "mx.test" }), anyConnect(random));
    }
    if (random.chance(0.8)) parts.push(cmd.macro("H"), cmd.helo());
    for (let count = random.below(4); count > 0; count--) {
      if (random.chance(odd)) parts.push(anyCommand(random));
      else parts.push(...message(random));
    }
    if (sessions > 1) parts.push(cmd.quitNc());
  }
  if (random.chance(0.6)) parts.push(cmd.quit());
  return parts;
}

/** A whole connection in packets: mostly legal, or commands in any order. */
export function anyPackets(random: Random): Buffer[] {
  const start = random.chance(0.97) ? [offer(random)] : [];
  if (random.chance(0.7)) return [...start, ...commandsOfSessions(random)];
  return [...start, ...Array.from({ length: random.below(20) }, () => anyCommand(random))];
}

/** A whole connection: legal, in any order, damaged, or nothing but noise. */
export function anyStream(random: Random): Buffer {
  if (random.chance(0.05)) return noise(random);
  const packets = anyPackets(random);
  return random.chance(0.5) ? Buffer.concat(packets) : damaged(random, packets);
}

/** Random bytes; a length that can be met and a command that there is get further than pure noise. */
export function noise(random: Random): Buffer {
  const bytes = random.bytes(random.below(80));
  if (bytes.length > 5 && random.chance(0.7)) {
    bytes.writeUInt32BE(1 + random.below(bytes.length), 0);
    bytes[4] = random.pick([..."OCHMRTLNBEADQKU"]).charCodeAt(0);
  }
  return random.chance(0.5) ? Buffer.concat([cmd.optneg(), bytes]) : bytes;
}

/** The stream of these packets with one to four damages of the kinds that broken peers and attackers make. */
export function damaged(random: Random, packets: readonly Uint8Array[]): Buffer {
  const parts: Buffer[] = packets.map((bytes) => Buffer.from(bytes));
  let tail: Buffer | null = null;
  for (let count = 1 + random.below(4); count > 0 && parts.length > 0; count--) {
    const at = random.below(parts.length);
    const part = parts[at]!;
    switch (random.below(12)) {
      case 0: {
        const bit = random.below(part.length * 8);
        part[bit >> 3]! ^= 1 << (bit & 7);
        break;
      }
      case 1:
        part[random.below(part.length)] = random.below(256);
        break;
      case 2:
        parts.splice(at, 0, part);
        break;
      case 3:
        parts.splice(random.below(parts.length), 0, ...parts.splice(at, 1));
        break;
      case 4:
        parts.splice(at, 1);
        break;
      case 5:
        // Cut inside, with the length it had: what follows is swallowed.
        parts[at] = part.subarray(0, random.below(part.length + 1));
        break;
      case 6:
        if (part.length >= 4) part.writeUInt32BE(random.below(part.length + 4), 0);
        break;
      case 7:
        if (part.length >= 4) {
          part.writeUInt32BE(random.pick([0, 1, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, 1 << 20, (1 << 20) + 1]), 0);
        }
        break;
      case 8: {
        // One NUL, or all, is missing; the length is right.
        const payload = part.toString("latin1", 5);
        parts[at] = packet(
          part.toString("latin1", 4, 5) || "C",
          payload.replace(random.pick([/\0$/, /\0/, /\0/g]), ""),
        );
        break;
      }
      case 9:
        parts[at] = packet(
          part.toString("latin1", 4, 5) || "C",
          random.bytes(random.below(12)),
          random.pick(["", "\0", "a\0b\0"]),
        );
        break;
      case 10:
        if (part.length > 4) part[4] = random.below(256);
        break;
      default:
        tail = random.bytes(random.below(20));
    }
  }
  const stream = Buffer.concat(tail === null ? parts : [...parts, tail]);
  return random.chance(0.2) ? stream.subarray(0, random.below(stream.length + 1)) : stream;
}
