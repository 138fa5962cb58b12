/** The questions that one message asks: each once, at most so many, and none that is waited for too long. */
import type { Answer, Dns, MxRecord } from "pmilter";
import { hasLongRun, type Resolver } from "./library.ts";

/** Of one message: RFC 7208 4.6.4 allows one SPF record a hundred. */
const MOST_QUESTIONS = 200;
/** Records of one answer that are looked at, and characters of a text: an RSA key of 16,384 bits has 3,000. */
const MOST_RECORDS = 50;
const MOST_TEXT = 8192;

const TYPES = ["A", "AAAA", "MX", "PTR", "TXT"] as const;
type Type = (typeof TYPES)[number];

/** An error with a code of `node:dns`. */
class DnsError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export class Questions {
  readonly #dns: Pick<Dns, "resolve">;
  readonly #answers = new Map<string, Promise<unknown[]>>();
  readonly #late = new AbortController();
  readonly #failed = new Set<string>();

  constructor(dns: Pick<Dns, "resolve">) {
    this.#dns = dns;
  }

  readonly resolve: Resolver = (name, type) => {
    const key = `${type} ${name.toLowerCase()}`;
    const known = this.#answers.get(key);
    if (known !== undefined) return known;
    const answer = this.#ask(name, type as Type, key);
    // It may be asked long before it is awaited.
    answer.catch(() => null);
    this.#answers.set(key, answer);
    return answer;
  };

  /** Ends all questions, those to come as well: their answers are failures. */
  end(): void {
    this.#late.abort();
  }

  /** Whether it was asked and could not be answered. */
  hasFailed(name: string, type: Type): boolean {
    return this.#failed.has(`${type} ${name.toLowerCase()}`);
  }

  async #ask(name: string, type: Type, key: string): Promise<unknown[]> {
    try {
      return recordsOf(type, await this.#answer(name, type));
    } catch (error) {
      if (error instanceof DnsError && (error.code === "ENOTFOUND" || error.code === "ENODATA")) throw error;
      this.#failed.add(key);
      throw error instanceof DnsError ? error : new DnsError("ETIMEOUT", "no answer in time");
    }
  }

  async #answer(name: string, type: Type): Promise<Answer> {
    if (this.#answers.size >= MOST_QUESTIONS) throw new DnsError("ECANCELLED", "too many questions");
    if (this.#late.signal.aborted) throw new DnsError("ETIMEOUT", "no answer in time");
    if (!TYPES.includes(type)) throw new DnsError("ENODATA", "no records of that type");
    const answer = await this.#dns.resolve(name, type, { signal: this.#late.signal });
    const { code = "ESERVFAIL", reason = "", status } = answer;
    if (status === "missing") throw new DnsError("ENOTFOUND", "no such name");
    if (status === "empty") throw new DnsError("ENODATA", "no records of that type");
    if (status === "failed") throw new DnsError(code, reason);
    return answer;
  }
}

/** Records in the forms of `node:dns`. */
function recordsOf(type: Type, { records }: Answer): unknown[] {
  const some = records.slice(0, MOST_RECORDS);
  if (type === "TXT") {
    return some.flatMap((text) => (isReadable(text as string) ? [[text as string]] : []));
  }
  if (type === "MX") return some.map((record) => ({ ...(record as MxRecord) }));
  return some;
}

function isReadable(text: string): boolean {
  return text.length <= MOST_TEXT && !hasLongRun(text);
}
