/** The SMTP client as CONNECT tells of it, from the bytes of that packet. */
import { decodeText, stringEnd } from "./bytes.ts";
import { FAMILY, nameOf } from "./constants.ts";
import { ProtocolError } from "./errors.ts";

/** The SMTP client, as CONNECT tells of it. */
export interface Client {
  /** The verified host name, an address in brackets, `localhost` or `unknown`. */
  readonly hostname: string;
  readonly family: "inet" | "inet6" | "unix" | "unknown";
  /** The IP address in its plain form, the path of a unix socket, or "" if not known. */
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
  return { hostname, family, address: plainAddress(decodeText(bytes, portAt + 2, addressEnd), family), port };
}

/**
 * One spelling for an address: Sendmail puts `IPv6:` in front and does not compress zeros, and some servers use
 * brackets. IPv6 is given in the form of RFC 5952; what is not a valid address is left as it came.
 */
function plainAddress(sent: string, family: Client["family"]): string {
  if (family === "unix") return sent;
  let address = sent.startsWith("[") && sent.endsWith("]") ? sent.slice(1, -1) : sent;
  if (/^ipv6:/i.test(address)) address = address.slice(5);
  if (family !== "inet6" || !address.includes(":")) return address;
  try {
    return new URL(`http://[${address}]/`).hostname.slice(1, -1);
  } catch {
    return address;
  }
}
