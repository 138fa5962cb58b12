/** The counters of a running server: their names in `pmilter status`, and their order in shared memory. */

/** Counted by the workers, each in its own row of `WorkerRows`. The order is that of the row. */
export const WORKER_COUNTERS = [
  /** Connections since the start. A worker counts those that it accepted and kept, the main thread all others. */
  "connections",
  /** Messages that got their verdict: the sum of the five that follow. */
  "messages",
  "accepted",
  "rejected",
  "tempfailed",
  "discarded",
  /** Accepted and held by the mail server. */
  "quarantined",
  "recipientsRefused",
  "connectionsRefused",
  /** Verdicts on a message, a recipient or a connection that a fallback gave. */
  "fallbacks",
  /** Messages, and connections before a message, in which a handler failed and a fallback took its place: each counts once. */
  "messagesWithFallback",
  /** Handlers that threw or rejected. */
  "errors",
  /** Handlers that were too slow. */
  "timeouts",
  /** Failures after the verdict, or outside of any call. */
  "late",
  /** Messages over a limit of the configuration. */
  "limits",
  /** Bodies that a filter could not have, since the spool could not be written or read. */
  "spoolFailures",
  /** Verdicts that a handler made and did not return. */
  "unreturned",
  /** Connections closed because the mail server broke the protocol. */
  "protocolErrors",
  /** Connections closed because of a mistake of ours. */
  "internalErrors",
  /** Lines of the log or of handlers that could not be written in time. */
  "linesDropped",
  /** Calls of DNS and store that were refused: too many waited, or the services thread gave no sign of life. */
  "servicesRefused",
] as const;
export type WorkerCounter = (typeof WORKER_COUNTERS)[number];

/** Counted by the main thread alone. */
export const SERVER_COUNTERS = [
  /** Workers lost to a handler that did not return. */
  "blocked",
  "workersDied",
  /** Workers replaced because they held too much memory. */
  "workersRecycled",
  /** Sessions that were resumed in another worker. */
  "sessionsMoved",
  /** Sessions closed by us because of a failure. */
  "sessionsLost",
  /** Values that were dropped from a store that is full. */
  "valuesDropped",
] as const;
export type ServerCounter = (typeof SERVER_COUNTERS)[number];

export type Counts = Readonly<Record<WorkerCounter | ServerCounter, number>>;

/** The index of each worker counter in its row. */
export const COUNTER_INDEX = Object.fromEntries(WORKER_COUNTERS.map((name, index) => [name, index])) as Readonly<
  Record<WorkerCounter, number>
>;

/** The main thread's own counts, and the counts of workers that have ended. */
export class Counters {
  readonly #counts = Object.fromEntries([...WORKER_COUNTERS, ...SERVER_COUNTERS].map((name) => [name, 0])) as Record<
    WorkerCounter | ServerCounter,
    number
  >;

  count(name: WorkerCounter | ServerCounter, by = 1): void {
    this.#counts[name] += by;
  }

  /** Adds the row of a worker that has ended. */
  add(row: readonly number[]): void {
    WORKER_COUNTERS.forEach((name, index) => this.count(name, row[index]));
  }

  /** Together with the rows of workers that run. */
  totals(rows: readonly (readonly number[])[]): Counts {
    const totals = { ...this.#counts };
    for (const row of rows) WORKER_COUNTERS.forEach((name, index) => (totals[name] += row[index]!));
    return totals;
  }
}
