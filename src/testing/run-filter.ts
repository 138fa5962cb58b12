/**
 * `runFilter` and `openSession`: messages through a filter, in memory: no socket, no worker, no configuration file. The
 * chain, the session and the conversation are those of the server.
 */
import { stringify } from "smol-toml";
import { parseConfig } from "../config/load.ts";
import { compileConditions, problemOfOrder, type When } from "../handler/conditions.ts";
import { UsageError } from "../usage-error.ts";
import type { Phase } from "../protocol/phases.ts";
import {
  type FailureReport,
  type NoteReport,
  placeOfWarning,
  type Report,
  type VerdictReport,
  type WarningReport,
} from "../handler/report.ts";
import { checkBodyLimit } from "../handler/collect-body.ts";
import { checkFilter } from "../handler/filter.ts";
import { fitted } from "../handler/leave-out.ts";
import { applySchema } from "../handler/options.ts";
import { Chain } from "../handler/chain.ts";
import { RunningOutcomes } from "../handler/outcomes.ts";
import { LoadError } from "../handler/load-failure.ts";
import { startFilters, stopFilters } from "../handler/start.ts";
import type { AnyFilter, Filter, FilterHome, OverBody } from "../handler/types.ts";
import type { JsonValue } from "../json.ts";
import { inFolder } from "../options/folder.ts";
import type { Clock } from "../handler/phase-deadline.ts";
import type { ClientInfo } from "./address.ts";
import { MilterClient } from "./client.ts";
import type { Habit, Offer } from "./habits.ts";
import { connectInMemory, type InMemory, TIMERS } from "./in-memory.ts";
import type { Outcome } from "./outcome.ts";
import type { Mail } from "./send.ts";
import type { Services } from "../handler/services.ts";
import { type TestDns, testServices, type TestStore } from "./services.ts";
import type { TestClock } from "./test-clock.ts";

/** How a filter is run. */
export interface SessionOptions {
  /** The table `[filter.options]`, which the filter's schema checks. Default empty. */
  readonly options?: Readonly<Record<string, unknown>> | undefined;
  /** The folder of the configuration, as `start` gets it. Default: the current folder. */
  readonly folder?: string | undefined;
  /**
   * The table `[filter.when]`, such as `{ senders: ["example.com"] }`: the filters run where it holds. `listeners` and `share`
   * always hold. Default: everywhere.
   */
  readonly when?: Readonly<Record<string, unknown>> | undefined;
  /** `observe`: verdicts and changes are not applied, as with the filter's key `mode`. Default `enforce`. */
  readonly mode?: "enforce" | "observe" | undefined;
  /** The clock of the time limits. Default: that of the process. */
  readonly clock?: TestClock | undefined;
  /**
   * What the DNS answers, by name and type: `{ "example.com TXT": ["v=spf1 -all"], "slow.example A": "failed" }`. Other names do
   * not exist. Default empty.
   */
  readonly dns?: TestDns | undefined;
  /** The store, which several sessions may share. Default: an empty store for each session. */
  readonly store?: TestStore | undefined;
  /** `session.trial`. Default false. */
  readonly trial?: boolean | undefined;
  /** The SMTP client of messages that name none. Default: 127.0.0.1, `localhost`, port not known. */
  readonly client?: ClientInfo | undefined;
  /** The HELO name of messages that give none. Default `localhost`. */
  readonly helo?: string | undefined;
  /** The mail server whose habits are used. Default `postfix`. */
  readonly as?: Habit | undefined;
  /** The mail server's offer; by default everything. */
  readonly offer?: Partial<Offer> | undefined;
}

export interface RunFilterOptions extends Mail, SessionOptions {}

/** What filters did besides answering. */
export interface FilterReports {
  /**
   * Handlers that threw, rejected, took too long or broke a limit; each got the fallback of the configuration's defaults.
   */
  readonly failures: readonly FailureReport[];
  /** Verdicts that a handler made and did not return, once for each place: most likely a `return` is missing. */
  readonly warnings: readonly WarningReport[];
  /** What handlers have logged with `session.log`. */
  readonly notes: readonly NoteReport[];
  /** Verdicts of filters with `mode: "observe"`, which were not applied; `changes` is the number of changes. */
  readonly observed: readonly VerdictReport[];
}

/** The result of {@link runFilter}: the outcome, and what the filters did besides. */
export interface FilterOutcome extends Outcome, FilterReports {
  /** What the filters left with `message.results`. */
  readonly results: Readonly<Record<string, JsonValue>>;
}

/** Milliseconds that calls of `outcome` are waited for: at a message's end, and beyond their own time at the session's. */
const FINISH_MS = 1000;

/**
 * Runs a message through a filter, with its `start` before and its `stop` after. A handler that fails gets the fallback, as
 * in the server (`tempfail`); the reason is in `failures`, and is printed.
 *
 * @param filter the result of `defineFilter`, or several as a chain
 * @throws UsageError PMILTER_ERR_MODULE for a value that is no filter, PMILTER_ERR_OPTIONS for options that its schema
 *   refuses
 * @example
 * const { message } = await runFilter(stamp, { eml: "Subject: hi\n\nhello\n" });
 */
export async function runFilter<S, O, Own, M, Over extends OverBody>(
  filter: Filter<S, O, Own, M, Over> | readonly AnyFilter[],
  mail: RunFilterOptions,
): Promise<FilterOutcome> {
  const session = await openSession(filter, mail);
  let outcome: FilterOutcome;
  try {
    outcome = await session.send(mail);
  } finally {
    await session.close();
  }
  return { ...outcome, ...session.reports };
}

/**
 * Starts a filter and opens a session, for several messages one after the other.
 *
 * @param filter the result of `defineFilter`, or several as a chain
 * @throws as {@link runFilter}
 * @example
 * await using session = await openSession(limit);
 * await session.send({ eml });
 * const { verdict } = await session.send({ eml });
 */
export async function openSession<S, O, Own, M, Over extends OverBody>(
  filter: Filter<S, O, Own, M, Over> | readonly AnyFilter[],
  options: SessionOptions = {},
): Promise<TestSession> {
  const folder = options.folder ?? process.cwd();
  const chain = await chainOf(Array.isArray(filter) ? filter : [filter], options, folder);
  const services = testServices(options.clock ?? TIMERS, options);
  await start(chain, { folder, isCheck: false }, services);
  return new TestSession(chain, options, services);
}

/** A session with filters in memory, seen from the mail server; made by {@link openSession}. */
export class TestSession implements AsyncDisposable {
  /** The mail server's side, for events one by one. */
  readonly client: MilterClient;
  readonly #chain: Chain;
  readonly #options: SessionOptions;
  readonly #connection: InMemory;
  readonly #outcomes = new RunningOutcomes();
  readonly #all = new Reports();
  #ofMessage = new Reports();
  #isClosed = false;

  /** @param chain with started filters */
  constructor(chain: Chain, options: SessionOptions, services: Services) {
    const { as = "postfix", offer, trial = false } = options;
    const clock: Clock = options.clock ?? TIMERS;
    this.#chain = chain;
    this.#options = options;
    const report = (report: Report) => {
      this.#ofMessage.add(report);
      if (this.#all.add(report)) tell(report);
    };
    this.#connection = connectInMemory({ chain, report, clock, isTrial: trial, outcomes: this.#outcomes, services });
    this.client = MilterClient.over(this.#connection, { as, offer });
  }

  /** What the filters have done so far, of all messages and of the connection. */
  get reports(): FilterReports {
    return this.#all.taken();
  }

  /**
   * Sends a message. Its SMTP client and HELO are those of the options; if it names others than the message before, another
   * session begins, on the same connection.
   */
  async send(mail: Mail): Promise<FilterOutcome> {
    const { client = this.#options.client, helo = this.#options.helo } = mail;
    this.#ofMessage = new Reports();
    const outcome = await this.client.send({ ...mail, client, helo });
    await this.#outcomes.settled(FINISH_MS);
    return { ...outcome, ...this.#ofMessage.taken(), results: this.#connection.takeResults() };
  }

  /** Ends the session, and stops the filters. Calling it again does nothing. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      await this.client.quit();
      await this.#outcomes.finish(this.#chain.policy.handlerTimeoutMs + FINISH_MS);
    } finally {
      await stop(this.#chain);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Reports by their kind. */
class Reports {
  readonly #failures: FailureReport[] = [];
  readonly #notes: NoteReport[] = [];
  readonly #observed: VerdictReport[] = [];
  readonly #warnings = new Map<string, WarningReport>();

  /** @returns whether it is new */
  add(report: Report): boolean {
    switch (report.kind) {
      case "failure":
        this.#failures.push(report);
        return true;
      case "note":
        this.#notes.push(report);
        return true;
      case "warning": {
        const isNew = !this.#warnings.has(placeOfWarning(report));
        if (isNew) this.#warnings.set(placeOfWarning(report), report);
        return isNew;
      }
      case "verdict":
        if (report.isObserved) this.#observed.push(report);
        return true;
      default:
        return true;
    }
  }

  taken(): FilterReports {
    const [failures, notes, observed] = [[...this.#failures], [...this.#notes], [...this.#observed]];
    return { failures, warnings: [...this.#warnings.values()], notes, observed };
  }
}

/** Prints what the author of a filter wants to see while a test fails. */
function tell(report: Report): void {
  const place = report.site === null ? "" : ` (${report.site.file}:${report.site.line})`;
  const where = `runFilter: ${report.phase} of ${report.filter}: `;
  if (report.kind === "failure") console.error(`${where}${report.message}${place}`);
  if (report.kind === "note")
    console.error(`${where}${report.level}: ${report.text}${fieldsInWords(report.fields)}${place}`);
  if (report.kind === "warning")
    console.error(`${where}${report.verdict}() was not returned and has no effect${place}`);
}

function fieldsInWords(fields: NoteReport["fields"]): string {
  return Object.keys(fields).length === 0 ? "" : ` ${JSON.stringify(fields)}`;
}

/** @throws what a `start()` threw: the filter's author looks for that, not for a file of the configuration. */
async function start(chain: Chain, home: Pick<FilterHome, "folder" | "isCheck">, services: Services): Promise<void> {
  try {
    await startFilters(chain.filters, home, services);
  } catch (error) {
    throw error instanceof LoadError ? error.cause : error;
  }
}

/** @throws what the first `stop()` threw that failed, once all are stopped */
async function stop(chain: Chain): Promise<void> {
  const failures: unknown[] = [];
  await stopFilters(chain.filters, (_, error) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

/** A chain of filters with the defaults of the configuration. */
async function chainOf(
  filters: readonly unknown[],
  { mode, options = {}, when: given = {} }: SessionOptions,
  folder: string,
): Promise<Chain> {
  const when = readWhen(given);
  const { server, limits } = parseConfig("", "/runFilter/pmilter.toml");
  const { onError, onTimeout, handlerTimeoutMs, eomTimeoutMs, deferContent } = server;
  const places = filters.map(async (exported, index) => {
    const whole = checkFilter(exported, `filter ${index + 1}`);
    checkBodyLimit(whole.collectBody, limits.body);
    const { name, schema } = whole;
    const own = schema === null ? options : await inFolder(folder, () => applySchema(schema, name, options));
    const loaded = fitted(whole, own, when);
    const problem = problemOfOrder(Object.keys(loaded.handlers) as Phase[], when);
    if (problem !== null) throw new UsageError("PMILTER_ERR_MODULE", problem);
    return {
      index,
      loaded,
      onError,
      onTimeout,
      timeoutMs: null,
      isObserved: mode === "observe",
      options: own,
      own: undefined,
      files: {},
      conditions: compileConditions(when),
    };
  });
  return new Chain(await Promise.all(places), { onError, handlerTimeoutMs, eomTimeoutMs, deferContent, limits });
}

/** The table `[filter.when]` from values, as the configuration reads it from its text. @throws ConfigError */
function readWhen(given: Readonly<Record<string, unknown>>): When {
  const when = { ...given };
  delete when["listeners"];
  delete when["share"];
  const text = stringify({ filter: [{ path: "filter.ts", when }] });
  return parseConfig(text, "/runFilter/pmilter.toml").filters[0]!.when!;
}
