/** What is decided when a handler cannot: it threw, or it was too slow. One policy, stated in the configuration. */
export const FALLBACKS = ["tempfail", "reject", "accept", "continue"] as const;
export type Fallback = (typeof FALLBACKS)[number];
