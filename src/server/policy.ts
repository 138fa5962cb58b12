/** How patient the server is: the waits and bounds that no configuration names. Pure. */

/** Milliseconds before a worker that died is replaced: doubled each time, from the least to the most, until one loads. */
export const RESPAWN_MS = { least: 100, most: 30_000 } as const;

/** Milliseconds without a change of any source before a reload: an editor writes in several steps. */
export const QUIET_MS = 150;

/** How many generations may be alive at a time; with that many still ending, a reload fails. */
export const MAX_GENERATIONS = 32;
/** How many old ones may wait for their sessions to end until `drain_timeout`; older ones have them moved at once. */
export const MAX_WAITING_GENERATIONS = 4;
