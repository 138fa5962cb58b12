/** The machine and the programs of a run: without them, its figures mean nothing. */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { VERSION } from "../../src/version.ts";

export const ROOT = join(import.meta.dir, "..", "..");

export interface Machine {
  /** When the run began, ISO 8601. */
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  /** Of the last minute, when the run began. */
  readonly load: number;
  readonly bun: string;
  readonly pmilter: string;
  readonly commit: string;
}

export function describeMachine(): Machine {
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: `${process.platform} ${release()} ${process.arch}`,
    load: loadavg()[0]!,
    bun: Bun.version,
    pmilter: VERSION,
    commit: commit(),
  };
}

function commit(): string {
  const git = (...args: string[]) => {
    try {
      const { exitCode, stdout } = Bun.spawnSync(["git", "-C", ROOT, ...args], { stderr: "ignore" });
      return exitCode === 0 ? stdout.toString().trim() : null;
    } catch {
      return null;
    }
  };
  const revision = git("rev-parse", "--short", "HEAD");
  if (revision === null) return "unknown";
  return git("status", "--porcelain", "src") === "" ? revision : `${revision} with changes in src`;
}

/** Of those packages that Debian has installed here, `name version`; nothing on another system. */
export function packageVersions(names: readonly string[]): readonly string[] {
  const dpkgQuery = Bun.which("dpkg-query");
  if (dpkgQuery === null || names.length === 0) return [];
  // It ends with an error if a package is not installed, and lists the other packages all the same.
  const { stdout } = Bun.spawnSync([dpkgQuery, "-W", "-f", "${Package} ${Version}\n", ...names], { stderr: "ignore" });
  return stdout
    .toString()
    .split("\n")
    .filter((line) => /^\S+ \S/.test(line));
}

export function mitataVersion(): string {
  const text = readFileSync(join(ROOT, "node_modules", "mitata", "package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
