/** How much of a core this process has used lately, by all its threads: 1 is one core at work all the time. */
export class CpuShare {
  #used = process.cpuUsage();
  #lookedAt = performance.now();
  #share = 0;

  /** A moving average over about a second. */
  get share(): number {
    return this.#share;
  }

  /** To be called several times a second. */
  look(): void {
    const now = performance.now();
    const elapsedMs = now - this.#lookedAt;
    if (elapsedMs <= 0) return;
    const { system, user } = process.cpuUsage(this.#used);
    const recent = (system + user) / 1000 / elapsedMs;
    this.#share += (recent - this.#share) * Math.min(1, elapsedMs / AVERAGE_MS);
    this.#used = process.cpuUsage();
    this.#lookedAt = now;
  }
}

const AVERAGE_MS = 500;
