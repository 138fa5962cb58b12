/**
 * A generation: the workers that run one version of the configuration and the code, from one snapshot of its sources. It
 * loads them, gives them connections, replaces lost workers, and ends when it is told to. Whether connections are accepted,
 * and by which thread, the server decides.
 */
import type { LogFields } from "../../admin/log.ts";
import type { LogLevel } from "../../admin/log-level.ts";
import type { Config } from "../../config/config.ts";
import type { ServerCounter } from "../../counters.ts";
import type { SessionRecords } from "../../shared/session-records.ts";
import { BEAT_MS, type WorkerRows } from "../../shared/worker-rows.ts";
import type { FallbackVerdict } from "../../handler/fallback.ts";
import type { ChainNeeds } from "../../handler/needs.ts";
import { LoadError } from "../../handler/load-failure.ts";
import type { PeerName } from "../../net/peer.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { ListeningSocket, PassedConnection } from "../../shared/messages.ts";
import type { ChainSummary, FromWorker, ResumedSession } from "../../shared/messages.ts";
import type { ServicesLine } from "../../shared/service-messages.ts";
import type { NoSpoolLine, SpoolLine } from "../../shared/spool-messages.ts";
import type { Sources } from "../../load/sources.ts";
import { CUT_MS, LEAVING_MS, MAX_STUCK, STABLE_MS } from "../policy.ts";
import { type Loss, type LossCause, Member, type WorkerStatus } from "./member.ts";
import { GENERATION_TRANSITIONS, type GenerationState, Life } from "./life.ts";
import { Members } from "./members.ts";
import { Reinforcement } from "./reinforcement.ts";
import { Respawn } from "./respawn.ts";
import type { RowPool } from "./row-pool.ts";
import { LOAD_TIMEOUT_MS, notLoadedInTime } from "./tasks.ts";
import { WorkerThread } from "./worker-thread.ts";

export interface GenerationEvents {
  /** @param of the kind, for lines that may come in great numbers */
  log(level: LogLevel, text: string, fields?: LogFields, of?: string): void;
  /** A handler has printed this. */
  print(text: string): void;
  /** The sources were read: their changes are to be noticed from now on. */
  sources(): void;
  /** A worker can take connections, perhaps after none could. */
  ready(): void;
  /** A worker that accepted connections was told not to, or was lost: another worker or the main thread may have to accept. */
  acceptingStopped(): void;
  /** A worker that accepted connections has stopped by itself. */
  paused(): void;
  /** A worker has accepted a connection for another worker. */
  accepted(passed: PassedConnection): void;
  /** A slot that was waited for is free. */
  room(): void;
  /** A worker needs a line to the thread of the spool. */
  spool(): SpoolLine | NoSpoolLine;
  /** A worker needs a line to the services thread. */
  services(): ServicesLine;
  /** A worker's descriptor of a connection is closed, and the session may be resumed in another generation. */
  released(slot: number, release: Release): void;
  /**
   * Takes all connections from a lost worker, and the sockets by which it accepts: its thread may still run for a moment,
   * and must not reach them any more.
   * @returns the slots of the connections
   */
  revoke(row: number): number[];
  /** Sessions have lost their worker; its descriptors are closed, or never to be used again. */
  workerLost(generation: Generation, loss: Loss): void;
  count(counter: ServerCounter): void;
  /** A worker is about to be started. @throws Error if that cannot be */
  starting(): void;
}

/** A session that a worker has released. The receiver calls either `done` or `back`. */
export interface Release {
  /** The generation of that worker. */
  readonly generation: Generation;
  /** The session is with another worker, or has ended. */
  done(): void;
  /** The session has to stay: the worker takes it again. The descriptor is a new duplicate. */
  back(descriptor: number, peer: PeerName, resume: ResumedSession): void;
}

export interface GenerationOptions {
  /** Counted from 1. */
  readonly number: number;
  readonly workerUrl: URL;
  readonly config: Config;
  readonly workerRows: WorkerRows;
  readonly records: SessionRecords;
  readonly table: ConnectionTable;
  readonly listeningSockets: readonly ListeningSocket[];
  readonly workers: number;
  readonly rows: RowPool;
  /** The verdict for every connection, without running handlers; null for a generation that runs them. */
  readonly standIn: FallbackVerdict | null;
  readonly events: GenerationEvents;
}

const LOSS_COUNTER = { blocked: "blocked", died: "workersDied", memory: "workersRecycled" } as const;

const connections = (count: number) => `${count} connection${count === 1 ? "" : "s"}`;

/** The kind of the log lines for lost workers. */
const LOST = "a worker with … ended, or is taken for stuck; another is started";

const megabytes = (bytes: number) => Math.round(bytes / 2 ** 20);

/** A worker is writing its session record: milliseconds until the next attempt to claim its row. */
const CLAIM_RETRY_MS = 10;

export class Generation {
  readonly number: number;
  readonly #options: GenerationOptions;
  readonly #life = new Life<GenerationState>("a generation", GENERATION_TRANSITIONS, "loading");
  readonly #members = new Members();
  readonly #respawn: Respawn;
  readonly #reinforcement: Reinforcement;
  #summary: ChainSummary | null = null;
  #sources: Sources | null = null;
  /** Settles when the sources are read, and can be loaded. */
  readonly #areRead = Promise.withResolvers<void>();
  readonly #hasEnded = Promise.withResolvers<void>();
  /** Log lines that its workers have written and that are written once. */
  readonly #said = new Set<string>();

  /** Nothing runs yet: see {@link load}. */
  constructor(options: GenerationOptions) {
    this.number = options.number;
    this.#options = options;
    this.#reinforcement = new Reinforcement(options.workers, options.config.server.blockTimeoutMs);
    this.#respawn = new Respawn(options.workers, {
      spawn: (place) => this.#spawn(place),
      startsNone: () => this.#life.is("stopping", "cut", "ended"),
      log: (level, text, fields, of) => options.events.log(level, text, fields, of),
    });
  }

  /**
   * Starts the workers; settles when all have loaded their handlers and started their filters. The first worker reads the
   * sources. The others load the same sources as soon as it has read them, while it loads them itself.
   * @throws LoadError none of the workers is left then
   */
  async load(): Promise<void> {
    try {
      [this.#summary] = await Promise.all([this.#spawn(0), this.#loadOthers()]);
      if (this.#life.is("loading")) this.#life.to("serving");
    } catch (error) {
      if (this.#life.can("cut")) this.#life.to("cut");
      await Promise.all(this.#members.all.map((member) => member.thread.terminate()));
      throw error;
    }
  }

  async #loadOthers(): Promise<void> {
    const others = Array.from({ length: this.#options.workers - 1 }, (_, index) => index + 1);
    if (others.length === 0) return;
    await this.#areRead.promise;
    // The first worker may have failed since.
    if (this.#life.is("loading")) await Promise.all(others.map((place) => this.#spawn(place)));
  }

  /** Gives up loading: {@link load} throws this message. */
  abandon(message: string): void {
    for (const member of this.#members.all) this.#failLoading(member, message);
  }

  get config(): Config {
    return this.#options.config;
  }

  /** It runs no handler, and gives the fallback. */
  get isStandIn(): boolean {
    return this.#options.standIn !== null;
  }

  get summary(): ChainSummary {
    return this.#summary!;
  }

  /** The sources that it was loaded from; null until they are read. */
  get sources(): Sources | null {
    return this.#sources;
  }

  /** Connections by worker: a place of `server.workers` counts while its worker is replaced, a further worker while it runs. */
  get loads(): number[] {
    return this.#members.loads(this.#options.workers);
  }

  get workers(): WorkerStatus[] {
    return this.#members.statuses;
  }

  /** Some worker of it can take sessions. */
  get isReady(): boolean {
    return this.#members.isReady;
  }

  /** A worker was lost to a handler not long ago: further losses are likely. */
  get isLosingWorkers(): boolean {
    return this.#reinforcement.isLosing(performance.now());
  }

  /** All its workers are over, and none will be started. */
  get hasEnded(): boolean {
    return this.#life.is("ended");
  }

  /** A worker that is lost is replaced. */
  get #replacesLost(): boolean {
    return this.#life.is("loading", "serving");
  }

  /**
   * Gives a connection to the worker that has the fewest.
   * @param descriptor a duplicate, the worker's from now on, once its record says that it has adopted it
   * @param resume the session as another worker left it, null for a new one
   * @returns false if no worker can take it now; the descriptor is still the caller's
   */
  place(slot: number, descriptor: number, peer: PeerName, resume: ResumedSession | null): boolean {
    const member = this.#members.forSession();
    member?.give(slot, descriptor, peer, resume);
    return member !== null;
  }

  /**
   * Has its workers accept connections for themselves.
   * @returns false if none can now
   */
  listen(): boolean {
    return this.#members.listen();
  }

  /** Settles when the workers that were told to {@link listen} do, or after `timeoutMs`. */
  async listening(timeoutMs: number): Promise<void> {
    await this.#members.listening(timeoutMs);
  }

  /** Its workers accept no more. */
  pause(): void {
    this.#members.pause();
  }

  /** Sessions of this generation wait for a worker: starts a worker, unless there is one or one is being started. */
  revive(): void {
    if (!this.#members.isStaffed) this.#respawn.replace(0);
  }

  /** From now on gives up sessions between messages that can be resumed in a generation that wants this. */
  release({ all, deferContent }: ChainNeeds): void {
    const needs = { all, deferContent };
    for (const member of this.#members.serving) member.thread.post({ kind: "release", needs });
  }

  /**
   * Takes no more connections, lets the sessions end, then stops the filters and the workers.
   * @param timeoutMs the server stops: sessions that are left after so long are cut, and loading is given up; null: the
   *   server keeps running, and sessions have all the time that they need
   */
  async end(timeoutMs: number | null): Promise<void> {
    const wasServing = this.#replacesLost;
    const next = timeoutMs === null ? "draining" : "stopping";
    if (this.#life.can(next)) this.#life.to(next);
    if (timeoutMs !== null) this.abandon("the server stops");
    if (wasServing) {
      for (const member of this.#members.serving) member.thread.post({ kind: "end", atOnce: false });
      // A worker that is being replaced has nothing to end.
      this.#settleEnd();
    }
    const timer = timeoutMs === null ? undefined : setTimeout(() => this.cut(), timeoutMs);
    await this.#hasEnded.promise;
    clearTimeout(timer);
    await Promise.all(this.#members.all.map((member) => member.thread.terminate()));
  }

  /**
   * Ends the sessions that are left.
   * @param graceMs a worker that has not done so by then, and stopped its filters, is ended itself
   */
  cut(graceMs = CUT_MS): void {
    const isFirst = this.#life.can("cut");
    if (isFirst) this.#life.to("cut");
    const left = this.#members.serving;
    const sessions = left.reduce((sum, member) => sum + member.connections, 0);
    if (sessions > 0 && isFirst) this.#options.events.log("warn", `${sessions} sessions had not ended and are cut`);
    for (const member of left) member.thread.post({ kind: "end", atOnce: true });
    setTimeout(() => {
      for (const member of left) this.#giveUp(member);
    }, graceMs);
    this.#settleEnd();
  }

  /** Ends a worker that has not ended by itself, even in the middle of a handler. */
  #giveUp(member: Member): void {
    if (member.isTaken) return;
    if (!this.#options.workerRows.claim(member.row)) {
      setTimeout(() => this.#giveUp(member), CLAIM_RETRY_MS);
      return;
    }
    this.#endLost(member, "blocked");
  }

  /**
   * Looks after the workers: takes the connections of a worker that does not return to its event loop, and replaces a
   * worker that holds too much memory.
   * @param elapsedMs since the last look
   * @param residentBytes of the process
   * @param isShort that is more than all workers together may hold
   */
  watch(elapsedMs: number, residentBytes: number, isShort: boolean): void {
    const { limits, server } = this.config;
    const { serving } = this.#members;
    for (const member of serving) member.look(elapsedMs, { residentBytes, isShort, limit: limits.workerMemory });
    // The growth of the process counts against each silent worker, and at most one of them caused it: only the worker with
    // the most memory is ended, and the others have to be found again.
    let eater: Member | null = null;
    for (const member of serving) {
      if (member.silentMs > server.blockTimeoutMs + BEAT_MS) {
        const seconds = (member.silentMs / 1000).toFixed(1);
        this.#takeOver(member, "blocked", `has not returned to its event loop for ${seconds} s`);
      } else if (member.memory.isTooMuch) {
        if (eater === null || member.knownBytes > eater.knownBytes) eater = member;
      } else if (member.memory.isMuch) this.#recycle(member, member.heapBytes);
    }
    this.#reinforce();
    if (eater === null) return;
    const { heapBytes, memory } = eater;
    const since = memory.grownBytes > 0 ? `, and the process ${megabytes(memory.grownBytes)} MiB more since then` : "";
    this.#takeOver(eater, "memory", `holds too much memory (${megabytes(heapBytes)} MiB at its last report${since})`);
    for (const member of serving) member.memory.lookAgain();
  }

  /** Starts further workers while they are needed, and ends them afterwards. */
  #reinforce(): void {
    if (!this.#replacesLost || !this.isReady) return;
    const { events, workers } = this.#options;
    const taking = this.#members.taking;
    const { areMoreSilent, further } = this.#reinforcement.look(performance.now(), taking);
    // Workers that accept connections may have become silent: others have to accept.
    if (areMoreSilent) events.acceptingStopped();
    if (further === "start") this.#startFurther();
    else if (further === "end") for (const member of taking) if (member.place >= workers) this.#dismiss(member);
  }

  #startFurther(): void {
    if (WorkerThread.ending >= MAX_STUCK) return;
    this.#reinforcement.started(performance.now());
    this.#spawn(this.#members.freePlace(this.#options.workers)).catch((error: unknown) => {
      this.#reinforcement.failed(performance.now());
      if (!this.#life.is("cut", "ended")) {
        const what = "a further worker could not be started";
        this.#options.events.log("error", `${what}: ${String(error)}`, {}, what);
      }
    });
  }

  /** Has a worker take no more sessions, and end with those that it has; they may be resumed in other workers. */
  #dismiss(member: Member): void {
    if (!member.isReady) return;
    member.leave();
    this.#members.setAside(member);
    this.#options.events.acceptingStopped();
    if (!this.#replacesLost) return;
    const { all, deferContent } = this.summary;
    member.thread.post({ kind: "release", needs: { all, deferContent } });
    member.thread.post({ kind: "end", atOnce: false });
  }

  async #spawn(place: number): Promise<ChainSummary> {
    const { config, listeningSockets, events, records, table, rows, standIn, workerRows, workerUrl } = this.#options;
    events.starting();
    const row = rows.take();
    const member: Member = new Member(place, row, workerUrl, workerRows, records, table, {
      message: (message) => this.#receive(member, message),
      gone: (reason) => this.#gone(member, reason),
    });
    this.#members.add(member);
    member.thread.post({
      kind: "serve",
      row,
      generation: this.number,
      config,
      workerRows: workerRows.layout,
      records: records.layout,
      table: table.layout,
      listeningSockets,
      sources: this.#sources,
      isFirst: this.number === 1,
      standIn,
    });
    const timer = setTimeout(() => {
      member.loading.reject(notLoadedInTime(config, member.step));
    }, LOAD_TIMEOUT_MS);
    try {
      const summary = await member.loading.promise;
      member.loaded();
      events.ready();
      // The generation was told to end meanwhile: the worker may have been started for sessions that had lost theirs.
      if (!this.#replacesLost) member.thread.post({ kind: "end", atOnce: this.#life.is("cut") });
      return summary;
    } catch (error) {
      member.failed();
      void member.thread.terminate();
      this.#settleEnd();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #failLoading(member: Member, message: string): void {
    const failure = { file: this.config.file, line: 0, column: 0, message };
    member.loading.reject(new LoadError(failure, undefined));
  }

  #receive(member: Member, message: FromWorker): void {
    const { events } = this.#options;
    switch (message.kind) {
      case "sources":
        this.#sources = message.sources;
        if (message.sources.problem === null) this.#areRead.resolve();
        return events.sources();
      case "spool": {
        const line = events.spool();
        return member.thread.post({ kind: "spool", ...line }, line.port === null ? [] : [line.port]);
      }
      case "services": {
        const line = events.services();
        return member.thread.post({ kind: "services", line }, line.port === null ? [] : [line.port]);
      }
      case "ready":
        return member.loading.resolve(message.summary);
      case "failed":
        return member.loading.reject(new LoadError(message.failure, undefined));
      case "accepted":
        return events.accepted(message.passed);
      case "listening":
        return member.listening.resolve();
      case "paused":
        return events.paused();
      case "room":
        return events.room();
      case "released":
        return this.#offer(member, message.slot);
      case "log":
        if (message.once == null || this.#isNew(message.once))
          events.log(message.level, message.text, message.fields, message.of);
        return;
      case "print":
        return events.print(message.text);
      case "exiting":
        return this.#takeOver(member, "died", `ended: ${message.reason}`);
      case "ended":
        return this.#finished(member);
      case "starting":
        member.step = message.failure;
        return;
      case "done":
      case "judged":
      case "took":
      case "written":
      case "report":
      case "hungUp":
        return;
      default:
        message satisfies never;
    }
  }

  #isNew(once: string): boolean {
    const isNew = !this.#said.has(once);
    this.#said.add(once);
    return isNew;
  }

  /** A worker has released a session. */
  #offer(member: Member, slot: number): void {
    // If the session was taken from this worker meanwhile, the message is out of date.
    if (!this.#options.table.take(slot, member.row)) return;
    this.#options.events.released(slot, {
      generation: this,
      done: () => member.thread.post({ kind: "moved", slot }),
      back: (descriptor, peer, resume) => member.give(slot, descriptor, peer, resume),
    });
  }

  /** A worker that was told to end has. A connection that it was given meanwhile it does not take any more. */
  #finished(member: Member): void {
    const isLeaving = member.state === "leaving";
    this.#takeFrom(member);
    if (isLeaving) void member.thread.terminate();
    this.#passOn(member);
  }

  /** A worker holds too much memory: another takes its place, and it finishes its sessions. */
  #recycle(member: Member, heapBytes: number): void {
    const { events } = this.#options;
    const held = `${megabytes(heapBytes)} MiB, more than limits.worker_memory`;
    if (member.state === "leaving") {
      if (member.leavingMs > LEAVING_MS) this.#takeOver(member, "memory", `still holds ${held}`);
      return;
    }
    // Another start does not help a worker that needs so much from its start on.
    if (member.livedMs < STABLE_MS) return;
    events.count(LOSS_COUNTER.memory);
    const what = "it finishes its sessions, and another takes the new ones";
    events.log("warn", `a worker holds ${held}: ${what}`, {}, what);
    this.#dismiss(member);
    if (this.#replacesLost) this.#respawn.replace(member.place);
  }

  /** A worker is lost: its connections are taken and its thread is ended. From here on it can reach none of them. */
  #takeOver(member: Member, cause: LossCause, reason: string): void {
    const { events, workerRows } = this.#options;
    if (member.isTaken || !workerRows.claim(member.row)) return;
    const wasLeaving = member.state === "leaving";
    this.#endLost(member, cause);
    events.count(LOSS_COUNTER[cause]);
    events.log("crit", `a worker with ${connections(member.taken.length)} ${reason}; another is started`, {}, LOST);
    if (cause !== "memory") this.#reinforcement.lost(performance.now());
    if (wasLeaving || !this.#replacesLost) return;
    if (cause === "died") this.#respawn.replaceDead(member.place, member.livedMs);
    else this.#respawn.replace(member.place);
  }

  /** Its row is claimed. */
  #endLost(member: Member, cause: LossCause): void {
    member.loss = { cause, busySlot: this.#options.workerRows.busySlot(member.row), since: member.silentSince };
    this.#takeFrom(member);
    void member.thread.terminate().then(() => this.#passOn(member));
  }

  #takeFrom(member: Member): void {
    const { events } = this.#options;
    const wasAccepting = member.end();
    this.#members.setAside(member);
    member.taken.push(...events.revoke(member.row));
    if (wasAccepting) events.acceptingStopped();
  }

  #passOn(member: Member): void {
    const slots = member.taken.splice(0);
    if (slots.length > 0) this.#options.events.workerLost(this, { ...member.loss, slots });
    member.passedOn();
    this.#settleEnd();
  }

  /** The thread of a worker has ended, asked to or not. */
  #gone(member: Member, reason: string): void {
    const { events, rows, table, workerRows } = this.#options;
    const { isServing, state } = member;
    // With its thread its descriptors were closed: another worker may accept by the same numbers already.
    table.forgetListening(member.row);
    if (isServing) {
      member.loss = { cause: "died", busySlot: workerRows.busySlot(member.row), since: member.silentSince };
    }
    // Also the connections that it accepted after it was found to be lost.
    this.#takeFrom(member);
    rows.give(member.row);
    this.#members.forget(member);
    this.#failLoading(member, `a worker ended while it loaded the handlers: ${reason}`);
    if (isServing && !this.#life.is("cut")) {
      events.count(LOSS_COUNTER.died);
      const taken = connections(member.taken.length);
      events.log("crit", `a worker with ${taken} ended: ${reason}; another is started`, {}, LOST);
    }
    // A worker that leaves is replaced already, or will be.
    if (isServing && state !== "leaving" && this.#replacesLost) {
      this.#respawn.replaceDead(member.place, member.livedMs);
    }
    this.#passOn(member);
  }

  #settleEnd(): void {
    if (!this.#life.can("ended") || !this.#members.areOver) return;
    this.#life.to("ended");
    this.#hasEnded.resolve();
  }
}
