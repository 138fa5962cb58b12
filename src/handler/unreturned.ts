/**
 * Verdicts that calls of a conversation have made and not returned. A handler may keep a verdict for a later call, so
 * it counts as not returned only at the end of its message, or for `connect`, `helo` and `unknown` of its session.
 */
import { isOfMessage } from "../protocol/phases.ts";
import type { EventPhase } from "../protocol/session.ts";
import type { ChainFilter } from "./chain.ts";
import { type EncodedVerdict, isShared, placeNext } from "./verdict.ts";

/** A call, and the last verdict that it made. */
export interface Unreturned {
  readonly filter: ChainFilter;
  readonly phase: EventPhase;
  readonly verdict: EncodedVerdict;
}

/** More calls of a message are not remembered. */
const MAX = 100;

export class UnreturnedVerdicts {
  #calls: Unreturned[] = [];

  add(call: Unreturned): void {
    if (isShared(call.verdict)) placeNext();
    if (this.#calls.length < MAX) this.#calls.push(call);
  }

  /** A handler of `filter` has returned this verdict. */
  returned(verdict: EncodedVerdict, filter: ChainFilter): void {
    this.#calls = this.#calls.filter(
      (call) => call.verdict !== verdict || (isShared(verdict) && call.filter !== filter),
    );
  }

  /** The message is over, or with `isSession` the session: takes out those that can be returned no more. */
  take(isSession: boolean): Unreturned[] {
    const over = this.#calls.filter(({ phase }) => isSession || isOfMessage(phase) || phase.name === "abort");
    this.#calls = this.#calls.filter((call) => !over.includes(call));
    return over;
  }
}
