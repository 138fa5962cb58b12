/**
 * What handlers say with `session.log`: values of any kind become plain ones of bounded size. It never throws: a line for
 * the log must not cost a message its verdict.
 */
import type { LogLevel } from "../admin/log-level.ts";
import { describeThrown } from "./site.ts";
import type { Log, LogFields } from "./types.ts";

/** Levels that handlers log at. */
export type NoteLevel = Extract<LogLevel, "debug" | "info" | "warn" | "error">;

/** A value of a field. */
export type NoteValue = string | number | boolean | null;
export type NoteFields = Readonly<Record<string, NoteValue>>;

/** Characters that are kept of a text, of a field's value, and of all fields together with their names. */
export const MAX_TEXT = 1024;
/** Notes of a message that its record keeps; further ones are in the log alone. */
export const MAX_NOTES = 20;

/** Takes what a handler says. */
export type NoteTaker = (level: NoteLevel, text: unknown, fields: unknown) => void;

/** A `session.log` that goes to `take`; also without its session, as a function that a handler has kept. */
export function logTo(take: NoteTaker): Log {
  const at = (level: NoteLevel) => (text: string, fields?: LogFields) => take(level, text, fields);
  return Object.assign(at("info"), { debug: at("debug"), warn: at("warn"), error: at("error") });
}

/** A text as it is kept. */
export function noteText(text: unknown): string {
  return String(plain(text));
}

/** Fields as they are kept: those without a value are left out, and what is over the bound. */
export function noteFields(fields: unknown): NoteFields {
  const kept: Record<string, NoteValue> = {};
  let room = MAX_TEXT;
  try {
    if (typeof fields !== "object" || fields === null) return kept;
    for (const [name, given] of Object.entries(fields)) {
      if (given === undefined) continue;
      const value = plain(given);
      room -= name.length + String(value).length;
      if (room < 0) break;
      kept[name] = value;
    }
  } catch (error) {
    kept["fields"] = `cannot be read: ${describeThrown(error)}`.slice(0, MAX_TEXT);
  }
  return kept;
}

function plain(value: unknown): NoteValue {
  switch (typeof value) {
    case "string":
      return value.slice(0, MAX_TEXT);
    case "number":
      return Number.isFinite(value) ? value : String(value);
    case "boolean":
      return value;
    case "object":
      return value === null ? null : objectText(value).slice(0, MAX_TEXT);
    case "function":
      return objectText(value).slice(0, MAX_TEXT);
    default:
      return String(value).slice(0, MAX_TEXT);
  }
}

function objectText(value: object): string {
  try {
    if (value instanceof Error) return describeThrown(value);
    if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`;
    return JSON.stringify(value) ?? String(value);
  } catch {
    // A circle, a BigInt, or code of the handler's own.
    return "a value that cannot be shown";
  }
}
