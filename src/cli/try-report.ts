/**
 * The output of `pmilter try`: that of `pmilter send` with what only the process itself can know, or a line for each message.
 * Pure.
 */
import type { FilterTime } from "../handler/filter-times.ts";
import type { NoteFields } from "../handler/notes.ts";
import type { SmtpReply } from "../protocol/replies.ts";
import {
  formatOutcome,
  placed,
  placeText,
  printable,
  replyText,
  section,
  type SendOutcome,
  table,
} from "./send-report.ts";

/** A handler made a verdict and did not return it. */
export interface Warning {
  readonly filter: string;
  readonly phase: string;
  readonly message: string;
  /** `handlers/stamp.ts:7`; null if not known. */
  readonly place: string | null;
}

/** A verdict of a filter, but for accept and for fallbacks. */
export interface GivenVerdict {
  readonly filter: string | null;
  readonly phase: string;
  /** `quarantine`: accepted, and held by the mail server. In observe mode also `accept`, with the changes that were not made. */
  readonly verdict: string;
  /** What it is about. */
  readonly scope: "connection" | "message" | "recipient" | "command";
  /** Without angle brackets; null where it is not about a recipient. */
  readonly recipient: string | null;
  readonly reply: SmtpReply | null;
  /** `handlers/stamp.ts:7`; null if not known. */
  readonly place: string | null;
  /** Of a quarantine; else null. */
  readonly reason: string | null;
  /** Observe mode: it was not applied. */
  readonly observed: boolean;
  /** In observe mode the number of changes that were not made. */
  readonly changes: number;
}

/** A line that a handler wrote with `session.log`, or a filter that goes on without the body. */
export interface Note {
  readonly filter: string;
  readonly phase: string;
  readonly level: string;
  readonly text: string;
  readonly fields: NoteFields;
  /** `handlers/stamp.ts:7`; null if not known. */
  readonly place: string | null;
}

/** The outcome of a message on trial. */
export interface TryOutcome extends SendOutcome {
  /** As it was named, or found in a folder; `-` for standard input. */
  readonly file: string;
  readonly warnings: readonly Warning[];
  readonly verdicts: readonly GivenVerdict[];
  /** The first of the message. */
  readonly notes: readonly Note[];
  /** All filters, in the order of the chain. */
  readonly filters: readonly FilterTime[];
}

/** The output of `pmilter send`, with sections for warnings, verdicts and the time of each filter. */
export function formatTrial(outcome: TryOutcome): string {
  const { filters, notes, verdicts, warnings } = outcome;
  const sections = [
    ["warnings", warnings.map((each) => placed(each, each.message))],
    ["verdicts", verdicts.map((each) => placed(each, givenText(each)))],
    ["notes", notes.map((each) => placed(each, noteText(each)))],
    ["filters", table(filters.map(timeCells))],
  ] as const;
  return formatOutcome(
    outcome,
    sections.filter(([, lines]) => lines.length > 0).map(([title, lines]) => section(title, lines)),
  );
}

function givenText({ changes, observed, reason, recipient, reply, scope, verdict }: GivenVerdict): string {
  const object = scope === "recipient" ? ` recipient <${recipient ?? ""}>` : scope === "message" ? "" : ` ${scope}`;
  const text = reason ?? replyText(reply);
  const notMade = observed && changes > 0 ? `, ${counted(changes, "change")}` : "";
  return `${verdict}${object}${text === "" ? "" : `, ${text}`}${notMade}${observed ? " (observe: not applied)" : ""}`;
}

function noteText({ fields, level, text }: Note): string {
  return `${level}: ${text}${Object.keys(fields).length === 0 ? "" : ` ${JSON.stringify(fields)}`}`;
}

function timeCells({ ms, name, phases }: FilterTime): string[] {
  const calls = Object.entries(phases).map(([phase, of]) => `${phase} ${of.toFixed(3)}`);
  return [printable(name), `${ms.toFixed(3)} ms`, calls.length === 0 ? "not called" : calls.join(", ")];
}

/** `1 failure`, `2 failures`. */
function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/**
 * A message on trial in a line: its file, verdict and reply, the deciding filter, the number of refused recipients, the
 * observed verdicts, and the number of failures and warnings.
 */
export function formatBrief({ failures, file, recipients, reply, verdict, verdicts, warnings }: TryOutcome): string {
  const text = replyText(reply);
  const decisive = verdicts.find(({ observed, scope }) => !observed && (scope === "message" || scope === "connection"));
  const refused = recipients.filter((recipient) => recipient.verdict !== "accept").length;
  const parts = [
    `${printable(file)}: ${verdict}${text === "" ? "" : `, ${text}`}`,
    ...(decisive === undefined ? [] : [placeText(decisive)]),
    ...(refused === 0 || verdict !== "accept" ? [] : [`${counted(refused, "recipient")} refused`]),
    ...verdicts.filter(({ observed }) => observed).map(observedText),
    ...(failures.length === 0 ? [] : [counted(failures.length, "failure")]),
    ...(warnings.length === 0 ? [] : [counted(warnings.length, "warning")]),
  ];
  return `${parts.join("; ")}\n`;
}

/** An observed verdict in the line of its message: `observed reject by stamp`. */
function observedText({ changes, filter, scope, verdict }: GivenVerdict): string {
  const what = verdict === "accept" ? counted(changes, "change") : verdict;
  return `observed ${what}${scope === "recipient" ? " of a recipient" : ""}${filter === null ? "" : ` by ${printable(filter)}`}`;
}

/** The verdicts of messages on trial. */
export class Tally {
  readonly #verdicts = new Map<string, number>();
  #failures = 0;
  #warnings = 0;
  /** Files that could not be read, or whose conversation failed. */
  #notTried = 0;

  add({ failures, verdict, warnings }: TryOutcome): void {
    this.#verdicts.set(verdict, (this.#verdicts.get(verdict) ?? 0) + 1);
    this.#failures += failures.length;
    this.#warnings += warnings.length;
  }

  addNotTried(): void {
    this.#notTried += 1;
  }

  /** A failure that came after the outcome of its message. */
  addFailure(): void {
    this.#failures += 1;
  }

  get hasProblems(): boolean {
    return this.#failures > 0 || this.#warnings > 0;
  }

  get areAllTried(): boolean {
    return this.#notTried === 0;
  }

  /** A line, such as `3 messages: 2 accept, 1 reject; 0 failures, 1 warning`. */
  format(): string {
    const counts = [...this.#verdicts].toSorted(([a], [b]) => (a < b ? -1 : 1));
    const messages = counts.reduce((sum, [, count]) => sum + count, 0);
    const verdicts = counts.map(([verdict, count]) => `${count} ${verdict}`).join(", ");
    const notTried = this.#notTried === 0 ? "" : `; ${counted(this.#notTried, "file")} not tried`;
    const problems = `${counted(this.#failures, "failure")}, ${counted(this.#warnings, "warning")}`;
    return `${counted(messages, "message")}${verdicts === "" ? "" : `: ${verdicts}`}; ${problems}${notTried}\n`;
  }
}
