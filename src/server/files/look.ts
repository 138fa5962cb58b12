/**
 * Looks at files and finds changes, once the files have stopped changing: editors rename, truncate and write in several
 * steps. A link that is turned anywhere in a path is a change, and so is a new or a removed file. While events of folders
 * show that nothing has happened, most looks are skipped.
 */
import { lstatSync, realpathSync, type Stats, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { FolderEvents } from "./folder-events.ts";

/** Maximum number of looks that are skipped in a row for lack of events. Some changes give no event: by another hard link, a mount. */
const MAX_SKIPPED = 4;

export class Looker {
  readonly #paths: readonly string[];
  /** The state of each file at the last look; "" for a missing file. */
  #seen: readonly string[] | null = null;
  /** Whether they have changed before the first look is not known here: then it tells of a change that may be none. */
  #hasChanged = true;
  readonly #open: typeof FolderEvents.open;
  #events: FolderEvents | null;
  #skipped = 0;

  constructor(paths: readonly string[], open: typeof FolderEvents.open = (paths) => FolderEvents.open(paths)) {
    this.#paths = [...new Set(paths)];
    this.#open = open;
    this.#events = open(this.#paths);
  }

  /** Files that are looked at in each look, on average, as long as nothing happens. */
  get filesPerLook(): number {
    return this.#paths.length / (this.#events === null ? 1 : MAX_SKIPPED + 1);
  }

  /** @returns whether a file has changed since this was said last, and nothing since the look before */
  look(): boolean {
    const hasHappened = this.#events?.happened() !== false;
    if (!hasHappened && !this.#hasChanged && this.#skipped < MAX_SKIPPED) {
      this.#skipped += 1;
      return false;
    }
    this.#skipped = 0;
    const look = new Look();
    const seen = this.#paths.map((path) => look.at(path));
    const isFirst = this.#seen === null;
    const isSame = this.#seen?.every((earlier, index) => earlier === seen[index]) ?? false;
    if (!isFirst && !isSame) this.#hasChanged = true;
    this.#seen = seen;
    // Other folders may matter from now on. The next look finds changes that come before their events are on.
    if (!isFirst && (!isSame || (hasHappened && seen.includes("")))) this.#openEvents();
    const isQuiet = isSame && this.#hasChanged;
    if (isQuiet) this.#hasChanged = false;
    return isQuiet;
  }

  close(): void {
    this.#events?.close();
    this.#events = null;
  }

  #openEvents(): void {
    this.close();
    this.#events = this.#open(this.#paths);
  }
}

/** A look, which looks at each folder once: most files share theirs. */
class Look {
  /** The real paths of folders; null for a missing folder. */
  readonly #folders = new Map<string, string | null>();

  at(path: string): string {
    const folder = this.#realFolder(dirname(path));
    const stats = folder === null ? null : find(lstatSync, path);
    if (stats === null) return "";
    if (!stats.isSymbolicLink()) return `${folder} ${lookOf(stats)}`;
    const target = find(statSync, path);
    return target === null ? "" : `${follow(path)} ${lookOf(target)}`;
  }

  #realFolder(path: string): string | null {
    const known = this.#folders.get(path);
    if (known !== undefined) return known;
    const real = this.#findFolder(path);
    this.#folders.set(path, real);
    return real;
  }

  #findFolder(path: string): string | null {
    const above = dirname(path);
    if (above === path) return path;
    const folder = this.#realFolder(above);
    const stats = folder === null ? null : find(lstatSync, path);
    if (folder === null || stats === null) return null;
    return stats.isSymbolicLink() ? follow(path) : join(folder, basename(path));
  }
}

function lookOf({ ctimeMs, ino, mtimeMs, size }: Stats): string {
  return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}

function find(stat: typeof lstatSync, path: string): Stats | null {
  try {
    return stat(path, { throwIfNoEntry: false }) ?? null;
  } catch {
    // A link that leads to itself, or a folder without the right to enter it: files behind it cannot be read either.
    return null;
  }
}

function follow(path: string): string | null {
  try {
    return realpathSync.native(path);
  } catch {
    return null;
  }
}
