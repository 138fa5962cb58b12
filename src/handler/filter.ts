/**
 * `defineFilter`, and the check of a module's exports: from `unknown` to a filter, or to an error that names the
 * mistake.
 */
import { PHASE_NAMES, type Phase } from "../protocol/phases.ts";
import { checkCollectBody, type CollectBodySetting } from "./collect-body.ts";
import { kindOf, wrongModule } from "./module-errors.ts";
import { isSchema } from "./options.ts";
import {
  type Filter,
  type FilterDefinition,
  type FilterHome,
  MACRO_STAGES,
  type MacroPhase,
  type MessageOutcome,
  type OptionsSchema,
  type OverBody,
  type State,
} from "./types.ts";
import { MAX_MACRO_NAMES } from "../protocol/negotiate.ts";

/**
 * Defines a filter: handlers for any of the phases. It is checked when its module is loaded.
 *
 * The types of the session's members are inferred: `session.state` from `state()`, `message.state` from
 * `messageState()`, and `session.own` from `start()`, which has to be written before the handlers that use it.
 * @template S the type of `session.state`
 * @template O the type of `session.options`, the table `[filter.options]`
 * @template Own the type of `session.own`, the result of `start`
 * @template M the type of `session.message.state`
 * @template Over what happens to a message whose body is larger than the filter collects
 * @returns the same object
 * @example
 * export default defineFilter({
 *   name: "stamp",
 *   eom(session) { session.message.addHeader("X-Pmilter", "Enable"); },
 * });
 */
export function defineFilter<S = State, O = State, Own = unknown, M = State, Over extends OverBody = "reject">(
  filter: FilterDefinition<S, O, Own, M, Over>,
): Filter<S, O, Own, M, Over> {
  return filter;
}

/** A handler without the types of its phase, as the chain calls it. */
export type AnyHandler = (session: unknown, ...rest: unknown[]) => unknown;

/** A filter as it was loaded and checked. */
export interface LoadedFilter {
  readonly name: string;
  readonly handlers: Readonly<Partial<Record<Phase, AnyHandler>>>;
  /** `this` in the handlers: the object given to `defineFilter`; undefined for phase files. */
  readonly self: unknown;
  /** Null if it collects no body. */
  readonly collectBody: CollectBodySetting | null;
  readonly rejectedRecipients: boolean;
  readonly macros: Readonly<Partial<Record<MacroPhase, readonly string[]>>>;
  /** Makes `session.state` and `message.state`; null for empty objects. */
  readonly state: (() => unknown) | null;
  readonly messageState: (() => unknown) | null;
  /** Checks the options of the configuration; null for options that are given as they are. */
  readonly schema: OptionsSchema | null;
  /** See `MessageOutcome`; null if it does not ask. */
  readonly outcome: ((session: unknown, outcome: MessageOutcome) => unknown) | null;
  /** See `leave-out.ts`; null if it leaves nothing out. */
  readonly leaveOut: ((options: unknown, isTooEarly: (phase: Phase) => boolean) => unknown) | null;
  readonly start: ((options: unknown, home: FilterHome) => unknown) | null;
  readonly stop: ((own: unknown) => unknown) | null;
}

const OPTION_KEYS = [
  "name",
  "collectBody",
  "rejectedRecipients",
  "macros",
  "options",
  "state",
  "messageState",
  "outcome",
  "leaveOut",
  "start",
  "stop",
] as const;
const KNOWN_KEYS: readonly string[] = [...PHASE_NAMES, ...OPTION_KEYS];

/**
 * Checks the default export of a filter module.
 * @param fallbackName the name if the filter has none
 * @throws UsageError PMILTER_ERR_MODULE
 */
export function checkFilter(exported: unknown, fallbackName: string): LoadedFilter {
  if (typeof exported === "function") {
    wrongModule(
      "the default export is a function: a [[filter]] exports defineFilter({ … }), a phase file is named in [handler.session]",
    );
  }
  if (typeof exported !== "object" || exported === null || Array.isArray(exported)) {
    wrongModule(`expected defineFilter({ … }) as the default export, got ${kindOf(exported)}`);
  }
  const filter = exported as Readonly<Record<string, unknown>>;
  for (const key of Object.keys(filter)) {
    if (!KNOWN_KEYS.includes(key)) wrongModule(`a filter has no "${key}"; it may have ${KNOWN_KEYS.join(", ")}`);
  }
  const handlers: Partial<Record<Phase, AnyHandler>> = {};
  for (const phase of PHASE_NAMES) {
    const handler = optional(filter, phase, "function");
    if (handler !== null) handlers[phase] = handler as AnyHandler;
  }
  const outcome = optional(filter, "outcome", "function") as LoadedFilter["outcome"];
  if (Object.keys(handlers).length === 0 && outcome === null)
    wrongModule(`the filter has no handler; expected at least one of ${PHASE_NAMES.join(", ")}, outcome`);
  return {
    name: checkName((optional(filter, "name", "string") as string | null) ?? fallbackName),
    handlers,
    self: filter,
    collectBody: checkCollectBody(filter["collectBody"]),
    rejectedRecipients: optional(filter, "rejectedRecipients", "boolean") === true,
    macros: checkMacros(filter["macros"]),
    schema: checkSchema(filter["options"]),
    state: optional(filter, "state", "function") as LoadedFilter["state"],
    messageState: optional(filter, "messageState", "function") as LoadedFilter["messageState"],
    outcome,
    leaveOut: optional(filter, "leaveOut", "function") as LoadedFilter["leaveOut"],
    start: optional(filter, "start", "function") as LoadedFilter["start"],
    stop: optional(filter, "stop", "function") as LoadedFilter["stop"],
  };
}

/**
 * Checks the default export of a phase file.
 * @throws UsageError PMILTER_ERR_MODULE
 */
export function checkPhaseHandler(exported: unknown, phase: Phase): AnyHandler {
  if (typeof exported !== "function") {
    const hint = typeof exported === "object" && exported !== null ? " (a filter belongs in [[filter]])" : "";
    wrongModule(`expected a function as the default export of the ${phase} handler, got ${kindOf(exported)}${hint}`);
  }
  return exported as AnyHandler;
}

/** Names are parts of log lines. */
function checkName(name: string): string {
  if (!/^[\w.@+/ -]{1,64}$/.test(name)) {
    wrongModule(
      `a filter's name has 1 to 64 letters, digits, spaces or any of . _ - + / @, got ${JSON.stringify(name)}`,
    );
  }
  return name;
}

function optional(
  filter: Readonly<Record<string, unknown>>,
  key: string,
  type: "function" | "string" | "boolean",
): unknown {
  const value = filter[key];
  if (value === undefined) return null;
  if (typeof value !== type) wrongModule(`"${key}" of the filter must be a ${type}, got ${kindOf(value)}`);
  return value;
}

function checkSchema(schema: unknown): OptionsSchema | null {
  if (schema === undefined) return null;
  if (isSchema(schema)) return schema;
  return wrongModule(
    `"options" of the filter must be a schema, such as table({ … }) of pmilter/options, or any of Standard Schema 1; got ${kindOf(schema)}`,
  );
}

function checkMacros(macros: unknown): Partial<Record<MacroPhase, readonly string[]>> {
  if (macros === undefined) return {};
  if (typeof macros !== "object" || macros === null)
    wrongModule(`"macros" must be an object of lists, got ${kindOf(macros)}`);
  for (const [phase, names] of Object.entries(macros)) {
    if (!(phase in MACRO_STAGES)) {
      wrongModule(`macros cannot be asked for at "${phase}", only at ${Object.keys(MACRO_STAGES).join(", ")}`);
    }
    const expected = `macros.${phase} must be a list of at most ${MAX_MACRO_NAMES} names such as "i" or "{auth_type}"`;
    if (!Array.isArray(names)) wrongModule(`${expected}, got ${kindOf(names)}`);
    if (names.length > MAX_MACRO_NAMES) wrongModule(`${expected}, got ${names.length}`);
    for (const name of names as readonly unknown[]) {
      if (typeof name === "string" && /^(\w|\{\w+\})$/.test(name)) continue;
      const hint = typeof name === "string" && /^\w+$/.test(name) ? `; write "{${name}}"` : "";
      wrongModule(`${expected}, got ${typeof name === "string" ? JSON.stringify(name) : kindOf(name)}${hint}`);
    }
  }
  return macros;
}
