/**
 * The chain of filters of one generation: its handlers by phase, and the negotiation that they need. To the mail server
 * the chain is a single milter.
 */
import { ACTION, ALL_ACTIONS, PROTOCOL } from "../protocol/constants.ts";
import { DEFAULT_MACROS, MAX_MACRO_NAMES, type Wants } from "../protocol/negotiate.ts";
import { PHASE_LIST, type Phase, type PhaseInfo, PHASES } from "../protocol/phases.ts";
import { UsageError } from "./errors.ts";
import type { Fallback } from "./fallback.ts";
import type { AnyHandler, LoadedFilter } from "./filter.ts";
import { MACRO_STAGES, type MacroPhase, type OverBody } from "./types.ts";

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

/** How the mail server is asked to treat a phase. */
export type Need =
  /** It is sent, and each time a reply is awaited. */
  | "reply"
  /** A handler runs; its verdict is given at `eom`, where the mail server allows it. */
  | "deferred"
  /** It is sent without a reply, since handlers of other phases read its values. */
  | "context"
  /** It is not sent. */
  | "none";

export class Chain {
  readonly filters: readonly ChainFilter[];
  readonly policy: ChainPolicy;
  /** By phase index. */
  readonly steps: readonly (readonly ChainStep[])[];
  readonly needs: Readonly<Record<Phase, Need>>;
  readonly wants: Wants;
  /** The filters that read whole bodies, in the order of the chain. */
  readonly collectors: readonly BodyCollector[];
  /** Some filter wants to see recipients that the mail server rejects itself. */
  readonly wantsRejected: boolean;

  constructor(filters: readonly ChainFilter[], policy: ChainPolicy) {
    this.filters = filters;
    this.policy = policy;
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
    this.wantsRejected = filters.some((filter) => filter.loaded.rejectedRecipients);
    this.needs = this.#findNeeds();
    this.wants = this.#findWants();
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

  #has(...phases: Phase[]): boolean {
    return phases.some((phase) => this.steps[PHASES[phase].index]!.length > 0);
  }

  #findNeeds(): Record<Phase, Need> {
    const need = (phase: Phase, ...readers: Phase[]): Need => {
      if (this.#has(phase)) return PHASES[phase].content && this.policy.deferContent ? "deferred" : "reply";
      return this.#has(...readers) ? "context" : "none";
    };
    const body = need("body");
    return {
      connect: need("connect", ...PHASE_LIST.map((phase) => phase.name)),
      helo: need("helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "abort", "close"),
      envfrom: need("envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "abort"),
      envrcpt: need("envrcpt", "data", "header", "eoh", "body", "eom", "abort"),
      data: need("data"),
      header: need("header", "eoh", "body", "eom", "abort"),
      eoh: need("eoh"),
      body: body === "none" && this.collectors.length > 0 ? "context" : body,
      eom: "reply",
      unknown: need("unknown"),
      abort: need("abort"),
      close: need("close"),
    };
  }

  #findWants(): Wants {
    let protocol = PROTOCOL.HDR_LEADSPC;
    for (const phase of PHASE_LIST) {
      const need = this.needs[phase.name];
      if (need === "none") protocol |= phase.no;
      if (need === "context" || need === "deferred") protocol |= phase.nr;
    }
    if (this.#has("body")) protocol |= PROTOCOL.SKIP;
    if (this.wantsRejected) protocol |= PROTOCOL.RCPT_REJ;
    const changes = this.#has("envfrom", "envrcpt", "data", "header", "eoh", "body", "eom");
    return { actions: changes ? ALL_ACTIONS : ACTION.SETSYMLIST, protocol, macros: this.#findMacros() };
  }

  #findMacros(): Wants["macros"] {
    if (!this.filters.some((filter) => Object.keys(filter.loaded.handlers).length > 0)) return {};
    // `v` tells Postfix from Sendmail, and with a queue id at CONNECT, whether Postfix made the session up
    // (docs/protocol.md, "Simulated sessions"). A client need not say EHLO again behind STARTTLS: then only MAIL brings the
    // macros of TLS.
    const lists: Partial<Record<string, string[]>> = {
      CONNECT: [...DEFAULT_MACROS.CONNECT, "v", "i"],
      ...(this.needs.envfrom !== "none" && { MAIL: [...DEFAULT_MACROS.MAIL, ...DEFAULT_MACROS.HELO] }),
    };
    for (const filter of this.filters) {
      for (const [phase, names] of Object.entries(filter.loaded.macros) as [MacroPhase, readonly string[]][]) {
        const stage = MACRO_STAGES[phase];
        const list = (lists[stage] ??= [...DEFAULT_MACROS[stage]]);
        list.push(...names.filter((name) => !list.includes(name)));
        if (list.length > MAX_MACRO_NAMES) {
          throw new UsageError(
            "PMILTER_ERR_MODULE",
            `the filters together ask for ${list.length} macros at ${phase}, defaults included; a mail server takes ${MAX_MACRO_NAMES}`,
          );
        }
      }
    }
    return lists;
  }
}
