/** Sizes and durations as configuration and filters write them: a number, or text with a unit. */

/** Units of a quantity, as they are written behind a number. */
interface Units {
  /** How many of the smallest each is. */
  readonly of: Readonly<Record<string, number>>;
  /** The spellings of each unit, in any case. */
  readonly meant: Readonly<Record<string, RegExp>>;
}

const MILLISECONDS: Units = {
  of: { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 },
  meant: {
    ms: /^(?:ms|msecs?|millis|milliseconds?)$/i,
    s: /^(?:s|secs?|seconds?)$/i,
    m: /^(?:m|mins?|minutes?)$/i,
    h: /^(?:h|hrs?|hours?)$/i,
    d: /^(?:d|days?)$/i,
  },
};
const BYTES: Units = {
  of: { KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 },
  meant: { KB: /^ki?b?$/i, MB: /^mi?b?$/i, GB: /^gi?b?$/i },
};

export const SIZE_EXAMPLES = '1048576, "64KB", "10MB" or "1GB"';
/** The longest duration that a filter may name: a hundred years, which every store can add to the time of the day. */
export const MAX_DURATION_MS = 36_500 * 86_400_000;
/** The longest time of a timer: it counts milliseconds in 31 bits. */
export const MAX_TIMER_MS = 2 ** 31 - 1;
export const DURATION_EXAMPLES = '3, "500ms", "10m", "2h" or "7d"';

/** A number with a unit, in the smallest of the units; NaN if the text is not of that form. */
function measure(text: string, { of }: Units): number {
  const [, digits, unit = ""] = /^(\d+(?:\.\d+)?)([A-Za-z]+)$/.exec(text) ?? [];
  return digits === undefined || !Object.hasOwn(of, unit) ? NaN : Number(digits) * of[unit]!;
}

/** How to write the quantity that was probably meant by a text that is no number with a unit. */
function hint(input: unknown, units: Units): string {
  if (typeof input !== "string" || !Number.isNaN(measure(input, units))) return "";
  const [, digits, word = ""] = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(input) ?? [];
  if (digits === undefined) return "";
  if (word === "") return `; write ${digits}, without quotes`;
  const [unit] = Object.entries(units.meant).find(([, pattern]) => pattern.test(word)) ?? [];
  return unit === undefined ? "" : `; write "${digits}${unit}"`;
}

/** A size in bytes: a number of them, or text such as `"64KB"`, of 1,024 bytes; NaN if it is neither. */
export function readSize(value: unknown): number {
  if (typeof value === "string") return Math.round(measure(value, BYTES));
  return typeof value === "number" && Number.isSafeInteger(value) ? value : NaN;
}

/** A duration in milliseconds: a number of seconds, or text such as `"500ms"`; NaN if it is neither. */
export function readDuration(value: unknown): number {
  if (typeof value === "string") return measure(value, MILLISECONDS);
  return typeof value === "number" ? value * 1000 : NaN;
}

/** The end of an error message: how to write the size that was probably meant, `""` if that is unknown. */
export function sizeHint(input: unknown): string {
  return hint(input, BYTES);
}

/** As `sizeHint`, of a duration. */
export function durationHint(input: unknown): string {
  return hint(input, MILLISECONDS);
}
