/** The keys of `[server]` that a start alone reads, from their mark in the schema. */
import type { Config } from "./config.ts";
import { ROOT } from "./reference.ts";

/** By name in the file, in alphabetical order. */
export const RESTART_KEYS: readonly string[] = [...ROOT.tables.get("server")!.keys.values()]
  .filter(({ restart }) => restart === true)
  .map(({ name }) => name)
  .toSorted();

/** The keys that differ between two configurations and need a restart, as `server.listen`. */
export function needRestart(before: Config, after: Config): string[] {
  return RESTART_KEYS.filter((key) => !Bun.deepEquals(valueOf(before, key), valueOf(after, key))).map(
    (key) => `server.${key}`,
  );
}

/** The value of a key, which the configuration has in camelCase. */
export function valueOf({ server }: Config, key: string): unknown {
  return server[key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()) as keyof typeof server];
}
