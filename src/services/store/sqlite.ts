/**
 * The store in a SQLite file, which one thread owns. Operations that come together are one transaction: what is
 * acknowledged is in the file, and survives the end of the process by a signal.
 */
import { Database, SQLiteError, type Statement } from "bun:sqlite";
import { chmodSync, closeSync, existsSync, openSync, renameSync } from "node:fs";
import {
  added,
  type Json,
  type LocalStore,
  type Operation,
  pageOf,
  type Result,
  StoreFailure,
  takenOf,
} from "../../store/operations.ts";

export interface SqliteSettings {
  readonly file: string;
  /** Bytes that it may hold; what expires first goes first. */
  readonly maxBytes: number;
  /** Wait for another process that writes to it. */
  readonly timeoutMs: number;
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
`;
const VERSION = 1;
/** What a file of this kind says of itself: "pmil". */
const APPLICATION_ID = 0x706d696c;
const [VALUE, WINDOW] = [0, 1];
/** Expired values that a list of operations takes away at most: no list of them takes long. */
const SWEEP = 200;
/** Values that are dropped at a time to make room, and how often a list of operations does it at most. */
const [DROP, DROPS] = [50, 10];
/** The part of the bound at which room begins to be made; bytes of values that are dropped for each byte that is missing. */
const [FULL, ROOM] = [0.9, 4];
/** SQLite keeps up to `MAX_LOCAL` bytes of a row in a page with others; of a larger one the rest has pages of its own. */
const [PAGE, MAX_LOCAL, MIN_LOCAL] = [4096, 1002, 489];
/** Bytes of a row besides its texts. */
const ROW = 32;
/** Entries that are read at a time. */
const CHUNK = 32;
/** Behind all keys that begin with a text. */
const BEHIND = "\u{10ffff}".repeat(129);

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
  /** Bytes in use when room was last made: what is freed in pages is used again before they become more. */
  #mostBytes: number;
  /** Bytes of values that are still to be dropped. */
  #toDrop = 0;

  /** @throws Error of SQLite, or of the system; StoreFailure if the file is of another kind */
  constructor(settings: SqliteSettings) {
    this.#settings = settings;
    this.#mostBytes = settings.maxBytes * FULL;
    // SQLite would make it readable for all that the umask allows.
    closeSync(openSync(settings.file, "a", 0o600));
    chmodSync(settings.file, 0o600);
    const database = new Database(settings.file, { create: true, strict: true });
    this.#database = database;
    try {
      database.run(`PRAGMA page_size = ${PAGE}`);
      database.run(`PRAGMA busy_timeout = ${settings.timeoutMs}`);
      this.#checkKind();
      database.run("PRAGMA journal_mode = WAL");
      // A commit is in the file, not on the disk: it survives the process, not the power.
      database.run("PRAGMA synchronous = NORMAL");
      database.run(`PRAGMA journal_size_limit = ${4 * 1024 * 1024}`);
      if (this.#pragma("user_version") < VERSION) {
        database.transaction(() => {
          database.run(SCHEMA);
          database.run(`PRAGMA application_id = ${APPLICATION_ID}`);
          database.run(`PRAGMA user_version = ${VERSION}`);
        })();
      }
    } catch (error) {
      database.close();
      throw error;
    }
    this.#find = database.query("SELECT value, until FROM kept WHERE filter = ? AND key = ? AND kind = ?");
    this.#put = database.query("INSERT OR REPLACE INTO kept (filter, key, kind, value, until) VALUES (?, ?, ?, ?, ?)");
    this.#update = database.query("UPDATE kept SET value = ? WHERE filter = ? AND key = ? AND kind = ?");
    this.#remove = database.query("DELETE FROM kept WHERE filter = ? AND key = ? AND kind = ?");
    this.#list = database.query(
      `SELECT key, value FROM kept WHERE filter = ?1 AND kind = 0 AND key >= ?2 AND key < ?2 || '${BEHIND}' AND (?5 IS NULL OR key > ?5) AND (until IS NULL OR until > ?3) ORDER BY key LIMIT ?4`,
    );
    this.#sweep = database.query(
      `DELETE FROM kept WHERE (filter, key, kind) IN (SELECT filter, key, kind FROM kept WHERE until <= ? LIMIT ${SWEEP})`,
    );
  }

  run(operations: readonly Operation[], now: number): readonly (Result | StoreFailure)[] {
    const isToWrite = operations.some(isWriting);
    this.#database.run(isToWrite ? "BEGIN IMMEDIATE" : "BEGIN");
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
      if (isToWrite) {
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
      return pageOf(this.#entries(operation, now), operation.limit);
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
        const after = added(key, row === null ? 0 : JSON.parse(row.value), operation.by);
        const value = JSON.stringify(after);
        if (row === null) this.#put.run(filter, key, VALUE, value, end(operation.ttl, now));
        else this.#update.run(value, filter, key, VALUE);
        return after;
      }
      case "claim":
        if (this.#live(filter, key, VALUE, now) !== null) return false;
        this.#put.run(filter, key, VALUE, "true", end(operation.ttl, now));
        return true;
      case "take": {
        const { cost, limit, per } = operation;
        const row = this.#live(filter, key, WINDOW, now);
        const used = row === null ? 0 : Number(row.value);
        // The clock may have gone back.
        const until = Math.min(row?.until ?? Infinity, Math.ceil(now + per));
        if (used + cost > limit) {
          if (row !== null && row.until !== until) this.#put.run(filter, key, WINDOW, row.value, until);
          return takenOf(used, limit, false, until - now);
        }
        this.#put.run(filter, key, WINDOW, String(used + cost), until);
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

  *#entries({ after, filter, prefix }: Extract<Operation, { kind: "entries" }>, now: number) {
    for (let last = after; ;) {
      const chunk = this.#list.all(filter, prefix, now, CHUNK, last);
      for (const { key, value } of chunk) yield [key, value] as const;
      if (chunk.length < CHUNK) return;
      last = chunk.at(-1)!.key;
    }
  }

  /**
   * Drops what expires first once the file is nearly full. A page is free only when all in it is gone, so values are dropped
   * for each page that the file grows by: what comes later has room in pages that are in use. Beyond the bound it goes on
   * until pages are free.
   */
  #makeRoom(): void {
    const bytes = this.#usedBytes();
    if (bytes > this.#mostBytes) {
      this.#toDrop += (bytes - this.#mostBytes) * ROOM;
      this.#mostBytes = bytes;
    }
    let count = 0;
    for (let times = 0; times < DROPS; times += 1) {
      if (this.#toDrop <= 0 && (count === 0 ? bytes : this.#usedBytes()) <= this.#settings.maxBytes) break;
      let gone = this.#dropOf("until IS NOT NULL ORDER BY until");
      // What has no end goes last.
      if (gone.length === 0) gone = this.#dropOf("until IS NULL");
      count += gone.length;
      if (gone.length === 0) break;
      this.#toDrop = Math.max(0, this.#toDrop - gone.reduce((sum, each) => sum + each, 0));
    }
    if (count > 0) this.#settings.dropped(count);
  }

  #usedBytes(): number {
    return (this.#pragma("page_count") - this.#pragma("freelist_count")) * this.#pragma("page_size");
  }

  /** @returns the bytes that each of them took in the file, about */
  #dropOf(which: string): number[] {
    const dropped = this.#database
      .query(
        `DELETE FROM kept WHERE (filter, key, kind) IN (SELECT filter, key, kind FROM kept WHERE ${which} LIMIT ${DROP}) RETURNING octet_length(filter) + octet_length(key) AS name, octet_length(value) AS value`,
      )
      .all() as { readonly name: number; readonly value: number }[];
    return dropped.map(({ name, value }) => {
      const bytes = name + value;
      const pages = bytes > MAX_LOCAL ? Math.ceil((bytes - MIN_LOCAL) / PAGE) : 0;
      // The name stands in the index as well.
      return name + ROW + (pages > 0 ? MIN_LOCAL + pages * PAGE : bytes);
    });
  }

  /** @throws StoreFailure if the file is of another program or a later version */
  #checkKind(): void {
    const [id, version] = [this.#pragma("application_id"), this.#pragma("user_version")];
    const isOther = id !== APPLICATION_ID && (id !== 0 || version > VERSION || this.#hasOtherTables());
    if (isOther) throw new StoreFailure(`${this.#settings.file} is a database of another program`);
    if (version > VERSION) {
      throw new StoreFailure(`${this.#settings.file} was written by a later version of pmilter (format ${version})`);
    }
  }

  #hasOtherTables(): boolean {
    return this.#database.query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name != 'kept'").get() !== null;
  }

  #pragma(name: string): number {
    return Object.values(this.#database.query(`PRAGMA ${name}`).get() as Record<string, number>)[0]!;
  }
}

/** Whether an error says that a file is damaged, or is no database. */
export function isDamage(error: unknown): boolean {
  return error instanceof SQLiteError && /^SQLITE_(CORRUPT|NOTADB)/.test(error.code ?? "");
}

/** Renames a file that is damaged, with the files beside it. @returns its new path */
export function moveAside(file: string, now: Date): string {
  const name = `${file}.damaged-${now.toISOString().replaceAll(/[-:]|\.\d+/g, "")}`;
  for (const end of ["", "-wal", "-shm"]) {
    if (existsSync(`${file}${end}`)) renameSync(`${file}${end}`, `${name}${end}`);
  }
  return name;
}

function isWriting({ kind }: Operation): boolean {
  return kind !== "get" && kind !== "entries";
}

function end(ttl: number | null, now: number): number | null {
  return ttl === null ? null : Math.ceil(now + ttl);
}
