/**
 * What a reader of the pages has: a fresh copy of the repository, a terminal in it, and a second one for the server.
 * Commands run in a shell as they are written; nothing is installed but what they install themselves.
 */
import { chmod, copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import { Lines } from "../support/pmilter.ts";
import { freePort, tempDir } from "../support/temp.ts";
import { ROOT } from "./blocks.ts";

export interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running extends AsyncDisposable {
  readonly log: Lines;
  readonly prints: Lines;
  /** SIGTERM to the server; the exit code of the command that was typed. */
  stop(): Promise<number>;
  /** What Ctrl-C does: SIGINT to everything that the command started; waits until the output has ended. */
  interrupt(): Promise<void>;
}

/** A copy of what git knows or would add, in a temporary folder; with the locked dependencies if asked for. */
export async function freshCopy({ install = false } = {}): Promise<Terminal> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await tempDir("docs"));
  const listed = Bun.spawnSync(["git", "ls-files", "-z", "-co", "--exclude-standard"], { cwd: ROOT });
  if (!listed.success) throw new Error(`git ls-files: ${listed.stderr.toString()}`);
  const files = listed.stdout
    .toString()
    .split("\0")
    .filter((file) => file !== "" && statSync(join(ROOT, file), { throwIfNoEntry: false })?.isFile() === true);
  for (const folder of new Set(files.map(dirname))) await mkdir(join(path, folder), { recursive: true });
  await Promise.all(files.map((file) => copyFile(join(ROOT, file), join(path, file))));
  const terminal = new Terminal(path, await searchPath(path), stack.move());
  if (install) {
    const { exitCode, stderr } = await terminal.run("bun install --frozen-lockfile");
    if (exitCode !== 0) throw new Error(`bun install: ${stderr}`);
  }
  return terminal;
}

/** The server itself, from source or as the binary, among what a command started. */
const SERVER = /src\/main\.ts|^\S*\/pmilter\0/;

export class Terminal implements AsyncDisposable {
  readonly dir: string;
  readonly #path: string;
  readonly #owned: AsyncDisposableStack;

  constructor(dir: string, path: string, owned: AsyncDisposableStack) {
    this.dir = dir;
    this.#path = path;
    this.#owned = owned;
  }

  /** Puts a port of this run in place of the one in pmilter.toml, and gives it. */
  async choosePort(): Promise<number> {
    const port = await freePort();
    const text = await this.read("pmilter.toml");
    if (!text.includes(`\nlisten = "inet:127.0.0.1:8891"\n`)) throw new Error("pmilter.toml listens elsewhere");
    await this.write("pmilter.toml", text.replace("inet:127.0.0.1:8891", `inet:127.0.0.1:${port}`));
    return port;
  }

  async read(file: string): Promise<string> {
    return await readFile(join(this.dir, file), "utf8");
  }

  async write(file: string, text: string): Promise<void> {
    await mkdir(dirname(join(this.dir, file)), { recursive: true });
    await writeFile(join(this.dir, file), text);
  }

  /** Runs a command to its end. */
  async run(command: string): Promise<Ran> {
    const child = this.#spawn(command);
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { exitCode, stdout, stderr };
  }

  /** Starts a command that serves, as a process group of its own, and waits until it is ready. */
  async serve(command: string): Promise<Running> {
    const child = this.#spawn(command);
    const log = new Lines();
    const prints = new Lines();
    const ended = Promise.all([log.read(child.stderr), prints.read(child.stdout), child.exited]);
    const signal = async (name: "SIGTERM" | "SIGKILL") => {
      for (const pid of await groupOf(child.pid, name === "SIGTERM" ? SERVER : /(?:)/)) killIfThere(pid, name);
    };
    const running: Running = {
      log,
      prints,
      async stop() {
        await signal("SIGTERM");
        await ended;
        return await child.exited;
      },
      async interrupt() {
        process.kill(-child.pid, "SIGINT");
        await ended;
      },
      async [Symbol.asyncDispose]() {
        await signal("SIGKILL");
        await ended;
      },
    };
    try {
      await log.next(/: ready: listening on /);
    } catch (error) {
      await running[Symbol.asyncDispose]();
      throw error;
    }
    return running;
  }

  #spawn(command: string): Bun.Subprocess<"ignore", "pipe", "pipe"> {
    // What `bun test` sets would reach the command; under --no-orphans `bun run` waits for all that it has started.
    const { NODE_ENV: _, BUN_FEATURE_FLAG_NO_ORPHANS: __, ...env } = process.env;
    return Bun.spawn(["sh", "-c", command], {
      cwd: this.dir,
      env: { ...env, PATH: this.#path },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/** The living processes of a group whose command line contains a text. */
async function groupOf(leader: number, text: RegExp): Promise<number[]> {
  const found: number[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    const [state, , group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (Number(group) !== leader || state === "Z") continue;
    const line = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (text.test(line)) found.push(Number(pid));
  }
  return found;
}

function killIfThere(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

let npxWorks: boolean | undefined;

/** PATH with this bun at its end, as with Bun installed; and with a stand-in for npx where there is none, or no network. */
async function searchPath(dir: string): Promise<string> {
  // Those of the system are in the PATH of root alone.
  const path = `${process.env["PATH"]}:/usr/local/sbin:/usr/sbin:/sbin:${dirname(process.execPath)}`;
  npxWorks ??= Bun.spawnSync(["sh", "-c", "npx -y bun@1.4.5 --version"], { timeout: 30_000 })
    .stdout.toString()
    .includes("1.4.5");
  if (npxWorks) return path;
  if (!hasWarned) console.warn(`npx -y bun@1.4.5 does not work here: ${process.execPath} runs in its place`);
  hasWarned = true;
  const shims = join(dir, "node_modules", ".shims");
  await mkdir(shims, { recursive: true });
  const shim = `#!/bin/sh\n[ "$1 $2" = "-y bun@1.4.5" ] || exit 99\nshift 2\nexec '${process.execPath}' "$@"\n`;
  await writeFile(join(shims, "npx"), shim);
  await chmod(join(shims, "npx"), 0o755);
  return `${shims}:${path}`;
}

let hasWarned = false;
