/** Memory and descriptors of the server process, second by second, from /proc; and whether they are flat. */
import { readdirSync, readFileSync } from "node:fs";

export interface Sample {
  /** Milliseconds since the start of the run. */
  readonly at: number;
  readonly residentBytes: number;
  readonly descriptors: number;
  readonly threads: number;
  /** A handler was eating memory, or just had: no sample of the server's own needs. */
  readonly isEating: boolean;
}

/** @throws Error once the process is gone */
export function sampleOf(pid: number, at: number, isEating: boolean): Sample {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1]);
  return {
    at,
    residentBytes: field("VmRSS") * 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: field("Threads"),
    isEating,
  };
}

/** Processor time of a process so far, user and system, in seconds. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const MIB = 2 ** 20;
/**
 * Memory is flat if the line through the samples of the second half of a run rises over that half by no more than this, plus
 * {@link CHANCE} standard errors of that rise for chance. In a run of half an hour this is about 200 bytes for each message
 * at 200 a second; a run of a minute only finds gross growth.
 */
export const FLAT_BYTES = 32 * MIB;
/** More than for independent samples: one second's memory resembles that of the second before. */
const CHANCE = 4;

export interface Memory {
  /** At the end of the warm-up, a quarter of the run, and at the end of it; the median of some samples. */
  readonly warmBytes: number;
  readonly endBytes: number;
  readonly peakBytes: number;
  /** Of the line through the samples of the second half. */
  readonly bytesPerMinute: number;
  /** The rise of that line over the second half. */
  readonly riseBytes: number;
  /** The rise that is allowed. */
  readonly allowedBytes: number;
  readonly isFlat: boolean;
}

/** Samples that the values at the warm-up's end and at the end are taken from. */
const NEIGHBOURS = 5;

/** @param samples in order, not empty */
export function memoryOf(samples: readonly Sample[]): Memory {
  const calm = samples.filter(({ isEating }) => !isEating);
  const used = calm.length >= 4 ? calm : samples;
  const from = samples[0]!.at;
  const to = samples.at(-1)!.at;
  const warm = used.filter(({ at }) => at >= from + (to - from) / 4);
  const half = used.filter(({ at }) => at >= from + (to - from) / 2);
  const { error, slope } = lineThrough(half.map(({ at, residentBytes }) => [at, residentBytes]));
  const riseBytes = slope * ((to - from) / 2);
  const allowedBytes = FLAT_BYTES + CHANCE * error * ((to - from) / 2);
  return {
    warmBytes: medianOf(warm.slice(0, NEIGHBOURS).map(({ residentBytes }) => residentBytes)),
    endBytes: medianOf(used.slice(-NEIGHBOURS).map(({ residentBytes }) => residentBytes)),
    peakBytes: Math.max(...samples.map(({ residentBytes }) => residentBytes)),
    bytesPerMinute: slope * 60_000,
    riseBytes,
    allowedBytes,
    isFlat: riseBytes <= allowedBytes,
  };
}

/** The slope of the line with the least squares, and its standard error; 0 for fewer than three points. */
export function lineThrough(points: readonly (readonly [x: number, y: number])[]): { slope: number; error: number } {
  const count = points.length;
  if (count < 3) return { slope: 0, error: 0 };
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / count;
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / count;
  let across = 0;
  let along = 0;
  for (const [x, y] of points) {
    across += (x - meanX) * (y - meanY);
    along += (x - meanX) ** 2;
  }
  if (along === 0) return { slope: 0, error: 0 };
  const slope = across / along;
  const left = points.reduce((sum, [x, y]) => sum + (y - meanY - slope * (x - meanX)) ** 2, 0);
  return { slope, error: Math.sqrt(left / (count - 2) / along) };
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}
