/**
 * How much memory is held. The system is asked by opening a file, so a process without a descriptor left gets no answer:
 * then the last one stands, since nobody should fail for that.
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
