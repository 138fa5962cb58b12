/**
 * The main thread: binds, accepts, holds its own copy of each connection, places a duplicate with a worker, and stops.
 * It runs no handler and parses no mail.
 */
import { BlockList } from "node:net";
import { availableParallelism } from "node:os";
import type { Log } from "../admin/log.ts";
import type { Output } from "../admin/output.ts";
import { formatAddress, type ListenAddress } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { Counters, type Counts } from "../counters.ts";
import { Ledger } from "../ledger.ts";
import { residentBytes } from "../memory.ts";
import { suffices } from "../protocol/negotiate.ts";
import type { ChainSummary, PeerName, ResumedSession } from "../worker/messages.ts";
import { isCurrent, pathsOf } from "../worker/sources.ts";
import { listenForControl } from "./control.ts";
import { connectionsThatFit, descriptorLimit, isSameFile, SpareDescriptors } from "./descriptors.ts";
import type { Generation, Loss, Release } from "./generation.ts";
import { Generations } from "./generations.ts";
import { close, deadSocket, dup, replaceDescriptor, shutdown } from "./libc.ts";
import { type AcceptedSocket, listen, type Listener } from "./listener.ts";
import { countersOf, lossLines } from "./loss-report.ts";
import { UNPLACED_MS, WATCHDOG_MS } from "./policy.ts";
import { dropPrivileges, resolveGroup, resolveUser } from "./privileges.ts";
import { handOver, type LossCause, recover } from "./recovery.ts";
import { Rows } from "./rows.ts";
import { statusOf } from "./status.ts";
import { callHandler, checkModule, EXIT_HANDLER_TIMEOUT_MS, LOAD_TIMEOUT_MS, type TaskOutput } from "./tasks.ts";
import { FileWatcher } from "./watch.ts";

export interface ServerOptions {
  readonly workerUrl: URL;
  readonly log: Log;
  /** Where what handlers print goes. */
  readonly prints: Output;
  /** The server cannot serve any more, and the process is to end: a supervisor starts it again. */
  onFatal(reason: string): void;
}

/** The main thread's hold on a connection: paused, it reads nothing and keeps the peer's session alive. */
interface Held {
  readonly socket: AcceptedSocket;
  readonly peer: PeerName;
  /** What the worker was given that has it: a duplicate of the descriptor, and how the session goes on. */
  descriptor: number;
  resume: ResumedSession | null;
  /** The peer has reset the connection: this copy is closed, and its descriptor may be another one's by now. */
  isGone: boolean;
}

/** A connection that no worker could take yet: the first is loading, or the last is being replaced. */
interface Unplaced {
  readonly slot: number;
  readonly resume: ResumedSession | null;
  /** The one that it was negotiated for; null for a new session: whichever is current. */
  readonly generation: Generation | null;
  /** Since when it waits, on the clock of `performance.now()`. */
  readonly since: number;
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
  readonly #maxConnections: number;
  /** By slot. */
  readonly #held: (Held | undefined)[] = [];
  readonly #freeSlots: number[] = [];
  #allowed: BlockList | null;
  #connections = 0;
  #listeners: Listener[] = [];
  #control: Listener | null = null;
  #unplaced: Unplaced[] = [];
  readonly #counters = new Counters();
  readonly #watchdog: ReturnType<typeof setInterval>;
  #lastLook = performance.now();
  /** What revoked descriptors become. Made beforehand: when it is needed there may be no descriptor left. */
  readonly #nothing = deadSocket();
  readonly #spare = new SpareDescriptors(this.#nothing);
  /** No descriptors are left: connections wait. */
  #isStarved = false;
  #isFull = false;
  #isStopping = false;
  #reloading: Promise<ReloadResult> | null = null;
  #lastReload: ReloadResult | null = null;

  private constructor(config: Config, options: ServerOptions, maxConnections: number) {
    this.#config = config;
    this.#options = options;
    this.#maxConnections = maxConnections;
    this.#ledger = Ledger.create(Generations.rowsFor(workersOf(config)), maxConnections);
    this.#allowed = allowedBy(config);
    this.#rows = new Rows(this.#ledger, (counters) => this.#counters.add(counters));
    this.#generations = new Generations(options.workerUrl, this.#ledger, this.#rows, {
      log: (level, text, fields) => options.log.write(level, text, fields),
      print: (text) => options.prints.push(text),
      sources: () => this.#watch(),
      ready: () => this.#placeWaiting(),
      closed: (slot) => this.#release(slot),
      released: (slot, release) => this.#moveOn(slot, release),
      revoke: (slots) => this.#revoke(slots),
      orphaned: (generation, loss) => this.#recover(generation, loss),
      count: (counter) => this.#counters.count(counter),
      starting: () => this.#spare.release(),
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
      await server.#listen();
      if (config.server.user !== null || config.server.group !== null) {
        dropPrivileges({ user: config.server.user, group: config.server.group });
      }
      await server.#load(config);
      server.#placeWaiting();
      return server;
    } catch (error) {
      clearInterval(server.#watchdog);
      server.#spare.close();
      close(server.#nothing);
      server.#closeListeners();
      for (const held of server.#held) held?.socket.end();
      throw error;
    }
  }

  /** Where it listens, with the ports that the kernel chose. */
  get addresses(): ListenAddress[] {
    return this.#listeners.map((listener) => listener.address);
  }

  get connections(): number {
    return this.#connections;
  }

  get generation(): Generation {
    return this.#generations.current!;
  }

  /** Why new connections are not accepted now, null if they are. */
  get closedBecause(): string | null {
    if (this.#isStarved) return "no file descriptors are left";
    return this.#isFull ? "server.max_connections is reached" : null;
  }

  /** Connections that wait for a worker. */
  get waiting(): number {
    return this.#unplaced.length;
  }

  get counts(): Counts {
    const { log, prints } = this.#options;
    const totals = this.#counters.totals(this.#rows.counters());
    return { ...totals, linesDropped: totals.linesDropped + log.dropped + prints.dropped };
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
    return this.#reload(() => loadConfig(this.#config.file));
  }

  /** Accepts no more, lets open sessions end within `stop_timeout`, runs `master_exit_handler`. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#watcher.close();
    this.#closeListeners();
    this.#generations.loading?.abandon("the server stops");
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
      this.#options.log.write("error", `master_exit_handler: ${messageOf(error)}`);
    }
  }

  /** While it stops: waits no longer. */
  cut(): void {
    this.#generations.cut();
  }

  /** Loads a generation of this configuration; it takes the sessions that begin from now on. */
  async #load(config: Config): Promise<void> {
    const { workerUrl } = this.#options;
    const { masterExit, postconfig } = config.handler;
    // What runs at the end must not turn out to be wrong then.
    this.#spare.release();
    if (masterExit !== null) await checkModule(workerUrl, masterExit, this.#taskOutput);
    await this.#generations.start(config, workersOf(config), async () => {
      if (postconfig !== null) await callHandler(workerUrl, postconfig, LOAD_TIMEOUT_MS, this.#taskOutput);
    });
    this.#config = config;
    this.#allowed = allowedBy(config);
    this.#watch();
  }

  /** Of all generations whose sources matter: the one that serves, the one that loads, the one that failed last. */
  #watch(): void {
    const { current, failed, loading } = this.#generations;
    const all = [current?.sources, loading?.sources, failed].filter((sources) => sources != null);
    this.#watcher.set(this.#config.server.watch ? all.flatMap(pathsOf) : []);
  }

  /** A file of the sources looks different: only if it says something else is there anything to do. */
  async #reloadChanged(): Promise<void> {
    // Without a descriptor no file can be read, which is no change of it.
    if (this.#isStopping || this.#isStarved || !this.#spare.look()) return;
    const { loading } = this.#generations;
    if (loading?.sources != null && !isCurrent(loading.sources)) {
      // What is being loaded, or hangs, is out of date already: it must not keep the next version waiting.
      loading.abandon("a file was changed while it was being loaded");
    }
    await this.#reloading;
    const { current, failed } = this.#generations;
    const isKnown = [current?.sources, failed].some((sources) => sources != null && isCurrent(sources));
    if (this.#isStopping || isKnown) return;
    await this.#reload(() => this.#config);
  }

  async #reload(configure: () => Config): Promise<ReloadResult> {
    // One at a time; who asks meanwhile gets one of his own, with what the files say then.
    while (this.#reloading !== null) await this.#reloading;
    this.#reloading = this.#tryReload(configure);
    const result = await this.#reloading;
    this.#reloading = null;
    return result;
  }

  async #tryReload(configure: () => Config): Promise<ReloadResult> {
    const { log } = this.#options;
    const done = (ok: boolean, message: string): ReloadResult => {
      this.#lastReload = { ok, at: new Date(), message };
      log.write(ok ? "notice" : "error", `reload: ${message}`);
      return this.#lastReload;
    };
    const before = this.#config;
    try {
      const config = configure();
      if (config !== before) logNotices(log, config);
      await this.#load(config);
      log.configure(config.server.logLevel, config.server.logFormat);
      for (const key of needRestart(before, config))
        log.write("warn", `reload: ${key} has changed and needs a restart`);
      return done(true, `generation ${this.generation.number} serves: ${describeFilters(this.generation.summary)}`);
    } catch (error) {
      // What was read of it is watched as well: mending a file that the old generation does not know has to be noticed.
      this.#watch();
      return done(false, `generation ${this.generation.number} serves on: ${messageOf(error)}`);
    }
  }

  readonly #taskOutput: TaskOutput = (message) => {
    if (message.kind === "print") this.#options.prints.push(message.text);
    else this.#options.log.write(message.level, message.text, message.fields);
  };

  async #listen(): Promise<void> {
    const { server } = this.#config;
    const user = server.socketUser === null ? null : resolveUser(server.socketUser);
    const group = server.socketGroup === null ? null : resolveGroup(server.socketGroup);
    await this.#listenForControl(server.control);
    for (const address of server.listen) {
      const listener: Listener = await listen(address, {
        mode: server.socketMode,
        uid: user?.uid ?? null,
        gid: group,
        backlog: server.listenBacklog,
        onConnection: (socket) => this.#accept(socket, address),
        onError: (error) => this.#options.log.write("error", `${formatAddress(address)}: ${error.message}`),
      });
      this.#listeners.push(listener);
    }
  }

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
      log.write("warn", `server.control: ${messageOf(error)}; pmilter status and reload cannot reach this server`);
    }
  }

  #closeListeners(): void {
    for (const listener of this.#listeners) listener.close({ unlink: true });
    this.#control?.close({ unlink: true });
  }

  #accept(socket: AcceptedSocket, address: ListenAddress): void {
    if (this.#isStopping) {
      socket.end();
      return;
    }
    const peer = peerName(socket, address);
    if (this.#allowed !== null && address.kind !== "unix" && !isAllowed(this.#allowed, socket.remoteAddress)) {
      this.#options.log.write("warn", `${peer}: not in server.allow, connection refused`);
      socket.end();
      return;
    }
    const slot = this.#freeSlots.pop() ?? this.#held.length;
    const held: Held = { socket, peer, descriptor: -1, resume: null, isGone: false };
    this.#held[slot] = held;
    this.#connections += 1;
    this.#counters.count("connections");
    socket.data = { closed: () => this.#lost(slot, held) };
    if (this.#connections >= this.#maxConnections) this.#fill();
    this.#place(slot, null, null);
  }

  /**
   * Gives a duplicate of a connection to a generation, and there to the worker that has the fewest.
   * @param generation null: the one that is current
   */
  #place(slot: number, resume: ResumedSession | null, generation: Generation | null, since = performance.now()): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    if (held.isGone) {
      this.#release(slot);
      return;
    }
    try {
      const descriptor = dup(held.socket.fd);
      held.descriptor = descriptor;
      held.resume = resume;
      if ((generation ?? this.#generations.current)?.place(slot, descriptor, held.peer, resume) === true) return;
      close(descriptor);
      this.#unplaced.push({ slot, resume, generation, since });
      generation?.revive();
    } catch (error) {
      this.#loseConnection(slot, messageOf(error));
    }
  }

  #placeWaiting(): void {
    for (const { generation, resume, since, slot } of this.#unplaced.splice(0)) {
      this.#place(slot, resume, generation?.hasEnded === true ? null : generation, since);
    }
    this.#generations.dismissStandIn();
  }

  /**
   * A session of an old generation, between messages: the current one goes on with it. The worker has given it up for the
   * generation that it knew of; should that not be the current one any more, the session may have to go back.
   */
  #moveOn(slot: number, release: Release): void {
    const record = this.#ledger.read(slot);
    const held = this.#held[slot];
    // Its first packets were too long to be kept: a worker gives up no such session.
    if (record.context === null || held === undefined) {
      this.#release(slot);
      release.done();
      return;
    }
    const resume = handOver(record, held.resume?.passedOver ?? []);
    const { summary } = this.generation;
    if (suffices(resume, summary, summary)) {
      this.#place(slot, resume, null);
      release.done();
      return;
    }
    try {
      if (held.isGone) throw new Error("the peer has reset it");
      held.descriptor = dup(held.socket.fd);
      held.resume = resume;
      release.back(held.descriptor, held.peer, resume);
    } catch (error) {
      this.#loseConnection(slot, messageOf(error));
      release.done();
    }
  }

  /**
   * The worker's duplicates become descriptors of nothing. A thread that is ended goes on reading what its last poll found
   * ready, and what it reads would be lost.
   */
  #revoke(slots: Iterable<number>): void {
    for (const slot of slots) {
      const held = this.#held[slot];
      if (held === undefined || held.isGone || !this.#ledger.isAdopted(slot)) continue;
      // A worker that has closed its duplicate, and could not tell any more, has given the number back: it may mean
      // anything by now.
      if (isSameFile(held.descriptor, held.socket.fd)) replaceDescriptor(this.#nothing, held.descriptor);
    }
  }

  /** Sessions have lost their worker: what the mail servers wait for is answered, and the sessions go on in others. */
  #recover(generation: Generation, { busySlot, cause, slots }: Loss): void {
    for (const slot of slots) {
      try {
        this.#recoverOne(generation, cause, slot, busySlot);
      } catch (error) {
        this.#loseConnection(slot, `its worker was lost, and it could not go on: ${messageOf(error)}`);
      }
    }
  }

  #recoverOne(generation: Generation, cause: LossCause, slot: number, busySlot: number | null): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    if (!this.#ledger.isAdopted(slot)) {
      close(held.descriptor);
      this.#goOn(slot, held.resume, generation);
      return;
    }
    const record = this.#ledger.read(slot);
    const isSuspect = busySlot === null ? record.call !== null : slot === busySlot;
    const recovery = recover(record, {
      cause,
      isSuspect,
      filters: generation.summary.filters,
      passedOver: held.resume?.passedOver ?? [],
    });
    for (const line of lossLines(record, recovery, isSuspect, { cause, generation, peer: held.peer })) {
      this.#options.log.write(line.level, line.text, line.fields);
    }
    for (const counter of countersOf(recovery)) this.#counters.count(counter);
    if (recovery.kind === "end" || held.isGone) {
      this.#endConnection(slot);
      return;
    }
    const { replies, session } = recovery;
    // A peer that reads nothing may have filled its buffer with replies before.
    if (replies.length > 0 && held.socket.write(replies) !== replies.length) {
      throw new Error("the fallback could not be sent");
    }
    this.#goOn(slot, session, generation);
  }

  /** A session that was with a generation goes on there, or in the current one if the other is ending and this one serves it. */
  #goOn(slot: number, resume: ResumedSession | null, generation: Generation): void {
    if (this.#isStopping) {
      this.#endConnection(slot);
      return;
    }
    const { current } = this.#generations;
    const mayMove = resume === null || (current !== null && suffices(resume, generation.summary, current.summary));
    this.#place(slot, resume, generation === current || mayMove ? null : generation);
  }

  /** Looks after the workers. */
  #look(): void {
    const now = performance.now();
    // A machine that was asleep, or this thread without a core, is no fault of the workers.
    const elapsed = Math.min(now - this.#lastLook, 2 * WATCHDOG_MS);
    this.#lastLook = now;
    const lost = this.#isStopping ? undefined : this.#listeners.find((listener) => !listener.isAlive());
    if (lost !== undefined) {
      clearInterval(this.#watchdog);
      const where = formatAddress(lost.address);
      this.#options.onFatal(`the socket at ${where} was closed by something else in this process, such as a handler`);
      return;
    }
    this.#lookAtDescriptors();
    const { all } = this.#generations;
    const bound = this.#config.limits.workerMemory * (1 + all.reduce((sum, { loads }) => sum + loads.length, 0));
    const isShort = residentBytes() > bound;
    for (const generation of all) generation.watch(elapsed, isShort);
    const [longest] = this.#unplaced;
    if (longest !== undefined && now - longest.since > UNPLACED_MS) this.#standIn(now);
  }

  /** Without a descriptor no connection can be accepted, and trying would take all of a core. */
  #lookAtDescriptors(): void {
    const isStarved = !this.#spare.look();
    if (isStarved === this.#isStarved) return;
    this.#isStarved = isStarved;
    if (isStarved) {
      this.#options.log.write("crit", "no file descriptors are left: new connections wait until some are closed");
      this.#pause();
    } else {
      this.#options.log.write("notice", "there are file descriptors again");
      this.#resume();
      void this.#reloadChanged();
    }
  }

  /** Mail servers do not wait for ever: those that have waited long enough get the fallback. */
  #standIn(now: number): void {
    const standIn = this.#generations.standIn();
    if (standIn === null) return;
    const waiting = this.#unplaced;
    this.#unplaced = waiting.filter(({ since }) => now - since <= UNPLACED_MS);
    for (const { resume, since, slot } of waiting) {
      if (now - since > UNPLACED_MS) this.#place(slot, resume, standIn, since);
    }
  }

  /** A reset reached the main thread's copy. A worker that has the connection sees it too, and reports. */
  #lost(slot: number, held: Held): void {
    // Our own end of it comes here, too: the slot may be another connection's by now.
    if (this.#held[slot] !== held) return;
    held.isGone = true;
    const at = this.#unplaced.findIndex((waiting) => waiting.slot === slot);
    if (at === -1) return;
    this.#unplaced.splice(at, 1);
    this.#release(slot);
  }

  /** A connection that cannot be served any more, whatever its peer does. */
  #loseConnection(slot: number, reason: string): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    this.#options.log.write("error", `${held.peer}: connection closed: ${reason}`);
    this.#counters.count("sessionsLost");
    this.#endConnection(slot);
  }

  /** Ends a connection for its peer, whoever else holds a copy of it. */
  #endConnection(slot: number): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    if (!held.isGone) shutdown(held.socket.fd, "both");
    this.#release(slot);
  }

  /** Ends the main thread's copy of a connection. */
  #release(slot: number): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    this.#held[slot] = undefined;
    this.#freeSlots.push(slot);
    this.#connections -= 1;
    held.socket.end();
    if (this.#isFull && this.#connections < this.#maxConnections) {
      this.#isFull = false;
      this.#resume();
    }
  }

  #fill(): void {
    if (this.#isFull) return;
    this.#isFull = true;
    this.#options.log.write("warn", `${this.#connections} connections (server.max_connections): further ones wait`);
    this.#pause();
  }

  #pause(): void {
    for (const listener of this.#listeners) listener.pause();
  }

  /** Accepts again, unless something else speaks against it. */
  #resume(): void {
    if (this.#isStopping || this.#isFull || this.#isStarved) return;
    for (const listener of this.#listeners) {
      try {
        listener.resume();
      } catch (error) {
        // Still paused: the next connection that ends tries again.
        this.#isFull = true;
        this.#options.log.write("error", `${formatAddress(listener.address)}: ${messageOf(error)}`);
      }
    }
  }
}

function peerName(socket: AcceptedSocket, address: ListenAddress): PeerName {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return formatAddress(address);
  return formatAddress({
    kind: "tcp",
    host: remoteAddress,
    port: remotePort,
    family: remoteAddress.includes(":") ? 6 : 4,
  });
}

function workersOf({ server }: Config): number {
  return server.workers === "auto" ? availableParallelism() : server.workers;
}

function allowedBy({ server }: Config): BlockList | null {
  if (server.allow === null) return null;
  const list = new BlockList();
  for (const { address, prefix, family } of server.allow) {
    list.addSubnet(address, prefix, family === 4 ? "ipv4" : "ipv6");
  }
  return list;
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

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An inherited socket may be of both families: an IPv4 client then comes as `::ffff:192.0.2.1`. */
function isAllowed(allowed: BlockList, remote: string | undefined): boolean {
  if (remote === undefined) return true;
  const address = remote.replace(/^::ffff:(?=\d+\.)/i, "");
  return allowed.check(address, address.includes(":") ? "ipv6" : "ipv4");
}
