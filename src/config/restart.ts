/** The keys of `[server]`, and the tables, that a start alone reads, from the marks in the schema. */
import type { Config } from "./config.ts";
import { ROOT } from "./reference.ts";

/** By name in the file, in alphabetical order. */
export const RESTART_KEYS: readonly string[] = [...ROOT.tables.get("server")!.keys.values()]
  .filter(({ restart }) => restart === true)
  .map(({ name }) => name)
  .toSorted();

/** Tables of whose keys each needs a restart: they are compared as wholes. */
const RESTART_TABLES = ["dns", "store"] as const satisfies readonly (keyof Config)[];

/** What differs between two configurations and needs a restart: keys as `server.listen`, tables as `[dns]`. */
export function needRestart(before: Config, after: Config): string[] {
  const keys = RESTART_KEYS.filter((key) => !Bun.deepEquals(valueOf(before, key), valueOf(after, key))).map(
    (key) => `server.${key}`,
  );
  const tables = RESTART_TABLES.filter((table) => !Bun.deepEquals(before[table], after[table]));
  return [...keys, ...tables.map((table) => `[${table}]`)];
}

/** The value of a key, which the configuration has in camelCase. */
export function valueOf({ server }: Config, key: string): unknown {
  return server[key.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()) as keyof typeof server];
}
