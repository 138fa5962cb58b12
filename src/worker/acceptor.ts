/**
 * The accepting side of a worker: it listens on the sockets that the main thread has bound, and keeps what it accepts, so
 * that a connection wakes nobody else. What it may not keep, or is more than its share, the main thread gets and places.
 */
import type { Socket } from "bun";
import type { BlockList } from "node:net";
import { type BoundListener, bunListen, type Handlers } from "../net/bun-listen.ts";
import { close, dup, listen as setBacklog } from "../net/libc.ts";
import { isAllowed, type PeerName, tcpPeerName } from "../net/peer.ts";
import type { Roster } from "../roster.ts";
import type { Connection } from "./connection.ts";

/** A listening socket of the main thread, as it is lent to a worker. */
export interface Door {
  /** A duplicate, the worker's from now on. */
  readonly descriptor: number;
  /** Where it listens, for logs. */
  readonly name: string;
  readonly isUnix: boolean;
  /** Connections that may wait to be accepted. */
  readonly backlog: number;
}

/** A connection that others are to have than the worker that accepted it. */
export interface Guest {
  /** Its place in the roster; -1 if none was free. */
  readonly slot: number;
  /** Whoever gets this has to close it. */
  readonly held: number;
  readonly peer: PeerName;
  /** Address of a TCP peer. */
  readonly host: string | undefined;
}

export interface AcceptorHost {
  readonly row: number;
  readonly roster: Roster;
  readonly allowed: BlockList | null;
  /** Whether sessions may begin in this worker, as things stand at this moment. */
  mayKeep(): boolean;
  /** A connection gets this slot. */
  prepare(slot: number): void;
  /** It is this worker's. */
  keep(slot: number, peer: PeerName, socket: Socket<Connection>): void;
  /** It is not. */
  pass(guest: Guest): void;
  /** It does not listen any more, and was not told to: no slot is free, or a listening socket cannot be used. */
  stopped(): void;
  log(level: "warn" | "error", text: string): void;
}

/**
 * A worker keeps what it accepts while it has no more than the one with the fewest, and a sixteenth. To pass one on wakes two
 * threads, so where there are many it need not be exact.
 */
const share = (fewest: number) => Math.round((fewest * 17) / 16);

export class Acceptor {
  readonly #host: AcceptorHost;
  readonly #handlers: Omit<Handlers, "open">;
  /** Rows of all workers that take sessions. */
  #rows: readonly number[] = [];
  #listening: BoundListener[] = [];
  /** Accepted while no descriptor was left, or hardly any: nothing is read from them. */
  #waiting: { readonly socket: Socket<undefined>; readonly door: Door }[] = [];

  /** @param handlers of the connections that it keeps, `data` of their sockets */
  constructor(host: AcceptorHost, handlers: Omit<Handlers, "open">) {
    this.#host = host;
    this.#handlers = handlers;
  }

  /** @param doors in place of those that it has; null: it keeps them */
  listen(doors: readonly Door[] | null, rows: readonly number[]): void {
    this.#rows = rows;
    this.#takeWaiting();
    if (doors === null) return;
    this.pause();
    try {
      for (const [index, door] of doors.entries()) {
        try {
          this.#listening.push(bunListen({ fd: door.descriptor, socket: this.#handlersOf(door) }));
        } catch (error) {
          for (const { descriptor } of doors.slice(index)) close(descriptor);
          throw error;
        }
        // Bun has just called listen() itself, with 512.
        setBacklog(door.descriptor, door.backlog);
      }
    } catch (error) {
      this.#host.log("error", `a worker cannot accept connections: ${String(error)}`);
      this.pause();
      setTimeout(() => this.#host.stopped(), RETRY_MS);
    }
  }

  /** Accepts no more; what comes waits for others that do. */
  pause(): void {
    for (const listener of this.#listening.splice(0)) listener.stop();
  }

  /** Accepts no more, for good: those that wait here others are to have. */
  close(): void {
    this.pause();
    this.#takeWaiting();
  }

  #takeWaiting(): void {
    for (const { door, socket } of this.#waiting.splice(0)) {
      socket.resume();
      this.#opened(socket, door);
    }
  }

  #stop(): void {
    if (this.#listening.length === 0) return;
    this.pause();
    this.#host.stopped();
  }

  #handlersOf(door: Door): Handlers {
    return { ...this.#handlers, open: (socket) => this.#opened(socket, door) };
  }

  #opened(socket: Socket<undefined>, door: Door): void {
    const { roster } = this.#host;
    try {
      if (roster.isStarved) this.#wait(socket, door);
      else this.#open(socket, door);
      // At once: otherwise it would go on with all that wait to be accepted.
      if (roster.isFull) {
        roster.isAwaited = true;
        this.#stop();
      }
    } catch (error) {
      if ((error as { readonly code?: unknown }).code === "EMFILE") {
        this.#wait(socket, door);
        this.#stop();
        return;
      }
      socket.end();
      this.#host.log("error", `${door.name}: ${String(error)}`);
    }
  }

  /** Until it is to listen again. */
  #wait(socket: Socket<undefined>, door: Door): void {
    socket.pause();
    this.#waiting.push({ socket, door });
  }

  #open(socket: Socket<undefined>, { isUnix, name }: Door): void {
    const { allowed, roster, row } = this.#host;
    // Asking costs calls of the system, also where there is no answer.
    const { remoteAddress: host, remotePort } = isUnix ? NOBODY : socket;
    const peer = host === undefined || remotePort === undefined ? name : tcpPeerName(host, remotePort);
    const { fd } = socket as unknown as { readonly fd: number };
    const mayKeep = this.#host.mayKeep();
    // Else its list may be out of date: the main thread has the one that counts.
    if (mayKeep && !isAllowed(allowed, host)) {
      this.#host.log("warn", refusal(peer));
      socket.end();
      return;
    }
    const held = dup(fd);
    const slot = roster.reserve();
    if (slot === -1 || !mayKeep || !this.#hasRoom()) {
      if (slot !== -1) roster.enterGuest(slot, held, peer);
      this.#host.pass({ slot, held, peer, host });
      // Without a shutdown: the peer notices nothing as long as there is the other copy.
      socket.end();
      return;
    }
    // Before the slot is known to be this worker's: the main thread would take it from there.
    this.#host.prepare(slot);
    roster.enter(slot, row, fd, held, peer);
    this.#host.keep(slot, peer, socket as unknown as Socket<Connection>);
  }

  /** It has no more than its share: work is spread as evenly as connections are. */
  #hasRoom(): boolean {
    const { roster, row } = this.#host;
    let fewest = roster.countOf(row);
    for (const other of this.#rows) fewest = Math.min(fewest, roster.countOf(other));
    return roster.countOf(row) <= share(fewest);
  }
}

/** A listening socket that could not be used is tried again after so long. */
const RETRY_MS = 1000;

const NOBODY = { remoteAddress: undefined, remotePort: undefined };

export function refusal(peer: PeerName): string {
  return `${peer}: not in server.allow, connection refused`;
}
