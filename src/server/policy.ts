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

/** Milliseconds without a change of any source before a reload: an editor writes in several steps. */
export const QUIET_MS = 150;

/** How many generations may be alive at a time; with that many still ending, a reload fails. */
export const MAX_GENERATIONS = 32;
/** How many old ones may wait for their sessions to end until `drain_timeout`; older ones have them moved at once. */
export const MAX_WAITING_GENERATIONS = 4;
