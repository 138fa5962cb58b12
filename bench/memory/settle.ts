/** Memory that has come to rest. */
import type { Plan } from "../support/suite.ts";
import { residentBytes } from "../support/process.ts";

/** Looked at so often; at rest once it has not changed by more than a little for so many looks. */
const INTERVAL_MS = 250;
const LOOKS = 4;
const MOST_LOOKS = 20;
const LITTLE_BYTES = 64 * 1024;

/**
 * Resident bytes once they stay: the garbage collector and the allocator give back in their own time, up to 5 s. A quick
 * run looks once.
 */
export async function settledBytes({ isQuick }: Plan, pid: number): Promise<number> {
  let last = residentBytes(pid);
  for (let looks = 0, still = 0; looks < (isQuick ? 1 : MOST_LOOKS) && still < LOOKS; looks++) {
    await Bun.sleep(INTERVAL_MS);
    const now = residentBytes(pid);
    still = Math.abs(now - last) <= LITTLE_BYTES ? still + 1 : 0;
    last = now;
  }
  return last;
}
