/**
 * The time that a phase may take once a handler is awaited, and the progress that keeps the mail server waiting
 * meanwhile. The budget is that of the whole chain at a phase.
 */

/** The clock of a conversation's owner. */
export interface Clock {
  /** Runs `callback` after so many milliseconds; gives a function that cancels it. */
  after(ms: number, callback: () => void): () => void;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
}

/** How often progress is sent once the end of the message has come. Sendmail waits 10 s for each reply, Postfix 300 s. */
export const PROGRESS_INTERVAL_MS = 3000;

export class PhaseDeadline {
  readonly #clock: Clock;
  /** When the budget is over; 0 while nothing was awaited in this phase. */
  #deadline = 0;
  /** When the message has to be decided, once its end was read behind a content handler. */
  #messageDeadline = Number.POSITIVE_INFINITY;
  /** When all that is queued has to be worked on, while reading is paused. */
  #backlogDeadline = Number.POSITIVE_INFINITY;
  /** The call that is awaited. */
  #call: { readonly since: number; readonly ms: number | null; readonly onTimeout: (ms: number) => void } | null = null;
  #cancelDeadline: (() => void) | null = null;
  #cancelProgress: (() => void) | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Nothing was awaited in this phase yet. */
  get isFresh(): boolean {
    return this.#deadline === 0;
  }

  /**
   * A handler is awaited.
   * @param budgetMs milliseconds that the chain may take at this phase, from the first call
   * @param callMs milliseconds that this call may take at most, null for all the chain has left
   * @param onTimeout called with the milliseconds that the call had
   */
  begin(budgetMs: number, callMs: number | null, onTimeout: (ms: number) => void): void {
    const now = this.#clock.now();
    if (this.#deadline === 0) this.#deadline = now + budgetMs;
    this.#call = { since: now, ms: callMs, onTimeout };
    this.#arm(now);
  }

  /**
   * The end of the message was read while content handlers are still to run: they and those of `eom` have so much in all.
   * @returns false if that was known
   */
  endRead(budgetMs: number): boolean {
    if (this.#messageDeadline !== Number.POSITIVE_INFINITY) return false;
    this.#messageDeadline = this.#clock.now() + budgetMs;
    this.#rearm();
    return true;
  }

  /** Reading is paused: the queued packets together have so many milliseconds. Null: reading goes on. */
  backlog(budgetMs: number | null): void {
    const isKnown = this.#backlogDeadline !== Number.POSITIVE_INFINITY;
    if (isKnown === (budgetMs !== null)) return;
    this.#backlogDeadline = budgetMs === null ? Number.POSITIVE_INFINITY : this.#clock.now() + budgetMs;
    this.#rearm();
  }

  /** Calls `send` now and then, until {@link endMessage}. */
  keepProgress(send: () => void): void {
    if (this.#cancelProgress === null) this.#scheduleProgress(send);
  }

  /** The message is over. */
  endMessage(): void {
    this.#messageDeadline = Number.POSITIVE_INFINITY;
    this.#cancelProgress?.();
    this.#cancelProgress = null;
  }

  /** The call has settled; the phase goes on. */
  pause(): void {
    this.#call = null;
    this.#cancelDeadline?.();
    this.#cancelDeadline = null;
  }

  /** The phase is over. */
  end(): void {
    this.pause();
    this.#deadline = 0;
  }

  #rearm(): void {
    if (this.#call !== null) this.#arm(this.#clock.now());
  }

  #arm(now: number): void {
    const { ms, onTimeout, since } = this.#call!;
    this.#cancelDeadline?.();
    const ofCall = ms === null ? Number.POSITIVE_INFINITY : since + ms;
    const until = Math.min(this.#deadline, this.#messageDeadline, this.#backlogDeadline, ofCall);
    this.#cancelDeadline = this.#clock.after(Math.max(0, until - now), () => onTimeout(Math.max(0, until - since)));
  }

  #scheduleProgress(send: () => void): void {
    this.#cancelProgress = this.#clock.after(PROGRESS_INTERVAL_MS, () => {
      this.#scheduleProgress(send);
      send();
    });
  }
}
