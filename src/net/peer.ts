/** The peer of a connection: its name in logs, and whether `server.allow` lets it in. */
import { BlockList } from "node:net";
import { formatAddress } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import type { Remote } from "./bun-listen.ts";

/** A peer, for logs: `inet:127.0.0.1:40000`, or the path of the unix socket that it came to. */
export type PeerName = string;

/** @param listener where it came to, for a peer that has no address of its own */
export function peerName({ remoteAddress: host, remotePort: port }: Remote, listener: string): PeerName {
  if (host === undefined || port === undefined) return listener;
  return formatAddress({ kind: "tcp", host, port, family: host.includes(":") ? 6 : 4 });
}

/** The kind of lines that {@link notAllowed} is. */
export const NOT_ALLOWED = "not in server.allow, connection refused";

/** The log line of a peer that `server.allow` does not let in. */
export function notAllowed(peer: PeerName): string {
  return `${peer}: ${NOT_ALLOWED}`;
}

/** The networks of `server.allow`; null if everybody is let in. */
export function allowedBy({ server }: Config): BlockList | null {
  if (server.allow === null) return null;
  const list = new BlockList();
  for (const { address, prefix, family } of server.allow) {
    list.addSubnet(address, prefix, family === 4 ? "ipv4" : "ipv6");
  }
  return list;
}

/**
 * A peer of a unix socket always is: mode and owner of its file are the access control. An inherited socket may take both
 * families: an IPv4 client then has the address `::ffff:192.0.2.1`.
 */
export function isAllowed(allowed: BlockList | null, peer: PeerName): boolean {
  if (allowed === null) return true;
  const host = /^inet6?:\[?(.*?)\]?:\d+$/.exec(peer)?.[1];
  if (host === undefined) return true;
  const address = host.replace(/^::ffff:(?=\d+\.)/i, "");
  return allowed.check(address, address.includes(":") ? "ipv6" : "ipv4");
}
