/** A process of the benchmark's own that talks by messages: load generators, peers, microbenchmarks. */
import { relative } from "node:path";
import { ROOT } from "./machine.ts";

export interface ChildOptions {
  readonly signal: AbortSignal;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The tree that the file belongs to; default: the working tree. */
  readonly root?: string;
}

/** How long a child may take to end after its channel was closed. */
const END_MS = 5000;

/**
 * @template To the messages it takes, From those it gives. A child ends when its channel closes: see {@link onParentGone}.
 */
export class BenchChild<To, From> implements AsyncDisposable {
  readonly pid: number;
  /** The command line as a user would type it. */
  readonly command: string;
  readonly #process: Bun.Subprocess;
  readonly #received: From[] = [];
  #waiting: PromiseWithResolvers<From> | null = null;
  #ended: string | null = null;

  constructor(file: string, { signal, args = [], env = {}, root = ROOT }: ChildOptions) {
    const name = relative(root, file);
    this.command = ["bun", name, ...args].join(" ");
    this.#process = Bun.spawn([process.execPath, file, ...args], {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "inherit", "inherit"],
      signal,
      ipc: (message: From) => this.#receive(message),
      onExit: (_, exitCode, signalCode) => {
        this.#ended = `${name} ended early (${signalCode ?? `exit code ${exitCode}`})`;
        this.#waiting?.reject(new Error(this.#ended));
      },
    });
    this.pid = this.#process.pid;
  }

  send(message: To): void {
    this.#process.send(message);
  }

  /** The next message; throws if the child ends instead. */
  next(): Promise<From> {
    const message = this.#received.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (this.#ended !== null) return Promise.reject(new Error(this.#ended));
    this.#waiting = Promise.withResolvers<From>();
    return this.#waiting.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended !== null) return;
    this.#process.disconnect();
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), END_MS);
    await this.#process.exited;
    clearTimeout(timer);
  }

  #receive(message: From): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) this.#received.push(message);
    else waiting.resolve(message);
  }
}

/** In a child: stays until the parent is done with it, or is gone, and then runs `stop`. */
export function onParentGone(stop: () => void): void {
  process.on("disconnect", stop);
  // Only a listener keeps the channel open, and with it the process.
  process.on("message", () => {});
}

/** In a child: a message to the parent. */
export function tellParent(message: unknown): void {
  process.send?.(message);
}
