/**
 * The time that filters take: their handlers, each within a function that reads the clock. For a trial of a configuration;
 * a server that serves calls the handlers themselves.
 */
import { isPromise } from "node:util/types";
import { type Phase, PHASE_NAMES } from "../protocol/phases.ts";
import type { AnyHandler, LoadedFilter } from "./filter.ts";

/** The time that a filter took in a session. */
export interface FilterTime {
  readonly name: string;
  /** Milliseconds: of all its handlers, the time in which they were awaited included. */
  readonly ms: number;
  /** The same by phase, for the phases whose handler was called. */
  readonly phases: Readonly<Partial<Record<Phase, number>>>;
}

/** The time of a phase's handler in a filter. */
export interface CallTime {
  /** Index in the chain. */
  readonly filter: number;
  readonly phase: Phase;
  readonly ms: number;
}

/** A call that has not ended. */
interface OpenCall {
  readonly filter: number;
  readonly phase: Phase;
  /** When it was called, or its time was last taken. */
  since: number;
}

/** Takes the time of handlers. */
export class Stopwatch {
  readonly #now: () => number;
  #filters = 0;
  #times: CallTime[] = [];
  readonly #open = new Set<OpenCall>();

  constructor(now = () => performance.now()) {
    this.#now = now;
  }

  /** The same filter, with handlers whose time is taken. Call it for each filter of a chain, in order. */
  measured(loaded: LoadedFilter): LoadedFilter {
    const index = this.#filters++;
    const handlers = Object.entries(loaded.handlers) as [Phase, AnyHandler][];
    return {
      ...loaded,
      handlers: Object.fromEntries(handlers.map(([phase, handler]) => [phase, this.#timed(index, phase, handler)])),
    };
  }

  /** The times since this was last called: of a call that has not ended, the time so far. */
  take(): CallTime[] {
    const now = this.#now();
    for (const call of this.#open) this.#add(call, now);
    const times = this.#times;
    this.#times = [];
    return times;
  }

  /** Calls that have not ended do not count any more. */
  forget(): void {
    this.#open.clear();
  }

  #timed(filter: number, phase: Phase, handler: AnyHandler): AnyHandler {
    const begin = () => this.#begin(filter, phase);
    const end = (call: OpenCall) => this.#end(call);
    return function (this: unknown, session, ...rest) {
      const call = begin();
      let isAwaited = false;
      try {
        const result = handler.call(this, session, ...rest);
        // A thenable that is no promise would run its own code here: of that only the call counts.
        if (isPromise(result)) {
          isAwaited = true;
          const ended = () => end(call);
          result.then(ended, ended);
        }
        return result;
      } finally {
        if (!isAwaited) end(call);
      }
    };
  }

  #begin(filter: number, phase: Phase): OpenCall {
    const call = { filter, phase, since: this.#now() };
    this.#open.add(call);
    return call;
  }

  #end(call: OpenCall): void {
    if (this.#open.delete(call)) this.#add(call, this.#now());
  }

  #add(call: OpenCall, now: number): void {
    const { filter, phase, since } = call;
    this.#times.push({ filter, phase, ms: now - since });
    call.since = now;
  }
}

/** The sums by filter and phase, rounded to microseconds. @param names of the filters, in the order of the chain */
export function sumOf(times: readonly CallTime[], names: readonly string[]): FilterTime[] {
  return names.map((name, filter) => {
    const own = times.filter((time) => time.filter === filter);
    const phases = PHASE_NAMES.flatMap((phase): [Phase, number][] => {
      const calls = own.filter((time) => time.phase === phase);
      return calls.length === 0 ? [] : [[phase, total(calls)]];
    });
    return { name, ms: total(own), phases: Object.fromEntries(phases) };
  });
}

function total(times: readonly CallTime[]): number {
  const ms = times.reduce((sum, time) => sum + time.ms, 0);
  return Math.round(ms * 1000) / 1000;
}
