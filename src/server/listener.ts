/**
 * The listening side of the main thread: binds one address, and hands every connection over the moment it is accepted,
 * paused and unread. It speaks no protocol, counts nothing and places nothing; whoever owns it does.
 *
 * Each listener keeps a listening descriptor of its own and lends Bun duplicates of it: `Bun.listen` can neither pause
 * accepting nor leave a socket's file alone when it stops.
 */
import {
  closeSync,
  constants as fsConstants,
  type BigIntStats,
  fstatSync,
  lstatSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmdirSync,
  unlinkSync,
} from "node:fs";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import { formatAddress, type ListenAddress } from "../config/address.ts";
import {
  close,
  connectUnix,
  dup,
  isListening,
  MAX_UNIX_PATH_BYTES,
  listen as setBacklog,
  setCloseOnExec,
  shutdown,
} from "./libc.ts";
import { ownSocket } from "./privileges.ts";

/**
 * What the owner of an accepted connection wants to hear about the main thread's copy of it. Set it as `socket.data`
 * in `onConnection`. The copy is paused: `closed` comes after a reset or our own end, never after the peer's FIN.
 */
export interface HeldSocket {
  /** The copy is gone, with the error if it was one (a reset). Called at most once. */
  closed?(error?: Error): void;
  /** A short write may go on. Bun 1.4.5 also says so once after `pause`, when nothing was short. */
  drained?(): void;
}

/** An accepted connection. `fd` is Bun's own descriptor: duplicate it, never close it. */
export type AcceptedSocket = Bun.Socket<HeldSocket | undefined> & { readonly fd: number };

export interface ListenerOptions {
  /** Permission bits of a unix socket. */
  readonly mode: number;
  /** Owner and group of a unix socket; null: the process's. */
  readonly uid: number | null;
  readonly gid: number | null;
  /** Connections that may wait to be accepted; the kernel caps it. Also set on an inherited socket. */
  readonly backlog: number;
  /** Called synchronously for each connection, which is paused: nothing of it has been read. What it throws ends it. */
  onConnection(socket: AcceptedSocket): void;
  /** Told of everything that fails later; must not throw. */
  onError(error: Error): void;
}

export interface Listener {
  /** As asked for, with the port that the kernel chose for port 0. */
  readonly address: ListenAddress;
  /** Accepts no more. Clients that connect now wait in the backlog. Accepted connections stay. */
  pause(): void;
  /** Accepts again, first those that waited. Throws ListenError if it cannot; it is then still paused. */
  resume(): void;
  /** Ends listening; accepted connections stay. `unlink` removes a unix socket, if the path still leads to this one. */
  close(options: { unlink: boolean }): void;
}

/** An address cannot be listened on. The message is for the administrator; `cause` is the system's error. */
export class ListenError extends Error {
  override readonly name = "ListenError";
  readonly code = "PMILTER_ERR_LISTEN";
}

/** What the types of Bun 1.4.5 leave out: `fd` of a listener, and listening on a descriptor. */
type BoundListener = Bun.SocketListener<undefined> & { readonly fd: number; readonly port?: number };
type Handlers = Bun.SocketHandler<HeldSocket | undefined>;
const bunListen = Bun.listen as unknown as (
  options: { socket: Handlers } & (
    { fd: number } | { unix: string } | { hostname: string; port: number; ipv6Only: boolean }
  ),
) => BoundListener;

/** A socket file of ours, by identity: the path alone may lead to somebody else's by now. */
interface SocketFile {
  readonly path: string;
  readonly dev: bigint;
  readonly ino: bigint;
}

interface Bound {
  readonly address: ListenAddress;
  /** The listening descriptor that the listener keeps. */
  readonly fd: number;
  readonly file: SocketFile | null;
}

/**
 * Listens on `address` and starts accepting.
 *
 * - A unix socket replaces a stale one, never a live one and never anything that is not a socket. Nobody can connect
 *   to it before its mode and owner are right.
 * - `inet6` is IPv6 only: `[::]` and `0.0.0.0` can then be listened on side by side, whatever the system's default, and
 *   no client shows up as `::ffff:192.0.2.1`, which lists of allowed networks would miss.
 * - `fd` is duplicated; the original is left open and becomes close-on-exec. An inherited IPv6 socket may carry IPv4.
 *
 * Throws ListenError.
 */
export async function listen(address: ListenAddress, options: ListenerOptions): Promise<Listener> {
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

class ActiveListener implements Listener {
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
    this.#handlers = handlersFor(options);
  }

  pause(): void {
    // Bun closes its duplicate; ours goes on queueing. It needs no new descriptor, so it works when none is left.
    this.#accepting?.stop();
    this.#accepting = null;
  }

  resume(): void {
    if (this.#fd === null || this.#accepting !== null) return;
    let copy: number | null = null;
    try {
      copy = dup(this.#fd);
      this.#accepting = bunListen({ fd: copy, socket: this.#handlers });
      copy = null;
      // Bun has just called listen() itself, with 512.
      setBacklog(this.#fd, this.#options.backlog);
    } catch (cause) {
      if (copy !== null) close(copy);
      this.pause();
      throw new ListenError(`cannot accept connections at ${formatAddress(this.address)}: ${reason(cause)}`, { cause });
    }
  }

  close({ unlink }: { unlink: boolean }): void {
    if (this.#fd === null) return;
    this.pause();
    // Before the descriptor goes: while it is open the kernel gives the file's number to no other file.
    if (unlink && this.#file !== null) this.#unlink(this.#file);
    close(this.#fd);
    this.#fd = null;
  }

  #unlink(file: SocketFile): void {
    try {
      if (isSameFile(statOf(file.path), file)) unlinkSync(file.path);
    } catch (cause) {
      this.#options.onError(
        new ListenError(`cannot remove the socket ${file.path}: ${reason(cause)}; the next start replaces it`, {
          cause,
        }),
      );
    }
  }
}

/** One object for all connections of a listener: what differs is in `socket.data`. */
function handlersFor({ onConnection, onError }: ListenerOptions): Handlers {
  const resetOf = new WeakMap<object, Error>();
  return {
    open(socket) {
      const accepted = socket as AcceptedSocket;
      // First of all: a paused socket reads nothing, so whoever gets a duplicate finds every byte.
      accepted.pause();
      try {
        // Fails on a unix socket by returning false. Replies are small, and each waits for the next command.
        accepted.setNoDelay(true);
        onConnection(accepted);
      } catch (error) {
        onError(toError(error));
        endBoth(accepted, onError);
      }
    },
    close(socket, error) {
      const cause = error ?? resetOf.get(socket);
      guard(() => socket.data?.closed?.(cause), onError);
    },
    drain(socket) {
      guard(() => socket.data?.drained?.(), onError);
    },
    // A reset comes as an error and then as a close: the owner hears of it once.
    error(socket, error) {
      resetOf.set(socket, error);
    },
    // Bun insists on it; a paused socket never gets here.
    data() {},
  };
}

/** onConnection may have given a duplicate away before it threw: only a shutdown reaches that one, too. */
function endBoth(socket: AcceptedSocket, onError: (error: Error) => void): void {
  guard(() => shutdown(socket.fd, "both"), onError);
  guard(() => socket.end(), onError);
}

/** What Bun does with an exception in a socket callback is not written down; here it must not matter. */
function guard(run: () => void, onError: (error: Error) => void): void {
  try {
    run();
  } catch (error) {
    onError(toError(error));
  }
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

/**
 * Binds inside a private folder (0700, unpredictable name) beside the final path, sets mode and owner there, and then
 * renames the socket into place. So nobody else can connect early, which a umask would not ensure for the owner (and a
 * umask is the whole process's); and the rename replaces a stale socket in one step, so that a mail server finds
 * either the old or the new. On Linux the folder is named by its descriptor: whoever may rename things beside the
 * socket cannot make us bind or chown elsewhere, and the final path may use all of sun_path's bytes.
 */
function bindUnix(address: ListenAddress & { kind: "unix" }, options: ListenerOptions): Bound {
  const { path } = address;
  const name = formatAddress(address);
  checkLength(name, Buffer.byteLength(path));
  const before = inspect(path, name);

  const folder = dirname(path);
  let privateFolder: string;
  try {
    privateFolder = mkdtempSync(join(folder, ".pm-"));
  } catch (cause) {
    throw new ListenError(`cannot listen at ${name}: ${folderReason(cause, folder)}`, { cause });
  }
  let folderFd: number | null = null;
  let fd: number | null = null;
  try {
    folderFd = openSync(privateFolder, fsConstants.O_RDONLY | fsConstants.O_DIRECTORY | fsConstants.O_NOFOLLOW);
    checkPrivate(folderFd, privateFolder);
    const inside = byDescriptor(folderFd) ?? privateFolder;
    const temporary = `${inside}/s`;
    checkLength(name, Buffer.byteLength(temporary));
    // stop(), in takeDescriptor, unlinks the path that was bound: the socket must have left it by then.
    const bound = bunListen({ unix: temporary, socket: NO_HANDLERS });
    let file: SocketFile;
    try {
      ownSocket(temporary, options.mode, options.uid, options.gid);
      const { dev, ino } = lstatSync(temporary, { bigint: true });
      file = { path, dev, ino };
      // Again, directly before: another server may have started meanwhile.
      const now = statOf(path);
      if (now !== null && (before === null || !isSameFile(now, before))) inspect(path, name);
      renameSync(temporary, path);
    } catch (error) {
      bound.stop();
      throw error;
    }
    fd = takeDescriptor(bound);
    return { address, fd, file };
  } catch (cause) {
    if (cause instanceof ListenError) throw cause;
    throw new ListenError(`cannot listen at ${name}: ${unixReason(cause, folder, options)}`, { cause });
  } finally {
    if (folderFd !== null) closeSync(folderFd);
    try {
      rmdirSync(privateFolder);
    } catch {
      // An empty folder is left behind; it must not hide the outcome.
    }
  }
}

/** What is at `path` now, if it may be replaced; null if nothing is. Throws ListenError if it may not. */
function inspect(path: string, name: string): BigIntStats | null {
  let found: BigIntStats | null;
  try {
    found = statOf(path);
  } catch (cause) {
    throw new ListenError(`cannot listen at ${name}: ${folderReason(cause, dirname(path))}`, { cause });
  }
  if (found === null) return null;
  if (!found.isSocket()) {
    throw new ListenError(
      `cannot listen at ${name}: ${path} is ${kindOf(found)}, not a socket, and is not replaced; expected another path or its removal`,
    );
  }
  try {
    close(connectUnix(path));
  } catch (cause) {
    const { code } = cause as { code?: unknown };
    if (code === "ECONNREFUSED") return found;
    if (code === "ENOENT") return null;
    // A full queue has somebody behind it.
    if (code !== "EAGAIN") {
      throw new ListenError(
        `cannot listen at ${name}: it cannot be told whether another server answers there: ${reason(cause)}`,
        { cause },
      );
    }
  }
  throw new ListenError(`cannot listen at ${name}: another server answers at ${path}`);
}

/** The folder may have been swapped between its making and its opening. */
function checkPrivate(fd: number, folder: string): void {
  const { uid, mode } = fstatSync(fd);
  if (uid !== process.geteuid?.() || (mode & 0o077) !== 0) {
    throw new ListenError(`somebody interferes with ${folder}: expected a folder that only this process may enter`);
  }
}

/** A path to an open folder that nobody can redirect; null where the system has none (macOS, no /proc). */
function byDescriptor(fd: number): string | null {
  const path = `/proc/self/fd/${fd}`;
  try {
    lstatSync(path);
    return path;
  } catch {
    return null;
  }
}

function checkLength(name: string, bytes: number): void {
  if (bytes <= MAX_UNIX_PATH_BYTES) return;
  throw new ListenError(
    `cannot listen at ${name}: the path is too long for a unix socket; it needs ${bytes} bytes, expected at most ${MAX_UNIX_PATH_BYTES}`,
  );
}

/** A descriptor of our own for what Bun listens on, and Bun's is given back. */
function takeDescriptor(bound: BoundListener): number {
  try {
    return dup(bound.fd);
  } finally {
    bound.stop();
  }
}

/** For listeners that stop before the event loop can accept anything. */
const NO_HANDLERS: Handlers = { data() {} };

/** null if there is nothing at `path`. */
function statOf(path: string): BigIntStats | null {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false }) ?? null;
}

function isSameFile(
  a: { readonly dev: bigint; readonly ino: bigint } | null,
  b: { readonly dev: bigint; readonly ino: bigint },
): boolean {
  return a !== null && a.dev === b.dev && a.ino === b.ino;
}

function kindOf(stats: BigIntStats): string {
  if (stats.isDirectory()) return "a folder";
  if (stats.isSymbolicLink()) return "a symbolic link";
  return stats.isFile() ? "a file" : "a device or pipe";
}

function folderReason(cause: unknown, folder: string): string {
  switch (codeOf(cause)) {
    case "ENOENT":
      return `the folder ${folder} does not exist; expected an existing folder for the socket`;
    case "ENOTDIR":
      return `${folder} is not a folder`;
    case "EACCES":
    case "EPERM":
      return `no permission to make files in the folder ${folder} as uid ${process.geteuid?.()}`;
    case "EROFS":
      return `the folder ${folder} is on a read-only file system`;
    default:
      return `the folder ${folder}: ${reason(cause)}`;
  }
}

function unixReason(cause: unknown, folder: string, { uid, gid }: ListenerOptions): string {
  if (codeOf(cause) === "EPERM" && (uid !== null || gid !== null)) {
    const owner = [uid === null ? "" : `user ${uid}`, gid === null ? "" : `group ${gid}`].filter(Boolean).join(" and ");
    return `no permission to give the socket to ${owner}; only root, or a member of that group, may`;
  }
  return folderReason(cause, folder);
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
      return reason(cause);
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

function codeOf(cause: unknown): unknown {
  return (cause as { code?: unknown } | null)?.code;
}

/** Bun names the path in its message, but not the error; the code is what helps. */
function reason(cause: unknown): string {
  const { message } = toError(cause);
  const code = codeOf(cause);
  return typeof code === "string" && !message.includes(code) ? `${message} (${code})` : message;
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
