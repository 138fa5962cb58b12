/**
 * The main thread: starts, loads and reloads, looks after the workers, and stops. It runs no handler and parses no mail.
 */
import type { BlockList } from "node:net";
import { availableParallelism } from "node:os";
import type { Log } from "../admin/log.ts";
import type { Output } from "../admin/output.ts";
import { formatAddress, type ListenAddress } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { Counters, type Counts } from "../counters.ts";
import { Ledger } from "../ledger.ts";
import { residentBytes } from "../memory.ts";
import { allowedBy, isAllowed, type PeerName, refusal } from "../net/peer.ts";
import { Roster } from "../roster.ts";
import type { ChainSummary } from "../worker/messages.ts";
import { isCurrent, pathsOf } from "../worker/sources.ts";
import { Connections } from "./connections.ts";
import { listenForControl } from "./control.ts";
import { ConnectionRoom, connectionsThatFit, descriptorLimit, SpareDescriptors } from "./descriptors.ts";
import { CpuShare } from "./cpu-share.ts";
import { Doors } from "./doors.ts";
import type { Generation } from "./generation.ts";
import { Generations } from "./generations.ts";
import { close, deadSocket } from "../net/libc.ts";
import { toError } from "./listen-error.ts";
import type { Listener } from "./listener.ts";
import { BUSY_CONNECTIONS, BUSY_SHARE, LISTENING_MS, LOADED_MS, NO_WORKER_MS, WATCHDOG_MS } from "./policy.ts";
import { dropPrivileges } from "./privileges.ts";
import { Rows } from "./rows.ts";
import { statusOf } from "./status.ts";
import { callHandler, checkModule, EXIT_HANDLER_TIMEOUT_MS, LOAD_TIMEOUT_MS, type TaskOutput } from "./tasks.ts";
import { FileWatcher } from "./watch.ts";
import { WorkerThread } from "./worker-thread.ts";

export interface ServerOptions {
  readonly workerUrl: URL;
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
  readonly #options: ServerOptions;
  readonly #ledger: Ledger;
  readonly #rows: Rows;
  readonly #generations: Generations;
  readonly #watcher: FileWatcher;
  readonly #roster: Roster;
  readonly #connections: Connections;
  #allowed: BlockList | null;
  readonly #doors: Doors;
  #control: Listener | null = null;
  readonly #counters = new Counters();
  readonly #watchdog: ReturnType<typeof setInterval>;
  #lastLook = performance.now();
  readonly #cpu = new CpuShare();
  /** What revoked descriptors become. Made beforehand: when it is needed there may be no descriptor left. */
  readonly #nothing = deadSocket();
  readonly #spare = new SpareDescriptors(this.#nothing);
  readonly #room: ConnectionRoom;
  #withoutWorkerMs = 0;
  /** As it was at the start: giving up rights changes it, and the configuration's defaults must not change with it. */
  readonly #environment = { ...process.env };
  #isStopping = false;
  #reloading: Promise<ReloadResult> | null = null;
  #lastReload: ReloadResult | null = null;

  private constructor(config: Config, options: ServerOptions, maxConnections: number) {
    this.#config = config;
    this.#options = options;
    const rows = Generations.rowsFor(workersOf(config));
    this.#ledger = Ledger.create(rows, maxConnections);
    this.#roster = Roster.create(rows, maxConnections, config.server.listen.length);
    this.#allowed = allowedBy(config);
    this.#room = new ConnectionRoom(maxConnections, descriptorLimit());
    this.#rows = new Rows(this.#ledger, this.#roster, (row, counters) => {
      this.#counters.add(counters);
      this.#room.giveBack(row);
      this.#fitRoom();
    });
    this.#generations = new Generations(options.workerUrl, this.#ledger, this.#roster, this.#rows, {
      log: (level, text, fields) => options.log.write(level, text, fields),
      print: (text) => options.prints.push(text),
      sources: () => this.#watch(),
      ready: () => {
        this.#connections.placeWaiting();
        this.#doors.settle();
      },
      deaf: () => this.#doors.settle(),
      paused: () => this.#doors.settleRoom(),
      accepted: ({ held, peer, slot }) => {
        if (slot === -1) this.#admit(held, peer);
        else this.#connections.addGuest(slot);
      },
      room: () => this.#doors.settleRoom(),
      released: (slot, release) => this.#connections.moveOn(slot, release),
      revoke: (row) => {
        // First: what it accepts from now on nobody would know of.
        this.#doors.revoke(row);
        const slots = this.#connections.revoke(row);
        this.#room.keep(row, slots.length);
        this.#fitRoom();
        return slots;
      },
      orphaned: (generation, loss) => this.#connections.recover(generation, loss),
      count: (counter) => this.#counters.count(counter),
      starting: () => this.#spare.release(),
    });
    this.#connections = new Connections(
      this.#ledger,
      this.#roster,
      () => this.#generations,
      this.#counters,
      this.#nothing,
      {
        log: (level, text, fields) => options.log.write(level, text, fields),
        isLetIn: (peer) => this.#isLetIn(peer),
        ended: () => this.#doors.ended(),
      },
    );
    this.#doors = new Doors(this.#roster, () => this.#generations, this.#nothing, {
      log: (level, text) => options.log.write(level, text),
      accepted: (descriptor, peer) => this.#admit(descriptor, peer),
      addSurplus: () => this.#connections.addSurplus(),
    });
    this.#watchdog = setInterval(() => this.#look(), WATCHDOG_MS);
    this.#watcher = new FileWatcher(() => void this.#reloadChanged());
  }

  /**
   * Binds, gives up root if so configured, loads the handlers and serves. Connections that come meanwhile wait.
   * @throws ListenError, PrivilegeError, LoadError
   */
  static async start(config: Config, options: ServerOptions): Promise<FilterServer> {
    const { log } = options;
    const wanted = config.server.maxConnections;
    const limit = descriptorLimit();
    const maxConnections = connectionsThatFit(wanted, limit);
    if (maxConnections < wanted) {
      log.write(
        "warn",
        `server.max_connections is lowered from ${wanted} to ${maxConnections}: the limit of open files is ${limit} and each takes two`,
      );
    }
    const server = new FilterServer(config, options, maxConnections);
    try {
      // In this order: of two servers that start at once, the one that gets the address has the control socket as well.
      await server.#doors.open(config.server);
      await server.#listenForControl(config.server.control);
      if (config.server.user !== null || config.server.group !== null) {
        dropPrivileges({ user: config.server.user, group: config.server.group });
      }
      await server.#load(config, 0);
      await server.generation.listening(LISTENING_MS);
      return server;
    } catch (error) {
      clearInterval(server.#watchdog);
      server.#spare.close();
      close(server.#nothing);
      server.#closeListeners();
      server.#connections.endAll();
      throw error;
    }
  }

  /** Where it listens, with the ports that the kernel chose. */
  get addresses(): ListenAddress[] {
    return this.#doors.addresses;
  }

  get connections(): number {
    return this.#roster.total;
  }

  get generation(): Generation {
    return this.#generations.current!;
  }

  /** Why new connections are not accepted now, null if they are. */
  get closedBecause(): string | null {
    return this.#doors.closedBecause;
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

  /** Of the last reload, null before the first. */
  get lastReload(): ReloadResult | null {
    return this.#lastReload;
  }

  /** Reads the configuration and the handlers anew; sessions that begin afterwards run on them. Never throws. */
  async reload(): Promise<ReloadResult> {
    return this.#reload(() => loadConfig(this.#config.file, this.#environment), Infinity);
  }

  /** Accepts no more, lets open sessions end within `stop_timeout`, runs `master_exit_handler`. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#connections.stop();
    this.#watcher.close();
    this.#closeListeners();
    this.#generations.abandonLoading("the server stops");
    await this.#reloading;
    await this.#generations.stop(this.#config.server.stopTimeoutMs);
    clearInterval(this.#watchdog);
    this.#spare.close();
    close(this.#nothing);
    const { masterExit } = this.#config.handler;
    if (masterExit === null) return;
    try {
      await callHandler(this.#options.workerUrl, masterExit, EXIT_HANDLER_TIMEOUT_MS, this.#taskOutput);
    } catch (error) {
      this.#options.log.write("error", `master_exit_handler: ${toError(error).message}`);
    }
  }

  /** While it stops: waits no longer. */
  cut(): void {
    this.#generations.cut();
  }

  /**
   * Loads a generation of this configuration; it takes the sessions that begin from now on.
   * @param until see `Generations.start`
   */
  async #load(config: Config, until: number): Promise<void> {
    const { workerUrl } = this.#options;
    const { masterExit, postconfig } = config.handler;
    // What runs at the end must not turn out to be wrong then.
    this.#spare.release();
    if (masterExit !== null) await checkModule(workerUrl, masterExit, this.#taskOutput);
    await this.#generations.start(config, workersOf(config), until, async () => {
      if (postconfig !== null) await callHandler(workerUrl, postconfig, LOAD_TIMEOUT_MS, this.#taskOutput);
    });
    this.#config = config;
    this.#allowed = allowedBy(config);
    this.#connections.placeWaiting();
    this.#doors.settle();
    this.#watch();
  }

  /** Of all generations whose sources matter: the one that serves, the one that loads, the one that failed last. */
  #watch(): void {
    const { current, failed, loading } = this.#generations;
    // While the first one loads there is nothing yet that a change could replace; what changed meanwhile is found then.
    if (current === null) return;
    const all = [current?.sources, loading?.sources, failed].filter((sources) => sources != null);
    this.#watcher.set(this.#config.server.watch ? all.flatMap(pathsOf) : []);
  }

  /** A file of the sources looks different: only if it says something else is there anything to do. */
  async #reloadChanged(): Promise<void> {
    // Without a descriptor no file can be read, which is no change of it.
    if (this.#isStopping || this.#roster.isStarved || !this.#spare.look()) return;
    const { loading } = this.#generations;
    if (loading?.sources != null && !isCurrent(loading.sources)) {
      // What is being loaded, or hangs, is out of date already: it must not keep the next version waiting.
      this.#generations.abandonLoading("a file was changed while it was being loaded");
    }
    await this.#reloading;
    const { current, failed } = this.#generations;
    const isKnown = [current?.sources, failed].some((sources) => sources != null && isCurrent(sources));
    if (this.#isStopping || isKnown) return;
    await this.#reload(() => this.#config, performance.now() + LOADED_MS);
  }

  async #reload(configure: () => Config, until: number): Promise<ReloadResult> {
    // One at a time; who asks meanwhile gets one of his own, with what the files say then.
    while (this.#reloading !== null) await this.#reloading;
    this.#reloading = this.#tryReload(configure, until);
    const result = await this.#reloading;
    this.#reloading = null;
    return result;
  }

  async #tryReload(configure: () => Config, until: number): Promise<ReloadResult> {
    const { log } = this.#options;
    const done = (ok: boolean, message: string): ReloadResult => {
      this.#lastReload = { ok, at: new Date(), message };
      log.write(ok ? "notice" : "error", `reload: ${message}`);
      return this.#lastReload;
    };
    const before = this.#config;
    const isBusy = this.#cpu.share > BUSY_SHARE && this.connections >= BUSY_CONNECTIONS;
    try {
      const config = configure();
      if (config !== before) logNotices(log, config);
      await this.#load(config, isBusy ? until : 0);
      log.configure(config.server.logLevel, config.server.logFormat);
      for (const key of needRestart(before, config))
        log.write("warn", `reload: ${key} has changed and needs a restart`);
      return done(true, `generation ${this.generation.number} serves: ${describeFilters(this.generation.summary)}`);
    } catch (error) {
      // What was read of it is watched as well: mending a file that the old generation does not know has to be noticed.
      this.#watch();
      return done(false, `generation ${this.generation.number} serves on: ${toError(error).message}`);
    }
  }

  readonly #taskOutput: TaskOutput = (message) => {
    if (message.kind === "print") this.#options.prints.push(message.text);
    else this.#options.log.write(message.level, message.text, message.fields);
  };

  /** Without it nobody can ask how the server is; the mail goes on. */
  async #listenForControl(path: string): Promise<void> {
    const { log } = this.#options;
    try {
      this.#control = await listenForControl(
        path,
        ({ command }) => {
          if (this.#generations.current === null) throw new Error("the server is starting");
          return command === "status" ? statusOf(this) : this.reload();
        },
        (error) => log.write("warn", `server.control: ${error.message}`),
      );
    } catch (error) {
      log.write(
        "warn",
        `server.control: ${toError(error).message}; pmilter status and reload cannot reach this server`,
      );
    }
  }

  #closeListeners(): void {
    // In this order: a server that takes over the address finds no control socket in its way.
    this.#control?.close({ unlink: true });
    this.#doors.close();
  }

  #admit(descriptor: number, peer: PeerName): void {
    if (this.#isStopping || !this.#isLetIn(peer)) {
      close(descriptor);
      return;
    }
    this.#connections.add(descriptor, peer);
    if (this.#roster.isFull) this.#doors.settleRoom();
  }

  /** Threads that do not end keep descriptors: there is room for fewer connections, until they do. */
  #fitRoom(): void {
    const { connections } = this.#room;
    if (connections === this.#roster.room) return;
    this.#roster.room = connections;
    this.#doors.settleRoom();
  }

  #isLetIn(peer: PeerName): boolean {
    if (isAllowed(this.#allowed, peer)) return true;
    this.#options.log.write("warn", refusal(peer));
    return false;
  }

  /** Looks after the workers. */
  #look(): void {
    const now = performance.now();
    // A machine that was asleep, or this thread without a core, is no fault of the workers.
    const elapsed = Math.min(now - this.#lastLook, Math.max(2 * WATCHDOG_MS, this.#config.server.blockTimeoutMs / 4));
    this.#lastLook = now;
    const lost = this.#isStopping ? null : this.#doors.lost;
    if (lost !== null) {
      clearInterval(this.#watchdog);
      const where = formatAddress(lost);
      this.#options.onFatal(`the socket at ${where} was closed by something else in this process, such as a handler`);
      return;
    }
    this.#cpu.look();
    this.#lookAtDescriptors();
    this.#doors.look();
    const { all } = this.#generations;
    const bound = this.#config.limits.workerMemory * (1 + all.reduce((sum, { loads }) => sum + loads.length, 0));
    const resident = residentBytes();
    for (const generation of all) generation.watch(elapsed, resident, resident > bound);
    this.#connections.standIn(now);
    this.#lookForWorkers(now, elapsed);
  }

  /** Without a worker nothing can be decided any more: a supervisor that starts the process again may help, waiting does not. */
  #lookForWorkers(now: number, elapsedMs: number): void {
    const { current } = this.#generations;
    this.#withoutWorkerMs = current === null || current.isReady ? 0 : this.#withoutWorkerMs + elapsedMs;
    if (this.#isStopping || Math.max(this.#withoutWorkerMs, this.#connections.waitedMs(now)) <= NO_WORKER_MS) return;
    clearInterval(this.#watchdog);
    const stuck = WorkerThread.stuck === 0 ? "" : ` (${WorkerThread.stuck} threads do not end)`;
    this.#options.onFatal(`no worker could take sessions for ${NO_WORKER_MS / 1000} s${stuck}`);
  }

  /** Without a descriptor no connection can be accepted, and trying would take all of a core. */
  #lookAtDescriptors(): void {
    const isStarved = !this.#spare.look();
    if (isStarved === this.#roster.isStarved) return;
    this.#roster.isStarved = isStarved;
    if (isStarved) {
      this.#options.log.write("crit", "no file descriptors are left: new connections wait until some are closed");
      this.#doors.settle();
    } else {
      this.#options.log.write("notice", "there are file descriptors again");
      this.#doors.settle();
      void this.#reloadChanged();
    }
  }
}

function workersOf({ server }: Config): number {
  return server.workers === "auto" ? availableParallelism() : server.workers;
}

/** Keys that only a start reads, by their names in the file. */
const START_KEYS = {
  listen: "server.listen",
  listenBacklog: "server.listen_backlog",
  socketMode: "server.socket_mode",
  socketUser: "server.socket_user",
  socketGroup: "server.socket_group",
  user: "server.user",
  group: "server.group",
  control: "server.control",
  maxConnections: "server.max_connections",
} as const satisfies Partial<Record<keyof Config["server"], string>>;

function needRestart(before: Config, after: Config): string[] {
  const keys = Object.keys(START_KEYS) as (keyof typeof START_KEYS)[];
  return keys.filter((key) => !Bun.deepEquals(before.server[key], after.server[key])).map((key) => START_KEYS[key]);
}

/** What the configuration's reader has to say of it. */
export function logNotices(log: Log, config: Config): void {
  for (const { level, text } of config.notices) log.write(level === "warning" ? "warn" : "notice", text);
}

/** The filters by name, as logs give them. */
export function describeFilters({ filters }: ChainSummary): string {
  return filters.map(({ name, isObserved }) => name + (isObserved ? " (observe)" : "")).join(", ") || "no filters";
}
