/** Where the processor's time goes, from the samples of `perf script`. Pure. */

/** Where a sample was taken, as tables name it. */
export const PLACES = [
  "send: replies to the mail server",
  "receive",
  "wait for what is ready (epoll)",
  "another process has the core after a call",
  "other calls of the system",
  "JavaScript, compiled",
  "runtime: Bun, JavaScriptCore",
  "C library",
  "threads that help: compilers, collector",
] as const;
export type Place = (typeof PLACES)[number];

/** The names of threads that work on mail: a worker's, and the main thread's, which is the program's. */
const MAIL_THREADS = /^(?:Worker|bun)/;

const CALLS: readonly (readonly [RegExp, Place])[] = [
  [/^(?:exit_to_user_mode_loop|irqentry_exit_to_user_mode)$/, "another process has the core after a call"],
  [/^__\w+_sys_send/, "send: replies to the mail server"],
  [/^__\w+_sys_recv/, "receive"],
  [/^__\w+_sys_epoll/, "wait for what is ready (epoll)"],
];

/**
 * Counts the samples by place.
 * @param text of `perf script`: for each sample a line that begins with the thread's name, then its frames, innermost first
 */
export function countSamples(text: string): Record<Place, number> {
  const counts = Object.fromEntries(PLACES.map((place) => [place, 0])) as Record<Place, number>;
  for (const sample of text.split(/\n\s*\n/)) {
    const [head = "", ...frames] = sample.trim().split("\n");
    if (frames.length > 0) counts[placeOf(head, frames)] += 1;
  }
  return counts;
}

function placeOf(head: string, frames: readonly string[]): Place {
  if (!MAIL_THREADS.test(head)) return "threads that help: compilers, collector";
  const parsed = frames.map((frame) => /^\s*[0-9a-f]+ (\S+?)(?:\+0x[0-9a-f]+)? \((.*)\)$/.exec(frame));
  for (const [pattern, place] of CALLS) if (parsed.some((frame) => pattern.test(frame?.[1] ?? ""))) return place;
  const file = parsed[0]?.[2] ?? "";
  if (file.startsWith("[kernel")) return "other calls of the system";
  if (/\/perf-\d+\.map$|\[JIT\]|^\/\/anon|^\[unknown\]/.test(file)) return "JavaScript, compiled";
  return /\/lib(?:c|m|pthread)[.-]/.test(file) || file === "[vdso]" ? "C library" : "runtime: Bun, JavaScriptCore";
}
