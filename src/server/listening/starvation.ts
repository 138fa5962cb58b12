/**
 * Whether file descriptors are left. Without one no connection can be accepted, and trying would take all of a core; no
 * worker can be started, and no file can be read. Some are kept back for that.
 */
import type { Log } from "../../admin/log.ts";
import { RecurringState, timesInWords } from "../../admin/recurring-state.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import { SpareDescriptors } from "./descriptors.ts";

export class Starvation {
  readonly #table: ConnectionTable;
  readonly #spare: SpareDescriptors;
  readonly #state: RecurringState;

  /** @param source any open descriptor, for duplicates @param table where workers see it */
  constructor(source: number, table: ConnectionTable, log: Log) {
    this.#table = table;
    this.#spare = new SpareDescriptors(source);
    this.#state = new RecurringState({
      began: () => log.write("crit", "no file descriptors are left: new connections wait until some are closed"),
      ended: (times, seconds) =>
        log.write(
          "notice",
          `there are file descriptors again: there were none ${timesInWords(times)}, ${seconds} s altogether`,
        ),
      now: () => performance.now(),
    });
  }

  /** No descriptors were left at the last look. */
  get isOn(): boolean {
    return this.#table.isStarved;
  }

  /** A worker is about to be started. @throws Error if no descriptors are left for it */
  release(): void {
    this.#spare.release();
  }

  /** Descriptors are left for reading files. */
  canRead(): boolean {
    return !this.isOn && this.#spare.look();
  }

  /** @returns whether it has begun or ended since the last look */
  look(): boolean {
    const isOn = !this.#spare.look();
    this.#state.look();
    if (isOn === this.isOn) return false;
    this.#table.isStarved = isOn;
    this.#state.set(isOn);
    return true;
  }

  close(): void {
    this.#spare.close();
  }
}
