/**
 * The Ruby threads of a worker, for scripts that may wait: for the store, for a lock, for a file. A thread runs one call at
 * a time. The worker does not wait: it serves what a script asks, and its other sessions, meanwhile. More threads are
 * started while calls wait for one.
 */
import { hostname } from "node:os";
import { basename } from "node:path";
import { toError } from "../../errors.ts";
import type { AnyHandler } from "../../handler/filter.ts";
import { NotReturned } from "../../handler/not-returned.ts";
import { placeCompiled } from "../../handler/site.ts";
import { verdictFrom } from "../../handler/verdict.ts";
import type { Phase } from "../../protocol/phases.ts";
import { storeOf, type StoreSource } from "../../store/client.ts";
import { UsageError } from "../../usage-error.ts";
import type { RubyScript } from "../compile.ts";
import { locate } from "../line-map.ts";
import {
  type AnySession,
  isHeard,
  MESSAGE_PHASES,
  perform,
  type SessionCall,
  type SessionOperation,
} from "../session-calls.ts";
import { Caches } from "./caches.ts";
import { Locks } from "./locks.ts";
import type { FromRubyThread, PlacedVerdict, ToRubyThread } from "./messages.ts";
import type { Question, RaisedError, Reply, ServiceQuestions } from "./questions.ts";

/** Threads of a worker at most. */
const MAX_THREADS = 4;
/** A call waits so long before another thread is started. Each takes about half a second of a processor's time. */
const GROW_MS = 400;
/** At most so long before its end a call stops waiting for a lock: the script is to say what happens then. */
const MAX_SPARE_MS = 250;

export interface RubyThreadsHost {
  /** Of `entry.ts` beside this file. */
  readonly url: URL;
  readonly store: StoreSource;
  /** The name in the store of the filter that the scripts are. */
  readonly filter: string;
  readonly blockTimeoutMs: number;
  log(level: "warn", text: string): void;
}

/** A connection, as long as its session is used. */
interface Connection {
  readonly id: number;
  /** The thread that has its variables; null if there are none. */
  thread: RubyThread | null;
  /** That thread has ended. */
  isLost: boolean;
}

class ThreadCall implements SessionCall {
  sender: string | null = null;
  /** The mutexes that have each lock, by its key. */
  readonly locks = new Map<string, Set<number>>();
  readonly ending = new AbortController();
  readonly result = Promise.withResolvers<PlacedVerdict | null>();
  timer: ReturnType<typeof setTimeout> | null = null;
  readonly session: AnySession;
  readonly phase: Phase;
  readonly values: readonly unknown[];
  readonly path: string;
  readonly connection: Connection;
  /** When it began to wait. */
  readonly since: number;

  constructor(
    session: AnySession,
    phase: Phase,
    values: readonly unknown[],
    path: string,
    connection: Connection,
    since: number,
  ) {
    this.session = session;
    this.phase = phase;
    this.values = values;
    this.path = path;
    this.connection = connection;
    this.since = since;
  }

  get isOver(): boolean {
    return this.ending.signal.aborted;
  }
}

export class RubyThreads {
  readonly #host: RubyThreadsHost;
  readonly #library: readonly RubyScript[];
  readonly #scripts: readonly RubyScript[];
  /** Scripts use what others have defined: those of a connection stay in one thread. */
  readonly #areLinked: boolean;
  readonly #locks: Locks;
  readonly #threads = new Set<RubyThread>();
  #queue: ThreadCall[] = [];
  #growing: ReturnType<typeof setTimeout> | null = null;
  readonly #connections = new WeakMap<object, Connection>();
  #lastConnection = 0;
  readonly #messages = new WeakMap<object, number>();
  #lastMessage = 0;
  readonly #gone = new FinalizationRegistry<number>((connection) => {
    for (const thread of this.#threads) thread.forget(connection);
  });
  /** Scripts that were said to keep a lock. */
  readonly #saidOf = new Set<string>();

  private constructor(host: RubyThreadsHost, scripts: readonly RubyScript[], library: readonly RubyScript[]) {
    this.#host = host;
    this.#scripts = scripts;
    this.#library = library;
    this.#areLinked = scripts.some((one) => scripts.some((other) => one !== other && usesOf(one, other)));
    this.#locks = new Locks({
      store: storeOf(host.store, host.filter, () => NEVER),
      holdMs: host.blockTimeoutMs + MAX_SPARE_MS,
      now,
      failed: (error) =>
        host.log("warn", `Ruby: a lock was not released, it ends by itself: ${toError(error).message}`),
    });
    for (const { map, path } of scripts) {
      placeCompiled(path, (line, column) => ({ file: path, ...locate(map, line, column) }));
    }
  }

  /** With its first thread. @throws Error */
  static async start(
    host: RubyThreadsHost,
    scripts: readonly RubyScript[],
    library: readonly RubyScript[],
  ): Promise<RubyThreads> {
    const threads = new RubyThreads(host, scripts, library);
    await threads.#grow().loaded;
    return threads;
  }

  /** A phase's handler. */
  handler({ path }: RubyScript, phase: Phase): AnyHandler {
    return async (session, ...values) => {
      const connection = this.#connectionOf(session as object);
      const call = new ThreadCall(session as AnySession, phase, values, path, connection, now());
      const verdict = await this.#run(call);
      if (verdict === null || !isHeard(phase)) return undefined;
      return verdictFrom(verdict.kind, Object.assign(new Error(), { stack: verdict.stack }));
    };
  }

  async #run(call: ThreadCall): Promise<PlacedVerdict | null> {
    const { connection, result, session } = call;
    if (connection.isLost) {
      connection.isLost = false;
      const why = "the variables of this connection were lost with a Ruby thread that had to be ended";
      throw placed(new Error(why), call.path);
    }
    const { signal } = session;
    // Nobody waits for it any more.
    const abandon = (): void => this.#end(call, () => result.resolve(null));
    signal.addEventListener("abort", abandon);
    const { blockTimeoutMs } = this.#host;
    call.timer = setTimeout(() => {
      const why = this.#queue.includes(call)
        ? `no Ruby thread was free in ${blockTimeoutMs / 1000} s`
        : `the script did not return in ${blockTimeoutMs / 1000} s`;
      this.#end(call, () => result.reject(placed(new NotReturned(why), call.path)));
    }, blockTimeoutMs);
    this.#place(call);
    try {
      return await result.promise;
    } finally {
      signal.removeEventListener("abort", abandon);
    }
  }

  /** The call is over: it has what it asked for, or nobody waits for it. */
  #end(call: ThreadCall, settle: () => void): void {
    if (call.isOver) return;
    clearTimeout(call.timer!);
    this.#queue = this.#queue.filter((queued) => queued !== call);
    for (const key of call.locks.keys()) this.#locks.of(key).release(call);
    call.ending.abort(new Error("the time of this call is over"));
    settle();
  }

  /** Starts it, or puts it in line. */
  #place(call: ThreadCall): void {
    const { thread } = call.connection;
    const free = thread === null ? [...this.#threads].find((one) => one.isFree) : thread.isFree ? thread : undefined;
    if (free !== undefined) {
      this.#begin(call, free);
      return;
    }
    this.#queue.push(call);
    if (this.#threads.size === 0) this.#grow();
    this.#watchQueue();
  }

  /** More threads, while calls that any thread could take wait. */
  #watchQueue(): void {
    if (this.#growing !== null || this.#threads.size >= MAX_THREADS) return;
    const first = this.#queue.find(({ connection }) => connection.thread === null);
    if (first === undefined) return;
    this.#growing = setTimeout(
      () => {
        this.#growing = null;
        const isWaiting = this.#queue.some(
          ({ connection, since }) => connection.thread === null && now() - since >= GROW_MS,
        );
        if (isWaiting) this.#grow();
        this.#watchQueue();
      },
      Math.max(10, GROW_MS - (now() - first.since)),
    );
  }

  #grow(): RubyThread {
    const thread = new RubyThread(this.#host, this.#library, this.#scripts, {
      answer: (call, question) => this.#answer(call, question),
      returned: (call, verdict) => {
        this.#warnOfLocks(call);
        this.#end(call, () => call.result.resolve(verdict));
      },
      raised: (call, error) => {
        this.#warnOfLocks(call);
        this.#end(call, () => call.result.reject(error));
      },
      free: (free) => this.#next(free),
      ended: (ended) => {
        this.#threads.delete(ended);
        for (const connection of ended.connections) Object.assign(connection, { thread: null, isLost: true });
        if (this.#queue.length > 0 && this.#threads.size === 0) this.#grow();
        this.#watchQueue();
      },
      staysIn: (keeps) => keeps || this.#areLinked,
    });
    this.#threads.add(thread);
    return thread;
  }

  /** The next call for a thread. */
  #next(thread: RubyThread): void {
    const at = this.#queue.findIndex(({ connection }) => connection.thread === null || connection.thread === thread);
    if (at !== -1) this.#begin(this.#queue.splice(at, 1)[0]!, thread);
  }

  #begin(call: ThreadCall, thread: RubyThread): void {
    thread.begin(call, MESSAGE_PHASES.has(call.phase) ? this.#messageOf(call.session.message) : null);
  }

  #connectionOf(session: object): Connection {
    let connection = this.#connections.get(session);
    if (connection === undefined) {
      connection = { id: ++this.#lastConnection, thread: null, isLost: false };
      this.#connections.set(session, connection);
      this.#gone.register(session, connection.id);
    }
    return connection;
  }

  #messageOf(message: object): number {
    let id = this.#messages.get(message);
    if (id === undefined) this.#messages.set(message, (id = ++this.#lastMessage));
    return id;
  }

  /** What a script asks its session, or the services. */
  #answer(call: ThreadCall, { args, operation }: Question): unknown {
    const service = (this.#services as Record<string, (call: ThreadCall, ...args: never[]) => unknown>)[operation];
    if (service !== undefined) return service(call, ...(args as never[]));
    return perform(call, operation as SessionOperation, args);
  }

  readonly #services: {
    readonly [O in keyof ServiceQuestions]: (
      call: ThreadCall,
      ...args: Parameters<ServiceQuestions[O]>
    ) => ReturnType<ServiceQuestions[O]> | Promise<ReturnType<ServiceQuestions[O]>>;
  } = {
    lock: async (call, mutex, isGlobal, timeoutMs) => {
      const key = lockKey(isGlobal);
      const has = call.locks.get(key);
      if (has?.has(mutex) === true) return "own";
      if (has !== undefined && has.size > 0) {
        has.add(mutex);
        return "yes";
      }
      // Already: the call may end while it waits.
      const mutexes = has ?? new Set<number>();
      call.locks.set(key, mutexes);
      const { blockTimeoutMs } = this.#host;
      const last = call.since + blockTimeoutMs - Math.min(MAX_SPARE_MS, blockTimeoutMs / 4);
      const until = Math.min(last, now() + (timeoutMs ?? Infinity));
      const isHad = await this.#locks.of(key).acquire(call, until);
      if (isHad && call.isOver) this.#locks.of(key).release(call);
      if (isHad) mutexes.add(mutex);
      return isHad ? "yes" : "no";
    },
    unlock: (call, mutex, isGlobal) => {
      const key = lockKey(isGlobal);
      const has = call.locks.get(key);
      if (has?.delete(mutex) === true && has.size === 0) this.#locks.of(key).release(call);
      return null;
    },
    isLocked: (_call, isGlobal) => this.#locks.of(lockKey(isGlobal)).isHeld(),
    cacheGet: (call, pool, key) => this.#cachesOf(call).get(pool, key),
    cacheSet: (call, pool, key, value) => this.#cachesOf(call).set(pool, key, value),
    cacheDelete: (call, pool, key) => this.#cachesOf(call).delete(pool, key),
    cacheClear: (call, pool) => this.#cachesOf(call).clear(pool),
    cachePairs: (call, pool, cursor) => this.#cachesOf(call).pairs(pool, cursor),
  };

  #cachesOf(call: ThreadCall): Caches {
    const { filter, store } = this.#host;
    return new Caches(storeOf(store, filter, () => call.ending.signal));
  }

  /** A lock that was not given back would have blocked others. */
  #warnOfLocks(call: ThreadCall): void {
    const { path } = call;
    if (call.isOver || this.#saidOf.has(path) || ![...call.locks.values()].some(({ size }) => size > 0)) return;
    this.#saidOf.add(path);
    this.#host.log("warn", `Ruby: ${basename(path)} ended with a lock that it had not released: it is released now`);
  }
}

interface ThreadEvents {
  answer(call: ThreadCall, question: Question): unknown;
  returned(call: ThreadCall, verdict: PlacedVerdict | null): void;
  raised(call: ThreadCall, error: Error): void;
  free(thread: RubyThread): void;
  ended(thread: RubyThread): void;
  /** Whether a connection's next call has to run in the same thread. */
  staysIn(keeps: boolean): boolean;
}

class RubyThread {
  readonly #host: RubyThreadsHost;
  readonly #events: ThreadEvents;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #replies: Int32Array;
  readonly #loading = Promise.withResolvers<void>();
  /** Connections that have variables here. */
  readonly connections = new Set<Connection>();
  #isLoaded = false;
  #hasEnded = false;
  #call: ThreadCall | null = null;
  #limit: ReturnType<typeof setTimeout> | null = null;
  #why = "the Ruby thread ended";

  constructor(
    host: RubyThreadsHost,
    library: readonly RubyScript[],
    scripts: readonly RubyScript[],
    events: ThreadEvents,
  ) {
    this.#host = host;
    this.#events = events;
    const replies = new SharedArrayBuffer(4);
    this.#replies = new Int32Array(replies);
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }: { readonly data: Question }) => void this.#answer(data);
    const worker = new Worker(host.url.href, { name: "ruby", smol: true });
    this.#worker = worker;
    worker.onmessage = ({ data }: { readonly data: FromRubyThread }) => this.#receive(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#why = `the Ruby thread ended: ${event.message}`;
    };
    worker.addEventListener("close", () => this.#ended());
    this.#post({ kind: "load", library, scripts, port: port2, replies }, [port2]);
  }

  get loaded(): Promise<void> {
    return this.#loading.promise;
  }

  get isFree(): boolean {
    return this.#isLoaded && this.#call === null && !this.#hasEnded;
  }

  begin(call: ThreadCall, message: number | null): void {
    this.#call = call;
    this.#limit = setTimeout(() => this.#worker.terminate(), this.#host.blockTimeoutMs);
    this.#post({ kind: "call", path: call.path, connection: call.connection.id, message });
  }

  forget(connection: number): void {
    for (const one of this.connections) if (one.id === connection) this.connections.delete(one);
    if (this.#isLoaded) this.#post({ kind: "forget", connection });
  }

  #post(message: ToRubyThread, transfer: MessagePort[] = []): void {
    this.#worker.postMessage(message, transfer);
  }

  #receive(message: FromRubyThread): void {
    switch (message.kind) {
      case "loaded":
        this.#isLoaded = true;
        this.#loading.resolve();
        this.#events.free(this);
        return;
      case "print":
        process.stdout.write(message.text);
        return;
      case "done":
      case "raised": {
        const call = this.#call!;
        clearTimeout(this.#limit!);
        this.#call = null;
        const stays = this.#events.staysIn(message.keeps);
        call.connection.thread = stays ? this : null;
        if (stays) this.connections.add(call.connection);
        else this.connections.delete(call.connection);
        if (message.kind === "done") this.#events.returned(call, message.verdict);
        else this.#events.raised(call, errorOf(message.error));
        this.#events.free(this);
        return;
      }
      default:
        message satisfies never;
    }
  }

  async #answer(question: Question): Promise<void> {
    const call = this.#call;
    let reply: Reply;
    try {
      // Its time is over: the script ends here.
      call!.ending.signal.throwIfAborted();
      reply = { value: await this.#events.answer(call!, question) };
    } catch (thrown) {
      const error = toError(thrown);
      const { message, name, stack } = error;
      const isRuby = !call!.isOver && !(error instanceof UsageError);
      reply = { error: { name, message, stack: stack ?? "" }, isRuby };
    }
    if (this.#hasEnded) return;
    this.#port.postMessage(reply);
    Atomics.add(this.#replies, 0, 1);
    Atomics.notify(this.#replies, 0);
  }

  #ended(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (this.#limit !== null) clearTimeout(this.#limit);
    this.#port.close();
    this.#loading.reject(new Error(this.#why));
    const call = this.#call;
    this.#call = null;
    if (call !== null) this.#events.raised(call, placed(new NotReturned(this.#why), call.path));
    this.#events.ended(this);
  }
}

const NEVER = new AbortController().signal;
const now = (): number => performance.now();

/** One lock for all mutexes of a kind: a script makes a new one each time it runs, and means the same. */
function lockKey(isGlobal: boolean): string {
  return isGlobal ? "ruby mutex global" : `ruby mutex ${hostname()} ${process.pid}`;
}

function usesOf(one: RubyScript, other: RubyScript): boolean {
  const own = new Set(one.defined);
  const used = new Set(one.used);
  return other.defined.some((name) => used.has(name) && !own.has(name));
}

function errorOf({ message, name, stack }: RaisedError): Error {
  const error = new Error(message);
  error.name = name;
  error.stack = stack;
  return error;
}

/** The error has the script as its place. */
function placed(error: Error, path: string): Error {
  error.stack = `${error.name}: ${error.message}\n    at ${path}:0:0`;
  return error;
}
