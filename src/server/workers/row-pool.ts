/** The rows of `WorkerRows` and of the connection table: each worker has one, from its start until its thread is gone. */
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { WorkerRows } from "../../shared/worker-rows.ts";

export class RowPool {
  readonly #workerRows: WorkerRows;
  readonly #table: ConnectionTable;
  readonly #free: number[];
  readonly #taken = new Set<number>();
  readonly #onGone: (row: number, counters: readonly number[]) => void;

  /** @param onGone told what a worker had counted when its row is given back */
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

  /** What the workers that run have counted. */
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
