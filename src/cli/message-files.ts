/** The messages that `pmilter try` is given: files, and the files with messages in folders. */
import { type Dirent, readdirSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { whyNotRead } from "../errors.ts";
import { MessageError } from "./mail.ts";

/** The folders of a Maildir that have messages: every file in them is one, whatever its name. */
const MAILDIR = new Set(["cur", "new"]);

export interface Found {
  /** A folder was given, or several files. */
  readonly areMany: boolean;
  /** In order, found one by one. */
  readonly files: Iterable<FoundFile>;
}

export interface FoundFile {
  readonly file: string;
  /** Why a folder of that name cannot be read; null for a file. */
  readonly problem: MessageError | null;
}

/**
 * Checks that each of the files and folders is there, and gives the files one by one: those that are named as they are, of
 * a folder and its subfolders those that end in `.eml`, and all of a Maildir's `cur` and `new`. Names in a folder are
 * sorted; names that begin with a dot are left out, and links to folders are not followed.
 * @param given `-` for standard input
 * @throws MessageError a file or folder is not there, or a folder has no message
 */
export function findMessages(given: readonly string[]): Found {
  const folders = new Set(given.filter((file) => file !== "-" && isFolder(file)));
  for (const folder of folders) {
    if (messagesIn(folder).next().done === true) {
      throw new MessageError(folder, "expected a folder with files that end in .eml, or a Maildir, got none of them");
    }
  }
  return { areMany: given.length > 1 || folders.size > 0, files: messagesOf(given, folders) };
}

function* messagesOf(given: readonly string[], folders: ReadonlySet<string>): Generator<FoundFile> {
  for (const file of given) {
    if (folders.has(file)) yield* messagesIn(file);
    else yield { file, problem: null };
  }
}

function isFolder(file: string): boolean {
  try {
    return statSync(file).isDirectory();
  } catch (error) {
    throw new MessageError(file, whyNotRead(error));
  }
}

function* messagesIn(folder: string): Generator<FoundFile> {
  let entries: Dirent[];
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    yield { file: folder, problem: new MessageError(folder, whyNotRead(error)) };
    return;
  }
  const isMaildir = MAILDIR.has(basename(resolve(folder)));
  for (const entry of entries.toSorted(byName)) {
    const { name } = entry;
    if (name.startsWith(".")) continue;
    const file = join(folder, name);
    if (entry.isDirectory()) yield* messagesIn(file);
    else if ((isMaildir || /\.eml$/i.test(name)) && isFile(entry, file)) yield { file, problem: null };
  }
}

/** A pipe or a device would keep the reader waiting. A link that leads nowhere is a file that cannot be read. */
function isFile(entry: Dirent, file: string): boolean {
  if (!entry.isSymbolicLink()) return entry.isFile();
  try {
    return statSync(file).isFile();
  } catch {
    return true;
  }
}

function byName(a: Dirent, b: Dirent): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}
