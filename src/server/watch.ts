/**
 * Watches the files of a snapshot and tells when one has changed, once it has been quiet: editors rename, truncate and
 * write in several steps. Folders are watched, so a file that is replaced, or gone and back, is seen too.
 */
import { type FSWatcher, watch } from "node:fs";
import { basename, dirname } from "node:path";
import { QUIET_MS } from "./policy.ts";

export class FileWatcher {
  readonly #onChange: () => void;
  readonly #onError: (error: Error) => void;
  /** By folder: its watcher and the names in it that count. */
  readonly #folders = new Map<string, { watcher: FSWatcher; names: Set<string> }>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(onChange: () => void, onError: (error: Error) => void) {
    this.#onChange = onChange;
    this.#onError = onError;
  }

  /** Watches these files from now on, and no others. */
  set(paths: readonly string[]): void {
    const wanted = Map.groupBy(paths, (path) => dirname(path));
    for (const [folder, { watcher }] of this.#folders) {
      if (wanted.has(folder)) continue;
      watcher.close();
      this.#folders.delete(folder);
    }
    for (const [folder, files] of wanted) {
      const names = new Set(files.map((file) => basename(file)));
      const watched = this.#folders.get(folder);
      if (watched !== undefined) watched.names = names;
      else this.#watch(folder, names);
    }
  }

  close(): void {
    clearTimeout(this.#timer);
    this.set([]);
  }

  #watch(folder: string, names: Set<string>): void {
    try {
      const entry = { watcher: watch(folder), names };
      entry.watcher.on("change", (_, name) => {
        // Without a name, anything may have changed.
        if (name === null || entry.names.has(String(name))) this.#touched();
      });
      entry.watcher.on("error", (error) => this.#onError(error));
      this.#folders.set(folder, entry);
    } catch (error) {
      this.#onError(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #touched(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onChange, QUIET_MS);
  }
}
