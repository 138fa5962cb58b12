/**
 * The store of the services: opened when it is first used, and again after it could not be used. A file that is damaged is
 * moved aside, and an empty one takes its place: mail goes on, and nothing is deleted.
 */
import { isAbsolute, join } from "node:path";
import { RecurringState, timesInWords } from "../../admin/recurring-state.ts";
import { reason } from "../../errors.ts";
import { type LocalStore, type Operation, type Result, StoreFailure } from "../../store/operations.ts";
import { nameOfStore, sqlitePath, type StoreSettings } from "../../store/settings.ts";
import type { RedisStore } from "./redis.ts";

export interface StoreHost {
  /** The state folder, for a file with a relative path. */
  readonly folder: string;
  /** Values were dropped from a file that is full. */
  dropped(count: number): void;
  log(level: "error" | "warn" | "notice", text: string): void;
}

/** What became of an operation. */
export type Outcome = { readonly result: Result } | { readonly problem: string };

type OpenStore =
  | { readonly local: LocalStore; readonly file: string; readonly isDamage: (error: unknown) => boolean }
  | { readonly remote: RedisStore };

/** How often it is looked whether a failure is over. */
const LOOK_MS = 5000;

export class StoreKeeper {
  readonly #settings: StoreSettings;
  readonly #host: StoreHost;
  readonly #failing: RecurringState;
  readonly #clock = new SteadyClock();
  #open: OpenStore | null = null;
  #problem = "";
  #looking: ReturnType<typeof setInterval> | null = null;
  #dropped = 0;

  constructor(settings: StoreSettings, host: StoreHost) {
    this.#settings = settings;
    this.#host = host;
    const name = nameOfStore(settings.url);
    this.#failing = new RecurringState({
      began: () => {
        host.log("error", `store: ${name} cannot be used: ${this.#problem}`);
        this.#looking ??= setInterval(() => this.#failing.look(), LOOK_MS);
      },
      ended: (times, seconds) => {
        host.log("notice", `store: ${name} can be used again: it failed ${timesInWords(times)}, for ${seconds} s`);
        if (this.#looking !== null) clearInterval(this.#looking);
        this.#looking = null;
      },
      now: () => performance.now(),
    });
  }

  /**
   * Does operations in their order.
   * @param done of the operation at an index; called at once, or later
   */
  run(operations: readonly Operation[], done: (index: number, outcome: Outcome) => void): void {
    let store: OpenStore;
    try {
      store = this.#open ??= this.#opened();
    } catch (error) {
      this.#fail(operations, reason(error), done);
      return;
    }
    if ("remote" in store) {
      const { remote } = store;
      for (const [index, operation] of operations.entries()) void this.#ask(remote, operation, index, done);
      return;
    }
    let results: readonly (Result | StoreFailure)[];
    try {
      results = store.local.run(operations, this.#clock.now());
    } catch (error) {
      this.#recover(store, error);
      // Nothing of the list was done.
      this.#fail(operations, reason(error), done);
      return;
    }
    this.#failing.set(false);
    for (const [index, result] of results.entries()) {
      done(index, result instanceof StoreFailure ? { problem: result.message } : { result });
    }
  }

  close(): void {
    if (this.#looking !== null) clearInterval(this.#looking);
    if (this.#open === null) return;
    if ("local" in this.#open) this.#open.local.close();
    else this.#open.remote.close();
    this.#open = null;
  }

  async #ask(
    remote: RedisStore,
    operation: Operation,
    index: number,
    done: (index: number, outcome: Outcome) => void,
  ): Promise<void> {
    try {
      const result = await remote.run(operation);
      this.#failing.set(false);
      done(index, { result });
    } catch (error) {
      const problem = reason(error);
      if (error instanceof StoreFailure && error.isOfValue) done(index, { problem });
      else this.#fail([operation], problem, (_, outcome) => done(index, outcome));
    }
  }

  #fail(operations: readonly Operation[], problem: string, done: (index: number, outcome: Outcome) => void): void {
    this.#problem = problem;
    this.#failing.set(true);
    for (const index of operations.keys()) done(index, { problem });
  }

  #opened(): OpenStore {
    const { maxBytes, timeoutMs, url } = this.#settings;
    const path = sqlitePath(url);
    if (path === null) {
      const { RedisStore: Remote } = require("./redis.ts") as typeof import("./redis.ts");
      return { remote: new Remote({ url, timeoutMs }) };
    }
    const { isDamage, SqliteStore } = require("./sqlite.ts") as typeof import("./sqlite.ts");
    const file = isAbsolute(path) ? path : join(this.#host.folder, path);
    const open = (): OpenStore => ({
      local: new SqliteStore({ file, maxBytes, timeoutMs, dropped: (count) => this.#drop(file, count) }),
      file,
      isDamage,
    });
    try {
      return open();
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#moveAside(file, error);
      return open();
    }
  }

  /** After an error of the file, which may be over: it is opened anew, except where the disk is full, where reading goes on. */
  #recover(store: Extract<OpenStore, { local: LocalStore }>, error: unknown): void {
    if (codeOf(error).startsWith("SQLITE_FULL") || codeOf(error).startsWith("SQLITE_BUSY")) return;
    this.#open = null;
    store.local.close();
    if (store.isDamage(error)) this.#moveAside(store.file, error);
  }

  #moveAside(file: string, error: unknown): void {
    const { moveAside } = require("./sqlite.ts") as typeof import("./sqlite.ts");
    const moved = moveAside(file, new Date());
    this.#host.log("error", `store: ${file} is damaged (${reason(error)}): moved to ${moved}, and begun anew`);
  }

  /** Each time ten times as many are logged: a store that stays full must not fill the log. */
  #drop(file: string, count: number): void {
    const before = this.#dropped;
    this.#dropped += count;
    this.#host.dropped(count);
    if (before === 0 || String(before).length < String(this.#dropped).length) {
      this.#host.log("warn", `store: ${file} is full (store.max_size): ${this.#dropped} values were dropped so far`);
    }
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

/** Unix time in milliseconds that never goes back: after the system's clock was turned back it goes on from where it was. */
export class SteadyClock {
  readonly #wall: () => number;
  readonly #steady: () => number;
  #last: number;
  #lastAt: number;

  constructor(wall = () => Date.now(), steady = () => performance.now()) {
    this.#wall = wall;
    this.#steady = steady;
    this.#last = wall();
    this.#lastAt = steady();
  }

  now(): number {
    const at = this.#steady();
    this.#last = Math.max(this.#wall(), this.#last + at - this.#lastAt);
    this.#lastAt = at;
    return Math.floor(this.#last);
  }
}
