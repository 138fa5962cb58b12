/**
 * The thread that writes large bodies to files, by blocking calls: on a slow disk this thread waits, and no worker's. It
 * takes the blocks of each worker in order. Files have no name, so nothing is left of them when the process ends.
 */
import { closeSync, constants, openSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { codeOf, toError } from "../errors.ts";
import { coverMapping, mapFile, setCloseOnExec, unmap } from "../net/libc.ts";
import { type FromSpool, HEADROOM, type SpoolAssignment, type ToSpool } from "../shared/spool-messages.ts";

interface SpoolScope {
  onmessage: (event: { readonly data: SpoolAssignment }) => void;
}
declare const self: SpoolScope;

const MODE = 0o600;
/** Linux: a file without a name; 0 elsewhere. On x64 and arm64 O_DIRECTORY, which it contains, has different values. */
const O_TMPFILE = process.platform === "linux" ? 0o20000000 | constants.O_DIRECTORY : 0;
/** File systems without nameless files say one of these. */
const NO_TMPFILE: ReadonlySet<unknown> = new Set(["EOPNOTSUPP", "ENOTSUP", "EISDIR", "EINVAL"]);

let names = 0;

/** Opens a file without a name in a folder. @throws Error of the system */
function openNameless(folder: string): number {
  const flags = constants.O_RDWR;
  if (O_TMPFILE !== 0) {
    try {
      return openSync(folder, flags | O_TMPFILE, MODE);
    } catch (error) {
      if (!NO_TMPFILE.has(codeOf(error))) throw error;
    }
  }
  names += 1;
  const path = join(folder, `.spool-${process.pid}-${names}-${crypto.randomUUID()}`);
  const fd = openSync(path, flags | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, MODE);
  unlinkSync(path);
  return fd;
}

/** A body in a file, later mapped. */
class SpooledFile {
  readonly #openFiles: Int32Array;
  #fd: number | null;
  #end = HEADROOM;
  #address: number | null = null;

  /** @throws Error of the system */
  constructor(folder: string, openFiles: Int32Array) {
    this.#openFiles = openFiles;
    this.#fd = openNameless(folder);
    Atomics.add(openFiles, 0, 1);
    // A program that a handler starts must not hold the space of bodies.
    setCloseOnExec(this.#fd);
  }

  get isMapped(): boolean {
    return this.#address !== null;
  }

  /** @throws Error of the system */
  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const written = writeSync(this.#fd!, bytes, at, bytes.length - at, this.#end);
      at += written;
      this.#end += written;
    }
  }

  /** @throws LibcError */
  map(): { readonly address: number; readonly length: number } {
    this.#address = mapFile(this.#fd!, this.#end);
    // The mapping holds the file.
    this.close();
    return { address: this.#address, length: this.#end };
  }

  close(): void {
    if (this.#fd === null) return;
    closeSync(this.#fd);
    this.#fd = null;
    Atomics.sub(this.#openFiles, 0, 1);
  }

  /** Gives the space back. */
  end(): void {
    this.close();
    if (this.#address !== null) coverMapping(this.#address, this.#end);
  }

  unmap(): void {
    if (this.#address !== null) unmap(this.#address, this.#end);
  }
}

/** The files of a worker. */
class WorkerFiles {
  readonly #port: MessagePort;
  readonly #folder: string;
  readonly #openFiles: Int32Array;
  readonly #files = new Map<number, SpooledFile>();
  /** Files that could not be written: their further blocks are dropped. */
  readonly #failed = new Set<number>();

  constructor({ folder, openFiles, port }: SpoolAssignment) {
    this.#port = port;
    this.#folder = folder;
    this.#openFiles = openFiles;
  }

  listen(): void {
    this.#port.onmessage = ({ data }: { readonly data: ToSpool }) => this.#receive(data);
    // The worker has ended, or is lost. Its thread may still read what is mapped: the addresses are never given back.
    this.#port.addEventListener("close", () => {
      for (const file of this.#files.values()) file.end();
      this.#files.clear();
    });
  }

  #receive(message: ToSpool): void {
    const { id } = message;
    switch (message.kind) {
      case "write":
        this.#write(id, message.memory, message.length);
        return;
      case "map":
        this.#map(id);
        return;
      case "end": {
        this.#failed.delete(id);
        const file = this.#files.get(id);
        file?.end();
        if (file?.isMapped !== true) this.#files.delete(id);
        return;
      }
      case "collected":
        this.#files.get(id)?.unmap();
        this.#files.delete(id);
        return;
      default:
        message satisfies never;
    }
  }

  #write(id: number, memory: ArrayBuffer, length: number): void {
    if (!this.#failed.has(id)) {
      try {
        let file = this.#files.get(id);
        if (file === undefined) {
          file = new SpooledFile(this.#folder, this.#openFiles);
          this.#files.set(id, file);
        }
        file.write(new Uint8Array(memory, 0, length));
      } catch (error) {
        this.#fail(id, error);
      }
    }
    this.#port.postMessage({ kind: "written", id, memory, length } satisfies FromSpool, [memory]);
  }

  #map(id: number): void {
    if (this.#failed.has(id)) return;
    try {
      this.#post({ kind: "mapped", id, ...this.#files.get(id)!.map() });
    } catch (error) {
      this.#fail(id, error);
    }
  }

  #fail(id: number, error: unknown): void {
    this.#failed.add(id);
    this.#files.get(id)?.close();
    this.#files.delete(id);
    const code = codeOf(error);
    const failure = { code: typeof code === "string" ? code : "", message: toError(error).message };
    this.#post({ kind: "failed", id, failure });
  }

  #post(message: FromSpool): void {
    this.#port.postMessage(message);
  }
}

self.onmessage = ({ data }) => new WorkerFiles(data).listen();
