/**
 * How a generation takes over on a busy server: its share of new connections grows step by step. Code that has not run yet
 * is slow, and compiling it takes processor time. All at once that is more than a busy machine has to spare, and every reply
 * would wait.
 */
import { ALL_SHARES, type ConnectionTable } from "../../shared/connection-table.ts";
import type { Generation } from "./generation.ts";
import { SLOW_START_SHARES } from "../policy.ts";
import { within } from "../../within.ts";

export class SlowStart {
  readonly generation: Generation;
  readonly #table: ConnectionTable;
  readonly #cut = Promise.withResolvers<void>();
  #isCut = false;

  constructor(generation: Generation, table: ConnectionTable) {
    this.generation = generation;
    this.#table = table;
  }

  /** Settles when the generation may take all: after `ms`, or when {@link cut}. */
  async run(ms: number): Promise<void> {
    for (const share of SLOW_START_SHARES) {
      if (this.#isCut) break;
      this.#table.passShares = share;
      await within(this.#cut.promise, ms / SLOW_START_SHARES.length);
    }
    this.#table.passShares = 0;
  }

  /** Waits no longer. */
  cut(): void {
    this.#isCut = true;
    this.#cut.resolve();
  }

  /** Whether the generation has less than its share: in a burst, workers also pass on connections beyond their own share. */
  get wantsMore(): boolean {
    const { passShares, total } = this.#table;
    const has = this.generation.loads.reduce((sum, load) => sum + load, 0);
    return this.generation.isReady && has < Math.max(1, (total * passShares) / ALL_SHARES);
  }
}
