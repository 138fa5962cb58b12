/** Every message between the main thread and a worker, both directions. */
import type { Config } from "../config/config.ts";
import type { LedgerLayout } from "../ledger.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { Need } from "../handler/chain.ts";
import type { Phase } from "../protocol/phases.ts";
import type { LoadFailure } from "./loader.ts";

/** What a generation's filters turned out to be. */
export interface ChainSummary {
  readonly filters: readonly {
    readonly name: string;
    readonly phases: readonly Phase[];
    readonly isObserved: boolean;
  }[];
  readonly needs: Readonly<Record<Phase, Need>>;
  readonly actions: number;
  readonly protocol: number;
  readonly macros: Readonly<Partial<Record<string, readonly string[]>>>;
}

/** A peer, for logs: `inet:127.0.0.1:40000`, or the socket's path. */
export type PeerName = string;

export type ToWorker =
  /** Load the handlers, start the filters, and answer `ready` or `failed`. */
  | { readonly kind: "serve"; readonly index: number; readonly config: Config; readonly ledger: LedgerLayout }
  /** Load the handlers and answer `ready` or `failed`, nothing else. */
  | { readonly kind: "check"; readonly config: Config }
  /** Call the default export of a module, and answer `done` or `failed`. */
  | { readonly kind: "call"; readonly file: string }
  /** Take over a connection; the descriptor is the worker's from now on. */
  | { readonly kind: "adopt"; readonly slot: number; readonly descriptor: number; readonly peer: PeerName }
  /** End: when the last session has ended, or at once. Answered with `ended`. */
  | { readonly kind: "end"; readonly atOnce: boolean };

export type FromWorker =
  | { readonly kind: "ready"; readonly summary: ChainSummary }
  | { readonly kind: "failed"; readonly failure: LoadFailure }
  | { readonly kind: "done" }
  /** The worker's copy of a connection is closed. */
  | { readonly kind: "closed"; readonly slot: number }
  | {
      readonly kind: "log";
      readonly level: LogLevel;
      readonly text: string;
      readonly fields: Readonly<Record<string, unknown>>;
    }
  /** What a handler printed: whole lines. */
  | { readonly kind: "print"; readonly text: string }
  | { readonly kind: "ended" };
