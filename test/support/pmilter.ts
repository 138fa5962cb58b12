/**
 * The real server as a process of its own, in a temporary folder, for tests: started from its command line, stopped by
 * a signal. What it logs and prints is kept, and can be awaited.
 */
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Subprocess } from "bun";
import { defaultControl } from "../../src/config/places.ts";
import { PATIENCE_MS, tempDir } from "./temp.ts";

export const ROOT = join(import.meta.dir, "..", "..");
export const MAIN = join(ROOT, "src", "main.ts");

export interface PmilterOptions {
  /** The text of pmilter.toml, `server.listen` left out: see `listen`. Placed in the folder of `files`. */
  readonly config?: string;
  /** Keys of `[server]` besides `listen`; written into the text. `block_timeout` is 9 if it is not among them. */
  readonly server?: Readonly<Record<string, unknown>>;
  /** Default: a unix socket `pmilter.sock` in the folder, mode 0666. A port of 0 is chosen by the kernel. */
  readonly listen?: string | readonly string[];
  /** Handlers and other files, by path relative to the folder. */
  readonly files?: Readonly<Record<string, string>>;
  /** Symbolic links by path relative to the folder, and what each says. Made after `files`. */
  readonly links?: Readonly<Record<string, string>>;
  /** Where the configuration is written and named, relative to the folder; it may lie behind one of `links`. */
  readonly configPath?: string;
  /** Descriptors to inherit from 3 on. */
  readonly inherit?: readonly number[];
  readonly env?: Readonly<Record<string, string>>;
  /** The server's entry file; default: this tree's. */
  readonly main?: string;
  /** The limit of open files that it starts with; needs `sh`. */
  readonly descriptors?: number;
  /** False: what handlers print is thrown away by the kernel. Default true. */
  readonly keepsPrints?: boolean;
}

/** Lines as they come, kept and awaitable. */
export class Lines {
  readonly all: string[] = [];
  #rest = "";
  readonly #waiting = new Set<() => void>();
  isEnded = false;

  async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const parts = (this.#rest + decoder.decode(chunk, { stream: true })).split("\n");
      this.#rest = parts.pop()!;
      this.all.push(...parts);
      for (const wake of this.#waiting) wake();
    }
    this.isEnded = true;
    for (const wake of this.#waiting) wake();
  }

  get text(): string {
    return this.all.join("\n");
  }

  /** The first line from `from` on that matches, now or later. */
  async next(pattern: RegExp, { from = 0, timeoutMs = PATIENCE_MS } = {}): Promise<string> {
    const deadline = Date.now() + timeoutMs;
    for (let at = from; ;) {
      for (; at < this.all.length; at++) if (pattern.test(this.all[at]!)) return this.all[at]!;
      const left = deadline - Date.now();
      if (this.isEnded || left <= 0) throw new Error(`no line ${pattern} in:\n${this.text}`);
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.add(resolve);
      const timer = setTimeout(resolve, left);
      await promise;
      clearTimeout(timer);
      this.#waiting.delete(resolve);
    }
  }
}

export interface Pmilter extends AsyncDisposable {
  readonly dir: string;
  readonly configFile: string;
  /** Its control socket. */
  readonly control: string;
  /** Where it listens, as it said: `unix:/…`, `inet:127.0.0.1:40123`. */
  readonly addresses: readonly string[];
  readonly log: Lines;
  readonly prints: Lines;
  readonly process: Subprocess;
  /** Sends SIGTERM and gives the exit code. */
  stop(): Promise<number>;
}

/** Writes the files and the configuration into a new folder. */
export async function writeProject(dir: string, options: PmilterOptions): Promise<string> {
  const listen = options.listen ?? `unix:${join(dir, "pmilter.sock")}`;
  // A handler is not to be taken for stuck because the machine is slow: who tests that says how long. More than 9 s is warned of.
  const server = {
    listen,
    socket_mode: "0666",
    ...options.server,
    block_timeout: options.server?.["block_timeout"] ?? 9,
  };
  const keys = Object.entries(server).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  const configFile = join(dir, options.configPath ?? "pmilter.toml");
  for (const [name, text] of Object.entries(options.files ?? {})) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    // A private key is refused if others may read it.
    await writeFile(join(dir, name), text, { mode: name.endsWith(".pem") ? 0o600 : 0o666 });
  }
  for (const [name, target] of Object.entries(options.links ?? {})) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await symlink(target, join(dir, name));
  }
  await mkdir(dirname(configFile), { recursive: true });
  await writeFile(configFile, `[server]\n${keys.join("\n")}\n\n${options.config ?? ""}\n`);
  await chmod(dir, 0o755);
  return configFile;
}

/** The control socket of a server that has no variables of its environment for it. @param key of the configuration */
export function controlOf(configFile: string, key?: unknown): string {
  return typeof key === "string" ? resolve(dirname(configFile), key) : defaultControl(configFile, {});
}

/** Starts the server and waits until it says that it is ready. */
export async function startPmilter(options: PmilterOptions = {}): Promise<Pmilter> {
  const dir = await tempDir("pmilter");
  const configFile = await writeProject(dir.path, options);
  const { main = MAIN, keepsPrints = true } = options;
  const limited =
    options.descriptors === undefined ? [] : ["sh", "-c", `ulimit -n ${options.descriptors}; exec "$0" "$@"`];
  const child = Bun.spawn([...limited, process.execPath, main, "-c", configFile], {
    cwd: dir.path,
    // The control socket lies beside the configuration: servers of other tests have theirs.
    env: { ...process.env, XDG_RUNTIME_DIR: "", RUNTIME_DIRECTORY: "", ...options.env },
    stdio: ["ignore", keepsPrints ? "pipe" : "ignore", "pipe", ...(options.inherit ?? [])],
  });
  const log = new Lines();
  const prints = new Lines();
  const reading = Promise.all([
    log.read(child.stderr as ReadableStream<Uint8Array>),
    ...(keepsPrints ? [prints.read(child.stdout as ReadableStream<Uint8Array>)] : []),
  ]);
  const stop = async (): Promise<number> => {
    child.kill("SIGTERM");
    const exitCode = await child.exited;
    // The last lines may still be on their way when the process is gone.
    await reading;
    return exitCode;
  };
  let ready: string;
  try {
    ready = await log.next(/\bready: listening on /);
  } catch (error) {
    child.kill("SIGKILL");
    await dir[Symbol.asyncDispose]();
    throw error;
  }
  const addresses = /listening on (.*?); /.exec(ready)![1]!.split(", ");
  return {
    dir: dir.path,
    configFile,
    control: controlOf(configFile, options.server?.["control"]),
    addresses,
    log,
    prints,
    process: child,
    stop,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null) {
        const timer = setTimeout(() => child.kill("SIGKILL"), 25_000);
        await stop();
        clearTimeout(timer);
      }
      await dir[Symbol.asyncDispose]();
    },
  };
}

/** Runs one command of pmilter to its end. */
export async function runPmilter(
  args: readonly string[],
  options: { cwd?: string; stdin?: string; env?: Readonly<Record<string, string>> } = {},
): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const child = Bun.spawn([process.execPath, MAIN, ...args], {
    cwd: options.cwd ?? ROOT,
    env: { ...process.env, ...options.env },
    stdin: options.stdin === undefined ? "ignore" : new Blob([options.stdin]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}
