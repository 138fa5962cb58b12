/**
 * A folder of files that are kept for a time, under names of our own making. The oldest go first when they are too old, or too
 * large or too many together. Several workers may use one folder.
 */
import { randomBytes } from "node:crypto";
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

export interface KeepLimits {
  /** Milliseconds. */
  readonly age: number;
  /** Bytes of all files. */
  readonly size: number;
}

/** So many files are kept: each further one takes the place of the oldest. */
export const MAX_KEPT_FILES = 10_000;

/** Begins with the time (UTC). Nothing else in the folder is touched. */
const NAME = /^kept-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-[0-9a-f]{16}$/;
/** A younger file may still be written. */
const WRITTEN_MS = 60_000;

export class KeptFiles {
  readonly #folder: string;
  readonly #limits: KeepLimits;
  /** Of files that were there at the last look. */
  #sizes: ReadonlyMap<string, number> = new Map();

  /** @param folder made, with mode 0700, when the first file is kept */
  constructor(folder: string, limits: KeepLimits) {
    this.#folder = folder;
    this.#limits = limits;
  }

  /**
   * Writes files, with mode 0600, and gives their names.
   * @throws Error if together they are more than may be kept, or the system's error: nothing is left of them then
   */
  async keep(contents: readonly Uint8Array[], now = Date.now()): Promise<string[]> {
    const size = contents.reduce((total, content) => total + content.length, 0);
    if (size > this.#limits.size || contents.length > MAX_KEPT_FILES) {
      throw new Error(
        `cannot keep ${contents.length} attachments of ${size} bytes: keep_size is ${this.#limits.size} bytes`,
      );
    }
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await this.#tidy(contents.length, size, now);
    const time = new Date(now).toISOString().replaceAll(/[-:]|\.\d+/g, "");
    const names: string[] = [];
    try {
      for (const content of contents) {
        const name = `kept-${time}-${randomBytes(8).toString("hex")}`;
        names.push(name);
        await writeFile(join(this.#folder, name), content, { mode: 0o600, flag: "wx", flush: true });
      }
    } catch (error) {
      for (const name of names) await rm(join(this.#folder, name), { force: true });
      throw error;
    }
    return names;
  }

  /** Makes room: the newest files stay as long as they are young enough and fit. */
  async #tidy(files: number, size: number, now: number): Promise<void> {
    const sizes = new Map<string, number>();
    let left = this.#limits.size - size;
    let places = MAX_KEPT_FILES - files;
    const names = (await readdir(this.#folder)).filter((name) => NAME.test(name));
    for (const name of names.toSorted().toReversed()) {
      const path = join(this.#folder, name);
      const age = now - timeOf(name);
      if (age > this.#limits.age || places <= 0 || left < 0) {
        await rm(path, { force: true });
        continue;
      }
      const found = this.#sizes.get(name) ?? (await sizeOf(path));
      // Another worker has removed it.
      if (found === null) continue;
      // One that was kept when more could be takes no others away.
      if (found <= this.#limits.size) left -= found;
      if (left < 0 || found > this.#limits.size) {
        await rm(path, { force: true });
        continue;
      }
      places -= 1;
      if (age > WRITTEN_MS) sizes.set(name, found);
    }
    this.#sizes = sizes;
  }
}

function timeOf(name: string): number {
  const [, year, month, day, hour, minute, second] = NAME.exec(name)!.map(Number) as [unknown, ...number[]];
  return Date.UTC(year!, month! - 1, day, hour, minute, second);
}

async function sizeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
}
