/**
 * The generations of a running server: the current one takes new sessions, older ones finish theirs. Start, reload and
 * stop are this one mechanism. A generation that does not load changes nothing.
 */
import type { Config } from "../config/config.ts";
import type { Ledger } from "../ledger.ts";
import { Generation, type GenerationEvents } from "./generation.ts";
import { MAX_GENERATIONS, MAX_WAITING_GENERATIONS } from "./policy.ts";

export class Generations {
  readonly #workerUrl: URL;
  readonly #ledger: Ledger;
  readonly #events: GenerationEvents;
  readonly #freeRows: number[];
  #current: Generation | null = null;
  /** Oldest first; with the timer that has their sessions moved. */
  readonly #old = new Map<Generation, ReturnType<typeof setTimeout>>();
  #started = 0;
  #isStopping = false;

  constructor(workerUrl: URL, ledger: Ledger, events: GenerationEvents) {
    this.#workerUrl = workerUrl;
    this.#ledger = ledger;
    this.#events = events;
    this.#freeRows = Array.from({ length: ledger.layout.workers }, (_, row) => row);
  }

  /** The rows that a ledger needs for so many workers a generation. */
  static rowsFor(workers: number): number {
    return workers * MAX_GENERATIONS;
  }

  get current(): Generation | null {
    return this.#current;
  }

  /** Older ones that still have sessions. */
  get old(): readonly Generation[] {
    return [...this.#old.keys()];
  }

  /**
   * Loads a new generation; it takes all sessions that begin from now on.
   * @throws GenerationError; the one before serves on
   */
  async start(config: Config, workers: number): Promise<Generation> {
    if (workers > this.#freeRows.length) {
      throw new Error(`${this.#old.size} older generations still have sessions; a further one has to wait for them`);
    }
    const rows = this.#freeRows.splice(0, workers);
    this.#started += 1;
    const number = this.#started;
    let generation: Generation;
    try {
      generation = await Generation.start({
        number,
        workerUrl: this.#workerUrl,
        config,
        ledger: this.#ledger,
        rows,
        events: this.#events,
      });
    } catch (error) {
      this.#freeRows.push(...rows);
      throw error;
    }
    const before = this.#current;
    this.#current = generation;
    if (before !== null) this.#retire(before);
    return generation;
  }

  /** Ends all, within a bound. */
  async stop(timeoutMs: number): Promise<void> {
    this.#isStopping = true;
    const all = [...this.#old.keys(), ...(this.#current === null ? [] : [this.#current])];
    for (const timer of this.#old.values()) clearTimeout(timer);
    await Promise.all(all.map((generation) => generation.end(timeoutMs)));
  }

  cut(): void {
    for (const generation of this.#old.keys()) generation.cut();
    this.#current?.cut();
  }

  /** Lets an old generation finish its sessions; those that outlive `drain_timeout` move between two messages. */
  #retire(generation: Generation): void {
    const timer = setTimeout(() => this.#move(generation), generation.config.server.drainTimeoutMs);
    this.#old.set(generation, timer);
    void generation.end(null).then(() => {
      clearTimeout(timer);
      this.#old.delete(generation);
      this.#freeRows.push(...generation.rows);
      if (!this.#isStopping) this.#events.log("info", `generation ${generation.number} has ended`);
    });
    // Many reloads in a short time must not keep as many sets of workers: the oldest do not wait.
    for (const oldest of [...this.#old.keys()].slice(0, -MAX_WAITING_GENERATIONS)) this.#move(oldest);
  }

  #move(generation: Generation): void {
    if (this.#current !== null && this.#old.has(generation)) generation.release(this.#current.summary);
  }
}
