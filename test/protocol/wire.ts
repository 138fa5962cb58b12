/**
 * A second, naive writer and reader of packets, for tests alone: it shares no code with `src/protocol`, so a fixture
 * made here does not trust the writer under test. Text is latin1: one character, one byte.
 */

/** A whole packet: code letter and parts; a number is a uint32. */
export function packet(code: string, ...parts: readonly (string | number | Uint8Array)[]): Buffer {
  const payload = parts.map((part) => {
    if (typeof part === "number") return Buffer.of(part >>> 24, (part >>> 16) & 255, (part >>> 8) & 255, part & 255);
    return typeof part === "string" ? Buffer.from(part, "latin1") : Buffer.from(part);
  });
  const rest = Buffer.concat([Buffer.from(code, "latin1"), ...payload]);
  const { length } = rest;
  return Buffer.concat([Buffer.of(length >>> 24, (length >>> 16) & 255, (length >>> 8) & 255, length & 255), rest]);
}

/** Every protocol flag that says "no reply" (docs/protocol.md, "Protocol flags"). */
export const NR = {
  header: 0x80,
  connect: 0x1000,
  helo: 0x2000,
  envfrom: 0x4000,
  envrcpt: 0x8000,
  data: 0x10000,
  unknown: 0x20000,
  eoh: 0x40000,
  body: 0x80000,
} as const;
export const ALL_NR = 0xff080;
export const SKIP = 0x400;
export const LEADSPC = 0x100000;
export const ALL = 0x1fffff;

/** Commands with the values that most tests want. */
export const cmd = {
  optneg: (version = 6, actions = 0x1ff, protocol = ALL) => packet("O", version, actions, protocol),
  macro: (stage: string, values: Readonly<Record<string, string>> = {}) =>
    packet("D", stage, ...Object.entries(values).map(([name, value]) => `${name}\0${value}\0`)),
  connect: (hostname = "c.test", address = "192.0.2.7") => packet("C", `${hostname}\0`, "4\x9c\x40", `${address}\0`),
  helo: (name = "c.test") => packet("H", `${name}\0`),
  mail: (sender = "<a@c.test>", ...params: readonly string[]) =>
    packet("M", `${sender}\0`, ...params.map((param) => `${param}\0`)),
  rcpt: (recipient = "<b@mx.test>", ...params: readonly string[]) =>
    packet("R", `${recipient}\0`, ...params.map((param) => `${param}\0`)),
  data: () => packet("T"),
  header: (name = "Subject", value = " hi") => packet("L", `${name}\0${value}\0`),
  eoh: () => packet("N"),
  body: (chunk: string | Uint8Array = "Hello\r\n") => packet("B", chunk),
  eom: (piece: string | Uint8Array = "") => packet("E", piece),
  abort: () => packet("A"),
  quit: () => packet("Q"),
  quitNc: () => packet("K"),
  unknown: (line = "WHAT") => packet("U", `${line}\0`),
};

/** The packets of a stream, each as its code and payload in latin1; throws if it does not end with a whole one. */
export function packetsOf(bytes: Uint8Array): string[] {
  const stream = Buffer.from(bytes);
  const found: string[] = [];
  for (let at = 0; at < stream.length;) {
    const length = stream.readUInt32BE(at);
    if (length === 0 || at + 4 + length > stream.length) throw new Error(`broken packet at byte ${at}`);
    found.push(stream.toString("latin1", at + 4, at + 4 + length));
    at += 4 + length;
  }
  return found;
}

/** Bytes written as hex, with any white space. */
export function fromHex(text: string): Buffer {
  return Buffer.from(text.replaceAll(/\s/g, ""), "hex");
}
