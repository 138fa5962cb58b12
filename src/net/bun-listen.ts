/** `Bun.listen` as it is, where its types leave something out, and descriptors that outlive the listener that made them. */
import type { ListenAddress } from "../config/address.ts";
import { close, dup, listen } from "./libc.ts";

/** `fd` of a listener, and listening on a descriptor: the types of Bun 1.4.5 lack both (docs/bun.md, "Types"). */
export type BoundListener = Bun.SocketListener<undefined> & { readonly fd: number; readonly port?: number };
export type Handlers = Bun.SocketHandler<undefined>;
export const bunListen = Bun.listen as unknown as (
  options: { socket: Handlers } & (
    { fd: number } | { unix: string } | { hostname: string; port: number; ipv6Only: boolean }
  ),
) => BoundListener;

/** Address and port of a peer; undefined for a unix socket. */
export interface Remote {
  readonly remoteAddress: string | undefined;
  readonly remotePort: number | undefined;
}

const UNNAMED: Remote = { remoteAddress: undefined, remotePort: undefined };

/** A socket file of ours, by identity: another server's file may have the path by now. */
export interface SocketFile {
  readonly path: string;
  readonly dev: bigint;
  readonly ino: bigint;
}

export interface Bound {
  readonly address: ListenAddress;
  /** The listening descriptor that the listener keeps. */
  readonly fd: number;
  readonly file: SocketFile | null;
}

/**
 * Accepts the connections of a listening descriptor, by a duplicate of it that Bun owns from then on.
 * @param backlog connections that may wait to be accepted
 * @throws LibcError (EMFILE), or an error of Bun's; the duplicate is closed then
 */
export function acceptBy(descriptor: number, backlog: number, socket: Handlers): BoundListener {
  const copy = dup(descriptor);
  let bound: BoundListener;
  try {
    bound = bunListen({ fd: copy, socket });
  } catch (error) {
    close(copy);
    throw error;
  }
  try {
    // Bun 1.4.5 ignores a backlog, and has just called listen() itself, with 512 (docs/bun.md, "Sockets").
    listen(descriptor, backlog);
  } catch (error) {
    bound.stop();
    throw error;
  }
  return bound;
}

/** The descriptor of a socket, -1 once it is closed. The types of Bun 1.4.5 lack it (docs/bun.md, "Types"). */
export function descriptorOf(socket: Bun.Socket<undefined>): number {
  return (socket as unknown as { readonly fd: number }).fd;
}

/** Where a connection comes from. Asking costs calls of the system, also of a unix socket, where there is no answer. */
export function remoteOf(socket: Bun.Socket<undefined>, isUnix: boolean): Remote {
  return isUnix ? UNNAMED : socket;
}

/** Stops a listener, and returns a descriptor of our own for its listening socket. */
export function takeDescriptor(bound: BoundListener): number {
  try {
    return dup(bound.fd);
  } finally {
    bound.stop();
  }
}

/** For listeners that stop before the event loop can accept anything. */
export const NO_HANDLERS: Handlers = { data() {} };
