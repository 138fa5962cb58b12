/**
 * Which lists answer. A list that fails slowly several times in a row is not waited for any more: it counts as failed at
 * once, and is asked now and then by nobody who waits, until it answers.
 */
import type { Outcome } from "./sources.ts";

/** Slow failures in a row, after which a list is not waited for. */
const MAX_FAILURES = 5;
/** Failures that take longer are slow, milliseconds. */
const SLOW_MS = 500;
/** How often a list that does not answer is tried, and how often that is said. */
const TRY_MS = 5000;
const TELL_MS = 60_000;

class Health {
  failures = 0;
  triedAt = 0;
  toldAt = -Infinity;
  reason = "";
}

export class ListHealth {
  readonly #zones = new Map<string, Health>();
  readonly #now: () => number;

  /** @param now milliseconds on a clock that never goes back */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  #of(zone: string): Health {
    let health = this.#zones.get(zone);
    if (health === undefined) this.#zones.set(zone, (health = new Health()));
    return health;
  }

  /** What a list says, as `look` asks it; rejects as `look` does. */
  async ask(zone: string, timeoutMs: number, look: () => Promise<Outcome>): Promise<Outcome> {
    const health = this.#of(zone);
    if (health.failures < MAX_FAILURES) return this.#watch(health, timeoutMs, look);
    if (this.#now() - health.triedAt >= TRY_MS) {
      health.triedAt = this.#now();
      // It rejects if the session ends meanwhile: the next one tries again.
      void this.#watch(health, timeoutMs, look).catch(() => void (health.triedAt = -Infinity));
    }
    return { status: "failed", reason: health.reason };
  }

  async #watch(health: Health, timeoutMs: number, look: () => Promise<Outcome>): Promise<Outcome> {
    const since = this.#now();
    const outcome = await look();
    if (outcome.status !== "failed") health.failures = 0;
    else {
      health.reason = outcome.reason;
      if (this.#now() - since >= Math.min(SLOW_MS, timeoutMs / 2)) health.failures += 1;
      if (health.failures === MAX_FAILURES) health.triedAt = this.#now();
    }
    return outcome;
  }

  /** Whether a failure of this list is to be told: once in a minute. */
  isNews(zone: string): boolean {
    const health = this.#of(zone);
    if (this.#now() - health.toldAt < TELL_MS) return false;
    health.toldAt = this.#now();
    return true;
  }
}
