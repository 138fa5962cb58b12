/**
 * A folder of files that are kept for a time, under names of our own making. The oldest go first when they are too old, or too
 * large together. Several workers may use one folder.
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

/** Nothing else in the folder is touched. */
const NAME = /^kept-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}$/;

export class KeptFiles {
  readonly #folder: string;
  readonly #limits: KeepLimits;

  /** @param folder made, with mode 0700, when the first file is kept */
  constructor(folder: string, limits: KeepLimits) {
    this.#folder = folder;
    this.#limits = limits;
  }

  /**
   * Writes a file, with mode 0600, and gives its name.
   * @throws the system's error: nothing is left of the file then
   */
  async keep(content: Uint8Array, now = Date.now()): Promise<string> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await this.#tidy(content.length, now);
    const time = new Date(now).toISOString().replaceAll(/[-:]|\.\d+/g, "");
    const name = `kept-${time}-${randomBytes(8).toString("hex")}`;
    const path = join(this.#folder, name);
    try {
      await writeFile(path, content, { mode: 0o600, flag: "wx", flush: true });
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
    return name;
  }

  /** Makes room: the newest files stay as long as they are young enough and fit. */
  async #tidy(room: number, now: number): Promise<void> {
    const names = (await readdir(this.#folder)).filter((name) => NAME.test(name));
    let left = this.#limits.size - room;
    // The names begin with the time.
    for (const name of names.toSorted().toReversed()) {
      const path = join(this.#folder, name);
      const found = await stat(path).catch(ifMissing);
      // Another worker has removed it.
      if (found === null) continue;
      left -= found.size;
      if (left < 0 || now - found.mtimeMs > this.#limits.age) await rm(path, { force: true });
    }
  }
}

function ifMissing(error: unknown): null {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
  throw error;
}
