/** What filters do when the store fails: the option, and a warning that does not fill the log. */
import { type Log, type Store, StoreError } from "pmilter";
import { picklist } from "pmilter/options";
import { option } from "./options.ts";

export const ON_STORE_FAILURE = option(
  picklist(["pass", "tempfail"] satisfies OnStoreFailure[]),
  "pass",
  "while the store does not answer: `pass` lets mail pass, `tempfail` refuses it for now; both with a warning in the log once a minute",
);

export type OnStoreFailure = "pass" | "tempfail";

const BETWEEN_WARNINGS_MS = 60_000;

export class StoreTrouble {
  #warnedAt = -Infinity;
  #more = 0;

  /**
   * Says so in the log, once a minute for each worker.
   * @throws what is no failure of the store
   */
  report(error: unknown, log: Log, effect: string): void {
    if (!(error instanceof StoreError)) throw error;
    const now = performance.now();
    if (now - this.#warnedAt < BETWEEN_WARNINGS_MS) {
      this.#more += 1;
      return;
    }
    log.warn(`${error.message}; ${effect}`, this.#more === 0 ? {} : { failures_since_last: this.#more });
    this.#warnedAt = now;
    this.#more = 0;
  }
}

/** Asks the store before the first message does, so that no message waits for it to be opened. A failure is told with the mail. */
export async function openStore(store: Store): Promise<void> {
  try {
    await store.get("opened");
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
  }
}
