/** The SMTP client as CONNECT tells of it, from the bytes of that packet. */
import { decodeText, stringEnd } from "./bytes.ts";
import { FAMILY, nameOf } from "./constants.ts";
import { ProtocolError } from "./errors.ts";

/**
 * The SMTP client, as CONNECT tells of it.
 * @example const nameOf = ({ address, hostname }: Client) => `${hostname} [${address}]`;
 */
export interface Client {
  /** The verified host name, an address in brackets, `localhost` or `unknown`. */
  readonly hostname: string;
  readonly family: "inet" | "inet6" | "unix" | "unknown";
  /** The IP address in its plain form, the path of a unix socket, or "" if not known: the family is then "unknown". */
  readonly address: string;
  /** 0 if not known. */
  readonly port: number;
}

export const UNKNOWN_CLIENT: Client = { hostname: "", family: "unknown", address: "", port: 0 };

const FAMILIES: Readonly<Record<number, Client["family"]>> = {
  [FAMILY.INET]: "inet",
  [FAMILY.INET6]: "inet6",
  [FAMILY.UNIX]: "unix",
  [FAMILY.UNKNOWN]: "unknown",
};

/**
 * Decodes the payload of CONNECT.
 * @throws ProtocolError PMILTER_ERR_TOO_SHORT, PMILTER_ERR_FAMILY, PMILTER_ERR_MISSING_NUL
 */
export function readClient(bytes: Uint8Array, start: number, end: number): Client {
  const nameEnd = stringEnd(bytes, start, end, "the host name of CONNECT");
  const hostname = decodeText(bytes, start, nameEnd);
  if (nameEnd + 1 >= end) {
    throw new ProtocolError("PMILTER_ERR_TOO_SHORT", "CONNECT ends before its address family");
  }
  const family = FAMILIES[bytes[nameEnd + 1]!];
  if (family === undefined) {
    throw new ProtocolError(
      "PMILTER_ERR_FAMILY",
      `address family ${nameOf(FAMILY, bytes[nameEnd + 1]!)} in CONNECT, expected 4, 6, L or U`,
    );
  }
  if (family === "unknown") return { hostname, family, address: "", port: 0 };
  const portAt = nameEnd + 2;
  if (portAt + 2 > end) {
    throw new ProtocolError("PMILTER_ERR_TOO_SHORT", "CONNECT ends before its port");
  }
  const addressEnd = stringEnd(bytes, portAt + 2, end, "the address of CONNECT");
  const port = (bytes[portAt]! << 8) | bytes[portAt + 1]!;
  const sent = decodeText(bytes, portAt + 2, addressEnd);
  // Postfix sends this for a client that another server forwarded without its address, with the family inet.
  if (family !== "unix" && /^(?:ipv6:)?\[?(?:unknown|unavailable)?\]?$/i.test(sent)) {
    return { hostname, family: "unknown", address: "", port };
  }
  return { hostname, family, address: plainAddress(sent, family), port };
}

/**
 * A single spelling for each address: Sendmail puts `IPv6:` in front and does not compress zeros, and some servers use
 * brackets. IPv6 gets the form of RFC 5952; text that is no valid address stays as it came.
 */
function plainAddress(sent: string, family: Client["family"]): string {
  if (family === "unix") return sent;
  const address = sent.replace(/^\[?(?:ipv6:)?\[?([^[\]]*)\]?\]?$/i, "$1");
  if (family !== "inet6") return address;
  const [, ip, zone] = /^([^%]*:[^%]*)(%.+)?$/s.exec(address) ?? [];
  if (ip === undefined) return address;
  try {
    return withDottedQuad(new URL(`http://[${ip}]/`).hostname.slice(1, -1)) + (zone ?? "");
  } catch {
    return address;
  }
}

/**
 * An IPv4 address within an IPv6 address is written in dots, behind a prefix that says so (RFC 5952 5): IPv4-mapped,
 * -translated and -compatible addresses, and those of NAT64.
 */
function withDottedQuad(address: string): string {
  const [, prefix, high, low] = /^(::(?:ffff:(?:0:)?)?|64:ff9b::)([0-9a-f]+):([0-9a-f]+)$/.exec(address) ?? [];
  if (prefix === undefined) return address;
  const quad = [high!, low!].map((group) => Number.parseInt(group, 16)).flatMap((word) => [word >> 8, word & 0xff]);
  return prefix + quad.join(".");
}
