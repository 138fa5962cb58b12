/** What the tests of sockets share: temporary folders, things to undo, and a client that notes what happens to it. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { ListenAddress } from "../../src/config/address.ts";
import { TEMP } from "../support/temp.ts";

/** Undoes in reverse order what a test has opened; call `run` after each test. */
export class Cleanup {
  readonly #steps: (() => unknown)[] = [];

  add(step: () => unknown): void {
    this.#steps.push(step);
  }

  async run(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) await step();
  }

  /** Short, since the paths of unix sockets are. */
  folder(): string {
    const folder = mkdtempSync(join(TEMP, "pm-"));
    this.add(() => rmSync(folder, { recursive: true, force: true }));
    return folder;
  }
}

/** A connection whose events can be awaited. `fd` of an adopted socket is Bun's from then on. */
export class Peer {
  received = Buffer.alloc(0);
  readonly chunks: Uint8Array[] = [];
  readonly events: string[] = [];
  socket!: Bun.Socket & { readonly fd: number };
  #wake = Promise.withResolvers<void>();

  static async connect(target: ListenAddress | { kind: "adopt"; fd: number }, cleanup: Cleanup): Promise<Peer> {
    const peer = new Peer();
    const options =
      target.kind === "unix"
        ? { unix: target.path }
        : target.kind === "tcp"
          ? { hostname: target.host, port: target.port }
          : { fd: target.fd };
    const connect = Bun.connect as unknown as (options: object) => Promise<Peer["socket"]>;
    peer.socket = await connect({
      ...options,
      // A client that may see the other side's end before it ends itself.
      allowHalfOpen: true,
      socket: {
        data: (_: unknown, chunk: Uint8Array) => {
          peer.chunks.push(chunk);
          peer.received = Buffer.concat([peer.received, chunk]);
          peer.#note("data");
        },
        drain: () => peer.#note("drain"),
        end: () => peer.#note("end"),
        close: () => peer.#note("close"),
        error: () => peer.#note("error"),
      },
    });
    cleanup.add(() => peer.socket.terminate());
    return peer;
  }

  #note(event: string): void {
    this.events.push(event);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  /** Resolves when the condition holds, checked after each event of this connection. */
  async until(condition: (peer: Peer) => boolean): Promise<void> {
    while (!condition(this)) await this.#wake.promise;
  }

  /** Resolves when the other side has ended. */
  ended(): Promise<void> {
    return this.until(({ events }) => events.includes("end") || events.includes("close"));
  }
}

/** A promise of the n-th call, and the arguments of all. */
export function recorder<T>(): { readonly calls: T[]; add(value: T): void; count(n: number): Promise<T[]> } {
  const calls: T[] = [];
  const waiting: { n: number; resolve: (calls: T[]) => void }[] = [];
  return {
    calls,
    add(value) {
      calls.push(value);
      for (const { n, resolve } of waiting) if (calls.length >= n) resolve(calls);
    },
    count: (n) => new Promise((resolve) => (calls.length >= n ? resolve(calls) : waiting.push({ n, resolve }))),
  };
}

/** Descriptors of this process; one of them is the one that reads the folder. */
export function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** A turn of the event loop, for what has no event of its own. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
