/** Stands for a Ruby handler that could not be loaded: each of its events gets the fallback. It needs no Opal. */
import type { AnyHandler } from "../handler/filter.ts";
import type { LoadFailure } from "../handler/load-failure.ts";

export function brokenHandler({ column, file, line, message }: LoadFailure): AnyHandler {
  return () => {
    const error = new Error(message);
    error.name = "LoadError";
    error.stack = `${error.name}: ${message}\n    at ${file}:${line}:${column}`;
    throw error;
  };
}
