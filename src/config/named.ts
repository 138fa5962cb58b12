/** Where the configuration names a file. */
import { basename } from "node:path";
import { PHASE_NAMES } from "../protocol/phases.ts";
import { readRegularFile } from "../regular-file.ts";
import type { Config, FilterConfig } from "./config.ts";
import { type KeyPath, locate, pathInWords } from "./locate.ts";

/**
 * The key and the line that name a handler's file: `filter 2: path, pmilter.toml:7`.
 * @param file as the configuration has it, made absolute
 * @returns null if it names no such handler
 */
export function whereNamed(config: Config, file: string): string | null {
  const phase = PHASE_NAMES.find((name) => config.handler.session[name] === file);
  const filter = phase === undefined ? config.filters.find(({ path }) => path === file) : undefined;
  if (phase === undefined && filter === undefined) return null;
  const key: KeyPath =
    phase === undefined ? ["filter", filter!.table, "path"] : ["handler", "session", `${phase}_handler`];
  const named = filter?.file ?? config.file;
  const line = locate(configText(named), key)?.line;
  return `${pathInWords(key)}, ${basename(named)}${line === undefined ? "" : `:${line}`}`;
}

/** A key of a filter's table with its place: `filter 2: when.senders, pmilter.toml:12`. */
export function whereSet({ file, table }: FilterConfig, ...key: readonly string[]): string {
  const path: KeyPath = ["filter", table, ...key];
  const line = locate(configText(file), path)?.line;
  return `${pathInWords(path)}, ${basename(file)}${line === undefined ? "" : `:${line}`}`;
}

/**
 * The text of a configuration, to find places in. "" if it cannot be read any more, or not with the rights that are left:
 * then no line is told.
 */
export function configText(file: string): string {
  try {
    return readRegularFile(file)
      .toString("utf8")
      .replace(/^\uFEFF/, "");
  } catch {
    return "";
  }
}
