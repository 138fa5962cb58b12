/**
 * Binds a unix socket: no client can connect early, a stale socket is replaced in a single step, and a live socket is not
 * replaced. Accepting is not done here.
 */
import {
  type BigIntStats,
  closeSync,
  constants as fsConstants,
  fstatSync,
  lstatSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmdirSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { formatAddress, type ListenAddress } from "../../config/address.ts";
import { type Bound, bunListen, NO_HANDLERS, type SocketFile, takeDescriptor } from "../../net/bun-listen.ts";
import { byDescriptor } from "../../net/open-files.ts";
import { close, connectUnix, MAX_UNIX_PATH_BYTES, tryLock } from "../../net/libc.ts";
import { codeOf, reason } from "../../errors.ts";
import { ListenError } from "./listen-error.ts";
import { ownSocket } from "../rights/privileges.ts";

/** Mode and owner of a unix socket: they say which users may connect. */
export interface SocketOwnership {
  /** Permission bits. */
  readonly mode: number;
  /** Owner and group; null: the process's. */
  readonly uid: number | null;
  readonly gid: number | null;
}

/** Another server that starts has the folder locked for a few milliseconds. */
const LOCK_WAIT_MS = 2000;
const LOCK_RETRY_MS = 5;

/**
 * Binds inside a private folder (0700, unpredictable name) beside the final path, sets mode and owner there, and then
 * renames the socket into place. So no client can connect early, which a umask would not ensure for the owner (and a umask
 * is the whole process's); and the rename replaces a stale socket in a single step, so that a mail server finds either the
 * old or the new socket. On Linux the folder is named by its descriptor: a user who may rename files beside the socket
 * cannot have it bound, or given away, elsewhere, and the final path may use all of sun_path's bytes.
 */
export function bindUnix(address: ListenAddress & { kind: "unix" }, options: SocketOwnership): Bound {
  const { path } = address;
  const name = formatAddress(address);
  checkLength(name, Buffer.byteLength(path));
  inspect(path, name);

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
      file = moveIntoPlace(temporary, path, name, options);
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

/** Gives a socket its mode and owner, and renames it to its final path. */
function moveIntoPlace(temporary: string, path: string, name: string, options: SocketOwnership): SocketFile {
  ownSocket(temporary, options.mode, options.uid, options.gid);
  const { dev, ino } = lstatSync(temporary, { bigint: true });
  whileAlone(dirname(path), () => {
    // Again: another server may have started meanwhile.
    inspect(path, name);
    renameSync(temporary, path);
  });
  return { path, dev, ino };
}

/**
 * Runs while no other starting server is between its look at the path and its replacement: two servers that both found a
 * stale socket would replace each other's. The lock is on the folder itself, so that nothing remains on disk, and ends with
 * the process. If the folder cannot be locked, or other software keeps it locked, it runs without the lock.
 */
function whileAlone(folder: string, run: () => void): void {
  let fd: number | null = null;
  try {
    fd = openSync(folder, fsConstants.O_RDONLY | fsConstants.O_DIRECTORY);
    const deadline = performance.now() + LOCK_WAIT_MS;
    while (!tryLock(fd) && performance.now() < deadline) Bun.sleepSync(LOCK_RETRY_MS);
  } catch {
    // It may not be read, or its file system has no locks for folders.
  }
  try {
    run();
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

/** Throws ListenError if `path` leads to something that may not be replaced. */
function inspect(path: string, name: string): void {
  let found: BigIntStats | null;
  try {
    found = statOf(path);
  } catch (cause) {
    throw new ListenError(`cannot listen at ${name}: ${folderReason(cause, dirname(path))}`, { cause });
  }
  if (found === null) return;
  if (!found.isSocket()) {
    throw new ListenError(
      `cannot listen at ${name}: ${path} is ${kindOf(found)}, not a socket, and is not replaced; expected another path or its removal`,
    );
  }
  try {
    close(connectUnix(path));
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "ECONNREFUSED" || code === "ENOENT") return;
    // A full queue belongs to a server that lives.
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

function checkLength(name: string, bytes: number): void {
  if (bytes <= MAX_UNIX_PATH_BYTES) return;
  throw new ListenError(
    `cannot listen at ${name}: the path is too long for a unix socket; it needs ${bytes} bytes, expected at most ${MAX_UNIX_PATH_BYTES}`,
  );
}

/** null if there is nothing at `path`. */
export function statOf(path: string): BigIntStats | null {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false }) ?? null;
}

export function isSameFile(
  a: { readonly dev: bigint; readonly ino: bigint } | null,
  b: { readonly dev: bigint; readonly ino: bigint },
): boolean {
  return a !== null && a.dev === b.dev && a.ino === b.ino;
}

/** Whether there is a socket at this path, or where a link there leads to. */
export function isSocket(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
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

function unixReason(cause: unknown, folder: string, { uid, gid }: SocketOwnership): string {
  if (codeOf(cause) === "EPERM" && (uid !== null || gid !== null)) {
    const owner = [uid === null ? "" : `user ${uid}`, gid === null ? "" : `group ${gid}`].filter(Boolean).join(" and ");
    return `no permission to give the socket to ${owner}; only root, or a member of that group, may`;
  }
  return folderReason(cause, folder);
}
