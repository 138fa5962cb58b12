/**
 * Finds mistakes in the handlers that a reload has brought, such as type errors, by reading them, and logs them after the
 * handlers serve. Nothing waits for it.
 */
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "../../admin/log.ts";
import { formatProblem } from "../../check/problem.ts";
import type { Config } from "../../config/config.ts";
import { isTypeScript, type Sources } from "../../load/sources.ts";
import { toError } from "../../errors.ts";
import { judgeSources, type TaskOutput } from "../workers/tasks.ts";

/** Milliseconds from a reload to its review: another save may follow soon, and sessions come first. */
const REVIEW_AFTER_MS = 2000;
/** Maximum time in milliseconds for a review. */
const REVIEW_TIMEOUT_MS = 150_000;
/** Maximum number of problems that get a line each. */
const MAX_TOLD = 20;

export class Review {
  readonly #workerUrl: URL;
  readonly #log: Log;
  readonly #output: TaskOutput;
  /** Reviews that have not settled, each with the controller that ends it. All but the last are ending. */
  readonly #running = new Map<Promise<void>, AbortController>();

  constructor(workerUrl: URL, log: Log, output: TaskOutput) {
    this.#workerUrl = workerUrl;
    this.#log = log;
    this.#output = output;
  }

  /** Reviews handlers that serve from now on, and ends the review of those before. */
  start(config: Config, sources: Sources): void {
    void this.cancel();
    if (!sources.files.some(({ path }) => isTypeScript(path))) return;
    const abort = new AbortController();
    const running = this.#run(config, sources, abort.signal);
    this.#running.set(running, abort);
    void running.then(() => this.#running.delete(running));
  }

  /** Ends all reviews; settles when they have ended. */
  async cancel(): Promise<void> {
    for (const abort of this.#running.values()) abort.abort(new Error("it is not wanted any more"));
    await Promise.all(this.#running.keys());
  }

  async #run(config: Config, sources: Sources, signal: AbortSignal): Promise<void> {
    const limits = { timeoutMs: REVIEW_TIMEOUT_MS, signal };
    try {
      await sleep(REVIEW_AFTER_MS, undefined, { signal, ref: false });
      const { problems } = await judgeSources(this.#workerUrl, config, sources, limits, this.#output);
      const folder = dirname(config.file);
      for (const problem of problems.slice(0, MAX_TOLD)) {
        const [text = ""] = problem.text.split("\n", 1);
        this.#log.write("warn", `reload: ${formatProblem({ ...problem, text }, folder)}`);
      }
      const more = problems.length - MAX_TOLD;
      if (more > 0) this.#log.write("warn", `reload: ${more} more problems in handlers: pmilter check shows them`);
    } catch (error) {
      if (!signal.aborted) this.#log.write("info", `reload: handlers were not checked: ${toError(error).message}`);
    }
  }
}
