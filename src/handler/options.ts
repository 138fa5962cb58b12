/** The options of a filter, as its schema gives them: any schema that follows Standard Schema 1 (https://standardschema.dev). */
import { within } from "../within.ts";
import { UsageError } from "../usage-error.ts";
import { messageOf } from "./load-failure.ts";
import type { OptionsSchema } from "./types.ts";

/** Maximum time in milliseconds that a schema may await. */
const SCHEMA_TIMEOUT_MS = 10_000;

/** What a schema has against options. */
export interface OptionsProblem {
  /** Where in the options: names of tables and keys, and 0-based indexes into lists. Empty for the table itself. */
  readonly path: readonly (string | number)[];
  readonly text: string;
}

/** Options that a schema refuses. */
export class OptionsError extends UsageError {
  readonly problems: readonly OptionsProblem[];

  /** @param problems at least one */
  constructor(filter: string, problems: readonly OptionsProblem[]) {
    const lines = problems.map(({ path, text }) => `${["options", ...path].join(".")}: ${text}`);
    super("PMILTER_ERR_OPTIONS", `filter ${filter}: ${lines.join("\n")}`);
    this.problems = problems;
  }
}

/** Whether a value is a schema. Those of ArkType are functions. */
export function isSchema(value: unknown): value is OptionsSchema {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return false;
  const standard = (value as Partial<OptionsSchema>)["~standard"];
  return standard?.version === 1 && typeof standard.validate === "function";
}

/**
 * The options that a filter's handlers get.
 * @param filter its name, for errors
 * @param given the table of the configuration, which is left as it is
 * @returns what the schema makes of it, frozen in depth
 * @throws OptionsError if the schema refuses it; what the schema throws
 */
export async function applySchema(
  schema: OptionsSchema,
  filter: string,
  given: unknown,
  timeoutMs = SCHEMA_TIMEOUT_MS,
): Promise<unknown> {
  let result: unknown = schema["~standard"].validate(copyOf(given));
  if (result instanceof Promise) {
    if (!(await within(result, timeoutMs))) throw new Error(`timed out after ${timeoutMs / 1000} s`);
    result = await result;
  }
  const { issues, value } = resultIn(result);
  if (issues === undefined) return freeze(value);
  throw new OptionsError(
    filter,
    issues.map((issue) => problemOf(issue, given)),
  );
}

interface SchemaResult {
  readonly value?: unknown;
  readonly issues?: readonly unknown[] | undefined;
}

/** A schema is any code: a result of another form must not pass for options. */
function resultIn(result: unknown): SchemaResult {
  if (typeof result === "object" && result !== null) {
    const { issues } = result as { issues?: unknown };
    const isRefused = Array.isArray(issues) && issues.length > 0;
    if (isRefused || (issues === undefined && "value" in result)) return result as SchemaResult;
  }
  throw new TypeError("expected a result of Standard Schema 1 from the schema: a value, or a list of issues");
}

function problemOf(issue: unknown, given: unknown): OptionsProblem {
  const { message, path } = (issue ?? {}) as { message?: unknown; path?: unknown };
  const keys = Array.isArray(path) ? path.map(keyOf) : [];
  return { path: pathIn(given, keys), text: typeof message === "string" ? message : messageOf(issue) };
}

/** A part of an issue's path is a key, or an object that has one. */
function keyOf(part: unknown): unknown {
  return typeof part === "object" && part !== null && "key" in part ? part.key : part;
}

/** The path with numbers for indexes: some schemas write them as text. */
function pathIn(given: unknown, keys: readonly unknown[]): (string | number)[] {
  let at = given;
  return keys.map((key) => {
    const part = Array.isArray(at) && Number.isInteger(Number(key)) ? Number(key) : String(key);
    at = typeof at === "object" && at !== null ? (at as Record<string | number, unknown>)[part] : undefined;
    return part;
  });
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Tables and lists anew, so that a schema that returns what it got does not have its caller's frozen. */
function copyOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copyOf);
  if (isPlain(value)) return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, copyOf(entry)]));
  return value;
}

/** Freezes tables and lists in depth; values of classes, such as a Set or a pattern, are their makers'. */
function freeze(value: unknown, seen = new Set<unknown>()): unknown {
  if (seen.has(value) || (!Array.isArray(value) && !isPlain(value))) return value;
  seen.add(value);
  for (const entry of Object.values(value)) freeze(entry, seen);
  return Object.freeze(value);
}
