/** A worker of a generation as the main thread sees it: its state, its connections, and whether it returns to its event loop. */
import type { SessionRecords } from "../../shared/session-records.ts";
import { BEAT_MS, type WorkerRows } from "../../shared/worker-rows.ts";
import type { LoadFailure } from "../../handler/load-failure.ts";
import type { PeerName } from "../../net/peer.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { ChainSummary, ResumedSession } from "../../shared/messages.ts";
import { Life, WORKER_TRANSITIONS, type WorkerState } from "./life.ts";
import { WorkerMemory, type MemoryLook } from "./worker-memory.ts";
import { type WorkerEvents, WorkerThread } from "./worker-thread.ts";

/** Why a worker was lost: it did not return to its event loop, ended by itself, or held too much memory. */
export type LossCause = "blocked" | "died" | "memory";

/** The loss of a worker: its sessions and the cause, as far as that is known. */
export interface Loss {
  readonly cause: LossCause;
  readonly slots: readonly number[];
  /** The slot whose handler ran when the worker was lost, null if that is not known. */
  readonly busySlot: number | null;
  /** When the worker was last seen to return to its event loop, on the clock of `performance.now()`; infinity if that was not looked at. */
  readonly since: number;
}

/** A worker in `pmilter status`. */
export interface WorkerStatus {
  readonly state: "loading" | "ready" | "leaving";
  readonly connections: number;
  readonly heapBytes: number;
  /** Milliseconds for which it has not returned to its event loop; 0 if it does. */
  readonly blockedMs: number;
}

/** A worker is silent, which means that it does not return to its event loop, if it gave no beat for so long. */
const SILENT_MS = 2 * BEAT_MS;

export class Member {
  readonly place: number;
  /** Its row in shared memory. */
  readonly row: number;
  readonly thread: WorkerThread;
  /** Settles when it has loaded its handlers, or failed to. */
  readonly loading = Promise.withResolvers<ChainSummary>();
  /** The step of loading that it takes: what has failed, should it never end. Null before the first. */
  step: LoadFailure | null = null;
  /** Settles when it first accepts connections. */
  readonly listening = Promise.withResolvers<void>();
  /** Slots that were taken from it and whose sessions have not been passed on. */
  readonly taken: number[] = [];
  loss: Omit<Loss, "slots"> = { cause: "died", busySlot: null, since: Number.POSITIVE_INFINITY };
  readonly memory = new WorkerMemory();
  readonly #life = new Life<WorkerState>("a worker", WORKER_TRANSITIONS, "loading");
  readonly #workerRows: WorkerRows;
  readonly #records: SessionRecords;
  readonly #table: ConnectionTable;
  readonly #startedAt = performance.now();
  /** The last beat that was seen, and the milliseconds since. */
  #beat = 0;
  #silentMs = 0;
  #leavingSince = 0;

  /** Starts its thread. @param row taken for it */
  constructor(
    place: number,
    row: number,
    workerUrl: URL,
    workerRows: WorkerRows,
    records: SessionRecords,
    table: ConnectionTable,
    events: WorkerEvents,
  ) {
    this.place = place;
    this.row = row;
    this.#workerRows = workerRows;
    this.#records = records;
    this.#table = table;
    this.thread = new WorkerThread(workerUrl, events);
  }

  get state(): WorkerState {
    return this.#life.state;
  }

  /** It takes sessions that it is given. */
  get isReady(): boolean {
    return this.#life.is("ready", "accepting");
  }

  /** It has sessions, or can take some. */
  get isServing(): boolean {
    return this.#life.is("ready", "accepting", "leaving");
  }

  /** Its connections were taken from it, or it never had any. */
  get isTaken(): boolean {
    return this.#life.is("ending", "over");
  }

  /** It returns to its event loop. */
  get isPrompt(): boolean {
    return this.#silentMs <= SILENT_MS;
  }

  /** Milliseconds for which it has not. */
  get silentMs(): number {
    return this.#silentMs;
  }

  /** When it was last seen to return to its event loop, on the clock of `performance.now()`. */
  get silentSince(): number {
    return performance.now() - this.#silentMs;
  }

  /** Number of its connections. A lost worker counts as having none: they have been reassigned. */
  get connections(): number {
    return this.isTaken ? 0 : this.#table.countOf(this.row);
  }

  /** Bytes of its heap at its last beat. */
  get heapBytes(): number {
    return this.#workerRows.heapBytes(this.row);
  }

  /** Bytes of its heap at its last beat, plus the growth of the process since, which may not be its own. */
  get knownBytes(): number {
    return this.heapBytes + this.memory.grownBytes;
  }

  /** Since its start, in milliseconds. */
  get livedMs(): number {
    return performance.now() - this.#startedAt;
  }

  /** Milliseconds since it began to leave. */
  get leavingMs(): number {
    return performance.now() - this.#leavingSince;
  }

  /** Null once its connections were taken. */
  get status(): WorkerStatus | null {
    const { connections, heapBytes, isPrompt, silentMs, state } = this;
    if (state === "ending" || state === "over") return null;
    const shown = state === "accepting" ? "ready" : state;
    return { state: shown, connections, heapBytes, blockedMs: isPrompt ? 0 : silentMs };
  }

  /** It has loaded its handlers. */
  loaded(): void {
    this.#life.to("ready");
  }

  /** It has not loaded its handlers, and has no connections. */
  failed(): void {
    if (this.#life.is("loading")) this.#life.to("over");
  }

  /** Has it accept connections. @param rows of all workers that take sessions */
  listen(rows: readonly number[]): void {
    if (!this.#life.is("accepting")) this.#life.to("accepting");
    this.thread.post({ kind: "listen", rows });
  }

  /** Has it accept no more connections. */
  pause(): void {
    if (!this.#life.is("accepting")) return;
    this.#life.to("ready");
    this.thread.post({ kind: "pause" });
  }

  /** Gives it a connection. @param descriptor a duplicate, the worker's from now on, once its record says that it has adopted it */
  give(slot: number, descriptor: number, peer: PeerName, resume: ResumedSession | null): void {
    this.#records.offer(slot);
    this.#table.give(slot, this.row, descriptor);
    this.thread.post({ kind: "adopt", slot, descriptor, peer, resume });
  }

  /** It takes no more sessions from now on. */
  leave(): void {
    this.pause();
    this.#life.to("leaving");
    this.#leavingSince = performance.now();
  }

  /** Its connections, and the sockets by which it accepts, are about to be taken. @returns whether it was to accept */
  end(): boolean {
    const wasAccepting = this.#life.is("accepting");
    if (!this.isTaken) this.#life.to("ending");
    return wasAccepting;
  }

  /** The sessions that were taken from it have been passed on. */
  passedOn(): void {
    if (this.#life.is("ending")) this.#life.to("over");
  }

  /** @param elapsedMs since the last look */
  look(elapsedMs: number, process: Pick<MemoryLook, "residentBytes" | "isShort" | "limit">): void {
    const beat = this.#workerRows.beats(this.row);
    const hasReturned = beat !== this.#beat;
    this.#silentMs = hasReturned ? 0 : this.#silentMs + elapsedMs;
    this.#beat = beat;
    this.memory.look({ ...process, elapsedMs, hasReturned, isSilent: !this.isPrompt, heapBytes: this.heapBytes });
  }
}
