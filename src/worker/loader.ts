/**
 * Loads the handlers of a configuration into a chain. What does not load is a {@link LoadFailure}: the file, the place
 * in it, and what is wrong.
 */
import { accessSync, constants, readFileSync } from "node:fs";
import { basename, extname } from "node:path";
import type { Config, FilterConfig } from "../config/config.ts";
import { Chain, type ChainFilter } from "../handler/chain.ts";
import { checkFilter, checkPhaseHandler, type AnyHandler, type LoadedFilter } from "../handler/filter.ts";
import { siteOf } from "../handler/site.ts";
import { PHASE_NAMES, type Phase } from "../protocol/phases.ts";

/** Why a handler could not be loaded; plain data, it travels between threads. */
export interface LoadFailure {
  readonly file: string;
  /** From 1; 0 if not known. */
  readonly line: number;
  /** From 1; 0 if not known. */
  readonly column: number;
  readonly message: string;
}

export class LoadError extends Error {
  override readonly name = "LoadError";
  readonly failure: LoadFailure;

  constructor(failure: LoadFailure, cause: unknown) {
    super(formatFailure(failure), { cause });
    this.failure = failure;
  }
}

/** `file:line:column: message`, as compilers write it. */
export function formatFailure({ file, line, column, message }: LoadFailure): string {
  const place = line > 0 ? `:${line}${column > 0 ? `:${column}` : ""}` : "";
  return `${file}${place}: ${message}`;
}

/** The name of the filter that the phase files together are. */
export const PHASE_FILES_NAME = "handler";

/** The files of the handlers, in their order. */
export function entryFiles(config: Config): string[] {
  if (!config.server.handler) return [];
  return [...Object.values(config.handler.session), ...config.filters.map((filter) => filter.path)];
}

/**
 * Loads every handler of the configuration, in its order.
 * @throws LoadError
 */
export async function loadChain(config: Config): Promise<Chain> {
  const filters: ChainFilter[] = [];
  if (config.server.handler) {
    const phaseFiles = Object.entries(config.handler.session) as [Phase, string][];
    if (phaseFiles.length > 0) {
      const handlers: Partial<Record<Phase, AnyHandler>> = {};
      for (const [phase, file] of phaseFiles) {
        handlers[phase] = await load(file, (exported) => checkPhaseHandler(exported, phase));
      }
      const loaded: LoadedFilter = {
        name: PHASE_FILES_NAME,
        handlers,
        self: undefined,
        collectBody: false,
        rejectedRecipients: false,
        macros: {},
        start: null,
        stop: null,
      };
      filters.push(place(config, loaded, filters.length, config.handler.session, null));
    }
    for (const entry of config.filters) {
      const fallbackName = basename(entry.path, extname(entry.path));
      const loaded = await load(entry.path, (exported) => checkFilter(exported, fallbackName));
      const files = Object.fromEntries(PHASE_NAMES.map((phase) => [phase, entry.path]));
      const named = entry.name === null ? loaded : { ...loaded, name: entry.name };
      filters.push(place(config, named, filters.length, files, entry));
    }
  }
  const { server, limits } = config;
  return new Chain(filters, {
    onError: server.onError,
    handlerTimeoutMs: server.handlerTimeoutMs,
    eomTimeoutMs: server.eomTimeoutMs,
    deferContent: server.deferContent,
    limits,
  });
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
    files,
  };
}

/** Imports a module and checks its default export. */
async function load<T>(file: string, check: (exported: unknown) => T): Promise<T> {
  let module: unknown;
  try {
    module = await import(file);
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
 * Loads a module whose default export is a function without arguments.
 * @throws LoadError
 */
export async function loadModule(file: string): Promise<() => unknown> {
  return load(file, (exported) => {
    if (typeof exported !== "function")
      throw new Error(`expected a function as the default export, got ${typeof exported}`);
    return exported as () => unknown;
  });
}

/**
 * Loads such a module and calls it.
 * @throws LoadError
 */
export async function callModule(file: string): Promise<void> {
  const run = await loadModule(file);
  try {
    await run();
  } catch (error) {
    throw new LoadError(failureOf(error, file), error);
  }
}

/** Where an error of loading or starting lies: a syntax error's position, else the first line of a handler's stack. */
export function failureOf(error: unknown, file: string): LoadFailure {
  const syntax = error instanceof AggregateError ? error.errors[0] : error;
  const position = positionOf(syntax) ?? importOf(syntax, file);
  if (position !== null) return { ...position, message: messageOf(syntax) };
  const site = siteOf(error);
  return { file: site?.file ?? file, line: site?.line ?? 0, column: 0, message: messageOf(error) };
}

/** Bun's BuildMessage and ResolveMessage carry a position. */
function positionOf(error: unknown): Omit<LoadFailure, "message"> | null {
  if (typeof error !== "object" || error === null || !("position" in error)) return null;
  const position = error.position as { file?: unknown; line?: unknown; column?: unknown } | null;
  if (position === null || typeof position.file !== "string" || typeof position.line !== "number") return null;
  const column = typeof position.column === "number" ? position.column : 0;
  return { file: position.file, line: position.line, column };
}

/** Bun says "Cannot find module" whatever keeps it from reading an entry file. Null if that is not what went wrong. */
function unreadable(file: string, error: unknown): LoadFailure | null {
  if (typeof error !== "object" || error === null || !("specifier" in error) || error.specifier !== file) return null;
  try {
    accessSync(file, constants.R_OK);
    return null;
  } catch (cause) {
    const { code } = cause as { code?: unknown };
    const user = `uid ${process.geteuid?.()}`;
    const message =
      code === "EACCES" ? `no permission to read it, or a folder above it, as ${user}` : "there is no such file";
    return { file, line: 0, column: 0, message };
  }
}

/** An import that leads nowhere: Bun names the importing file and the specifier, but not the place. */
function importOf(error: unknown, entry: string): Omit<LoadFailure, "message"> | null {
  if (typeof error !== "object" || error === null || !("referrer" in error) || !("specifier" in error)) return null;
  const { referrer: file, specifier } = error;
  if (typeof file !== "string" || typeof specifier !== "string" || specifier === entry) return null;
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return null;
  }
  const at = text.search(new RegExp(`["']${RegExp.escape(specifier)}["']`));
  if (at === -1) return { file, line: 0, column: 0 };
  const before = text.slice(0, at).split("\n");
  return { file, line: before.length, column: before.at(-1)!.length + 1 };
}

function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message === "" ? error.name : error.message;
  if (typeof error === "object" && error !== null && "message" in error) return String(error.message);
  return `thrown: ${String(error)}`;
}
