/** The compiled binary, made as `bun run build` makes it, and run where there is no Bun. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { Lines, type PmilterOptions, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

const ROOT = join(import.meta.dir, "..", "..");

/** Builds it with the arguments of package.json's script, but for where it is put. */
export async function build(outfile: string): Promise<void> {
  const { scripts } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  const [program, ...args] = scripts["build"]!.split(" ");
  const at = args.indexOf("--outfile");
  if (program !== "bun" || at === -1) throw new Error(`the build script is not what is expected: ${scripts["build"]}`);
  const child = Bun.spawn([process.execPath, ...args.with(at + 1, outfile)], {
    cwd: ROOT,
    stdout: "ignore",
    stderr: "pipe",
  });
  const [exitCode, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  if (exitCode !== 0) throw new Error(`the build failed: ${stderr}`);
}

/** What the binary's environment is, but for what a test adds: nowhere is there a Bun to find. */
export function bareEnv(emptyFolder: string): Record<string, string> {
  return { PATH: emptyFolder, HOME: emptyFolder };
}

export interface Run {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one command of the binary to its end. */
export async function run(
  binary: string,
  args: readonly string[],
  { cwd, env }: { cwd: string; env: Record<string, string> },
): Promise<Run> {
  const child = Bun.spawn([binary, ...args], { cwd, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}

export interface Served extends AsyncDisposable {
  /** The folder of the configuration and the handlers. */
  readonly dir: string;
  readonly configFile: string;
  readonly process: Subprocess;
  readonly log: Lines;
  readonly prints: Lines;
  /** On the clock of `performance.now()`. */
  readonly startedAt: number;
}

/**
 * Starts the binary as a server, with the project in a folder of its own; not waited for.
 * @param cwd where it is started
 */
export async function serve(
  binary: string,
  options: PmilterOptions,
  { cwd, env }: { cwd: string; env: Record<string, string> },
): Promise<Served> {
  const dir = await tempDir("binary");
  const configFile = await writeProject(dir.path, options);
  const startedAt = performance.now();
  const child = Bun.spawn([binary, "-c", configFile], {
    cwd,
    env,
    stdio: ["ignore", "pipe", "pipe", ...(options.inherit ?? [])],
  });
  const log = new Lines();
  const prints = new Lines();
  void log.read(child.stderr as ReadableStream<Uint8Array>);
  void prints.read(child.stdout as ReadableStream<Uint8Array>);
  return {
    dir: dir.path,
    configFile,
    process: child,
    log,
    prints,
    startedAt,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      await child.exited;
      await dir[Symbol.asyncDispose]();
    },
  };
}
