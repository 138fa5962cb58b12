/**
 * A generation: the workers that run one version of the configuration and the code. It places connections with them
 * and ends when it is told to. Listening and accepting is the server's business.
 */
import type { Config } from "../config/config.ts";
import type { LogFields } from "../admin/log.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { Ledger } from "../ledger.ts";
import { LoadError } from "../worker/loader.ts";
import type { ChainSummary, FromWorker, PeerName } from "../worker/messages.ts";
import { leastLoaded } from "./placement.ts";
import { LOAD_TIMEOUT_MS } from "./tasks.ts";
import { WorkerThread } from "./worker-thread.ts";

export interface GenerationEvents {
  log(level: LogLevel, text: string, fields?: LogFields): void;
  print(text: string): void;
  /** A worker's copy of a connection is closed: end the server's own. */
  closed(slot: number): void;
}

interface Member {
  readonly index: number;
  thread: WorkerThread;
  readonly slots: Set<number>;
  /** Ready for connections. */
  isReady: boolean;
}

/** Milliseconds before a worker that died is replaced: doubled each time up to the second, until one has served. */
const RESPAWN_MS = { least: 100, most: 30_000 } as const;

export class Generation {
  readonly #workerUrl: URL;
  readonly #config: Config;
  readonly #ledger: Ledger;
  readonly #events: GenerationEvents;
  readonly #members: Member[] = [];
  /** Settle the loading of a worker, by index. */
  readonly #loading = new Map<number, PromiseWithResolvers<ChainSummary>>();
  #ending: PromiseWithResolvers<void> | null = null;
  #respawnMs: number = RESPAWN_MS.least;

  private constructor(workerUrl: URL, config: Config, ledger: Ledger, events: GenerationEvents) {
    this.#workerUrl = workerUrl;
    this.#config = config;
    this.#ledger = ledger;
    this.#events = events;
  }

  /**
   * Starts the workers; settles when all have loaded their handlers and started their filters.
   * @throws LoadError the first that failed; none of the workers is left then
   */
  static async start(
    workerUrl: URL,
    config: Config,
    workers: number,
    ledger: Ledger,
    events: GenerationEvents,
  ): Promise<{ generation: Generation; summary: ChainSummary }> {
    const generation = new Generation(workerUrl, config, ledger, events);
    try {
      const summaries = await Promise.all(Array.from({ length: workers }, (_, index) => generation.#spawn(index)));
      return { generation, summary: summaries[0]! };
    } catch (error) {
      await Promise.all(generation.#members.map((member) => member.thread.terminate()));
      throw error;
    }
  }

  /** Connections by worker. */
  get loads(): number[] {
    return this.#members.map((member) => member.slots.size);
  }

  /**
   * Gives a connection to the worker that has the fewest.
   * @param descriptor a duplicate, the worker's from now on
   * @returns false if no worker can take it now; the descriptor is still the caller's
   */
  place(slot: number, descriptor: number, peer: PeerName): boolean {
    const member = this.#members[leastLoaded(this.#members.map(({ isReady, slots }) => (isReady ? slots.size : null)))];
    if (member === undefined) return false;
    member.slots.add(slot);
    member.thread.post({ kind: "adopt", slot, descriptor, peer });
    return true;
  }

  /** Lets the sessions end, then stops the filters and the workers. What is left after `timeoutMs` is cut. */
  async end(timeoutMs: number): Promise<void> {
    this.#ending ??= Promise.withResolvers();
    for (const member of this.#members) member.thread.post({ kind: "end", atOnce: false });
    // A worker that is being replaced has nothing to end.
    this.#settleEnd();
    const timer = setTimeout(() => this.cut(), timeoutMs);
    await this.#ending.promise;
    clearTimeout(timer);
    await Promise.all(this.#members.map((member) => member.thread.terminate()));
  }

  /** Ends the sessions that are left; a worker that does not answer to it is terminated. */
  cut(): void {
    const left = this.#members.filter((member) => member.isReady);
    const sessions = left.reduce((sum, member) => sum + member.slots.size, 0);
    if (sessions > 0) this.#events.log("warn", `${sessions} sessions had not ended and are cut`);
    for (const member of left) {
      member.thread.post({ kind: "end", atOnce: true });
      setTimeout(() => {
        if (member.isReady) void member.thread.terminate();
      }, CUT_TIMEOUT_MS);
    }
  }

  #spawn(index: number): Promise<ChainSummary> {
    const loaded = Promise.withResolvers<ChainSummary>();
    this.#loading.set(index, loaded);
    const member: Member = { index, slots: new Set(), isReady: false, thread: this.#thread(index) };
    this.#members[index] = member;
    member.thread.post({ kind: "serve", index, config: this.#config, ledger: this.#ledger.layout });
    const timer = setTimeout(() => {
      const message = `the handlers were not loaded after ${LOAD_TIMEOUT_MS / 1000} s`;
      loaded.reject(new LoadError({ file: this.#config.file, line: 0, column: 0, message }, undefined));
    }, LOAD_TIMEOUT_MS);
    return loaded.promise.finally(() => {
      clearTimeout(timer);
      this.#loading.delete(index);
    });
  }

  #thread(index: number): WorkerThread {
    return new WorkerThread(this.#workerUrl, {
      message: (message) => this.#receive(index, message),
      gone: (wasAsked, reason) => this.#gone(index, wasAsked, reason),
    });
  }

  #receive(index: number, message: FromWorker): void {
    const member = this.#members[index]!;
    switch (message.kind) {
      case "ready":
        member.isReady = true;
        this.#respawnMs = RESPAWN_MS.least;
        this.#loading.get(index)?.resolve(message.summary);
        return;
      case "failed":
        this.#loading.get(index)?.reject(new LoadError(message.failure, undefined));
        return;
      case "closed":
        if (member.slots.delete(message.slot)) this.#events.closed(message.slot);
        return;
      case "log":
        this.#events.log(message.level, message.text, message.fields);
        return;
      case "print":
        this.#events.print(message.text);
        return;
      case "ended":
        member.isReady = false;
        this.#settleEnd();
        return;
      case "done":
        return;
      default:
        message satisfies never;
    }
  }

  #gone(index: number, wasAsked: boolean, reason: string): void {
    const member = this.#members[index]!;
    const file = this.#config.file;
    this.#loading
      .get(index)
      ?.reject(
        new LoadError(
          { file, line: 0, column: 0, message: `a worker ended while it loaded the handlers: ${reason}` },
          undefined,
        ),
      );
    const wasReady = member.isReady;
    member.isReady = false;
    for (const slot of member.slots) this.#events.closed(slot);
    if (this.#ending !== null) {
      this.#settleEnd();
      return;
    }
    if (wasAsked || !wasReady) return;
    this.#events.log(
      "crit",
      `worker ${index} ended with ${member.slots.size} connections: ${reason}; another is started`,
    );
    member.slots.clear();
    this.#respawn(index);
  }

  /** Replaces a worker, with patience: one that dies at its start must not be started in a tight loop. */
  #respawn(index: number): void {
    const wait = this.#respawnMs;
    this.#respawnMs = Math.min(RESPAWN_MS.most, wait * 2);
    setTimeout(() => {
      if (this.#ending !== null) return;
      this.#spawn(index).catch((error: unknown) => {
        this.#events.log("crit", `worker ${index} could not be replaced: ${String(error)}`);
        this.#respawn(index);
      });
    }, wait);
  }

  #settleEnd(): void {
    if (this.#ending !== null && this.#members.every((member) => !member.isReady)) this.#ending.resolve();
  }
}

/** How long a worker may take to cut its sessions before it is terminated. */
const CUT_TIMEOUT_MS = 2000;
