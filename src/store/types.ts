/** The types of `session.store`. */
import type { JsonValue } from "../json.ts";

/**
 * How long a value is kept.
 * @example await session.store.set(key, true, { ttl: "36d" });
 */
export interface KeepOptions {
  /** Seconds, or text such as `"10m"`; without it for ever. */
  readonly ttl?: number | string;
}

/**
 * A limit in a period.
 * @example await session.store.take(session.auth.authen, { limit: 100, per: "1h", cost: message.recipients.length });
 */
export interface TakeOptions {
  /** How much there is in a window. */
  readonly limit: number;
  /** The length of a window: seconds, or text such as `"1h"`. A window begins with its first use. */
  readonly per: number | string;
  /** How much is taken; default 1. */
  readonly cost?: number;
}

/**
 * Whether something could be taken.
 * @example if (!ok) return tempfail(`451 4.7.1 Too many messages, try again in ${retryAfter} s`);
 */
export interface TakeResult {
  /** All of the cost was taken, else none of it. */
  readonly ok: boolean;
  /** What is left in this window. */
  readonly remaining: number;
  /** Seconds until the window ends, rounded up; 0 if it was taken. */
  readonly retryAfter: number;
}

/**
 * A part of the entries.
 * @example const more = await session.store.entries("known:", { after: entries.at(-1)![0] });
 */
export interface EntriesOptions {
  /** How many at most; default and maximum 1,000. */
  readonly limit?: number;
  /** Only entries with keys behind this one. */
  readonly after?: string;
}

/**
 * What a filter remembers: JSON values by key, for all workers, all generations of its code, and with Redis or Valkey for all
 * machines. It belongs to the filter by its name. A key is text of at most 512 bytes, a value has at most 64 KB as JSON.
 * What a call has acknowledged is kept. A call that is not done within `store.timeout` rejects with StoreError: then it is
 * not known whether it was done. Values and windows are apart: a key may have both.
 * @example
 * const { ok } = await session.store.take(session.client.address, { limit: 20, per: "1m" });
 * if (!ok) return tempfail();
 */
export interface Store {
  /** The value, undefined if there is none. */
  get(key: string): Promise<JsonValue | undefined>;
  set(key: string, value: JsonValue, options?: KeepOptions): Promise<void>;
  /** @returns whether there was a value */
  delete(key: string): Promise<boolean>;
  /**
   * Adds to a number, which begins at 0; the time to live counts from its beginning.
   * @returns the number after it
   * @throws StoreError if the value is no number
   */
  increment(key: string, by?: number, options?: KeepOptions): Promise<number>;
  /** True the first time; then false, until its time is over or it is deleted. */
  claim(key: string, options: Required<KeepOptions>): Promise<boolean>;
  /** Takes from a limit, all or nothing. */
  take(key: string, options: TakeOptions): Promise<TakeResult>;
  /** Gives back what was taken, at most what was taken in this window. */
  giveBack(key: string, cost?: number): Promise<void>;
  /**
   * Values whose keys begin with a text, in the order of their keys: at most 1,000; `after` continues behind a key. It
   * looks at one after the other while others write: for small sets.
   * @example for (const [key, value] of await session.store.entries("known:")) session.log(key, { value });
   */
  entries(prefix?: string, options?: EntriesOptions): Promise<readonly (readonly [key: string, value: JsonValue])[]>;
}

/**
 * The store did not do what was asked: it does not answer in time, cannot be reached, is full, or a value is no number. A
 * handler that does not catch it fails.
 * @example if (error instanceof StoreError) session.log.warn(error.message);
 */
export class StoreError extends Error {
  override readonly name = "StoreError";
}
