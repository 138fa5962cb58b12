/**
 * Verdicts that calls of one conversation have made and not returned. One may be kept and given back by a later call, so it
 * is judged when what it could be about is over: the message, or for `connect`, `helo` and `unknown` the session.
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

/** More of one message are not remembered. */
const MAX = 100;

export class UnreturnedVerdicts {
  #calls: Unreturned[] = [];

  add(call: Unreturned): void {
    if (isShared(call.verdict)) placeNext();
    if (this.#calls.length < MAX) this.#calls.push(call);
  }

  /** A handler of `filter` has returned this one. */
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
