/**
 * Collects the body of a message for the filters that read it as a whole: up to the size that each of them has room for,
 * no faster than the spool writes, and ready before the first of them runs at `eom`.
 */
import { PHASES } from "../protocol/phases.ts";
import type { EventPhase, MilterSession } from "../protocol/session.ts";
import type { AwaitedCall } from "./awaited-calls.ts";
import type { BodyCollector, Chain, ChainFilter } from "./chain.ts";
import type { FilterParts } from "./filter-parts.ts";
import type { FilterPart } from "./filter-session.ts";
import type { ReceivedMessage } from "./message/received.ts";
import type { Spool, SpooledBody } from "./message/spool.ts";
import type { Reporter } from "./reporter.ts";

/** The owner of the socket, as the collection needs it. */
export interface CollectingHost {
  /** Takes the bodies that are too large for memory; null: all bodies are kept in memory. */
  readonly spool: Spool | null;
  readonly reportsAccepted: boolean;
  after(ms: number, callback: () => void): () => void;
  /** Nothing is waited for any more: events are taken again. */
  resume(): void;
  /** A mistake of ours in a callback of this file. It must not throw. */
  failed(error: unknown): void;
  calling(phase: EventPhase, filter: ChainFilter): void;
}

/** The conversation, as the collection needs it. */
export interface CollectingSource {
  readonly session: MilterSession;
  readonly chain: Chain;
  readonly parts: FilterParts;
  readonly host: CollectingHost;
  /** The message that is open; null if there is none. */
  message(): ReceivedMessage | null;
  /** Something else is waited for. */
  isWaiting(): boolean;
  reporter(): Reporter;
  /** Applies the fallback of a filter; true if that ends the phase. */
  fail(part: FilterPart, phase: EventPhase, cause: "limit" | "spool", error: unknown): boolean;
  /** Refuses the message, whose body is too large. */
  refuse(): void;
  /** Waits for a promise in place of a handler; the step runs anew then. */
  await(call: AwaitedCall, promise: Promise<void>): void;
}

export class BodyCollection {
  readonly #source: CollectingSource;
  /** Ends the wait for the spool, which has much of the body at hand to write; null while it is not waited for. */
  #cancelRoomWait: (() => void) | null = null;

  constructor(source: CollectingSource) {
    this.#source = source;
  }

  /** The spool has to write before further events are taken. */
  get isWaiting(): boolean {
    return this.#cancelRoomWait !== null;
  }

  /**
   * Takes the piece of the body at hand.
   * @returns true if a filter's verdict on a body that is too large ends the phase
   */
  take(): boolean {
    const { host, parts, session } = this.#source;
    const message = this.#source.message()!;
    if (message.sentBodyBytes > parts.bodyMark && this.#passMark(message)) return true;
    if (!parts.collectsBody) return false;
    const { spooled } = message.takeBody(session.bytes, session.start, session.end, host.spool);
    if (spooled !== null && spooled.isBehind) this.#awaitRoom(spooled);
    return false;
  }

  /**
   * Sees to it that a filter which collects the body can read it at `eom`.
   * @returns `call` the filter now, `pass` it over, or `stop`: the body is awaited, or the phase has ended
   */
  provide(index: number, part: FilterPart): "call" | "pass" | "stop" {
    const body = this.#source.message()!.collected;
    if (body === null || part.lacksBody) return "call";
    if (body.isPending) {
      this.#source.host.calling(PHASES.eom, part.filter);
      const call = { index, part, phase: PHASES.eom, unreturned: null, isForBody: true, subject: null };
      this.#source.await(call, body.prepare());
      return "stop";
    }
    if (body.problem === null) return "call";
    if (part.filter.loaded.collectBody!.over === "skip") {
      part.lacksBody = true;
      this.#source.reporter().failure("spool", part.filter, PHASES.eom, body.problem, "none");
      return "call";
    }
    return this.#source.fail(part, PHASES.eom, "spool", body.problem) ? "stop" : "pass";
  }

  /** The body that is awaited cannot be had in time. */
  timeOut(): void {
    const { eomTimeoutMs } = this.#source.chain.policy;
    this.#source.message()!.collected!.timeOut(`a body could not be read within ${eomTimeoutMs / 1000} s`);
  }

  /** No filter reads the body any more. */
  drop(): void {
    this.#source.message()?.dropBody();
    this.endWait();
  }

  endWait(): void {
    this.#cancelRoomWait?.();
    this.#cancelRoomWait = null;
  }

  /**
   * The body has begun, or is larger than one of the filters collects.
   * @returns true if the verdict for that ends the phase
   */
  #passMark(message: ReceivedMessage): boolean {
    const { chain, parts } = this.#source;
    let mark = Number.POSITIVE_INFINITY;
    for (const collector of chain.collectors) {
      const part = parts.of(collector.filter);
      if (part.done !== "no" || part.lacksBody || !parts.takesPart(collector.filter, PHASES.body)) continue;
      if (message.sentBodyBytes <= collector.max) mark = Math.min(mark, collector.max);
      else if (this.#isOver(part, collector)) return true;
    }
    parts.bodyMark = mark;
    if (!parts.collectsBody) this.drop();
    return false;
  }

  /**
   * The body is larger than a filter collects. It would be as large the next time, so `reject` is permanent. In observe mode
   * nothing is refused: the filter's part in the message ends.
   * @returns true if that ends the phase
   */
  #isOver(part: FilterPart, { filter, isLimit, max, over }: BodyCollector): boolean {
    const { host, parts } = this.#source;
    const name = isLimit ? "limits.body" : "collectBody.max";
    const why = `a body of more than ${max} bytes to collect (${name})`;
    if (over === "skip") {
      part.lacksBody = true;
      if (host.reportsAccepted) this.#source.reporter().skippedBody(filter, why);
      return false;
    }
    if (over === "fallback") {
      if (this.#source.fail(part, PHASES.body, "limit", new RangeError(why))) return true;
      parts.leaveMessage(part);
      return false;
    }
    const named = isLimit ? null : filter;
    const fallback = filter.isObserved ? "none" : "reject";
    this.#source.reporter().failure("limit", named, PHASES.body, new RangeError(why), fallback);
    if (filter.isObserved) {
      parts.leaveMessage(part);
      return false;
    }
    this.#source.refuse();
    return true;
  }

  /** The mail server is faster than the spool: no further event is taken until that has written enough. */
  #awaitRoom(body: SpooledBody): void {
    const { chain, host } = this.#source;
    const { handlerTimeoutMs } = chain.policy;
    this.#cancelRoomWait = host.after(handlerTimeoutMs, () => {
      body.fail(`nothing was written for ${handlerTimeoutMs / 1000} s`);
    });
    body.onRoom(() => {
      try {
        this.endWait();
        if (!this.#source.isWaiting()) host.resume();
      } catch (error) {
        host.failed(error);
      }
    });
  }
}
