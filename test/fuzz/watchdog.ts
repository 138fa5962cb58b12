/**
 * Watches the fuzzer's thread from another: an iteration that does not end is a fault, and its own thread cannot say so.
 * What it prints repeats the iteration; the process ends with exit code 1.
 */
import { dlopen } from "bun:ffi";
import { writeSync } from "node:fs";
import { isMainThread } from "node:worker_threads";
import { repeatCommand } from "./seeds.ts";

const LIMIT_MS = 30_000;
const LOOK_MS = 1000;
const FIELDS = { started: 0, seed: 1, target: 2 } as const;

export class Watchdog implements Disposable {
  readonly #fields = new Float64Array(new SharedArrayBuffer(3 * Float64Array.BYTES_PER_ELEMENT));
  readonly #worker = new Worker(import.meta.url);
  readonly #targets: readonly string[];

  constructor(targets: readonly string[]) {
    this.#targets = targets;
    this.#worker.postMessage({ fields: this.#fields, targets } satisfies Watched);
    this.#worker.unref();
  }

  /** An iteration begins. */
  begin(target: string, seed: number): void {
    this.#fields[FIELDS.target] = this.#targets.indexOf(target);
    this.#fields[FIELDS.seed] = seed;
    this.#fields[FIELDS.started] = Date.now();
  }

  /** It is over. */
  end(): void {
    this.#fields[FIELDS.started] = 0;
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}

interface Watched {
  readonly fields: Float64Array;
  readonly targets: readonly string[];
}

function watch({ fields, targets }: Watched): void {
  setInterval(() => {
    const started = fields[FIELDS.started]!;
    if (started === 0 || Date.now() - started < LIMIT_MS) return;
    const seed = fields[FIELDS.seed]!;
    const target = targets[fields[FIELDS.target]!] ?? "";
    writeSync(2, `fuzz: ${target}: the iteration with seed ${seed} has not ended after ${LIMIT_MS / 1000} s\n`);
    writeSync(2, `  repeat: ${repeatCommand(target, seed)}\n`);
    // process.exit() would end this thread alone.
    const libc = process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6";
    dlopen(libc, { _exit: { args: ["int"], returns: "void" } }).symbols._exit(1);
  }, LOOK_MS);
}

/** The side of the thread that is watched from. */
declare const self: { onmessage: (event: { readonly data: Watched }) => void };

if (!isMainThread) self.onmessage = (event) => watch(event.data);
