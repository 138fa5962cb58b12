/** A named pipe whose reader is in the test's hand: it fills up, and is read when the test says so. */
import { closeSync, constants, openSync, readSync } from "node:fs";
import { join } from "node:path";

export class Fifo implements Disposable {
  readonly path: string;
  /** For the writer, blocking; it also keeps the pipe open. */
  readonly writeFd: number;
  readonly #readFd: number;

  constructor(folder: string, name: string, { nonBlocking = false } = {}) {
    this.path = join(folder, name);
    const made = Bun.spawnSync(["mkfifo", this.path]);
    if (made.exitCode !== 0) throw new Error(`mkfifo: ${made.stderr.toString()}`);
    this.#readFd = openSync(this.path, constants.O_RDONLY | constants.O_NONBLOCK);
    this.writeFd = openSync(this.path, constants.O_WRONLY | (nonBlocking ? constants.O_NONBLOCK : 0));
  }

  /** What is in the pipe now. */
  read(): string {
    const chunks: Buffer[] = [];
    for (;;) {
      const chunk = Buffer.alloc(65_536);
      try {
        const count = readSync(this.#readFd, chunk, 0, chunk.length, null);
        if (count === 0) break;
        chunks.push(chunk.subarray(0, count));
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

  closeReader(): void {
    closeSync(this.#readFd);
  }

  [Symbol.dispose](): void {
    closeSync(this.writeFd);
    try {
      this.closeReader();
    } catch {
      // It was closed by the test.
    }
  }
}
