/**
 * Answers questions from a cache, else from the name servers: one question under way for all who ask the same, a bound on
 * those under way, several servers, and aliases that the servers do not follow.
 */
import type { Answer } from "../../dns/answer.ts";
import { MAX_ALIASES, readReply } from "./read-reply.ts";
import { type NameServer, nameOfServer } from "../../dns/servers.ts";
import { exchange, type Question, type Reply } from "./exchange.ts";

export interface ResolverSettings {
  /** Those that are asked, in this order. */
  servers(): readonly NameServer[];
  /** For each packet. */
  readonly timeoutMs: number;
  /** How often each server is asked. */
  readonly attempts: number;
  /** Answers that are kept. */
  readonly cacheSize: number;
  /** Milliseconds on a clock that never goes back. */
  now?(): number;
}

/** Questions under way at a time: with more, packets are lost in the socket buffers. */
const MAX_UNDER_WAY = 200;
/** Questions that wait for their turn; more fail at once. */
const MAX_WAITING = 10_000;
/** Seconds that a failure is kept: a server that does not answer is not asked for each message (RFC 9520 3.2). */
const FAILURE_TTL = 1;

interface Kept {
  readonly answer: Answer;
  readonly until: number;
}

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
}

export class Resolver {
  readonly #settings: ResolverSettings;
  readonly #now: () => number;
  /** The least recently used first. */
  readonly #cache = new Map<string, Kept>();
  readonly #underWay = new Map<string, UnderWay>();
  #running = 0;
  readonly #waiting: (() => void)[] = [];
  readonly counts: ResolverCounts = { found: 0, empty: 0, missing: 0, failed: 0, cached: 0, refused: 0 };

  constructor(settings: ResolverSettings) {
    this.#settings = settings;
    this.#now = settings.now ?? (() => performance.now());
  }

  /**
   * Answers a question; it never rejects but by the signal. The question goes on while somebody else waits for it.
   * @param question its name as `asDnsName` gives it
   */
  async resolve(question: Question, signal: AbortSignal): Promise<Answer> {
    signal.throwIfAborted();
    const key = `${question.type} ${question.name.toLowerCase()}`;
    const kept = this.#keptAt(key);
    if (kept !== null) {
      this.counts.cached += 1;
      return this.#counted(kept);
    }
    let underWay = this.#underWay.get(key);
    if (underWay === undefined) {
      if (this.#waiting.length >= MAX_WAITING) {
        this.counts.refused += 1;
        return this.#counted(failure(`more than ${MAX_WAITING} questions wait`));
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
  }

  #keptAt(key: string): Answer | null {
    const kept = this.#cache.get(key);
    if (kept === undefined) return null;
    this.#cache.delete(key);
    const left = (kept.until - this.#now()) / 1000;
    if (left <= 0) return null;
    this.#cache.set(key, kept);
    return { ...kept.answer, ttl: Math.floor(left) };
  }

  #keep(key: string, answer: Answer): void {
    const { cacheSize } = this.#settings;
    if (answer.ttl <= 0 || cacheSize === 0) return;
    if (this.#cache.size >= cacheSize) this.#cache.delete(this.#cache.keys().next().value!);
    this.#cache.set(key, { answer, until: this.#now() + answer.ttl * 1000 });
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
    const answer = this.#inTurn(abort.signal, () => this.#ask(question, abort.signal)).then((got) => {
      this.#keep(key, got);
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
    if (this.#running >= MAX_UNDER_WAY) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      await promise;
    } else this.#running += 1;
    try {
      signal.throwIfAborted();
      return await run();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }

  async #ask(question: Question, signal: AbortSignal): Promise<Answer> {
    let { name } = question;
    let ttl = Infinity;
    for (let aliases = 0; aliases <= MAX_ALIASES; aliases++) {
      const said = await this.#askServers({ name, type: question.type }, signal);
      if ("answer" in said) return { ...said.answer, ttl: Math.min(ttl, said.answer.ttl) };
      ttl = Math.min(ttl, said.ttl);
      name = said.alias;
    }
    return failure(`more than ${MAX_ALIASES} aliases`);
  }

  async #askServers(question: Question, signal: AbortSignal): Promise<NonNullable<ReturnType<typeof readReply>>> {
    const { attempts, timeoutMs } = this.#settings;
    const servers = this.#settings.servers();
    let why = "there is no name server to ask";
    for (let attempt = 0; attempt < attempts; attempt++) {
      for (const server of servers) {
        try {
          const reply = await exchange(server, question, { signal, timeoutMs });
          const said = readReply(reply, question);
          if (said !== null) return said;
          why = `${nameOfServer(server)}: ${whyUnusable(reply)}`;
        } catch (error) {
          signal.throwIfAborted();
          why = (error as Error).message;
        }
      }
    }
    return { answer: failure(why) };
  }
}

function whyUnusable({ rcode }: Reply): string {
  return rcode === "NOERROR" || rcode === "NXDOMAIN" ? `more than ${MAX_ALIASES} aliases` : rcode;
}

function failure(reason: string): Answer {
  return { status: "failed", records: [], ttl: FAILURE_TTL, reason };
}
