/**
 * Calls of `outcome`: the filters that ask are told what became of a message, once it is over. The calls run beside the
 * next messages, with a session and a message of their own, and decide nothing.
 */
import type { Services } from "./services.ts";
import type { Client } from "../protocol/client.ts";
import { within } from "../within.ts";
import type { ChainFilter } from "./chain.ts";
import { FilterPart, isGivenUp, type SessionSource } from "./filter-session.ts";
import type { FilterChanges } from "./message/changes.ts";
import type { ReceivedMessage } from "./message/received.ts";
import { MAX_NOTES, type NoteLevel } from "./notes.ts";
import type { FailureReport, Subject } from "./report.ts";
import { failureReport, noteReport, type ReportSink } from "./reporter.ts";
import type { MacroLookup, MessageOutcome } from "./types.ts";

/** Calls that a worker runs at once: each keeps its message. */
const MAX_RUNNING = 1000;

/** A message that is over, with the values of its session as they were then. */
export interface EndedValues {
  readonly client: Client;
  readonly helo: string;
  /** A copy: the session's own go on to the next message. */
  readonly macros: MacroLookup;
  readonly message: ReceivedMessage;
  /** The changes that were sent, in chain order. */
  readonly layers: readonly FilterChanges[];
  readonly actions: number;
  readonly hasHeaders: boolean;
  readonly isSendmail: boolean;
  readonly isLocal: boolean;
  readonly isTrial: boolean;
  readonly services: Services;
  readonly subject: Subject;
  /** Notes of the message that its record keeps already. */
  readonly notes: number;
}

/** The host of the conversation, as these calls need it. */
export interface OutcomeHost extends ReportSink {
  logs(level: NoteLevel): boolean;
  /** Runs the callback after so many milliseconds; gives a function that cancels it. */
  after(ms: number, callback: () => void): () => void;
}

/** What sessions of `outcome` read, in place of the conversation. */
export class EndedMessage implements SessionSource {
  readonly phase = "outcome";
  readonly whyLeft = null;
  readonly client: Client;
  readonly helo: string;
  readonly macros: MacroLookup;
  readonly message: ReceivedMessage;
  readonly actions: number;
  readonly hasHeaders: boolean;
  readonly isSendmail: boolean;
  readonly isLocal: boolean;
  readonly isTrial: boolean;
  readonly services: Services;
  readonly subject: Subject;
  addedHeaders = 0;
  readonly #layers: readonly FilterChanges[];
  readonly #host: OutcomeHost;
  #notes: number;

  constructor(values: EndedValues, host: OutcomeHost) {
    this.client = values.client;
    this.helo = values.helo;
    this.macros = values.macros;
    this.message = values.message;
    this.actions = values.actions;
    this.hasHeaders = values.hasHeaders;
    this.isSendmail = values.isSendmail;
    this.isLocal = values.isLocal;
    this.isTrial = values.isTrial;
    this.services = values.services;
    this.subject = values.subject;
    this.#layers = values.layers;
    this.#notes = values.notes;
    this.#host = host;
  }

  changesBefore(): FilterChanges[] {
    return [...this.#layers];
  }

  note(filter: ChainFilter, level: NoteLevel, text: unknown, fields: unknown): void {
    if (!this.#host.logs(level)) return;
    const isKept = this.#notes < MAX_NOTES;
    if (isKept) this.#notes += 1;
    this.#host.report(noteReport(this.subject, filter, this.phase, { level, text, fields, isKept }));
  }
}

/** One filter's call. */
export class OutcomeCall {
  readonly #part: FilterPart;
  readonly #ended: EndedMessage;
  readonly #outcome: MessageOutcome;
  readonly #timeoutMs: number;
  readonly #host: OutcomeHost;

  /** @param before the filter's part in the session, before it forgets the message */
  constructor(before: FilterPart, ended: EndedMessage, outcome: MessageOutcome, timeoutMs: number, host: OutcomeHost) {
    this.#part = new FilterPart(before.filter, ended, before);
    // It reads the message, and changes nothing any more.
    this.#part.done = "message";
    this.#ended = ended;
    this.#outcome = outcome;
    this.#timeoutMs = timeoutMs;
    this.#host = host;
  }

  /** Calls the filter. @param end told when nothing waits for it any more */
  run(end: () => void): void {
    const { loaded } = this.#part.filter;
    let result: unknown;
    try {
      result = loaded.outcome!.call(loaded.self, this.#part.session, this.#outcome);
    } catch (error) {
      this.fail("error", error);
      end();
      return;
    }
    if (typeof result === "object" && result !== null) this.#await(result, end);
    else end();
  }

  /** Nothing waits for it any more. */
  giveUp(why: string): void {
    this.#part.giveUp(why);
  }

  fail(cause: FailureReport["cause"], error: unknown): void {
    const { filter } = this.#part;
    this.#host.report(failureReport(this.#ended.subject, filter, this.#ended.phase, cause, error, "none"));
  }

  #await(promise: unknown, end: () => void): void {
    let isTimeOver = false;
    const cancel = this.#host.after(this.#timeoutMs, () => {
      isTimeOver = true;
      const error = new Error(`not settled after ${this.#timeoutMs / 1000} s`);
      this.#part.giveUp(`the time of this call is over: ${error.message}`, "TimeoutError");
      this.fail("timeout", error);
      end();
    });
    const settle = (): void => {
      cancel();
      if (!isTimeOver) end();
    };
    // As for any handler: code of a thenable runs later, and its exceptions are rejections.
    new Promise((resolve) => resolve(promise)).then(settle, (error: unknown) => {
      if (!isTimeOver || !isGivenUp(error)) this.fail(isTimeOver ? "late" : "error", error);
      settle();
    });
  }
}

/** The calls of one worker. */
export class RunningOutcomes {
  readonly #running = new Set<OutcomeCall>();
  #idle = Promise.withResolvers<void>();

  /** Runs a call once the reply to its message has left. */
  start(call: OutcomeCall): void {
    if (this.#running.size >= MAX_RUNNING) {
      call.fail("limit", new RangeError(`not called: ${MAX_RUNNING} calls of outcome are running`));
      return;
    }
    if (this.#running.size === 0) this.#idle = Promise.withResolvers();
    this.#running.add(call);
    queueMicrotask(() => call.run(() => this.#end(call)));
  }

  /** Waits for the calls that are running, so many milliseconds at most. */
  async settled(ms: number): Promise<void> {
    if (this.#running.size > 0) await within(this.#idle.promise, ms);
  }

  /** The same, and gives up those that still run. */
  async finish(ms: number): Promise<void> {
    await this.settled(ms);
    for (const call of this.#running) call.giveUp("the worker ends");
  }

  #end(call: OutcomeCall): void {
    if (this.#running.delete(call) && this.#running.size === 0) this.#idle.resolve();
  }
}
