/**
 * Which configuration and code serve: the first load, each reload, the files that are watched for it, and the results that
 * `pmilter status` shows. A load that fails changes nothing.
 */
import type { Log } from "../admin/log.ts";
import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { toError } from "../errors.ts";
import { LoadError } from "../handler/load-failure.ts";
import { isCurrent, pathsOf, type Sources, versionOf } from "../load/sources.ts";
import type { ChainSummary } from "../shared/messages.ts";
import { type ConfigurationFile, isSameConfiguration, lookUp } from "./files/configuration-file.ts";
import { type DiskStatus, type FailedLoad, FilesOnDisk, lookAtDisk } from "./files/disk.ts";
import { needRestart } from "../config/restart.ts";
import { Review } from "./files/review.ts";
import { FileWatcher } from "./files/watch.ts";
import type { Starvation } from "./listening/starvation.ts";
import { LOADED_MS, WATCH_AGAIN_MS } from "./policy.ts";
import { workersOf } from "./sizes.ts";
import type { Generation } from "./workers/generation.ts";
import type { Generations } from "./workers/generations.ts";
import { callHandler, checkModule, LOAD_TIMEOUT_MS, type TaskOutput } from "./workers/tasks.ts";

/** The result of a reload. */
export interface ReloadResult {
  readonly ok: boolean;
  readonly at: Date;
  /** For people; may have several lines. */
  readonly message: string;
}

export interface ReloaderOptions {
  readonly workerUrl: URL;
  /** See `FileWatcher`. */
  readonly watchUrl: URL;
  readonly config: Config;
  readonly log: Log;
  readonly generations: Generations;
  readonly starvation: Starvation;
  /** Where tasks log and print. */
  readonly taskOutput: TaskOutput;
}

export interface ReloaderHost {
  /** The current generation is another, of this configuration. */
  serves(config: Config): void;
  /** The server has much to do: a reload takes over slowly. */
  isBusy(): boolean;
}

export class Reloader {
  readonly #options: ReloaderOptions;
  readonly #host: ReloaderHost;
  readonly #log: Log;
  readonly #generations: Generations;
  #config: Config;
  /** The configuration's file as it was when it was read. */
  #configFile: ConfigurationFile;
  /** As it was at the start: giving up rights changes it, and the configuration's defaults must not change with it. */
  readonly #environment = { ...process.env };
  readonly #watcher: FileWatcher;
  readonly #review: Review;
  /** The sources of the `master_exit_handler` as they were checked; null without such a handler. */
  #exitSources: Sources | null = null;
  /** When files are to be watched again, on the clock of `performance.now()`; infinity while they are. */
  #watchAgainAt = Number.POSITIVE_INFINITY;
  /** A start or a reload that is under way. Never rejects. */
  #loading: Promise<unknown> | null = null;
  /** Ends the steps of a start or a reload besides the loading of a generation. */
  #abandoning = new AbortController();
  #isStopped = false;
  #lastReload: ReloadResult | null = null;
  /** The files that serve; null while the first generation loads. */
  #served: FilesOnDisk | null = null;
  /** The files of the load that failed last, if they were at fault. */
  #failedLoad: FailedLoad | null = null;

  constructor(options: ReloaderOptions, host: ReloaderHost) {
    const { config, generations, log, taskOutput, watchUrl, workerUrl } = options;
    this.#options = options;
    this.#host = host;
    this.#log = log;
    this.#generations = generations;
    this.#config = config;
    this.#configFile = lookUp(config.file);
    this.#review = new Review(workerUrl, log, taskOutput);
    this.#watcher = new FileWatcher(watchUrl, {
      changed: () => void this.reloadChanged(),
      failed: (reason) => {
        this.#watchAgainAt = performance.now() + WATCH_AGAIN_MS;
        const what = `files are not watched for ${WATCH_AGAIN_MS / 1000} s`;
        log.write("error", `${what}: ${reason}`, {}, what);
      },
    });
  }

  /** The configuration that serves; before the first load, the configuration to load. */
  get config(): Config {
    return this.#config;
  }

  /** The result of the last reload, null before the first. */
  get lastReload(): ReloadResult | null {
    return this.#lastReload;
  }

  /** Aborted when the start or the reload that is under way is abandoned. */
  get abandoned(): AbortSignal {
    return this.#abandoning.signal;
  }

  get #generation(): Generation {
    return this.#generations.current!;
  }

  /** Whether this is the configuration of this server, as it was read or as it is now. */
  runs(config: ConfigurationFile): boolean {
    return [this.#configFile, lookUp(this.#config.file)].some((own) => isSameConfiguration(own, config));
  }

  /** Settles as `start` does. A reload that is wanted meanwhile waits until then. */
  async during(start: Promise<void>): Promise<void> {
    this.#loading = start.catch(() => {});
    try {
      await start;
    } finally {
      this.#loading = null;
    }
  }

  /**
   * Loads a generation of this configuration; it takes the sessions that begin from now on.
   * @param until see `Generations.start`
   */
  async load(config: Config, until: number): Promise<void> {
    const { starvation, taskOutput, workerUrl } = this.#options;
    const { masterExit, postconfig } = config.handler;
    starvation.release();
    const limits = { timeoutMs: LOAD_TIMEOUT_MS, signal: this.abandoned };
    // An error in the handler that runs at the end, or the time to compile it, must not appear only then.
    const exitSources = masterExit === null ? null : await checkModule(workerUrl, masterExit, limits, taskOutput);
    limits.signal.throwIfAborted();
    await this.#generations.start(config, workersOf(config), until, async () => {
      if (postconfig !== null) await callHandler(workerUrl, postconfig, null, limits, taskOutput);
    });
    if (config !== this.#config) this.#configFile = lookUp(config.file);
    this.#config = config;
    this.#exitSources = exitSources;
    this.#served = new FilesOnDisk(config, this.#generation.sources);
    this.#failedLoad = null;
    this.#host.serves(config);
    this.watch();
  }

  /**
   * Reads the configuration and the handlers anew; sessions that begin afterwards run on them. Reloads run one at a time,
   * and after a start. A request that arrives meanwhile starts a reload of its own afterwards, with the files as they are
   * then. Never throws.
   */
  async reload(): Promise<ReloadResult> {
    return this.#reload(() => loadConfig(this.#config.file, this.#environment), Infinity);
  }

  async #reload(configure: () => Config, until: number): Promise<ReloadResult> {
    while (this.#loading !== null) await this.#loading;
    if (this.#isStopped) return { ok: false, at: new Date(), message: "the server stops" };
    this.#abandoning = new AbortController();
    const reloading = this.#tryReload(configure, until);
    this.#loading = reloading;
    const result = await reloading;
    this.#loading = null;
    return result;
  }

  async #tryReload(configure: () => Config, until: number): Promise<ReloadResult> {
    const before = this.#config;
    const { current, failed: failedBefore } = this.#generations;
    const codeBefore = current?.sources ?? null;
    const isBusy = this.#host.isBusy();
    let config = before;
    try {
      config = configure();
      const isUnchanged = this.#served?.isSame(config) === true;
      const since = isUnchanged ? `; nothing has changed since generation ${this.#generation.number}` : "";
      if (config !== before) logNotices(this.#log, config);
      await this.load(config, isBusy ? until : 0);
      this.#log.configure(config.server.logLevel, config.server.logFormat);
      this.#reviewChanges(before, codeBefore);
      for (const key of needRestart(before, config)) {
        this.#log.write("warn", `reload: ${key} has changed and needs a restart`);
      }
      const { number, summary } = this.#generation;
      return this.#done(true, `generation ${number} serves: ${describeFilters(summary)}${since}`);
    } catch (error) {
      // The files that were read are watched as well: the old generation may not know the file that will be corrected.
      this.watch();
      const { message } = toError(error);
      if (error instanceof LoadError) this.#keepFailure(config, failedBefore, message);
      return this.#done(false, `generation ${this.#generation.number} keeps serving: ${message}`);
    }
  }

  #done(ok: boolean, message: string): ReloadResult {
    this.#lastReload = { ok, at: new Date(), message };
    // Files that change without an end fail without an end.
    this.#log.write(ok ? "notice" : "error", `reload: ${message}`, {}, ok ? undefined : "reload: … keeps serving");
    return this.#lastReload;
  }

  /** Keeps the files that did not load, unless it is not known which they were, or the load was abandoned. */
  #keepFailure(config: Config, failedBefore: Sources | null, message: string): void {
    const { failed } = this.#generations;
    const sources = failed === failedBefore ? null : failed;
    // Without sources it is the check of the exit handler that failed, which comes first.
    const isKnown = sources !== null || config.handler.masterExit !== null;
    if (!isKnown || this.abandoned.aborted) return;
    this.#failedLoad = { files: new FilesOnDisk(config, sources), message };
  }

  /** Has handlers judged that the generation before did not have, or that are used otherwise. */
  #reviewChanges(before: Config, codeBefore: Sources | null): void {
    const { sources } = this.#generation;
    const { filters, handler } = this.#config;
    if (sources === null || this.#isStopped) return;
    const isSame =
      versionOf(codeBefore) === versionOf(sources) &&
      Bun.deepEquals([filters, handler], [before.filters, before.handler]);
    if (!isSame) this.#review.start(this.#config, sources);
  }

  /** Watches the sources of the generation that serves, of the generation that loads, and of the load that failed last. */
  watch(): void {
    const { current, failed, loading } = this.#generations;
    // While the first generation loads, a change could replace nothing; it is found afterwards.
    if (current === null) return;
    const all = [current.sources, loading?.sources, failed, this.#exitSources].filter((sources) => sources != null);
    this.#watcher.set(this.#config.server.watch ? all.flatMap(pathsOf) : []);
  }

  /** Watches files again some time after the thread that does it has ended. */
  watchAgain(now: number): void {
    if (now <= this.#watchAgainAt || this.#isStopped || this.#options.starvation.isOn) return;
    this.#watchAgainAt = Number.POSITIVE_INFINITY;
    this.watch();
    // Changes that were saved meanwhile were not seen.
    void this.reloadChanged();
  }

  /** A file of the sources looks different: reloads if its text differs. */
  async reloadChanged(): Promise<void> {
    // Without a descriptor no file can be read, which does not mean that it has changed.
    if (this.#isStopped || !this.#options.starvation.canRead()) return;
    const { loading } = this.#generations;
    if (loading?.sources != null && !isCurrent(loading.sources)) {
      // The version that is being loaded, or hangs, is out of date: it must not keep the next version waiting.
      this.#abandon("a file was changed while it was being loaded");
    }
    await this.#loading;
    // The change was told before that load, which may have ended the watching.
    if (!this.#config.server.watch) return;
    const { current, failed } = this.#generations;
    const [isServed, hasFailed] = [current?.sources, failed].map((sources) => sources != null && isCurrent(sources));
    const isExitKnown = this.#exitSources === null || isCurrent(this.#exitSources);
    if (isServed === true && hasFailed !== true && isExitKnown) this.#tellPutRight();
    if (this.#isStopped || (isExitKnown && (isServed === true || hasFailed === true))) return;
    await this.#reload(() => this.#config, performance.now() + LOADED_MS);
  }

  /** After a reload that failed, the files are again those that serve. */
  #tellPutRight(): void {
    if (this.#failedLoad === null || this.lookAtDisk().state !== "same") return;
    this.#failedLoad = null;
    this.#log.write(
      "notice",
      `reload: not needed any more, the files are again what generation ${this.#generation.number} serves`,
    );
  }

  /** Compares the files on disk with those that serve. */
  lookAtDisk(): DiskStatus {
    const served = this.#served;
    if (served === null) return { state: "unknown", message: "the handlers are still loading" };
    if (this.#options.starvation.isOn) return { state: "unknown", message: "no file descriptors are left" };
    try {
      return lookAtDisk({
        served,
        failed: this.#failedLoad,
        environment: this.#environment,
        isLoading: this.#loading !== null,
        needRestart: (config) => needRestart(this.#options.config, config),
      });
    } catch (error) {
      return { state: "unknown", message: toError(error).message };
    }
  }

  /** Calls `master_exit_handler`, if the configuration has it. @throws LoadError */
  async callExitHandler(limits: { readonly timeoutMs: number; readonly signal?: AbortSignal }): Promise<void> {
    const { taskOutput, workerUrl } = this.#options;
    const file = this.#config.handler.masterExit;
    if (file !== null) await callHandler(workerUrl, file, this.#exitSources, limits, taskOutput);
  }

  /** Abandons the load that is under way; a generation that takes over slowly does so at once. */
  #abandon(reason: string): void {
    this.#abandoning.abort(new LoadError({ file: this.#config.file, line: 0, column: 0, message: reason }, undefined));
    this.#generations.abandonLoading(reason);
  }

  /** Nothing is loaded from now on. Settles when nothing is being loaded any more. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#watcher.close();
    this.#abandon("the server stops");
    void this.#review.cancel();
    await this.#loading;
  }

  /** Once it was stopped: settles when no handlers are being judged any more. */
  async close(): Promise<void> {
    await this.#review.cancel();
  }
}

/** Logs the notices of the configuration's reader. */
export function logNotices(log: Log, config: Config): void {
  for (const { level, text } of config.notices) log.write(level === "warning" ? "warn" : "notice", text);
}

/** The filters by name, as logs give them. */
export function describeFilters({ filters }: ChainSummary): string {
  return filters.map(({ name, isObserved }) => name + (isObserved ? " (observe)" : "")).join(", ") || "no filters";
}
