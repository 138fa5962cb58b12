/**
 * Watches files and tells when one has changed, once they have been quiet: editors rename, truncate and write in several
 * steps. It looks at them now and then instead of asking the system for events: a folder that is replaced, a link that is
 * turned, a file that is yet to be made, and network file systems give none that can be relied on.
 */
import { stat } from "node:fs/promises";
import { WATCH_MS } from "./policy.ts";

export class FileWatcher {
  readonly #onChange: () => void;
  #paths: readonly string[] = [];
  /** What the files looked like at the last look; "" for one that is not there. */
  #seen: readonly string[] | null = null;
  #hasChanged = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  /**
   * Watches these files from now on, and no others. Whether they have changed before this call is not known here: the
   * first look may tell of a change that is none.
   */
  set(paths: readonly string[]): void {
    this.#paths = [...new Set(paths)];
    this.#seen = null;
    this.#hasChanged = true;
    this.#schedule();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#isClosed || this.#paths.length === 0) return;
    this.#timer = setTimeout(() => void this.#look(), WATCH_MS);
    // Watching alone keeps no process alive.
    this.#timer.unref();
  }

  async #look(): Promise<void> {
    const paths = this.#paths;
    const seen = await Promise.all(paths.map(lookOf));
    if (paths !== this.#paths || this.#isClosed) return;
    const isSame = this.#seen !== null && this.#seen.every((look, index) => look === seen[index]);
    const isQuiet = isSame && this.#hasChanged;
    if (this.#seen !== null && !isSame) this.#hasChanged = true;
    this.#seen = seen;
    if (isQuiet) {
      this.#hasChanged = false;
      this.#onChange();
    }
    // `onChange` may have set other files, and with them the next look.
    if (paths === this.#paths) this.#schedule();
  }
}

async function lookOf(path: string): Promise<string> {
  try {
    const { ino, size, mtimeMs } = await stat(path);
    return `${ino} ${size} ${mtimeMs}`;
  } catch {
    return "";
  }
}
