/**
 * A private folder, free ports, and waiting for outside processes. Not for waiting on our own code: that has promises
 * and events, and a test which polls it hides a missing one.
 */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/**
 * Below it all temporary folders lie: the system's own, unless `TMPDIR` names one where tests cannot have sockets. A socket's
 * path has room for 107 bytes, and the users of mail servers must get there.
 */
export const TEMP = tmpdir().length <= 40 && isOpen(tmpdir()) ? tmpdir() : "/tmp";

/** Whether everybody may pass through the folder and those above it. */
function isOpen(folder: string): boolean {
  const above = dirname(folder);
  return (statSync(folder).mode & 1) === 1 && (above === folder || isOpen(above));
}

export interface TempDir extends AsyncDisposable {
  readonly path: string;
}

/**
 * Makes `pmilter-NAME-XXXXXX` below a folder, by default {@link TEMP}, mode 755: other users (Postfix's)
 * must reach the sockets in it, and mkdtemp's own 700 would keep them out. Removed with all it holds on dispose.
 */
export async function tempDir(name: string, below: string = TEMP): Promise<TempDir> {
  const path = await mkdtemp(join(below, `pmilter-${name}-`));
  await chmod(path, 0o755);
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}

/**
 * A TCP port of 127.0.0.1 that nobody listened on a moment ago, for outside programs that cannot bind port 0 and tell
 * which they got. Another process can take it in between. That is acceptable in a test: Linux hands out ephemeral ports
 * spread at random and the time is milliseconds. Most programs then fail loudly at their bind (two Postfixes would
 * share the port, as they set SO_REUSEPORT). Our own servers bind port 0 themselves.
 */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port!;
}

/** Several ports at once: all are held until the last is known, so they differ. See {@link freePort}. */
export async function freePorts(count: number): Promise<number[]> {
  const listeners = Array.from({ length: count }, () =>
    Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } }),
  );
  const ports = listeners.map((listener) => listener.port);
  for (const listener of listeners) listener.stop(true);
  return ports;
}

/**
 * How long a test waits for something that is to come, in milliseconds: longer than it takes on a machine with much else to
 * do, and shorter than a test may take, so that a failure says what was waited for.
 */
export const PATIENCE_MS = 80_000;

export interface WaitOptions {
  /** Completes "timed out waiting for …". */
  readonly what: string;
  /** Default: {@link PATIENCE_MS}. */
  readonly timeoutMs?: number;
  /** Default 20. */
  readonly intervalMs?: number;
}

type Falsy = false | 0 | "" | null | undefined;

/**
 * Asks `probe` until its answer is truthy and returns that answer; throws at the timeout. ONLY for the state of outside
 * processes (their files, their end) where no event exists.
 */
export async function waitFor<T>(
  probe: () => T | Promise<T>,
  { what, timeoutMs = PATIENCE_MS, intervalMs = 20 }: WaitOptions,
): Promise<Exclude<T, Falsy>> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await probe();
    if (answer) return answer as Exclude<T, Falsy>;
    if (performance.now() >= deadline) throw new Error(`timed out after ${timeoutMs} ms waiting for ${what}`);
    await Bun.sleep(intervalMs);
  }
}
