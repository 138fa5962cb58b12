/** The server under soak: a child process with a configuration, the filter and the sockets in a temporary folder. */
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FileSink, Subprocess } from "bun";
import { askServer } from "../src/server/control/control.ts";
import type { Status } from "../src/server/control/status.ts";
import type { Target } from "./transport.ts";

const ROOT = join(import.meta.dir, "..");
const FILTER = join(import.meta.dir, "filter.ts");

/** Times in seconds, short, so that they pass often in a run. */
export const TIMEOUTS = { handler: 2, block: 1, eom: 4, drain: 3, stop: 5 } as const;
export const WORKERS = 2;
/** A handler that eats 300 MB is over twice as much. */
const WORKER_MEMORY = 128 * 2 ** 20;

/** A link to the folder of the filter, as of a release: some versions turn it. */
const LINK = "current";
/** Each so many versions takes its time to start. */
const SLOW_EACH = 7;
const SLOW_MS = 1500;

const CONFIG = `[server]
listen = ["unix:pmilter.sock", "inet:127.0.0.1:0"]
control = "pmilter.ctl"
workers = ${WORKERS}
handler_timeout = ${TIMEOUTS.handler}
block_timeout = ${TIMEOUTS.block}
eom_timeout = ${TIMEOUTS.eom}
drain_timeout = ${TIMEOUTS.drain}
stop_timeout = ${TIMEOUTS.stop}

[limits]
worker_memory = ${WORKER_MEMORY}

[[filter]]
path = "${LINK}/filter.ts"
`;

/** How long the server may take for an awaited step. */
const PATIENCE_MS = 30_000;
const KEPT_LINES = 60;

/** The lines of the log: judged as they come, the last lines kept. */
class LogLines {
  last: string[] = [];
  /** The last lines that are no verdicts. */
  serious: string[] = [];
  count = 0;
  isEnded = false;
  readonly #file: FileSink | undefined;
  readonly #watchers = new Set<(line: string) => void>();

  /** @param file where all of it is kept, "" for nowhere */
  constructor(file: string) {
    if (file !== "") this.#file = Bun.file(file).writer();
  }

  async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of stream) {
      void this.#file?.write(chunk);
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#take(line);
    }
    await this.#file?.end();
    this.isEnded = true;
    this.#take("(the end of the log)");
  }

  watch(watcher: (line: string) => void): () => void {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** The first line from now on that matches. */
  async next(pattern: RegExp): Promise<RegExpExecArray> {
    const { promise, reject, resolve } = Promise.withResolvers<RegExpExecArray>();
    const timer = setTimeout(() => reject(new Error(`no line ${pattern} within ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
    const stop = this.watch((line) => {
      const found = pattern.exec(line);
      if (found !== null) resolve(found);
      else if (this.isEnded) reject(new Error(`the server has ended, expected a line ${pattern}`));
    });
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      stop();
    }
  }

  #take(line: string): void {
    this.count += 1;
    this.last.push(line);
    if (this.last.length > 2 * KEPT_LINES) this.last = this.last.slice(-KEPT_LINES);
    if (!/\]\[notice\]: (?:reject|tempfail|discard|.*PMILTER_ERR_)/.test(line)) this.serious.push(line);
    if (this.serious.length > 2 * KEPT_LINES) this.serious = this.serious.slice(-KEPT_LINES);
    for (const watcher of this.#watchers) watcher(line);
  }
}

/** The filter's text with a version; a broken version does not load, some versions start slowly. */
async function filterText(version: number, isBroken: boolean): Promise<string> {
  let text = replaced(await readFile(FILTER, "utf8"), "const VERSION = 0;", `const VERSION = ${version};`);
  if (version % SLOW_EACH === 0) {
    text = replaced(text, "defineFilter<State>({", `defineFilter<State>({\n  start: () => Bun.sleep(${SLOW_MS}),`);
  }
  if (!isBroken) return text;
  const breaks = [
    (whole: string) => `${whole}\nconst ;\n`,
    (whole: string) => `${whole}\nthrow new Error("soak: broken at import");\n`,
    (whole: string) => `import "./missing.ts";\n${whole}`,
    (whole: string) => whole.replace("export default defineFilter", "export const filter = defineFilter"),
    (whole: string) => whole.slice(0, whole.length >> 1),
  ];
  return breaks[((version / 10) % breaks.length) | 0]!(text);
}

function replaced(text: string, part: string, by: string): string {
  if (!text.includes(part)) throw new Error(`the filter has no "${part}" to be replaced`);
  return text.replace(part, by);
}

export class SoakServer implements AsyncDisposable {
  readonly dir: string;
  readonly log: LogLines;
  readonly #process: Subprocess;
  readonly #edit: (filter: string) => string;
  readonly #reading: Promise<void>;
  /** The folder that the link leads to. */
  #folder = "";
  /** The unix socket and the TCP socket. */
  targets: { readonly unix: Target; readonly tcp: Target } = { unix: { unix: "" }, tcp: { unix: "" } };

  private constructor(dir: string, log: string, edit: (filter: string) => string) {
    this.dir = dir;
    this.log = new LogLines(log);
    this.#edit = edit;
    this.#process = Bun.spawn([process.execPath, join(ROOT, "src", "main.ts"), "-c", join(dir, "pmilter.toml")], {
      cwd: dir,
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#reading = this.log.read(this.#process.stderr as ReadableStream<Uint8Array>);
  }

  /**
   * Starts it with version 1 of the filter, and waits until it serves.
   * @param log a file that takes its whole log, "" for none
   * @param edit changes the filter's text before it is written
   */
  static async start(log: string, edit = (filter: string) => filter): Promise<SoakServer> {
    const dir = await mkdtemp(join(tmpdir(), "pmilter-soak-"));
    await writeFile(join(dir, "pmilter.toml"), CONFIG);
    await mkdir(join(dir, "1"));
    await writeFile(join(dir, "1", "filter.ts"), edit(await filterText(1, false)));
    await symlink("1", join(dir, LINK));
    const server = new SoakServer(dir, log, edit);
    server.#folder = "1";
    try {
      const [, port] = await server.log.next(/ready: listening on .*inet:127\.0\.0\.1:(\d+)/);
      server.targets = {
        unix: { unix: join(dir, "pmilter.sock") },
        tcp: { hostname: "127.0.0.1", port: Number(port) },
      };
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw new Error(`the server did not start\n${server.log.last.join("\n")}`, { cause: error });
    }
  }

  get pid(): number {
    return this.#process.pid;
  }

  get hasEnded(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  async status(): Promise<Status> {
    return (await askServer(join(this.dir, "pmilter.ctl"), { command: "status" })) as Status;
  }

  /**
   * Saves a version of the filter, in place, by renaming or behind a turned link, and waits until it serves, or has failed
   * to.
   */
  async save(version: number, isBroken: boolean): Promise<void> {
    const text = this.#edit(await filterText(version, isBroken));
    const before = this.#folder;
    const path = join(this.dir, before, "filter.ts");
    const said = this.log.next(isBroken ? /reload: generation \d+ keeps serving: / : /reload: generation \d+ serves: /);
    if (version % 3 === 0) {
      await writeFile(`${path}.new~`, text);
      await rename(`${path}.new~`, path);
    } else if (version % 3 === 1) await writeFile(path, text);
    else await this.#turn(String(version), text);
    await said;
    // No worker may need the files of an old version, whichever workers are lost.
    if (this.#folder !== before) await rm(join(this.dir, before), { recursive: true });
  }

  async #turn(folder: string, text: string): Promise<void> {
    await mkdir(join(this.dir, folder));
    await writeFile(join(this.dir, folder, "filter.ts"), text);
    await symlink(folder, join(this.dir, "next~"));
    await rename(join(this.dir, "next~"), join(this.dir, LINK));
    this.#folder = folder;
  }

  /** Sends SIGTERM; the exit code, or the signal that it died of. */
  async stop(): Promise<number | string> {
    this.#process.kill("SIGTERM");
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), PATIENCE_MS);
    await this.#process.exited;
    clearTimeout(timer);
    await this.#reading;
    return this.#process.signalCode ?? this.#process.exitCode ?? "unknown";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.hasEnded) await this.stop();
    await rm(this.dir, { recursive: true, force: true, maxRetries: 3 });
  }
}
