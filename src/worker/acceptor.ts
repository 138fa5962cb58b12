/**
 * The accepting side of a worker: it listens on the sockets that the main thread has bound, and keeps what it accepts, so
 * that a connection wakes no other thread. A connection that it may not keep, that is more than its share, or that is for a
 * starting generation is passed to the main thread, which places it.
 */
import type { Socket } from "bun";
import type { BlockList } from "node:net";
import { codeOf } from "../errors.ts";
import { acceptBy, type BoundListener, descriptorOf, type Handlers, remoteOf } from "../net/bun-listen.ts";
import { dup } from "../net/libc.ts";
import { isAllowed, type PeerName, peerName, NOT_ALLOWED, notAllowed } from "../net/peer.ts";
import { ALL_SHARES, type ConnectionTable } from "../shared/connection-table.ts";
import type { ListeningSocket, PassedConnection } from "../shared/messages.ts";
import type { Connection } from "./connection.ts";

export interface AcceptorHost {
  readonly row: number;
  readonly table: ConnectionTable;
  readonly listeningSockets: readonly ListeningSocket[];
  readonly allowed: BlockList | null;
  /** From here on the main thread cannot take what this worker has, until {@link AcceptorHost.unlock}. */
  lock(): void;
  unlock(): void;
  /** Whether sessions may begin in this worker, as things stand at this moment. */
  mayKeep(): boolean;
  /** A connection gets this slot. */
  prepare(slot: number): void;
  /** It is this worker's. */
  keep(slot: number, peer: PeerName, socket: Socket<Connection>): void;
  /** It is not. */
  pass(passed: PassedConnection): void;
  /** It has begun to listen. */
  listening(): void;
  /** It has stopped to listen by itself: no slot is free, or a listening socket cannot be used. */
  stopped(): void;
  /** @param of the kind, for lines that may come in great numbers */
  log(level: "warn" | "error", text: string, of: string): void;
}

/**
 * How many more connections than the worker with the fewest a worker may have and still keep the next. To pass a connection
 * on wakes two threads. Where there are many connections their number need not be exact. Where they end as fast as they
 * come, an uneven moment is soon over, so a worker may have twice as many.
 */
const slack = (fewest: number, isChurning: boolean) =>
  isChurning ? Math.max(CHURN_SLACK, fewest) : Math.round(fewest / 16);
/** The least slack where they end as fast as they come. */
export const CHURN_SLACK = 16;
/** Connections that are looked back on, at most, to tell whether they end as fast as they come. */
const LAST = 256;

export class Acceptor {
  readonly #host: AcceptorHost;
  readonly #handlers: Omit<Handlers, "open">;
  /** Rows of all workers that take sessions. */
  #rows: readonly number[] = [];
  #listening: BoundListener[] = [];
  /** Accepted while no descriptor was left, or hardly any: nothing is read from them. */
  #waiting: { readonly socket: Socket<undefined>; readonly listeningSocket: ListeningSocket }[] = [];
  #retry: ReturnType<typeof setTimeout> | null = null;
  #isClosed = false;
  /** Number of the last connections that it kept, and of those of this worker that ended meanwhile (at most as many). */
  #begun = 0;
  #ended = 0;
  /** The shares to be passed on that are left over from earlier connections, below {@link ALL_SHARES}. */
  #toPass = 0;

  /** @param handlers of the connections that it keeps, `data` of their sockets */
  constructor(host: AcceptorHost, handlers: Omit<Handlers, "open">) {
    this.#host = host;
    this.#handlers = handlers;
  }

  /** @param rows of all workers that take sessions */
  listen(rows: readonly number[]): void {
    this.#rows = rows;
    this.#takeWaiting();
    if (this.#listening.length > 0) return;
    try {
      this.#host.listeningSockets.forEach((listeningSocket, index) => this.#listenAt(listeningSocket, index));
      this.#host.listening();
    } catch (error) {
      const what = "a worker cannot accept connections";
      this.#host.log("error", `${what}: ${String(error)}`, what);
      this.pause();
      setTimeout(() => this.#host.stopped(), RETRY_MS);
    }
  }

  #listenAt(listeningSocket: ListeningSocket, index: number): void {
    const { table, row } = this.#host;
    const listener = acceptBy(listeningSocket.descriptor, listeningSocket.backlog, {
      ...this.#handlers,
      open: (socket) => this.#opened(socket, listeningSocket),
    });
    this.#listening.push(listener);
    table.setListening(row, index, listener.fd);
  }

  /** Accepts no more. Connections wait for another worker that accepts. */
  pause(): void {
    const { table, row } = this.#host;
    for (const [index, listener] of this.#listening.splice(0).entries()) {
      // First: the number may be another's afterwards. The main thread must not be about to replace it.
      this.#host.lock();
      try {
        table.setListening(row, index, null);
        listener.stop();
      } finally {
        this.#host.unlock();
      }
    }
  }

  /** Accepts no more until the worker ends. The connections that wait here are passed on. */
  close(): void {
    this.#isClosed = true;
    this.pause();
    this.#takeWaiting();
  }

  #takeWaiting(): void {
    for (const { listeningSocket, socket } of this.#waiting.splice(0)) {
      // Its peer may be gone.
      if (descriptorOf(socket) === -1) continue;
      socket.resume();
      this.#opened(socket, listeningSocket);
    }
  }

  #stop(): void {
    if (this.#listening.length === 0) return;
    this.pause();
    this.#host.stopped();
  }

  /** An error of a connection ends that connection alone. */
  #opened(socket: Socket<undefined>, listeningSocket: ListeningSocket): void {
    const { table } = this.#host;
    const mayWait = !this.#isClosed;
    try {
      if (table.isStarved && mayWait) this.#wait(socket, listeningSocket);
      else this.#open(socket, listeningSocket);
      // At once: otherwise it would go on with all that wait to be accepted.
      if (table.isFull) {
        table.isAwaited = true;
        this.#stop();
      }
    } catch (error) {
      if (mayWait && codeOf(error) === "EMFILE") {
        this.#wait(socket, listeningSocket);
        this.#stop();
        return;
      }
      socket.end();
      const what = "a connection could not be taken";
      this.#host.log("error", `${listeningSocket.name}: ${what}: ${String(error)}`, what);
    }
  }

  #wait(socket: Socket<undefined>, listeningSocket: ListeningSocket): void {
    socket.pause();
    this.#waiting.push({ socket, listeningSocket });
    if (this.#retry !== null) return;
    this.#retry = setTimeout(() => {
      this.#retry = null;
      this.#takeWaiting();
    }, RETRY_MS);
  }

  #open(socket: Socket<undefined>, { index, isUnix, name }: ListeningSocket): void {
    const { allowed, table, row } = this.#host;
    const peer = peerName(remoteOf(socket, isUnix), name);
    const mayKeep = this.#host.mayKeep() && !this.#isToPass();
    // A connection that is passed on is checked by the main thread: this list may be out of date.
    if (mayKeep && !isAllowed(allowed, peer)) {
      this.#host.log("warn", notAllowed(peer), NOT_ALLOWED);
      socket.end();
      return;
    }
    const descriptor = descriptorOf(socket);
    const duplicate = dup(descriptor);
    const slot = table.reserve();
    if (slot === -1 || !mayKeep || !this.#hasRoom()) {
      if (slot !== -1) table.enterPassed(slot, duplicate, peer, index);
      this.#host.pass({ slot, duplicate, peer, listener: index });
      // Without a shutdown: the peer notices nothing as long as there is the other copy.
      socket.end();
      return;
    }
    // Before the slot is entered as this worker's: from then on the main thread may take it.
    this.#host.prepare(slot);
    table.enter(slot, row, descriptor, duplicate, peer, index);
    this.#begun += 1;
    if (this.#begun >= LAST) {
      this.#begun >>= 1;
      this.#ended >>= 1;
    }
    this.#host.keep(slot, peer, socket as unknown as Socket<Connection>);
  }

  /** A connection of this worker has ended. */
  ended(): void {
    if (this.#ended < this.#begun) this.#ended += 1;
  }

  get #isChurning(): boolean {
    return this.#begun > CHURN_SLACK && 4 * this.#ended >= 3 * this.#begun;
  }

  /** Whether this connection is for a starting generation, which gets a share of them. */
  #isToPass(): boolean {
    this.#toPass += this.#host.table.passShares;
    if (this.#toPass < ALL_SHARES) return false;
    this.#toPass -= ALL_SHARES;
    return true;
  }

  /** It has no more than its share: work is spread as evenly as connections are. */
  #hasRoom(): boolean {
    const { table, row } = this.#host;
    const count = table.countOf(row);
    let fewest = count;
    for (const other of this.#rows) fewest = Math.min(fewest, table.countOf(other));
    return count <= fewest + slack(fewest, this.#isChurning);
  }
}

/** After how long a step that failed is tried again, in milliseconds. */
const RETRY_MS = 1000;
