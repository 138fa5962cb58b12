/** How patient the server is: the waits and bounds that no configuration names. Pure. */

/**
 * Milliseconds before a worker that died is replaced: the first time at once, since its sessions' mail servers come
 * again; then with patience, and with much more for one that does not even load.
 *
 * @param deaths how many workers in this place died in a row, each within {@link STABLE_MS}; 1 for the first
 */
export function respawnDelay(deaths: number, hasLoaded: boolean): number {
  if (deaths <= 1) return 0;
  return hasLoaded ? Math.min(1000, 100 * (deaths - 1)) : Math.min(30_000, 100 * 2 ** (deaths - 1));
}
/** A worker that has lived so long, in milliseconds, starts well. */
export const STABLE_MS = 10_000;

/**
 * Milliseconds between two looks at the sources. A change is taken up when the next look finds nothing new: an editor
 * writes in several steps.
 */
export const WATCH_MS = 200;
/** Files that are looked at in a second, at most: with more than a fifth of it to watch, looks become rarer. */
export const WATCHED_A_SECOND = 5000;

/** How long after its thread has ended by itself files are watched again, in milliseconds: descriptors may have been used up. */
export const WATCH_AGAIN_MS = 5000;

/** How many generations may be alive at a time; with that many still ending, a reload fails. */
export const MAX_GENERATIONS = 32;
/** Rows for workers at the least, so that a reload may raise `server.workers`: 256 bytes each in `WorkerRows`. */
export const MIN_ROWS = 4096;
/** How many old ones may wait for their sessions to end until `drain_timeout`; older ones have them moved at once. */
export const MAX_WAITING_GENERATIONS = 4;

/** How many workers accept connections for themselves: each connection wakes all of them. They pass on what is not their share. */
export const MAX_LISTENING = 4;

/** How long a start waits until its workers accept connections, in milliseconds: meanwhile they wait in the queue of the socket. */
export const LISTENING_MS = 1000;

/** How long after the last write what was saved is in force, at the most, in milliseconds: a promise. */
export const SAVED_MS = 1000;
/** What of that remains for loading and taking over: the last look noticed nothing new, the one before it the write. */
export const LOADED_MS = SAVED_MS - 2 * WATCH_MS - 150;

/** A server is busy that uses so much of a core, for so many connections at a time: a generation takes over slowly then. */
export const BUSY_SHARE = 0.25;
export const BUSY_CONNECTIONS = 10;
/** How long that takes, in milliseconds; less after a save. */
export const SLOW_START_MS = 2000;
/** Its shares of the connections that begin meanwhile, in sixteenths, each for the same time. */
export const SLOW_START_SHARES = [1, 2, 3, 4, 6, 8, 10, 13];
/** Who reloads again within so many milliseconds is waiting for it: the generation takes over at once. */
export const RELOAD_AGAIN_MS = 5000;

/** How long until it is tried again to make the control socket where commands look for it, in milliseconds. */
export const CONTROL_RETRY_MS = 1000;

/** Milliseconds between two looks at the workers. */
export const WATCHDOG_MS = 100;
/**
 * How long the end of a worker is waited for, in milliseconds, before its connections go on elsewhere: JavaScript ends
 * within a few, a blocking native call whenever it returns.
 */
export const NATIVE_MS = 300;
/**
 * A worker over `limits.worker_memory`, or over twice as much, has to say so for so many milliseconds before anything is done
 * about it. What a handler needs for one message is gone again by then, on a slow machine too.
 */
export const MEMORY_MS = 2000;
/** Over this many times `limits.worker_memory` a worker is ended as soon as a second look finds the same. */
export const MEMORY_AT_MOST = 4;
/** How long a worker that holds too much memory may finish its sessions, before they are taken from it. */
export const LEAVING_MS = 30_000;
/** Maximum number of further workers of a generation, beside those of `server.workers`. */
export const MAX_EXTRA = 8;
/** How many of them may be loading at a time: they share the processors with the handlers that do not return. */
export const MAX_LOADING = 2;
/** While losses are expected, this many further workers are kept beyond one for each silent one: a loss then costs fewer sessions. */
export const RESERVE = 3;
/** While losses are expected, a worker that is silent for so long, in milliseconds, counts as blocked. */
export const EARLY_MS = 250;
/** How long after the last loss of a worker to a handler further losses are expected, in milliseconds. */
export const CALM_MS = 20_000;
/** How long a connection may wait for a worker before it gets the fallback: Sendmail waits 10 s for each reply. */
export const UNPLACED_MS = 4000;
/** How long until the stand-in that gives it is started: on a busy machine a thread may take its time to start. */
export const PREPARE_MS = UNPLACED_MS / 2;

/**
 * No reply is later than this, in milliseconds, whatever workers are lost while it is waited for: Sendmail gives up after 10 s.
 * A session that might be later if it lost another worker gets the fallback from the stand-in.
 */
export const LATEST_MS = 9000;
/** Milliseconds from the end of `block_timeout` until a session is answered and placed with another worker, at the most. */
export const ANSWERED_MS = 2500;
/** How many workers the handlers of one session may cost. After one more the rest of the session gets the fallback. */
export const MAX_COST = 20;

/** After so long without a worker that takes sessions, in milliseconds, the process ends. */
export const NO_WORKER_MS = 30_000;
/** How long a worker may take to cut its sessions and stop its filters, in milliseconds, before it is ended. */
export const CUT_MS = 2000;
/** How long `master_exit_handler` may keep the process from ending, in milliseconds; and once a second signal has come. */
export const EXIT_HANDLER_MS = 5000;
export const HURRIED_EXIT_HANDLER_MS = 1000;

/** Threads that may be stuck in native calls at a time: with so many, workers wait for one to return before they are replaced. */
export const MAX_STUCK = 32;
/** How long until it is looked again, in milliseconds. */
export const STUCK_RETRY_MS = 1000;
/** How long until the stand-in for it is tried again, if it could not be started. */
export const STAND_IN_RETRY_MS = 2000;
