/** What can be asked of a store. A key belongs to a filter, by its name; times are milliseconds. */

/** A value as the stores keep it: JSON. */
export type Json = string;

interface At {
  /** The name of the filter. */
  readonly filter: string;
  readonly key: string;
}

/** Values and windows (`take`) are apart: one key may have both. */
export type Operation =
  | ({ readonly kind: "get" } & At)
  | ({ readonly kind: "set"; readonly value: Json; readonly ttl: number | null } & At)
  | ({ readonly kind: "delete" } & At)
  | ({ readonly kind: "increment"; readonly by: number; readonly ttl: number | null } & At)
  | ({ readonly kind: "claim"; readonly ttl: number } & At)
  | ({ readonly kind: "take"; readonly limit: number; readonly per: number; readonly cost: number } & At)
  | ({ readonly kind: "giveBack"; readonly cost: number } & At)
  | {
      readonly kind: "entries";
      readonly filter: string;
      readonly prefix: string;
      /** Keys behind this one; null for all. */
      readonly after: string | null;
      readonly limit: number;
    };

export interface Taken {
  readonly ok: boolean;
  /** What is left of the limit in this window. */
  readonly remaining: number;
  /** Milliseconds until the window ends; 0 if it was taken. */
  readonly retryAfter: number;
}

/** The result of each operation. */
export interface ResultOf {
  get: Json | null;
  set: null;
  /** Whether it was there. */
  delete: boolean;
  /** The number after it. */
  increment: number;
  /** True for the first. */
  claim: boolean;
  take: Taken;
  giveBack: null;
  entries: readonly (readonly [key: string, value: Json])[];
}
export type Result = ResultOf[Operation["kind"]];

/** What a store says of an operation that cannot be done. */
export class StoreFailure extends Error {
  override readonly name = "StoreFailure";
}

/** `increment` of a value that is no number. */
export function noNumber(key: string): StoreFailure {
  return new StoreFailure(`the value of ${JSON.stringify(key)} is no number, it cannot be incremented`);
}

/** Most entries that are given at once. */
export const MAX_ENTRIES = 1000;

/** A store on this machine. Each list of operations is done as a whole, in order: when it returns, it is kept. */
export interface LocalStore {
  /** @param now Unix time in milliseconds @returns for each operation its result, or why it was not done */
  run(operations: readonly Operation[], now: number): readonly (Result | StoreFailure)[];
  close(): void;
}

/** What is left of a window, after something was or was not taken. */
export function takenOf(used: number, limit: number, ok: boolean, endsIn: number): Taken {
  return { ok, remaining: Math.max(0, limit - used), retryAfter: ok ? 0 : Math.max(0, endsIn) };
}

/** Whether a key comes behind another, in the order of entries: that of their bytes. */
export function isBehind(key: string, other: string): boolean {
  return Buffer.compare(Buffer.from(key), Buffer.from(other)) > 0;
}
