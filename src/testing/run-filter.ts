/**
 * `runFilter`: a message through a filter, in memory: no socket, no worker, no configuration file. The chain, the
 * session and the conversation are those of the server.
 */
import { parseConfig } from "../config/load.ts";
import {
  type FailureReport,
  type NoteReport,
  placeOfWarning,
  type Report,
  type WarningReport,
} from "../handler/report.ts";
import { checkBodyLimit } from "../handler/collect-body.ts";
import { checkFilter } from "../handler/filter.ts";
import { applySchema } from "../handler/options.ts";
import { Chain } from "../handler/chain.ts";
import { LoadError } from "../handler/load-failure.ts";
import { startFilters, stopFilters } from "../handler/start.ts";
import type { AnyFilter, Filter, FilterHome, OverBody } from "../handler/types.ts";
import { inFolder } from "../options/folder.ts";
import { MilterClient } from "./client.ts";
import type { Habit, Offer } from "./habits.ts";
import { connectInMemory, TIMERS } from "./in-memory.ts";
import type { Outcome } from "./outcome.ts";
import type { Mail } from "./send.ts";

export interface RunFilterOptions extends Mail {
  /** `session.options`, the table `[filter.options]`. Default empty. */
  readonly options?: Readonly<Record<string, unknown>> | undefined;
  /** The folder of the configuration, as `start` gets it. Default: the current folder. */
  readonly folder?: string | undefined;
  /** The mail server whose habits are used. Default `postfix`. */
  readonly as?: Habit | undefined;
  /** The mail server's offer; by default everything. */
  readonly offer?: Partial<Offer> | undefined;
}

/** The result of {@link runFilter}: the outcome, and the failures of handlers. */
export interface FilterOutcome extends Outcome {
  /**
   * Handlers that threw, rejected, took too long or broke a limit; each got the fallback of the configuration's defaults.
   */
  readonly failures: readonly FailureReport[];
  /** Verdicts that a handler made and did not return, once for each place: most likely a `return` is missing. */
  readonly warnings: readonly WarningReport[];
  /** What handlers have logged with `session.log`. */
  readonly notes: readonly NoteReport[];
}

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
  const failures: FailureReport[] = [];
  const notes: NoteReport[] = [];
  const warnings = new Map<string, WarningReport>();
  const folder = mail.folder ?? process.cwd();
  const chain = await chainOf(Array.isArray(filter) ? filter : [filter], mail.options ?? {}, folder);
  await start(chain, { folder, isCheck: false });
  try {
    const report = (report: Report) => {
      if (report.kind === "verdict" || report.kind === "skipped body") return;
      const place = report.site === null ? "" : ` (${report.site.file}:${report.site.line})`;
      const where = `runFilter: ${report.phase} of ${report.filter}: `;
      if (report.kind === "failure") {
        failures.push(report);
        console.error(`${where}${report.message}${place}`);
      } else if (report.kind === "note") {
        notes.push(report);
        console.error(`${where}${report.level}: ${report.text}${fieldsInWords(report.fields)}${place}`);
      } else if (!warnings.has(placeOfWarning(report))) {
        warnings.set(placeOfWarning(report), report);
        console.error(`${where}${report.verdict}() was not returned and has no effect${place}`);
      }
    };
    const transport = connectInMemory({ chain, report, clock: TIMERS });
    await using client = MilterClient.over(transport, { as: mail.as ?? "postfix", offer: mail.offer });
    const outcome = await client.send(mail);
    await client.quit();
    return { ...outcome, failures, notes, warnings: [...warnings.values()] };
  } finally {
    await stop(chain);
  }
}

function fieldsInWords(fields: NoteReport["fields"]): string {
  return Object.keys(fields).length === 0 ? "" : ` ${JSON.stringify(fields)}`;
}

/** @throws what a `start()` threw: the filter's author looks for that, not for a file of the configuration. */
async function start(chain: Chain, home: FilterHome): Promise<void> {
  try {
    await startFilters(chain.filters, home);
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
async function chainOf(filters: readonly unknown[], options: unknown, folder: string): Promise<Chain> {
  const { server, limits } = parseConfig("", "/runFilter/pmilter.toml");
  const { onError, onTimeout, handlerTimeoutMs, eomTimeoutMs, deferContent } = server;
  const places = filters.map(async (exported, index) => {
    const loaded = checkFilter(exported, `filter ${index + 1}`);
    checkBodyLimit(loaded.collectBody, limits.body);
    const { name, schema } = loaded;
    return {
      index,
      loaded,
      onError,
      onTimeout,
      timeoutMs: null,
      isObserved: false,
      options: schema === null ? options : await inFolder(folder, () => applySchema(schema, name, options)),
      own: undefined,
      files: {},
    };
  });
  return new Chain(await Promise.all(places), { onError, handlerTimeoutMs, eomTimeoutMs, deferContent, limits });
}
