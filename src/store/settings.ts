/** `[store]`. */
export interface StoreSettings {
  /** `sqlite:` and a path, which may be relative to the state folder, or the URL of a Redis or Valkey. */
  readonly url: string;
  /** For each operation. */
  readonly timeoutMs: number;
  readonly maxBytes: number;
}

const SQLITE = "sqlite:";
const REMOTE: ReadonlySet<string> = new Set(["redis:", "rediss:", "valkey:", "valkeys:"]);

/** The path of a SQLite store; null for another kind. */
export function sqlitePath(url: string): string | null {
  return url.startsWith(SQLITE) ? url.slice(SQLITE.length) : null;
}

/** Whether a text names a store. */
export function isStoreUrl(text: string): boolean {
  const path = sqlitePath(text);
  if (path !== null) return path !== "" && !path.includes("\0");
  const url = URL.parse(text);
  return url !== null && REMOTE.has(url.protocol) && url.hostname !== "";
}

/** The name of a store for people: of a server without its user and password. */
export function nameOfStore(url: string): string {
  if (sqlitePath(url) !== null) return url;
  const { host, pathname, protocol } = new URL(url);
  return `${protocol}//${host}${pathname === "/" ? "" : pathname}`;
}
