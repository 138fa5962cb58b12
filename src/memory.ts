/**
 * How much memory is held. Bun 1.4.5 opens a file to find out, so a process without a descriptor left gets an exception
 * (docs/bun.md, "Threads"). Then the last figure stands: no caller should fail for that.
 */

let lastResident = 0;
let lastHeap = 0;

/** Resident bytes of the process. */
export function residentBytes(): number {
  try {
    lastResident = process.memoryUsage.rss();
  } catch {
    // No descriptor is left.
  }
  return lastResident;
}

/** Bytes of this thread's heap, with the buffers that it holds. */
export function heapBytes(): number {
  try {
    lastHeap = process.memoryUsage().heapUsed;
  } catch {
    // No descriptor is left.
  }
  return lastHeap;
}
