/** The parts that the filters of a chain take in one session: how far each filter's part is over, and its changes. */
import { type PhaseInfo, PHASES } from "../protocol/phases.ts";
import type { EventPhase } from "../protocol/session.ts";
import type { Chain, ChainFilter } from "./chain.ts";
import { FilterPart, type SessionSource } from "./filter-session.ts";
import type { FilterChanges } from "./message/changes.ts";
import type { Effect } from "./rules.ts";
import { Standings, type StandingSource } from "./standing.ts";

/** A filter that is left out when the packets that began a session are replayed: it failed in them, or its part is over. */
export interface SkippedFilter {
  /** Its index. */
  readonly filter: number;
  /** Its part in the connection is over, as after `accept()`. */
  readonly isOver: boolean;
}

const NO_FILTERS: readonly SkippedFilter[] = [];
const NO_PARTS: readonly FilterPart[] = [];
const BEFORE_BODY = -1;

export class FilterParts {
  readonly #chain: Chain;
  readonly #source: SessionSource;
  /** By filter index; made when a filter is first called. */
  #parts: (FilterPart | undefined)[];
  /** A filter has accepted, so there may be nothing left to do. */
  #hasAccepted = false;
  /**
   * Bytes of the body that all filters have room for that collect it and still take part in the message; infinity if none
   * does. Negative before the body.
   */
  bodyMark = BEFORE_BODY;
  /** Of filters with conditions; null if the chain has none. */
  readonly standings: Standings | null;
  /** Filters that take no part in replayed packets. */
  #skipped: readonly SkippedFilter[] = NO_FILTERS;

  constructor(chain: Chain, source: SessionSource & StandingSource) {
    this.#chain = chain;
    this.#source = source;
    this.#parts = new Array(chain.size);
    this.standings = chain.conditional.length === 0 ? null : new Standings(chain, source);
  }

  /** The session began elsewhere: these filters take no part in its replay. */
  skip(filters: readonly SkippedFilter[]): void {
    this.#skipped = filters;
  }

  /** No filter was called yet. */
  get isUnused(): boolean {
    return this.#parts.every((part) => part === undefined);
  }

  of(filter: ChainFilter): FilterPart {
    return (this.#parts[filter.index] ??= new FilterPart(filter, this.#source));
  }

  /** Ends the parts that were over before the session came here. */
  endSkipped(): void {
    for (const { filter, isOver } of this.#skipped) {
      const ended = isOver ? this.#chain.filters.find(({ index }) => index === filter) : undefined;
      if (ended === undefined) continue;
      this.of(ended).done = "connection";
      this.#hasAccepted = true;
    }
  }

  isSkipped({ filter }: FilterPart): boolean {
    return this.#skipped.some((skipped) => skipped.filter === filter.index);
  }

  /** Whether a filter's handler is called. */
  isCalled(part: FilterPart, phase: EventPhase, isRejectedRecipient: boolean): boolean {
    return (
      this.#isInvolved(part, phase, isRejectedRecipient) &&
      (this.standings === null || this.standings.calls(part.filter, phase))
    );
  }

  #isInvolved(part: FilterPart, phase: EventPhase, isRejectedRecipient: boolean): boolean {
    if (phase === PHASES.close) return true;
    // An unknown command belongs to no message, so a filter that has left the message is called all the same.
    if (part.done !== "no" && (part.done === "connection" || phase !== PHASES.unknown)) return false;
    if (phase === PHASES.body) return !part.skipsBody;
    return phase !== PHASES.envrcpt || !isRejectedRecipient || part.filter.loaded.rejectedRecipients;
  }

  /** A verdict ends a filter's part in the body, the message or the connection. */
  leave(part: FilterPart, { accepts, leaves }: Effect): void {
    if (leaves === "body") part.skipsBody = true;
    else if (leaves !== "nothing") part.done = leaves;
    if (accepts) this.#hasAccepted = true;
  }

  /** A filter leaves the message, since it cannot have the body. */
  leaveMessage(part: FilterPart): void {
    part.done = "message";
    this.#hasAccepted = true;
  }

  /** A filter has accepted, and no filter has anything left to do, or to send. */
  isAllAccepted(phase: PhaseInfo): boolean {
    return this.#hasAccepted && phase.scope !== "none" && !this.#hasChanges && !this.#hasWorkAfter(phase);
  }

  /** A change that counts was made to the message. */
  get #hasChanges(): boolean {
    return this.#parts.some((part) => part?.changes && !part.filter.isObserved);
  }

  /** The parts of the filters that are told what became of the message. */
  get tellsOutcome(): FilterPart[] {
    return this.#chain.tellsOutcome
      .filter((filter) => this.standings === null || this.standings.isTold(filter))
      .map((filter) => this.of(filter))
      .filter(({ done }) => done !== "connection");
  }

  #hasWorkAfter(phase: PhaseInfo): boolean {
    // The end of a message that was accepted before its end would not be known.
    const mayBeTold = (filter: ChainFilter) =>
      this.#parts[filter.index]?.done !== "connection" && this.takesPart(filter, phase);
    if (this.#chain.tellsOutcome.some(mayBeTold)) return true;
    return this.#chain.hasWorkAfter(phase, (filter) => {
      const done = this.#parts[filter.index]?.done ?? "no";
      if (!this.takesPart(filter, phase)) return true;
      return phase.scope === "connection" ? done === "connection" : done !== "no";
    });
  }

  /** A filter that takes part in the message reads the whole body. */
  get collectsBody(): boolean {
    return this.bodyMark !== Number.POSITIVE_INFINITY;
  }

  /** No filter has use for more of the body. */
  get isBodyUnwanted(): boolean {
    if (this.#chain.collectors.length > 0 && this.collectsBody) return false;
    return this.#chain.steps[PHASES.body.index]!.every(({ filter }) => {
      const part = this.#parts[filter.index];
      if (!this.takesPart(filter, PHASES.body)) return true;
      return part !== undefined && (part.skipsBody || part.done !== "no");
    });
  }

  /** Whether a filter has a part in what the phase is about, as far as its conditions say. */
  takesPart(filter: ChainFilter, phase: PhaseInfo): boolean {
    return this.standings === null || this.standings.takesPart(filter, phase);
  }

  /** The filter that refuses the recipient at hand for now, so that a message of its own is sent for it; null for none. */
  findSplitting(): ChainFilter | null {
    return this.standings!.findSplitting(({ index }) => (this.#parts[index]?.done ?? "no") !== "no");
  }

  /** The changes that count of the filters before this index, in chain order: a list of the caller's own. */
  changesBefore(index: number): FilterChanges[] {
    const layers: FilterChanges[] = [];
    for (let before = 0; before < index; before++) {
      const part = this.#parts[before];
      if (part?.changes && !part.filter.isObserved) layers.push(part.changes);
    }
    return layers;
  }

  /** All changes that count, in chain order. */
  allChanges(): FilterChanges[] {
    return this.changesBefore(this.#parts.length);
  }

  /** The parts of filters in observe mode that would have changed the message. */
  get observed(): readonly FilterPart[] {
    let found: FilterPart[] | null = null;
    for (const part of this.#parts) if (part?.changes && part.filter.isObserved) (found ??= []).push(part);
    return found ?? NO_PARTS;
  }

  /** The filter that quarantines the message, of several the last; null if none does. */
  findQuarantining(): ChainFilter | null {
    let found: ChainFilter | null = null;
    for (const part of this.#parts) if (part?.changes?.quarantine && !part.filter.isObserved) found = part.filter;
    return found;
  }

  endMessage(): void {
    this.bodyMark = BEFORE_BODY;
    this.standings?.endMessage();
    for (const part of this.#parts) part?.endMessage();
  }

  endSession(): void {
    this.standings?.beginSession();
    this.#parts = new Array(this.#chain.size);
    this.#hasAccepted = false;
  }
}
