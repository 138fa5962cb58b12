/** One worker of a generation as the main thread sees it: how far it is, what it has, and whether it shows that it is alive. */
import type { SessionRecords } from "../../shared/session-records.ts";
import { BEAT_MS, type WorkerRows } from "../../shared/worker-rows.ts";
import type { PeerName } from "../../net/peer.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { ChainSummary, ResumedSession } from "../../shared/messages.ts";
import { WorkerMemory, type MemoryLook } from "./worker-memory.ts";
import { type WorkerEvents, WorkerThread } from "./worker-thread.ts";

/** Why a worker was lost: it did not return to its event loop, ended by itself, or held too much memory. */
export type LossCause = "blocked" | "died" | "memory";

/** A worker that is lost, and what is known of why. */
export interface Loss {
  readonly cause: LossCause;
  readonly slots: readonly number[];
  /** The slot whose handler ran when it was lost, null if that is not known. */
  readonly busySlot: number | null;
  /** When it was last seen to return to its event loop, on the clock of `performance.now()`; infinity if it was not silent. */
  readonly since: number;
}

/** What `pmilter status` tells of a worker. */
export interface WorkerStatus {
  readonly state: "loading" | "ready" | "leaving";
  readonly connections: number;
  readonly heapBytes: number;
  /** For so long it has not returned to its event loop; 0 if it does. */
  readonly blockedMs: number;
}

/** A worker whose beat was not seen for so long does not return to its event loop. */
const SILENT_MS = 2 * BEAT_MS;

export class Member {
  readonly place: number;
  /** Its row in `WorkerRows` and in the connection table. */
  readonly row: number;
  readonly thread: WorkerThread;
  /** Settles its loading. */
  readonly loading = Promise.withResolvers<ChainSummary>();
  /** Settles when it first accepts connections. */
  readonly listening = Promise.withResolvers<void>();
  /** `leaving`: it finishes its sessions and takes no more, since it holds too much memory. */
  state: "loading" | "ready" | "leaving" | "over" = "loading";
  /** Slots that were taken from it, since it is lost or has ended. */
  readonly taken: number[] = [];
  loss: Omit<Loss, "slots"> = { cause: "died", busySlot: null, since: Number.POSITIVE_INFINITY };
  readonly memory = new WorkerMemory();
  readonly #workerRows: WorkerRows;
  readonly #records: SessionRecords;
  readonly #table: ConnectionTable;
  readonly #startedAt = performance.now();
  #isToListen = false;
  /** The last beat that was seen, and for how many milliseconds no other has come. */
  #beat = 0;
  #silentMs = 0;
  #leavingSince = 0;

  /** Its thread is started. @param row taken for it */
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

  /** It has sessions, or can take some. */
  get isServing(): boolean {
    return this.state === "ready" || this.state === "leaving";
  }

  /** It returns to its event loop. */
  get isPrompt(): boolean {
    return this.#silentMs <= SILENT_MS;
  }

  /** For so long it has not. */
  get silentMs(): number {
    return this.#silentMs;
  }

  /** When it was last seen to return to its event loop, on the clock of `performance.now()`. */
  get silentSince(): number {
    return performance.now() - this.#silentMs;
  }

  /** Of one that is lost, what it has is somebody else's. */
  get connections(): number {
    return this.state === "over" ? 0 : this.#table.countOf(this.row);
  }

  /** As it said last. */
  get heapBytes(): number {
    return this.#workerRows.heapBytes(this.row);
  }

  /** What it said last, and what the process has grown by since: that may have been others. */
  get knownBytes(): number {
    return this.heapBytes + this.memory.grownBytes;
  }

  /** Whether it was last told to accept connections. */
  get isToListen(): boolean {
    return this.#isToListen;
  }

  /** Since its start, in milliseconds. */
  get livedMs(): number {
    return performance.now() - this.#startedAt;
  }

  /** Since it began to leave. */
  get leavingMs(): number {
    return performance.now() - this.#leavingSince;
  }

  /** Null once it is over. */
  get status(): WorkerStatus | null {
    const { connections, heapBytes, isPrompt, silentMs, state } = this;
    return state === "over" ? null : { state, connections, heapBytes, blockedMs: isPrompt ? 0 : silentMs };
  }

  /** @param rows of all workers that take sessions */
  listen(rows: readonly number[]): void {
    this.#isToListen = true;
    this.thread.post({ kind: "listen", rows });
  }

  pause(): void {
    if (!this.#isToListen) return;
    this.#isToListen = false;
    this.thread.post({ kind: "pause" });
  }

  /** What it accepted by was taken from it. @returns whether it was to listen */
  stopAccepting(): boolean {
    const wasToListen = this.#isToListen;
    this.#isToListen = false;
    return wasToListen;
  }

  /** Gives it a connection. @param descriptor a duplicate, the worker's from now on, once its record says that it has adopted it */
  give(slot: number, descriptor: number, peer: PeerName, resume: ResumedSession | null): void {
    this.#records.offer(slot);
    this.#table.give(slot, this.row, descriptor);
    this.thread.post({ kind: "adopt", slot, descriptor, peer, resume });
  }

  /** It takes no more sessions from now on. */
  leave(): void {
    this.state = "leaving";
    this.#leavingSince = performance.now();
    this.pause();
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
