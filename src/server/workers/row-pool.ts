/** The rows of the shared memory: each worker has a row, from its start until its thread has ended. */
import type { WorkerRows } from "../../shared/worker-rows.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";

export class RowPool {
  readonly #workerRows: WorkerRows;
  readonly #table: ConnectionTable;
  readonly #free: number[];
  readonly #taken = new Set<number>();
  readonly #onGone: (row: number, counters: readonly number[]) => void;

  /** @param onGone called when a row is given back, with the counters of its worker */
  constructor(
    workerRows: WorkerRows,
    table: ConnectionTable,
    onGone: (row: number, counters: readonly number[]) => void,
  ) {
    this.#workerRows = workerRows;
    this.#table = table;
    this.#free = Array.from({ length: workerRows.layout.rows }, (_, index) => workerRows.layout.rows - 1 - index);
    this.#onGone = onGone;
  }

  get free(): number {
    return this.#free.length;
  }

  /** The counters of the workers that run. */
  counters(): number[][] {
    return [...this.#taken].map((row) => this.#workerRows.counters(row));
  }

  /** @throws Error if none is left: so many threads are stuck */
  take(): number {
    const row = this.#free.pop();
    if (row === undefined) throw new Error("no row is left for another worker: too many threads are stuck");
    this.#workerRows.open(row);
    this.#table.openRow(row);
    this.#taken.add(row);
    return row;
  }

  give(row: number): void {
    this.#onGone(row, this.#workerRows.counters(row));
    this.#taken.delete(row);
    this.#free.push(row);
  }
}
