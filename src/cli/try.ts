/** `pmilter try`: messages through a configuration, in memory, without the running server. */
import { dirname } from "node:path";
import { loadConfig } from "../config/load.ts";
import { AddressError, formatAddress, parseAddress } from "../config/address.ts";
import { type Config, resolveAddress } from "../config/config.ts";
import { PlainError } from "../errors.ts";
import { sumOf } from "../handler/filter-times.ts";
import { formatSite, type LogLine, logLine } from "../handler/log-lines.ts";
import {
  type NoteReport,
  placeOfWarning,
  type Report,
  type VerdictReport,
  type WarningReport,
} from "../handler/report.ts";
import type { Site } from "../handler/site.ts";
import { ProtocolError } from "../protocol/errors.ts";
import { failureIn, type HandlerFailure } from "../server/control/recent-failures.ts";
import { Trial, type TrialEvents } from "../server/trial.ts";
import { LOAD_TIMEOUT_MS } from "../server/workers/tasks.ts";
import { connectionFacts } from "../testing/address.ts";
import { ClientUsageError, ConversationError, MilterClient } from "../testing/index.ts";
import type { MailArguments, TryArguments } from "./args.ts";
import { habitOf, macrosOf, mailOf, MessageError, readMessage } from "./mail.ts";
import { findMessages } from "./message-files.ts";
import { printable } from "./send-report.ts";
import {
  formatBrief,
  formatTrial,
  type GivenVerdict,
  type Note,
  Tally,
  type TryOutcome,
  type Warning,
} from "./try-report.ts";

/** The options of `try` are wrong; said to the user as it is. */
export class TryError extends PlainError {
  override readonly name = "TryError";
}

/** What each message of a run needs. */
interface Run {
  readonly config: Config;
  readonly mail: TryArguments;
  readonly notes: Notes;
  readonly trial: Trial;
}

/**
 * @returns the exit code: 0 if each message was tried, with any verdict; 1 if not, and with `strict` also after a failure or
 *   a warning
 * @throws ConfigError, LoadError, MessageError, TryError
 */
export async function tryMessages(configFile: string, mail: TryArguments, workerUrl: URL): Promise<number> {
  const config = loadConfig(configFile);
  checkClient(mail);
  const { areMany, files } = findMessages(mail.files);
  const listener = listenerOf(config, mail);
  const notes = new Notes(dirname(config.file));
  const { tally } = notes;
  const trial = await Trial.start(config, listener, workerUrl, notes);
  try {
    const run = { config, mail, notes, trial };
    for (const { file, problem } of files) {
      const outcome = problem === null ? await tryFile(run, file) : problem.message;
      if (typeof outcome === "string") {
        tally.addNotTried();
        say("error", outcome);
      } else {
        tally.add(outcome);
        await write(format(outcome, mail, areMany));
      }
    }
  } finally {
    await trial.stop();
  }
  if (areMany && mail.json) process.stderr.write(tally.format());
  else if (areMany) await write(tally.format());
  return tally.areAllTried && !(mail.strict && tally.hasProblems) ? 0 : 1;
}

/** A client that cannot be is wrong for each message. */
function checkClient(mail: MailArguments): void {
  try {
    connectionFacts({ address: mail.client ?? "127.0.0.1" }, habitOf(mail));
  } catch (error) {
    throw error instanceof ClientUsageError ? new TryError(`--client: ${error.message}`) : error;
  }
}

/** The listen address of the sessions, in normal form. */
function listenerOf({ file, server }: Config, { listener }: TryArguments): string {
  const known = server.listen.map(formatAddress);
  if (listener === undefined) return known[0]!;
  let named: string;
  try {
    named = formatAddress(resolveAddress(parseAddress(listener), dirname(file)));
  } catch (error) {
    throw error instanceof AddressError ? new TryError(`--listener: ${error.message}`) : error;
  }
  if (known.includes(named)) return named;
  throw new TryError(`--listener takes an address of server.listen (${known.join(", ")}), got "${listener}"`);
}

/** @returns why there is no outcome, if there is none */
async function tryFile(run: Run, file: string): Promise<TryOutcome | string> {
  try {
    const eml = readMessage(file);
    return await Promise.race([tryMessage(run, file, eml), run.trial.failed]);
  } catch (error) {
    if (error instanceof MessageError) return error.message;
    const isOfMessage =
      error instanceof ConversationError || error instanceof ProtocolError || error instanceof ClientUsageError;
    if (isOfMessage) return `${file}: ${error.message}`;
    throw error;
  }
}

async function tryMessage({ config, mail, notes, trial }: Run, file: string, eml: Uint8Array): Promise<TryOutcome> {
  const { blockTimeoutMs, eomTimeoutMs, handlerTimeoutMs } = config.server;
  const macros = macrosOf(mail, "TRY");
  notes.begin(macros.i);
  const session = trial.open();
  await using client = MilterClient.over(session, {
    as: habitOf(mail),
    // The server's limits end each wait before this one does.
    timeoutMs: Math.max(handlerTimeoutMs, eomTimeoutMs) + blockTimeoutMs + 2 * LOAD_TIMEOUT_MS,
    macros,
  });
  const outcome = await client.send(mailOf(mail, eml));
  // The handlers of `abort` and `close` belong to the message, too.
  await client.quit();
  return { file, ...outcome, ...notes.taken(), filters: sumOf(session.times, trial.filters) };
}

function format(outcome: TryOutcome, { brief, json }: TryArguments, isOneOfMany: boolean): string {
  if (json) return `${JSON.stringify(outcome)}\n`;
  if (brief) return formatBrief(outcome);
  return isOneOfMany ? `file: ${printable(outcome.file)}\n\n${formatTrial(outcome)}\n` : formatTrial(outcome);
}

/** Rejects once the reader has gone away. */
async function write(text: string): Promise<void> {
  await Bun.write(Bun.stdout, text);
}

function say(level: string, text: string): void {
  process.stderr.write(`${level}: ${printable(text)}\n`);
}

/** What happens in a trial besides verdicts: noted for the outcome of the message at hand, or printed. */
class Notes implements TrialEvents {
  readonly tally = new Tally();
  /** Of the configuration. */
  readonly #folder: string;
  #queueId = "";
  #failures: HandlerFailure[] = [];
  #warnings = new Map<string, Warning>();
  #verdicts: GivenVerdict[] = [];
  #notes: Note[] = [];

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** A message begins. */
  begin(queueId: string): void {
    this.#queueId = queueId;
    this.#failures = [];
    this.#warnings = new Map();
    this.#verdicts = [];
    this.#notes = [];
  }

  /** What was noted of the message. What comes later is printed. */
  taken(): Pick<TryOutcome, "failures" | "warnings" | "verdicts" | "notes"> {
    this.#queueId = "";
    const [failures, warnings, verdicts, notes] = [this.#failures, this.#warnings, this.#verdicts, this.#notes];
    return { failures, warnings: [...warnings.values()], verdicts, notes };
  }

  report(report: Report): void {
    switch (report.kind) {
      case "failure":
        this.#fail(this.#line(report), report.queueId);
        return;
      case "warning":
        this.#warnings.set(placeOfWarning(report), this.#warning(report));
        return;
      case "skipped body": {
        const { filter, message, phase } = report;
        this.#notes.push({ filter, phase, level: "info", text: message, fields: {}, place: null });
        return;
      }
      case "note":
        this.#note(report);
        return;
      case "verdict":
        // A fallback is told by its failure.
        if (!report.isFallback && (report.filter !== null || report.isObserved))
          this.#verdicts.push(this.#given(report));
    }
  }

  lost(line: LogLine): void {
    this.#fail(line, this.#queueId);
  }

  say(line: LogLine): void {
    if (!this.#fail(line, this.#queueId)) say(line.level, line.text);
  }

  print(text: string): void {
    process.stderr.write(text);
  }

  /** @returns false if the line is about no failure */
  #fail({ fields, level, text }: LogLine, queueId: string): boolean {
    const failure = failureIn(text, fields);
    if (failure === null) return false;
    if (this.#isLate(queueId)) {
      this.tally.addFailure();
      say(level, `after its message: ${text}`);
    } else if (failure.cause !== "lost" || this.#failures.length === 0) this.#failures.push(failure);
    return true;
  }

  #warning({ filter, phase, site, verdict }: WarningReport): Warning {
    const message = `${verdict}() was not returned and has no effect`;
    return { filter, phase, message, place: this.#place(site) };
  }

  #given(report: VerdictReport): GivenVerdict {
    const { changes, filter, isObserved, phase, reason, recipient, reply, scope, site, verdict } = report;
    const place = this.#place(site);
    const address = recipient?.replace(/^<(.*)>$/, "$1") ?? null;
    return { filter, phase, verdict, scope, recipient: address, reply, place, reason, observed: isObserved, changes };
  }

  #note(report: NoteReport): void {
    const { fields, filter, isKept, level, phase, queueId, site, text } = report;
    if (isKept && !this.#isLate(queueId))
      this.#notes.push({ filter, phase, level, text, fields, place: this.#place(site) });
    else this.say(this.#line(report));
  }

  /** About a message whose outcome is out. */
  #isLate(queueId: string): boolean {
    return this.#queueId === "" || (queueId !== "" && queueId !== this.#queueId);
  }

  #line(report: Report): LogLine {
    return logLine(report, { folder: this.#folder, version: "" });
  }

  #place(site: Site | null): string | null {
    return site === null ? null : formatSite(site, this.#folder);
  }
}
