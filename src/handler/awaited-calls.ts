/**
 * The handler that a conversation awaits: its time limit, the progress that is sent meanwhile, and its result. At most
 * one is awaited at a time.
 */
import { ACTION } from "../protocol/constants.ts";
import { PLAIN_REPLIES, type ReplyWriter } from "../protocol/encode.ts";
import { PHASES } from "../protocol/phases.ts";
import type { EventPhase, MilterSession } from "../protocol/session.ts";
import type { ChainPolicy } from "./chain.ts";
import type { FilterPart } from "./filter-session.ts";
import { NotReturned } from "./not-returned.ts";
import { type Clock, PhaseDeadline } from "./phase-deadline.ts";
import type { Subject } from "./report.ts";
import type { Reporter } from "./reporter.ts";
import type { EncodedVerdict } from "./verdict.ts";

export interface AwaitingHost extends Clock {
  /** Sends what the writer has: progress, while a handler works. */
  flush(): void;
  /** A mistake of ours in a callback of this file: the connection has to be ended. It must not throw. */
  failed(error: unknown): void;
  /**
   * The handler that was called is awaited; other connections go on meanwhile.
   * @param alreadyMs milliseconds that the mail server waited for this phase elsewhere; null if another handler of the
   *   phase was awaited here before
   */
  suspended(alreadyMs: number | null): void;
}

/** A handler that is awaited. */
export interface AwaitedCall {
  /** The step of its phase. */
  readonly index: number;
  readonly part: FilterPart;
  readonly phase: EventPhase;
  /** The verdict that it made before it was awaited, in case it returns none; null if it made none. */
  readonly unreturned: EncodedVerdict | null;
  /** Not the handler is awaited, but the body that it is to read. */
  readonly isForBody: boolean;
  /** Subject of a failure that comes after the conversation has stopped waiting; null until then. */
  subject: Subject | null;
}

/** How an awaited handler ended. */
export type Ending = "value" | "error" | "timeout";

/** The parts of a conversation that these calls need. */
export interface AwaitingSource {
  readonly session: MilterSession;
  readonly policy: ChainPolicy;
  readonly writer: ReplyWriter;
  readonly host: AwaitingHost;
  /** A call has ended, perhaps after the conversation has stopped waiting for it. */
  settled(call: AwaitedCall, how: Ending, value: unknown): void;
}

export class AwaitedCalls {
  readonly #source: AwaitingSource;
  readonly #deadline: PhaseDeadline;
  #current: AwaitedCall | null = null;

  constructor(source: AwaitingSource) {
    this.#source = source;
    this.#deadline = new PhaseDeadline(source.host);
  }

  get current(): AwaitedCall | null {
    return this.#current;
  }

  /** @param alreadyMs milliseconds that the mail server has waited elsewhere for the reply to this event */
  begin(call: AwaitedCall, promise: unknown, alreadyMs: number): void {
    const { host, policy, session } = this.#source;
    const { filter } = call.part;
    const isEom = call.phase === PHASES.eom;
    if (call.phase === PHASES.body) session.framer.lend();
    this.#current = call;
    host.suspended(this.#deadline.isFresh ? alreadyMs : null);
    const budgetMs = (isEom ? policy.eomTimeoutMs : policy.handlerTimeoutMs) - alreadyMs;
    this.#deadline.begin(Math.max(0, budgetMs), call.isForBody ? null : filter.timeoutMs, (ms) => {
      this.#settle(call, "timeout", new Error(`not settled after ${Math.round(ms) / 1000} s`));
    });
    if (isEom) this.#keepProgress();
    // Any object with a `then` may be awaited. A promise that is resolved with it turns an exception of its code into a
    // rejection, and calls its `then` only after this phase has been left; Promise.resolve() and await would run its
    // code here.
    new Promise((resolve) => resolve(promise)).then(
      (value) => this.#settle(call, "value", value),
      (error: unknown) => this.#settle(call, NotReturned.is(error) ? "timeout" : "error", error),
    );
  }

  /** The current call has settled, or its time is over; the phase goes on. */
  take(): void {
    this.#deadline.pause();
    this.#current = null;
  }

  /** All handlers of the phase have run. */
  endPhase(): void {
    this.#deadline.end();
  }

  endMessage(): void {
    this.#deadline.endMessage();
  }

  /** The connection is over: the current call is no longer waited for. */
  stop(reporter: Reporter): void {
    if (this.#current !== null) this.#current.subject = reporter.subject();
    this.#current = null;
    this.#deadline.end();
    this.#deadline.endMessage();
  }

  /**
   * Adapts the time limit to the packets that were read behind the awaited handler. Content handlers run without a
   * reply; but once the end of the message is read the mail server waits for them too, within the time of `eom`. While
   * reading is paused before that, the end may be unread, so all queued packets together have the time of one phase
   * (Sendmail waits 10 s).
   */
  foresee(isReadingPaused: boolean): void {
    const { policy, session } = this.#source;
    if (this.#current === null || !this.#current.phase.content || session.wantsReply) return;
    const { hasEndRead } = session;
    if (hasEndRead && this.#deadline.endRead(policy.eomTimeoutMs)) this.#keepProgress();
    this.#deadline.backlog(isReadingPaused && !hasEndRead ? policy.handlerTimeoutMs : null);
  }

  /** All that was queued has been worked on, and reading goes on. */
  caughtUp(): void {
    this.#deadline.backlog(null);
  }

  /** A call has ended. No caller catches exceptions here. */
  #settle(call: AwaitedCall, how: Ending, value: unknown): void {
    try {
      this.#source.settled(call, how, value);
    } catch (error) {
      this.#source.host.failed(error);
    }
  }

  #keepProgress(): void {
    if (this.#mayProgress()) this.#deadline.keepProgress(() => this.#sendProgress());
  }

  /** Servers older than PROGRESS would take it for an error; QUARANTINE came with the same release (Sendmail 8.13). */
  #mayProgress(): boolean {
    const { version, actions } = this.#source.session.options;
    return version >= 6 || (actions & ACTION.QUARANTINE) !== 0;
  }

  #sendProgress(): void {
    try {
      this.#source.writer.packet(PLAIN_REPLIES.PROGRESS);
      this.#source.host.flush();
    } catch (error) {
      this.#source.host.failed(error);
    }
  }
}
