/**
 * The store in a Redis or Valkey, which several machines share. Each operation is one command or one script, so it is
 * atomic there. Bun's client has no time for a command and gives up for ever after some retries: each operation has its
 * time here, and a connection that fails is replaced by a new one.
 */
import { RedisClient } from "bun";
import { reason } from "../../errors.ts";
import {
  isBehind,
  type Json,
  noNumber,
  type Operation,
  PAGE_BYTES,
  pageOf,
  type Result,
  StoreFailure,
  type Taken,
  takenOf,
  tooLarge,
} from "../../store/operations.ts";
import { nameOfStore } from "../../store/settings.ts";

export interface RedisSettings {
  readonly url: string;
  /** For each operation. */
  readonly timeoutMs: number;
}

/** Between two attempts to connect: doubled each time, from the first to the second. */
const [RETRY_MS, MAX_RETRY_MS] = [50, 2000];
/** In front of each key: other programs may share the server. */
const PREFIX = "pmilter:";
/** Keys that are looked at in one step of a listing. */
const SCAN = 1000;
/** Values that are got at a time. */
const GET = 32;

const INCREMENT = `
local value = redis.call("GET", KEYS[1])
local number = 0
if value then
  number = tonumber(value)
  if not number then return redis.error_reply("NONUMBER") end
end
number = number + tonumber(ARGV[1])
if math.abs(number) > 9007199254740991 then return redis.error_reply("TOOLARGE") end
local text = string.format("%.17g", number)
if value then redis.call("SET", KEYS[1], text, "KEEPTTL")
elseif ARGV[2] == "" then redis.call("SET", KEYS[1], text)
else redis.call("SET", KEYS[1], text, "PX", ARGV[2]) end
return text`;
const TAKE = `
local used = tonumber(redis.call("GET", KEYS[1]) or "0")
local cost, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local left = redis.call("PTTL", KEYS[1])
if left > tonumber(ARGV[3]) then
  redis.call("PEXPIRE", KEYS[1], ARGV[3])
  left = tonumber(ARGV[3])
end
if used + cost > limit then
  if left < 0 then left = tonumber(ARGV[3]) end
  return {0, tostring(used), left}
end
if left < 0 then redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[3])
else redis.call("SET", KEYS[1], string.format("%.17g", used + cost), "KEEPTTL") end
return {1, string.format("%.17g", used + cost), 0}`;
const GIVE_BACK = `
local used = redis.call("GET", KEYS[1])
if used then
  redis.call("SET", KEYS[1], string.format("%.17g", math.max(0, tonumber(used) - tonumber(ARGV[1]))), "KEEPTTL")
end
return 0`;

export class RedisStore {
  readonly #settings: RedisSettings;
  readonly #name: string;
  #client: RedisClient | null = null;
  #connecting: Promise<RedisClient> | null = null;
  #retryMs = RETRY_MS;
  #retryAt = 0;
  /** Why the last attempt failed. */
  #problem = "it is not connected";
  #isClosed = false;

  /** When the server last answered, on the clock of `performance`. */
  #answeredAt = 0;

  constructor(settings: RedisSettings) {
    this.#settings = settings;
    this.#name = nameOfStore(settings.url);
  }

  /** @throws StoreFailure if it is not done in time: then it is not known whether it was done */
  async run(operation: Operation): Promise<Result> {
    const { timeoutMs } = this.#settings;
    const begunAt = performance.now();
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      // It hangs, unless it has answered others meanwhile: later operations get a connection of their own.
      if (this.#answeredAt < begunAt) this.#drop();
      reject(new StoreFailure(`no answer of ${this.#name} in ${timeoutMs} ms`));
    }, timeoutMs);
    const done = this.#do(operation);
    // It may fail after its time.
    done.catch(() => {});
    try {
      return await Promise.race([done, late]);
    } catch (error) {
      if (error instanceof StoreFailure) throw error;
      throw new StoreFailure(`${this.#name}: ${reason(error)}`);
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#drop();
  }

  #drop(): void {
    const client = this.#client;
    this.#client = null;
    this.#connecting = null;
    client?.close();
  }

  async #connected(): Promise<RedisClient> {
    if (this.#client?.connected === true) return this.#client;
    if (this.#connecting !== null) return this.#connecting;
    if (this.#isClosed) throw new StoreFailure("the store is closed");
    if (performance.now() < this.#retryAt) throw new StoreFailure(`${this.#name}: ${this.#problem}`);
    const connecting = this.#connect();
    this.#connecting = connecting;
    const over = (): void => {
      if (this.#connecting === connecting) this.#connecting = null;
    };
    connecting.then(over, over);
    return connecting;
  }

  async #connect(): Promise<RedisClient> {
    this.#client?.close();
    const client = new RedisClient(this.#settings.url, {
      autoReconnect: false,
      enableOfflineQueue: false,
      enableAutoPipelining: true,
      connectionTimeout: this.#settings.timeoutMs,
    });
    this.#client = client;
    client.onclose = (error) => {
      this.#problem = reason(error);
      if (this.#client === client) this.#drop();
    };
    try {
      await client.connect();
      this.#retryMs = RETRY_MS;
      return client;
    } catch (error) {
      this.#problem = reason(error);
      this.#retryAt = performance.now() + this.#retryMs;
      this.#retryMs = Math.min(MAX_RETRY_MS, this.#retryMs * 2);
      throw error;
    }
  }

  async #do(operation: Operation): Promise<Result> {
    const client = await this.#connected();
    const send = async (command: string, ...args: string[]): Promise<unknown> => {
      const answer: unknown = await client.send(command, args);
      this.#answeredAt = performance.now();
      return answer;
    };
    if (operation.kind === "entries") return this.#entries(operation, send);
    const key = `${beginning(operation.filter, isOfWindow(operation) ? "w" : "v")}${operation.key}`;
    switch (operation.kind) {
      case "get":
        return (await send("GET", key)) as Json | null;
      case "set":
        await send("SET", key, operation.value, ...expiry(operation.ttl));
        return null;
      case "delete":
        return (await send("DEL", key)) === 1;
      case "increment":
        try {
          return Number(await send("EVAL", INCREMENT, "1", key, String(operation.by), milliseconds(operation.ttl)));
        } catch (error) {
          if (reason(error).includes("NONUMBER")) throw noNumber(operation.key);
          if (reason(error).includes("TOOLARGE")) throw tooLarge(operation.key);
          throw error;
        }
      case "claim":
        return (await send("SET", key, "true", "NX", ...expiry(operation.ttl))) === "OK";
      case "take": {
        const { cost, limit, per } = operation;
        const [ok, used, left] = (await send(
          "EVAL",
          TAKE,
          "1",
          key,
          String(cost),
          String(limit),
          milliseconds(per),
        )) as [number, string, number];
        return takenOf(Number(used), limit, ok === 1, left) satisfies Taken;
      }
      case "giveBack":
        await send("EVAL", GIVE_BACK, "1", key, String(operation.cost));
        return null;
      default:
        return operation satisfies never;
    }
  }

  async #entries(
    { after, filter, limit, prefix }: Extract<Operation, { kind: "entries" }>,
    send: (command: string, ...args: string[]) => Promise<unknown>,
  ): Promise<Result> {
    const before = beginning(filter, "v");
    const pattern = `${`${before}${prefix}`.replaceAll(/[\\*?[\]]/g, "\\$&")}*`;
    let found = new Set<string>();
    let cursor = "0";
    do {
      const [next, keys] = (await send("SCAN", cursor, "MATCH", pattern, "COUNT", String(SCAN))) as [string, string[]];
      for (const key of keys) if (after === null || isBehind(key.slice(before.length), after)) found.add(key);
      // The least of them are enough.
      if (found.size > limit + 10 * SCAN) found = new Set(inOrder(found).slice(0, limit));
      cursor = next;
    } while (cursor !== "0");
    const keys = inOrder(found);
    const entries: (readonly [string, Json])[] = [];
    let bytes = 0;
    let at = 0;
    while (at < keys.length && entries.length < limit && bytes < PAGE_BYTES) {
      const some = keys.slice(at, at + GET);
      at += some.length;
      const values = (await send("MGET", ...some)) as (string | null)[];
      for (const [index, key] of some.entries()) {
        const value = values[index];
        // One that expired meanwhile is not there any more.
        if (value == null) continue;
        entries.push([key.slice(before.length), value]);
        bytes += value.length;
      }
    }
    const page = pageOf(entries, limit);
    return page.isFull || at === keys.length ? page : { ...page, isFull: true };
  }
}

function inOrder(keys: Iterable<string>): string[] {
  return [...keys].sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)));
}

/** What stands in front of the keys of a filter; `:` in its name must not be taken for the end of it. */
function beginning(filter: string, kind: "v" | "w"): string {
  return `${PREFIX}${filter.replaceAll(/[%:]/g, encodeURIComponent)}:${kind}:`;
}

function isOfWindow({ kind }: Operation): boolean {
  return kind === "take" || kind === "giveBack";
}

/** Redis takes whole milliseconds from 1. */
function milliseconds(ttl: number | null): string {
  return ttl === null ? "" : String(Math.max(1, Math.ceil(ttl)));
}

function expiry(ttl: number | null): string[] {
  return ttl === null ? [] : ["PX", milliseconds(ttl)];
}
