/**
 * The chain of a worker that stands in while no other can take sessions: it runs no handler of the configuration. It gives
 * the fallback to each connection that begins with it, and to each message of a session that began elsewhere.
 */
import type { Config } from "../config/config.ts";
import { Chain } from "../handler/chain.ts";
import type { FallbackVerdict } from "../handler/fallback.ts";
import { checkFilter } from "../handler/filter.ts";
import { reject, tempfail } from "../handler/verdict.ts";
import { policyOf } from "../load/loader.ts";

const NAME = "stand-in";

export function standInChain(outcome: FallbackVerdict, config: Config): Chain {
  const policy = policyOf(config);
  // What is let pass needs no filter, and is not even sent here.
  if (outcome === "continue") return new Chain([], policy);
  const verdict = outcome === "reject" ? () => reject() : () => tempfail();
  const filter = {
    index: 0,
    loaded: checkFilter({ name: NAME, connect: verdict, envfrom: verdict }, NAME),
    onError: outcome,
    onTimeout: outcome,
    timeoutMs: null,
    isObserved: false,
    options: {},
    own: undefined,
    files: {},
  };
  return new Chain([filter], policy);
}
