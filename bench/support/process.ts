/** What the kernel knows of a process: processor time and memory, from /proc. Linux only. */
import { readFileSync } from "node:fs";

/** Ticks of utime and stime; 100 a second in every /proc, whatever the kernel's own clock (`USER_HZ`). */
const TICKS_PER_SECOND = 100;

/** User and system time of all threads since the process began, in microseconds, in steps of 10 ms. */
export function cpuMicros(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // "PID (NAME) STATE …", where the name may hold anything; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND) * 1e6;
}

/** Memory of the process that is in RAM, shared memory included, in bytes. */
export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) * 1024;
}

/** The soft limit of open files. */
export function openFilesLimit(): number {
  return Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 1024);
}
