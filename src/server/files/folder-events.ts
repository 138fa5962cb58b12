/**
 * Events of the folders that paths depend on, as a hint that it is worth looking at the files. Linux only, and only on file
 * systems that belong to this machine: changes by another machine give no events.
 */
import { closeSync, lstatSync, readlinkSync, type Stats, statfsSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { inotifyAdd, inotifyOpen, inotifyTake } from "../../net/libc.ts";

/** Of the names in a folder: modified, touched, written, moved away or in, made, removed. */
const OF_NAMES = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200;
/** Of the folder itself: removed, moved. */
const OF_ITSELF = 0x400 | 0x800;

/** ext, XFS, Btrfs, tmpfs, ramfs, F2FS, ZFS, bcachefs, overlay: the types of statfs(2). */
const LOCAL = new Set([
  0xef53, 0x58465342, 0x9123683e, 0x01021994, 0x858458f6, 0xf2f52010, 0x2fc12fc1, 0xca451a4e, 0x794c7630,
]);

/** Links that are followed in a path, as in the kernel. */
const MAX_LINKS = 40;

export class FolderEvents {
  readonly #descriptor: number;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** @returns null if there are none that can be relied on */
  static open(paths: readonly string[]): FolderEvents | null {
    if (process.platform !== "linux") return null;
    let descriptor: number | null = null;
    try {
      const folders = foldersOf(paths);
      if (![...folders].every((folder) => LOCAL.has(statfsSync(folder).type >>> 0))) return null;
      descriptor = inotifyOpen();
      for (const folder of folders) {
        inotifyAdd(descriptor, folder, OF_NAMES | OF_ITSELF);
        for (let above = dirname(folder); above !== "/"; above = dirname(above))
          inotifyAdd(descriptor, above, OF_ITSELF);
      }
      return new FolderEvents(descriptor);
    } catch {
      // A limit of the system, or a folder that is gone by now.
      if (descriptor !== null) closeSync(descriptor);
      return null;
    }
  }

  /** Whether there were any since this was asked last. */
  happened(): boolean {
    return inotifyTake(this.#descriptor);
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

/** The real folders in which an event occurs when a path leads to another file, or a file's content changes. */
function foldersOf(paths: readonly string[]): Set<string> {
  const folders = new Set<string>();
  const seen = new Map<string, Stats | undefined>();
  const statsOf = (path: string) => {
    if (!seen.has(path)) seen.set(path, lstatSync(path, { throwIfNoEntry: false }));
    return seen.get(path);
  };
  for (const path of paths) {
    let real = "/";
    let links = 0;
    const rest = partsOf(path);
    for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
      const next = join(real, name);
      const stats = statsOf(next);
      const isLink = stats?.isSymbolicLink() === true;
      if (stats === undefined || isLink || rest.length === 0) folders.add(real);
      if (stats === undefined || (isLink && ++links > MAX_LINKS)) break;
      if (!isLink) {
        real = next;
        continue;
      }
      const target = readlinkSync(next);
      if (isAbsolute(target)) real = "/";
      rest.unshift(...partsOf(target));
    }
  }
  return folders;
}

const partsOf = (path: string) => path.split("/").filter((part) => part !== "");
