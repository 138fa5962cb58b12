/**
 * The folder for data that outlive the process. It is made when it is first needed, with mode 0700, belongs to the user that
 * the server runs as, and is locked: a second server does not start on it. A part of the server that needs the folder calls
 * {@link StateFolder.need}, learns then whether it can be used, and reports itself if it cannot.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  readSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { setCloseOnExec, tryLock } from "../../net/libc.ts";
import { PlainError, codeOf, reason } from "../../errors.ts";
import { byDescriptor } from "../../net/open-files.ts";

const MODE = 0o700;
/** Mode of the folders above it that are made as well: the server's user has to pass them, and must not change them. */
const MODE_ABOVE = 0o755;
const LOCK = "lock";
const LOCK_TEXT = /^(\d+) ([^\n]*)\n$/;
const MAX_LOCK_BYTES = 8192;
const MAX_LINKS = 40;

/** The folder cannot be made, written or locked. */
export class StateFolderError extends PlainError {
  override readonly name: string = "StateFolderError";
  readonly code = "PMILTER_ERR_STATE";

  constructor(path: string, reason: string, cause?: unknown) {
    super(`server.state: ${path}: ${reason}`, { cause });
  }
}

/** Another server has the folder. */
export class StateFolderTakenError extends StateFolderError {
  override readonly name = "StateFolderTakenError";
}

/** The owner of the folder. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export class StateFolder {
  readonly path: string;
  readonly #configFile: string;
  #lock: number | null = null;

  /** Nothing is made or looked at yet. @param configFile for a second server to name */
  constructor(path: string, configFile: string) {
    this.path = path;
    this.#configFile = configFile;
  }

  /** Whether there is something at its path. */
  get isThere(): boolean {
    try {
      return statSync(this.path, { throwIfNoEntry: false }) !== undefined;
    } catch {
      // A folder above it may not be entered, or is no folder: `need` gives the reason.
      return false;
    }
  }

  /**
   * Makes the folder unless it is there, and locks it unless that is done.
   * @param owner the user that root gives it to; null: the process's user
   * @returns its path
   * @throws StateFolderError, also StateFolderTakenError
   */
  need(owner: Owner | null = null): string {
    if (this.#lock !== null) return this.path;
    let folder: number | null = null;
    try {
      makeFolders(this.path);
      // By its descriptor from here on: the path may lead to another folder meanwhile.
      folder = openSync(this.path, constants.O_RDONLY | constants.O_DIRECTORY);
      this.#take(folder, owner);
      this.#lock = this.#openLock(byDescriptor(folder) ?? this.path, owner);
      return this.path;
    } catch (cause) {
      if (cause instanceof StateFolderError) throw cause;
      throw new StateFolderError(this.path, inWords(cause), cause);
    } finally {
      if (folder !== null) closeSync(folder);
    }
  }

  /** Gives the lock back. */
  close(): void {
    if (this.#lock !== null) closeSync(this.#lock);
    this.#lock = null;
  }

  /** Sees to owner and mode. */
  #take(folder: number, owner: Owner | null): void {
    const { mode, uid } = fstatSync(folder);
    const expected = owner?.uid ?? process.geteuid?.() ?? uid;
    if (uid !== expected) {
      if (owner === null || uid !== 0) throw this.#fail(`it belongs to user ${uid}, expected user ${expected}`);
      if (!isRootsAlone(this.path)) {
        throw this.#fail(
          `it cannot be given to user ${expected}: others than root may change a folder above it, or a link that leads to it`,
        );
      }
      fchownSync(folder, owner.uid, owner.gid);
    }
    if ((mode & 0o777) !== MODE) fchmodSync(folder, MODE);
  }

  /** @returns a descriptor that holds the lock. The lock ends with the process, even if that crashes. */
  #openLock(folder: string, owner: Owner | null): number {
    const fd = openSync(join(folder, LOCK), constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    try {
      // A program that a handler starts must not keep the lock.
      setCloseOnExec(fd);
      const stats = fstatSync(fd);
      const isOwners = owner === null || stats.uid === owner.uid;
      // Root gives away only a lock file: the user may have linked or moved another file here.
      if (!stats.isFile() || stats.nlink !== 1 || !(isOwners || isLock(fd))) {
        throw this.#fail(`${LOCK} in it is not a file of its own`);
      }
      if (!tryLock(fd)) throw this.#taken(textOf(fd));
      if (!isOwners) fchownSync(fd, owner.uid, owner.gid);
      ftruncateSync(fd, 0);
      writeSync(fd, `${process.pid} ${this.#configFile}\n`, 0);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  #fail(reason: string): StateFolderError {
    return new StateFolderError(this.path, reason);
  }

  /** @param text of the lock; the other server may be about to write it */
  #taken(text: string): StateFolderTakenError {
    const [, pid, configFile] = LOCK_TEXT.exec(text) ?? [];
    const who = pid === undefined ? "another server" : `another server, process ${pid} with ${configFile}`;
    return new StateFolderTakenError(this.path, `${who}, uses it; each server needs its own`);
  }
}

function textOf(fd: number): string {
  const bytes = Buffer.alloc(MAX_LOCK_BYTES);
  return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, 0));
}

/** Whether a file is a lock of ours, or new. */
function isLock(fd: number): boolean {
  const text = textOf(fd);
  return text === "" || LOCK_TEXT.test(text);
}

/** Makes a folder and those above it that are not there. */
function makeFolders(path: string): void {
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) return;
  const missing: string[] = [];
  for (let above = dirname(path); statSync(above, { throwIfNoEntry: false }) === undefined; above = dirname(above)) {
    missing.unshift(above);
  }
  for (const folder of missing) {
    // Another server may be making it as well. The umask must not close it.
    if (make(folder, MODE_ABOVE)) chmodSync(folder, MODE_ABOVE);
  }
  make(path, MODE);
}

/** @returns whether it was made now */
function make(folder: string, mode: number): boolean {
  try {
    mkdirSync(folder, { mode });
    return true;
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
    return false;
  }
}

/**
 * Whether only root can make a path lead to something else: root owns each folder on the way, and each link, and no other
 * user may change their contents.
 */
function isRootsAlone(path: string): boolean {
  let links = 0;
  const isSafe = (absolute: string): boolean => {
    let at = "/";
    for (const part of absolute.split("/").filter((each) => each !== "")) {
      const above = statSync(at);
      // In a sticky folder other users cannot rename or remove files of root.
      if (above.uid !== 0 || ((above.mode & 0o022) !== 0 && (above.mode & 0o1000) === 0)) return false;
      const next = join(at, part);
      const stats = lstatSync(next);
      if (stats.uid !== 0) return false;
      if (stats.isSymbolicLink()) {
        links += 1;
        const target = resolve(at, readlinkSync(next));
        if (links > MAX_LINKS || !isSafe(target)) return false;
        at = target;
      } else at = next;
    }
    return true;
  };
  return isSafe(path);
}

function inWords(cause: unknown): string {
  const uid = process.geteuid?.();
  switch (codeOf(cause)) {
    case "EACCES":
    case "EPERM":
      return `no permission to make or write it as uid ${uid}`;
    case "EROFS":
      return "it is on a read-only file system";
    case "ENOTDIR":
      return "it is no folder, or something above it is none";
    case "ELOOP":
      return "a link leads to itself, or the lock in it is a link";
    case "EEXIST":
    case "ENOENT":
      return "a link leads nowhere";
    default:
      return reason(cause);
  }
}
