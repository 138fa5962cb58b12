/** The threads of a process, from /proc, and where they may run. Linux only. */
import { readdirSync, readFileSync } from "node:fs";

export interface Thread {
  readonly id: number;
  /** As the kernel has it: "Worker" for each of Bun's workers; of the main thread the program's. */
  readonly name: string;
  readonly isMain: boolean;
  /**
   * Processor time since it began, or since a look before, in microseconds; to the nanosecond, unlike that of
   * /proc/PID/stat.
   */
  readonly cpuMicros: number;
}

/** The name that Bun gives to the threads of its workers. */
export const WORKER = "Worker";

/**
 * In the order in which they were started.
 * @param since an earlier look: the processor time counts from there
 */
export function threadsOf(pid: number, since: readonly Thread[] = []): readonly Thread[] {
  const before = new Map(since.map((thread) => [thread.id, thread.cpuMicros]));
  return readdirSync(`/proc/${pid}/task`)
    .map(Number)
    .toSorted((a, b) => a - b)
    .flatMap((id) => {
      try {
        const name = readFileSync(`/proc/${pid}/task/${id}/comm`, "utf8").trim();
        const [nanoseconds] = readFileSync(`/proc/${pid}/task/${id}/schedstat`, "utf8").split(" ");
        return [{ id, name, isMain: id === pid, cpuMicros: Number(nanoseconds) / 1000 - (before.get(id) ?? 0) }];
      } catch {
        // It has ended meanwhile.
        return [];
      }
    });
}

/** Why {@link pin} cannot be used, null if it can. */
export function whyNotPinned(): string | null {
  return Bun.which("taskset") === null ? "taskset is not installed (Debian: util-linux)" : null;
}

/**
 * From now on a thread runs on this core only.
 * @param id of the thread, or of a process with `isWhole`: all its threads, and those that they start
 * @throws Error if the kernel does not allow it
 */
export function pin(id: number, core: number, isWhole = false): void {
  const { exitCode, stderr } = Bun.spawnSync(["taskset", isWhole ? "-acp" : "-cp", String(core), String(id)]);
  if (exitCode !== 0) throw new Error(`taskset: ${stderr.toString().trim()}`);
}
