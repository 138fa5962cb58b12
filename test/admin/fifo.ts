/** A named pipe whose reader is in the test's hand: it fills up, and is read when the test says so. */
import { closeSync, constants, openSync, readSync } from "node:fs";
import { join } from "node:path";

/** The reading end. */
export class FifoReader implements Disposable {
  #fd: number | null;

  constructor(path: string) {
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  }

  /** What is in the pipe now, up to so many bytes. */
  read(atMost = Number.POSITIVE_INFINITY): string {
    const chunks: Buffer[] = [];
    for (let count = 0; count < atMost; count += chunks.at(-1)!.length) {
      const chunk = Buffer.alloc(Math.min(65_536, atMost - count));
      try {
        const length = readSync(this.#fd!, chunk, 0, chunk.length, null);
        if (length === 0) break;
        chunks.push(chunk.subarray(0, length));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EAGAIN") break;
        throw error;
      }
    }
    return Buffer.concat(chunks).toString();
  }

  /** Reads on until the promise settles, and what is left then. */
  async readUntil(done: Promise<unknown>): Promise<string> {
    const state = { isDone: false };
    void done.finally(() => {
      state.isDone = true;
    });
    let text = "";
    while (!state.isDone) {
      text += this.read();
      await Bun.sleep(1);
    }
    return text + this.read();
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}

export class Fifo implements Disposable {
  readonly path: string;
  /** For the writer, blocking unless asked for otherwise; it also keeps the pipe open. */
  readonly writeFd: number;
  readonly #reader: FifoReader;

  constructor(folder: string, name: string, { nonBlocking = false } = {}) {
    this.path = join(folder, name);
    const made = Bun.spawnSync(["mkfifo", this.path]);
    if (made.exitCode !== 0) throw new Error(`mkfifo: ${made.stderr.toString()}`);
    this.#reader = new FifoReader(this.path);
    this.writeFd = openSync(this.path, constants.O_WRONLY | (nonBlocking ? constants.O_NONBLOCK : 0));
  }

  read(atMost?: number): string {
    return this.#reader.read(atMost);
  }

  readUntil(done: Promise<unknown>): Promise<string> {
    return this.#reader.readUntil(done);
  }

  closeReader(): void {
    this.#reader[Symbol.dispose]();
  }

  /** Another reader of the same pipe, after the first is closed. */
  reopen(): FifoReader {
    return new FifoReader(this.path);
  }

  [Symbol.dispose](): void {
    closeSync(this.writeFd);
    this.closeReader();
  }
}
