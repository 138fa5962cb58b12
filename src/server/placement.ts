/** Where a connection goes: to the worker that has the fewest. Pure. */

/** The place of the least load, the first of several; -1 if there is none that may take more. */
export function leastLoaded(loads: readonly (number | null)[]): number {
  let best = -1;
  let least = Number.POSITIVE_INFINITY;
  loads.forEach((load, index) => {
    if (load !== null && load < least) {
      least = load;
      best = index;
    }
  });
  return best;
}
