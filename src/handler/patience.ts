/**
 * The time that a phase may take once a handler is awaited, and the progress that keeps the mail server waiting
 * meanwhile. One budget serves the whole chain at a phase.
 */

/** The clock of whoever owns the conversation. */
export interface Clock {
  /** Runs `callback` after so many milliseconds; gives a function that cancels it. */
  after(ms: number, callback: () => void): () => void;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
}

/** How often progress is sent at `eom`. Sendmail waits 10 s for each reply, Postfix 300 s. */
export const PROGRESS_INTERVAL_MS = 3000;

export class Patience {
  readonly #clock: Clock;
  /** When the budget is over; 0 while nothing was awaited in this phase. */
  #deadline = 0;
  #cancelDeadline: (() => void) | null = null;
  #cancelProgress: (() => void) | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * A handler is awaited.
   * @param budgetMs what the chain may take at this phase, counted from the first time
   * @param callMs what this call may take at most, null for all that is left
   * @param onTimeout called with the milliseconds that the call had
   */
  begin(budgetMs: number, callMs: number | null, onTimeout: (ms: number) => void): void {
    const now = this.#clock.now();
    if (this.#deadline === 0) this.#deadline = now + budgetMs;
    const left = Math.max(0, this.#deadline - now);
    const ms = callMs === null ? left : Math.min(left, callMs);
    this.#cancelDeadline = this.#clock.after(ms, () => onTimeout(ms));
  }

  /** Calls `send` now and then until the phase is over. */
  keepProgress(send: () => void): void {
    if (this.#cancelProgress === null) this.#scheduleProgress(send);
  }

  /** The call has settled; the phase goes on. */
  pause(): void {
    this.#cancelDeadline?.();
    this.#cancelDeadline = null;
  }

  /** The phase is over. */
  end(): void {
    this.pause();
    this.#deadline = 0;
    this.#cancelProgress?.();
    this.#cancelProgress = null;
  }

  #scheduleProgress(send: () => void): void {
    this.#cancelProgress = this.#clock.after(PROGRESS_INTERVAL_MS, () => {
      this.#scheduleProgress(send);
      send();
    });
  }
}
