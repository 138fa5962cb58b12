/**
 * The listening side of the main thread: binds an address, and hands over each connection when it is accepted, as a
 * descriptor of which nothing was read. It speaks no protocol, counts nothing and places nothing; its owner does.
 *
 * Bun's own socket of a connection is closed at once: it would be in the event loop, and wake the main thread twice for
 * each connection, for nothing. Each listener keeps a listening descriptor of its own and lends Bun duplicates of it: a
 * listener of Bun 1.4.5 cannot pause accepting, and removes the socket's file when it stops (docs/bun.md, "Sockets").
 */
import { unlinkSync } from "node:fs";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { formatAddress, type ListenAddress } from "../../config/address.ts";
import {
  acceptBy,
  type Bound,
  type BoundListener,
  bunListen,
  descriptorOf,
  type Handlers,
  NO_HANDLERS,
  type Remote,
  remoteOf,
  type SocketFile,
  takeDescriptor,
} from "../../net/bun-listen.ts";
import { close, dup, isListening, setCloseOnExec, shutdown } from "../../net/libc.ts";
import { codeOf, reason, toError } from "../../errors.ts";
import { ListenError } from "./listen-error.ts";
import type { ListeningSocket } from "../../shared/messages.ts";
import { isSameFile } from "../../net/open-files.ts";
import { bindUnix, isSameFile as isSamePath, type SocketOwnership, statOf } from "./unix-socket.ts";

/** An accepted connection, non-blocking. */
export interface Accepted extends Remote {
  /** The receiver's from now on: it has to close it. */
  readonly fd: number;
}

export interface ListenerOptions extends SocketOwnership {
  /** Connections that may wait to be accepted; the kernel caps it. Also set on an inherited socket. */
  readonly backlog: number;
  /** Called synchronously for each connection, of which nothing has been read. If it throws, the connection is ended. */
  onConnection(accepted: Accepted): void;
  /** Duplicates the descriptor of a connection. Default: `dup`. */
  readonly duplicate?: (fd: number) => number;
  /** Called for everything that fails later; must not throw. */
  onError(error: Error): void;
}

export interface Listener {
  /** As asked for, with the port that the kernel chose for port 0. */
  readonly address: ListenAddress;
  /** Its socket is open. A handler may have closed it, by its number. */
  isAlive(): boolean;
  /** Mail servers find it: the path of a unix socket still leads to it. */
  isReachable(): boolean;
  /** Accepts no more. Clients that connect now wait in the backlog. Accepted connections stay. */
  pause(): void;
  /** Accepts again, first those that waited. Throws ListenError if it cannot; it is then still paused. */
  resume(): void;
  /** Ends listening; accepted connections stay. `unlink` removes a unix socket, if the path still leads to it. */
  close(options: { unlink: boolean }): void;
}

/** A listener by whose socket workers can accept connections themselves. */
export interface SharedListener extends Listener {
  readonly listeningSocket: Omit<ListeningSocket, "index" | "configured">;
  /** Whether a descriptor leads to its socket. */
  isOwn(descriptor: number): boolean;
}

/**
 * Listens on `address` and starts accepting.
 *
 * - A unix socket replaces a stale socket, never a live socket and never anything that is not a socket. Before its mode and
 *   owner are right no client can connect.
 * - `inet6` is IPv6 only: `[::]` and `0.0.0.0` can then be listened on side by side, whatever the system's default, and
 *   no client shows up as `::ffff:192.0.2.1`, which lists of allowed networks would miss.
 * - `fd` is duplicated; the original is left open and becomes close-on-exec. An inherited IPv6 socket may carry IPv4.
 *
 * Throws ListenError.
 */
export async function openListener(address: ListenAddress, options: ListenerOptions): Promise<SharedListener> {
  const bound = await bind(address, options);
  const listener = new ActiveListener(bound, options);
  try {
    listener.resume();
  } catch (error) {
    listener.close({ unlink: true });
    throw error;
  }
  return listener;
}

class ActiveListener implements SharedListener {
  readonly address: ListenAddress;
  readonly #file: SocketFile | null;
  readonly #options: ListenerOptions;
  readonly #handlers: Handlers;
  #fd: number | null;
  #accepting: BoundListener | null = null;

  constructor({ address, fd, file }: Bound, options: ListenerOptions) {
    this.address = address;
    this.#fd = fd;
    this.#file = file;
    this.#options = options;
    this.#handlers = handlersFor(options, address.kind === "unix");
  }

  isAlive(): boolean {
    try {
      return this.#fd === null || isListening(this.#fd);
    } catch {
      return false;
    }
  }

  isReachable(): boolean {
    if (this.#fd === null || this.#file === null) return true;
    try {
      return isSamePath(statOf(this.#file.path), this.#file);
    } catch {
      // This process may not enter the folder any more; mail servers may.
      return true;
    }
  }

  pause(): void {
    // Bun closes its duplicate; ours goes on queueing. It needs no new descriptor, so it works when none is left.
    this.#accepting?.stop();
    this.#accepting = null;
  }

  resume(): void {
    if (this.#fd === null || this.#accepting !== null) return;
    try {
      this.#accepting = acceptBy(this.#fd, this.#options.backlog, this.#handlers);
    } catch (cause) {
      throw new ListenError(`cannot accept connections at ${formatAddress(this.address)}: ${reason(cause)}`, { cause });
    }
  }

  get listeningSocket(): Omit<ListeningSocket, "index" | "configured"> {
    return {
      descriptor: this.#fd!,
      name: formatAddress(this.address),
      isUnix: this.address.kind === "unix",
      backlog: this.#options.backlog,
    };
  }

  isOwn(descriptor: number): boolean {
    return this.#fd !== null && isSameFile(this.#fd, descriptor);
  }

  close({ unlink }: { unlink: boolean }): void {
    if (this.#fd === null) return;
    this.pause();
    // Before the descriptor is closed: while it is open the kernel gives the file's number to no other file.
    if (unlink && this.#file !== null) this.#unlink(this.#file);
    close(this.#fd);
    this.#fd = null;
  }

  #unlink(file: SocketFile): void {
    try {
      if (isSamePath(statOf(file.path), file)) unlinkSync(file.path);
    } catch (cause) {
      this.#options.onError(
        new ListenError(`cannot remove the socket ${file.path}: ${reason(cause)}; the next start replaces it`, {
          cause,
        }),
      );
    }
  }
}

/** An object for all connections of a listener. */
function handlersFor({ onConnection, onError, duplicate = dup }: ListenerOptions, isUnix: boolean): Handlers {
  const open = (socket: Bun.Socket<undefined>): void => {
    const fd = duplicate(descriptorOf(socket));
    try {
      const { remoteAddress, remotePort } = remoteOf(socket, isUnix);
      onConnection({ fd, remoteAddress, remotePort });
    } catch (error) {
      // A duplicate may have been given away before: only a shutdown ends that as well.
      shutdown(fd, "both");
      close(fd);
      throw error;
    }
  };
  return {
    open(socket) {
      try {
        open(socket);
      } catch (error) {
        onError(toError(error));
      } finally {
        // Without a shutdown: the peer notices nothing as long as there is another copy.
        socket.end();
      }
    },
    // Bun insists on it; a socket that is closed when it is opened never gets here.
    data() {},
  };
}

async function bind(address: ListenAddress, options: ListenerOptions): Promise<Bound> {
  switch (address.kind) {
    case "unix":
      return bindUnix(address, options);
    case "tcp":
      return bindTcp(address);
    case "fd":
      return bindInherited(address);
    default:
      return address satisfies never;
  }
}

async function bindTcp(address: ListenAddress & { kind: "tcp" }): Promise<Bound> {
  const { host, port, family } = address;
  const name = formatAddress(address);
  const hostname = await resolveHost(host, family, name);
  let bound: BoundListener;
  try {
    bound = bunListen({ hostname, port, ipv6Only: family === 6, socket: NO_HANDLERS });
  } catch (cause) {
    throw new ListenError(`cannot listen at ${name}: ${tcpReason(cause, host, port)}`, { cause });
  }
  return { address: { ...address, port: bound.port ?? port }, fd: takeDescriptor(bound), file: null };
}

/** Bun would take whichever family the resolver names first, and the resolver gives an address back as it is. */
async function resolveHost(host: string, family: 4 | 6, name: string): Promise<string> {
  if (isIP(host) === family) return host;
  try {
    if (isIP(host) !== 0) throw new Error(`it is an IPv${isIP(host)} address`);
    return (await lookup(host, { family })).address;
  } catch (cause) {
    throw new ListenError(`cannot listen at ${name}: ${host} has no IPv${family} address (${reason(cause)})`, {
      cause,
    });
  }
}

function bindInherited(address: ListenAddress & { kind: "fd" }): Bound {
  const { fd } = address;
  try {
    // Told apart before Bun sees it: listen() on a fresh TCP socket would quietly choose a port.
    if (!isListening(fd)) throw new Error("it is a socket that does not listen");
    setCloseOnExec(fd);
    return { address, fd: dup(fd), file: null };
  } catch (cause) {
    throw new ListenError(
      `cannot listen at ${formatAddress(address)}: ${inheritedReason(cause)}; expected a listening socket that the parent process passes on (systemd: a .socket unit)`,
      { cause },
    );
  }
}

function tcpReason(cause: unknown, host: string, port: number): string {
  switch (codeOf(cause)) {
    case "EADDRINUSE":
      return `port ${port} is taken: another server listens there`;
    case "EADDRNOTAVAIL":
      return `${host} is not an address of this machine`;
    case "EAFNOSUPPORT":
      return `this machine has no such address family`;
    case "EACCES":
    case "EPERM":
      return `no permission for port ${port}; ports below 1024 need root or CAP_NET_BIND_SERVICE`;
    default:
      // Without a descriptor left, the error of Bun 1.4.5 has no code (docs/bun.md, "Sockets").
      return hasDescriptors() ? reason(cause) : "no file descriptors are left; expected a higher limit of open files";
  }
}

function hasDescriptors(): boolean {
  try {
    close(dup(0));
    return true;
  } catch (error) {
    return codeOf(error) !== "EMFILE";
  }
}

function inheritedReason(cause: unknown): string {
  switch (codeOf(cause)) {
    case "EBADF":
      return "no such descriptor is open";
    case "ENOTSOCK":
      return "it is not a socket";
    default:
      return reason(cause);
  }
}
