/** The verdict in place of a handler that threw or was too slow: a policy of the configuration. */
export const FALLBACKS = ["tempfail", "reject", "accept", "continue"] as const;
export type Fallback = (typeof FALLBACKS)[number];

/** A fallback as a reply: unless it refuses, the reply is continue. */
export type FallbackVerdict = "tempfail" | "reject" | "continue";

/**
 * The fallback for several filters of which none can decide any more: the strictest of theirs. `tempfail` comes before
 * `reject`, since it loses no mail. So no message passes that the configuration does not let pass.
 */
export function strictest(fallbacks: readonly Fallback[]): FallbackVerdict {
  if (fallbacks.includes("tempfail")) return "tempfail";
  return fallbacks.includes("reject") ? "reject" : "continue";
}
