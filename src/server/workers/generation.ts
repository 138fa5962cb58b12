/**
 * A generation: the workers that run one version of the configuration and the code, from one snapshot of its sources. It
 * has them accept connections, places others with them, replaces those that die, and ends when it is told to. Who listens,
 * and whether connections are accepted, is the server's business.
 */
import type { LogFields } from "../../admin/log.ts";
import type { LogLevel } from "../../admin/log-level.ts";
import type { Config } from "../../config/config.ts";
import type { ServerCounter } from "../../counters.ts";
import type { SessionRecords } from "../../shared/session-records.ts";
import { BEAT_MS, type WorkerRows } from "../../shared/worker-rows.ts";
import type { FallbackVerdict } from "../../handler/fallback.ts";
import type { Wants } from "../../protocol/negotiate.ts";
import { LoadError } from "../../handler/load-failure.ts";
import type { PeerName } from "../../net/peer.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { ListeningSocket, PassedConnection } from "../../shared/messages.ts";
import type { ChainSummary, FromWorker, ResumedSession } from "../../shared/messages.ts";
import type { Sources } from "../../load/sources.ts";
import {
  CALM_MS,
  EARLY_MS,
  CUT_MS,
  LEAVING_MS,
  MAX_EXTRA,
  MAX_LISTENING,
  MAX_LOADING,
  MAX_STUCK,
  RESERVE,
  respawnDelay,
  STABLE_MS,
  STUCK_RETRY_MS,
} from "../policy.ts";
import { type Loss, type LossCause, Member, type WorkerStatus } from "./member.ts";
import type { RowPool } from "./row-pool.ts";
import { LOAD_TIMEOUT_MS } from "./tasks.ts";
import { within } from "../../shared/within.ts";
import { WorkerThread } from "./worker-thread.ts";

export interface GenerationEvents {
  /** @param of the kind, for lines that may come in great numbers */
  log(level: LogLevel, text: string, fields?: LogFields, of?: string): void;
  print(text: string): void;
  /** The sources were read: their changes are to be noticed from now on. */
  sources(): void;
  /** A worker can take connections, perhaps after none could. */
  ready(): void;
  /** A worker that accepted connections does not any more: somebody else may have to. */
  acceptingStopped(): void;
  /** A worker that accepted connections has ceased to, by itself. */
  paused(): void;
  /** A worker has accepted this one for others. */
  accepted(passed: PassedConnection): void;
  /** A slot is free that somebody waited for. */
  room(): void;
  /** A worker's descriptor of a connection is closed, and the session may go on in another generation. */
  released(slot: number, release: Release): void;
  /**
   * Takes all connections from a worker that is lost, and what it accepts by: whatever it does on its way out, it must not
   * reach them any more.
   * @returns their slots
   */
  revoke(row: number): number[];
  /** Sessions have lost their worker; its descriptors are closed, or never to be used again. */
  workerLost(generation: Generation, loss: Loss): void;
  count(counter: ServerCounter): void;
  /** A worker is about to be started. @throws Error if that cannot be */
  starting(): void;
}

/** A session that a worker has released. One of these is called. */
export interface Release {
  /** Where it was. */
  readonly generation: Generation;
  /** It goes on elsewhere. */
  done(): void;
  /** It has to stay: the worker takes it again. The descriptor is a new duplicate. */
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
  /** It runs no handler, and gives every connection this; null for one that does its work. */
  readonly standIn: FallbackVerdict | null;
  readonly events: GenerationEvents;
}

const LOSS_COUNTER = { blocked: "blocked", died: "workersDied", memory: "workersRecycled" } as const;

const connections = (count: number) => `${count} connection${count === 1 ? "" : "s"}`;

/** The kind of lines that tell of a worker that is lost. */
const LOST = "a worker with … ended, or is taken for stuck; another is started";

const megabytes = (bytes: number) => Math.round(bytes / 2 ** 20);

/** A worker is writing its record: it is looked again after so long. */
const CLAIM_RETRY_MS = 10;

export class Generation {
  readonly number: number;
  readonly #options: GenerationOptions;
  /** By place: the one that takes sessions, or is about to. */
  readonly #members: Member[] = [];
  /** Replaced already: they finish the sessions that they have. */
  readonly #leaving = new Set<Member>();
  #summary: ChainSummary | null = null;
  #sources: Sources | null = null;
  #ending: PromiseWithResolvers<void> | null = null;
  /** The server stops: no worker is replaced. */
  #isStopping = false;
  /** What is left is cut, and none is replaced. */
  #isCut = false;
  /** Settles when the sources are read, and are such that they can be loaded. */
  readonly #areRead = Promise.withResolvers<void>();
  #hasEnded = false;
  /** Workers that are lost, and whose sessions do not go on yet. */
  #lost = 0;
  /** Workers that died in a row, by place. */
  readonly #deaths: number[];
  /** When a worker was last lost to a handler, on the clock of `performance.now()`. */
  #blockedAt = Number.NEGATIVE_INFINITY;
  /** Number of silent workers at the last look. */
  #silent = 0;
  /** When a further worker was last started, or when the next may be started after one failed. */
  #reinforceAt = 0;
  /** What its workers say once. */
  readonly #said = new Set<string>();

  /** Nothing runs yet: see {@link load}. */
  constructor(options: GenerationOptions) {
    this.number = options.number;
    this.#options = options;
    this.#deaths = new Array<number>(options.workers).fill(0);
  }

  /**
   * Starts the workers; settles when all have loaded their handlers and started their filters. The first reads the
   * sources, the others load what it read while it loads that itself.
   * @throws LoadError none of the workers is left then
   */
  async load(): Promise<void> {
    try {
      [this.#summary] = await Promise.all([this.#spawn(0), this.#loadOthers()]);
    } catch (error) {
      this.#ending ??= Promise.withResolvers();
      this.#isCut = true;
      await Promise.all(this.#members.map((member) => member.thread.terminate()));
      throw error;
    }
  }

  async #loadOthers(): Promise<void> {
    const others = Array.from({ length: this.#options.workers - 1 }, (_, index) => index + 1);
    if (others.length === 0) return;
    await this.#areRead.promise;
    // The first one may have failed since.
    if (!this.#isCut) await Promise.all(others.map((place) => this.#spawn(place)));
  }

  /** It is not wanted any more while it loads: {@link load} throws this message. */
  abandon(message: string): void {
    for (const member of this.#members) this.#failLoading(member, message);
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

  /** What it was loaded from; null until that was read. */
  get sources(): Sources | null {
    return this.#sources;
  }

  /** Connections by worker: a place of `server.workers` counts while its worker is replaced, a further worker while it runs. */
  get loads(): number[] {
    const members = this.#members.filter(({ place, state }) => place < this.#options.workers || state !== "over");
    return members.map(({ connections }) => connections);
  }

  get workers(): WorkerStatus[] {
    return this.#everyone().flatMap(({ status }) => status ?? []);
  }

  /**
   * Gives a connection to the worker that has the fewest.
   * @param descriptor a duplicate, the worker's from now on, once its record says that it has adopted it
   * @param resume what another worker left of its session, null for a new one
   * @returns false if no worker can take it now; the descriptor is still the caller's
   */
  place(slot: number, descriptor: number, peer: PeerName, resume: ResumedSession | null): boolean {
    const ready = this.#members.filter(({ state }) => state === "ready");
    const prompt = ready.filter(({ isPrompt }) => isPrompt);
    const members = prompt.length > 0 ? prompt : ready;
    const counts = members.map((each) => each.connections);
    const member = members[counts.indexOf(Math.min(...counts))];
    if (member === undefined) return false;
    member.give(slot, descriptor, peer, resume);
    return true;
  }

  /**
   * Has its workers accept connections for themselves.
   * @returns false if none can now
   */
  listen(): boolean {
    const ready = this.#members.filter(({ state }) => state === "ready");
    const rows = ready.map(({ row }) => row);
    // One that is silent accepts nothing for now.
    const byUse = [...ready].sort((a, b) => Number(b.isPrompt) - Number(a.isPrompt));
    // Each connection wakes all who listen.
    const chosen = byUse.slice(0, MAX_LISTENING);
    for (const member of byUse.slice(MAX_LISTENING)) member.pause();
    for (const member of chosen) member.listen(rows);
    return chosen.length > 0;
  }

  /** Settles when those that were told to {@link listen} do, or after `timeoutMs`. */
  async listening(timeoutMs: number): Promise<void> {
    const told = this.#members.filter(({ isToListen }) => isToListen);
    await within(Promise.all(told.map(({ listening }) => listening.promise)), timeoutMs);
  }

  /** Its workers accept no more. */
  pause(): void {
    for (const member of this.#everyone()) member.pause();
  }

  /** Some worker of it can take sessions. */
  get isReady(): boolean {
    return this.#members.some(({ state }) => state === "ready");
  }

  /** A worker was lost to a handler not long ago: others are likely to be. */
  get isLosingWorkers(): boolean {
    return performance.now() - this.#blockedAt < CALM_MS;
  }

  /** All is over: it can take nothing any more. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Sessions of it wait for a worker: if none is left, or about to be, one is started. */
  revive(): void {
    if (this.#isOver || this.#members.some(({ state }) => state !== "over")) return;
    this.#respawn(0, 0);
  }

  /** From now on gives up sessions between messages that can go on in a generation that wants this. */
  release(wants: Wants): void {
    for (const member of this.#serving()) member.thread.post({ kind: "release", wants });
  }

  /**
   * Takes no more connections, lets the sessions end, then stops the filters and the workers.
   * @param timeoutMs the server stops: what is left then is cut, and a worker that loads is not waited for; null: it goes on
   */
  async end(timeoutMs: number | null): Promise<void> {
    if (timeoutMs !== null) {
      this.#isStopping = true;
      this.abandon("the server stops");
    }
    if (this.#ending === null) {
      this.#ending = Promise.withResolvers();
      for (const member of this.#serving()) member.thread.post({ kind: "end", atOnce: false });
      // A worker that is being replaced has nothing to end.
      this.#settleEnd();
    }
    const timer = timeoutMs === null ? undefined : setTimeout(() => this.cut(), timeoutMs);
    await this.#ending.promise;
    clearTimeout(timer);
    await Promise.all(this.#everyone().map((member) => member.thread.terminate()));
  }

  /**
   * Ends the sessions that are left.
   * @param graceMs a worker that has not done so by then, and stopped its filters, is ended itself
   */
  cut(graceMs = CUT_MS): void {
    const isFirst = !this.#isCut;
    this.#isCut = true;
    const left = this.#serving();
    const sessions = left.reduce((sum, member) => sum + member.connections, 0);
    if (sessions > 0 && isFirst) this.#options.events.log("warn", `${sessions} sessions had not ended and are cut`);
    for (const member of left) member.thread.post({ kind: "end", atOnce: true });
    setTimeout(() => {
      for (const member of left) this.#giveUp(member);
    }, graceMs);
    this.#settleEnd();
  }

  /** Ends a worker that does not end, whatever it is doing. */
  #giveUp(member: Member): void {
    const { workerRows } = this.#options;
    if (member.state === "over") return;
    if (!workerRows.claim(member.row)) {
      setTimeout(() => this.#giveUp(member), CLAIM_RETRY_MS);
      return;
    }
    const busySlot = workerRows.busySlot(member.row);
    member.state = "over";
    this.#takeFrom(member);
    member.loss = { cause: "blocked", busySlot, since: member.silentSince };
    void member.thread.terminate().then(() => this.#reportLoss(member));
  }

  /**
   * Looks after the workers: takes the connections of one that does not return to its event loop, and has one replaced
   * that holds too much memory.
   * @param elapsedMs since the last look
   * @param residentBytes of the process
   * @param isShort that is more than all workers together may hold
   */
  watch(elapsedMs: number, residentBytes: number, isShort: boolean): void {
    const { blockTimeoutMs } = this.config.server;
    const serving = this.#serving();
    for (const member of serving) {
      member.look(elapsedMs, { residentBytes, isShort, limit: this.config.limits.workerMemory });
    }
    // The process grows for each that is silent: only one is ended for it at a time.
    let eater: Member | null = null;
    for (const member of serving) {
      if (member.silentMs > blockTimeoutMs + BEAT_MS) {
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
    this.#takeOver(eater, "memory", `holds too much memory (${megabytes(heapBytes)} MiB when it last said${since})`);
    for (const member of serving) member.memory.lookAgain();
  }

  /**
   * Starts further workers while some are silent, and for a while after some were lost, and ends them afterwards: most
   * sessions are then with a worker that answers.
   */
  #reinforce(): void {
    if (this.#ending !== null) return;
    const now = performance.now();
    const { blockTimeoutMs } = this.config.server;
    const { isLosingWorkers } = this;
    const silentMs = isLosingWorkers ? Math.min(EARLY_MS, blockTimeoutMs / 2) : blockTimeoutMs / 2;
    const left = this.#members.filter(({ state }) => state === "loading" || state === "ready");
    // Where none could be started, more would not either.
    if (!this.isReady) return;
    const silent = left.filter((member) => member.silentMs > silentMs).length;
    // Those that accept connections may be the silent ones.
    if (silent > this.#silent) this.#options.events.acceptingStopped();
    this.#silent = silent;
    // Before the first loss a slow handler is more likely than one that never returns, and the other workers answer.
    const wanted = isLosingWorkers ? silent + RESERVE : silent < left.length ? 0 : 1;
    const { workers } = this.#options;
    const loading = left.filter(({ state }) => state === "loading").length;
    if (left.length < workers + Math.min(MAX_EXTRA, wanted)) {
      if (loading < MAX_LOADING && now > this.#reinforceAt) this.#addExtra(now);
    } else if (!isLosingWorkers && now - this.#reinforceAt > CALM_MS) {
      for (const member of left) if (member.place >= workers) this.#dismiss(member);
    }
  }

  #addExtra(now: number): void {
    const { workers } = this.#options;
    if (WorkerThread.ending >= MAX_STUCK) return;
    let place = workers;
    while (this.#members[place] !== undefined && this.#members[place]!.state !== "over") place++;
    this.#reinforceAt = now;
    this.#spawn(place).catch((error: unknown) => {
      this.#reinforceAt = performance.now() + STUCK_RETRY_MS;
      if (!this.#isCut && !this.#hasEnded) {
        const what = "a further worker could not be started";
        this.#options.events.log("error", `${what}: ${String(error)}`, {}, what);
      }
    });
  }

  /** It takes no more sessions, and ends with those that it has; they may go on in others. */
  #dismiss(member: Member): void {
    if (member.state !== "ready") return;
    member.leave();
    this.#leaving.add(member);
    this.#options.events.acceptingStopped();
    if (this.#ending !== null) return;
    member.thread.post({ kind: "release", wants: this.summary });
    member.thread.post({ kind: "end", atOnce: false });
  }

  #serving(): Member[] {
    return this.#everyone().filter(({ isServing }) => isServing);
  }

  #everyone(): Member[] {
    return [...new Set([...this.#members, ...this.#leaving])];
  }

  async #spawn(place: number): Promise<ChainSummary> {
    const { config, listeningSockets, events, records, table, rows, standIn, workerRows, workerUrl } = this.#options;
    events.starting();
    const row = rows.take();
    const member: Member = new Member(place, row, workerUrl, workerRows, records, table, {
      message: (message) => this.#receive(member, message),
      gone: (reason) => this.#gone(member, reason),
    });
    this.#members[place] = member;
    const isFirst = this.number === 1;
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
      isFirst,
      standIn,
    });
    const timer = setTimeout(() => {
      this.#failLoading(member, `the handlers were not loaded after ${LOAD_TIMEOUT_MS / 1000} s`);
    }, LOAD_TIMEOUT_MS);
    try {
      const summary = await member.loading.promise;
      member.state = "ready";
      events.ready();
      // Told to end while it loaded, perhaps for sessions that had lost their worker.
      if (this.#ending !== null) member.thread.post({ kind: "end", atOnce: this.#isCut });
      return summary;
    } catch (error) {
      member.state = "over";
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
        events.sources();
        return;
      case "ready":
        member.loading.resolve(message.summary);
        return;
      case "failed":
        member.loading.reject(new LoadError(message.failure, undefined));
        return;
      case "accepted":
        events.accepted(message.passed);
        return;
      case "listening":
        member.listening.resolve();
        return;
      case "paused":
        events.paused();
        return;
      case "room":
        events.room();
        return;
      case "released":
        // Else it was taken from that worker: what it says is out of date.
        if (this.#options.table.take(message.slot, member.row)) this.#offer(member, message.slot);
        return;
      case "log":
        if (message.once != null && !this.#isNew(message.once)) return;
        events.log(message.level, message.text, message.fields, message.of);
        return;
      case "print":
        events.print(message.text);
        return;
      case "exiting":
        this.#takeOver(member, "died", `ended: ${message.reason}`);
        return;
      case "ended":
        member.state = "over";
        // One that it was given meanwhile it does not take any more.
        this.#takeFrom(member);
        if (this.#leaving.has(member)) void member.thread.terminate();
        this.#reportLoss(member);
        return;
      case "done":
      case "judged":
      case "starting":
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

  #offer(member: Member, slot: number): void {
    this.#options.events.released(slot, {
      generation: this,
      done: () => member.thread.post({ kind: "moved", slot }),
      back: (descriptor, peer, resume) => member.give(slot, descriptor, peer, resume),
    });
  }

  /** It holds too much memory: another takes its place, and it finishes what it has. */
  #recycle(member: Member, heapBytes: number): void {
    const { events } = this.#options;
    const held = `${megabytes(heapBytes)} MiB, more than limits.worker_memory`;
    if (member.state === "leaving") {
      if (member.leavingMs > LEAVING_MS) this.#takeOver(member, "memory", `still holds ${held}`);
      return;
    }
    // One that needs so much from the start is not helped by another start.
    if (member.livedMs < STABLE_MS) return;
    events.count(LOSS_COUNTER.memory);
    const what = "it finishes its sessions, and another takes the new ones";
    events.log("warn", `a worker holds ${held}: ${what}`, {}, what);
    this.#dismiss(member);
    if (this.#ending === null) this.#respawn(member.place, 0);
  }

  /** Its connections go on elsewhere, and it is ended: from here on it can reach none of them. */
  #takeOver(member: Member, cause: LossCause, reason: string): void {
    const { events, workerRows } = this.#options;
    if (member.state === "over" || !workerRows.claim(member.row)) return;
    const busySlot = workerRows.busySlot(member.row);
    const wasLeaving = member.state === "leaving";
    member.state = "over";
    this.#takeFrom(member);
    events.count(LOSS_COUNTER[cause]);
    events.log("crit", `a worker with ${connections(member.taken.length)} ${reason}; another is started`, {}, LOST);
    if (cause !== "memory") this.#blockedAt = performance.now();
    member.loss = { cause, busySlot, since: member.silentSince };
    void member.thread.terminate().then(() => this.#reportLoss(member));
    if (!wasLeaving && this.#ending === null) {
      this.#respawn(member.place, cause === "died" ? this.#delayAfterDeath(member, true) : 0);
    }
  }

  #takeFrom(member: Member): void {
    const { events } = this.#options;
    this.#lost += 1;
    member.taken.push(...events.revoke(member.row));
    if (member.stopAccepting()) events.acceptingStopped();
  }

  #reportLoss(member: Member): void {
    this.#lost -= 1;
    const slots = member.taken.splice(0);
    if (slots.length > 0) this.#options.events.workerLost(this, { ...member.loss, slots });
    this.#settleEnd();
  }

  #gone(member: Member, reason: string): void {
    const { events, rows, table, workerRows } = this.#options;
    // With its thread its descriptors were closed: another worker may accept by the same numbers already.
    table.forgetListening(member.row);
    const wasServing = member.isServing;
    const busySlot = workerRows.busySlot(member.row);
    const isMember = this.#members[member.place] === member;
    member.state = "over";
    // Also what it accepted after it was found to be lost.
    this.#takeFrom(member);
    rows.give(member.row);
    this.#leaving.delete(member);
    this.#failLoading(member, `a worker ended while it loaded the handlers: ${reason}`);
    if (!wasServing) {
      this.#reportLoss(member);
      return;
    }
    member.loss = { cause: "died", busySlot, since: member.silentSince };
    if (!this.#isCut) {
      events.count(LOSS_COUNTER.died);
      const taken = connections(member.taken.length);
      events.log("crit", `a worker with ${taken} ended: ${reason}; another is started`, {}, LOST);
    }
    if (isMember && this.#ending === null) this.#respawn(member.place, this.#delayAfterDeath(member, true));
    this.#reportLoss(member);
  }

  #delayAfterDeath(member: Member, hasLoaded: boolean): number {
    const deaths = member.livedMs < STABLE_MS ? this.#deaths[member.place]! + 1 : 1;
    this.#deaths[member.place] = deaths;
    return respawnDelay(deaths, hasLoaded);
  }

  /** No worker is started any more. */
  get #isOver(): boolean {
    return this.#isStopping || this.#isCut || this.#hasEnded;
  }

  #respawn(place: number, delayMs: number): void {
    // A further worker is started by `#reinforce` when it is needed.
    if (place >= this.#options.workers) return;
    const spawn = () => {
      if (this.#isOver) return;
      if (WorkerThread.ending >= MAX_STUCK) {
        const held = `${WorkerThread.ending} threads do not end`;
        const what = "a worker is not replaced";
        this.#options.events.log("crit", `${what} while ${held}: each takes memory`, {}, what);
        this.#respawn(place, STUCK_RETRY_MS);
        return;
      }
      this.#spawn(place).catch((error: unknown) => {
        if (this.#isOver) return;
        const what = "a worker could not be replaced";
        this.#options.events.log("crit", `${what}: ${String(error)}`, {}, what);
        this.#respawn(place, this.#delayAfterDeath(this.#members[place]!, false));
      });
    };
    if (delayMs === 0) spawn();
    else setTimeout(spawn, delayMs);
  }

  #settleEnd(): void {
    if (this.#ending === null) return;
    if (this.#lost > 0 || !this.#everyone().every(({ state }) => state === "over")) return;
    this.#hasEnded = true;
    this.#ending.resolve();
  }
}
