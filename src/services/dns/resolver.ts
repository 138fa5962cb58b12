/**
 * Answers questions from a cache, else from the name servers: one question under way for all who ask the same, a bound on
 * those under way, several servers, and aliases that the servers do not follow.
 */
import type { Answer, FailureCode } from "../../dns/answer.ts";
import { type NameServer, nameOfServer } from "../../dns/servers.ts";
import { AnswerCache } from "./answer-cache.ts";
import { exchange, ExchangeError } from "./exchange.ts";
import { MAX_ALIASES, readReply, type Said } from "./read-reply.ts";
import { ServerOrder } from "./server-order.ts";
import type { Question } from "./wire.ts";

export interface ResolverSettings {
  /** Those that are asked, in this order. */
  servers(): readonly NameServer[];
  /** Whether each question begins with another server; default: none does. */
  rotates?(): boolean;
  /** For each packet. */
  readonly timeoutMs: number;
  /** How often each server is asked. */
  readonly attempts: number;
  /** Answers that are kept. */
  readonly cacheSize: number;
  /** Milliseconds on a clock that never goes back. */
  now?(): number;
  /** What an administrator should know. */
  log?(level: "warn" | "info", text: string): void;
}

/** Questions under way at a time: with more, packets are lost in the socket buffers. */
const MAX_UNDER_WAY = 200;
/** Questions that wait for their turn; more fail at once. */
const MAX_WAITING = 10_000;
/** Seconds that a failure is kept: a server that does not answer is not asked for each message (RFC 9520 3.2). */
const FAILURE_TTL = 1;

interface UnderWay {
  readonly answer: Promise<Answer>;
  readonly abort: AbortController;
  waiters: number;
}

export interface ResolverCounts {
  found: number;
  empty: number;
  missing: number;
  failed: number;
  /** Of all, those that the cache answered. */
  cached: number;
  /** Of `failed`, those that were refused: too many waited. */
  refused: number;
  /** Packets that were no answer to the question that waited for one. */
  stray: number;
}

export class Resolver {
  readonly #settings: ResolverSettings;
  readonly #now: () => number;
  readonly #cache: AnswerCache;
  readonly #order: ServerOrder;
  readonly #underWay = new Map<string, UnderWay>();
  #running = 0;
  /** Those that wait for their turn, in the order of their coming. */
  readonly #waiting = new Set<() => void>();
  readonly counts: ResolverCounts = { found: 0, empty: 0, missing: 0, failed: 0, cached: 0, refused: 0, stray: 0 };

  constructor(settings: ResolverSettings) {
    this.#settings = settings;
    this.#now = settings.now ?? (() => performance.now());
    this.#cache = new AnswerCache(settings.cacheSize, this.#now);
    this.#order = new ServerOrder((server, isBack, why) => {
      const { log } = this.#settings;
      if (isBack) log?.("info", `dns: ${nameOfServer(server)} answers again`);
      else log?.("warn", `dns: a name server does not answer: ${why}`);
    });
  }

  /** Answers that are kept, and their bytes, roughly. */
  get kept(): { readonly entries: number; readonly bytes: number } {
    return { entries: this.#cache.entries, bytes: this.#cache.bytes };
  }

  /**
   * Answers a question; it never rejects but by the signal. The question goes on while somebody else waits for it.
   * @param question its name as `asDnsName` gives it
   */
  async resolve(question: Question, signal: AbortSignal): Promise<Answer> {
    signal.throwIfAborted();
    const key = `${question.type} ${question.name.toLowerCase()}`;
    const kept = this.#cache.get(key);
    if (kept !== null) {
      this.counts.cached += 1;
      return this.#counted(kept);
    }
    let underWay = this.#underWay.get(key);
    if (underWay === undefined) {
      if (this.#waiting.size >= MAX_WAITING) {
        this.counts.refused += 1;
        return this.#counted(failure("ECANCELLED", `more than ${MAX_WAITING} questions wait`));
      }
      underWay = this.#begin(key, question);
    }
    return this.#counted(await this.#wait(underWay, signal));
  }

  #counted(answer: Answer): Answer {
    this.counts[answer.status] += 1;
    return answer;
  }

  /** Drops what is kept, as when other servers are asked from now on. */
  forget(): void {
    this.#cache.clear();
    this.#order.forget();
  }

  async #wait(underWay: UnderWay, signal: AbortSignal): Promise<Answer> {
    underWay.waiters += 1;
    const { promise, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(signal.reason);
    signal.addEventListener("abort", leave);
    try {
      return await Promise.race([underWay.answer, promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      underWay.waiters -= 1;
      if (underWay.waiters === 0) underWay.abort.abort();
    }
  }

  #begin(key: string, question: Question): UnderWay {
    const abort = new AbortController();
    const { attempts, timeoutMs } = this.#settings;
    // For the whole question, with its turn and its aliases.
    const deadline = this.#now() + timeoutMs * attempts * Math.max(1, this.#settings.servers().length);
    const answer = this.#inTurn(abort.signal, () => this.#ask(question, deadline, abort.signal)).then((got) => {
      this.#cache.keep(key, got);
      return got;
    });
    const underWay: UnderWay = { answer, abort, waiters: 0 };
    this.#underWay.set(key, underWay);
    const end = (): void => {
      if (this.#underWay.get(key) === underWay) this.#underWay.delete(key);
    };
    // Who asks again after all have left asks anew.
    abort.signal.addEventListener("abort", end);
    answer.then(end, end);
    return underWay;
  }

  async #inTurn(signal: AbortSignal, run: () => Promise<Answer>): Promise<Answer> {
    if (this.#running >= MAX_UNDER_WAY) await this.#turn(signal);
    else this.#running += 1;
    try {
      signal.throwIfAborted();
      return await run();
    } finally {
      const [next] = this.#waiting;
      if (next === undefined) this.#running -= 1;
      else {
        this.#waiting.delete(next);
        next();
      }
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { promise, reject, resolve } = Promise.withResolvers<void>();
    const leave = (): void => {
      // Not if its turn has come.
      if (this.#waiting.delete(resolve)) reject(signal.reason);
    };
    this.#waiting.add(resolve);
    signal.addEventListener("abort", leave);
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  async #ask(question: Question, deadline: number, signal: AbortSignal): Promise<Answer> {
    let { name } = question;
    let ttl = Infinity;
    for (let aliases = 0; aliases <= MAX_ALIASES; aliases++) {
      const said = await this.#askServers({ name, type: question.type }, deadline, signal);
      if ("answer" in said) return { ...said.answer, ttl: Math.min(ttl, said.answer.ttl) };
      ttl = Math.min(ttl, said.ttl);
      name = said.alias;
    }
    return failure("EBADRESP", `more than ${MAX_ALIASES} aliases`);
  }

  async #askServers(question: Question, deadline: number, signal: AbortSignal): Promise<Said> {
    const { attempts, rotates } = this.#settings;
    const servers = this.#order.of(this.#settings.servers(), rotates?.() ?? false, this.#now());
    let failed = failure("ECONNREFUSED", "there is no name server to ask");
    for (let attempt = 0; attempt < attempts; attempt++) {
      for (const server of servers) {
        const left = deadline - this.#now();
        if (left <= 0) return { answer: attempt === 0 ? failure("ETIMEOUT", "no answer in time") : failed };
        const said = await this.#askServer(server, question, left, signal);
        if (!("status" in said)) return said;
        failed = said;
      }
    }
    return { answer: failed };
  }

  /** @returns a failed answer if another server is to be asked */
  async #askServer(
    server: NameServer,
    question: Question,
    leftMs: number,
    signal: AbortSignal,
  ): Promise<Said | Answer> {
    const { timeoutMs } = this.#settings;
    const stray = (): void => void (this.counts.stray += 1);
    try {
      const reply = await exchange(server, question, { signal, timeoutMs, leftMs, stray });
      this.#order.answered(server);
      const said = readReply(reply, question);
      if (!("unusable" in said)) return said;
      return failure(CODE_OF[reply.rcode] ?? "EBADRESP", `${nameOfServer(server)}: ${said.unusable}`);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof ExchangeError)) throw error;
      if (error.code === "EBADRESP") this.#order.answered(server);
      else this.#order.silent(server, this.#now(), error.message);
      return failure(error.code, error.message);
    }
  }
}

const CODE_OF: Readonly<Record<string, FailureCode>> = {
  FORMERR: "EFORMERR",
  SERVFAIL: "ESERVFAIL",
  NOTIMP: "ENOTIMP",
  REFUSED: "EREFUSED",
};

function failure(code: FailureCode, reason: string): Answer {
  return { status: "failed", records: [], ttl: FAILURE_TTL, reason, code };
}
