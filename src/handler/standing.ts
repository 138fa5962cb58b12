/**
 * Where the filters of a session with conditions stand: each condition is asked once its value is known, at the first call
 * that depends on it, and again when the value may be another.
 */
import { type PhaseInfo, PHASES } from "../protocol/phases.ts";
import type { EventPhase } from "../protocol/session.ts";
import { type Chain, type ChainFilter, isSplitting } from "./chain.ts";
import { type Conditions, type Facts, isAuthenticated } from "./conditions.ts";
import type { ReceivedMessage } from "./message/received.ts";
import type { Address } from "./types.ts";

/** The parts of a conversation that conditions read. */
export interface StandingSource extends Omit<Facts, "sender"> {
  readonly message: ReceivedMessage | null;
  /** The recipient of the event at hand; null if that is about none. */
  readonly recipientAtHand: Address | null;
}

/**
 * Recipients of a message that are refused for now by `split`, at most. Postfix slows a client down at the eleventh error of a
 * session, and ends the session at the twentieth.
 */
const MAX_SPLIT = 5;

/** Of one filter. The answers are null until they are asked for. */
class Standing {
  readonly conditions: Conditions;
  isOfConnection: boolean | null = null;
  isOfHelo: boolean | null = null;
  isOfMessage: boolean | null = null;
  /** Of the recipients as a whole. */
  isOfRecipients: boolean | null = null;
  /** A handler was called in this message, or in this session. */
  wasCalledInMessage = false;
  wasCalled = false;

  constructor(conditions: Conditions) {
    this.conditions = conditions;
  }
}

export class Standings implements Facts {
  readonly #source: StandingSource;
  /** By filter index; undefined for a filter without conditions. */
  readonly #of: (Standing | undefined)[];
  readonly #splitting: readonly ChainFilter[];
  /** Recipients of this message that were refused for now. */
  #split = 0;

  constructor(chain: Chain, source: StandingSource) {
    this.#source = source;
    this.#of = new Array(chain.size);
    for (const { conditions, index } of chain.conditional) this.#of[index] = new Standing(conditions!);
    this.#splitting = chain.conditional.filter(isSplitting);
  }

  // Read by tests: see `Facts`.
  get client(): Facts["client"] {
    return this.#source.client;
  }
  get macros(): Facts["macros"] {
    return this.#source.macros;
  }
  get helo(): string {
    return this.#source.helo;
  }
  get isLocal(): boolean {
    return this.#source.isLocal;
  }
  get sender(): string | null {
    const { message } = this.#source;
    return message === null || !message.hasSender ? null : message.sender.raw;
  }

  /** Another session begins. */
  beginSession(): void {
    for (const standing of this.#of) {
      if (standing === undefined) continue;
      standing.isOfConnection = null;
      standing.isOfHelo = null;
      standing.wasCalled = false;
    }
    this.endMessage();
  }

  /** The client has given its name, perhaps again. */
  takeHelo(): void {
    for (const standing of this.#of) if (standing !== undefined) standing.isOfHelo = null;
  }

  /** A recipient has come: with it the recipients are others. */
  takeRecipient(): void {
    for (const standing of this.#of) if (standing !== undefined) standing.isOfRecipients = null;
  }

  endMessage(): void {
    this.#split = 0;
    for (const standing of this.#of) {
      if (standing === undefined) continue;
      standing.isOfMessage = null;
      standing.isOfRecipients = null;
      standing.wasCalledInMessage = false;
    }
  }

  /** Whether a filter's handler is called; it counts as called then. */
  calls({ index }: ChainFilter, phase: EventPhase): boolean {
    const standing = this.#of[index];
    if (standing === undefined) return true;
    if (!this.#isCalled(standing, phase)) return false;
    standing.wasCalled = true;
    if (phase.scope === "message" || phase.scope === "recipient") standing.wasCalledInMessage = true;
    return true;
  }

  #isCalled(standing: Standing, phase: EventPhase): boolean {
    const { conditions } = standing;
    switch (phase) {
      case PHASES.connect:
      case PHASES.unknown:
        return this.#isOfConnection(standing);
      case PHASES.helo:
        return this.#isOfConnection(standing) && this.#isOfHelo(standing);
      case PHASES.envrcpt:
        return this.#isOfMessage(standing) && this.#matches(conditions, this.#source.recipientAtHand);
      case PHASES.abort:
        return conditions.recipient === null ? this.#isOfMessage(standing) : standing.wasCalledInMessage;
      case PHASES.close: {
        const isOfMessages = conditions.message !== null || conditions.recipient !== null;
        if (standing.wasCalled) return true;
        return !isOfMessages && this.#isOfConnection(standing) && this.#isOfHelo(standing);
      }
      default:
        return this.#mayRun(standing, phase);
    }
  }

  /** Whether the filter may still have a part in what the phase is about, as far as that is known. */
  takesPart({ index }: ChainFilter, phase: PhaseInfo): boolean {
    const standing = this.#of[index];
    return standing === undefined || this.#mayRun(standing, phase);
  }

  /** Whether the filter is told what became of the message: its conditions hold for it, or it was called in it. */
  isTold({ index }: ChainFilter): boolean {
    const standing = this.#of[index];
    return standing === undefined || standing.wasCalledInMessage || this.#mayRun(standing, PHASES.eom);
  }

  #mayRun(standing: Standing, phase: PhaseInfo): boolean {
    // The client may say HELO again, with another name.
    if (phase.scope === "connection") return this.#isOfConnection(standing);
    if (!this.#isOfMessage(standing)) return false;
    return phase.index <= PHASES.envrcpt.index || this.#isOfRecipients(standing);
  }

  /**
   * The filter that refuses the recipient at hand for now, since it judges the message's first recipient otherwise; the
   * client then sends a message of its own for it. Null for none.
   * @param hasLeft whether a filter's part in the message is over
   */
  findSplitting(hasLeft: (filter: ChainFilter) => boolean): ChainFilter | null {
    const { isLocal, macros, message, recipientAtHand } = this.#source;
    const first = message?.recipients[0];
    if (recipientAtHand === null || first === undefined || first === recipientAtHand) return null;
    if (this.#split === MAX_SPLIT || isLocal || isAuthenticated(macros)) return null;
    for (const filter of this.#splitting) {
      const standing = this.#of[filter.index]!;
      if (hasLeft(filter) || !this.#isOfMessage(standing)) continue;
      const { conditions } = standing;
      if (this.#matches(conditions, first) === this.#matches(conditions, recipientAtHand)) continue;
      this.#split += 1;
      return filter;
    }
    return null;
  }

  #isOfConnection(standing: Standing): boolean {
    return (standing.isOfConnection ??= standing.conditions.connection?.(this) ?? true);
  }

  #isOfHelo(standing: Standing): boolean {
    return (standing.isOfHelo ??= standing.conditions.helo?.(this) ?? true);
  }

  #isOfMessage(standing: Standing): boolean {
    return (standing.isOfMessage ??=
      this.#isOfConnection(standing) && this.#isOfHelo(standing) && (standing.conditions.message?.(this) ?? true));
  }

  #isOfRecipients(standing: Standing): boolean {
    return (standing.isOfRecipients ??= this.#matchAll(standing.conditions));
  }

  #matchAll(conditions: Conditions): boolean {
    if (conditions.recipient === null) return true;
    const recipients = this.#source.message?.recipients ?? [];
    const isMatch = (address: Address) => this.#matches(conditions, address);
    if (conditions.recipientsMatch === "every") return recipients.length > 0 && recipients.every(isMatch);
    return recipients.some(isMatch);
  }

  #matches({ recipient }: Conditions, address: Address | null): boolean {
    return recipient === null || (address !== null && recipient(address.raw));
  }
}
