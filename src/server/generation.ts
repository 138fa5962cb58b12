/**
 * A generation: the workers that run one version of the configuration and the code, from one snapshot of its sources. It
 * places connections with them, replaces those that die, and ends when it is told to. Listening and accepting is the
 * server's business.
 */
import type { LogFields } from "../admin/log.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { Config } from "../config/config.ts";
import type { Ledger } from "../ledger.ts";
import type { Wants } from "../protocol/negotiate.ts";
import { LoadError } from "../worker/load-failure.ts";
import type { ChainSummary, FromWorker, PeerName, ResumedSession } from "../worker/messages.ts";
import type { Sources } from "../worker/sources.ts";
import { leastLoaded } from "./placement.ts";
import { respawnDelay, STABLE_MS } from "./policy.ts";
import { LOAD_TIMEOUT_MS } from "./tasks.ts";
import { WorkerThread } from "./worker-thread.ts";

export interface GenerationEvents {
  log(level: LogLevel, text: string, fields?: LogFields): void;
  print(text: string): void;
  /** The sources were read: their changes are to be noticed from now on. */
  sources(): void;
  /** A worker can take connections, perhaps after none could. */
  ready(): void;
  /** A worker's copy of a connection is closed: end the server's own. */
  closed(slot: number): void;
  /** A worker's copy is closed, and the session may go on in another generation. */
  released(slot: number, release: Release): void;
}

/** A session that a worker has released. One of these is called. */
export interface Release {
  /** It goes on elsewhere. */
  done(): void;
  /** It has to stay: the worker takes it again. The descriptor is a new duplicate. */
  back(descriptor: number, peer: PeerName, resume: ResumedSession): void;
}

export interface GenerationOptions {
  /** Counted from 1. */
  readonly number: number;
  readonly workerUrl: URL;
  readonly config: Config;
  readonly ledger: Ledger;
  /** The rows of its workers in the ledger: one worker each. */
  readonly rows: readonly number[];
  readonly events: GenerationEvents;
}

interface Member {
  thread: WorkerThread;
  readonly slots: Set<number>;
  /** Ready for connections. */
  isReady: boolean;
  /** When it was started, on the clock of `performance.now()`. */
  readonly startedAt: number;
}

/** How long a worker may take to cut its sessions before it is terminated. */
const CUT_TIMEOUT_MS = 2000;

export class Generation {
  readonly number: number;
  readonly rows: readonly number[];
  readonly #options: GenerationOptions;
  readonly #members: Member[] = [];
  /** Settle the loading of a worker, by its place. */
  readonly #loading = new Map<number, PromiseWithResolvers<ChainSummary>>();
  #summary: ChainSummary | null = null;
  #sources: Sources | null = null;
  #ending: PromiseWithResolvers<void> | null = null;
  /** Workers that died in a row, by place. */
  readonly #deaths: number[];

  /** Nothing runs yet: see {@link load}. */
  constructor(options: GenerationOptions) {
    this.number = options.number;
    this.rows = options.rows;
    this.#options = options;
    this.#deaths = options.rows.map(() => 0);
  }

  /**
   * Starts the workers; settles when all have loaded their handlers and started their filters. The first reads the
   * sources, the others load what it read.
   * @throws LoadError none of the workers is left then
   */
  async load(): Promise<void> {
    try {
      this.#summary = await this.#spawn(0);
      await Promise.all(this.rows.slice(1).map((_, index) => this.#spawn(index + 1)));
    } catch (error) {
      this.#ending = Promise.withResolvers();
      await Promise.all(this.#members.map((member) => member.thread.terminate()));
      throw error;
    }
  }

  /** It is not wanted any more while it loads: {@link load} throws this message. */
  abandon(message: string): void {
    for (const place of this.#loading.keys()) this.#failLoading(place, message);
  }

  get config(): Config {
    return this.#options.config;
  }

  get summary(): ChainSummary {
    return this.#summary!;
  }

  /** What it was loaded from; null until that was read. */
  get sources(): Sources | null {
    return this.#sources;
  }

  /** Connections by worker. */
  get loads(): number[] {
    return this.#members.map((member) => member.slots.size);
  }

  /**
   * Gives a connection to the worker that has the fewest.
   * @param descriptor a duplicate, the worker's from now on
   * @param resume what another generation left of its session, null for a new one
   * @returns false if no worker can take it now; the descriptor is still the caller's
   */
  place(slot: number, descriptor: number, peer: PeerName, resume: ResumedSession | null): boolean {
    const member = this.#members[leastLoaded(this.#members.map(({ isReady, slots }) => (isReady ? slots.size : null)))];
    if (member === undefined) return false;
    member.slots.add(slot);
    member.thread.post({ kind: "adopt", slot, descriptor, peer, resume });
    return true;
  }

  /** From now on gives up sessions between messages that can go on in a generation that wants this. */
  release(wants: Wants): void {
    for (const member of this.#members) if (member.isReady) member.thread.post({ kind: "release", wants });
  }

  /**
   * Takes no more connections, lets the sessions end, then stops the filters and the workers.
   * @param timeoutMs what is left then is cut; null: never
   */
  async end(timeoutMs: number | null): Promise<void> {
    if (this.#ending === null) {
      this.#ending = Promise.withResolvers();
      for (const member of this.#members) member.thread.post({ kind: "end", atOnce: false });
      // A worker that is being replaced has nothing to end.
      this.#settleEnd();
    }
    const timer = timeoutMs === null ? undefined : setTimeout(() => this.cut(), timeoutMs);
    await this.#ending.promise;
    clearTimeout(timer);
    await Promise.all(this.#members.map((member) => member.thread.terminate()));
  }

  /** Ends the sessions that are left; a worker that does not answer to it is terminated. */
  cut(): void {
    const left = this.#members.filter((member) => member.isReady);
    const sessions = left.reduce((sum, member) => sum + member.slots.size, 0);
    if (sessions > 0) this.#options.events.log("warn", `${sessions} sessions had not ended and are cut`);
    for (const member of left) {
      member.thread.post({ kind: "end", atOnce: true });
      setTimeout(() => {
        if (member.isReady) void member.thread.terminate();
      }, CUT_TIMEOUT_MS);
    }
  }

  #spawn(place: number): Promise<ChainSummary> {
    const { config, ledger, rows } = this.#options;
    const loading = Promise.withResolvers<ChainSummary>();
    this.#loading.set(place, loading);
    const thread = this.#thread(place);
    const member: Member = { slots: new Set(), isReady: false, startedAt: performance.now(), thread };
    this.#members[place] = member;
    member.thread.post({ kind: "serve", index: rows[place]!, config, ledger: ledger.layout, sources: this.#sources });
    const timer = setTimeout(() => {
      this.#failLoading(place, `the handlers were not loaded after ${LOAD_TIMEOUT_MS / 1000} s`);
    }, LOAD_TIMEOUT_MS);
    return loading.promise.finally(() => {
      clearTimeout(timer);
      this.#loading.delete(place);
    });
  }

  #failLoading(place: number, message: string): void {
    const failure = { file: this.config.file, line: 0, column: 0, message };
    this.#loading.get(place)?.reject(new LoadError(failure, undefined));
  }

  #thread(place: number): WorkerThread {
    return new WorkerThread(this.#options.workerUrl, {
      message: (message) => this.#receive(place, message),
      gone: (wasAsked, reason) => this.#gone(place, wasAsked, reason),
    });
  }

  #receive(place: number, message: FromWorker): void {
    const member = this.#members[place]!;
    const { events } = this.#options;
    switch (message.kind) {
      case "sources":
        this.#sources = message.sources;
        events.sources();
        return;
      case "ready":
        member.isReady = true;
        this.#loading.get(place)?.resolve(message.summary);
        events.ready();
        // Told to end while it loaded: nothing was placed with it.
        if (this.#ending !== null) member.thread.post({ kind: "end", atOnce: true });
        return;
      case "failed":
        this.#loading.get(place)?.reject(new LoadError(message.failure, undefined));
        return;
      case "closed":
        if (member.slots.delete(message.slot)) events.closed(message.slot);
        return;
      case "released":
        if (member.slots.delete(message.slot)) this.#offer(member, message.slot);
        return;
      case "log":
        events.log(message.level, message.text, message.fields);
        return;
      case "print":
        events.print(message.text);
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

  #offer(member: Member, slot: number): void {
    this.#options.events.released(slot, {
      done: () => member.thread.post({ kind: "moved", slot }),
      back: (descriptor, peer, resume) => {
        member.slots.add(slot);
        member.thread.post({ kind: "adopt", slot, descriptor, peer, resume });
      },
    });
  }

  #gone(place: number, wasAsked: boolean, reason: string): void {
    const member = this.#members[place]!;
    const wasReady = member.isReady;
    member.isReady = false;
    this.#failLoading(place, `a worker ended while it loaded the handlers: ${reason}`);
    const lost = [...member.slots];
    member.slots.clear();
    for (const slot of lost) this.#options.events.closed(slot);
    if (this.#ending !== null) {
      this.#settleEnd();
      return;
    }
    if (wasAsked || !wasReady) return;
    this.#options.events.log("crit", `a worker ended with ${lost.length} connections: ${reason}; another is started`);
    this.#respawn(place, true);
  }

  #respawn(place: number, hasLoaded: boolean): void {
    const lived = performance.now() - this.#members[place]!.startedAt;
    const deaths = lived < STABLE_MS ? this.#deaths[place]! + 1 : 1;
    this.#deaths[place] = deaths;
    setTimeout(
      () => {
        if (this.#ending !== null) return;
        this.#spawn(place).catch((error: unknown) => {
          if (this.#ending !== null) return;
          this.#options.events.log("crit", `a worker could not be replaced: ${String(error)}`);
          this.#respawn(place, false);
        });
      },
      respawnDelay(deaths, hasLoaded),
    );
  }

  #settleEnd(): void {
    if (this.#ending !== null && this.#members.every((member) => !member.isReady)) this.#ending.resolve();
  }
}
