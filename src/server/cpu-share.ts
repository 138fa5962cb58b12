/** The share of a core that this process has used lately, with all its threads: 1 is a core at work all the time. */
export class CpuShare {
  #usedMs = usedMs();
  #lookedAt = performance.now();
  #share = 0;

  /** A moving average over about a second. */
  get share(): number {
    return this.#share;
  }

  /** To be called several times a second. */
  look(): void {
    const used = usedMs();
    const now = performance.now();
    const elapsedMs = now - this.#lookedAt;
    if (elapsedMs <= 0) return;
    const recent = (used - this.#usedMs) / elapsedMs;
    this.#share += (recent - this.#share) * Math.min(1, elapsedMs / AVERAGE_MS);
    this.#usedMs = used;
    this.#lookedAt = now;
  }
}

const AVERAGE_MS = 500;

function usedMs(): number {
  const { system, user } = process.cpuUsage();
  return (system + user) / 1000;
}
