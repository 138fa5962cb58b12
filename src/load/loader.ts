/**
 * Loads the handlers of a configuration into a chain. A handler that does not load gives a {@link LoadFailure}: the
 * file, the place in it, and the reason.
 */
import { type Config, type FilterConfig, moduleName } from "../config/config.ts";
import { Chain, type ChainFilter, type ChainPolicy } from "../handler/chain.ts";
import { checkBodyLimit } from "../handler/collect-body.ts";
import { checkFilter, checkPhaseHandler, type AnyHandler, type LoadedFilter } from "../handler/filter.ts";
import { failureOf, LoadError, messageOf, unreadable } from "../handler/load-failure.ts";
import { PHASE_NAMES, type Phase } from "../protocol/phases.ts";
import { brokenHandler } from "../ruby/broken.ts";
import type { RubyRuntime } from "../ruby/run.ts";
import { SHIPPED, shippedFile } from "../shipped.ts";
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
type Snapshot = Pick<Sources, "broken" | "scripts" | "targets">;
const DISK: Snapshot = { broken: {}, scripts: {}, targets: new Map() };

/** Ruby in this thread; made when the first script is loaded. */
let runtime: Promise<RubyRuntime> | null = null;

function startRuby(): Promise<RubyRuntime> {
  runtime ??= import("../ruby/run.ts").then(({ RubyRuntime }) => RubyRuntime.start());
  return runtime;
}

async function loadRuby(file: string, phase: Phase, { broken, scripts, targets }: Snapshot): Promise<AnyHandler> {
  const path = targets.get(file) ?? file;
  const failure = broken[path];
  return failure === undefined ? (await startRuby()).handler(scripts[path]!, phase) : brokenHandler(failure);
}

/**
 * Loads every handler of the configuration, in its order.
 * @param onFile told of each file before it is loaded, which may never end
 * @throws LoadError
 */
export async function loadChain(
  config: Config,
  snapshot = DISK,
  onFile: (file: string) => void = () => {},
): Promise<Chain> {
  const filters: ChainFilter[] = [];
  if (config.server.handler) {
    const phaseFiles = Object.entries(config.handler.session) as [Phase, string][];
    if (phaseFiles.length > 0) {
      const handlers: Partial<Record<Phase, AnyHandler>> = {};
      for (const [phase, file] of phaseFiles) {
        onFile(file);
        handlers[phase] = isRuby(file)
          ? await loadRuby(file, phase, snapshot)
          : await load(file, snapshot, (exported) => checkPhaseHandler(exported, phase));
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
        start: null,
        stop: null,
      };
      filters.push(place(config, loaded, filters.length, config.handler.session, null));
    }
    for (const entry of config.filters) {
      const file = entry.use === null ? entry.path! : shippedFile(entry.use);
      onFile(file);
      const check = (exported: unknown, name: string) => {
        const filter = checkFilter(exported, name);
        checkBodyLimit(filter.collectBody, config.limits.body);
        return filter;
      };
      const loaded =
        entry.use === null
          ? await load(file, snapshot, (exported) => check(exported, moduleName(file)))
          : check((await SHIPPED[entry.use]()).default, entry.use);
      const files = Object.fromEntries(PHASE_NAMES.map((phase) => [phase, file]));
      const named = entry.name === null ? loaded : { ...loaded, name: entry.name };
      filters.push(place(config, named, filters.length, files, entry));
    }
  }
  return new Chain(filters, policyOf(config));
}

function place(
  config: Config,
  loaded: LoadedFilter,
  index: number,
  files: ChainFilter["files"],
  entry: FilterConfig | null,
): ChainFilter {
  return {
    index,
    loaded,
    onError: entry?.onError ?? config.server.onError,
    onTimeout: entry?.onTimeout ?? config.server.onTimeout,
    timeoutMs: entry?.handlerTimeoutMs ?? null,
    isObserved: entry?.mode === "observe",
    options: entry?.options ?? {},
    own: undefined,
    files,
  };
}

/** Imports a module and checks its default export. */
async function load<T>(file: string, { targets }: Snapshot, check: (exported: unknown) => T): Promise<T> {
  let module: unknown;
  try {
    module = await import(targets.get(file) ?? file);
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

/**
 * Loads a module whose default export is a function without arguments, or a Ruby script.
 * @throws LoadError
 */
export async function loadModule(file: string, snapshot: Snapshot): Promise<() => unknown> {
  if (isRuby(file)) return (await startRuby()).task(snapshot.scripts[snapshot.targets.get(file) ?? file]!);
  return load(file, snapshot, (exported) => {
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
