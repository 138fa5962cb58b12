/**
 * Number of messages of the last minute that got a fallback, from the counters, which are read once a second. That costs the
 * workers nothing: they count in any case.
 */
import type { Counts } from "../../counters.ts";

const SPAN_MS = 60_000;
const STEP_MS = 1000;
/** Fewer messages say nothing about a rate. */
const MIN_MESSAGES = 10;
const MAX_SHARE = 0.05;

export interface LastMinute {
  /** Messages that got a verdict, or a fallback if those are more: a client may give up before the end of a message. */
  readonly messages: number;
  /** Messages in which a handler failed and the fallback took its place. */
  readonly fallbacks: number;
}

type Counted = Pick<Counts, "messages" | "messagesWithFallback">;

interface Sample extends Counted {
  /** On the clock of `performance.now()`. */
  readonly at: number;
}

export class FallbackRate {
  /** Oldest first. Only the first may be older than the span: the last minute begins there. */
  readonly #samples: Sample[];

  /** @param now on the clock of `performance.now()` */
  constructor(now: number) {
    this.#samples = [{ at: now, messages: 0, messagesWithFallback: 0 }];
  }

  /** @param counts asked for at most once a second */
  look(now: number, counts: () => Counted): void {
    if (now - this.#samples.at(-1)!.at < STEP_MS) return;
    const { messages, messagesWithFallback } = counts();
    this.#samples.push({ at: now, messages, messagesWithFallback });
    while (this.#samples.length > 1 && now - this.#samples[1]!.at >= SPAN_MS) this.#samples.shift();
  }

  lastMinute(now: number, { messages, messagesWithFallback }: Counted): LastMinute {
    const since = this.#samples.findLast(({ at }) => now - at >= SPAN_MS) ?? this.#samples[0]!;
    const fallbacks = messagesWithFallback - since.messagesWithFallback;
    return { messages: Math.max(messages - since.messages, fallbacks), fallbacks };
  }
}

/** Whether so many fallbacks mean that something is wrong with the handlers. */
export function isTooMany({ fallbacks, messages }: LastMinute): boolean {
  return messages >= MIN_MESSAGES && fallbacks > messages * MAX_SHARE;
}
