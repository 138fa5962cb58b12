/** The codes with which DNS lists answer: addresses in 127.0.0.0/8, as numbers or as bits (RFC 5782 2.3). */
import { isIPv4 } from "node:net";

/** Whether a code counts. */
export type CodeTest = (code: string) => boolean;

/** The list of a domain was asked about an address: Spamhaus DBL's answer, which is no listing. */
export const NO_ADDRESSES = "127.0.1.255";

/** The bits of a code that differ from list to list. */
const MAX_MASK = 0xff_ff_ff;

/** `127.0.0.2`, `127.0.0.4/30`, or `&8` for codes with that bit in their last three bytes; null for anything else. */
export function codeTest(pattern: string): CodeTest | null {
  const [, mask] = /^&(0x[\da-f]{1,6}|\d{1,8})$/i.exec(pattern) ?? [];
  if (mask !== undefined) {
    const bits = Number(mask);
    return bits > 0 && bits <= MAX_MASK ? (code) => (numberOf(code) & bits) === bits : null;
  }
  const [, address = "", length = "32"] = /^([\d.]+)(?:\/(\d{1,2}))?$/.exec(pattern) ?? [];
  const prefix = Number(length);
  if (!isIPv4(address) || !address.startsWith("127.") || prefix < 8 || prefix > 32) return null;
  const network = numberOf(address) >>> (32 - prefix);
  return (code) => numberOf(code) >>> (32 - prefix) === network;
}

function numberOf(address: string): number {
  return address.split(".").reduce((number, byte) => ((number << 8) | Number(byte)) >>> 0, 0);
}
