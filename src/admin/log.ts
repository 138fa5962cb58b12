/** The server's log on standard error: text in the original's shape or with local time, or a JSON object on each line. */
import { isLogged, type LogLevel } from "./log-level.ts";
import { LineLimit } from "./line-limit.ts";
import type { Output } from "./output.ts";

export const LOG_FORMATS = ["text", "plain", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];
export type LogFields = Readonly<Record<string, unknown>>;

// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** A line of the log, line end included. Line ends within the text are escaped. */
export function formatLogLine(format: LogFormat, at: Date, level: LogLevel, text: string, fields: LogFields): string {
  if (format === "json") {
    const own = { time: at.toISOString(), level, message: text };
    // Twice: first in the line, and not to be replaced by a field of the same name.
    return `${JSON.stringify({ ...own, ...fields, ...own }).replace(CONTROL, escapeUnit)}\n`;
  }
  const line = text.replace(/\r?\n\s*/g, " | ").replace(CONTROL, " ");
  return format === "plain" ? `${localTime(at)} ${level}: ${line}\n` : `[${at.toUTCString()}][${level}]: ${line}\n`;
}

/** ISO 8601 in this machine's zone, with its offset: `2026-11-30T15:04:05.123+01:00`. */
function localTime(at: Date): string {
  const offset = -at.getTimezoneOffset();
  const local = new Date(at.getTime() + offset * 60_000).toISOString().slice(0, -1);
  const two = (number: number) => String(Math.trunc(number)).padStart(2, "0");
  return `${local}${offset < 0 ? "-" : "+"}${two(Math.abs(offset) / 60)}:${two(Math.abs(offset) % 60)}`;
}

/** JSON.stringify leaves some as they are that a terminal obeys, or that make a line read otherwise than it is. */
function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

export class Log {
  readonly #output: Output;
  #threshold: LogLevel;
  #format: LogFormat;

  /** Told of each line, logged or not. */
  onLine: ((text: string, fields: LogFields) => void) | null = null;
  readonly #limit = new LineLimit({
    tell: (level, kind, count) =>
      this.write(level, `${count} more ${count === 1 ? "line" : "lines"} like this one in the last minute: ${kind}`, {
        more: count,
        like: kind,
      }),
    after(ms, callback) {
      const timer = setTimeout(callback, ms);
      timer.unref();
      return () => clearTimeout(timer);
    },
  });

  constructor(output: Output, threshold: LogLevel, format: LogFormat) {
    this.#output = output;
    this.#threshold = threshold;
    this.#format = format;
  }

  configure(threshold: LogLevel, format: LogFormat): void {
    this.#threshold = threshold;
    this.#format = format;
  }

  /** Lines that were dropped because the reader was too slow. */
  get dropped(): number {
    return this.#output.dropped;
  }

  /** A line as it would be written now. */
  format(level: LogLevel, text: string, fields: LogFields = {}): string {
    return formatLogLine(this.#format, new Date(), level, text, fields);
  }

  /** @param kind of lines that may come in great numbers: only so many a minute are written, see `LineLimit` */
  write(level: LogLevel, text: string, fields: LogFields = {}, kind?: string): void {
    this.onLine?.(text, fields);
    if (!isLogged(level, this.#threshold)) return;
    if (kind === undefined || this.#limit.admits(kind, level)) this.#output.push(this.format(level, text, fields));
  }

  /** No more lines come: writes the counts of lines that were not written. */
  end(): void {
    this.#limit.close();
  }
}
