/** DNS and store of filters under test: answers from a table, and a store in memory. */
import type { Answer, AnswerStatus, RecordType } from "../dns/answer.ts";
import { UsageError } from "../usage-error.ts";
import { RECORD_TYPES } from "../dns/answer.ts";
import { asDnsName, reverseName } from "../dns/names.ts";
import type { DnsSource } from "../dns/client.ts";
import type { Clock } from "../handler/phase-deadline.ts";
import type { Services } from "../handler/services.ts";
import { MemoryStore, sourceOf } from "../store/memory.ts";

/**
 * An answer of the table `dns`: records, a status, or both with a delay. TXT records are text, MX records
 * `{ exchange, priority }`, the others as `session.dns.resolve` gives them.
 * @example const slow: TestDnsAnswer = { records: ["192.0.2.1"], delay: 5000 };
 */
export type TestDnsAnswer =
  | readonly unknown[]
  | Exclude<AnswerStatus, "found">
  | {
      readonly records?: readonly unknown[];
      readonly status?: Exclude<AnswerStatus, "found">;
      /** Why it failed. */
      readonly reason?: string;
      /** Milliseconds until it comes, on the clock of the session. */
      readonly delay?: number;
    };

/**
 * Answers by name and type; the name of a PTR record may be an address. A name that is in no key is `missing`; a type that a
 * name has not is `empty`.
 * @example const dns: TestDns = { "example.com TXT": ["v=spf1 -all"], "2.0.0.127.zen.example A": ["127.0.0.2"], "slow.example A": "failed" };
 */
export type TestDns = Readonly<Record<string, TestDnsAnswer>>;

/** A store in memory that several sessions share; made for each session unless it is given. @example const store = new TestStore(); */
export class TestStore {
  /** For the sessions. */
  readonly memory = new MemoryStore();
  /** The time at which the clock of the sessions began, milliseconds since 1970; null before the first session. */
  #epoch: number | null = null;

  /** For the sessions: the time by their clock, which goes on from one to the next. */
  time(clock: Clock): number {
    this.#epoch ??= Date.now() - clock.now();
    return this.#epoch + clock.now();
  }
}

interface Entry {
  readonly answer: Answer;
  readonly delay: number;
}

/** What sessions of the kit ask. @throws UsageError PMILTER_ERR_ARGUMENT for a table that is none */
export function testServices(
  clock: Clock,
  {
    dns = {},
    store = new TestStore(),
  }: { readonly dns?: TestDns | undefined; readonly store?: TestStore | undefined } = {},
): Services {
  return { dns: dnsFrom(dns, clock), store: sourceOf(store.memory, () => store.time(clock)) };
}

function dnsFrom(table: TestDns, clock: Clock): DnsSource {
  const entries = new Map<string, Entry>();
  const names = new Set<string>();
  for (const [key, value] of Object.entries(table)) {
    const [text = "", type = "", ...rest] = key.trim().split(/\s+/);
    const name = (type === "PTR" ? reverseName(text) : null) ?? asDnsName(text);
    if (name === null || rest.length > 0 || !RECORD_TYPES.includes(type as RecordType)) {
      throw new UsageError(
        "PMILTER_ERR_ARGUMENT",
        `dns: a key is a name and a type of records such as "example.com TXT", got ${JSON.stringify(key)}`,
      );
    }
    names.add(name);
    entries.set(`${name} ${type}`, entryOf(value));
  }
  return {
    async resolve(name, type, signal) {
      signal.throwIfAborted();
      const entry = entries.get(`${name} ${type}`);
      if (entry === undefined) return answerOf(names.has(name) ? "empty" : "missing");
      if (entry.delay > 0) await passed(entry.delay, clock, signal);
      return entry.answer;
    },
  };
}

/** Seconds that answers of the table may be kept. */
const TTL = 60;

function entryOf(value: TestDnsAnswer): Entry {
  if (typeof value === "string") return { answer: answerOf(value), delay: 0 };
  if (isList(value)) return { answer: found(value), delay: 0 };
  const { delay = 0, reason, records, status } = value;
  const answer = status === undefined ? found(records ?? []) : answerOf(status, reason);
  return { answer, delay };
}

function isList(value: object): value is readonly unknown[] {
  return Array.isArray(value);
}

function found(records: readonly unknown[]): Answer {
  return records.length === 0
    ? answerOf("empty")
    : { status: "found", records: records as Answer["records"], ttl: TTL };
}

function answerOf(status: Exclude<AnswerStatus, "found">, reason = "it is so in the test"): Answer {
  return { status, records: [], ttl: TTL, ...(status === "failed" && { reason }) };
}

async function passed(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const { promise, reject, resolve } = Promise.withResolvers<void>();
  const cancel = clock.after(ms, resolve);
  const abort = (): void => reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    await promise;
  } finally {
    cancel();
    signal.removeEventListener("abort", abort);
  }
}
