/**
 * Connects the three parts that move connections. The generations run sessions in workers. The connections are sessions that
 * no worker has accepted for itself, or whose worker is lost: they call the generations to place them. The listening sockets
 * have workers accept, or accept for them: they call the generations as well. In the other direction, and between the last
 * two, there are only events. Each part has an interface for its events, the coordinator implements all three, and its
 * methods show where each event leads.
 */
import type { BlockList } from "node:net";
import type { Log, LogFields } from "../admin/log.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { Config } from "../config/config.ts";
import type { Counters, ServerCounter } from "../counters.ts";
import { close } from "../net/libc.ts";
import { allowedBy, isAllowed, type PeerName, NOT_ALLOWED, notAllowed } from "../net/peer.ts";
import type { ConnectionTable } from "../shared/connection-table.ts";
import type { SessionRecords } from "../shared/session-records.ts";
import type { ServicesLine } from "../shared/service-messages.ts";
import type { NoSpoolLine, SpoolLine } from "../shared/spool-messages.ts";
import type { WorkerRows } from "../shared/worker-rows.ts";
import type { PassedConnection } from "../shared/messages.ts";
import { Connections, type ConnectionsHost } from "./handover/connections.ts";
import { ConnectionRoom, descriptorLimit } from "./listening/descriptors.ts";
import { ListeningSockets, type ListeningSocketsHost } from "./listening/listening-sockets.ts";
import type { Starvation } from "./listening/starvation.ts";
import type { Generation, GenerationEvents, Release } from "./workers/generation.ts";
import { Generations } from "./workers/generations.ts";
import type { Loss } from "./workers/member.ts";
import type { ServicesThread } from "./workers/services-thread.ts";
import type { SpoolThread } from "./workers/spool-thread.ts";
import { RowPool } from "./workers/row-pool.ts";

export interface CoordinatorOptions {
  readonly workerUrl: URL;
  readonly config: Config;
  readonly workerRows: WorkerRows;
  readonly records: SessionRecords;
  readonly table: ConnectionTable;
  readonly starvation: Starvation;
  readonly spool: SpoolThread;
  readonly services: ServicesThread;
  readonly counters: Counters;
  readonly log: Log;
  /** A descriptor of nothing: revoked descriptors become duplicates of it. */
  readonly nothing: number;
}

/** The events of workers that are not about connections. */
export interface CoordinatorHost {
  /** A generation has read its sources: their changes are to be noticed from now on. */
  sources(): void;
  /** A handler has printed this. */
  print(text: string): void;
}

export class Coordinator implements GenerationEvents, ConnectionsHost, ListeningSocketsHost {
  readonly table: ConnectionTable;
  readonly rows: RowPool;
  readonly generations: Generations;
  readonly connections: Connections;
  readonly listeningSockets: ListeningSockets;
  readonly #starvation: Starvation;
  readonly #spool: SpoolThread;
  readonly #services: ServicesThread;
  readonly #room: ConnectionRoom;
  readonly #counters: Counters;
  readonly #log: Log;
  readonly #host: CoordinatorHost;
  /** The networks of `server.allow`. */
  #allowed: BlockList | null;
  #isStopping = false;

  constructor(options: CoordinatorOptions, host: CoordinatorHost) {
    const { config, counters, log, nothing, records, services, spool, starvation, table, workerRows, workerUrl } =
      options;
    this.#host = host;
    this.#log = log;
    this.#counters = counters;
    this.#starvation = starvation;
    this.#spool = spool;
    this.#services = services;
    this.#allowed = allowedBy(config);
    this.#room = new ConnectionRoom(table.layout.slots, descriptorLimit());
    this.table = table;
    this.rows = new RowPool(workerRows, table, (row, counted) => this.#rowGone(row, counted));
    this.generations = new Generations(workerUrl, config, workerRows, records, table, this.rows, this);
    this.connections = new Connections(records, table, this.generations, counters, nothing, this);
    this.listeningSockets = new ListeningSockets(table, this.generations, nothing, this);
  }

  /** The current generation is another, of this configuration. */
  serves(config: Config): void {
    this.#allowed = allowedBy(config);
    this.ready();
  }

  /** From now on no session begins, and sessions that wait for a worker end. */
  stop(): void {
    this.#isStopping = true;
    this.connections.stop();
  }

  // Events of all three parts.

  log(level: LogLevel, text: string, fields?: LogFields, of?: string): void {
    this.#log.write(level, text, fields, of);
  }

  // Events of the generations, for the connections and the listening sockets.

  ready(): void {
    this.connections.placeWaiting();
    this.listeningSockets.settle();
  }

  acceptingStopped(): void {
    this.listeningSockets.settle();
  }

  paused(): void {
    this.listeningSockets.settleRoom();
  }

  accepted({ duplicate, listener, peer, slot }: PassedConnection): void {
    if (slot === -1) this.acceptedHere(duplicate, peer, listener);
    else this.connections.addPassed(slot);
  }

  room(): void {
    this.listeningSockets.settleRoom();
  }

  spool(): SpoolLine | NoSpoolLine {
    return this.#spool.connect();
  }

  services(): ServicesLine {
    return this.#services.connect();
  }

  released(slot: number, release: Release): void {
    this.connections.moveOn(slot, release);
  }

  revoke(row: number): number[] {
    // The listening sockets come first: a connection that the worker accepted afterwards would not be found.
    this.listeningSockets.revoke(row);
    const slots = this.connections.revoke(row);
    this.#room.keep(row, slots.length);
    this.#fitRoom();
    return slots;
  }

  workerLost(generation: Generation, loss: Loss): void {
    this.connections.recover(generation, loss);
  }

  count(counter: ServerCounter): void {
    this.#counters.count(counter);
  }

  starting(): void {
    this.#starvation.release();
  }

  sources(): void {
    this.#host.sources();
  }

  print(text: string): void {
    this.#host.print(text);
  }

  // Events of the connections, for the listening sockets.

  isLetIn(peer: PeerName): boolean {
    if (isAllowed(this.#allowed, peer)) return true;
    this.log("warn", notAllowed(peer), {}, NOT_ALLOWED);
    return false;
  }

  ended(): void {
    this.listeningSockets.ended();
  }

  // Events of the listening sockets, for the connections.

  acceptedHere(descriptor: number, peer: PeerName, listener: number): void {
    if (this.#isStopping || !this.isLetIn(peer)) {
      close(descriptor);
      return;
    }
    this.connections.add(descriptor, peer, listener);
    if (this.table.isFull) this.listeningSockets.settleRoom();
  }

  addSurplus(): void {
    this.connections.addSurplus();
  }

  /** The thread of a worker has ended. */
  #rowGone(row: number, counters: readonly number[]): void {
    this.#counters.add(counters);
    this.#room.giveBack(row);
    this.#fitRoom();
  }

  /** Bodies in the spool have descriptors as well. */
  look(): void {
    this.#room.spooled = this.#spool.openFiles;
    this.#fitRoom();
  }

  /** Threads that do not end keep descriptors: until they do there is room for fewer connections. */
  #fitRoom(): void {
    const { connections } = this.#room;
    if (connections === this.table.room) return;
    this.table.room = connections;
    this.listeningSockets.settleRoom();
  }
}
