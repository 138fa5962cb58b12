/** Processor time and memory of a process and its children, from /proc. Linux only. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

/** Ticks of utime and stime; 100 a second in every /proc, whatever the kernel's own clock (`USER_HZ`). */
const TICKS_PER_SECOND = 100;

/**
 * User and system time of all threads of the process and of all it started, those that have ended included, since they
 * began: in microseconds. It is exact for running threads, in steps of 10 ms for ended processes.
 */
export function cpuMicros(pid: number): number {
  let micros = 0;
  for (const member of familyOf(pid)) {
    // utime, stime, cutime and cstime are fields 14 to 17; the latter two are of children that have been waited for.
    const [user = 0, system = 0, ...children] = (statOf(member)?.slice(11, 15) ?? []).map(Number);
    const [childUser = 0, childSystem = 0] = children;
    // Two hundred processes that each run for less than a step would cost nothing.
    micros += Math.max(ticksToMicros(user + system), threadMicros(member)) + ticksToMicros(childUser + childSystem);
  }
  return micros;
}

function ticksToMicros(ticks: number): number {
  return (ticks / TICKS_PER_SECOND) * 1e6;
}

/** Of the threads that the process has now, from the scheduler's own account; 0 where the kernel keeps none. */
function threadMicros(pid: number): number {
  let nanoseconds = 0;
  for (const thread of threadsOf(pid)) {
    nanoseconds += Number(readOf(pid, `task/${thread}/schedstat`)?.split(" ", 1)[0] ?? 0);
  }
  return nanoseconds / 1000;
}

function threadsOf(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** The most memory that the process and those it started, and that still run, have had in RAM, each for itself. */
export function peakBytes(pid: number): number {
  let bytes = 0;
  for (const member of familyOf(pid)) {
    // A process that has ended and was not waited for has no memory any more.
    bytes += peakOf(member);
  }
  return bytes;
}

function peakOf(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readOf(pid, "status") ?? "")?.[1] ?? 0) * 1024;
}

/** The peak of a process is begun anew. */
export function startPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

/** By how much the process alone has been over `before` bytes, at the most, since its peak was begun. */
export function growthBytes(pid: number, before: number): number {
  return peakOf(pid) - before;
}

/** Memory of the process that is in RAM, shared memory included, in bytes. */
export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) * 1024;
}

/** The process with all its descendants. */
function familyOf(pid: number): readonly number[] {
  const childrenOf = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const parent = Number(statOf(Number(name))?.[1]);
    const children = childrenOf.get(parent);
    if (children === undefined) childrenOf.set(parent, [Number(name)]);
    else children.push(Number(name));
  }
  const family = [pid];
  // It grows while it is walked.
  for (const member of family) family.push(...(childrenOf.get(member) ?? []));
  return family;
}

/** The fields of /proc/PID/stat from the third on: "PID (NAME) STATE PARENT …", where the name may hold anything. */
function statOf(pid: number): readonly string[] | null {
  const stat = readOf(pid, "stat");
  return stat === null ? null : stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/** Null if the process has ended meanwhile. */
function readOf(pid: number, file: string): string | null {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return null;
  }
}

/** The soft limit of open files. */
export function openFilesLimit(): number {
  return Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 1024);
}

/** Raises it for this process and those it starts, as far as the machine lets it: Bun has gone up to the hard limit. */
export function raiseOpenFilesLimit(wanted: number): void {
  const prlimit = Bun.which("prlimit");
  if (prlimit === null || openFilesLimit() >= wanted) return;
  const limit = `--nofile=${wanted}:${wanted}`;
  Bun.spawnSync([prlimit, "--pid", String(process.pid), limit], { stdio: ["ignore", "ignore", "ignore"] });
}
