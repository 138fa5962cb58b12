/**
 * DNS messages as they are sent (RFC 1035 4): a question, and the part of a reply that concerns it. A reply comes from
 * anybody who can send a packet: its header is compared first, and the work for it is bounded.
 */
import type { RecordOf, RecordType } from "../../dns/answer.ts";
import { addressText } from "../../dns/names.ts";
import { decodeText } from "../../protocol/bytes.ts";

/** What is asked; the name as the DNS has it: ASCII, odd bytes as `\DDD`, without a dot at its end. */
export interface Question {
  readonly name: string;
  readonly type: RecordType;
}

export interface ResourceRecord {
  /** In lower case. */
  readonly name: string;
  /** Seconds. */
  readonly ttl: number;
  /** An alias, or a record of the type that was asked for; null if it has not the form of its type. */
  readonly data: { readonly alias: string } | { readonly record: RecordOf[RecordType] | null };
}

export interface Reply {
  /** Such as `NOERROR`; `RCODE11` for one without a name. */
  readonly rcode: string;
  /** It did not fit into the packet. */
  readonly isCut: boolean;
  /** The server points to other servers, which it does not ask itself. */
  readonly isReferral: boolean;
  /** Records of the type that was asked for, and aliases. */
  readonly answers: readonly ResourceRecord[];
  /** Seconds that a negative answer may be kept (RFC 2308 5); null without an SOA. */
  readonly negativeTtl: number | null;
}

/** The reply belongs to the question, and cannot be read. */
export class UnreadableReply extends Error {
  override readonly name = "UnreadableReply";
}

const TYPE: Readonly<Record<RecordType, number>> = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  TLSA: 52,
  CAA: 257,
};
const OPT = 41;
const IN = 1;
const RCODES = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

const HEADER_BYTES = 12;
const MAX_LABEL = 63;
/** Bytes of a name (RFC 1035 2.3.4). */
const MAX_NAME = 255;
const MAX_TEXT_STRING = 255;

const IS_REPLY = 1 << 15;
const OPCODE = 0xf << 11;
const IS_AUTHORITY = 1 << 10;
const IS_CUT = 1 << 9;
const RECURSION_DESIRED = 1 << 8;
const RECURSION_AVAILABLE = 1 << 7;
const AUTHENTIC_DATA = 1 << 5;
const RCODE = 0xf;

/** Bytes of an answer by UDP: no network cuts such a packet (RFC 9715). */
const UDP_BYTES = 1232;
/** Records of an answer beyond these are left out: a message of 64 KB has thousands. */
const MAX_RECORDS = 1000;
/** A longer time is taken for none (RFC 2181 8). */
const MAX_TTL = 0x7fff_ffff;

const DOT = 46;
const BACKSLASH = 92;

/** A name in wire format. @throws RangeError for text that is no name */
export function encodeName(text: string): number[] {
  const bytes: number[] = [];
  if (text === "") return [0];
  let label: number[] = [];
  const end = (): void => {
    if (label.length === 0 || label.length > MAX_LABEL) throw new RangeError(`no name: ${text}`);
    bytes.push(label.length, ...label);
    label = [];
  };
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === DOT) end();
    else if (code === BACKSLASH) {
      const [, digits] = /^\\(\d{3})/.exec(text.slice(at, at + 4)) ?? [];
      label.push(digits === undefined ? text.charCodeAt(at + 1) : Number(digits));
      at += digits === undefined ? 1 : 3;
    } else if (code > 0x7f) throw new RangeError(`no name: ${text}`);
    else label.push(code);
  }
  end();
  bytes.push(0);
  if (bytes.length > MAX_NAME || bytes.some((byte) => !(byte <= 0xff))) throw new RangeError(`no name: ${text}`);
  return bytes;
}

/**
 * A query with one question.
 * @param hasEdns false for servers that do not know EDNS (RFC 6891 7)
 */
export function encodeQuery(id: number, { name, type }: Question, hasEdns: boolean): Uint8Array {
  // AD asks for what the server knows of DNSSEC (RFC 6840 5.7); it is not relied on.
  const header = [id, RECURSION_DESIRED | AUTHENTIC_DATA, 1, 0, 0, hasEdns ? 1 : 0].flatMap(two);
  const question = [...encodeName(name), ...two(TYPE[type]), ...two(IN)];
  const edns = hasEdns ? [0, ...two(OPT), ...two(UDP_BYTES), 0, 0, 0, 0, 0, 0] : [];
  return Uint8Array.from([...header, ...question, ...edns]);
}

const two = (value: number): number[] => [value >> 8, value & 0xff];

/**
 * The reply to a question.
 * @returns null for any other bytes, which are ignored
 * @throws UnreadableReply if it is the reply, and its form is wrong
 */
export function decodeReply(bytes: Uint8Array, id: number, question: Question): Reply | null {
  if (bytes.length < HEADER_BYTES) return null;
  const reader = new Reader(bytes);
  const flags = reader.u16At(2);
  if (reader.u16At(0) !== id || (flags & IS_REPLY) === 0 || (flags & OPCODE) !== 0) return null;
  try {
    if (!isOf(reader, question)) return null;
  } catch (error) {
    if (error instanceof UnreadableReply) return null;
    throw error;
  }
  return readSections(reader, flags, question);
}

/** Reads the section with the question. @returns whether it is the one that was asked */
function isOf(reader: Reader, { name, type }: Question): boolean {
  const count = reader.u16At(4);
  const rcode = reader.u16At(2) & RCODE;
  reader.at = HEADER_BYTES;
  // Some servers leave the question out of an error.
  if (count === 0) return rcode !== 0 && rcode !== RCODES.indexOf("NXDOMAIN");
  return count === 1 && reader.name() === name.toLowerCase() && reader.u16() === TYPE[type] && reader.u16() === IN;
}

function readSections(reader: Reader, flags: number, { type }: Question): Reply {
  const isCut = (flags & IS_CUT) !== 0;
  let rcode = flags & RCODE;
  const answers: ResourceRecord[] = [];
  let negativeTtl: number | null = null;
  let hasServers = false;
  // Of an answer that was cut nothing is used.
  const counts = isCut ? [0, 0, 0] : [reader.u16At(6), reader.u16At(8), reader.u16At(10)];
  for (const [section, count] of counts.entries()) {
    for (let left = count; left > 0; left--) {
      const owner = reader.at;
      reader.skipName();
      const [kind, inClass, ttlRead, length] = [reader.u16(), reader.u16(), reader.u32(), reader.u16()];
      const ttl = ttlRead > MAX_TTL ? 0 : ttlRead;
      const end = reader.at + length;
      if (end > reader.bytes.length) throw new UnreadableReply("a record is longer than the message");
      if (section === 0 && inClass === IN && (kind === TYPE[type] || kind === TYPE.CNAME)) {
        if (answers.length < MAX_RECORDS) {
          const data = kind === TYPE[type] ? { record: recordOf(reader, type, end) } : aliasOf(reader, end);
          answers.push({ name: reader.nameAt(owner), ttl, data });
        }
      } else if (section === 1 && kind === TYPE.SOA) {
        const soa = recordOf(reader, "SOA", end) as RecordOf["SOA"] | null;
        if (soa !== null) negativeTtl ??= Math.min(ttl, soa.minttl > MAX_TTL ? 0 : soa.minttl);
      } else if (section === 1 && kind === TYPE.NS) hasServers = true;
      // The upper bits of the code (RFC 6891 6.1.3).
      else if (section === 2 && kind === OPT) rcode |= (ttlRead >>> 24) << 4;
      reader.at = end;
    }
  }
  const isReferral =
    hasServers && answers.length === 0 && negativeTtl === null && (flags & (IS_AUTHORITY | RECURSION_AVAILABLE)) === 0;
  return { rcode: RCODES[rcode] ?? `RCODE${rcode}`, isCut, isReferral, answers, negativeTtl };
}

function aliasOf(reader: Reader, end: number): ResourceRecord["data"] {
  const alias = recordOf(reader, "CNAME", end);
  return alias === null ? { record: null } : { alias: (alias as string).toLowerCase() };
}

/** @returns null for a record that has not the form of its type */
function recordOf(reader: Reader, type: RecordType, end: number): RecordOf[RecordType] | null {
  try {
    const record = READ[type](reader, end);
    return reader.at === end ? record : null;
  } catch (error) {
    if (error instanceof UnreadableReply) return null;
    throw error;
  }
}

const READ: { readonly [T in RecordType]: (reader: Reader, end: number) => RecordOf[T] } = {
  A: (reader, end) => addressOf(reader, end, 4),
  AAAA: (reader, end) => addressOf(reader, end, 16),
  CNAME: (reader) => reader.name("as it is"),
  NS: (reader) => reader.name("as it is"),
  PTR: (reader) => reader.name("as it is"),
  MX: (reader) => ({ priority: reader.u16(), exchange: reader.name("as it is") }),
  SRV: (reader) => ({
    priority: reader.u16(),
    weight: reader.u16(),
    port: reader.u16(),
    name: reader.name("as it is"),
  }),
  SOA: (reader) => ({
    nsname: reader.name("as it is"),
    hostmaster: reader.name("as it is"),
    serial: reader.u32(),
    refresh: reader.u32(),
    retry: reader.u32(),
    expire: reader.u32(),
    minttl: reader.u32(),
  }),
  TXT(reader, end) {
    const strings: Uint8Array[] = [];
    while (reader.at < end) strings.push(reader.take(Math.min(reader.u8(), MAX_TEXT_STRING)));
    if (reader.at > end) throw new UnreadableReply("a string is longer than its record");
    return decodeText(Buffer.concat(strings));
  },
  CAA(reader, end) {
    const critical = reader.u8();
    const tag = decodeText(reader.take(reader.u8()));
    return { critical, tag, value: decodeText(reader.take(end - reader.at)) };
  },
  TLSA: (reader, end) => ({
    usage: reader.u8(),
    selector: reader.u8(),
    match: reader.u8(),
    data: Buffer.from(reader.take(end - reader.at)).toString("hex"),
  }),
};

function addressOf(reader: Reader, end: number, length: number): string {
  if (end - reader.at !== length) throw new UnreadableReply("an address of another length");
  return addressText(reader.take(length));
}

/** Reads a message from a place in it. */
class Reader {
  readonly bytes: Uint8Array;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  u8(): number {
    return this.take(1)[0]!;
  }

  u16(): number {
    const [high = 0, low = 0] = this.take(2);
    return (high << 8) | low;
  }

  u32(): number {
    const [first = 0, second = 0, third = 0, fourth = 0] = this.take(4);
    return ((first << 24) | (second << 16) | (third << 8) | fourth) >>> 0;
  }

  u16At(at: number): number {
    return (this.bytes[at]! << 8) | this.bytes[at + 1]!;
  }

  take(length: number): Uint8Array {
    const end = this.at + length;
    if (length < 0 || end > this.bytes.length) throw new UnreadableReply("it ends within a record");
    const taken = this.bytes.subarray(this.at, end);
    this.at = end;
    return taken;
  }

  skipName(): void {
    for (;;) {
      const length = this.u8();
      if (length === 0) return;
      if ((length & 0xc0) === 0xc0) {
        this.take(1);
        return;
      }
      if (length > MAX_LABEL) throw new UnreadableReply("a label of an unknown kind");
      this.take(length);
    }
  }

  /** The name at a place, in lower case; the reader stays where it is. */
  nameAt(at: number): string {
    const back = this.at;
    this.at = at;
    const name = this.name();
    this.at = back;
    return name;
  }

  /** A name; names point backwards only, so that every name ends (RFC 1035 4.1.4). */
  name(form: "in lower case" | "as it is" = "in lower case"): string {
    let text = "";
    let total = 1;
    let start = this.at;
    let back = -1;
    for (;;) {
      const length = this.u8();
      if (length === 0) break;
      if ((length & 0xc0) === 0xc0) {
        const to = ((length & 0x3f) << 8) | this.u8();
        if (to >= start) throw new UnreadableReply("a name points forwards");
        if (back === -1) back = this.at;
        start = to;
        this.at = to;
        continue;
      }
      if (length > MAX_LABEL) throw new UnreadableReply("a label of an unknown kind");
      total += length + 1;
      if (total > MAX_NAME) throw new UnreadableReply("a name is too long");
      const label = labelText(this.take(length));
      text = text === "" ? label : `${text}.${label}`;
    }
    if (back !== -1) this.at = back;
    return form === "as it is" ? text : text.toLowerCase();
  }
}

/** A label as text: what is no plain character has a backslash (RFC 1035 5.1). */
function labelText(label: Uint8Array): string {
  const text = String.fromCharCode(...label);
  if (/^[\w-]*$/.test(text)) return text;
  return text
    .replaceAll(/[.\\"();@$]/g, String.raw`\$&`)
    .replaceAll(/[^!-~]/g, (odd) => `\\${String(odd.charCodeAt(0)).padStart(3, "0")}`);
}
