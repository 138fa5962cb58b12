/** Every message between the main thread and a worker, both directions. */
import type { Judgement } from "../check/judge.ts";
import type { Config } from "../config/config.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { PeerName } from "../net/peer.ts";
import type { ConnectionTableLayout } from "./connection-table.ts";
import type { SessionRecordsLayout } from "./session-records.ts";
import type { ServicesLine } from "./service-messages.ts";
import type { NoSpoolLine, SpoolLine } from "./spool-messages.ts";
import type { WorkerRowsLayout } from "./worker-rows.ts";
import type { ChainNeeds, Need } from "../handler/needs.ts";
import type { SkippedFilter } from "../handler/filter-parts.ts";
import type { CallTime } from "../handler/filter-times.ts";
import type { Fallback, FallbackVerdict } from "../handler/fallback.ts";
import type { Wants } from "../protocol/negotiate.ts";
import type { Phase } from "../protocol/phases.ts";
import type { Resumption } from "../protocol/resumption.ts";
import type { SessionStart } from "../handler/conditions.ts";
import type { Report } from "../handler/report.ts";
import type { LoadFailure } from "../handler/load-failure.ts";
import type { Sources } from "../load/sources.ts";

/** A listening socket of the main thread, for workers to accept by. */
export interface ListeningSocket {
  /** The main thread's own: it lives as long as connections are accepted. Who accepts by it makes a duplicate. */
  readonly descriptor: number;
  /** Where it listens, for logs. */
  readonly name: string;
  /** Its place among all, and its address as the configuration has it, in normal form. */
  readonly index: number;
  readonly configured: string;
  readonly isUnix: boolean;
  /** Connections that may wait to be accepted. */
  readonly backlog: number;
}

/** A connection that others are to have than the worker that accepted it. */
export interface PassedConnection {
  /** Its place in the connection table; -1 if none was free. */
  readonly slot: number;
  /** Its duplicate descriptor, which the receiver closes. */
  readonly duplicate: number;
  readonly peer: PeerName;
  /** Index of the listening socket that it came to. */
  readonly listener: number;
}

/** What a generation's filters turned out to be. */
export interface ChainSummary extends Wants, ChainNeeds {
  readonly filters: readonly {
    readonly name: string;
    readonly phases: readonly Phase[];
    readonly hasOutcome: boolean;
    readonly isObserved: boolean;
    readonly onError: Fallback;
    readonly onTimeout: Fallback;
    /** The file of each phase's handler. */
    readonly files: Readonly<Partial<Record<Phase, string>>>;
  }[];
  readonly needs: Readonly<Record<Phase, Need>>;
}

/** A session as another worker left it. */
export interface ResumedSession extends Resumption {
  readonly skippedFilters: readonly SkippedFilter[];
}

export type ToWorker =
  /** Load the handlers, start the filters, and answer `ready` or `failed`. */
  | {
      readonly kind: "serve";
      /** Its row in `WorkerRows` and in the connection table. */
      readonly row: number;
      /** The generation that it belongs to. */
      readonly generation: number;
      readonly config: Config;
      readonly workerRows: WorkerRowsLayout;
      readonly records: SessionRecordsLayout;
      readonly table: ConnectionTableLayout;
      /** Where connections come in, for when it is told to listen. */
      readonly listeningSockets: readonly ListeningSocket[];
      /** What to load the handlers from; null for the first worker of a generation, which reads them. */
      readonly sources: Sources | null;
      /** The server starts: Ruby handlers that do not load are taken as in the original, see `compileScripts` in `src/ruby`. */
      readonly isFirst: boolean;
      /** Not null: load no handler, and give every connection this. */
      readonly standIn: FallbackVerdict | null;
    }
  /** Load the handlers, start and stop the filters if so told, and answer `ready` or `failed`, nothing else. */
  | { readonly kind: "check"; readonly config: Config; readonly starts: boolean }
  /** Judge the handlers of a snapshot without running them, with an empty folder for it, and answer `judged` or `failed`. */
  | { readonly kind: "judge"; readonly config: Config; readonly sources: Sources; readonly folder: string }
  /** Load a module and call its default export (a dry run only loads it), and answer `done` or `failed`. */
  | {
      readonly kind: "call";
      readonly file: string;
      /** What to load it from; null to read it. */
      readonly sources: Sources | null;
      readonly isDry: boolean;
    }
  /** Load the handlers and start the filters, for sessions that come by messages, and answer `ready` or `failed`. */
  | {
      readonly kind: "try";
      readonly config: Config;
      /** What each session begins with. */
      readonly start: SessionStart;
      /** One row, and one slot. */
      readonly workerRows: WorkerRowsLayout;
      readonly records: SessionRecordsLayout;
      /** What to load the handlers from; null to read them. */
      readonly sources: Sources | null;
    }
  /** After `try`: a session begins, or goes on that began in another worker. The one before it has ended. */
  | { readonly kind: "open"; readonly resume: ResumedSession | null }
  /** After `open`: the mail server has sent bytes. */
  | { readonly kind: "read"; readonly bytes: Uint8Array }
  /** After `open`: the mail server has closed the connection. */
  | { readonly kind: "hangUp" }
  /** Accept connections; these are the rows of all workers that take sessions. */
  | { readonly kind: "listen"; readonly rows: readonly number[] }
  /** Accept no more, until told to. */
  | { readonly kind: "pause" }
  /** Take over a connection; the descriptor is the worker's from now on. */
  | {
      readonly kind: "adopt";
      readonly slot: number;
      readonly descriptor: number;
      readonly peer: PeerName;
      /** The session goes on in this worker: it was negotiated, and began, in another. */
      readonly resume: ResumedSession | null;
    }
  /**
   * From now on give up sessions that are between messages, if what was negotiated for them suffices for another generation
   * with these needs; each is told as `released`.
   */
  | { readonly kind: "release"; readonly needs: ChainNeeds }
  /** A session that was released has gone on elsewhere; the worker does not end before it knows, lest it has to come back. */
  | { readonly kind: "moved"; readonly slot: number }
  /** How it reaches the thread of the spool, as it asked. */
  | ({ readonly kind: "spool" } & (SpoolLine | NoSpoolLine))
  /** How it reaches the services thread, as it asked. */
  | { readonly kind: "services"; readonly line: ServicesLine }
  /** So much of the worker's text was taken, see `Outbox`. */
  | { readonly kind: "taken"; readonly size: number }
  /** End: when the last session has ended, or at once. Answered with `ended`. */
  | { readonly kind: "end"; readonly atOnce: boolean };

export type FromWorker =
  /** The first worker of a generation has read the sources, and is about to load them: that may take its time. */
  | { readonly kind: "sources"; readonly sources: Sources }
  /** A file is about to be loaded, options checked, or a `start()` called. This is what failed, should it not return. */
  | { readonly kind: "starting"; readonly failure: LoadFailure }
  /** It has a body that is too large for memory, and no line to the thread of the spool, or none any more. */
  | { readonly kind: "spool" }
  /** It asks DNS or store something, and has no line to the services thread, or none any more. */
  | { readonly kind: "services" }
  | { readonly kind: "ready"; readonly summary: ChainSummary }
  | { readonly kind: "failed"; readonly failure: LoadFailure }
  | {
      readonly kind: "done";
      /** What the module was loaded from. */
      readonly sources: Sources;
    }
  | { readonly kind: "judged"; readonly judgement: Judgement }
  /** The worker's own descriptor of a connection is closed, and the connection lives on: see {@link ToWorker} `release`. */
  | { readonly kind: "released"; readonly slot: number }
  /** A connection that it accepted and may not keep, or that is more than its share. */
  | { readonly kind: "accepted"; readonly passed: PassedConnection }
  /** It accepts connections, as it was told to. */
  | { readonly kind: "listening" }
  /** It accepts no more, and was not told to pause. */
  | { readonly kind: "paused" }
  /** A slot is free that somebody waited for. */
  | { readonly kind: "room" }
  | {
      readonly kind: "log";
      readonly level: LogLevel;
      readonly text: string;
      readonly fields: Readonly<Record<string, unknown>>;
      /** Written for the first worker of a generation that says it; null: each time. */
      readonly once?: string | null;
      /** Of lines that may come in great numbers: see `Log.write`. */
      readonly of?: string | undefined;
    }
  /** After `open`: the bytes of the next `read` are about to be worked on. Should the worker be lost to them, its record has them. */
  | { readonly kind: "took"; readonly times: readonly CallTime[] }
  /** After `open`: replies to the mail server. */
  | { readonly kind: "written"; readonly bytes: Uint8Array }
  /** After `open`: what a filter did. */
  | { readonly kind: "report"; readonly report: Report }
  /** The session of `open` has ended: its connection is closed. */
  | { readonly kind: "hungUp"; readonly times: readonly CallTime[] }
  /** What a handler printed: whole lines. */
  | { readonly kind: "print"; readonly text: string }
  /** A handler ends this worker, which does nothing any more: its sessions are to go on elsewhere. */
  | { readonly kind: "exiting"; readonly reason: string }
  | { readonly kind: "ended" };
