/** A clock that a test moves: the time limits of handlers are reached without waiting. */
import type { Clock } from "../handler/phase-deadline.ts";

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/**
 * The clock of the time limits of a session: `handler_timeout`, `eom_timeout`, and the time between two packets of progress.
 * It stands still until {@link TestClock.advance} moves it. `Date`, `performance.now()` and the timers of handlers are not
 * its: `bun:test` has `setSystemTime` and `jest.useFakeTimers()` for them.
 *
 * @example
 * const clock = new TestClock();
 * const running = runFilter(slow, { eml, clock });
 * await clock.advance(60_000);
 * const { failures } = await running;
 */
export class TestClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();
  #armed = Promise.withResolvers<void>();

  /** Milliseconds since the clock was made. */
  now(): number {
    return this.#now;
  }

  /** For the session. @returns a function that cancels the call */
  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#now + ms, callback };
    this.#timers.add(timer);
    this.#armed.resolve();
    return () => void this.#timers.delete(timer);
  }

  /**
   * Waits until a handler is awaited, and lets so many milliseconds pass. What is due in that time happens in its order, and
   * what follows from it has happened when the promise settles, but for what handlers themselves wait for.
   */
  async advance(ms: number): Promise<void> {
    while (this.#timers.size === 0) {
      this.#armed = Promise.withResolvers();
      await this.#armed.promise;
    }
    await this.pass(ms);
  }

  /**
   * Lets so many milliseconds pass, whether a handler is awaited or not: between messages, for what the store keeps. What is
   * due in that time happens in its order.
   */
  async pass(ms: number): Promise<void> {
    const until = this.#now + ms;
    for (let timer = this.#next(until); timer !== null; timer = this.#next(until)) {
      this.#now = timer.at;
      this.#timers.delete(timer);
      timer.callback();
      await settled();
    }
    this.#now = until;
  }

  #next(until: number): Timer | null {
    const due = [...this.#timers].filter(({ at }) => at <= until);
    return due.toSorted((a, b) => a.at - b.at)[0] ?? null;
  }
}

/** The next handlers have been called, and the replies have been taken. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
