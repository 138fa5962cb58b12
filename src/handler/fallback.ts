/** What is decided when a handler cannot: it threw, or it was too slow. One policy, stated in the configuration. */
export const FALLBACKS = ["tempfail", "reject", "accept", "continue"] as const;
export type Fallback = (typeof FALLBACKS)[number];

/** A fallback as the mail server is told of it: where nothing is refused, the message goes on. */
export type FallbackVerdict = "tempfail" | "reject" | "continue";

/**
 * What becomes of what several filters were to decide and none can any more: the strictest that the configuration says
 * for any of them, `tempfail` before `reject`, since it loses nothing. So nothing passes that no one chose to let pass.
 */
export function strictest(fallbacks: readonly Fallback[]): FallbackVerdict {
  if (fallbacks.includes("tempfail")) return "tempfail";
  return fallbacks.includes("reject") ? "reject" : "continue";
}
