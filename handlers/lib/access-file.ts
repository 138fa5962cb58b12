/**
 * A file that may change while the server runs. It is looked at when someone needs it, at most every LOOK_MS, by
 * `stat`, and not watched: notifications do not come from network file systems, are lost when a folder or the target
 * of a symbolic link is replaced, and a watcher must be closed. A look costs microseconds and leaves nothing behind.
 */
import { isUtf8 } from "node:buffer";
import { readFileSync, statSync } from "node:fs";
import type { Log } from "pmilter";
import { LineError } from "./access-table.ts";

const LOOK_MS = 200;
/** A file that changed less than this ago is left alone: someone may be writing. */
const QUIET_MS = 200;

export class AccessFile<T> {
  readonly #path: string;
  readonly #parse: (text: string) => T;
  #content: T;
  /** The `stat` of the file that was read last, with or without success. */
  #seen: string;
  #looked = performance.now();
  /** A change that is not quiet yet, and since when it is known. */
  #pending = { signature: "", since: 0 };

  /** @throws Error with file and line if it cannot be used */
  constructor(path: string, parse: (text: string) => T) {
    this.#path = path;
    this.#parse = parse;
    this.#seen = this.#stat().signature;
    try {
      this.#content = parse(readText(path));
    } catch (error) {
      throw new Error(this.#describe(error), { cause: error });
    }
  }

  /** The file's content; the content before, if the present cannot be used. */
  content(log: Log): T {
    const now = performance.now();
    if (now - this.#looked >= LOOK_MS) {
      this.#looked = now;
      this.#look(now, log);
    }
    return this.#content;
  }

  #look(now: number, log: Log): void {
    const { signature, age } = this.#stat();
    if (signature === this.#seen || !this.#isQuiet(signature, age, now)) return;
    let content: T | undefined;
    let problem = "";
    try {
      content = this.#parse(readText(this.#path));
    } catch (error) {
      problem = this.#describe(error);
    }
    // It changed while it was read: the next look takes it.
    if (this.#stat().signature !== signature) return;
    this.#seen = signature;
    if (content === undefined) {
      log.error(`${problem}; the old list stays`);
    } else {
      this.#content = content;
      log(`${this.#path}: read anew`);
    }
  }

  /** Quiet by the time of the file or, should that lie in the future, by two looks. */
  #isQuiet(signature: string, age: number, now: number): boolean {
    if (age >= QUIET_MS) return true;
    if (this.#pending.signature !== signature) this.#pending = { signature, since: now };
    return now - this.#pending.since >= QUIET_MS;
  }

  #stat(): { readonly signature: string; readonly age: number } {
    try {
      const { dev, ino, size, mtimeMs, ctimeMs } = statSync(this.#path);
      // Age by mtime: a file that was written elsewhere and moved here is complete.
      return { signature: [dev, ino, size, mtimeMs, ctimeMs].join(" "), age: Date.now() - mtimeMs };
    } catch (error) {
      // Not there, or not to be reached: not at once an error, it may be about to be replaced.
      return { signature: String(error), age: 0 };
    }
  }

  #describe(error: unknown): string {
    const place = error instanceof LineError ? `${this.#path}:${error.line}` : this.#path;
    return `${place}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function readText(path: string): string {
  const bytes = readFileSync(path);
  const text = bytes.toString("utf8").replace(/^\ufeff/, "");
  if (isUtf8(bytes)) return text;
  const line = text.slice(0, text.indexOf("\ufffd")).split("\n").length;
  throw new LineError(line, "is not UTF-8");
}
