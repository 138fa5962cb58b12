/** Puts together what became of a message, and calls `outcome` of the filters that ask. */
import type { SessionMacros } from "../protocol/macros.ts";
import type { ChainPolicy } from "./chain.ts";
import type { FilterPart, SessionSource } from "./filter-session.ts";
import type { FilterChanges } from "./message/changes.ts";
import type { Difference } from "./message/difference.ts";
import type { ReceivedMessage } from "./message/received.ts";
import { EndedMessage, OutcomeCall, type OutcomeHost, type RunningOutcomes } from "./outcomes.ts";
import type { Subject } from "./report.ts";
import type { AppliedVerdict } from "./reporter.ts";
import type { MessageOutcome, OutcomeVerdict, RecipientVerdict } from "./types.ts";

/** Refused recipients of a message that `outcome` is told of. */
const MAX_REFUSED = 1000;

/** The parts of a conversation that are told. */
export interface TellingSource extends SessionSource {
  readonly macros: SessionMacros;
  /** Notes of the message that its record keeps. */
  readonly notes: number;
  /** The parts of the filters that are to be told of the message at hand. */
  readonly tellsOutcome: readonly FilterPart[];
  /** The message, for reports. */
  messageSubject(): Subject;
}

export interface TellingHost extends OutcomeHost {
  /** The calls that run; those of all conversations of a worker. */
  readonly outcomes: RunningOutcomes;
}

/** The end of a message. */
export interface MessageEnd {
  readonly verdict: OutcomeVerdict;
  /** The name of the filter that decided, or quarantines the message; null for none. */
  readonly filter: string | null;
  /** The verdict, if a reply carries it. */
  readonly applied?: AppliedVerdict;
  /** The changes that were sent, in chain order. */
  readonly layers?: readonly FilterChanges[];
  readonly difference?: Difference | null;
}

export class OutcomeTeller {
  readonly #source: TellingSource;
  readonly #host: TellingHost;
  readonly #policy: ChainPolicy;
  /** Recipients of this message that filters refused, each with how many were accepted before it. */
  #refused: { readonly after: number; readonly recipient: RecipientVerdict }[] | null = null;

  constructor(source: TellingSource, host: TellingHost, policy: ChainPolicy) {
    this.#source = source;
    this.#host = host;
    this.#policy = policy;
  }

  /** The last recipient is about to be dropped: however many a client tries, only so many are kept. */
  refused(message: ReceivedMessage, verdict: OutcomeVerdict): void {
    this.#refused ??= [];
    if (this.#refused.length >= MAX_REFUSED) return;
    const { recipients } = message;
    this.#refused.push({ after: recipients.length - 1, recipient: { address: recipients.at(-1)!.address, verdict } });
  }

  /** The message is about to be over: the filters that ask are told what became of it, once its reply has left. */
  tell({ applied, difference = null, filter, layers = [], verdict }: MessageEnd): void {
    const source = this.#source;
    const host = this.#host;
    const { message, tellsOutcome } = source;
    if (message === null || !message.hasSender || tellsOutcome.length === 0) return;
    const outcome: MessageOutcome = Object.freeze({
      verdict,
      reply: applied?.verdict.reply ?? null,
      filter,
      recipients: Object.freeze(this.#recipientsOf(message, verdict)),
      changes: difference?.count ?? 0,
    });
    const { actions, client, hasHeaders, helo, isLocal, isSendmail, isTrial, notes, services } = source;
    const session = { actions, client, hasHeaders, helo, isLocal, isSendmail, isTrial, notes, services };
    const ended = new EndedMessage(
      { ...session, message, layers, macros: source.macros.copy(), subject: source.messageSubject() },
      host,
    );
    for (const part of tellsOutcome) {
      const ms = part.filter.timeoutMs ?? this.#policy.handlerTimeoutMs;
      host.outcomes.start(new OutcomeCall(part, ended, outcome, ms, host));
    }
    // Calls keep the message: a large body must not wait for them.
    message.dropBody();
  }

  endMessage(): void {
    this.#refused = null;
  }

  /** The recipients in the order of RCPT. */
  #recipientsOf(message: ReceivedMessage, verdict: OutcomeVerdict): RecipientVerdict[] {
    const refused = this.#refused ?? [];
    const recipients: RecipientVerdict[] = [];
    let next = 0;
    for (let index = 0; index <= message.recipients.length; index++) {
      for (; refused[next]?.after === index; next++) recipients.push(Object.freeze(refused[next]!.recipient));
      const accepted = message.recipients[index];
      if (accepted !== undefined) recipients.push(Object.freeze({ address: accepted.address, verdict }));
    }
    return recipients;
  }
}
