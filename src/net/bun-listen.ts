/** `Bun.listen` as it is, where its types leave something out, and descriptors that outlive the listener that made them. */
import type { ListenAddress } from "../config/address.ts";
import { dup } from "./libc.ts";

/** What the types of Bun 1.4.5 leave out: `fd` of a listener, and listening on a descriptor. */
export type BoundListener = Bun.SocketListener<undefined> & { readonly fd: number; readonly port?: number };
export type Handlers = Bun.SocketHandler<undefined>;
export const bunListen = Bun.listen as unknown as (
  options: { socket: Handlers } & (
    { fd: number } | { unix: string } | { hostname: string; port: number; ipv6Only: boolean }
  ),
) => BoundListener;

/** A socket file of ours, by identity: the path alone may lead to somebody else's by now. */
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

/** A descriptor of our own for what Bun listens on, and Bun's is given back. */
export function takeDescriptor(bound: BoundListener): number {
  try {
    return dup(bound.fd);
  } finally {
    bound.stop();
  }
}

/** For listeners that stop before the event loop can accept anything. */
export const NO_HANDLERS: Handlers = { data() {} };
