/** `collectBody` of a filter: the largest body that it reads as a whole, and the fate of a message with a larger one. */
import { readSize, SIZE_EXAMPLES, sizeHint } from "../quantity.ts";
import { kindOf, wrongModule } from "./module-errors.ts";
import type { OverBody } from "./types.ts";

const OVER: readonly OverBody[] = ["reject", "skip", "fallback"];

/** How a filter collects bodies, as it was checked. */
export interface CollectBodySetting {
  /** Bytes; null for `limits.body`. */
  readonly max: number | null;
  readonly over: OverBody;
}

const ALL: CollectBodySetting = { max: null, over: "reject" };
const KEYS: readonly string[] = ["max", "over"];

/**
 * Checks the value of `collectBody`.
 * @returns null if the filter collects no body
 * @throws UsageError PMILTER_ERR_MODULE
 */
export function checkCollectBody(value: unknown): CollectBodySetting | null {
  if (value === undefined || value === false) return null;
  if (value === true) return ALL;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    wrongModule(`"collectBody" of the filter must be a boolean, or { max, over }, got ${shown(value)}`);
  }
  for (const key of Object.keys(value)) {
    if (!KEYS.includes(key)) wrongModule(`collectBody has no "${key}"; it may have ${KEYS.join(", ")}`);
  }
  const { max, over = ALL.over } = value as Readonly<Record<string, unknown>>;
  if (!(OVER as readonly unknown[]).includes(over)) {
    wrongModule(`collectBody.over: expected "reject", "skip" or "fallback", got ${shown(over)}`);
  }
  return { max: max === undefined ? null : checkMax(max), over: over as OverBody };
}

/** @returns bytes */
function checkMax(max: unknown): number {
  const bytes = readSize(max);
  if (bytes >= 1) return bytes;
  wrongModule(`collectBody.max: expected a size such as ${SIZE_EXAMPLES}, got ${shown(max)}${sizeHint(max)}`);
}

/**
 * Checks that the configuration lets a filter have what it collects.
 * @throws UsageError PMILTER_ERR_MODULE
 */
export function checkBodyLimit(collection: CollectBodySetting | null, limit: number): void {
  const max = collection?.max ?? 0;
  if (max <= limit) return;
  wrongModule(
    `collectBody.max is ${max} bytes, above limits.body (${limit} bytes): raise limits.body, or collect less`,
  );
}

function shown(value: unknown): string {
  if (typeof value === "string" || typeof value === "number") return JSON.stringify(value);
  return kindOf(value);
}
