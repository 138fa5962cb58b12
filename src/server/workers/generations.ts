/**
 * The generations of a running server: the current generation takes new sessions, older generations finish theirs. Start,
 * reload and stop all work by this. A generation that does not load changes nothing.
 */
import type { Config } from "../../config/config.ts";
import type { SessionRecords } from "../../shared/session-records.ts";
import type { WorkerRows } from "../../shared/worker-rows.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { ListeningSocket } from "../../shared/messages.ts";
import type { Sources } from "../../load/sources.ts";
import { Generation, type GenerationEvents, type GenerationOptions } from "./generation.ts";
import type { RowPool } from "./row-pool.ts";
import { MAX_GENERATIONS, MAX_WAITING_GENERATIONS, MIN_ROWS, RELOAD_AGAIN_MS, SLOW_START_MS } from "../policy.ts";
import { SlowStart } from "./slow-start.ts";
import { StandIn } from "./stand-in.ts";

export class Generations {
  readonly #workerUrl: URL;
  readonly #workerRows: WorkerRows;
  readonly #records: SessionRecords;
  readonly #table: ConnectionTable;
  /** The sockets by which workers accept connections. */
  listeningSockets: readonly ListeningSocket[] = [];
  readonly #events: GenerationEvents;
  readonly #rows: RowPool;
  #current: Generation | null = null;
  /** When the current generation replaced its predecessor, on the clock of `performance.now()`. */
  #reloadedAt = Number.NEGATIVE_INFINITY;
  #loading: Generation | null = null;
  #failed: Sources | null = null;
  /** Older generations, the oldest first, each with the timer after which its sessions are moved. */
  readonly #old = new Map<Generation, ReturnType<typeof setTimeout>>();
  /** The older generations whose sessions are to be moved. */
  readonly #moving = new Set<Generation>();
  #slowStart: SlowStart | null = null;
  readonly #standIn: StandIn;
  /** Former stand-ins that finish their sessions, and generations that were loaded and did not pass `confirm`. */
  readonly #dismissed = new Set<Generation>();
  #started = 0;
  #isStopping = false;

  /** @param config of the first generation: a stand-in needs it while that loads */
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
    this.#workerRows = workerRows;
    this.#records = records;
    this.#table = table;
    this.#rows = rows;
    this.#events = events;
    this.#standIn = new StandIn(config, {
      make: (options) => this.#make(options),
      current: () => this.#current,
      isStopping: () => this.#isStopping,
      dismiss: (standIn) => this.#dismiss(standIn),
      log: (level, text, fields, of) => events.log(level, text, fields, of),
    });
  }

  /** Number of rows of shared memory for so many workers a generation. */
  static rowsFor(workers: number): number {
    return Math.max(MIN_ROWS, workers * MAX_GENERATIONS);
  }

  get current(): Generation | null {
    return this.#current;
  }

  /** The generation that takes over slowly; null if none does. */
  get next(): Generation | null {
    return this.#slowStart?.generation ?? null;
  }

  /** The generation for a session that begins now and that no worker has kept. */
  get forNew(): Generation | null {
    return this.#slowStart?.wantsMore === true ? this.next : this.#current;
  }

  /** Older generations that still have sessions. */
  get old(): readonly Generation[] {
    return [...this.#old.keys()];
  }

  /** All generations that run, the oldest first. */
  get all(): readonly Generation[] {
    return [...this.#old.keys(), this.#current, this.next].filter((generation) => generation !== null);
  }

  /** The sources of the last load if it failed, as far as they were read: a change of them may correct it. */
  get failed(): Sources | null {
    return this.#failed;
  }

  /** The generation that is being loaded, or takes over slowly. */
  get loading(): Generation | null {
    return this.#loading;
  }

  /**
   * Loads a new generation; it takes all sessions that begin once this has settled, and some of them before.
   * @param until the latest time until which it may take over slowly, on the clock of `performance.now()`
   * @param confirm the last step before it serves; if it throws, the generation is ended again
   * @throws LoadError, or the error of `confirm`; the current generation keeps serving
   */
  async start(config: Config, workers: number, until: number, confirm: () => Promise<void>): Promise<Generation> {
    if (this.#old.size + 1 >= MAX_GENERATIONS || workers > this.#rows.free) {
      throw new Error(`${this.#old.size} older generations still have sessions; a further one has to wait for them`);
    }
    const generation = this.#make({ number: this.#started + 1, config, workers, standIn: null });
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
    // From here on workers of other generations pass on the connections that they accept.
    this.#table.current = generation.number;
    if (before !== null) {
      this.#reloadedAt = performance.now();
      this.#retire(before);
    }
    // Sessions that could not be moved to the generation before may be moved to this one, and the other way round.
    for (const moving of this.#moving) moving.release(generation.summary);
    return generation;
  }

  #make(options: Pick<GenerationOptions, "number" | "config" | "workers" | "standIn">): Generation {
    return new Generation({
      ...options,
      workerUrl: this.#workerUrl,
      workerRows: this.#workerRows,
      records: this.#records,
      table: this.#table,
      listeningSockets: this.listeningSockets,
      rows: this.#rows,
      events: this.#events,
    });
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

  /** Gives up the generation that is being loaded; if it already takes over slowly, it takes over at once. */
  abandonLoading(reason: string): void {
    if (this.#slowStart === null) this.#loading?.abandon(reason);
    else this.#slowStart.cut();
  }

  /** The stand-in, for a session that cannot wait any longer. @returns null while it is not ready */
  standIn(): Generation | null {
    return this.#standIn.use();
  }

  /** Starts the stand-in, which may soon be needed. */
  prepareStandIn(): void {
    this.#standIn.prepare();
  }

  /** Ends the stand-in, if workers take sessions again. */
  dismissStandIn(): void {
    this.#standIn.dismiss();
  }

  /** Lets a generation end that serves no new sessions. */
  #dismiss(generation: Generation): void {
    this.#dismissed.add(generation);
    void generation.end(null).then(() => this.#dismissed.delete(generation));
  }

  /** Ends all generations. Sessions that are left after `timeoutMs` are cut. */
  async stop(timeoutMs: number): Promise<void> {
    this.#isStopping = true;
    this.#table.current = 0;
    for (const timer of this.#old.values()) clearTimeout(timer);
    await Promise.all(this.#everything().map((generation) => generation.end(timeoutMs)));
  }

  /** Cuts the sessions that are left. @param graceMs see `Generation.cut` */
  cut(graceMs: number): void {
    for (const generation of this.#everything()) generation.cut(graceMs);
  }

  #everything(): Generation[] {
    return [...this.all, ...this.#dismissed, this.#standIn.generation].filter((generation) => generation !== null);
  }

  /** Lets an old generation finish its sessions; those that outlive `drain_timeout` are moved between two messages. */
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
