/**
 * Files as `File` of mruby-io has them: synchronous, without a buffer for writing. Only regular files are opened: a named
 * pipe would hold its thread where nobody can end it.
 */
import * as fs from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { decodeText, encodeText } from "../protocol/bytes.ts";
import { checkRegular } from "../regular-file.ts";

/** Bytes that are read at once at most. */
const MAX_READ = 64 * 1024 * 1024;
/** Files that a thread has open at most. */
const MAX_OPEN = 100;
const CHUNK = 64 * 1024;
const LF = 10;

const { O_APPEND, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } = fs.constants;
const MODES: Readonly<Record<string, number>> = {
  r: O_RDONLY,
  "r+": O_RDWR,
  w: O_WRONLY | O_CREAT | O_TRUNC,
  "w+": O_RDWR | O_CREAT | O_TRUNC,
  a: O_WRONLY | O_CREAT | O_APPEND,
  "a+": O_RDWR | O_CREAT | O_APPEND,
};

/** With the code that Ruby's exception is named by; `IO` for IOError, `EOF`, `ARG`. */
class FileError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

class OpenFile {
  readonly path: string;
  readonly #descriptor: number;
  readonly #flags: number;
  #position = 0;
  #isClosed = false;
  /** What was read from `#chunkAt` on. */
  #chunk: Uint8Array = Buffer.alloc(0);
  #chunkAt = 0;

  constructor(path: string, mode: string, permissions: number) {
    const flags = MODES[mode.replace(/[bt]|:.*$/g, "")];
    if (flags === undefined) throw new FileError("ARG", `illegal access mode ${mode}`);
    // Without O_TRUNC: what is not regular stays as it is.
    this.#descriptor = fs.openSync(path, (flags & ~O_TRUNC) | O_NONBLOCK, permissions);
    try {
      checkRegular(fs.fstatSync(this.#descriptor));
      if ((flags & O_TRUNC) !== 0) fs.ftruncateSync(this.#descriptor);
    } catch (error) {
      fs.closeSync(this.#descriptor);
      throw error;
    }
    this.path = path;
    this.#flags = flags;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    fs.closeSync(this.#descriptor);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** @param length in bytes; null reads the rest. Null at the end, if a length was given */
  read(length: number | null): string | null {
    this.#checkReadable();
    const left = Math.max(0, fs.fstatSync(this.#descriptor).size - this.#position);
    const wanted = Math.min(left, length ?? left);
    if (wanted > MAX_READ) throw new FileError("IO", `expected at most ${MAX_READ} bytes at once, got ${wanted}`);
    if (wanted === 0) return length === null || length === 0 ? "" : null;
    const bytes = Buffer.alloc(wanted);
    const got = fs.readSync(this.#descriptor, bytes, 0, wanted, this.#position);
    this.#position += got;
    return decodeText(bytes, 0, got);
  }

  /** A line with its end; null behind the last. */
  gets(): string | null {
    this.#checkReadable();
    const parts: Uint8Array[] = [];
    for (let length = 0; length < MAX_READ;) {
      const bytes = this.#ahead();
      if (bytes.length === 0) break;
      const end = bytes.indexOf(LF);
      const part = bytes.subarray(0, end === -1 ? bytes.length : end + 1);
      parts.push(part);
      length += part.length;
      this.#position += part.length;
      if (end !== -1) break;
    }
    return parts.length === 0 ? null : decodeText(Buffer.concat(parts));
  }

  getc(): string | null {
    this.#checkReadable();
    const bytes = this.#ahead();
    if (bytes.length === 0) return null;
    const [first] = decodeText(bytes, 0, Math.min(4, bytes.length));
    this.#position += encodeText(first!).length;
    return first!;
  }

  write(text: string): number {
    this.#checkOpen();
    if ((this.#flags & (O_WRONLY | O_RDWR)) === 0) throw new FileError("IO", "not opened for writing");
    const bytes = encodeText(text);
    const isAppending = (this.#flags & O_APPEND) !== 0;
    for (let at = 0; at < bytes.length;) {
      const position = isAppending ? null : this.#position + at;
      at += fs.writeSync(this.#descriptor, bytes, at, bytes.length - at, position);
    }
    this.#position = isAppending ? fs.fstatSync(this.#descriptor).size : this.#position + bytes.length;
    this.#chunk = Buffer.alloc(0);
    return bytes.length;
  }

  seek(offset: number, whence: number): number {
    this.#checkOpen();
    const from = whence === 0 ? 0 : whence === 1 ? this.#position : fs.fstatSync(this.#descriptor).size;
    if (from + offset < 0) throw new FileError("EINVAL", "Invalid argument");
    this.#position = from + offset;
    return 0;
  }

  get position(): number {
    this.#checkOpen();
    return this.#position;
  }

  isAtEnd(): boolean {
    this.#checkReadable();
    return this.#position >= fs.fstatSync(this.#descriptor).size;
  }

  /** The bytes at the position, some of them. */
  #ahead(): Uint8Array {
    const from = this.#position - this.#chunkAt;
    if (from >= 0 && from < this.#chunk.length) return this.#chunk.subarray(from);
    const bytes = Buffer.alloc(CHUNK);
    this.#chunkAt = this.#position;
    this.#chunk = bytes.subarray(0, fs.readSync(this.#descriptor, bytes, 0, CHUNK, this.#position));
    return this.#chunk;
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new FileError("IO", "closed stream");
  }

  #checkReadable(): void {
    this.#checkOpen();
    if ((this.#flags & O_WRONLY) !== 0) throw new FileError("IO", "not opened for reading");
  }
}

/** The files of a thread, by number. */
export class RubyFiles {
  readonly #open = new Map<number, OpenFile>();
  #last = 0;

  /** The files that are open. */
  get numbers(): number[] {
    return [...this.#open.keys()];
  }

  close(numbers: Iterable<number>): void {
    for (const number of numbers) {
      this.#open.get(number)?.close();
      this.#open.delete(number);
    }
  }

  /** What `file.rb` calls; null for nil, and `["error", code, message]` for what it raises. */
  call(operation: string, args: readonly unknown[]): unknown {
    try {
      return (OPERATIONS[operation]! as (files: RubyFiles, ...rest: unknown[]) => unknown)(this, ...args);
    } catch (error) {
      const { code, message } = error as { readonly code?: string; readonly message: string };
      return ["error", code ?? "IO", message];
    }
  }

  open(path: string, mode: string, permissions: number): number {
    if (this.#open.size >= MAX_OPEN) throw new FileError("IO", `more than ${MAX_OPEN} files are open`);
    const file = new OpenFile(path, mode, permissions);
    this.#open.set(++this.#last, file);
    return this.#last;
  }

  at(number: number): OpenFile {
    const file = this.#open.get(number);
    if (file === undefined) throw new FileError("IO", "closed stream");
    return file;
  }
}

const stat = (path: string) => fs.statSync(path, { throwIfNoEntry: false });

const OPERATIONS: Readonly<Record<string, (files: RubyFiles, ...args: never[]) => unknown>> = {
  open: (files, path: string, mode: string, permissions: number) => files.open(path, mode, permissions),
  close: (files, number: number) => {
    files.at(number);
    files.close([number]);
    return null;
  },
  isOpen: (files, number: number) => files.numbers.includes(number),
  read: (files, number: number, length: number | null) => files.at(number).read(length),
  gets: (files, number: number) => files.at(number).gets(),
  getc: (files, number: number) => files.at(number).getc(),
  write: (files, number: number, text: string) => files.at(number).write(text),
  seek: (files, number: number, offset: number, whence: number) => files.at(number).seek(offset, whence),
  position: (files, number: number) => files.at(number).position,
  isAtEnd: (files, number: number) => files.at(number).isAtEnd(),
  exists: (_, path: string) => stat(path) !== undefined,
  isFile: (_, path: string) => stat(path)?.isFile() ?? false,
  isDirectory: (_, path: string) => stat(path)?.isDirectory() ?? false,
  isPipe: (_, path: string) => stat(path)?.isFIFO() ?? false,
  isSocket: (_, path: string) => stat(path)?.isSocket() ?? false,
  isLink: (_, path: string) => fs.lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false,
  size: (_, path: string) => fs.statSync(path).size,
  mtime: (_, path: string) => Math.floor(fs.statSync(path).mtimeMs / 1000),
  delete: (_, path: string) => fs.unlinkSync(path) ?? null,
  rename: (_, from: string, to: string) => fs.renameSync(from, to) ?? null,
  chmod: (_, mode: number, path: string) => fs.chmodSync(path, mode) ?? null,
  readlink: (_, path: string) => fs.readlinkSync(path),
  realpath: (_, path: string) => fs.realpathSync(path),
  basename: (_, path: string, suffix: string) => basename(path, suffix),
  dirname: (_, path: string) => dirname(path),
  extname: (_, path: string) => extname(path),
  expand: (_, path: string, folder: string | null) => resolve(folder ?? ".", path),
  join: (_, parts: readonly string[]) => join(...parts),
};
