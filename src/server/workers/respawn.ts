/** Replaces lost workers, each in its place: at once the first time, then after delays that grow with each failure. */
import type { LogFields } from "../../admin/log.ts";
import type { LogLevel } from "../../admin/log-level.ts";
import { MAX_STUCK, respawnDelay, STABLE_MS, STUCK_RETRY_MS } from "../policy.ts";
import { WorkerThread } from "./worker-thread.ts";

export interface RespawnHost {
  /** Starts a worker in this place; settles when it has loaded, or rejects. */
  spawn(place: number): Promise<unknown>;
  /** No worker is started any more. */
  startsNone(): boolean;
  log(level: LogLevel, text: string, fields?: LogFields, of?: string): void;
}

export class Respawn {
  readonly #host: RespawnHost;
  readonly #places: number;
  /** Number of workers that died in a row, by place. */
  readonly #deaths: number[];

  /** @param places of workers that are replaced: those of further workers are not, see `Reinforcement` */
  constructor(places: number, host: RespawnHost) {
    this.#host = host;
    this.#places = places;
    this.#deaths = new Array<number>(places).fill(0);
  }

  /** Replaces a worker that did not end by itself. */
  replace(place: number): void {
    if (place < this.#places) this.#spawn(place);
  }

  /** Replaces a worker that has ended by itself. @param livedMs milliseconds since its start */
  replaceDead(place: number, livedMs: number): void {
    if (place < this.#places) this.#after(this.#delay(place, livedMs, true), place);
  }

  #delay(place: number, livedMs: number, hasLoaded: boolean): number {
    const deaths = livedMs < STABLE_MS ? this.#deaths[place]! + 1 : 1;
    this.#deaths[place] = deaths;
    return respawnDelay(deaths, hasLoaded);
  }

  #after(delayMs: number, place: number): void {
    if (delayMs === 0) this.#spawn(place);
    else setTimeout(() => this.#spawn(place), delayMs);
  }

  #spawn(place: number): void {
    const host = this.#host;
    if (host.startsNone()) return;
    if (WorkerThread.ending >= MAX_STUCK) {
      const held = `${WorkerThread.ending} threads do not end`;
      const what = "a worker is not replaced";
      host.log("crit", `${what} while ${held}: each takes memory`, {}, what);
      this.#after(STUCK_RETRY_MS, place);
      return;
    }
    const startedAt = performance.now();
    host.spawn(place).catch((error: unknown) => {
      if (host.startsNone()) return;
      const what = "a worker could not be replaced";
      host.log("crit", `${what}: ${String(error)}`, {}, what);
      // Also where no thread could be started at all: it is tried again at once only after a long attempt.
      this.#after(this.#delay(place, performance.now() - startedAt, false), place);
    });
  }
}
