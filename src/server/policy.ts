/** Times and limits of the server that no configuration key sets. Names give the unit: `_MS` is milliseconds. Pure. */

/**
 * Milliseconds before a worker that died is replaced. The first time it is at once: mail servers may be waiting for replies
 * of its sessions. Then the delay grows, and grows faster if the replacement does not load.
 *
 * @param deaths number of workers that died in this place in a row, each within {@link STABLE_MS}; 1 for the first
 */
export function respawnDelay(deaths: number, hasLoaded: boolean): number {
  if (deaths <= 1) return 0;
  return hasLoaded ? Math.min(1000, 100 * (deaths - 1)) : Math.min(30_000, 100 * 2 ** (deaths - 1));
}
/** A worker that dies later than this after its start does not count as dying in a row. */
export const STABLE_MS = 10_000;

/**
 * Time between two looks at the sources. A change is loaded when the next look finds no further change: an editor writes in
 * several steps.
 */
export const WATCH_MS = 200;
/** Maximum number of files that are looked at in a second: with more than a fifth of it to watch, looks become rarer. */
export const WATCHED_A_SECOND = 5000;
/** Time after which files are watched again, if the thread that does it has ended: perhaps for lack of descriptors. */
export const WATCH_AGAIN_MS = 5000;

/** Maximum number of generations that run; with so many still ending, a reload fails. */
export const MAX_GENERATIONS = 32;
/** Minimum number of rows for workers, so that a reload may raise `server.workers`. A row has 256 bytes. */
export const MIN_ROWS = 4096;
/** Maximum number of old generations that wait for their sessions until `drain_timeout`; older ones have them moved at once. */
export const MAX_WAITING_GENERATIONS = 4;

/** Maximum number of workers that accept connections: each connection wakes all of them. They pass on connections beyond their share. */
export const MAX_LISTENING = 4;
/** Maximum time that a start waits until its workers accept connections: meanwhile connections wait in the socket's queue. */
export const LISTENING_MS = 1000;

/** Maximum time from the last write of a file until the saved version serves: a promise to users. */
export const SAVED_MS = 1000;
/** Part of {@link SAVED_MS} that is left for loading and taking over, after two looks: the first notices the write, the second no further write. */
export const LOADED_MS = SAVED_MS - 2 * WATCH_MS - 150;

/** A server is busy, and a new generation takes over slowly, if it uses this share of a core and has so many connections. */
export const BUSY_SHARE = 0.25;
export const BUSY_CONNECTIONS = 10;
/** Time for a slow start; shorter after a save, see {@link LOADED_MS}. */
export const SLOW_START_MS = 2000;
/** Shares of new connections, in sixteenths, that a generation gets during a slow start: one after the other, each for the same time. */
export const SLOW_START_SHARES = [1, 2, 3, 4, 6, 8, 10, 13];
/** After a second reload within this time the generation takes over at once: an administrator waits for it. */
export const RELOAD_AGAIN_MS = 5000;

/** Time between two attempts to make the control socket again in its place. */
export const CONTROL_RETRY_MS = 1000;

/** Time between two looks at the workers. */
export const WATCHDOG_MS = 100;
/**
 * Maximum wait for the end of a thread before its connections are given to other workers: JavaScript ends within a few
 * milliseconds, a blocking native call when it returns.
 */
export const NATIVE_MS = 300;
/**
 * Time for which a worker has to report that it is over `limits.worker_memory`, or over twice that, before it is replaced or
 * ended. The memory that a handler needs for a single message is free again by then, on a slow machine too.
 */
export const MEMORY_MS = 2000;
/** Over this multiple of `limits.worker_memory` a worker is ended as soon as a second look finds the same. */
export const MEMORY_AT_MOST = 4;
/** Maximum time that a worker with too much memory has to finish its sessions, before they are taken from it. */
export const LEAVING_MS = 30_000;

/** Maximum number of further workers of a generation, beside those of `server.workers`. */
export const MAX_EXTRA = 8;
/** With so many workers loading, no further worker is started: they share the processors with handlers that do not return. */
export const MAX_LOADING = 2;
/** Number of further workers while losses are expected, beyond the number of silent workers: a loss then costs fewer sessions. */
export const RESERVE = 3;
/** While losses are expected, a worker counts as silent after this time. */
export const EARLY_MS = 250;
/** After the loss of a worker to a handler, further losses are expected for this time. */
export const CALM_MS = 20_000;

/** Maximum wait of a connection for a worker, before it gets the fallback from the stand-in: Sendmail waits 10 s for each reply. */
export const UNPLACED_MS = 4000;
/** Wait of a connection after which the stand-in is started: on a busy machine a thread may take long to start. */
export const PREPARE_MS = UNPLACED_MS / 2;
/** Time between two attempts to start the stand-in. */
export const STAND_IN_RETRY_MS = 2000;

/**
 * Maximum time for a reply, however many workers are lost meanwhile: Sendmail gives up after 10 s. A session that might
 * exceed it if it lost another worker gets the fallback from the stand-in.
 */
export const LATEST_MS = 9000;
/** Maximum time from the end of `block_timeout` until a session is answered and placed with another worker. */
export const ANSWERED_MS = 2500;
/** Maximum number of workers that may be lost to the handlers of a session. After another loss the rest of the session gets the fallback. */
export const MAX_COST = 20;

/** The process ends after this time without a worker that takes sessions. */
export const NO_WORKER_MS = 30_000;
/** Maximum time for a worker to cut its sessions and stop its filters, before it is ended. */
export const CUT_MS = 2000;
/** Maximum time for `master_exit_handler`, before and after a second signal. */
export const EXIT_HANDLER_MS = 5000;
export const HURRIED_EXIT_HANDLER_MS = 1000;

/** Maximum number of threads that are ending, such as threads in native calls: with so many, no worker is started until one has ended. */
export const MAX_STUCK = 32;
/** Time until the next attempt to start a worker. */
export const STUCK_RETRY_MS = 1000;
