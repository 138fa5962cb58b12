/** The rows of the ledger and the connection table: each worker has a row, from its start until its thread has ended. */
import type { Ledger } from "../../shared/ledger.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";

export class RowPool {
  readonly #ledger: Ledger;
  readonly #table: ConnectionTable;
  readonly #free: number[];
  readonly #taken = new Set<number>();
  readonly #onGone: (row: number, counters: readonly number[]) => void;

  /** @param onGone called when a row is given back, with the counters of its worker */
  constructor(ledger: Ledger, table: ConnectionTable, onGone: (row: number, counters: readonly number[]) => void) {
    this.#ledger = ledger;
    this.#table = table;
    this.#free = Array.from({ length: ledger.layout.workers }, (_, index) => ledger.layout.workers - 1 - index);
    this.#onGone = onGone;
  }

  get free(): number {
    return this.#free.length;
  }

  /** The counters of the workers that run. */
  counters(): number[][] {
    return [...this.#taken].map((row) => this.#ledger.counters(row));
  }

  /** @throws Error if none is left: so many threads are stuck */
  take(): number {
    const row = this.#free.pop();
    if (row === undefined) throw new Error("no row is left for another worker: too many threads are stuck");
    this.#ledger.openRow(row);
    this.#table.openRow(row);
    this.#taken.add(row);
    return row;
  }

  give(row: number): void {
    this.#onGone(row, this.#ledger.counters(row));
    this.#taken.delete(row);
    this.#free.push(row);
  }
}
