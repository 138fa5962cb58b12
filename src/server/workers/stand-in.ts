/**
 * The stand-in: a worker without handlers that gives every connection the fallback, while no worker of the current
 * generation can take it. It is started before it is needed, and ended once workers take sessions again.
 */
import type { Config } from "../../config/config.ts";
import { type FallbackVerdict, strictest } from "../../handler/fallback.ts";
import { STAND_IN_RETRY_MS } from "../policy.ts";
import type { Generation, GenerationEvents, GenerationOptions } from "./generation.ts";

export interface StandInHost {
  /** A generation that is not loaded yet. */
  make(options: Pick<GenerationOptions, "number" | "config" | "workers" | "standIn">): Generation;
  /** The generation that takes new sessions; null while the first generation loads. */
  current(): Generation | null;
  isStopping(): boolean;
  /** Lets the stand-in end with the sessions that it has. */
  dismiss(standIn: Generation): void;
  log: GenerationEvents["log"];
}

export class StandIn {
  readonly #host: StandInHost;
  readonly #firstConfig: Config;
  #generation: Generation | null = null;
  /** It has been used since it was started, which was logged. */
  #isUsed = false;
  #triedAt = Number.NEGATIVE_INFINITY;

  /** @param config of the first generation: the fallback comes from it while that loads */
  constructor(config: Config, host: StandInHost) {
    this.#firstConfig = config;
    this.#host = host;
  }

  /** The stand-in as it is, ready or not. */
  get generation(): Generation | null {
    return this.#generation;
  }

  /** Starts it: it may soon be needed. */
  prepare(): void {
    const host = this.#host;
    if (this.#generation !== null || host.isStopping()) return;
    if (performance.now() - this.#triedAt < STAND_IN_RETRY_MS) return;
    this.#triedAt = performance.now();
    this.#isUsed = false;
    const config = host.current()?.config ?? this.#firstConfig;
    const standIn = host.make({ number: 0, config, workers: 1, standIn: fallbackOf(config) });
    this.#generation = standIn;
    standIn.load().then(
      () => {
        const current = host.current();
        if (current?.isReady === true) standIn.release(current.summary);
      },
      (error: unknown) => {
        this.#generation = null;
        const what = "the worker that gives the fallback could not be started";
        if (!host.isStopping()) this.#host.log("crit", `${what}: ${String(error)}`, {}, what);
      },
    );
  }

  /** Gives the stand-in to be used now, and logs the first use. @returns null while it is not ready */
  use(): Generation | null {
    if (this.#generation?.isReady !== true) return null;
    if (!this.#isUsed) this.#logUse(fallbackOf(this.#generation.config));
    this.#isUsed = true;
    return this.#generation;
  }

  #logUse(outcome: FallbackVerdict): void {
    const current = this.#host.current();
    if (current === null) {
      this.#host.log(
        "warn",
        `the handlers are still loading; until they are loaded, connections get the fallback: ${outcome}`,
      );
    } else if (current.isReady) {
      this.#host.log(
        "warn",
        `workers are being lost; sessions that have waited too long for a worker get the fallback: ${outcome}`,
      );
    } else {
      this.#host.log("crit", `no worker can take sessions; until one can, connections get the fallback: ${outcome}`);
    }
  }

  /** Ends it if workers take sessions again, with the sessions that it has. */
  dismiss(): void {
    const current = this.#host.current();
    const standIn = this.#generation;
    if (standIn === null || current?.isReady !== true || !standIn.isReady || current.isLosingWorkers) return;
    this.#generation = null;
    standIn.release(current.summary);
    if (this.#isUsed) this.#host.log("notice", "workers take sessions again");
    this.#host.dismiss(standIn);
  }
}

/** The fallback for connections that no worker can take: the strictest of the filters of this configuration. */
function fallbackOf({ filters, handler, server }: Config): FallbackVerdict {
  if (!server.handler) return strictest([]);
  const phaseFiles = Object.keys(handler.session).length > 0 ? [server.onError] : [];
  const enforced = filters.filter(({ mode }) => mode !== "observe");
  return strictest([...phaseFiles, ...enforced.map(({ onError }) => onError ?? server.onError)]);
}
