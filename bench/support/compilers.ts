/** Waits until a server's code is compiled, as that of a server that runs for days is. Linux only. */
import { threadsOf } from "./threads.ts";

/** The names that Bun gives to threads that compile. */
const COMPILER = "JITWorker";
const LOOK_MS = 250;
/** They rest when they have used less than this share of a core in so many looks in a row. */
const RESTING_SHARE = 0.05;
const RESTING_LOOKS = 4;

/**
 * Settles when the compilers of a server under load have come to rest, or after `timeoutMs`: some go on for long with the
 * little that is left.
 */
export async function compilersRest(pid: number, timeoutMs: number, signal: AbortSignal): Promise<void> {
  let before = compilerMicros(pid);
  let resting = 0;
  for (let ms = 0; ms < timeoutMs && resting < RESTING_LOOKS; ms += LOOK_MS) {
    await Bun.sleep(LOOK_MS);
    signal.throwIfAborted();
    const now = compilerMicros(pid);
    resting = now - before < RESTING_SHARE * LOOK_MS * 1000 ? resting + 1 : 0;
    before = now;
  }
}

/** Processor time of the compiler threads that run: a thread that has rested for long ends. */
function compilerMicros(pid: number): number {
  return threadsOf(pid)
    .filter(({ name }) => name === COMPILER)
    .reduce((sum, { cpuMicros }) => sum + cpuMicros, 0);
}
