/** The folder that paths in options are relative to, while a schema is applied: a Standard Schema gets nothing but the value. */
import { AsyncLocalStorage } from "node:async_hooks";

const folders = new AsyncLocalStorage<string>();

/** Runs `apply`, and what it awaits, with the folder of the configuration. */
export function inFolder<T>(folder: string, apply: () => T): T {
  return folders.run(folder, apply);
}

/** The working directory outside of {@link inFolder}, as in a filter's own tests. */
export function folderInUse(): string {
  return folders.getStore() ?? process.cwd();
}
