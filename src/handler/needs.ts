/**
 * The needs of filters, and the negotiation that they lead to. Filters are plain data here, so that the main thread and the
 * workers of another generation can tell what a session needs of a chain that they have not loaded.
 */
import { ACTION, ALL_ACTIONS, PROTOCOL } from "../protocol/constants.ts";
import { DEFAULT_MACROS, MAX_MACRO_NAMES, type Wants } from "../protocol/negotiate.ts";
import { PHASE_LIST, type Phase, PHASES } from "../protocol/phases.ts";
import { isInScope, type SessionScope, type SessionStart } from "./conditions.ts";
import { UsageError } from "../usage-error.ts";
import { type CallPhase, MACRO_STAGES, type MacroPhase } from "./types.ts";

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

/** What a filter needs of the mail server. */
export interface FilterNeeds {
  /** Its name. */
  readonly name: string;
  /** The phases that it has a handler for; `outcome` among them if it is told of messages. */
  readonly phases: readonly CallPhase[];
  /** Phases whose values its conditions read. */
  readonly reads: readonly Phase[];
  /** Phases that its conditions may answer, without a handler. */
  readonly answers: readonly Phase[];
  readonly collectsBody: boolean;
  /** It wants to see recipients that the mail server rejects itself. */
  readonly wantsRejected: boolean;
  readonly macros: Readonly<Partial<Record<MacroPhase, readonly string[]>>>;
  /** The sessions that it takes part in; null for all. */
  readonly scope: SessionScope | null;
}

/** All filters of a generation. */
export interface ChainNeeds {
  readonly all: readonly FilterNeeds[];
  readonly deferContent: boolean;
}

/** Whether a filter takes part in a session. */
export function takesPart({ name, scope }: Pick<FilterNeeds, "name" | "scope">, session: SessionStart): boolean {
  return scope === null || isInScope(scope, name, session);
}

/** What a session wants to negotiate. */
export function wantsFor({ all, deferContent }: ChainNeeds, session: SessionStart): Wants {
  const filters = all.filter((filter) => takesPart(filter, session));
  return wantsOf(filters, needsOf(filters, deferContent));
}

/** The phases behind which each phase's values may be read. */
const READERS: Readonly<Partial<Record<Phase, readonly CallPhase[]>>> = {
  connect: [...PHASE_LIST.map((phase) => phase.name), "outcome"],
  helo: ["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "abort", "close", "outcome"],
  envfrom: ["envrcpt", "data", "header", "eoh", "body", "eom", "abort", "outcome"],
  envrcpt: ["data", "header", "eoh", "body", "eom", "abort", "outcome"],
  header: ["eoh", "body", "eom", "abort", "outcome"],
};

export function needsOf(filters: readonly FilterNeeds[], deferContent: boolean): Record<Phase, Need> {
  const has = (phase: CallPhase) => filters.some(({ phases }) => phases.includes(phase));
  const need = (phase: Phase): Need => {
    if (has(phase)) return PHASES[phase].content && deferContent ? "deferred" : "reply";
    if (filters.some(({ answers }) => answers.includes(phase))) return "reply";
    const isRead = filters.some(({ reads }) => reads.includes(phase)) || READERS[phase]?.some(has) === true;
    return isRead ? "context" : "none";
  };
  const needs = Object.fromEntries(PHASE_LIST.map(({ name }) => [name, need(name)])) as Record<Phase, Need>;
  if (needs.body === "none" && filters.some(({ collectsBody }) => collectsBody)) needs.body = "context";
  return { ...needs, eom: "reply" };
}

export function wantsOf(filters: readonly FilterNeeds[], needs: Readonly<Record<Phase, Need>>): Wants {
  const has = (...names: Phase[]) => filters.some(({ phases }) => names.some((name) => phases.includes(name)));
  let protocol = PROTOCOL.HDR_LEADSPC;
  for (const phase of PHASE_LIST) {
    const need = needs[phase.name];
    if (need === "none") protocol |= phase.no;
    if (need === "context" || need === "deferred") protocol |= phase.nr;
  }
  if (has("body")) protocol |= PROTOCOL.SKIP;
  if (filters.some(({ wantsRejected }) => wantsRejected)) protocol |= PROTOCOL.RCPT_REJ;
  const changes = has("envfrom", "envrcpt", "data", "header", "eoh", "body", "eom");
  return { actions: changes ? ALL_ACTIONS : ACTION.SETSYMLIST, protocol, macros: macrosOf(filters, needs) };
}

function macrosOf(filters: readonly FilterNeeds[], needs: Readonly<Record<Phase, Need>>): Wants["macros"] {
  if (!filters.some(({ phases }) => phases.length > 0)) return {};
  // `v` tells Postfix from Sendmail, and with a queue id at CONNECT, whether Postfix made the session up
  // (docs/protocol.md, "Simulated sessions"). A client need not say EHLO again behind STARTTLS: then only MAIL brings the
  // macros of TLS.
  const lists: Partial<Record<string, string[]>> = {
    CONNECT: [...DEFAULT_MACROS.CONNECT, "v", "i"],
    ...(needs.envfrom !== "none" && { MAIL: [...DEFAULT_MACROS.MAIL, ...DEFAULT_MACROS.HELO] }),
  };
  for (const filter of filters) {
    for (const [phase, names] of Object.entries(filter.macros) as [MacroPhase, readonly string[]][]) {
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
