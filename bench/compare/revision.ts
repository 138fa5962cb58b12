/** Another revision of this repository, in a temporary folder, with its own dependencies. */
import { tempDir } from "../../test/support/temp.ts";
import { BenchUsageError } from "../args.ts";
import { ROOT } from "../support/machine.ts";

export interface Revision extends AsyncDisposable {
  /** The revision as the user named it, and as it is. */
  readonly name: string;
  readonly root: string;
}

/**
 * @param repository by default that of this file
 * @throws BenchUsageError if there is no such revision here
 */
export async function checkOut(name: string, signal: AbortSignal, repository = ROOT): Promise<Revision> {
  const found = Bun.spawnSync(["git", "-C", repository, "rev-parse", "--verify", "--quiet", `${name}^{commit}`]);
  if (!found.success) {
    throw new BenchUsageError(`--compare: there is no revision "${name}" here (a shallow clone has few)`);
  }
  const commit = found.stdout.toString().trim();
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await tempDir("bench-revision"));
  // A work tree of its own, gone with the folder; the repository is only read.
  const archive = Bun.spawn(["git", "-C", repository, "archive", commit], {
    stdout: "pipe",
    stderr: "inherit",
    signal,
  });
  const unpacked = Bun.spawn(["tar", "-x", "-C", dir.path], { stdin: archive.stdout, stderr: "inherit", signal });
  if ((await archive.exited) !== 0 || (await unpacked.exited) !== 0) throw new Error(`cannot unpack ${name}`);
  const install = Bun.spawn([process.execPath, "install", "--frozen-lockfile"], {
    cwd: dir.path,
    stdio: ["ignore", "ignore", "pipe"],
    signal,
  });
  const [exitCode, errors] = await Promise.all([install.exited, install.stderr.text()]);
  if (exitCode !== 0) throw new Error(`bun install for ${name} ended with ${exitCode}: ${errors}`);
  const owned = stack.move();
  const short = commit.slice(0, 7);
  return {
    name: name.startsWith(short) || short.startsWith(name) ? short : `${name} (${short})`,
    root: dir.path,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
