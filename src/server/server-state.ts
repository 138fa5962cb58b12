/** The running server as its status shows it, read from its parts. */
import type { Output } from "../admin/output.ts";
import type { Log } from "../admin/log.ts";
import type { ListenAddress } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import type { Counters, Counts } from "../counters.ts";
import { FallbackRate, type LastMinute } from "./control/fallback-rate.ts";
import { type RecentFailure, RecentFailures } from "./control/recent-failures.ts";
import type { StatusSource } from "./control/status.ts";
import type { Coordinator } from "./coordinator.ts";
import type { DiskStatus } from "./files/disk.ts";
import type { ReloadResult, Reloader } from "./reload.ts";
import type { Generation } from "./workers/generation.ts";

export interface StateParts {
  readonly coordinator: Coordinator;
  readonly reloader: Reloader;
  readonly counters: Counters;
  readonly log: Log;
  readonly prints: Output;
  /** The path of the state folder. */
  readonly state: string;
}

export class ServerState implements StatusSource {
  readonly state: string;
  isStopping = false;
  readonly #parts: StateParts;
  readonly #fallbackRate = new FallbackRate(performance.now());
  readonly #failures = new RecentFailures();

  /** From now on notes the failures that are logged. */
  constructor(parts: StateParts) {
    this.#parts = parts;
    this.state = parts.state;
    parts.log.onLine = (text, fields) => this.#failures.note(text, fields);
  }

  /** To be called several times a second. */
  look(now: number): void {
    this.#fallbackRate.look(now, () => this.counts);
  }

  get config(): Config {
    return this.#parts.reloader.config;
  }

  get addresses(): ListenAddress[] {
    return this.#parts.coordinator.listeningSockets.addresses;
  }

  get unreachable(): ListenAddress[] {
    return this.#parts.coordinator.listeningSockets.unreachable;
  }

  get closedBecause(): string | null {
    return this.#parts.coordinator.listeningSockets.closedBecause;
  }

  get connections(): number {
    return this.#parts.coordinator.table.total;
  }

  get waiting(): number {
    return this.#parts.coordinator.connections.waiting;
  }

  get isStarting(): boolean {
    return this.#parts.coordinator.generations.current === null;
  }

  get generation(): Generation {
    return this.#parts.coordinator.generations.current!;
  }

  get generations(): readonly Generation[] {
    return this.#parts.coordinator.generations.all;
  }

  get nextGeneration(): Generation | null {
    return this.#parts.coordinator.generations.next;
  }

  get oldGenerations(): readonly Generation[] {
    return this.#parts.coordinator.generations.old;
  }

  get counts(): Counts {
    const { coordinator, counters, log, prints } = this.#parts;
    const totals = counters.totals(coordinator.rows.counters());
    return { ...totals, linesDropped: totals.linesDropped + log.dropped + prints.dropped };
  }

  get lastMinute(): LastMinute {
    return this.#fallbackRate.lastMinute(performance.now(), this.counts);
  }

  get failures(): readonly RecentFailure[] {
    return this.#failures.all;
  }

  get lastReload(): ReloadResult | null {
    return this.#parts.reloader.lastReload;
  }

  lookAtDisk(): DiskStatus {
    return this.#parts.reloader.lookAtDisk();
  }
}
