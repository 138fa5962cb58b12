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

/** Entries in the order of their keys. */
export interface Page {
  readonly found: readonly (readonly [key: string, value: Json])[];
  /** There may be others behind them, which were not looked for: the page is full. */
  readonly isFull: boolean;
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
  entries: Page;
}
export type Result = ResultOf[Operation["kind"]];

/** What a store says of an operation that cannot be done. */
export class StoreFailure extends Error {
  override readonly name = "StoreFailure";
  /** The value is the reason, not the store. */
  readonly isOfValue: boolean;

  constructor(message: string, { isOfValue = false }: { readonly isOfValue?: boolean } = {}) {
    super(message);
    this.isOfValue = isOfValue;
  }
}

/** `increment` of a value that is no number. */
export function noNumber(key: string): StoreFailure {
  return new StoreFailure(`the value of ${JSON.stringify(key)} is no number, it cannot be incremented`, {
    isOfValue: true,
  });
}

/**
 * Adds to a number. Beyond the whole numbers that a double holds, an addition of 1 could change nothing.
 * @throws StoreFailure
 */
export function added(key: string, before: unknown, by: number): number {
  if (typeof before !== "number") throw noNumber(key);
  const after = before + by;
  if (Math.abs(after) > Number.MAX_SAFE_INTEGER) throw tooLarge(key);
  return after;
}

/** `increment` beyond what is exact. */
export function tooLarge(key: string): StoreFailure {
  return new StoreFailure(`the value of ${JSON.stringify(key)} would be beyond 2^53 - 1, it cannot be incremented`, {
    isOfValue: true,
  });
}

/** Most entries that a filter gets. */
export const MAX_ENTRIES = 1000;
/** Bytes of values of a page: it ends with the value that reaches them. */
export const PAGE_BYTES = 1024 * 1024;

/** The first entries that fit a page. @param limit most of them */
export function pageOf(entries: Iterable<readonly [key: string, value: Json]>, limit: number): Page {
  const found: (readonly [string, Json])[] = [];
  let bytes = 0;
  for (const entry of entries) {
    found.push(entry);
    bytes += entry[1].length;
    if (found.length === limit || bytes >= PAGE_BYTES) return { found, isFull: true };
  }
  return { found, isFull: false };
}

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
