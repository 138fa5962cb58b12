/** Every message between the benchmark and a load generator, both directions. */
import type { MailShape } from "../support/traffic.ts";
import type { LatencyCounts } from "./latency.ts";

/** The course of a connection. */
export type LoadKind =
  /** Message after message, so many for each connection, then a new connection. */
  | "mail"
  /** Connect, negotiate, QUIT, and again: connections a second. */
  | "visits"
  /** Connect, negotiate, CONNECT, HELO, and nothing more until a message of each is asked for. */
  | "idle";

export interface LoadRequest {
  readonly kind: LoadKind;
  readonly socket: string;
  /** The server, for its processor time. */
  readonly pid: number;
  readonly connections: number;
  /** So many may be on the way at a time, not negotiated yet: no backlog overflows. */
  readonly opening: number;
  readonly messagesPerConnection: number;
  /** One after the other, over all connections; not 0. */
  readonly mails: readonly MailShape[];
  /** Changes that the filter makes to each message. */
  readonly changes: number;
  /** A CONTINUE may come after QUIT, from a peer that replies to it by mistake. */
  readonly answersQuit: boolean;
  readonly warmMs: number;
  /** So many messages are begun a second, evenly; null: as many as go. */
  readonly perSecond: number | null;
}

export type ToGenerator =
  | { readonly kind: "start"; readonly request: LoadRequest }
  | { readonly kind: "measure"; readonly ms: number }
  /** Of `idle`: a message on each connection that rests; `warm` comes again when all do. */
  | { readonly kind: "round" };

export interface LoadResult {
  readonly seconds: number;
  /** Messages (of `visits`: connections) that were completed, each reply right; with the parts of those on the way. */
  readonly completed: number;
  readonly latencies: LatencyCounts;
  readonly serverCpuMicros: number;
  readonly serverPeakBytes: number;
  /** Of the generator itself: near the seconds, and the generator was the limit. */
  readonly ownCpuMicros: number;
}

export type FromGenerator =
  /** All connections are open, and those with work have been at it for `warmMs`; of `idle`: all rest. */
  | { readonly kind: "warm" }
  | { readonly kind: "result"; readonly result: LoadResult }
  | { readonly kind: "failed"; readonly message: string };
