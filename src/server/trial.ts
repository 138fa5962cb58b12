/**
 * A configuration on trial: its handlers in a worker of their own, for sessions that this process makes up. Nothing
 * listens, and no server is asked. The worker loads, runs and is watched as a server's, and if it is lost, its session is
 * answered for by the server's rules.
 */
import type { Config } from "../config/config.ts";
import type { SessionStart } from "../handler/conditions.ts";
import type { CallTime } from "../handler/filter-times.ts";
import { LoadError, type LoadFailure } from "../handler/load-failure.ts";
import type { LogLine } from "../handler/log-lines.ts";
import { takesPart } from "../handler/needs.ts";
import type { Report } from "../handler/report.ts";
import type { Sources } from "../load/sources.ts";
import { residentBytes } from "../memory.ts";
import type { ChainSummary, FromWorker, ResumedSession, ToWorker } from "../shared/messages.ts";
import { SessionRecords } from "../shared/session-records.ts";
import { within } from "../within.ts";
import { BEAT_MS, WorkerRows } from "../shared/worker-rows.ts";
import type { Transport } from "../testing/transport.ts";
import { lossLines } from "./handover/loss-report.ts";
import { recover } from "./handover/recovery.ts";
import { MAX_COST, WATCHDOG_MS } from "./policy.ts";
import type { LossCause } from "./workers/member.ts";
import { LOAD_TIMEOUT_MS, notLoadedInTime } from "./workers/tasks.ts";
import { WorkerMemory } from "./workers/worker-memory.ts";
import { WorkerThread } from "./workers/worker-thread.ts";

/** The row and the slot of the worker: there are no others. */
const ROW = 0;
const SLOT = 0;
/** How long `stop()` of all filters may take. */
const STOP_MS = 10_000;
/** Time between two attempts to take the session from a worker that is writing. */
const CLAIM_RETRY_MS = 1;
/** How the session is named where the mail server's address would stand. */
const PEER = "pmilter try";

export interface TrialEvents {
  report(report: Report): void;
  /** What the loss of the worker did to the session, in the words of the server's log. */
  lost(line: LogLine): void;
  /** A line about the worker, or of a handler that no message is to blame for. */
  say(line: LogLine): void;
  /** What a handler printed: whole lines. */
  print(text: string): void;
}

/** A session of a trial, seen from the mail server. */
export interface TrialSession extends Transport {
  /** The times of handlers, complete once the session is closed. */
  readonly times: readonly CallTime[];
}

/** What is known of the session besides its record. */
interface Running {
  readonly session: Session;
  /** How the worker got it; null if it began there. */
  resume: ResumedSession | null;
  /** Number of workers that its handlers have cost. */
  cost: number;
  /** What the worker has not taken yet, in order. */
  untaken: ToWorker[];
}

/** A worker that loads the handlers. */
interface Loading {
  readonly thread: WorkerThread;
  readonly loaded: PromiseWithResolvers<ChainSummary>;
  /** The step that it takes: what has failed, should it never end. Null before the first. */
  step: LoadFailure | null;
}

export class Trial {
  readonly #config: Config;
  readonly #start: SessionStart;
  readonly #workerUrl: URL;
  readonly #events: TrialEvents;
  readonly #workerRows = WorkerRows.create(1);
  readonly #records = SessionRecords.create(1);
  readonly #failed = Promise.withResolvers<never>();
  readonly #watch: ReturnType<typeof setInterval>;
  #sources: Sources | null = null;
  #summary: ChainSummary | null = null;
  /** The worker that has loaded; null while there is none. */
  #thread: WorkerThread | null = null;
  #running: Running | null = null;
  #beat = 0;
  #silentMs = 0;
  #lookedAt = performance.now();
  #memory = new WorkerMemory();
  #isStopping = false;
  #loading: Loading | null = null;
  readonly #ended = Promise.withResolvers<void>();

  private constructor(config: Config, start: SessionStart, workerUrl: URL, events: TrialEvents) {
    this.#config = config;
    this.#start = start;
    this.#workerUrl = workerUrl;
    this.#events = events;
    // Whoever waits for it hears of it.
    this.#failed.promise.catch(() => {});
    this.#watch = setInterval(() => this.#look(), WATCHDOG_MS);
  }

  /**
   * Loads the handlers and starts the filters, as a server does.
   * @param listener the listen address that sessions come in by, in normal form: conditions may ask for it. Shares hold.
   * @throws LoadError
   */
  static async start(config: Config, listener: string, workerUrl: URL, events: TrialEvents): Promise<Trial> {
    const trial = new Trial(config, { listener, draw: null }, workerUrl, events);
    try {
      await trial.#load();
      return trial;
    } catch (error) {
      clearInterval(trial.#watch);
      throw error;
    }
  }

  /** Rejects with a LoadError if a worker that is lost cannot be replaced. Never settles otherwise. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Names of the filters, in the order of the chain. */
  get filters(): readonly string[] {
    return this.#summary!.filters.map(({ name }) => name);
  }

  /** Begins a session. The one before it has to be closed. */
  open(): TrialSession {
    if (this.#running !== null) throw new Error("a session of the trial is open");
    const session = new Session((message) => this.#give(session, message));
    this.#running = { session, resume: null, cost: 0, untaken: [] };
    if (this.#memory.isMuch && this.#thread !== null) void this.#replace(this.#thread);
    else this.#begin(this.#running);
    return session;
  }

  /** Stops the filters, and ends the worker. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const thread = this.#thread;
    if (thread !== null) {
      thread.post({ kind: "end", atOnce: true });
      if (!(await within(this.#ended.promise, STOP_MS))) {
        const text = `the filters have not stopped after ${STOP_MS / 1000} s`;
        this.#events.say({ level: "warn", text, fields: {} });
      }
      await thread.terminate();
    }
    clearInterval(this.#watch);
  }

  /** Starts a worker, which goes on with the session that is open. */
  async #load(): Promise<void> {
    const config = this.#config;
    this.#workerRows.open(ROW);
    this.#beat = 0;
    this.#silentMs = 0;
    this.#memory = new WorkerMemory();
    const loaded = Promise.withResolvers<ChainSummary>();
    const thread = new WorkerThread(this.#workerUrl, {
      message: (message) => this.#receive(thread, message),
      gone: (reason) => this.#gone(thread, reason),
    });
    const loading: Loading = { thread, loaded, step: null };
    this.#loading = loading;
    const { layout: workerRows } = this.#workerRows;
    const { layout: records } = this.#records;
    thread.post({ kind: "try", config, start: this.#start, workerRows, records, sources: this.#sources });
    const timer = setTimeout(() => {
      loaded.reject(notLoadedInTime(config, loading.step));
    }, LOAD_TIMEOUT_MS);
    try {
      this.#summary = await loaded.promise;
    } catch (error) {
      void thread.terminate();
      throw error;
    } finally {
      clearTimeout(timer);
      this.#loading = null;
    }
    this.#thread = thread;
    this.#lookedAt = performance.now();
    if (this.#running !== null) this.#begin(this.#running);
  }

  /** Gives a session to the worker; without a worker it waits for the next. */
  #begin({ resume, untaken }: Running): void {
    if (this.#thread === null) return;
    this.#records.offer(SLOT);
    this.#thread.post({ kind: "open", resume });
    for (const message of untaken) this.#thread.post(message);
  }

  /** Gives the worker what the mail server has sent, now or once it has loaded. */
  #give(session: Session, message: ToWorker): void {
    if (this.#running?.session !== session) return;
    this.#running.untaken.push(message);
    this.#thread?.post(message);
  }

  #receive(thread: WorkerThread, message: FromWorker): void {
    const loading = this.#loading?.thread === thread ? this.#loading : null;
    // The rest of what a lost worker has posted has no one to go to.
    if (loading === null && thread !== this.#thread) return;
    switch (message.kind) {
      case "sources":
        this.#sources = message.sources;
        return;
      case "starting":
        if (loading !== null) loading.step = message.failure;
        return;
      case "ready":
        loading?.loaded.resolve(message.summary);
        return;
      case "failed":
        loading?.loaded.reject(new LoadError(message.failure, undefined));
        return;
      case "took":
        this.#running?.session.times.push(...message.times);
        this.#running?.untaken.shift();
        return;
      case "written":
        this.#running?.session.onData(message.bytes);
        return;
      case "report":
        this.#events.report(message.report);
        return;
      case "hungUp":
        this.#running?.session.times.push(...message.times);
        this.#close();
        return;
      case "log":
        this.#events.say(message);
        return;
      case "print":
        this.#events.print(message.text);
        return;
      case "exiting":
        void this.#lose(thread, "died", `ended: ${message.reason}`);
        return;
      case "ended":
        this.#ended.resolve();
        return;
      default:
      // Of workers that serve, or check.
    }
  }

  #close(): void {
    const running = this.#running;
    this.#running = null;
    running?.session.closed();
  }

  #look(): void {
    const now = performance.now();
    const { limits, server } = this.#config;
    // As in a server: a machine that was asleep does not count against the worker.
    const elapsedMs = Math.min(now - this.#lookedAt, Math.max(2 * WATCHDOG_MS, server.blockTimeoutMs / 4));
    this.#lookedAt = now;
    const thread = this.#thread;
    if (thread === null) return;
    const beat = this.#workerRows.beats(ROW);
    const hasReturned = beat !== this.#beat;
    this.#silentMs = hasReturned ? 0 : this.#silentMs + elapsedMs;
    this.#beat = beat;
    const resident = residentBytes();
    this.#memory.look({
      elapsedMs,
      hasReturned,
      isSilent: this.#silentMs > 2 * BEAT_MS,
      heapBytes: this.#workerRows.heapBytes(ROW),
      residentBytes: resident,
      isShort: resident > 2 * limits.workerMemory,
      limit: limits.workerMemory,
    });
    if (this.#silentMs > server.blockTimeoutMs + BEAT_MS) {
      const seconds = (this.#silentMs / 1000).toFixed(1);
      void this.#lose(thread, "blocked", `has not returned to its event loop for ${seconds} s`);
    } else if (this.#memory.isTooMuch) void this.#lose(thread, "memory", "holds too much memory");
  }

  #gone(thread: WorkerThread, reason: string): void {
    if (this.#loading?.thread === thread) {
      const message = `the worker ended while it loaded the handlers: ${reason}`;
      this.#loading.loaded.reject(new LoadError({ file: this.#config.file, line: 0, column: 0, message }, undefined));
    }
    void this.#lose(thread, "died", `ended: ${reason}`);
  }

  /** The worker is lost: its session is answered for, and goes on in another worker. */
  async #lose(thread: WorkerThread, cause: LossCause, reason: string): Promise<void> {
    if (this.#thread !== thread) return;
    this.#thread = null;
    if (this.#isStopping) {
      const text = "the worker was lost while it stopped the filters";
      if (cause !== "died") this.#events.say({ level: "warn", text, fields: {} });
      this.#ended.resolve();
      return;
    }
    const silentMs = this.#silentMs;
    this.#events.say({ level: "crit", text: `the worker ${reason}; another is started`, fields: {} });
    const running = this.#running;
    // It may be in the middle of a write: the record has to agree with what was written.
    while (!this.#workerRows.claim(ROW)) await Bun.sleep(CLAIM_RETRY_MS);
    const busySlot = this.#workerRows.busySlot(ROW);
    await thread.terminate();
    // Without that, the worker has not begun with the session.
    const isBegun = running !== null && this.#records.isAdopted(SLOT);
    const isNamed = isBegun && this.#recover(running, cause, busySlot, silentMs);
    // No handler of a phase: a call of `outcome`, a timer, or what a handler left running.
    if (!isNamed) this.#events.lost({ level: "error", text: `the worker ${reason}`, fields: { cause } });
    await this.#reload();
  }

  /** Replaces a worker that holds too much memory, between two sessions. */
  async #replace(thread: WorkerThread): Promise<void> {
    this.#thread = null;
    await thread.terminate();
    await this.#reload();
  }

  async #reload(): Promise<void> {
    try {
      await this.#load();
    } catch (error) {
      this.#failed.reject(error);
    }
  }

  /** @returns whether the worker was lost to a handler that is known */
  #recover(running: Running, cause: LossCause, busySlot: number | null, silentMs: number): boolean {
    const record = this.#records.read(SLOT);
    const { session } = running;
    const isSuspect = busySlot === null ? record.call !== null : busySlot === SLOT;
    const isCulprit = busySlot === SLOT && cause !== "memory";
    running.cost += isCulprit ? 1 : 0;
    const recovery = recover(record, {
      cause,
      isSuspect,
      filters: this.#summary!.filters.map((filter, index) => {
        // As in a server: a filter that takes no part has no say.
        const isOut = !takesPart(this.#summary!.all[index]!, this.#start);
        return isOut ? Object.assign({}, filter, { isObserved: true }) : filter;
      }),
      skippedFilters: running.resume?.skippedFilters ?? [],
      isOffender: isCulprit && running.cost > MAX_COST,
    });
    const generation = { config: this.#config, sources: this.#sources, summary: this.#summary! };
    const context = { cause, cost: running.cost, generation, isSure: busySlot !== null, peer: PEER };
    for (const line of lossLines(record, recovery, isSuspect, context)) this.#events.lost(line);
    const isNamed = isSuspect && record.call !== null;
    if (isSuspect && record.call !== null) session.times.push({ ...record.call, ms: silentMs });
    if (recovery.kind === "end") {
      this.#close();
      return isNamed;
    }
    running.resume = recovery.session;
    if (recovery.replies.length > 0) session.onData(recovery.replies);
    return isNamed;
  }
}

class Session implements TrialSession {
  onData: (bytes: Uint8Array) => void = () => {};
  onClose: (error: Error | undefined) => void = () => {};
  readonly #give: (message: ToWorker) => void;
  readonly times: CallTime[] = [];
  #isClosing = false;

  constructor(give: (message: ToWorker) => void) {
    this.#give = give;
  }

  send(bytes: Uint8Array): void {
    this.#give({ kind: "read", bytes: new Uint8Array(bytes) });
  }

  close(): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#give({ kind: "hangUp" });
  }

  closed(): void {
    this.#isClosing = true;
    this.onClose(undefined);
  }
}
