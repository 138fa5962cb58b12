/**
 * Loads the handlers of a configuration into a chain. A handler that does not load gives a {@link LoadFailure}: the
 * file, the place in it, and the reason.
 */
import { dirname } from "node:path";
import { type Config, type FilterConfig, moduleName } from "../config/config.ts";
import { whereSet } from "../config/named.ts";
import { Chain, type ChainFilter, type ChainPolicy } from "../handler/chain.ts";
import { checkBodyLimit } from "../handler/collect-body.ts";
import { compileConditions, problemOfOrder, scopeOf } from "../handler/conditions.ts";
import { checkFilter, checkPhaseHandler, type AnyHandler, type LoadedFilter } from "../handler/filter.ts";
import type { Stopwatch } from "../handler/filter-times.ts";
import { fitted } from "../handler/leave-out.ts";
import { failureOf, joined, LoadError, type LoadFailure, messageOf, unreadable } from "../handler/load-failure.ts";
import { applySchema, OptionsError } from "../handler/options.ts";
import { inFolder } from "../options/folder.ts";
import { PHASE_NAMES, type Phase } from "../protocol/phases.ts";
import { brokenHandler } from "../ruby/broken.ts";
import type { RubyScript } from "../ruby/compile.ts";
import type { RubyRuntime } from "../ruby/run.ts";
import type { RubyThreads } from "../ruby/threads/pool.ts";
import { STORE_CLASSES } from "../ruby/library.ts";
import { SHIPPED, shippedFile } from "../shipped.ts";
import { placeOfOptions, refusedOptions } from "./refused-options.ts";
import { isRuby, type Sources } from "./sources.ts";

/** The name of the filter that the phase files together are. */
export const PHASE_FILES_NAME = "handler";

/** The configuration's settings for all filters. */
export function policyOf(config: Config): ChainPolicy {
  const { server, limits } = config;
  return {
    onError: server.onError,
    handlerTimeoutMs: server.handlerTimeoutMs,
    eomTimeoutMs: server.eomTimeoutMs,
    deferContent: server.deferContent,
    limits,
  };
}

/**
 * The snapshot that handlers are loaded from, which `serveSources` has to serve. Without a snapshot they come from the
 * disk.
 */
type Snapshot = Pick<Sources, "broken" | "library" | "scripts" | "targets">;
const DISK: Snapshot = { broken: {}, library: [], scripts: {}, targets: new Map() };

/** Ruby in this thread; made when the first script is loaded. */
let runtime: Promise<RubyRuntime> | null = null;

function startRuby(): Promise<RubyRuntime> {
  runtime ??= import("../ruby/run.ts").then(({ RubyRuntime }) => RubyRuntime.start());
  return runtime;
}

/** Ruby in threads of its own; made when the first script is loaded. */
let threads: Promise<RubyThreads> | null = null;

/** Makes the threads, in a worker that has what they need. */
export type StartRubyThreads = (scripts: readonly RubyScript[], library: readonly RubyScript[]) => Promise<RubyThreads>;

/** If one script may wait, all run where it does: they share variables. */
async function loadRuby(
  file: string,
  phase: Phase,
  { broken, library, scripts, targets }: Snapshot,
  startThreads: StartRubyThreads | null,
): Promise<AnyHandler> {
  const path = targets.get(file) ?? file;
  const failure = broken[path];
  if (failure !== undefined) return brokenHandler(failure);
  if (library.length === 0 || startThreads === null) return (await startRuby()).handler(scripts[path]!, phase);
  threads ??= startThreads(Object.values(scripts), library);
  return (await threads).handler(scripts[path]!, phase);
}

/**
 * Loads every handler of the configuration, in its order.
 * @param onStep told of each step before it is taken, which may never end; of what has failed in that case
 * @param stopwatch takes the time of the filters' handlers; undefined for handlers as they are
 * @param startThreads for Ruby scripts that may wait; null where no session is served
 * @throws LoadError
 */
export async function loadChain(
  config: Config,
  snapshot = DISK,
  onStep: (failure: LoadFailure) => void = () => {},
  stopwatch?: Stopwatch,
  startThreads: StartRubyThreads | null = null,
): Promise<Chain> {
  const filters: ChainFilter[] = [];
  /** Those of several filters are told together. */
  const refused: LoadFailure[] = [];
  if (config.server.handler) {
    const phaseFiles = Object.entries(config.handler.session) as [Phase, string][];
    if (phaseFiles.length > 0) {
      const handlers: Partial<Record<Phase, AnyHandler>> = {};
      for (const [phase, file] of phaseFiles) {
        onStep(loadingOf(file));
        handlers[phase] = isRuby(file)
          ? await loadRuby(file, phase, snapshot, startThreads)
          : await load(file, from(snapshot, file), (exported) => checkPhaseHandler(exported, phase));
      }
      const loaded: LoadedFilter = {
        name: PHASE_FILES_NAME,
        handlers,
        self: undefined,
        collectBody: null,
        rejectedRecipients: false,
        macros: {},
        state: null,
        messageState: null,
        outcome: null,
        leaveOut: null,
        schema: null,
        start: null,
        stop: null,
      };
      filters.push(place(config, loaded, filters.length, config.handler.session, null, {}));
    }
    for (const entry of config.filters) {
      const file = entry.use === null ? entry.path! : shippedFile(entry.use);
      onStep(loadingOf(file));
      const check = (exported: unknown, name: string) => {
        const filter = checkFilter(exported, name);
        checkBodyLimit(filter.collectBody, config.limits.body);
        return filter;
      };
      const loaded =
        entry.use === null
          ? await load(file, from(snapshot, file), (exported) => check(exported, moduleName(file)))
          : await load(file, SHIPPED[entry.use], (exported) => check(exported, entry.use!));
      const files = Object.fromEntries(PHASE_NAMES.map((phase) => [phase, file]));
      const named = entry.name === null ? loaded : { ...loaded, name: entry.name };
      if (named.leaveOut === null) checkConditions(named, entry, file);
      const options = await optionsOf(config, named, entry, file, onStep).catch((error: unknown) => {
        if (error instanceof LoadError && error.cause instanceof OptionsError) refused.push(error.failure);
        else throw error;
      });
      const fitting = refused.length > 0 ? named : fit(named, options, entry, file);
      filters.push(place(config, fitting, filters.length, files, entry, options));
    }
  }
  if (refused.length > 0) throw new LoadError(joined(refused), undefined);
  if (stopwatch === undefined) return new Chain(filters, policyOf(config));
  const measured = filters.map((filter) => Object.assign({}, filter, { loaded: stopwatch.measured(filter.loaded) }));
  return new Chain(measured, policyOf(config));
}

/** A handler can only be left out by conditions that are known before it runs. @throws LoadError */
function checkConditions({ handlers }: LoadedFilter, entry: FilterConfig, file: string): void {
  const { when } = entry;
  const phases = PHASE_NAMES.filter((phase) => handlers[phase] !== undefined);
  const message = when === null ? null : problemOfOrder(phases, when, (key) => ` (${whereSet(entry, "when", key)})`);
  if (message === null) return;
  throw new LoadError({ file, line: 0, column: 0, message }, undefined);
}

/** Without what it leaves out. @throws LoadError */
function fit(loaded: LoadedFilter, options: unknown, entry: FilterConfig, file: string): LoadedFilter {
  if (loaded.leaveOut === null) return loaded;
  let fitting: LoadedFilter;
  try {
    fitting = fitted(loaded, options, entry.when);
  } catch (error) {
    throw new LoadError(failureOf(error, file), error);
  }
  checkConditions(fitting, entry, file);
  return fitting;
}

function place(
  config: Config,
  loaded: LoadedFilter,
  index: number,
  files: ChainFilter["files"],
  entry: FilterConfig | null,
  options: unknown,
): ChainFilter {
  return {
    index,
    loaded,
    onError: entry?.onError ?? config.server.onError,
    onTimeout: entry?.onTimeout ?? config.server.onTimeout,
    timeoutMs: entry?.handlerTimeoutMs ?? null,
    isObserved: entry?.mode === "observe",
    options,
    scope: scopeOf(entry?.when ?? null),
    conditions: compileConditions(entry?.when ?? null),
    own: undefined,
    files,
  };
}

function loadingOf(file: string): LoadFailure {
  return { file, line: 1, column: 0, message: "loading it failed" };
}

/**
 * The options that the handlers get: those of the configuration, or what the filter's schema makes of them.
 * @throws LoadError
 */
async function optionsOf(
  config: Config,
  { name, schema }: LoadedFilter,
  entry: FilterConfig,
  file: string,
  onStep: (failure: LoadFailure) => void,
): Promise<unknown> {
  if (schema === null) return entry.options;
  const what = `the schema of the options of filter ${name} failed`;
  const place = placeOfOptions(entry);
  onStep({ ...place, message: what });
  try {
    return await inFolder(dirname(config.file), () => applySchema(schema, name, entry.options));
  } catch (error) {
    if (error instanceof OptionsError) throw refusedOptions(entry, error);
    const failure = failureOf(error, file);
    // Without a line of the filter's, as after a wait that was too long.
    throw new LoadError(
      { ...failure, ...(failure.line > 0 ? {} : place), message: `${what}: ${failure.message}` },
      error,
    );
  }
}

/** Imports a file from a snapshot. */
function from({ targets }: Snapshot, file: string): () => Promise<unknown> {
  return () => import(targets.get(file) ?? file);
}

/** Imports a module and checks its default export. */
async function load<T>(
  file: string,
  importModule: () => Promise<unknown>,
  check: (exported: unknown) => T,
): Promise<T> {
  let module: unknown;
  try {
    module = await importModule();
  } catch (error) {
    throw new LoadError(unreadable(file, error) ?? failureOf(error, file), error);
  }
  const exported = (module as { default?: unknown }).default;
  try {
    if (exported === undefined) throw new Error("the module has no default export");
    return check(exported);
  } catch (error) {
    throw new LoadError({ file, line: 0, column: 0, message: messageOf(error) }, error);
  }
}

/** @throws LoadError */
async function loadTask(file: string, { library, scripts, targets }: Snapshot): Promise<() => unknown> {
  const script = scripts[targets.get(file) ?? file]!;
  const name = script.uses.find((used) => STORE_CLASSES.has(used));
  if (name !== undefined) {
    const message = `${name} cannot be used at the start or the end of the server: it is for handler.session`;
    throw new LoadError({ file, line: 0, column: 0, message }, undefined);
  }
  const ruby = await startRuby();
  if (script.uses.length > 0) ruby.loadForTask(library);
  return ruby.task(script);
}

/**
 * Loads a module whose default export is a function without arguments, or a Ruby script.
 * @throws LoadError
 */
export async function loadModule(file: string, snapshot: Snapshot): Promise<() => unknown> {
  if (isRuby(file)) return loadTask(file, snapshot);
  return load(file, from(snapshot, file), (exported) => {
    if (typeof exported !== "function")
      throw new Error(`expected a function as the default export, got ${typeof exported}`);
    return exported as () => unknown;
  });
}

/**
 * Loads such a module and calls it.
 * @throws LoadError
 */
export async function callModule(file: string, snapshot: Snapshot): Promise<void> {
  const run = await loadModule(file, snapshot);
  try {
    await run();
  } catch (error) {
    throw new LoadError(failureOf(error, file), error);
  }
}
