/**
 * The SMTP client's address as each mail server reports it in CONNECT. Text to text: nothing is looked up.
 */
import { isIPv4, isIPv6 } from "node:net";
import { FAMILY } from "../protocol/constants.ts";
import { ClientUsageError } from "./errors.ts";
import type { Habit } from "./habits.ts";

/** The SMTP client; members that are left out get their default. */
export interface ClientInfo {
  /** IPv4 or IPv6 address, the path of a unix socket, or "" for not known; default `127.0.0.1`. */
  readonly address?: string | undefined;
  /** The verified name; default `localhost` for this machine, else the address in brackets. */
  readonly hostname?: string | undefined;
  /** 0 to 65535; default 0, not known. */
  readonly port?: number | undefined;
}

/** The fields of CONNECT. */
export interface ConnectionFacts {
  readonly hostname: string;
  readonly family: "inet" | "inet6" | "unix" | "unknown";
  readonly port: number;
  readonly address: string;
}

export const FAMILY_BYTE: Readonly<Record<ConnectionFacts["family"], number>> = {
  inet: FAMILY.INET,
  inet6: FAMILY.INET6,
  unix: FAMILY.UNIX,
  unknown: FAMILY.UNKNOWN,
};

/**
 * CONNECT as a server of that habit would send it: Postfix gives an IPv6 address as it is, Sendmail as
 * `IPv6:2001:db8:0:0:0:0:0:1`; both give an IPv4-mapped address as IPv4.
 * @throws ClientUsageError if the address is of no family, or the port out of range
 */
export function connectionFacts(client: ClientInfo, habit: Habit): ConnectionFacts {
  const given = (client.address ?? "127.0.0.1").replace(/^IPv6:/i, "").replace(/^\[(.*)\]$/, "$1");
  const address = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(given)?.[1] ?? given;
  const port = client.port ?? 0;
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new ClientUsageError(`client port ${port}, expected 0 to 65535`);
  }
  if (address === "") {
    return {
      hostname: client.hostname ?? (habit === "postfix" ? "unknown" : "localhost"),
      family: "unknown",
      port: 0,
      address,
    };
  }
  if (isIPv4(address)) {
    const isLocal = address.startsWith("127.");
    return { hostname: client.hostname ?? (isLocal ? "localhost" : `[${address}]`), family: "inet", port, address };
  }
  if (isIPv6(address)) {
    const sent = habit === "sendmail" ? `IPv6:${expandIPv6(address)}` : address;
    const hostname = client.hostname ?? (address === "::1" ? "localhost" : `[${sent}]`);
    return { hostname, family: "inet6", port, address: sent };
  }
  if (address.includes("/")) {
    return { hostname: client.hostname ?? "localhost", family: "unix", port: 0, address };
  }
  throw new ClientUsageError(`client address "${address}" is neither IPv4 nor IPv6, nor the path of a unix socket`);
}

/** All eight groups without leading zeros and without `::`, as Sendmail writes addresses by default. */
function expandIPv6(address: string): string {
  const canonical = new URL(`http://[${address.split("%")[0]}]/`).hostname.slice(1, -1);
  const [head = "", tail] = canonical.split("::");
  if (tail === undefined) return head;
  const before = head.split(":").filter((group) => group !== "");
  const after = tail.split(":").filter((group) => group !== "");
  return [...before, ...Array<string>(8 - before.length - after.length).fill("0"), ...after].join(":");
}
