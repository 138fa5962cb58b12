/** Options of a filter that its schema refuses, as an error of the configuration: with the line and column of each key. */
import type { FilterConfig } from "../config/config.ts";
import { ConfigError, printable } from "../config/errors.ts";
import { type KeyPath, locate, locator, pathInWords } from "../config/locate.ts";
import { configText } from "../config/named.ts";
import { LoadError, type LoadFailure } from "../handler/load-failure.ts";
import type { OptionsError } from "../handler/options.ts";

/** Most characters of a schema's message that are shown. */
const MAX_TEXT = 1000;

/** The table of a filter's options, or that of the filter. */
export function placeOfOptions({ file, table }: FilterConfig): Omit<LoadFailure, "message"> {
  const place = locate(configText(file), ["filter", table, "options"]);
  return { file, line: place?.line ?? 0, column: place?.column ?? 0 };
}

export function refusedOptions({ file, table }: FilterConfig, error: OptionsError): LoadError {
  const source = configText(file);
  const find = locator(source);
  const issues = error.problems.map(({ path, text }) => {
    const key: KeyPath = ["filter", table, "options", ...path];
    return { key: pathInWords(key), text: printable(text.slice(0, MAX_TEXT)), ...find(key) };
  });
  return new LoadError(new ConfigError(file, issues, source).failure, error);
}
