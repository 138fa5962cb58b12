/** Starts and stops the filters of a chain in one thread: their `start()` and `stop()`. */
import { within } from "../within.ts";
import type { ChainFilter } from "./chain.ts";
import { failureOf, LoadError } from "./load-failure.ts";
import { type Services, servicesOf } from "./services.ts";
import type { FilterHome } from "./types.ts";

/** Maximum time that the `stop()` of one filter may keep its thread from ending. */
const STOP_TIMEOUT_MS = 5000;

/** A start has no end but its own. */
const NEVER = new AbortController().signal;

/**
 * Calls `start()` of each filter, in chain order, and keeps its result as the filter's `own`.
 * @param onStart told of each filter before its `start()`, which may never settle, and of what is to be said of it then
 * @throws LoadError if one fails: those behind it are not started
 */
export async function startFilters(
  filters: readonly ChainFilter[],
  home: Pick<FilterHome, "folder" | "isCheck">,
  services: Services,
  onStart: (filter: ChainFilter, failure: string) => void = () => {},
): Promise<void> {
  for (const filter of filters) {
    const { loaded, options } = filter;
    if (loaded.start === null) continue;
    const what = `start() of filter ${loaded.name} failed`;
    onStart(filter, what);
    try {
      const own = servicesOf(services, loaded.name, () => NEVER);
      filter.own = await loaded.start.call(loaded.self, options, { ...home, ...own });
    } catch (error) {
      const failure = failureOf(error, fileOf(filter));
      throw new LoadError({ ...failure, message: `${what}: ${failure.message}` }, error);
    }
  }
}

/** Calls `stop()` of each filter, in chain order; one that fails or takes too long keeps no other from being stopped. */
export async function stopFilters(
  filters: readonly ChainFilter[],
  onFailure: (filter: ChainFilter, error: unknown) => void,
): Promise<void> {
  for (const filter of filters) {
    const { loaded, own } = filter;
    try {
      const isInTime = await within(loaded.stop?.call(loaded.self, own), STOP_TIMEOUT_MS);
      if (!isInTime) throw new Error(`timed out after ${STOP_TIMEOUT_MS / 1000} s`);
    } catch (error) {
      onFailure(filter, error);
    }
  }
}

/** The file that a filter was loaded from; "" for a filter that came from none. */
export function fileOf({ files }: ChainFilter): string {
  return Object.values(files)[0] ?? "";
}
