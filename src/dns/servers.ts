/** Name servers, as a configuration and messages write them. */
import { isIP, isIPv6 } from "node:net";

export interface NameServer {
  readonly address: string;
  readonly port: number;
}

/** `[dns]`. */
export interface DnsSettings {
  /** Empty: those of `/etc/resolv.conf`. */
  readonly servers: readonly NameServer[];
  readonly timeoutMs: number;
  readonly attempts: number;
  /** Answers that are kept. */
  readonly cache: number;
}

export const DNS_PORT = 53;

/** A server as a configuration writes it: `127.0.0.1`, `127.0.0.1:5353`, `[::1]:53`; null if it is none of these. */
export function parseServer(text: string): NameServer | null {
  if (isIP(text) !== 0) return { address: text, port: DNS_PORT };
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const address = bracketed ?? plain ?? "";
  const port = digits === undefined ? DNS_PORT : Number(digits);
  const isAddress = bracketed === undefined ? isIP(address) === 4 : isIPv6(address);
  return isAddress && port >= 1 && port <= 0xffff ? { address, port } : null;
}

/** Names a server in messages. */
export function nameOfServer({ address, port }: NameServer): string {
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`;
}
