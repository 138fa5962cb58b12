/**
 * The libc calls that Bun has no function for: duplicating, closing and shutting down descriptors, setting a backlog,
 * connecting a unix socket with its true error, locks, variables of the process, events of folders, and mapped files. It is
 * not a general binding: only calls on integers, texts and a socket address, and no call that may block.
 *
 * It works with glibc, musl and macOS. Variadic functions need care, because bun:ffi calls everything as if it had a
 * prototype: on x64 and on Linux arm64 variadic arguments travel in the same registers, so `fcntl(fd, cmd, 0)` is
 * right there; on Apple's arm64 they travel on the stack, so there the third argument would be garbage. `ioctl` with
 * FIOCLEX has no third argument and is right everywhere.
 */
import { dlopen, type Pointer, ptr, read } from "bun:ffi";
import { constants } from "node:os";
import { getSystemErrorName } from "node:util";

/** A libc call failed. `code` is the errno's name ("EBADF"), as in Node's system errors. */
export class LibcError extends Error {
  override readonly name = "LibcError";
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number) {
    const code = errnoName(errno);
    super(`${syscall}: ${code}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** Longest path, in bytes, that fits a unix socket address together with its final NUL. */
export const MAX_UNIX_PATH_BYTES = process.platform === "darwin" ? 103 : 107;

const IS_MACOS = process.platform === "darwin";

const SHUTDOWN = { read: 0, write: 1, both: 2 } as const;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
// Linux only: flags of socket(2), the same on x64 and arm64.
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const F_DUPFD_CLOEXEC_LINUX = 1030;
// Linux only: flags of inotify_add_watch(2): only folders, and the events of several calls for a folder add up.
const IN_ONLYDIR = 0x01000000;
const IN_MASK_ADD = 0x20000000;
const EPOLL_CTL_DEL = 2;
// On macOS there is none; the runtime ignores the signal.
const MSG_NOSIGNAL = IS_MACOS ? 0 : 0x4000;
const SOL_SOCKET = IS_MACOS ? 0xffff : 1;
const SO_ACCEPTCONN = IS_MACOS ? 2 : 30;
/** The peer of a unix socket: level, name and size of the answer, and the place of the user's id in it. */
const PEER = IS_MACOS ? { level: 0, name: 1, words: 19, uid: 1 } : { level: SOL_SOCKET, name: 17, words: 3, uid: 1 };
const LOCK_EX = 2;
const LOCK_NB = 4;
const FIOCLEX = IS_MACOS ? 0x20006601 : 0x5451;
const MSG_PEEK = 2;
const MSG_DONTWAIT = IS_MACOS ? 0x80 : 0x40;

const SYMBOLS = {
  dup: { args: ["int"], returns: "int" },
  dup2: { args: ["int", "int"], returns: "int" },
  close: { args: ["int"], returns: "int" },
  shutdown: { args: ["int", "int"], returns: "int" },
  send: { args: ["int", "ptr", "u64", "int"], returns: "i64" },
  recv: { args: ["int", "ptr", "u64", "int"], returns: "i64" },
  listen: { args: ["int", "int"], returns: "int" },
  socket: { args: ["int", "int", "int"], returns: "int" },
  getsockopt: { args: ["int", "int", "int", "ptr", "ptr"], returns: "int" },
  connect: { args: ["int", "ptr", "u32"], returns: "int" },
  fcntl: { args: ["int", "int", "int"], returns: "int" },
  ioctl: { args: ["int", "u64"], returns: "int" },
  execve: { args: ["ptr", "ptr", "ptr"], returns: "int" },
  flock: { args: ["int", "int"], returns: "int" },
  setenv: { args: ["ptr", "ptr", "int"], returns: "int" },
} as const;

// musl answers to any name that begins with "libc.", also to glibc's; its own names are for loaders that do not.
const CANDIDATES = IS_MACOS
  ? ["libSystem.B.dylib", "/usr/lib/libSystem.B.dylib"]
  : ["libc.so.6", `libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`, "libc.so"];

interface Libc {
  /** The library's own name. */
  readonly name: string;
  readonly calls: ReturnType<typeof dlopen<typeof SYMBOLS>>["symbols"];
  /** Address of this thread's errno. */
  readonly errnoLocation: () => Pointer | bigint | null;
}

let loaded: Libc | undefined;

/** Loaded at the first call, so that commands which open no socket need no FFI. Throws an Error that names all tries. */
function libc(): Libc {
  loaded ??= load(CANDIDATES);
  return loaded;
}

function load(candidates: readonly string[]): Libc {
  const failures: string[] = [];
  for (const name of candidates) {
    try {
      const calls = dlopen(name, SYMBOLS).symbols;
      // The macro `errno` hides a function: __error on macOS, __errno_location in glibc and musl.
      const errnoLocation = IS_MACOS
        ? dlopen(name, { __error: { args: [], returns: "ptr" } }).symbols.__error
        : dlopen(name, { __errno_location: { args: [], returns: "ptr" } }).symbols.__errno_location;
      return { name, calls, errnoLocation };
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new Error(
    `cannot load the C library through bun:ffi; expected glibc or musl (Linux) or libSystem (macOS), tried: ${failures.join("; ")}`,
  );
}

function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `errno ${errno}`;
  }
}

/** Must directly follow the failed call: any other call of this thread into libc may set errno anew. */
function lastErrno({ errnoLocation }: Libc): number {
  const location = errnoLocation();
  return location === null ? 0 : read.i32(location as Pointer, 0);
}

function check(c: Libc, syscall: string, result: number): number {
  if (result === -1) throw new LibcError(syscall, lastErrno(c));
  return result;
}

/**
 * A second descriptor of the same open socket, close-on-exec: a handler that starts a program must not hand it mail
 * connections. The caller closes it. Throws LibcError (EBADF, EMFILE).
 *
 * On macOS the flag is set by a second call, so a program that another thread starts in between inherits the copy;
 * macOS is for development.
 */
export function dup(fd: number): number {
  const c = libc();
  if (!IS_MACOS) return check(c, "fcntl", c.calls.fcntl(fd, F_DUPFD_CLOEXEC_LINUX, 0));
  const copy = check(c, "dup", c.calls.dup(fd));
  setCloseOnExec(copy);
  return copy;
}

/** A socket that is connected to nothing: reads and writes on it fail. The caller closes it. Throws LibcError (EMFILE). */
export function deadSocket(): number {
  const c = libc();
  const fd = check(c, "socket", c.calls.socket(AF_UNIX, IS_MACOS ? SOCK_STREAM : SOCK_STREAM | SOCK_NONBLOCK, 0));
  setCloseOnExec(fd);
  return fd;
}

/**
 * Makes the descriptor number `target`, which another thread uses, refer to the file of `fd`: from here on that thread can
 * no longer reach the old file, and gets no events of it. Throws LibcError (EBADF).
 * @param eventPoll that thread's, see `findEventPoll`; null where it is not known
 */
export function replaceDescriptor(fd: number, target: number, eventPoll: number | null): void {
  const c = libc();
  if (eventPoll !== null) removeFromEventPoll(eventPoll, target);
  check(c, "dup2", c.calls.dup2(fd, target));
  setCloseOnExec(target);
}

/**
 * Locks the file or folder behind `fd` against every other descriptor that locks it, until `fd` is closed or its process
 * ends. Returns false if another has the lock. Throws LibcError (EBADF on file systems that cannot lock a folder).
 */
export function tryLock(fd: number): boolean {
  const c = libc();
  if (c.calls.flock(fd, LOCK_EX | LOCK_NB) !== -1) return true;
  const errno = lastErrno(c);
  if (errno === constants.errno.EWOULDBLOCK || errno === constants.errno.EINTR) return false;
  throw new LibcError("flock", errno);
}

/** Programs started from now on do not inherit `fd`. Throws LibcError (EBADF). */
export function setCloseOnExec(fd: number): void {
  const c = libc();
  check(c, "ioctl", c.calls.ioctl(fd, FIOCLEX));
}

/** Closes a descriptor that no Bun object owns. Throws LibcError (EBADF). */
export function close(fd: number): void {
  const c = libc();
  check(c, "close", c.calls.close(fd));
}

/**
 * Ends a connection for every holder of a copy of it; the peer sees the end at once. A connection that has already
 * ended is no error. Throws LibcError (EBADF, ENOTSOCK).
 */
export function shutdown(fd: number, direction: keyof typeof SHUTDOWN): void {
  const c = libc();
  if (c.calls.shutdown(fd, SHUTDOWN[direction]) !== -1) return;
  const errno = lastErrno(c);
  if (errno !== constants.errno.ENOTCONN) throw new LibcError("shutdown", errno);
}

/**
 * Sends as many bytes as the socket takes now, and returns their number. Bun made the socket non-blocking when it accepted
 * it. Throws LibcError (EAGAIN when it takes nothing, EPIPE and ECONNRESET when the peer is gone).
 */
export function send(fd: number, bytes: Uint8Array): number {
  const c = libc();
  return check(c, "send", Number(c.calls.send(fd, ptr(bytes), bytes.length, MSG_NOSIGNAL)));
}

/** Whether a connection has something to read: bytes, which stay unread, or its end. */
export function isReadable(fd: number): boolean {
  const c = libc();
  const byte = new Uint8Array(1);
  if (Number(c.calls.recv(fd, ptr(byte), byte.length, MSG_PEEK | MSG_DONTWAIT)) !== -1) return true;
  return lastErrno(c) !== constants.errno.EAGAIN;
}

/**
 * Sets how many connections may wait to be accepted; may be called again on a socket that listens already. The kernel
 * caps it (net.core.somaxconn on Linux). Throws LibcError (EINVAL for a socket that is connected).
 */
export function listen(fd: number, backlog: number): void {
  const c = libc();
  check(c, "listen", c.calls.listen(fd, backlog));
}

/** Whether `fd` is a socket that already listens. Throws LibcError (EBADF, ENOTSOCK). */
export function isListening(fd: number): boolean {
  const c = libc();
  const value = new Int32Array(1);
  const length = new Uint32Array([value.byteLength]);
  check(c, "getsockopt", c.calls.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, ptr(value), ptr(length)));
  return value[0] !== 0;
}

/**
 * Connects to a unix socket and returns the descriptor, which the caller closes. It does not wait: if the queue of the
 * listener is full, Linux says EAGAIN. `Bun.connect` of Bun 1.4.5 makes ECONNREFUSED of that, as for a socket without a
 * listener (docs/bun.md, "Sockets"). macOS itself says ECONNREFUSED for both. `path` has at most MAX_UNIX_PATH_BYTES bytes.
 * Throws LibcError.
 */
export function connectUnix(path: string): number {
  const c = libc();
  const bytes = Buffer.from(path);
  if (bytes.length > MAX_UNIX_PATH_BYTES) throw new LibcError("connect", constants.errno.ENAMETOOLONG);
  // struct sockaddr_un: Linux { u16 family; char path[108] }, macOS { u8 length; u8 family; char path[104] }.
  const address = new Uint8Array(2 + MAX_UNIX_PATH_BYTES + 1);
  if (IS_MACOS) address.set([address.length, AF_UNIX]);
  else new Uint16Array(address.buffer, 0, 1)[0] = AF_UNIX;
  address.set(bytes, 2);
  const type = IS_MACOS ? SOCK_STREAM : SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const fd = check(c, "socket", c.calls.socket(AF_UNIX, type, 0));
  if (c.calls.connect(fd, ptr(address), address.length) === -1) {
    const errno = lastErrno(c);
    close(fd);
    throw new LibcError("connect", errno);
  }
  return fd;
}

/**
 * The user whose process listens at the other end of a connected unix socket, or did when it began to listen. The answer is
 * the kernel's, so a process cannot pretend to be another user. Throws LibcError (EBADF, ENOTSOCK).
 */
export function peerUser(fd: number): number {
  const c = libc();
  // Linux: struct ucred { pid, uid, gid }; macOS: struct xucred { version, uid, … }.
  const value = new Uint32Array(PEER.words);
  const length = new Uint32Array([value.byteLength]);
  check(c, "getsockopt", c.calls.getsockopt(fd, PEER.level, PEER.name, ptr(value), ptr(length)));
  return value[PEER.uid]!;
}

/**
 * Sets a variable of the process itself, which `process.env` is a copy of. Other threads may read it meanwhile: only for
 * the time before there are any of ours. Throws LibcError (ENOMEM).
 */
export function setVariable(name: string, value: string): void {
  const c = libc();
  const [nameText, valueText] = [Buffer.from(`${name}\0`), Buffer.from(`${value}\0`)];
  check(c, "setenv", c.calls.setenv(ptr(nameText), ptr(valueText), 1));
}

/** For the thread of the spool alone: loaded by themselves, at the first call. */
const MAPPING_SYMBOLS = {
  mmap: { args: ["i64", "u64", "int", "int", "int", "i64"], returns: "i64" },
  munmap: { args: ["i64", "u64"], returns: "int" },
} as const;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE = 0x2;
const MAP_FIXED = 0x10;
const MAP_NORESERVE = IS_MACOS ? 0x40 : 0x4000;
const MAP_ANONYMOUS = IS_MACOS ? 0x1000 : 0x20;

let mappingCalls: ReturnType<typeof dlopen<typeof MAPPING_SYMBOLS>>["symbols"] | undefined;

function mapping(): NonNullable<typeof mappingCalls> {
  mappingCalls ??= dlopen(libc().name, MAPPING_SYMBOLS).symbols;
  return mappingCalls;
}

function mmap(address: number, length: number, flags: number, fd: number): number {
  const { mmap: call } = mapping();
  return check(libc(), "mmap", Number(call(address, length, PROT_READ_WRITE, flags | MAP_NORESERVE, fd, 0)));
}

/**
 * Maps the first `length` bytes of a file and returns their address. What is written there stays in memory: the file does
 * not change. The descriptor may be closed afterwards. Throws LibcError (ENOMEM, ENODEV).
 */
export function mapFile(fd: number, length: number): number {
  return mmap(0, length, MAP_PRIVATE, fd);
}

/**
 * Puts empty memory in the place of a mapped file, which is thereby given back. The addresses stay readable, so a late
 * reader of them sees zeros, where a reader of unmapped memory ends the process. Throws LibcError (ENOMEM).
 */
export function coverMapping(address: number, length: number): void {
  mmap(address, length, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
}

/** Gives the addresses back. Nothing may refer to them any more. Throws LibcError (EINVAL). */
export function unmap(address: number, length: number): void {
  check(libc(), "munmap", mapping().munmap(address, length));
}

/** Linux only: loaded by itself, at the first call. */
const LINUX_SYMBOLS = {
  epoll_ctl: { args: ["int", "int", "int", "ptr"], returns: "int" },
  inotify_init1: { args: ["int"], returns: "int" },
  inotify_add_watch: { args: ["int", "ptr", "u32"], returns: "int" },
  read: { args: ["int", "ptr", "u64"], returns: "i64" },
} as const;

/** Room for many events at a time. Their contents are not used. */
const INOTIFY_BUFFER = new Uint8Array(64 * 1024);

let linuxCalls: ReturnType<typeof dlopen<typeof LINUX_SYMBOLS>>["symbols"] | undefined;

function linux(): NonNullable<typeof linuxCalls> {
  linuxCalls ??= dlopen(libc().name, LINUX_SYMBOLS).symbols;
  return linuxCalls;
}

/**
 * Takes a descriptor out of an epoll instance, also of another thread's. Returns false if it has no entry for it. Linux
 * only.
 */
export function removeFromEventPoll(eventPoll: number, fd: number): boolean {
  return linux().epoll_ctl(eventPoll, EPOLL_CTL_DEL, fd, null) === 0;
}

/** A descriptor, not blocking and close-on-exec, for {@link inotifyAdd}. The caller closes it. Throws LibcError (EMFILE). */
export function inotifyOpen(): number {
  return check(libc(), "inotify_init1", linux().inotify_init1(SOCK_NONBLOCK | SOCK_CLOEXEC));
}

/** Adds these events of a folder to those that the descriptor reports. Throws LibcError (ENOENT, ENOSPC). */
export function inotifyAdd(fd: number, folder: string, events: number): void {
  const path = Buffer.from(`${folder}\0`);
  check(libc(), "inotify_add_watch", linux().inotify_add_watch(fd, ptr(path), events | IN_ONLYDIR | IN_MASK_ADD));
}

/** Drops all events that have come; returns whether there were any. None is no exception. Throws LibcError (EBADF). */
export function inotifyTake(fd: number): boolean {
  const c = libc();
  const { read } = linux();
  for (let hasAny = false; ; hasAny = true) {
    if (read(fd, ptr(INOTIFY_BUFFER), INOTIFY_BUFFER.length) !== -1n) continue;
    const errno = lastErrno(c);
    if (errno !== constants.errno.EAGAIN) throw new LibcError("read", errno);
    return hasAny;
  }
}

/** Replaces the program of this process, which keeps its id and its descriptors. Returns only by throwing LibcError. */
export function execve(path: string, args: readonly string[], env: Readonly<Record<string, string>>): never {
  const c = libc();
  const texts = [path, ...args, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)].map((text) =>
    Buffer.from(`${text}\0`),
  );
  const pointers = texts.map((text) => BigInt(ptr(text)));
  // Arrays of pointers that end with a null.
  const argv = new BigUint64Array([...pointers.slice(1, 1 + args.length), 0n]);
  const envp = new BigUint64Array([...pointers.slice(1 + args.length), 0n]);
  c.calls.execve(ptr(texts[0]!), ptr(argv), ptr(envp));
  throw new LibcError("execve", lastErrno(c));
}
