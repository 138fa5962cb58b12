/**
 * Memory that the process and the thread hold. Asking the system opens a file, which fails while no descriptor is left: then
 * the last answer is given again, since a caller should not fail for that.
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
