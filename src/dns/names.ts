/** Names as the DNS has them, and the names by which addresses and domains are looked up in lists (RFC 1035, 3596, 5782). */
import { isIPv4, isIPv6 } from "node:net";
import { domainToASCII } from "node:url";

const MAX_NAME = 253;
const MAX_LABEL = 63;

/**
 * A name as it is asked for: A-labels, lower case, without a dot at its end. Null for text that no name can be: a client
 * may send anything.
 */
export function asDnsName(text: string): string | null {
  const plain = /[^\0-\x7f]/.test(text) ? domainToASCII(text) : text.toLowerCase(); // oxlint-disable-line no-control-regex
  const name = plain.endsWith(".") ? plain.slice(0, -1) : plain;
  if (name.length > MAX_NAME || !/^[!-~]+$/.test(name) || /[\\"();@]/.test(name)) return null;
  return name.split(".").every((label) => label !== "" && label.length <= MAX_LABEL) ? name : null;
}

/** The address in an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3); null for anything else. */
export function literalAddress(text: string): string | null {
  const [, tag, address = ""] = /^\[(ipv6:)?([^\]]*)\]$/i.exec(text) ?? [];
  const isAddress = tag === undefined ? isIPv4(address) : isIPv6(address);
  return isAddress ? address : null;
}

/** The four bytes of an IPv4 address, or the sixteen of an IPv6 address; null for anything else. */
export function addressBytes(address: string): Uint8Array | null {
  if (isIPv4(address)) return Uint8Array.from(address.split("."), Number);
  if (!isIPv6(address)) return null;
  const zone = address.indexOf("%");
  let text = zone === -1 ? address : address.slice(0, zone);
  const bytes = new Uint8Array(16);
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (dotted !== null) {
    const [a, b, c, d] = dotted[2]!.split(".").map(Number) as [number, number, number, number];
    text = `${dotted[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [left = "", right] = text.split("::");
  const words = (part: string): number[] =>
    part === "" ? [] : part.split(":").map((word) => Number.parseInt(word, 16));
  const before = words(left);
  const after = right === undefined ? [] : words(right);
  for (const [at, word] of before.entries()) bytes.set([word >> 8, word & 0xff], at * 2);
  const from = 8 - after.length;
  for (const [at, word] of after.entries()) bytes.set([word >> 8, word & 0xff], (from + at) * 2);
  // An IPv4 address in an IPv6 socket's form (RFC 4291 2.5.5.2).
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  return isMapped ? bytes.slice(12) : bytes;
}

/** The reversed digits of an address, as they stand in front of a zone: `2.0.0.127`, or the 32 digits of an IPv6 address. */
export function reversed(address: string): string | null {
  const bytes = addressBytes(address);
  if (bytes === null) return null;
  if (bytes.length === 4) return Array.from(bytes).reverse().join(".");
  return Array.from(Buffer.from(bytes).toString("hex")).reverse().join(".");
}

/** The name under which an address has its names; null for anything that is no address. */
export function reverseName(address: string): string | null {
  const bytes = addressBytes(address);
  if (bytes === null) return null;
  return `${reversed(address)}.${bytes.length === 4 ? "in-addr.arpa" : "ip6.arpa"}`;
}

/** The text of 4 or 16 bytes of an address, in its short form (RFC 5952). */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const words = Array.from({ length: 8 }, (_, index) => (bytes[index * 2]! << 8) | bytes[index * 2 + 1]!);
  if (words.slice(0, 5).every((word) => word === 0) && words[5] === 0xffff) {
    return `::ffff:${bytes.subarray(12).join(".")}`;
  }
  const texts = words.map((word) => word.toString(16));
  const runs = [...texts.join(":").matchAll(/(?<![\da-f])0(?::0)+(?![\da-f])/g)];
  const longest = runs.reduce((best, [run]) => (run.length > best.length ? run : best), "");
  const text = texts.join(":");
  if (longest === "") return text;
  const at = runs.find(([run]) => run === longest)!.index;
  const before = text.slice(0, at).replace(/:$/, "");
  const after = text.slice(at + longest.length).replace(/^:/, "");
  return `${before}::${after}`;
}
