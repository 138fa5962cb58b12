/**
 * Whether the files on disk are the version that serves, would serve, or would not load. A status request looks at them: it
 * reads the configuration and compares the sources, and runs nothing. A handler is known not to load if a load of exactly
 * these files has failed. Otherwise only missing files and text that does not parse are found.
 */
import { basename } from "node:path";
import { type Config, entryFiles, shippedFilters } from "../../config/config.ts";
import type { Environment } from "../../config/places.ts";
import { codeOf } from "../../errors.ts";
import { ConfigError } from "../../config/errors.ts";
import { loadConfig } from "../../config/load.ts";
import { failureOf, formatFailure, type LoadFailure, whyUnreadable } from "../../handler/load-failure.ts";
import { readRegularFile } from "../../regular-file.ts";
import { isCurrent, readSources, type Sources, syntaxErrorOf, versionOf } from "../../load/sources.ts";

export interface DiskStatus {
  /**
   * `same`: the version that serves; `pending`: another version, without a known fault; `broken`: a start and a reload would
   * fail; `unknown`: it cannot be told now.
   */
  readonly state: "same" | "pending" | "broken" | "unknown";
  /** For people; if `broken`, it may have several lines. */
  readonly message: string;
}

/** The files of a configuration and its handlers as they were at a moment. */
export class FilesOnDisk {
  readonly config: Config;
  /** Null if they were not read. */
  readonly sources: Sources | null;
  /** The texts of the handlers of the process's life; null for none. */
  readonly #tasks: readonly (string | null)[];

  constructor(config: Config, sources: Sources | null) {
    this.config = config;
    this.sources = sources;
    this.#tasks = tasksOf(config);
  }

  /** Whether the disk still holds the same. @param config the configuration on disk */
  isSame(config: Config): boolean {
    return (
      Bun.deepEquals(config, this.config) &&
      Bun.deepEquals(tasksOf(config), this.#tasks) &&
      (this.sources === null || isCurrent(this.sources))
    );
  }
}

/** A load that failed, of these files. */
export interface FailedLoad {
  readonly files: FilesOnDisk;
  readonly message: string;
}

export interface Situation {
  readonly served: FilesOnDisk;
  readonly failed: FailedLoad | null;
  readonly environment: Environment;
  /** A reload is under way. */
  readonly isLoading: boolean;
  /** The names of the keys that differ and that only a start reads. */
  needRestart(config: Config): readonly string[];
}

export function lookAtDisk({ environment, failed, isLoading, needRestart, served }: Situation): DiskStatus {
  let config: Config;
  try {
    config = loadConfig(served.config.file, environment);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return { state: isOfThisProcess(error, served.config) ? "unknown" : "broken", message: error.message };
  }
  if (failed !== null && failed.files.isSame(config)) return { state: "broken", message: failed.message };
  const keys = needRestart(config);
  const restart = keys.length === 0 ? "" : `, ${keys.join(", ")} after a restart`;
  if (!served.isSame(config)) return lookAtOther(config, served, isLoading, restart);
  if (restart === "") return { state: "same", message: "what serves" };
  return { state: "pending", message: `the same as what serves${restart}` };
}

/** Whether another process, such as one that starts, may well be able to read the file. */
function isOfThisProcess({ cause }: ConfigError, { server }: Config): boolean {
  const code = codeOf(cause);
  // A file that root could read at the start may not be readable for the user that the server became.
  return (code === "EACCES" && server.user !== null) || code === "EMFILE" || code === "ENFILE";
}

/** The files differ from those that serve, and were not loaded yet. */
function lookAtOther(config: Config, served: FilesOnDisk, isLoading: boolean, restart: string): DiskStatus {
  const sources = readSources(entryFiles(config), shippedFilters(config));
  const failure = unreadableTask(config) ?? sources.problem ?? syntaxErrorIn(sources, served.sources);
  if (failure !== null) return { state: "broken", message: formatFailure(failure) };
  const hasChanged = !Bun.deepEquals(config, served.config);
  const changed = hasChanged ? `${changedFiles(served.config, config)} changed` : "handlers have changed";
  const isTakenUp = isLoading || (!hasChanged && config.server.watch);
  const how = isTakenUp ? "being loaded" : "waits for pmilter reload";
  const version = versionOf(sources);
  const what = version === "" ? "without handlers" : `as code ${version}`;
  return { state: "pending", message: `would serve ${what}, ${how}${restart}: ${changed}` };
}

/** The files of two configurations that differ, by name, with the verb. */
function changedFiles(before: Config, after: Config): string {
  const without = { filters: [], included: [], switchedOff: [] };
  const isSameElse = Bun.deepEquals({ ...before, ...without }, { ...after, ...without });
  const filtersIn = (config: Config, file: string) => config.filters.filter((filter) => filter.file === file);
  const isSame = (file: string): boolean =>
    (file !== after.file || isSameElse) &&
    before.included.includes(file) === after.included.includes(file) &&
    Bun.deepEquals(filtersIn(before, file), filtersIn(after, file));
  const files = [...new Set([after.file, ...before.included, ...after.included])].filter((file) => !isSame(file));
  const names = (files.length === 0 ? [after.file] : files).map((file) => basename(file));
  return `${names.join(", ")} ${names.length === 1 ? "has" : "have"}`;
}

function unreadableTask({ handler: { masterExit, postconfig } }: Config): LoadFailure | null {
  for (const file of [postconfig, masterExit]) {
    const message = file === null ? null : whyUnreadable(file);
    if (file !== null && message !== null) return { file, line: 0, column: 0, message };
  }
  return null;
}

/** In the files that differ from those that serve. */
function syntaxErrorIn({ files }: Sources, served: Sources | null): LoadFailure | null {
  for (const file of files) {
    if (served?.files.some(({ path, text }) => path === file.path && text === file.text) === true) continue;
    const error = syntaxErrorOf(file);
    if (error !== null) return { ...failureOf(error, file.path), file: file.path };
  }
  return null;
}

function tasksOf({ handler: { masterExit, postconfig } }: Config): (string | null)[] {
  return [postconfig, masterExit].map((file) => {
    try {
      return file === null ? null : readRegularFile(file).toString("utf8");
    } catch {
      return null;
    }
  });
}
