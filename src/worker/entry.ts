/**
 * A worker thread: loads the handlers, accepts and adopts connections, runs them. It posts to the
 * main thread and never waits for an answer.
 */
import { dirname } from "node:path";
import type { Socket } from "bun";
import * as api from "../index.ts";
import { isLogged, type LogLevel } from "../admin/log-level.ts";
import { type Config, entryFiles, shippedFilters } from "../config/config.ts";
import { whereNamed } from "../config/named.ts";
import type { WorkerCounter } from "../counters.ts";
import type { Judgement } from "../check/judge.ts";
import { placeOfMember } from "../load/source-text.ts";
import { type Chain, type ChainFilter, Chains } from "../handler/chain.ts";
import type { SessionStart } from "../handler/conditions.ts";
import { type ChainNeeds, wantsFor } from "../handler/needs.ts";
import { RunningOutcomes } from "../handler/outcomes.ts";
import { placeOfWarning } from "../handler/report.ts";
import { describeThrown } from "../handler/site.ts";
import type { Services } from "../handler/services.ts";
import { Stopwatch } from "../handler/filter-times.ts";
import { fileOf, startFilters, stopFilters } from "../handler/start.ts";
import { heapBytes } from "../memory.ts";
import { PHASE_LIST } from "../protocol/phases.ts";
import { ReplyWriter } from "../protocol/encode.ts";
import { adopt } from "../net/adopt.ts";
import { findEventPoll } from "../net/event-poll.ts";
import { close, shutdown } from "../net/libc.ts";
import { allowedBy, type PeerName } from "../net/peer.ts";
import { ConnectionTable } from "../shared/connection-table.ts";
import { Acceptor } from "./acceptor.ts";
import { Connection, type ConnectionHome, INTERNAL_ERROR } from "./connection.ts";
import { callModule, loadChain, loadModule, PHASE_FILES_NAME, type StartRubyThreads } from "../load/loader.ts";
import { standInChain } from "./stand-in.ts";
import { failureOf, LoadError, type LoadFailure } from "../handler/load-failure.ts";
import { type CodeName, logLine } from "../handler/log-lines.ts";
import type { ChainSummary, FromWorker, ResumedSession, ToWorker } from "../shared/messages.ts";
import { Outbox } from "../shared/outbox.ts";
import type { NoSpoolLine, SpoolLine } from "../shared/spool-messages.ts";
import { SessionRecords } from "../shared/session-records.ts";
import { BEAT_MS, WorkerRows } from "../shared/worker-rows.ts";
import { sharedServices, trialServices } from "./handler-services.ts";
import { WorkerServices } from "./services.ts";
import { WorkerSpool } from "./spool.ts";
import { capturePrints } from "./print.ts";
import { compileScripts } from "../load/ruby-scripts.ts";
import { serveSources } from "../load/serve-sources.ts";
import { STRAY_FAILURE, strayLine } from "./stray-failure.ts";
import { Trial } from "./trial.ts";
import { placeOfMissingExport, placeOfModule, readSources, type Sources, textOf, versionOf } from "../load/sources.ts";

/** The side of the thread that the main thread talks to. */
interface WorkerScope {
  postMessage(message: FromWorker): void;
  onmessage: (event: { readonly data: ToWorker }) => void;
}
declare const self: WorkerScope;

const outbox = new Outbox((message) => self.postMessage(message));

function post(message: FromWorker): void {
  outbox.post(message);
}

const RUBY_THREAD_URL = new URL("../ruby/threads/entry.ts", import.meta.url);
/** Bytes of the buffer for replies. Larger replies make it larger for a while. */
const WRITER_BYTES = 64 * 1024;
/** How long calls of `outcome` may keep their worker from ending. */
const OUTCOMES_TIMEOUT_MS = 5000;
/** How often a heap that is too large is collected at most, in milliseconds, unless it has doubled. */
const COLLECT_MS = 5000;
/** Number of places in handlers that are warned of, at most. */
const MAX_SAID = 1000;
/** Idle connections are looked for this often, at most. */
const MAX_SWEEP_MS = 30_000;

class Server {
  readonly #chain: Chain;
  readonly #home: ConnectionHome;
  readonly #connections = new Set<Connection>();
  /** When the heap was last collected for its size, on the home's clock, and its bytes after that. */
  #collectedAt = Number.NEGATIVE_INFINITY;
  #heldBytes = 0;
  /** Slots of sessions that were released, and that the main thread may still give back. */
  readonly #inTransit = new Set<number>();
  readonly #sweep: ReturnType<typeof setInterval>;
  #isEnding = false;
  #hasEnded = false;

  readonly #beat: ReturnType<typeof setInterval>;
  readonly #code: CodeName;
  /** Keys of the log lines that are written once. */
  readonly #said = new Set<string>();
  readonly #table: ConnectionTable;
  readonly #acceptor: Acceptor;
  readonly #spool: WorkerSpool | null;

  constructor(
    { config, listeningSockets, generation, row, standIn }: Assignment,
    workerRows: WorkerRows,
    records: SessionRecords,
    table: ConnectionTable,
    chain: Chain,
    services: Services,
  ) {
    const { logLevel, debug, timeoutMs } = config.server;
    const code = { folder: dirname(config.file), version: versionOf(sources) };
    const chains = new Chains(chain);
    const startOf = (slot: number): SessionStart => ({
      listener: listeningSockets[table.listenerOf(slot)]?.configured ?? null,
      draw: table.drawOf(slot),
    });
    const logs = (level: LogLevel) => isLogged(level, logLevel);
    this.#chain = chain;
    this.#spool = chain.collectors.length > 0 ? new WorkerSpool(() => post({ kind: "spool" })) : null;
    this.#code = code;
    this.#table = table;
    this.#home = {
      row,
      chainOf: (slot) => chains.for(startOf(slot)),
      wantsFor: (needs, slot) => wantsFor(needs, startOf(slot)),
      writer: new ReplyWriter(WRITER_BYTES),
      spool: this.#spool,
      services,
      workerRows,
      records,
      outcomes: new RunningOutcomes(),
      reportsAccepted: logs("info"),
      logs,
      isTrial: false,
      tracesPackets: debug > 0 && logs("debug"),
      now: () => Math.round(performance.now()),
      report: (report) => {
        if (report.kind === "failure") workerRows.count(row, FAILURE_COUNTER[report.cause]);
        const once = report.kind === "warning" ? placeOfWarning(report) : null;
        if (once !== null && !this.#isNew(once)) return;
        const line = logLine(report, code);
        if (logs(line.level)) post({ kind: "log", ...line, once });
      },
      log: (level, text, of) => {
        if (logs(level)) post({ kind: "log", level, text, fields: {}, of });
      },
      closed: (connection) => {
        this.#connections.delete(connection);
        this.#leave(connection.slot);
        this.#endIfIdle();
      },
      releaseFor: null,
      isStandIn: standIn !== null,
      released: (connection) => {
        this.#connections.delete(connection);
        this.#inTransit.add(connection.slot);
        post({ kind: "released", slot: connection.slot });
      },
    };
    this.#acceptor = new Acceptor(
      {
        row,
        table,
        listeningSockets,
        allowed: allowedBy(config),
        lock: () => {
          if (!workerRows.lock(row)) workerRows.park(row);
        },
        unlock: () => workerRows.unlock(row),
        mayKeep: () => !this.#isEnding && table.current === generation,
        prepare(slot) {
          records.offer(slot);
          records.adopt(slot);
        },
        keep: (slot, peer, socket) => {
          workerRows.count(row, "connections");
          const connection = this.#begin(slot, peer, null);
          if (connection === null) {
            socket.end();
            return;
          }
          socket.data = connection;
          connection.opened(socket);
        },
        pass: (passed) => post({ kind: "accepted", passed }),
        listening: () => post({ kind: "listening" }),
        stopped: () => post({ kind: "paused" }),
        log: this.#home.log,
      },
      SOCKET_HANDLERS,
    );
    const beat = () => workerRows.beat(row, this.#heapBytes(config.limits.workerMemory));
    beat();
    this.#beat = setInterval(beat, BEAT_MS);
    this.#sweep = setInterval(
      () => {
        for (const connection of this.#connections) connection.cutIdle(timeoutMs);
      },
      Math.max(100, Math.min(MAX_SWEEP_MS, timeoutMs / 4)),
    );
  }

  /** It reaches the thread of the spool by this. */
  spool(line: SpoolLine | NoSpoolLine): void {
    this.#spool?.connect(line);
  }

  listen(rows: readonly number[]): void {
    this.#acceptor.listen(rows);
  }

  pause(): void {
    this.#acceptor.pause();
  }

  adopt(slot: number, descriptor: number, peer: PeerName, resume: ResumedSession | null): void {
    // It was given while this worker ended: the main thread finds that it is not adopted.
    if (this.#hasEnded) return;
    this.#inTransit.delete(slot);
    // From here on the descriptor is this worker's. The main thread closes a descriptor that was not adopted.
    this.#home.records.adopt(slot);
    const connection = this.#begin(slot, peer, resume);
    if (connection === null) {
      close(descriptor);
      return;
    }
    const options = { fd: descriptor, data: connection, socket: ADOPTED_HANDLERS };
    adopt(options).catch((error: unknown) => {
      const what = "the connection was gone before it was taken over";
      this.#home.log("notice", `${peer}: ${what}: ${String(error)}`, what);
      connection.disconnected();
    });
  }

  /** Makes the connection of a slot that is this worker's. Null if that fails: then the connection has been ended for its peer. */
  #begin(slot: number, peer: PeerName, resume: ResumedSession | null): Connection | null {
    try {
      const connection = new Connection(this.#home, slot, peer, resume);
      this.#connections.add(connection);
      return connection;
    } catch (error) {
      this.count("internalErrors");
      this.#home.log("error", `${peer}: ${INTERNAL_ERROR}: ${describeThrown(error)}`, INTERNAL_ERROR);
      shutdown(this.#table.duplicateOf(slot), "both");
      this.#leave(slot);
      this.#endIfIdle();
      return null;
    }
  }

  count(counter: WorkerCounter): void {
    this.#home.workerRows.count(this.#home.row, counter);
  }

  /** Something was thrown, or a promise rejected, that no call of a handler waits for. */
  failedOutside(error: unknown): void {
    this.count("late");
    const line = strayLine(error, this.#chain.filters, sources, this.#code);
    // Each place is a kind: a place that fails again and again does not hide another.
    post({ kind: "log", ...line, of: `${STRAY_FAILURE}: at=${String(line.fields["at"] ?? "an unknown place")}` });
  }

  /** Whether the key has not been seen yet. */
  #isNew(once: string): boolean {
    const isNew = !this.#said.has(once) && this.#said.size < MAX_SAID;
    if (isNew) this.#said.add(once);
    return isNew;
  }

  /** Releases the sessions that another generation can resume, now and whenever a message has ended. */
  release(needs: ChainNeeds): void {
    this.#home.releaseFor = needs;
    for (const connection of this.#connections) connection.release();
  }

  end(atOnce: boolean): void {
    this.#isEnding = true;
    this.#acceptor.close();
    if (atOnce) for (const connection of this.#connections) connection.cut("the server stops");
    this.#endIfIdle();
  }

  /** A session that this worker released has been resumed by another. */
  moved(slot: number): void {
    this.#inTransit.delete(slot);
    this.#endIfIdle();
  }

  /**
   * The size of the heap without garbage: a heap over the limit is collected before its size is reported, since the
   * collector by itself waits. Between two collections it is the size after the last collection.
   */
  #heapBytes(limit: number): number {
    // Mapped bodies look like memory of the heap.
    const mapped = this.#spool?.mappedBytes ?? 0;
    const bytes = heapBytes() - mapped;
    if (bytes <= limit) return Math.max(0, bytes);
    const isDue = this.#home.now() - this.#collectedAt >= COLLECT_MS || bytes > 2 * this.#heldBytes;
    if (isDue) {
      Bun.gc(true);
      this.#heldBytes = Math.max(0, heapBytes() - mapped);
      this.#collectedAt = this.#home.now();
    }
    return this.#heldBytes;
  }

  /** A connection has ended on this side: its slot and its duplicate are given back. */
  #leave(slot: number): void {
    const duplicate = this.#table.duplicateOf(slot);
    // If that fails, the main thread has taken it, with the duplicate.
    if (!this.#table.leave(slot, this.#home.row)) return;
    this.#acceptor.ended();
    close(duplicate);
    if (this.#table.isAwaited) post({ kind: "room" });
  }

  #endIfIdle(): void {
    if (this.#isEnding && this.#connections.size === 0 && this.#inTransit.size === 0) void this.#ended();
  }

  async #ended(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearInterval(this.#sweep);
    await this.#home.outcomes.finish(OUTCOMES_TIMEOUT_MS);
    await stopFilters(this.#chain.filters, stopFailed);
    finishPrints();
    clearInterval(this.#beat);
    post({ kind: "ended" });
  }
}

/** How each cause of a failure is counted. */
const FAILURE_COUNTER = {
  error: "errors",
  timeout: "timeouts",
  late: "late",
  limit: "limits",
  spool: "spoolFailures",
} as const;

/** The socket of a connection that was accepted and passed on has no {@link Connection}. */
type KeptSocket = Socket<Connection | undefined>;

const SOCKET_HANDLERS = {
  data: (socket: KeptSocket, chunk: Uint8Array) => socket.data?.data(chunk),
  drain: (socket: KeptSocket) => socket.data?.drained(),
  close: (socket: KeptSocket) => socket.data?.disconnected(),
  error: (socket: KeptSocket) => socket.data?.disconnected(),
};

const ADOPTED_HANDLERS = { ...SOCKET_HANDLERS, open: (socket: Socket<Connection>) => socket.data.opened(socket) };

function failureLog(what: string, failure: LoadFailure): FromWorker {
  const { file, line, message } = failure;
  const place = file === "" ? "" : ` at=${file}${line > 0 ? `:${line}` : ""}`;
  const text = `${what}:${place} error=${JSON.stringify(message)}`;
  return { kind: "log", level: "error", text, fields: { file, line, error: message } };
}

function summarize(chain: Chain): ChainSummary {
  return {
    filters: chain.filters.map(({ files, isObserved, loaded, onError, onTimeout }) => ({
      name: loaded.name,
      phases: PHASE_LIST.map((phase) => phase.name).filter((phase) => loaded.handlers[phase] !== undefined),
      hasOutcome: loaded.outcome !== null,
      isObserved,
      onError,
      onTimeout,
      files,
    })),
    all: chain.filterNeeds,
    deferContent: chain.policy.deferContent,
    needs: chain.needs,
    ...chain.wants,
  };
}

/** Gives the handlers `pmilter` and `pmilter/options` as these very modules, wherever they lie: the API exists once. */
function provideApi(): void {
  Bun.plugin({
    name: "pmilter",
    setup(build) {
      build.module("pmilter", () => ({ exports: { ...api }, loader: "object" }));
      // Evaluated only if a handler imports it. Not by `import()`: a CommonJS handler could not require it.
      build.module("pmilter/options", () => ({
        exports: { ...(require("../options/index.ts") as typeof import("../options/index.ts")) },
        loader: "object",
      }));
    },
  });
}

type Assignment = Extract<ToWorker, { kind: "serve" }>;

let server: Server | null = null;
let trial: Trial | null = null;

/** Its line is asked for with the first call. */
const workerServices = new WorkerServices(() => post({ kind: "services" }));

/** The sources that the handlers of this thread are loaded from; null until they are loaded. */
let sources: Sources | null = null;

async function load(
  config: Config,
  given: Sources | null,
  isFirst: boolean,
  services: Services,
  stopwatch?: Stopwatch,
): Promise<Chain> {
  sources = given ?? (await compileScripts(readSources(entryFiles(config), shippedFilters(config)), isFirst));
  if (given === null) post({ kind: "sources", sources });
  if (sources.problem !== null) throw new LoadError(withName(config, sources.problem), undefined);
  if (given === null) {
    for (const failure of Object.values(sources.broken)) post(failureLog("Ruby handler does not load", failure));
  }
  serveSources(sources);
  const startThreads: StartRubyThreads = async (scripts, library) => {
    const { RubyThreads } = await import("../ruby/threads/pool.ts");
    const { store } = services;
    const { blockTimeoutMs } = config.server;
    const log = (level: LogLevel, text: string): void => post({ kind: "log", level, text, fields: {}, of: text });
    const host = { url: RUBY_THREAD_URL, store, filter: PHASE_FILES_NAME, blockTimeoutMs, log };
    return RubyThreads.start(host, scripts, library);
  };
  const onStep = (failure: LoadFailure): void => post({ kind: "starting", failure });
  return loadChain(config, sources, onStep, stopwatch, startThreads);
}

/** A file that cannot be read has no line of its own: the line of the configuration that names it is given instead. */
function withName(config: Config, problem: LoadFailure): LoadFailure {
  const named = problem.line > 0 ? null : whereNamed(config, problem.file);
  return named === null ? problem : { ...problem, message: `${problem.message} (${named})` };
}

/** Code and declarations of their own, which no worker with sessions needs. */
async function judge({ config, folder, sources }: Extract<ToWorker, { kind: "judge" }>): Promise<Judgement> {
  const { judgeHandlers } = await import("../check/judge.ts");
  return judgeHandlers(config, sources, folder);
}

/**
 * Loads a module of the server's life, and calls it unless the run is dry.
 * @returns the sources that it was loaded from
 */
async function call(file: string, given: Sources | null, isDry: boolean): Promise<Sources> {
  sources = given ?? (await compileScripts(readSources([file]), false));
  if (sources.problem !== null) throw new LoadError(sources.problem, undefined);
  serveSources(sources);
  await (isDry ? loadModule(file, sources) : callModule(file, sources));
  return sources;
}

async function startServing(assignment: Assignment): Promise<void> {
  const { config, row, sources: given, isFirst, standIn } = assignment;
  const workerRows = new WorkerRows(assignment.workerRows);
  const records = new SessionRecords(assignment.records);
  const services = sharedServices(workerServices, config);
  const chain = standIn === null ? await load(config, given, isFirst, services) : standInChain(standIn, config);
  await startFilters(chain.filters, { folder: dirname(config.file), isCheck: false }, services, tellStart);
  const table = new ConnectionTable(assignment.table);
  table.setEventPoll(row, findEventPoll());
  server = new Server(assignment, workerRows, records, table, chain, services);
  holdExits(workerRows, row);
  outbox.onDropped = () => workerRows.count(row, "linesDropped");
  workerServices.onRefused = () => workerRows.count(row, "servicesRefused");
  post({ kind: "ready", summary: summarize(chain) });
}

/** A `start()` is about to be called; the message is of what has failed if it never ends. */
function tellStart(filter: ChainFilter, message: string): void {
  post({ kind: "starting", failure: { ...placeOfStart(fileOf(filter)), message } });
}

/** Loads the handlers as a start does, for sessions that come by messages. */
async function startTrial({
  config,
  records,
  sources: given,
  start,
  workerRows: layout,
}: Extract<ToWorker, { kind: "try" }>): Promise<void> {
  const stopwatch = new Stopwatch();
  const services = trialServices(config);
  const chain = await load(config, given, true, services, stopwatch);
  await startFilters(chain.filters, { folder: dirname(config.file), isCheck: false }, services, tellStart);
  const workerRows = new WorkerRows(layout);
  trial = new Trial({
    folder: dirname(config.file),
    chain,
    start,
    stopwatch,
    workerRows,
    records: new SessionRecords(records),
    services,
    post,
  });
  holdExits(workerRows, 0);
  post({ kind: "ready", summary: summarize(chain) });
}

async function endTrial({ chain }: Trial): Promise<void> {
  await stopFilters(chain.filters, stopFailed);
  finishPrints();
  trial?.end();
  post({ kind: "ended" });
}

function placeOfStart(file: string): Omit<LoadFailure, "message"> {
  const place = { file, line: 0, column: 0 };
  const text = sources === null ? undefined : textOf(sources, file);
  return text === undefined ? place : { ...place, ...placeOfMember(text, "start") };
}

function stopFailed({ loaded }: ChainFilter, error: unknown): void {
  post(failureLog(`filter ${loaded.name} failed at stop`, failureOf(error, "")));
}

/** Loads the handlers as a start does, and serves nothing. */
async function check(config: Config, starts: boolean): Promise<ChainSummary> {
  const services = trialServices(config);
  const chain = await load(config, null, false, services);
  if (starts) {
    await startFilters(chain.filters, { folder: dirname(config.file), isCheck: true }, services, tellStart);
    await stopFilters(chain.filters, stopFailed);
  }
  finishPrints();
  return summarize(chain);
}

/**
 * A thread that ends by itself may still read from its connections on its way out, and those bytes are lost. So a handler
 * that ends it only stops it, and the main thread does the rest.
 */
function holdExits(workerRows: WorkerRows, row: number): void {
  const hold = (what: string): never => {
    finishPrints();
    post({ kind: "exiting", reason: `a handler called ${what}` });
    return workerRows.park(row);
  };
  process.exit = (code) => hold(`process.exit(${code === undefined ? "" : String(code)})`);
  Object.assign(globalThis, { close: () => hold("close()") });
}

function fail(error: unknown, file: string): void {
  const failure = error instanceof LoadError ? error.failure : failureOf(error, file);
  const place =
    sources === null ? null : (placeOfMissingExport(sources, failure.message) ?? placeOfModule(sources, failure));
  post({ kind: "failed", failure: { ...failure, ...place } });
}

self.onmessage = ({ data: message }) => {
  switch (message.kind) {
    case "serve":
      startServing(message).catch((error: unknown) => fail(error, message.config.file));
      return;
    case "check":
      check(message.config, message.starts).then(
        (summary) => post({ kind: "ready", summary }),
        (error: unknown) => fail(error, message.config.file),
      );
      return;
    case "judge":
      judge(message).then(
        (judgement) => post({ kind: "judged", judgement }),
        (error: unknown) => fail(error, message.config.file),
      );
      return;
    case "call":
      call(message.file, message.sources, message.isDry).then(
        (loaded) => {
          finishPrints();
          post({ kind: "done", sources: loaded });
        },
        (error: unknown) => fail(error, message.file),
      );
      return;
    case "try":
      startTrial(message).catch((error: unknown) => fail(error, message.config.file));
      return;
    case "open":
      trial?.open(message.resume);
      return;
    case "read":
      trial?.read(message.bytes);
      return;
    case "hangUp":
      trial?.hangUp();
      return;
    case "services":
      workerServices.connect(message.line);
      return;
    case "spool":
      server?.spool(message);
      return;
    case "listen":
      server?.listen(message.rows);
      return;
    case "pause":
      server?.pause();
      return;
    case "adopt":
      server?.adopt(message.slot, message.descriptor, message.peer, message.resume);
      return;
    case "release":
      server?.release(message.needs);
      return;
    case "moved":
      server?.moved(message.slot);
      return;
    case "taken":
      outbox.taken(message.size);
      return;
    case "end":
      if (trial !== null) void endTrial(trial);
      else if (server === null) post({ kind: "ended" });
      else server.end(message.atOnce);
      return;
    default:
      message satisfies never;
  }
};

// An error that a handler throws in a timer, or a rejection that is not awaited, must not end the worker and its sessions.
for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error: unknown) => {
    if (server === null) {
      const line = strayLine(error, trial?.chain.filters ?? [], sources, { folder: trial?.folder ?? "/", version: "" });
      post({ kind: "log", ...line, of: STRAY_FAILURE });
    } else server.failedOutside(error);
  });
}
provideApi();
const finishPrints = capturePrints((text) => post({ kind: "print", text }));
