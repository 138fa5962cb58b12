/**
 * Debian's Sendmail, downloaded and unpacked into a cache folder that later runs find again, never installed: without
 * package scripts, users, or a word in dpkg's database.
 */
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type OutsideTool, isRoot, outsideTool } from "./available.ts";

export interface UnpackedSendmail {
  readonly tool: OutsideTool;
  /** Folders for LD_LIBRARY_PATH. */
  readonly libraries: string;
  /** The folder of m4 sources for sendmail.cf. */
  readonly cf: string;
  readonly m4: string;
}

const PACKAGES = ["sendmail-bin", "sendmail-base", "sendmail-cf"];
const PROGRAM = ["usr", "libexec", "sendmail", "sendmail"];
/** Written last: a folder without it was not finished. */
const DONE = "unpacked";

/** Looks for it in the cache, else gets it there; where it cannot be had, the tool says why. */
export function unpackSendmail(): UnpackedSendmail {
  const nothing = (reason: string, wantsRoot = false): UnpackedSendmail => ({
    tool: { name: "sendmail", available: false, path: "", reason: `Sendmail: ${reason}`, wantsRoot },
    libraries: "",
    cf: "",
    m4: "",
  });
  if (process.platform !== "linux") return nothing("runs in namespaces of Linux");
  if (!isRoot) return nothing("needs root", true);
  const unshare = outsideTool("unshare");
  if (!unshare.available) return nothing(unshare.reason);
  if (run(["unshare", "-u", "-m", "-p", "--fork", "true"]).exitCode !== 0) {
    return nothing("this machine lets nobody have namespaces (unshare -u -m -p)");
  }
  try {
    const root = cached();
    const path = join(root, ...PROGRAM);
    const libraries = readdirSync(join(root, "usr", "lib"))
      .map((name) => join(root, "usr", "lib", name))
      .join(":");
    const { stdout } = run(["ldd", path], { env: { LD_LIBRARY_PATH: libraries } });
    const missing = stdout.split("\n").filter((line) => line.includes("not found"));
    if (missing.length > 0) return nothing(`lacks libraries: ${missing.map((line) => line.trim()).join("; ")}`);
    return {
      tool: { name: "sendmail", available: true, path, reason: `unpacked at ${path}` },
      libraries,
      cf: join(root, "usr", "share", "sendmail", "cf"),
      m4: Bun.which("m4") ?? join(root, "usr", "bin", "m4"),
    };
  } catch (error) {
    return nothing(error instanceof Error ? error.message : String(error));
  }
}

/** The folder with the unpacked packages. */
function cached(): string {
  const base = join(process.env["XDG_CACHE_HOME"] ?? tmpdir(), "pmilter-sendmail");
  mkdirSync(base, { recursive: true, mode: 0o755 });
  const { uid, mode } = lstatSync(base);
  // Its programs are run as root.
  if (uid !== 0 || (mode & 0o022) !== 0) throw new Error(`${base} is not root's alone`);
  const root = join(base, "root");
  if (readdirSync(base).includes("root") && readdirSync(root).includes(DONE)) return root;

  const work = mkdtempSync(join(base, "new-"));
  try {
    // apt's own user reads and writes here.
    chmodSync(work, 0o777);
    download(work, [...PACKAGES, ...(Bun.which("m4") === null ? ["m4", ...missingLibraries("m4")] : [])]);
    download(work, missingLibraries("sendmail-bin"));
    chmodSync(work, 0o755);
    for (const name of readdirSync(work).filter((each) => each.endsWith(".deb"))) {
      must(["dpkg", "-x", join(work, name), join(work, "root")]);
    }
    // With the set-group-id bit it would not be given LD_LIBRARY_PATH.
    chmodSync(join(work, "root", ...PROGRAM), 0o755);
    writeFileSync(join(work, "root", DONE), "");
    try {
      renameSync(join(work, "root"), root);
    } catch (error) {
      // Another test process was faster: its folder is as good.
      if (!(error instanceof Error && "code" in error && error.code === "ENOTEMPTY")) throw error;
    }
    return root;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The libraries that a package depends on and that are not installed. */
function missingLibraries(name: string): string[] {
  const depends = /^(?:Pre-)?Depends: (.*)$/gm;
  const text = must(["apt-cache", "show", "--no-all-versions", name]);
  const names = [...text.matchAll(depends)].flatMap(([, line]) =>
    line!.split(",").map((each) => each.trim().split(/[ :]/)[0]!),
  );
  const isInstalled = (each: string) =>
    run(["dpkg-query", "-W", "-f", "${Status}", each]).stdout.includes("ok installed");
  return names.filter((each) => each.startsWith("lib") && !isInstalled(each));
}

function download(cwd: string, packages: readonly string[]): void {
  if (packages.length === 0) return;
  must(["apt-get", "-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15", "download", ...packages], {
    cwd,
  });
}

interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

function run(
  cmd: readonly string[],
  { cwd, env }: RunOptions = {},
): { exitCode: number; stdout: string; stderr: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync({
    cmd: [...cmd],
    ...(cwd !== undefined && { cwd }),
    env: { ...process.env, LANG: "C", ...env },
    stdin: "ignore",
  });
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

function must(cmd: readonly string[], options: RunOptions = {}): string {
  const program = outsideTool(cmd[0]!);
  if (!program.available) throw new Error(program.reason);
  const { exitCode, stdout, stderr } = run(cmd, options);
  if (exitCode !== 0) throw new Error(`${cmd.join(" ")}: ${stderr.trim()}`);
  return stdout;
}
