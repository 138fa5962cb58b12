/** The server process as it is, for tests of its beginning and its output: nothing is waited for. */
import type { Subprocess } from "bun";
import { controlOf, Lines, MAIN, type PmilterOptions, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

export interface Spawned extends AsyncDisposable {
  readonly dir: string;
  readonly control: string;
  /** Its unix socket, unless the options say otherwise. */
  readonly address: string;
  readonly process: Subprocess<"ignore", "pipe", "pipe">;
  readonly log: Lines;
  readonly prints: Lines;
}

/**
 * @param unread leave standard output and standard error unread: take them from `process`
 */
export async function spawnServer(options: PmilterOptions, { unread = false } = {}): Promise<Spawned> {
  const dir = await tempDir("spawned");
  const configFile = await writeProject(dir.path, options);
  const child = Bun.spawn([process.execPath, MAIN, "-c", configFile], {
    cwd: dir.path,
    env: { ...process.env, XDG_RUNTIME_DIR: "", RUNTIME_DIRECTORY: "" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log = new Lines();
  const prints = new Lines();
  if (!unread) {
    void log.read(child.stderr);
    void prints.read(child.stdout);
  }
  return {
    dir: dir.path,
    control: controlOf(configFile),
    address: `unix:${dir.path}/pmilter.sock`,
    process: child,
    log,
    prints,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null) child.kill("SIGKILL");
      await child.exited;
      await dir[Symbol.asyncDispose]();
    },
  };
}
