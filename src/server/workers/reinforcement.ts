/**
 * When a generation needs further workers, beside those of `server.workers`: while some workers are silent, and for a while
 * after some were lost to handlers. Most sessions are then with a worker that answers. Pure.
 */
import { CALM_MS, EARLY_MS, MAX_EXTRA, MAX_LOADING, RESERVE, STUCK_RETRY_MS } from "../policy.ts";

/** A worker that takes sessions, or will once it has loaded. */
export interface Reinforced {
  readonly silentMs: number;
  readonly state: string;
}

/** The result of a look at the workers. */
export interface Need {
  /** More workers are silent than at the look before. */
  readonly areMoreSilent: boolean;
  /** A further worker is to be started, or all further workers are to end. */
  readonly further: "start" | "end" | null;
}

export class Reinforcement {
  readonly #workers: number;
  readonly #blockTimeoutMs: number;
  /** When a worker was last lost to a handler, on the clock of `performance.now()`. */
  #lostAt = Number.NEGATIVE_INFINITY;
  /** Number of silent workers at the last look. */
  #silent = 0;
  /** When a further worker was last started; after a failure, when the next may be started. */
  #startedAt = 0;

  /** @param workers `server.workers` @param blockTimeoutMs `server.block_timeout` */
  constructor(workers: number, blockTimeoutMs: number) {
    this.#workers = workers;
    this.#blockTimeoutMs = blockTimeoutMs;
  }

  /** A worker was lost to a handler. */
  lost(now: number): void {
    this.#lostAt = now;
  }

  /** A worker was lost to a handler not long ago: further losses are likely. */
  isLosing(now: number): boolean {
    return now - this.#lostAt < CALM_MS;
  }

  /** @param workers some of them can take sessions: where none could be started, further workers could not either */
  look(now: number, workers: readonly Reinforced[]): Need {
    const isLosing = this.isLosing(now);
    const silentMs = isLosing ? Math.min(EARLY_MS, this.#blockTimeoutMs / 2) : this.#blockTimeoutMs / 2;
    const silent = workers.filter((worker) => worker.silentMs > silentMs).length;
    const areMoreSilent = silent > this.#silent;
    this.#silent = silent;
    // Before the first loss a slow handler is more likely than an endless loop, and the workers that are not silent answer.
    const wanted = isLosing ? silent + RESERVE : silent < workers.length ? 0 : 1;
    const loading = workers.filter(({ state }) => state === "loading").length;
    if (workers.length < this.#workers + Math.min(MAX_EXTRA, wanted)) {
      const maySoon = loading < MAX_LOADING && now > this.#startedAt;
      return { areMoreSilent, further: maySoon ? "start" : null };
    }
    return { areMoreSilent, further: !isLosing && now - this.#startedAt > CALM_MS ? "end" : null };
  }

  /** A further worker is being started. */
  started(now: number): void {
    this.#startedAt = now;
  }

  /** A further worker could not be started. */
  failed(now: number): void {
    this.#startedAt = now + STUCK_RETRY_MS;
  }
}
