/**
 * The main thread: starts, loads and reloads, looks after the workers, and stops. It runs no handler and parses no mail.
 */
import type { BlockList } from "node:net";
import { availableParallelism } from "node:os";
import type { Log } from "../admin/log.ts";
import type { Output } from "../admin/output.ts";
import { RecurringState, timesInWords } from "../admin/recurring-state.ts";
import { formatAddress, type ListenAddress } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { needRestart } from "../config/restart.ts";
import { Counters, type Counts } from "../counters.ts";
import { Ledger } from "../shared/ledger.ts";
import { residentBytes } from "../memory.ts";
import { allowedBy, isAllowed, type PeerName, REFUSED, refusal } from "../net/peer.ts";
import { ConnectionTable } from "../shared/connection-table.ts";
import { LoadError } from "../handler/load-failure.ts";
import type { ChainSummary } from "../shared/messages.ts";
import { isCurrent, pathsOf, type Sources, versionOf } from "../load/sources.ts";
import { Connections } from "./handover/connections.ts";
import { type ConfigurationFile, isSameConfiguration, lookUp } from "./files/configuration-file.ts";
import type { ControlFailure, ControlRequest } from "./control/control.ts";
import { ControlSocket } from "./control/control-socket.ts";
import {
  ConnectionRoom,
  connectionsThatFit,
  descriptorLimit,
  MAX_CONNECTIONS,
  SpareDescriptors,
} from "./listening/descriptors.ts";
import { CpuShare } from "./cpu-share.ts";
import { type DiskStatus, type FailedLoad, FilesOnDisk, lookAtDisk } from "./files/disk.ts";
import { ListeningSockets } from "./listening/listening-sockets.ts";
import { FallbackRate, type LastMinute } from "./control/fallback-rate.ts";
import type { Generation } from "./workers/generation.ts";
import { Generations } from "./workers/generations.ts";
import { close, deadSocket } from "../net/libc.ts";
import { toError } from "../errors.ts";
import {
  BUSY_CONNECTIONS,
  BUSY_SHARE,
  EXIT_HANDLER_MS,
  HURRIED_EXIT_HANDLER_MS,
  LISTENING_MS,
  LOADED_MS,
  NATIVE_MS,
  NO_WORKER_MS,
  WATCH_AGAIN_MS,
  WATCHDOG_MS,
} from "./policy.ts";
import { accountFor, dropPrivileges, PrivilegeError } from "./rights/privileges.ts";
import { type RecentFailure, RecentFailures } from "./control/recent-failures.ts";
import { Review } from "./files/review.ts";
import { RowPool } from "./workers/row-pool.ts";
import { StateFolder, StateFolderTakenError } from "./rights/state-folder.ts";
import { statusOf } from "./control/status.ts";
import { callHandler, checkModule, LOAD_TIMEOUT_MS, type TaskOutput } from "./workers/tasks.ts";
import { FileWatcher } from "./files/watch.ts";
import { unlessAborted } from "../shared/within.ts";
import { WorkerThread } from "./workers/worker-thread.ts";

export interface ServerOptions {
  readonly workerUrl: URL;
  /** See `FileWatcher`. */
  readonly watchUrl: URL;
  readonly log: Log;
  /** Where what handlers print goes. */
  readonly prints: Output;
  /** The server cannot serve any more, and the process is to end: a supervisor starts it again. */
  onFatal(reason: string): void;
}

/** What became of a reload. */
export interface ReloadResult {
  readonly ok: boolean;
  readonly at: Date;
  /** One or more lines for people. */
  readonly message: string;
}

export class FilterServer {
  #config: Config;
  /** That of the start, of which some keys hold for good. */
  readonly #firstConfig: Config;
  readonly #options: ServerOptions;
  readonly #ledger: Ledger;
  readonly #rows: RowPool;
  readonly #generations: Generations;
  readonly #watcher: FileWatcher;
  readonly #table: ConnectionTable;
  /** What the `master_exit_handler` was loaded from when it was checked; null without one. */
  #exitSources: Sources | null = null;
  readonly #connections: Connections;
  readonly #state: StateFolder;
  #allowed: BlockList | null;
  readonly #listeningSockets: ListeningSockets;
  readonly #control: ControlSocket;
  /** The configuration's file as it was when it was read. */
  #configFile: ConfigurationFile;
  readonly #counters = new Counters();
  readonly #watchdog: ReturnType<typeof setInterval>;
  #lastLook = performance.now();
  readonly #cpu = new CpuShare();
  /** What revoked descriptors become. Made beforehand: when it is needed there may be no descriptor left. */
  readonly #nothing = deadSocket();
  readonly #spare = new SpareDescriptors(this.#nothing);
  readonly #room: ConnectionRoom;
  #withoutWorkerMs = 0;
  /** When files are to be watched again, on the clock of `performance.now()`; infinity while they are. */
  #watchAgainAt = Number.POSITIVE_INFINITY;
  /** As it was at the start: giving up rights changes it, and the configuration's defaults must not change with it. */
  readonly #environment = { ...process.env };
  /** A start or a reload that is under way; settles whatever becomes of it. */
  #loading: Promise<unknown> | null = null;
  /** Ends what a start or a reload waits for besides a generation. */
  #abandoning = new AbortController();
  #lastReload: ReloadResult | null = null;
  /** What serves; null while the first generation loads. */
  #served: FilesOnDisk | null = null;
  /** The load that failed last, if its files were what failed. */
  #failedLoad: FailedLoad | null = null;
  readonly #fallbackRate = new FallbackRate(performance.now());
  readonly #review: Review;
  readonly #failures = new RecentFailures();
  readonly #starvation = new RecurringState({
    began: () =>
      this.#options.log.write("crit", "no file descriptors are left: new connections wait until some are closed"),
    ended: (times, seconds) =>
      this.#options.log.write(
        "notice",
        `there are file descriptors again: there were none ${timesInWords(times)}, ${seconds} s altogether`,
      ),
    now: () => performance.now(),
  });
  #stopped: Promise<void> | null = null;
  /** While it stops, a second signal has come: ends what is still waited for. */
  readonly #hurry = new AbortController();

  /** Nothing is bound or loaded yet: see {@link start}. */
  constructor(config: Config, options: ServerOptions) {
    this.#config = config;
    this.#firstConfig = config;
    this.#configFile = lookUp(config.file);
    this.#options = options;
    this.#state = new StateFolder(config.server.state, config.file);
    this.#control = new ControlSocket(
      config.server.control,
      (request) => this.#answer(request),
      (level, text, of) => options.log.write(level, text, {}, of),
    );
    options.log.onLine = (text, fields) => this.#failures.note(text, fields);
    this.#review = new Review(options.workerUrl, options.log, (message) => this.#taskOutput(message));
    const maxConnections = fittingConnections(config, options.log);
    const rows = Generations.rowsFor(workersOf(config));
    this.#ledger = Ledger.create(rows, maxConnections);
    this.#table = ConnectionTable.create(rows, maxConnections, config.server.listen.length);
    this.#allowed = allowedBy(config);
    this.#room = new ConnectionRoom(maxConnections, descriptorLimit());
    this.#rows = new RowPool(this.#ledger, this.#table, (row, counters) => {
      this.#counters.add(counters);
      this.#room.giveBack(row);
      this.#fitRoom();
    });
    this.#generations = new Generations(options.workerUrl, config, this.#ledger, this.#table, this.#rows, {
      log: (level, text, fields, of) => options.log.write(level, text, fields, of),
      print: (text) => options.prints.push(text),
      sources: () => this.#watch(),
      ready: () => {
        this.#connections.placeWaiting();
        this.#listeningSockets.settle();
      },
      acceptingStopped: () => this.#listeningSockets.settle(),
      paused: () => this.#listeningSockets.settleRoom(),
      accepted: ({ duplicate, peer, slot }) => {
        if (slot === -1) this.#admit(duplicate, peer);
        else this.#connections.addPassed(slot);
      },
      room: () => this.#listeningSockets.settleRoom(),
      released: (slot, release) => this.#connections.moveOn(slot, release),
      revoke: (row) => {
        // First: what it accepts from now on nobody would know of.
        this.#listeningSockets.revoke(row);
        const slots = this.#connections.revoke(row);
        this.#room.keep(row, slots.length);
        this.#fitRoom();
        return slots;
      },
      workerLost: (generation, loss) => this.#connections.recover(generation, loss),
      count: (counter) => this.#counters.count(counter),
      starting: () => this.#spare.release(),
    });
    this.#connections = new Connections(
      this.#ledger,
      this.#table,
      () => this.#generations,
      this.#counters,
      this.#nothing,
      {
        log: (level, text, fields, of) => options.log.write(level, text, fields, of),
        isLetIn: (peer) => this.#isLetIn(peer),
        ended: () => this.#listeningSockets.ended(),
      },
    );
    this.#listeningSockets = new ListeningSockets(this.#table, () => this.#generations, this.#nothing, {
      log: (level, text, of) => options.log.write(level, text, {}, of),
      accepted: (descriptor, peer) => this.#admit(descriptor, peer),
      addSurplus: () => this.#connections.addSurplus(),
    });
    this.#watchdog = setInterval(() => this.#look(), WATCHDOG_MS);
    this.#watcher = new FileWatcher(options.watchUrl, {
      changed: () => void this.#reloadChanged(),
      failed: (reason) => {
        this.#watchAgainAt = performance.now() + WATCH_AGAIN_MS;
        const what = `files are not watched for ${WATCH_AGAIN_MS / 1000} s`;
        options.log.write("error", `${what}: ${reason}`, {}, what);
      },
    });
  }

  /**
   * Binds, gives up root if so configured, loads the handlers and serves. Connections that come meanwhile wait, and get the
   * fallback if that takes long. Also throws if it is stopped meanwhile.
   * @throws ListenError, PrivilegeError, StateFolderTakenError, LoadError; nothing is left then
   */
  async start(): Promise<void> {
    const starting = this.#start(this.#config);
    // A reload that is wanted meanwhile waits until this is over.
    this.#loading = starting.catch(() => {});
    try {
      await starting;
      this.#loading = null;
    } catch (error) {
      this.#loading = null;
      await this.stop();
      throw error;
    }
    await this.generation.listening(LISTENING_MS);
  }

  async #start(config: Config): Promise<void> {
    const { group, user } = config.server;
    // In this order: of two servers that start at once, the one that gets the address has the control socket as well.
    await unlessAborted(this.#listeningSockets.open(config.server), this.#abandoning.signal);
    this.#openState({ user, group });
    await unlessAborted(this.#control.open(), this.#abandoning.signal);
    if (user !== null || group !== null) dropPrivileges({ user, group });
    await this.#load(config, 0);
  }

  /**
   * A state folder that is there is this server's from now on. One that is not is made when something needs it.
   * @throws StateFolderTakenError, PrivilegeError
   */
  #openState(becomes: Pick<Config["server"], "user" | "group">): void {
    if (!this.#state.isThere) return;
    try {
      this.#state.need(accountFor(becomes));
    } catch (error) {
      if (error instanceof StateFolderTakenError || error instanceof PrivilegeError) throw error;
      this.#options.log.write("warn", `${toError(error).message}; what needs it does not work`);
    }
  }

  /** The state folder, which may not be there. */
  get state(): string {
    return this.#state.path;
  }

  /** Where it listens, with the ports that the kernel chose. */
  get addresses(): ListenAddress[] {
    return this.#listeningSockets.addresses;
  }

  get connections(): number {
    return this.#table.total;
  }

  get generation(): Generation {
    return this.#generations.current!;
  }

  /** The first generation is not loaded yet: connections wait, or get the fallback. */
  get isStarting(): boolean {
    return this.#generations.current === null;
  }

  get isStopping(): boolean {
    return this.#stopped !== null;
  }

  get config(): Config {
    return this.#config;
  }

  /** Why new connections are not accepted now, null if they are. */
  get closedBecause(): string | null {
    return this.#listeningSockets.closedBecause;
  }

  /** Addresses where mail servers do not find it any more. */
  get unreachable(): ListenAddress[] {
    return this.#listeningSockets.unreachable;
  }

  /** Connections that wait for a worker. */
  get waiting(): number {
    return this.#connections.waiting;
  }

  get counts(): Counts {
    const { log, prints } = this.#options;
    const totals = this.#counters.totals(this.#rows.counters());
    return { ...totals, linesDropped: totals.linesDropped + log.dropped + prints.dropped };
  }

  /** The last ones, oldest first. */
  get failures(): readonly RecentFailure[] {
    return this.#failures.all;
  }

  /** All that run, oldest first. */
  get generations(): readonly Generation[] {
    return this.#generations.all;
  }

  /** The one that takes over slowly, if there is one. */
  get nextGeneration(): Generation | null {
    return this.#generations.next;
  }

  get oldGenerations(): readonly Generation[] {
    return this.#generations.old;
  }

  get lastMinute(): LastMinute {
    return this.#fallbackRate.lastMinute(performance.now(), this.counts);
  }

  /** Looks whether the files on disk are what serves. */
  lookAtDisk(): DiskStatus {
    const served = this.#served;
    if (served === null) return { state: "unknown", message: "the handlers are still loading" };
    if (this.#table.isStarved) return { state: "unknown", message: "no file descriptors are left" };
    const [failed, isLoading] = [this.#failedLoad, this.#loading !== null];
    try {
      const restart = (config: Config) => needRestart(this.#firstConfig, config);
      return lookAtDisk({ served, failed, environment: this.#environment, isLoading, needRestart: restart });
    } catch (error) {
      return { state: "unknown", message: toError(error).message };
    }
  }

  /** Of the last reload, null before the first. */
  get lastReload(): ReloadResult | null {
    return this.#lastReload;
  }

  /**
   * Reads the configuration and the handlers anew; sessions that begin afterwards run on them. During a start it waits for
   * that. Never throws.
   */
  async reload(): Promise<ReloadResult> {
    return this.#reload(() => loadConfig(this.#config.file, this.#environment), Infinity);
  }

  /**
   * Accepts no more, lets open sessions end within `stop_timeout`, runs `master_exit_handler`. A start or a reload that is
   * under way is abandoned; a server that was not ready has no sessions to wait for, and runs no handler.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#connections.stop();
    this.#watcher.close();
    this.#closeListeners();
    this.#abandonLoading("the server stops");
    const reviewed = this.#review.cancel();
    await this.#loading;
    const wasReady = !this.isStarting;
    await this.#generations.stop(wasReady && !this.#hurry.signal.aborted ? this.#config.server.stopTimeoutMs : 0);
    clearInterval(this.#watchdog);
    this.#spare.close();
    close(this.#nothing);
    if (wasReady) await this.#callExitHandler();
    this.#state.close();
    await reviewed;
  }

  async #callExitHandler(): Promise<void> {
    const file = this.#config.handler.masterExit;
    if (file === null) return;
    const { log, workerUrl } = this.#options;
    const isHurried = this.#hurry.signal.aborted;
    const limits = isHurried
      ? { timeoutMs: HURRIED_EXIT_HANDLER_MS }
      : { timeoutMs: EXIT_HANDLER_MS, signal: this.#hurry.signal };
    try {
      await callHandler(workerUrl, file, this.#exitSources, limits, this.#taskOutput);
    } catch (error) {
      log.write("error", `master_exit_handler: ${toError(error).message}`);
    }
  }

  /** While it stops: waits no longer. */
  cut(): void {
    this.#hurry.abort(new Error("it was not through at the second signal"));
    this.#generations.cut(NATIVE_MS);
  }

  /** What a start or a reload is loading is not wanted; one that takes over slowly does so at once. */
  #abandonLoading(reason: string): void {
    this.#abandoning.abort(new LoadError({ file: this.#config.file, line: 0, column: 0, message: reason }, undefined));
    this.#generations.abandonLoading(reason);
  }

  /**
   * Loads a generation of this configuration; it takes the sessions that begin from now on.
   * @param until see `Generations.start`
   */
  async #load(config: Config, until: number): Promise<void> {
    const { workerUrl } = this.#options;
    const { masterExit, postconfig } = config.handler;
    this.#spare.release();
    const limits = { timeoutMs: LOAD_TIMEOUT_MS, signal: this.#abandoning.signal };
    // What runs at the end must not turn out to be wrong then, or take its time to compile.
    const exitSources = masterExit === null ? null : await checkModule(workerUrl, masterExit, limits, this.#taskOutput);
    limits.signal.throwIfAborted();
    await this.#generations.start(config, workersOf(config), until, async () => {
      if (postconfig !== null) await callHandler(workerUrl, postconfig, null, limits, this.#taskOutput);
    });
    if (config !== this.#config) this.#configFile = lookUp(config.file);
    this.#config = config;
    this.#exitSources = exitSources;
    this.#served = new FilesOnDisk(config, this.generation.sources);
    this.#failedLoad = null;
    this.#allowed = allowedBy(config);
    this.#connections.placeWaiting();
    this.#listeningSockets.settle();
    this.#watch();
  }

  /** Of all generations whose sources matter: the one that serves, the one that loads, the one that failed last. */
  #watch(): void {
    const { current, failed, loading } = this.#generations;
    // While the first one loads there is nothing yet that a change could replace; what changed meanwhile is found then.
    if (current === null) return;
    const all = [current.sources, loading?.sources, failed, this.#exitSources].filter((sources) => sources != null);
    this.#watcher.set(this.#config.server.watch ? all.flatMap(pathsOf) : []);
  }

  /** A file of the sources looks different: only if it says something else is there anything to do. */
  async #reloadChanged(): Promise<void> {
    // Without a descriptor no file can be read, which is no change of it.
    if (this.isStopping || this.#table.isStarved || !this.#spare.look()) return;
    const { loading } = this.#generations;
    if (loading?.sources != null && !isCurrent(loading.sources)) {
      // What is being loaded, or hangs, is out of date already: it must not keep the next version waiting.
      this.#abandonLoading("a file was changed while it was being loaded");
    }
    await this.#loading;
    const { current, failed } = this.#generations;
    const [isServed, hasFailed] = [current?.sources, failed].map((sources) => sources != null && isCurrent(sources));
    const isExitKnown = this.#exitSources === null || isCurrent(this.#exitSources);
    if (isServed === true && hasFailed !== true && isExitKnown) this.#tellPutRight();
    if (this.isStopping || (isExitKnown && (isServed === true || hasFailed === true))) return;
    await this.#reload(() => this.#config, performance.now() + LOADED_MS);
  }

  /** After a reload that failed the files are what serves again. */
  #tellPutRight(): void {
    if (this.#failedLoad === null || this.lookAtDisk().state !== "same") return;
    this.#failedLoad = null;
    this.#options.log.write(
      "notice",
      `reload: not needed any more, the files are again what generation ${this.generation.number} serves`,
    );
  }

  async #reload(configure: () => Config, until: number): Promise<ReloadResult> {
    // Reloads run one at a time. A request that arrives meanwhile has its own afterwards, with the files as they are then.
    while (this.#loading !== null) await this.#loading;
    if (this.isStopping) return { ok: false, at: new Date(), message: "the server stops" };
    this.#abandoning = new AbortController();
    const reloading = this.#tryReload(configure, until);
    this.#loading = reloading;
    const result = await reloading;
    this.#loading = null;
    return result;
  }

  async #tryReload(configure: () => Config, until: number): Promise<ReloadResult> {
    const { log } = this.#options;
    const done = (ok: boolean, message: string): ReloadResult => {
      this.#lastReload = { ok, at: new Date(), message };
      // Files that change without an end fail without an end.
      log.write(ok ? "notice" : "error", `reload: ${message}`, {}, ok ? undefined : "reload: … serves on");
      return this.#lastReload;
    };
    const before = this.#config;
    const { failed: failedBefore } = this.#generations;
    const codeBefore = this.#generations.current?.sources ?? null;
    const isBusy = this.#cpu.share > BUSY_SHARE && this.connections >= BUSY_CONNECTIONS;
    let config = before;
    try {
      config = configure();
      const isUnchanged = this.#served?.isSame(config) === true;
      const since = isUnchanged ? `; nothing has changed since generation ${this.generation.number}` : "";
      if (config !== before) logNotices(log, config);
      await this.#load(config, isBusy ? until : 0);
      log.configure(config.server.logLevel, config.server.logFormat);
      this.#reviewChanges(before, codeBefore);
      for (const key of needRestart(before, config))
        log.write("warn", `reload: ${key} has changed and needs a restart`);
      const { number, summary } = this.generation;
      return done(true, `generation ${number} serves: ${describeFilters(summary)}${since}`);
    } catch (error) {
      // What was read of it is watched as well: mending a file that the old generation does not know has to be noticed.
      this.#watch();
      const { message } = toError(error);
      if (error instanceof LoadError) this.#keepFailure(config, failedBefore, message);
      return done(false, `generation ${this.generation.number} serves on: ${message}`);
    }
  }

  /** Keeps what did not load, unless it is not known which files that was, or the load was abandoned. */
  #keepFailure(config: Config, failedBefore: Sources | null, message: string): void {
    const { failed } = this.#generations;
    const sources = failed === failedBefore ? null : failed;
    // Without sources it is the check of this handler, which comes first.
    const isKnown = sources !== null || config.handler.masterExit !== null;
    if (!isKnown || this.#abandoning.signal.aborted) return;
    this.#failedLoad = { files: new FilesOnDisk(config, sources), message };
  }

  /** Has handlers judged that the generation before did not have, or that are used otherwise. */
  #reviewChanges(before: Config, codeBefore: Sources | null): void {
    const { sources } = this.generation;
    const { filters, handler } = this.#config;
    if (sources === null || this.isStopping) return;
    const isSame =
      versionOf(codeBefore) === versionOf(sources) &&
      Bun.deepEquals([filters, handler], [before.filters, before.handler]);
    if (!isSame) this.#review.start(this.#config, sources);
  }

  readonly #taskOutput: TaskOutput = (message) => {
    if (message.kind === "print") this.#options.prints.push(message.text);
    else this.#options.log.write(message.level, message.text, message.fields, message.of);
  };

  #answer({ command, config }: ControlRequest): Promise<object> | object {
    if (config !== undefined && !this.#runs(config)) {
      const failure: ControlFailure = { error: "this server runs another configuration", runs: this.#config.file };
      return failure;
    }
    return command === "status" ? statusOf(this) : this.reload();
  }

  /** Whether this is its configuration, as it was read or as it is now. */
  #runs(config: ConfigurationFile): boolean {
    return [this.#configFile, lookUp(this.#config.file)].some((own) => isSameConfiguration(own, config));
  }

  #closeListeners(): void {
    // In this order: a server that takes over the address finds no control socket in its way.
    this.#control.close();
    this.#listeningSockets.close();
  }

  #admit(descriptor: number, peer: PeerName): void {
    if (this.isStopping || !this.#isLetIn(peer)) {
      close(descriptor);
      return;
    }
    this.#connections.add(descriptor, peer);
    if (this.#table.isFull) this.#listeningSockets.settleRoom();
  }

  /** Threads that do not end keep descriptors: there is room for fewer connections, until they do. */
  #fitRoom(): void {
    const { connections } = this.#room;
    if (connections === this.#table.room) return;
    this.#table.room = connections;
    this.#listeningSockets.settleRoom();
  }

  #isLetIn(peer: PeerName): boolean {
    if (isAllowed(this.#allowed, peer)) return true;
    this.#options.log.write("warn", refusal(peer), {}, REFUSED);
    return false;
  }

  /** Looks after the workers. */
  #look(): void {
    const now = performance.now();
    // A machine that was asleep, or this thread without a core, is no fault of the workers.
    const elapsed = Math.min(now - this.#lastLook, Math.max(2 * WATCHDOG_MS, this.#config.server.blockTimeoutMs / 4));
    this.#lastLook = now;
    const lost = this.isStopping ? null : this.#listeningSockets.lost;
    if (lost !== null) {
      clearInterval(this.#watchdog);
      const where = formatAddress(lost);
      this.#options.onFatal(`the socket at ${where} was closed by something else in this process, such as a handler`);
      return;
    }
    this.#cpu.look();
    this.#lookAtDescriptors();
    this.#fallbackRate.look(now, () => this.counts);
    this.#listeningSockets.look();
    if (!this.isStopping) this.#control.look();
    const { all } = this.#generations;
    const bound = this.#config.limits.workerMemory * (1 + all.reduce((sum, { loads }) => sum + loads.length, 0));
    const resident = residentBytes();
    for (const generation of all) generation.watch(elapsed, resident, resident > bound);
    if (now > this.#watchAgainAt && !this.isStopping && !this.#table.isStarved) {
      this.#watchAgainAt = Number.POSITIVE_INFINITY;
      this.#watch();
      // What was saved meanwhile no look has seen.
      void this.#reloadChanged();
    }
    this.#connections.standIn(now);
    this.#lookForWorkers(now, elapsed);
  }

  /** Without a worker nothing can be decided any more: a supervisor that starts the process again may help, waiting does not. */
  #lookForWorkers(now: number, elapsedMs: number): void {
    const { current } = this.#generations;
    this.#withoutWorkerMs = current === null || current.isReady ? 0 : this.#withoutWorkerMs + elapsedMs;
    if (this.isStopping || Math.max(this.#withoutWorkerMs, this.#connections.waitedMs(now)) <= NO_WORKER_MS) return;
    clearInterval(this.#watchdog);
    const stuck = WorkerThread.stuck === 0 ? "" : ` (${WorkerThread.stuck} threads do not end)`;
    this.#options.onFatal(`no worker could take sessions for ${NO_WORKER_MS / 1000} s${stuck}`);
  }

  /** Without a descriptor no connection can be accepted, and trying would take all of a core. */
  #lookAtDescriptors(): void {
    const isStarved = !this.#spare.look();
    this.#starvation.look();
    if (isStarved === this.#table.isStarved) return;
    this.#table.isStarved = isStarved;
    this.#starvation.set(isStarved);
    this.#listeningSockets.settle();
    if (!isStarved) void this.#reloadChanged();
  }
}

/** `server.max_connections`, or what the limit of open files leaves room for. */
function fittingConnections({ server }: Config, log: Log): number {
  const limit = descriptorLimit();
  const wanted = server.maxConnections ?? MAX_CONNECTIONS;
  const fitting = connectionsThatFit(wanted, limit);
  if (fitting === wanted) return fitting;
  const why = `the limit of open files is ${limit} and each takes two`;
  if (server.maxConnections === null) log.write("info", `server.max_connections is ${fitting}: ${why}`);
  else log.write("warn", `server.max_connections is lowered from ${wanted} to ${fitting}: ${why}`);
  return fitting;
}

function workersOf({ server }: Config): number {
  return server.workers === "auto" ? availableParallelism() : server.workers;
}

/** What the configuration's reader has to say of it. */
export function logNotices(log: Log, config: Config): void {
  for (const { level, text } of config.notices) log.write(level === "warning" ? "warn" : "notice", text);
}

/** The filters by name, as logs give them. */
export function describeFilters({ filters }: ChainSummary): string {
  return filters.map(({ name, isObserved }) => name + (isObserved ? " (observe)" : "")).join(", ") || "no filters";
}
