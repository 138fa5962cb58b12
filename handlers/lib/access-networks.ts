/**
 * Networks with a value each. node:net's BlockList answers only yes or no, goes through all its rules (100,000: 0.3 ms
 * a lookup) and takes seconds to be filled; here a lookup costs a Map lookup for each prefix length in use.
 */
import { isIPv4, isIPv6 } from "node:net";

interface Address {
  readonly width: 32 | 128;
  readonly bits: bigint;
}

export class NetworkTable<T> {
  /** By width, then by prefix length, longest first; keys are the bits of the prefix. */
  readonly #tables: Record<Address["width"], Map<number, Map<bigint, T>>> = { 32: new Map(), 128: new Map() };

  /**
   * Adds `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`; of several entries of a network, the first counts.
   * @throws RangeError with the mistake
   */
  add(network: string, value: T): void {
    const [, text = "", prefix] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(network) ?? [];
    const address = parseAddress(text);
    if (address === null) throw new RangeError(`${network} is no address or network`);
    const { width, bits } = address;
    const length = prefix === undefined ? width : Number(prefix);
    if (length > width) throw new RangeError(`${network}: the prefix has at most ${width} bits`);
    const host = BigInt(width - length);
    const key = bits >> host;
    if (key << host !== bits) throw new RangeError(`${network} has bits set beyond its prefix`);
    const table = this.#tables[width];
    const known = table.get(length);
    if (known === undefined) {
      table.set(length, new Map([[key, value]]));
      this.#tables[width] = new Map([...table].sort(([a], [b]) => b - a));
    } else if (!known.has(key)) {
      known.set(key, value);
    }
  }

  /** The value of the smallest network that contains the address; undefined also for a text that is no IP address. */
  find(address: string): T | undefined {
    const parsed = parseAddress(address);
    if (parsed === null) return undefined;
    for (const [length, table] of this.#tables[parsed.width]) {
      const found = table.get(parsed.bits >> BigInt(parsed.width - length));
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

function parseAddress(text: string): Address | null {
  if (isIPv4(text)) return { width: 32, bits: bitsOfIPv4(text) };
  if (!isIPv6(text) || text.includes("%")) return null;
  // The last four bytes may be written as IPv4.
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  const low = dotted === null ? 0n : bitsOfIPv4(dotted[2]!);
  const plain = dotted === null ? text : `${dotted[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`;
  const [head = "", tail] = plain.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = Array<string>(8 - before.length - after.length).fill("0");
  const digits = [...before, ...zeros, ...after].map((group) => group.padStart(4, "0")).join("");
  const bits = BigInt(`0x${digits}`);
  // ::ffff:192.0.2.7 is an IPv4 client.
  if (bits >> 32n === 0xffffn) return { width: 32, bits: bits & 0xffffffffn };
  return { width: 128, bits };
}

/** Bits of a prefix for each kind of address. */
export interface Prefixes {
  readonly ipv4: number;
  readonly ipv6: number;
}

/** An address in a single spelling; `""` for a text that is none. */
export function canonicalAddress(text: string): string {
  const address = parseAddress(text);
  return address === null ? "" : spell(address);
}

/** The network of an address, such as `192.0.2.0/24`; `""` for a text that is no address. */
export function networkOf(text: string, { ipv4, ipv6 }: Prefixes): string {
  const address = parseAddress(text);
  if (address === null) return "";
  const { bits, width } = address;
  const prefix = width === 32 ? ipv4 : ipv6;
  const host = BigInt(width - prefix);
  return `${spell({ width, bits: (bits >> host) << host })}/${prefix}`;
}

function spell({ bits, width }: Address): string {
  if (width === 32) return [24n, 16n, 8n, 0n].map((shift) => (bits >> shift) & 0xffn).join(".");
  const digits = bits.toString(16).padStart(32, "0");
  // URL writes it as RFC 5952 has it, in brackets.
  return new URL(`http://[${digits.match(/.{4}/g)!.join(":")}]`).hostname.slice(1, -1);
}

function bitsOfIPv4(text: string): bigint {
  return text.split(".").reduce((bits, byte) => (bits << 8n) | BigInt(byte), 0n);
}
