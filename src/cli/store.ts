/** `pmilter store`: what filters remember, for administrators. It opens the store itself, also while a server uses it. */
import { existsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { PlainError, reason } from "../errors.ts";
import type { JsonValue } from "../json.ts";
import type { Status } from "../server/control/status.ts";
import { StateFolder } from "../server/rights/state-folder.ts";
import { storeOf, type StoreSource } from "../store/client.ts";
import { MAX_ENTRIES, type Operation, type ResultOf, StoreFailure } from "../store/operations.ts";
import { nameOfStore, sqlitePath } from "../store/settings.ts";
import { StoreError, type Store } from "../store/types.ts";
import { UsageError } from "../usage-error.ts";
import type { StoreArguments } from "./args.ts";
import { askServerOf, NoServerError } from "./find-server.ts";

/** The store could not do it; said to the user as it is. */
export class StoreCommandError extends PlainError {
  override readonly name = "StoreCommandError";
}

/** An administrator can wait longer than a filter. */
const TIMEOUT_MS = 5000;

interface Opened extends Disposable {
  readonly source: StoreSource;
}

/** @returns the exit code: 1 if there is no such value */
export async function store(configFile: string, asked: StoreArguments): Promise<number> {
  const config = loadConfig(configFile);
  try {
    using opened = await open(config, configFile);
    return await run(
      storeOf(opened.source, asked.filter, () => new AbortController().signal),
      asked,
    );
  } catch (error) {
    if (error instanceof PlainError) throw error;
    if (error instanceof UsageError || error instanceof StoreError) {
      throw new StoreCommandError(error.message, { cause: error });
    }
    throw new StoreCommandError(`store: ${nameOfStore(config.store.url)}: ${reason(error)}`, { cause: error });
  }
}

async function run(values: Store, { action, key, ttl, value }: StoreArguments): Promise<number> {
  switch (action) {
    case "get": {
      const found = await values.get(key);
      if (found === undefined) return 1;
      print(found);
      return 0;
    }
    case "set":
      await values.set(key, readValue(value), ttl === undefined ? {} : { ttl });
      return 0;
    case "delete":
      return (await values.delete(key)) ? 0 : 1;
    case "list": {
      let after: string | undefined;
      for (;;) {
        const entries = await values.entries(key, after === undefined ? {} : { after });
        for (const [name, each] of entries) print({ key: name, value: each });
        if (entries.length < MAX_ENTRIES) return 0;
        after = entries.at(-1)![0];
      }
    }
    default:
      return action satisfies never;
  }
}

/** JSON escapes what a terminal would obey, except for DEL and its like. */
function print(value: unknown): void {
  const text = JSON.stringify(value).replaceAll(
    /[\u007f-\u009f\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  process.stdout.write(`${text}\n`);
}

function readValue(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    throw new StoreCommandError(
      `expected the value as JSON, such as 5, true or '"text"', got ${JSON.stringify(text.slice(0, 80))}`,
    );
  }
}

async function open(config: Config, configFile: string): Promise<Opened> {
  const { maxBytes, url } = config.store;
  const path = sqlitePath(url);
  if (path === null) {
    const { RedisStore } = await import("../services/store/redis.ts");
    const remote = new RedisStore({ url, timeoutMs: TIMEOUT_MS });
    return {
      source: sourceOf((operation) => remote.run(operation)),
      [Symbol.dispose]: () => remote.close(),
    };
  }
  const file = isAbsolute(path) ? path : join(await stateFolder(config, configFile), path);
  // A file that this made might belong to another user than the server's.
  if (!existsSync(file)) throw new StoreCommandError(`there is no store yet: ${file}`);
  const { SqliteStore } = await import("../services/store/sqlite.ts");
  const local = new SqliteStore({ file, maxBytes, timeoutMs: TIMEOUT_MS, dropped: () => {} });
  return {
    source: sourceOf(async (operation) => local.run([operation], Date.now())[0]!),
    [Symbol.dispose]: () => local.close(),
  };
}

function sourceOf(run: (operation: Operation) => Promise<unknown>): StoreSource {
  return {
    async run<O extends Operation>(operation: O) {
      const result = await run(operation).catch((error: unknown) => {
        if (error instanceof StoreFailure) return error;
        throw error;
      });
      if (result instanceof StoreFailure) throw new StoreError(`store: ${result.message}`);
      return result as ResultOf[O["kind"]];
    },
  };
}

/** The running server knows it: a service may have another environment than this command. */
async function stateFolder(config: Config, configFile: string): Promise<string> {
  try {
    return ((await askServerOf(configFile, "status")) as Status).state;
  } catch (error) {
    if (!(error instanceof NoServerError)) throw error;
    return new StateFolder(config.server.state, config.file).path;
  }
}
