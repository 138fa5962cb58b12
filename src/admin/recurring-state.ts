/**
 * A state that may come and go many times a second, as a server that is full does. It is told when it begins, and once it
 * has been over for a while: how often it came, and for how long altogether.
 */

/** A state that was over for so long has ended. */
export const CALM_MS = 10_000;

/** How often, in words. */
export function timesInWords(times: number): string {
  return times === 1 ? "once" : `${times} times`;
}

export interface RecurringStateHost {
  began(): void;
  ended(times: number, seconds: number): void;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
}

export class RecurringState {
  readonly #host: RecurringStateHost;
  #isOn = false;
  /** How often it came since it was told; 0 while nothing is to be told. */
  #times = 0;
  #onMs = 0;
  #changedAt = 0;

  constructor(host: RecurringStateHost) {
    this.#host = host;
  }

  set(isOn: boolean): void {
    if (isOn === this.#isOn) return;
    const now = this.#host.now();
    if (this.#isOn) this.#onMs += now - this.#changedAt;
    else if (this.#times > 0 && now - this.#changedAt >= CALM_MS) this.#end();
    this.#isOn = isOn;
    this.#changedAt = now;
    if (!isOn) return;
    this.#times += 1;
    if (this.#times === 1) this.#host.began();
  }

  /** To be called from time to time. */
  look(): void {
    if (this.#times === 0 || this.#isOn || this.#host.now() - this.#changedAt < CALM_MS) return;
    this.#end();
  }

  #end(): void {
    const times = this.#times;
    const seconds = Math.round(this.#onMs / 1000);
    this.#times = 0;
    this.#onMs = 0;
    this.#host.ended(times, seconds);
  }
}
