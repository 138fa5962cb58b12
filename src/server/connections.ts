/**
 * The connections that the main thread holds: a descriptor of each, by slot, and where its session is served. It places a
 * duplicate with a worker, moves it between generations, and lets it go on when its worker is lost. Whether more are
 * accepted is the server's business.
 */
import type { LogFields } from "../admin/log.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { Counters } from "../counters.ts";
import type { Ledger } from "../ledger.ts";
import { suffices } from "../protocol/negotiate.ts";
import type { PeerName, ResumedSession } from "../worker/messages.ts";
import { isSameFile } from "./descriptors.ts";
import type { Generation, Loss, Release } from "./generation.ts";
import type { Generations } from "./generations.ts";
import { close, dup, replaceDescriptor, send, shutdown } from "./libc.ts";
import { codeOf, toError } from "./listen-error.ts";
import { countersOf, lossLines } from "./loss-report.ts";
import { UNPLACED_MS } from "./policy.ts";
import { forOthers, handOver, type LossCause, recover } from "./recovery.ts";

export interface ConnectionsHost {
  log(level: LogLevel, text: string, fields?: LogFields): void;
  /** A connection has ended: there is room for another. */
  ended(): void;
}

/** The main thread's hold on a connection: it reads nothing and keeps the peer's session alive. */
interface Held {
  readonly fd: number;
  readonly peer: PeerName;
  /** What the worker was given that has it: a duplicate of the descriptor, and how the session goes on. */
  descriptor: number;
  resume: ResumedSession | null;
  /** Where that worker is; null before the first. */
  generation: Generation | null;
}

/** A connection that no worker could take yet: the first is loading, or the last is being replaced. */
interface Unplaced {
  readonly slot: number;
  readonly resume: ResumedSession | null;
  /** The one that it was negotiated for; null for a new session: whichever is current. */
  readonly generation: Generation | null;
  /** Since when it waits, on the clock of `performance.now()`. */
  readonly since: number;
}

export class Connections {
  readonly #ledger: Ledger;
  readonly #generations: () => Generations;
  readonly #counters: Counters;
  /** What revoked descriptors become: a descriptor of nothing. */
  readonly #nothing: number;
  readonly #host: ConnectionsHost;
  /** By slot. */
  readonly #held: (Held | undefined)[] = [];
  readonly #freeSlots: number[] = [];
  #size = 0;
  #unplaced: Unplaced[] = [];
  #isStopping = false;

  constructor(
    ledger: Ledger,
    generations: () => Generations,
    counters: Counters,
    nothing: number,
    host: ConnectionsHost,
  ) {
    this.#ledger = ledger;
    this.#generations = generations;
    this.#counters = counters;
    this.#nothing = nothing;
    this.#host = host;
  }

  get size(): number {
    return this.#size;
  }

  /** How many wait for a worker. */
  get waiting(): number {
    return this.#unplaced.length;
  }

  /** Takes a connection that was just accepted, and has it served. */
  add(fd: number, peer: PeerName): void {
    const slot = this.#freeSlots.pop() ?? this.#held.length;
    this.#held[slot] = { fd, peer, descriptor: -1, resume: null, generation: null };
    this.#size += 1;
    this.#counters.count("connections");
    this.#place(slot, null, null);
  }

  /** From now on a session that loses its worker ends. */
  stop(): void {
    this.#isStopping = true;
  }

  /** Ends all of them. */
  endAll(): void {
    for (const slot of this.#held.keys()) this.#endConnection(slot);
  }

  /**
   * Gives a duplicate of a connection to a generation, and there to the worker that has the fewest.
   * @param generation null: the one that is current
   */
  #place(slot: number, resume: ResumedSession | null, generation: Generation | null, since = performance.now()): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    try {
      const descriptor = dup(held.fd);
      const to = generation ?? this.#generations().current;
      held.descriptor = descriptor;
      held.resume = held.generation === null || held.generation === to ? resume : forOthers(resume);
      if (to?.place(slot, descriptor, held.peer, held.resume) === true) {
        held.generation = to;
        return;
      }
      close(descriptor);
      this.#unplaced.push({ slot, resume, generation, since });
      generation?.revive();
    } catch (error) {
      this.#loseConnection(slot, toError(error).message);
    }
  }

  placeWaiting(): void {
    for (const { generation, resume, since, slot } of this.#unplaced.splice(0)) {
      this.#place(slot, resume, generation?.hasEnded === true ? null : generation, since);
    }
    this.#generations().dismissStandIn();
  }

  /**
   * A session of an old generation, between messages: the current one goes on with it. The worker has given it up for the
   * generation that it knew of; should that not be the current one any more, the session may have to go back.
   */
  moveOn(slot: number, release: Release): void {
    const record = this.#ledger.read(slot);
    const held = this.#held[slot];
    // Its first packets were too long to be kept: a worker gives up no such session.
    if (record.context === null || held === undefined) {
      this.release(slot);
      release.done();
      return;
    }
    const resume = handOver(record, held.resume?.passedOver ?? []);
    const { summary } = this.#generations().current!;
    if (suffices(resume, summary, summary)) {
      this.#counters.count("sessionsMoved");
      this.#place(slot, resume, null);
      release.done();
      return;
    }
    try {
      held.descriptor = dup(held.fd);
      held.resume = resume;
      release.back(held.descriptor, held.peer, resume);
    } catch (error) {
      this.#loseConnection(slot, toError(error).message);
      release.done();
    }
  }

  /**
   * The worker's duplicates become descriptors of nothing. A thread that is ended goes on reading what its last poll found
   * ready, and what it reads would be lost.
   */
  revoke(slots: Iterable<number>): void {
    for (const slot of slots) {
      const held = this.#held[slot];
      if (held === undefined || !this.#ledger.isAdopted(slot)) continue;
      // A worker that has closed its duplicate, and could not tell any more, has given the number back: it may mean
      // anything by now.
      if (isSameFile(held.descriptor, held.fd)) replaceDescriptor(this.#nothing, held.descriptor);
    }
  }

  /** Sessions have lost their worker: what the mail servers wait for is answered, and the sessions go on in others. */
  recover(generation: Generation, { busySlot, cause, slots }: Loss): void {
    for (const slot of slots) {
      try {
        this.#recoverOne(generation, cause, slot, busySlot);
      } catch (error) {
        this.#loseConnection(slot, `its worker was lost, and it could not go on: ${toError(error).message}`);
      }
    }
  }

  #recoverOne(generation: Generation, cause: LossCause, slot: number, busySlot: number | null): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    if (!this.#ledger.isAdopted(slot)) {
      close(held.descriptor);
      this.#goOn(slot, held.resume, generation);
      return;
    }
    const record = this.#ledger.read(slot);
    const isSuspect = busySlot === null ? record.call !== null : slot === busySlot;
    const recovery = recover(record, {
      cause,
      isSuspect,
      filters: generation.summary.filters,
      passedOver: held.resume?.passedOver ?? [],
    });
    for (const line of lossLines(record, recovery, isSuspect, {
      cause,
      generation,
      isSure: busySlot !== null,
      peer: held.peer,
    })) {
      this.#host.log(line.level, line.text, line.fields);
    }
    for (const counter of countersOf(recovery)) this.#counters.count(counter);
    if (recovery.kind === "end" || !sendAll(held.fd, recovery.replies)) {
      this.#endConnection(slot);
      return;
    }
    this.#goOn(slot, recovery.session, generation);
  }

  /** A session that was with a generation goes on there, or in the current one if the other is ending and this one serves it. */
  #goOn(slot: number, resume: ResumedSession | null, generation: Generation): void {
    if (this.#isStopping) {
      this.#endConnection(slot);
      return;
    }
    const { current } = this.#generations();
    const mayMove = resume === null || (current !== null && suffices(resume, generation.summary, current.summary));
    this.#place(slot, resume, generation === current || mayMove ? null : generation);
  }

  /** Mail servers do not wait for ever: those that have waited long enough get the fallback. */
  standIn(now: number): void {
    const [longest] = this.#unplaced;
    if (longest === undefined || now - longest.since <= UNPLACED_MS) return;
    const standIn = this.#generations().standIn();
    if (standIn === null) return;
    const waiting = this.#unplaced;
    this.#unplaced = waiting.filter(({ since }) => now - since <= UNPLACED_MS);
    for (const { resume, since, slot } of waiting) {
      if (now - since > UNPLACED_MS) this.#place(slot, resume, standIn, since);
    }
  }

  /** A connection that cannot be served any more, whatever its peer does. */
  #loseConnection(slot: number, reason: string): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    this.#host.log("error", `${held.peer}: connection closed: ${reason}`);
    this.#counters.count("sessionsLost");
    this.#endConnection(slot);
  }

  /** Ends a connection for its peer, whoever else holds a copy of it. */
  #endConnection(slot: number): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    shutdown(held.fd, "both");
    this.release(slot);
  }

  /** Gives up the main thread's copy of a connection. */
  release(slot: number): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    this.#held[slot] = undefined;
    this.#freeSlots.push(slot);
    this.#size -= 1;
    close(held.fd);
    this.#host.ended();
  }
}

/** @returns false if the peer is gone. Throws Error if it reads nothing, and its buffer is full of replies before these. */
function sendAll(fd: number, replies: Uint8Array): boolean {
  if (replies.length === 0) return true;
  try {
    if (send(fd, replies) === replies.length) return true;
  } catch (error) {
    const code = codeOf(error);
    if (code === "EPIPE" || code === "ECONNRESET") return false;
    if (code !== "EAGAIN") throw error;
  }
  throw new Error("the fallback could not be sent");
}
