/** The servers that `wire` puts under load. */
import type { Peer } from "../support/peers.ts";
import { type HandlerSet, type RunningServer, startBare, startReal } from "../support/servers.ts";
import type { Plan } from "../support/suite.ts";

export interface Variant {
  readonly name: string;
  readonly role: "pmilter" | "peer" | "limit";
  readonly start: (plan: Plan) => Promise<RunningServer>;
  /** Changes that it makes to each message. */
  readonly changes: number;
  /** Its code is compiled while it runs. */
  readonly isCompiling: boolean;
  /** The name of the variant that it is compared with: the bare loop of the same negotiation. */
  readonly limit: string | null;
}

function ours(name: string, handlers: HandlerSet, changes: number, limit: string | null): Variant {
  const start = (plan: Plan) => startReal({ handlers, workers: plan.workers, signal: plan.signal });
  return { name: `pmilter, ${name}`, role: "pmilter", start, changes, isCompiling: true, limit };
}

function bare(name: string, handlers: HandlerSet): Variant {
  const start = (plan: Plan) => startBare({ handlers, workers: plan.workers, signal: plan.signal });
  return { name, role: "limit", start, changes: 1, isCompiling: true, limit: null };
}

export const BARE_TEN = bare("bare loop, as for ten", "ten");
export const BARE_EOM = bare("bare loop, as for eom only", "eom");
export const TEN = ours("ten handlers", "ten", 1, BARE_TEN.name);
export const EOM_ONLY = ours("eom only", "eom", 1, BARE_EOM.name);

export const OURS: readonly Variant[] = [
  TEN,
  EOM_ONLY,
  ours("ten in Ruby", "ruby", 1, BARE_TEN.name),
  ours("printing examples", "examples", 1, null),
  ours("body collected", "collect", 1, null),
  ours("empty filter", "empty", 0, null),
  BARE_TEN,
  BARE_EOM,
];

export function peerVariant({ title, isLimit, start }: Peer): Variant {
  return {
    name: title,
    role: isLimit ? "limit" : "peer",
    start: (plan) => start(plan.signal),
    changes: 1,
    isCompiling: false,
    limit: null,
  };
}

/** Before a measurement: code that was compiled before, or is only interpreted, has settled after `peerMs`. */
export function warmUpOf(
  { settleMs, warmMs }: Plan,
  { isCompiling }: Variant,
  peerMs: number,
): Pick<Plan, "warmMs" | "settleMs"> {
  return isCompiling ? { warmMs, settleMs } : { warmMs: Math.min(warmMs, peerMs), settleMs: 0 };
}
