/**
 * Reports of conversations as log lines: a line for each message, with everything an administrator looks for. Text from
 * clients is escaped, so that no client can write a line.
 */
import { isAbsolute, relative } from "node:path";
import type { LogLevel } from "../admin/log-level.ts";
import type { FailureReport, NoteReport, Report, Subject, VerdictReport } from "./report.ts";
import type { Site } from "./site.ts";
import { formatReplyText } from "../protocol/reply-text.ts";

export interface LogLine {
  readonly level: LogLevel;
  readonly text: string;
  /** The same as values, for `log_format = "json"`. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Most characters of a value in a line of text. */
const MAX_VALUE = 256;
/** The same as a field of JSON. */
const MAX_FIELD = 512;

/** The code that a line is about. */
export interface CodeName {
  /** Paths of handlers are given relative to it. */
  readonly folder: string;
  /** See `versionOf` in sources.ts. */
  readonly version: string;
}

export function logLine(report: Report, code: CodeName): LogLine {
  switch (report.kind) {
    case "verdict":
      return verdictLine(report, code);
    case "failure":
      return failureLine(report, code);
    case "skipped body":
      return lineOf("info", "filter goes on without the body", { ...subject(report, code), why: report.message });
    case "warning":
      return lineOf("warn", `${report.verdict}() was not returned and has no effect`, subject(report, code));
    case "note":
      return noteLine(report, code);
  }
}

/** A line of a head and fields, in both forms. */
export function lineOf(level: LogLevel, head: string, fields: Readonly<Record<string, unknown>>): LogLine {
  return {
    level,
    text: `${head}: ${formatPairs(fields)}`,
    fields: Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, cut(value)])),
  };
}

/** Values are cut in both forms: a line is for reading, and a client's values may be long. */
function cut(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(cut);
  return typeof value === "string" && value.length > MAX_FIELD ? `${value.slice(0, MAX_FIELD)}…` : value;
}

function verdictLine(report: VerdictReport, code: CodeName): LogLine {
  const isQuiet = report.verdict === "accept" && !report.isFallback && !report.isObserved;
  const reply = report.reply === null ? null : formatReplyText(report.reply).replaceAll("%%", "%");
  const fields = {
    ...(report.isObserved ? { observed: true } : {}),
    verdict: report.verdict,
    scope: report.scope,
    // The refused recipient is the first field.
    ...(report.scope === "recipient" ? { recipient: report.recipient } : {}),
    ...subject(report, code),
    ...(report.isFallback ? { fallback: true } : {}),
    ...(report.changes > 0 ? { changes: report.changes } : {}),
    ...(report.reason === null ? {} : { reason: report.reason }),
    ...(reply === null ? {} : { reply }),
  };
  const head = verdictHead(report.verdict, report.scope);
  return lineOf(isQuiet ? "info" : "notice", report.isObserved ? `observed ${head}` : head, fields);
}

/** The first words of a verdict's line: `reject` for a message, else with its scope, as in `reject recipient`. */
export function verdictHead(verdict: string, scope: VerdictReport["scope"]): string {
  return scope === "message" ? verdict : `${verdict} ${scope}`;
}

const CAUSES: Readonly<Record<FailureReport["cause"], string>> = {
  error: "handler failed",
  timeout: "handler too slow",
  late: "handler failed after its verdict",
  limit: "limit passed",
  spool: "body not collected",
};

function failureLine(report: FailureReport, code: CodeName): LogLine {
  const fields = {
    cause: report.cause,
    ...subject(report, code),
    error: report.message,
    ...(report.fallback === "none" ? {} : { fallback: report.fallback }),
  };
  return lineOf("error", CAUSES[report.cause], fields);
}

/** Most bytes of a line that a handler logs. */
const MAX_NOTE_BYTES = 1024;

/** Its facts come first: what a handler says is cut if it is long, and they are not. */
function noteLine({ client, fields, filter, level, phase, queueId, site, text }: NoteReport, code: CodeName): LogLine {
  const at = site === null ? null : formatSite(site, code.folder);
  const facts = Object.fromEntries(
    Object.entries({ queue_id: queueId, client, filter, phase, at }).filter(
      ([, value]) => value !== null && value !== "",
    ),
  );
  const said = [`text=${quoted(text, MAX_NOTE_BYTES)}`];
  for (const [name, value] of Object.entries(fields)) said.push(`${quoted(name)}=${quoted(value)}`);
  const line = lineOf(level, "a handler says", facts);
  return {
    ...line,
    text: cutBytes(`${line.text} ${said.join(" ")}`, MAX_NOTE_BYTES),
    // What a handler names stands apart: its names are its own.
    fields: { ...line.fields, text, ...(Object.keys(fields).length > 0 && { fields }) },
  };
}

/** Cut between characters. */
function cutBytes(text: string, max: number): string {
  if (Buffer.byteLength(text) <= max) return text;
  const ellipsis = "…";
  const kept = Buffer.from(text).subarray(0, max - Buffer.byteLength(ellipsis));
  return new TextDecoder().decode(kept, { stream: true }) + ellipsis;
}

function subject(report: Report, code: CodeName): Record<string, unknown> {
  return {
    ...subjectFields(report, code.version),
    ...(report.filter === null ? {} : { filter: report.filter }),
    phase: report.phase,
    ...(report.site === null ? {} : { at: formatSite(report.site, code.folder) }),
  };
}

/** The fields of a line's subject, in the order of all lines, without empty fields. */
export function subjectFields(subject: Subject, version: string): Record<string, unknown> {
  const fields = {
    queue_id: subject.queueId,
    message_id: subject.messageId,
    client: subject.client,
    helo: subject.helo,
    user: subject.user,
    from: subject.sender,
    recipient: subject.recipient,
    to: subject.recipients.length === 0 ? null : subject.recipients,
    to_more: subject.moreRecipients === 0 ? null : subject.moreRecipients,
    size: subject.size,
    ms: subject.ms,
    version,
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== ""));
}

/** A place in a handler, its path relative to `folder` where it lies in there. */
export function formatSite({ file, line }: Site, folder: string): string {
  const inside = isAbsolute(file) ? relative(folder, file) : file;
  const shown = inside.startsWith("..") ? file : inside;
  return line > 0 ? `${shown}:${line}` : shown;
}

/** Told by the words before the colon, or behind the list that they are about. */
const UNPAIRED = new Set(["verdict", "scope", "cause", "observed", "to_more"]);

/** Fields as `key=value`, each value written so that it cannot forge another field. */
function formatPairs(fields: Readonly<Record<string, unknown>>): string {
  return Object.entries(fields)
    .filter(([key]) => !UNPAIRED.has(key))
    .map(([key, value]) => {
      if (!Array.isArray(value)) return `${key}=${quoted(value)}`;
      const more = fields[`${key}_more`];
      return `${key}=${value.map((each) => quoted(each)).join(",")}${more === undefined ? "" : ` (and ${String(more)} more)`}`;
    })
    .join(" ");
}

/** A value as it is if it is a harmless word, else in quotes with escapes. */
function quoted(value: unknown, max = MAX_VALUE): string {
  const text = typeof value === "string" ? value : String(value);
  if (/^[\w<>@.:/+=[\]-]+$/.test(text) && text.length <= max) return text;
  return `"${escapeText(text.length > max ? `${text.slice(0, max)}…` : text)}"`;
}

// oxlint-disable-next-line no-control-regex
const ODD = /[\u0000-\u001f"\\\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/g;

/** Control characters, quotes, bidirectional marks and bytes that are not UTF-8 as escapes. */
export function escapeText(text: string): string {
  return text.replace(/[\ud800-\udbff][\udc00-\udfff]|[^]/g, (unit) =>
    unit.length === 2 ? unit : unit.replace(ODD, escapeUnit),
  );
}

function escapeUnit(unit: string): string {
  const code = unit.charCodeAt(0);
  if (unit === '"' || unit === "\\") return `\\${unit}`;
  if (unit === "\n") return "\\n";
  if (unit === "\r") return "\\r";
  if (unit === "\t") return "\\t";
  // A byte that is not UTF-8: see `bytes.ts`.
  if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
}
