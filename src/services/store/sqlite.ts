/**
 * The store in a SQLite file, which one thread owns. Operations that come together are one transaction: what is
 * acknowledged is in the file, and survives the end of the process by a signal.
 */
import { Database, type Statement } from "bun:sqlite";
import { chmodSync, closeSync, openSync } from "node:fs";
import {
  type Json,
  type LocalStore,
  noNumber,
  type Operation,
  type Result,
  StoreFailure,
  takenOf,
} from "../../store/operations.ts";

export interface SqliteSettings {
  readonly file: string;
  /** Bytes that it may hold; what expires first goes first. */
  readonly maxBytes: number;
  /** Values were dropped to make room. */
  dropped(count: number): void;
}

/** `kind`: a value, or a window with the number that was taken. `until` in Unix milliseconds, null without an end. */
const SCHEMA = `
  CREATE TABLE IF NOT EXISTS kept (
    filter TEXT NOT NULL,
    key TEXT NOT NULL,
    kind INTEGER NOT NULL,
    value TEXT NOT NULL,
    until INTEGER,
    PRIMARY KEY (filter, key, kind)
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS kept_until ON kept (until) WHERE until IS NOT NULL;
  PRAGMA user_version = 1;
`;
const VERSION = 1;
const [VALUE, WINDOW] = [0, 1];
/** Expired values that a list of operations takes away at most: no list of them takes long. */
const SWEEP = 200;
/** How often it is looked whether there is room, in lists of operations. */
const LOOK = 64;
/** Values that make room at a time. */
const DROP = 500;

interface Row {
  readonly value: string;
  readonly until: number | null;
}

export class SqliteStore implements LocalStore {
  readonly #database: Database;
  readonly #settings: SqliteSettings;
  readonly #find: Statement<Row, [string, string, number]>;
  readonly #put: Statement<unknown, [string, string, number, string, number | null]>;
  readonly #update: Statement<unknown, [string, string, string, number]>;
  readonly #remove: Statement<unknown, [string, string, number]>;
  readonly #list: Statement<
    { readonly key: string; readonly value: string },
    [string, string, number, number, string | null]
  >;
  readonly #sweep: Statement<unknown, [number]>;
  #untilLook = 0;

  /** @throws Error of SQLite, or of the system */
  constructor(settings: SqliteSettings) {
    this.#settings = settings;
    // SQLite would make it readable for all that the umask allows.
    closeSync(openSync(settings.file, "a", 0o600));
    chmodSync(settings.file, 0o600);
    const database = new Database(settings.file, { create: true, strict: true });
    this.#database = database;
    database.run("PRAGMA busy_timeout = 2000");
    database.run("PRAGMA journal_mode = WAL");
    // A commit is in the file, not on the disk: it survives the process, not the power.
    database.run("PRAGMA synchronous = NORMAL");
    const { user_version: version } = database.query("PRAGMA user_version").get() as { readonly user_version: number };
    if (version > VERSION) {
      database.close();
      throw new StoreFailure(`${settings.file} was written by a later version of pmilter (format ${version})`);
    }
    database.run(SCHEMA);
    this.#find = database.query("SELECT value, until FROM kept WHERE filter = ? AND key = ? AND kind = ?");
    this.#put = database.query("INSERT OR REPLACE INTO kept (filter, key, kind, value, until) VALUES (?, ?, ?, ?, ?)");
    this.#update = database.query("UPDATE kept SET value = ? WHERE filter = ? AND key = ? AND kind = ?");
    this.#remove = database.query("DELETE FROM kept WHERE filter = ? AND key = ? AND kind = ?");
    this.#list = database.query(
      "SELECT key, value FROM kept WHERE filter = ?1 AND kind = 0 AND key >= ?2 AND key < ?2 || char(0x10ffff) AND (?5 IS NULL OR key > ?5) AND (until IS NULL OR until > ?3) ORDER BY key LIMIT ?4",
    );
    this.#sweep = database.query(
      `DELETE FROM kept WHERE (filter, key, kind) IN (SELECT filter, key, kind FROM kept WHERE until <= ? LIMIT ${SWEEP})`,
    );
  }

  run(operations: readonly Operation[], now: number): readonly (Result | StoreFailure)[] {
    this.#database.run("BEGIN IMMEDIATE");
    try {
      const results = operations.map((operation) => {
        try {
          return this.#do(operation, now);
        } catch (error) {
          // Found before anything was written.
          if (error instanceof StoreFailure) return error;
          throw error;
        }
      });
      if (operations.some(isWriting)) {
        this.#sweep.run(now);
        this.#makeRoom();
      }
      this.#database.run("COMMIT");
      return results;
    } catch (error) {
      if (this.#database.inTransaction) this.#database.run("ROLLBACK");
      throw error;
    }
  }

  close(): void {
    this.#database.close();
  }

  #live(filter: string, key: string, kind: number, now: number): Row | null {
    const row = this.#find.get(filter, key, kind);
    return row !== null && (row.until === null || row.until > now) ? row : null;
  }

  #do(operation: Operation, now: number): Result {
    const { filter } = operation;
    if (operation.kind === "entries") {
      const { after, limit, prefix } = operation;
      return this.#list.all(filter, prefix, now, limit, after).map(({ key, value }) => [key, value] as const);
    }
    const { key } = operation;
    switch (operation.kind) {
      case "get":
        return (this.#live(filter, key, VALUE, now)?.value as Json | undefined) ?? null;
      case "set":
        this.#put.run(filter, key, VALUE, operation.value, end(operation.ttl, now));
        return null;
      case "delete": {
        const wasThere = this.#live(filter, key, VALUE, now) !== null;
        this.#remove.run(filter, key, VALUE);
        return wasThere;
      }
      case "increment": {
        const row = this.#live(filter, key, VALUE, now);
        const before: unknown = row === null ? 0 : JSON.parse(row.value);
        if (typeof before !== "number") throw noNumber(key);
        const value = JSON.stringify(before + operation.by);
        if (row === null) this.#put.run(filter, key, VALUE, value, end(operation.ttl, now));
        else this.#update.run(value, filter, key, VALUE);
        return before + operation.by;
      }
      case "claim":
        if (this.#live(filter, key, VALUE, now) !== null) return false;
        this.#put.run(filter, key, VALUE, "true", end(operation.ttl, now));
        return true;
      case "take": {
        const { cost, limit, per } = operation;
        const row = this.#live(filter, key, WINDOW, now);
        const used = row === null ? 0 : Number(row.value);
        if (used + cost > limit) return takenOf(used, limit, false, (row?.until ?? now + per) - now);
        if (row === null) this.#put.run(filter, key, WINDOW, String(cost), now + per);
        else this.#update.run(String(used + cost), filter, key, WINDOW);
        return takenOf(used + cost, limit, true, 0);
      }
      case "giveBack": {
        const row = this.#live(filter, key, WINDOW, now);
        if (row === null) return null;
        this.#update.run(String(Math.max(0, Number(row.value) - operation.cost)), filter, key, WINDOW);
        return null;
      }
      default:
        return operation satisfies never;
    }
  }

  /** Takes away what expires first once the file is full. */
  #makeRoom(): void {
    if (this.#untilLook > 0) {
      this.#untilLook -= 1;
      return;
    }
    this.#untilLook = LOOK;
    let count = 0;
    while (this.#usedBytes() > this.#settings.maxBytes) {
      const { changes } = this.#database.run(
        `DELETE FROM kept WHERE (filter, key, kind) IN (SELECT filter, key, kind FROM kept ORDER BY until IS NULL, until LIMIT ${DROP})`,
      );
      if (changes === 0) break;
      count += changes;
    }
    if (count > 0) {
      this.#untilLook = 0;
      this.#settings.dropped(count);
    }
  }

  #usedBytes(): number {
    const number = (pragma: string): number =>
      Object.values(this.#database.query(`PRAGMA ${pragma}`).get() as Record<string, number>)[0]!;
    return (number("page_count") - number("freelist_count")) * number("page_size");
  }
}

function isWriting({ kind }: Operation): boolean {
  return kind !== "get" && kind !== "entries";
}

function end(ttl: number | null, now: number): number | null {
  return ttl === null ? null : Math.ceil(now + ttl);
}
