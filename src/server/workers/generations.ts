/**
 * The generations of a running server: the current one takes new sessions, older ones finish theirs. Start, reload and
 * stop are this one mechanism. A generation that does not load changes nothing.
 */
import type { Config } from "../../config/config.ts";
import { type FallbackVerdict, strictest } from "../../handler/fallback.ts";
import type { SessionRecords } from "../../shared/session-records.ts";
import type { WorkerRows } from "../../shared/worker-rows.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { ListeningSocket } from "../../shared/messages.ts";
import type { Sources } from "../../load/sources.ts";
import { Generation, type GenerationEvents } from "./generation.ts";
import type { RowPool } from "./row-pool.ts";
import {
  MAX_GENERATIONS,
  MAX_WAITING_GENERATIONS,
  MIN_ROWS,
  RELOAD_AGAIN_MS,
  SLOW_START_MS,
  STAND_IN_RETRY_MS,
} from "../policy.ts";
import { SlowStart } from "./slow-start.ts";

export class Generations {
  readonly #workerUrl: URL;
  readonly #firstConfig: Config;
  readonly #workerRows: WorkerRows;
  readonly #records: SessionRecords;
  readonly #table: ConnectionTable;
  /** Where workers accept connections. */
  listeningSockets: readonly ListeningSocket[] = [];
  readonly #events: GenerationEvents;
  readonly #rows: RowPool;
  #current: Generation | null = null;
  /** When it last replaced another, on the clock of `performance.now()`. */
  #reloadedAt = Number.NEGATIVE_INFINITY;
  #loading: Generation | null = null;
  #failed: Sources | null = null;
  /** Oldest first; with the timer that has their sessions moved. */
  readonly #old = new Map<Generation, ReturnType<typeof setTimeout>>();
  /** Those of the old ones whose sessions are to move. */
  readonly #moving = new Set<Generation>();
  #slowStart: SlowStart | null = null;
  #standIn: Generation | null = null;
  #isStandInUsed = false;
  #standInTriedAt = Number.NEGATIVE_INFINITY;
  /** Stood in, and finish the sessions that they have; or were loaded, and are not wanted. */
  readonly #dismissed = new Set<Generation>();
  #started = 0;
  #isStopping = false;

  /** @param config of the first generation: what stands in for it while it loads */
  constructor(
    workerUrl: URL,
    config: Config,
    workerRows: WorkerRows,
    records: SessionRecords,
    table: ConnectionTable,
    rows: RowPool,
    events: GenerationEvents,
  ) {
    this.#workerUrl = workerUrl;
    this.#firstConfig = config;
    this.#workerRows = workerRows;
    this.#records = records;
    this.#table = table;
    this.#rows = rows;
    this.#events = events;
  }

  /** The rows that are needed for so many workers a generation. */
  static rowsFor(workers: number): number {
    return Math.max(MIN_ROWS, workers * MAX_GENERATIONS);
  }

  get current(): Generation | null {
    return this.#current;
  }

  /** The one that takes over slowly. */
  get next(): Generation | null {
    return this.#slowStart?.generation ?? null;
  }

  /** The one that a session which begins now, and no worker has kept, is for. */
  get forNew(): Generation | null {
    return this.#slowStart?.wantsMore === true ? this.next : this.#current;
  }

  /** Older ones that still have sessions. */
  get old(): readonly Generation[] {
    return [...this.#old.keys()];
  }

  /** All that run, oldest first. */
  get all(): readonly Generation[] {
    return [...this.#old.keys(), this.#current, this.next].filter((generation) => generation !== null);
  }

  /** What the last load was made from if it failed, as far as that was read: a change of it may mend it. */
  get failed(): Sources | null {
    return this.#failed;
  }

  /** The one that is being loaded, or takes over slowly. */
  get loading(): Generation | null {
    return this.#loading;
  }

  /**
   * Loads a new generation; it takes all sessions that begin once this has settled, and some of them before.
   * @param until how long it may take over slowly, at the most, on the clock of `performance.now()`
   * @param confirm the last step before it serves; if it throws, the generation is ended again
   * @throws LoadError, or what `confirm` throws; the one before serves on
   */
  async start(config: Config, workers: number, until: number, confirm: () => Promise<void>): Promise<Generation> {
    if (this.#old.size + 1 >= MAX_GENERATIONS || workers > this.#rows.free) {
      throw new Error(`${this.#old.size} older generations still have sessions; a further one has to wait for them`);
    }
    const generation = new Generation({
      number: this.#started + 1,
      workerUrl: this.#workerUrl,
      config,
      workerRows: this.#workerRows,
      records: this.#records,
      table: this.#table,
      listeningSockets: this.listeningSockets,
      workers,
      rows: this.#rows,
      standIn: null,
      events: this.#events,
    });
    this.#loading = generation;
    try {
      await generation.load();
      await confirm().catch((error: unknown) => {
        this.#dismiss(generation);
        throw error;
      });
      await this.#startSlowly(generation, until);
    } catch (error) {
      this.#failed = generation.sources;
      throw error;
    } finally {
      this.#loading = null;
    }
    this.#failed = null;
    this.#started += 1;
    const before = this.#current;
    this.#current = generation;
    // From here on no other worker keeps what it accepts, whenever it hears of this.
    this.#table.current = generation.number;
    if (before !== null) {
      this.#reloadedAt = performance.now();
      this.#retire(before);
    }
    // What was not enough for the generation before may do for this one, and the other way round.
    for (const moving of this.#moving) moving.release(generation.summary);
    return generation;
  }

  async #startSlowly(generation: Generation, until: number): Promise<void> {
    const now = performance.now();
    const ms = Math.min(SLOW_START_MS, until - now);
    if (this.#current === null || this.#isStopping || ms <= 0 || now - this.#reloadedAt < RELOAD_AGAIN_MS) return;
    this.#events.log("info", `generation ${generation.number} is loaded, and takes over within ${Math.round(ms)} ms`);
    this.#slowStart = new SlowStart(generation, this.#table);
    await this.#slowStart.run(ms);
    this.#slowStart = null;
  }

  /** The one that is being loaded is not wanted any more; one that takes over slowly does so at once. */
  abandonLoading(reason: string): void {
    if (this.#slowStart === null) this.#loading?.abandon(reason);
    else this.#slowStart.cut();
  }

  /**
   * The worker that gives every connection the fallback, while no other can take any; it is ended once one can.
   * @returns null while it is not ready
   */
  standIn(): Generation | null {
    if (this.#standIn?.isReady !== true) return null;
    if (!this.#isStandInUsed) {
      this.#isStandInUsed = true;
      const outcome = fallbackOf(this.#standIn.config);
      if (this.#current === null) {
        this.#events.log(
          "warn",
          `the handlers are still loading; until they are loaded, connections get the fallback: ${outcome}`,
        );
      } else if (this.#current.isReady) {
        this.#events.log(
          "warn",
          `workers are being lost; sessions that have waited too long for a worker get the fallback: ${outcome}`,
        );
      } else {
        this.#events.log(
          "crit",
          `no worker can take sessions; until one can, connections get the fallback: ${outcome}`,
        );
      }
    }
    return this.#standIn;
  }

  /** Starts that worker, which may soon be needed. */
  prepareStandIn(): void {
    if (this.#standIn !== null || this.#isStopping) return;
    if (performance.now() - this.#standInTriedAt < STAND_IN_RETRY_MS) return;
    this.#standInTriedAt = performance.now();
    this.#isStandInUsed = false;
    const config = this.#current?.config ?? this.#firstConfig;
    const standIn = new Generation({
      number: 0,
      workerUrl: this.#workerUrl,
      config,
      workerRows: this.#workerRows,
      records: this.#records,
      table: this.#table,
      listeningSockets: this.listeningSockets,
      workers: 1,
      rows: this.#rows,
      standIn: fallbackOf(config),
      events: this.#events,
    });
    this.#standIn = standIn;
    standIn.load().then(
      () => {
        if (this.#current?.isReady === true) standIn.release(this.#current.summary);
      },
      (error: unknown) => {
        this.#standIn = null;
        const what = "the worker that gives the fallback could not be started";
        if (!this.#isStopping) this.#events.log("crit", `${what}: ${String(error)}`, {}, what);
      },
    );
  }

  /** Workers can take sessions again: the one that stood in ends with the sessions that it has. */
  dismissStandIn(): void {
    const standIn = this.#standIn;
    if (standIn === null || this.#current?.isReady !== true || !standIn.isReady) return;
    if (this.#current.isLosingWorkers) return;
    this.#standIn = null;
    standIn.release(this.#current.summary);
    if (this.#isStandInUsed) this.#events.log("notice", "workers take sessions again");
    this.#dismiss(standIn);
  }

  /** Lets one that serves no new sessions end. */
  #dismiss(generation: Generation): void {
    this.#dismissed.add(generation);
    void generation.end(null).then(() => this.#dismissed.delete(generation));
  }

  /** Ends all, within a bound. */
  async stop(timeoutMs: number): Promise<void> {
    this.#isStopping = true;
    this.#table.current = 0;
    for (const timer of this.#old.values()) clearTimeout(timer);
    await Promise.all(this.#everything().map((generation) => generation.end(timeoutMs)));
  }

  /** While they are ended: what is left is cut. @param graceMs see `Generation.cut` */
  cut(graceMs: number): void {
    for (const generation of this.#everything()) generation.cut(graceMs);
  }

  #everything(): Generation[] {
    return [...this.all, ...this.#dismissed, ...(this.#standIn === null ? [] : [this.#standIn])];
  }

  /** Lets an old generation finish its sessions; those that outlive `drain_timeout` move between two messages. */
  #retire(generation: Generation): void {
    const timer = setTimeout(() => this.#move(generation), generation.config.server.drainTimeoutMs);
    this.#old.set(generation, timer);
    void generation.end(null).then(() => {
      clearTimeout(timer);
      this.#old.delete(generation);
      this.#moving.delete(generation);
      if (!this.#isStopping) this.#events.log("info", `generation ${generation.number} has ended`);
    });
    // Many reloads in a short time must not keep as many sets of workers: the oldest do not wait.
    for (const oldest of [...this.#old.keys()].slice(0, -MAX_WAITING_GENERATIONS)) this.#move(oldest);
  }

  #move(generation: Generation): void {
    if (this.#current === null || !this.#old.has(generation)) return;
    this.#moving.add(generation);
    generation.release(this.#current.summary);
  }
}

/** What connections get that no worker can take: the strictest fallback of the filters that this configuration has. */
function fallbackOf({ filters, handler, server }: Config): FallbackVerdict {
  if (!server.handler) return strictest([]);
  const phaseFiles = Object.keys(handler.session).length > 0 ? [server.onError] : [];
  const enforced = filters.filter(({ mode }) => mode !== "observe");
  return strictest([...phaseFiles, ...enforced.map(({ onError }) => onError ?? server.onError)]);
}
