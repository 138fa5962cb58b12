/** What a script asks its worker, besides what it asks of its session, and the reply. */
import type { SessionOperation } from "../session-calls.ts";

/** The names of a `Cache`: which kind of name it has, and the name. */
export type PoolName = readonly [kind: "namespace" | "filename", name: string];

/** What a script asks besides its session. Times in milliseconds. */
export interface ServiceQuestions {
  /** Null waits as long as the call may; `own` if this mutex has it already. */
  lock(mutex: number, isGlobal: boolean, timeoutMs: number | null): "yes" | "no" | "own";
  unlock(mutex: number, isGlobal: boolean): null;
  isLocked(isGlobal: boolean): boolean;
  cacheGet(pool: PoolName, key: string): string | null;
  /** False if the value is too large. */
  cacheSet(pool: PoolName, key: string, value: string): boolean;
  cacheDelete(pool: PoolName, key: string): boolean;
  cacheClear(pool: PoolName): null;
  /** A part of the pairs, and the cursor of the next part; null is the first, and behind the last. */
  cachePairs(
    pool: PoolName,
    cursor: string | null,
  ): readonly [pairs: readonly (readonly [key: string, value: string])[], cursor: string | null];
}

/** An error that travels between threads. */
export interface RaisedError {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
}

/** A script waits for the reply to it. */
export interface Question {
  readonly operation: SessionOperation | keyof ServiceQuestions;
  readonly args: readonly unknown[];
}

/** `isRuby`: a script can rescue it. */
export type Reply = { readonly value: unknown } | { readonly error: RaisedError; readonly isRuby: boolean };
