/** Looks at the parts of a running server several times a second, and ends the process when it cannot serve any more. */
import { formatAddress } from "../config/address.ts";
import { residentBytes } from "../memory.ts";
import type { ControlSocket } from "./control/control-socket.ts";
import type { Coordinator } from "./coordinator.ts";
import type { CpuShare } from "./cpu-share.ts";
import type { Starvation } from "./listening/starvation.ts";
import { NO_WORKER_MS, WATCHDOG_MS } from "./policy.ts";
import type { Reloader } from "./reload.ts";
import type { ServerState } from "./server-state.ts";
import { WorkerThread } from "./workers/worker-thread.ts";

export interface Watched {
  readonly coordinator: Coordinator;
  readonly reloader: Reloader;
  readonly control: ControlSocket;
  readonly starvation: Starvation;
  readonly state: ServerState;
  readonly cpu: CpuShare;
}

export class Watchdog {
  readonly #watched: Watched;
  readonly #onFatal: (reason: string) => void;
  readonly #timer: ReturnType<typeof setInterval>;
  #lookedAt = performance.now();
  /** Milliseconds for which no worker could take sessions. */
  #withoutWorkerMs = 0;

  /** @param onFatal the server cannot serve any more; called at most once */
  constructor(watched: Watched, onFatal: (reason: string) => void) {
    this.#watched = watched;
    this.#onFatal = onFatal;
    this.#timer = setInterval(() => this.#look(), WATCHDOG_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const { control, coordinator, cpu, reloader, starvation, state } = this.#watched;
    const { connections, listeningSockets } = coordinator;
    const now = performance.now();
    const elapsedMs = this.#elapsedMs(now);
    const { isStopping } = state;
    const lost = isStopping ? null : listeningSockets.lost;
    if (lost !== null) {
      const where = formatAddress(lost);
      this.#end(`the socket at ${where} was closed by something else in this process, such as a handler`);
      return;
    }
    cpu.look();
    coordinator.look();
    if (starvation.look()) {
      listeningSockets.settle();
      if (!starvation.isOn) void reloader.reloadChanged();
    }
    state.look(now);
    listeningSockets.look();
    if (!isStopping) control.look();
    this.#lookAtWorkers(elapsedMs);
    reloader.watchAgain(now);
    connections.standIn(now);
    this.#lookForWorkers(now, elapsedMs);
  }

  /** Since the last look. A machine that was asleep, or a main thread without a core, does not count against the workers. */
  #elapsedMs(now: number): number {
    const { blockTimeoutMs } = this.#watched.reloader.config.server;
    const elapsedMs = Math.min(now - this.#lookedAt, Math.max(2 * WATCHDOG_MS, blockTimeoutMs / 4));
    this.#lookedAt = now;
    return elapsedMs;
  }

  #lookAtWorkers(elapsedMs: number): void {
    const { all } = this.#watched.coordinator.generations;
    const { workerMemory } = this.#watched.reloader.config.limits;
    const mostBytes = workerMemory * (1 + all.reduce((sum, { loads }) => sum + loads.length, 0));
    const resident = residentBytes();
    for (const generation of all) generation.watch(elapsedMs, resident, resident > mostBytes);
  }

  /** Without a worker nothing can be decided any more: a supervisor that starts the process again may help, waiting does not. */
  #lookForWorkers(now: number, elapsedMs: number): void {
    const { coordinator, state } = this.#watched;
    const { current } = coordinator.generations;
    this.#withoutWorkerMs = current === null || current.isReady ? 0 : this.#withoutWorkerMs + elapsedMs;
    const withoutMs = Math.max(this.#withoutWorkerMs, coordinator.connections.waitedMs(now));
    if (state.isStopping || withoutMs <= NO_WORKER_MS) return;
    const stuck = WorkerThread.stuck === 0 ? "" : ` (${WorkerThread.stuck} threads do not end)`;
    this.#end(`no worker could take sessions for ${NO_WORKER_MS / 1000} s${stuck}`);
  }

  #end(reason: string): void {
    this.stop();
    this.#onFatal(reason);
  }
}
