/**
 * The chain of filters of one generation: its handlers by phase, and the negotiation that they need. To the mail server
 * the chain is a single milter.
 */
import type { Wants } from "../protocol/negotiate.ts";
import { PHASE_LIST, PHASE_NAMES, type Phase, type PhaseInfo, PHASES } from "../protocol/phases.ts";
import { CLIENT_RESOLVE, type Conditions, type SessionScope, type SessionStart } from "./conditions.ts";
import type { Fallback } from "./fallback.ts";
import type { AnyHandler, LoadedFilter } from "./filter.ts";
import { type FilterNeeds, type Need, needsOf, takesPart, wantsOf } from "./needs.ts";
import type { OverBody } from "./types.ts";

/** A filter with its place in the configuration. */
export interface ChainFilter {
  readonly index: number;
  readonly loaded: LoadedFilter;
  readonly onError: Fallback;
  readonly onTimeout: Fallback;
  /** Milliseconds that a call of this filter may take; null for all the time that the chain has left. */
  readonly timeoutMs: number | null;
  readonly isObserved: boolean;
  readonly options: unknown;
  /** What its `start()` returned in this thread; undefined until then. Each place has its own, also of the same module. */
  own: unknown;
  /** The file that a phase's handler was loaded from, for logs. */
  readonly files: Readonly<Partial<Record<Phase, string>>>;
  /** The sessions that it takes part in; null for all. */
  readonly scope?: SessionScope | null;
  /** Its conditions that are known after negotiation; null if it has none. */
  readonly conditions?: Conditions | null;
}

export interface ChainStep {
  readonly filter: ChainFilter;
  readonly handler: AnyHandler;
}

/** A filter that reads whole bodies. */
export interface BodyCollector {
  readonly filter: ChainFilter;
  /** Bytes of the largest body that it gets. */
  readonly max: number;
  /** The configuration alone limits it. */
  readonly isLimit: boolean;
  readonly over: OverBody;
}

export interface Limits {
  readonly packet: number;
  readonly headers: number;
  readonly headerBytes: number;
  readonly recipients: number;
  readonly macros: number;
  readonly body: number;
}

/** Settings for all filters. */
export interface ChainPolicy {
  /** Fallback where no filter is to blame: a limit. */
  readonly onError: Fallback;
  /** Milliseconds that the chain may await at a phase. */
  readonly handlerTimeoutMs: number;
  /** The same at `eom`. */
  readonly eomTimeoutMs: number;
  readonly deferContent: boolean;
  readonly limits: Limits;
}

export class Chain {
  /** Those that take part, in order: in a session without some of them `index` still is the place among all. */
  readonly filters: readonly ChainFilter[];
  readonly policy: ChainPolicy;
  /** One more than the highest index of a filter. */
  readonly size: number;
  /** By phase index. */
  readonly steps: readonly (readonly ChainStep[])[];
  /** What each of the filters needs of the mail server. */
  readonly filterNeeds: readonly FilterNeeds[];
  readonly needs: Readonly<Record<Phase, Need>>;
  readonly wants: Wants;
  /** The filters that read whole bodies, in the order of the chain. */
  readonly collectors: readonly BodyCollector[];
  /** The filters that are told what became of a message. */
  readonly tellsOutcome: readonly ChainFilter[];
  /** Some filter wants to see recipients that the mail server rejects itself. */
  readonly wantsRejected: boolean;
  /** The filters with conditions that are known after negotiation. */
  readonly conditional: readonly ChainFilter[];
  /** Some of those have a message split by its recipients. */
  readonly splits: boolean;

  constructor(filters: readonly ChainFilter[], policy: ChainPolicy) {
    this.filters = filters;
    this.policy = policy;
    this.size = (filters.at(-1)?.index ?? -1) + 1;
    this.steps = PHASE_LIST.map((phase) =>
      filters.flatMap((filter) => {
        const handler = filter.loaded.handlers[phase.name];
        return handler === undefined ? [] : [{ filter, handler }];
      }),
    );
    this.collectors = filters.flatMap((filter) => {
      const { collectBody } = filter.loaded;
      if (collectBody === null) return [];
      const { max, over } = collectBody;
      return [{ filter, max: max ?? policy.limits.body, isLimit: max === null, over }];
    });
    this.tellsOutcome = filters.filter((filter) => filter.loaded.outcome !== null);
    const all = filters.map(needsOfFilter);
    this.filterNeeds = all;
    this.wantsRejected = all.some(({ wantsRejected }) => wantsRejected);
    this.needs = needsOf(all, policy.deferContent);
    this.wants = wantsOf(all, this.needs);
    this.conditional = filters.filter(({ conditions }) => conditions != null);
    this.splits = this.conditional.some(isSplitting);
  }

  /** True if a filter that still takes part has a handler that may yet run, at this phase again or later. */
  hasWorkAfter(phase: PhaseInfo, isDone: (filter: ChainFilter) => boolean): boolean {
    const from = phase === PHASES.connect ? phase.index + 1 : phase.index;
    return this.filters.some(
      (filter) =>
        !isDone(filter) &&
        PHASE_LIST.some((later) => {
          if (filter.loaded.handlers[later.name] === undefined || later === PHASES.close) return false;
          // A message's verdict does not end UNKNOWN commands; a connection's does.
          if (later === PHASES.unknown) return phase.scope === "connection";
          return later.index >= from;
        }),
    );
  }
}

/** Whether a filter refuses recipients for now that it judges otherwise than the first. In observe mode it refuses none. */
export function isSplitting({ conditions, isObserved }: ChainFilter): boolean {
  return conditions?.recipient != null && conditions.recipientsMatch === "split" && !isObserved;
}

function needsOfFilter(filter: ChainFilter): FilterNeeds {
  const { conditions = null, loaded, scope = null } = filter;
  const reads: Phase[] = [];
  if (conditions?.helo != null) reads.push("helo");
  if (conditions?.message != null) reads.push("envfrom");
  if (conditions?.recipient != null) reads.push("envfrom", "envrcpt");
  // Only Sendmail has the macro: it shows names of clients that are not confirmed.
  const asked = loaded.macros.connect ?? [];
  const macros = conditions?.readsClientName
    ? { ...loaded.macros, connect: [...asked.filter((name) => name !== CLIENT_RESOLVE), CLIENT_RESOLVE] }
    : loaded.macros;
  return {
    name: loaded.name,
    phases: [
      ...PHASE_NAMES.filter((phase) => loaded.handlers[phase] !== undefined),
      ...(loaded.outcome === null ? [] : (["outcome"] as const)),
    ],
    reads,
    answers: isSplitting(filter) ? ["envrcpt"] : [],
    collectsBody: loaded.collectBody !== null,
    wantsRejected: loaded.rejectedRecipients,
    macros,
    scope,
  };
}

/** Number of chains that are kept for sessions to come. */
const MAX_KEPT = 256;

/** The chains of a generation: each session has the filters that take part in it. */
export class Chains {
  readonly whole: Chain;
  readonly #isSame: boolean;
  /** By the indexes of their filters. */
  readonly #known = new Map<string, Chain>();

  constructor(whole: Chain) {
    this.whole = whole;
    this.#isSame = whole.filterNeeds.every(({ scope }) => scope === null);
  }

  for(session: SessionStart): Chain {
    if (this.#isSame) return this.whole;
    const filters = this.whole.filters.filter((_, index) => takesPart(this.whole.filterNeeds[index]!, session));
    if (filters.length === this.whole.filters.length) return this.whole;
    const key = filters.map(({ index }) => index).join();
    let chain = this.#known.get(key);
    if (chain === undefined) {
      if (this.#known.size === MAX_KEPT) this.#known.clear();
      chain = new Chain(filters, this.whole.policy);
      this.#known.set(key, chain);
    }
    return chain;
  }
}
