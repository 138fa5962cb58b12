/**
 * The connections as the main thread sees them: it answers for sessions whose worker is lost and has them resumed, moves
 * sessions between generations, and places passed connections. Listening is the server's business.
 */
import type { LogFields } from "../../admin/log.ts";
import type { LogLevel } from "../../admin/log-level.ts";
import type { Counters } from "../../counters.ts";
import type { SessionStart } from "../../handler/conditions.ts";
import { takesPart, wantsFor } from "../../handler/needs.ts";
import { suffices } from "../../protocol/negotiate.ts";
import type { PeerName } from "../../net/peer.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { SessionRecords } from "../../shared/session-records.ts";
import type { ResumedSession } from "../../shared/messages.ts";
import { isSameFile } from "../../net/open-files.ts";
import type { Generation, Release } from "../workers/generation.ts";
import type { Generations } from "../workers/generations.ts";
import { close, dup, isReadable, replaceDescriptor, send, shutdown } from "../../net/libc.ts";
import { codeOf, toError } from "../../errors.ts";
import { countersOf, lossLines } from "./loss-report.ts";
import type { Loss } from "../workers/member.ts";
import { ANSWERED_MS, LATEST_MS, MAX_COST, PREPARE_MS, UNPLACED_MS } from "../policy.ts";
import { forOthers, forStandIn, handOver, recover } from "./recovery.ts";

export interface ConnectionsHost {
  /** @param of the kind, for lines that may come in great numbers */
  log(level: LogLevel, text: string, fields?: LogFields, of?: string): void;
  /** Whether `server.allow` as it is now lets the peer in. A peer that is refused is logged. */
  isLetIn(peer: PeerName): boolean;
  /** A connection of the main thread has ended: there is room for another. */
  ended(): void;
}

/** Facts about a connection that outlive its worker. */
interface History {
  /** How its session is resumed; null for a new session. */
  readonly resume: ResumedSession | null;
  /** Since when its peer may have waited for a reply, on the clock of `performance.now()`. */
  readonly since: number;
  /** Workers that were lost to its handlers. */
  readonly cost: number;
}

/** The history that a worker was given with a connection. */
interface Given extends History {
  /** The use of the slot that it is about, so that it is not taken for that of a later connection. */
  readonly use: number;
}

/** A connection that was accepted while all slots were taken. */
interface Surplus {
  readonly duplicate: number;
  readonly peer: PeerName;
  readonly listener: number;
}

/** A connection that no worker could take yet: the first is loading, or the last is being replaced. */
interface Unplaced extends History {
  readonly slot: number;
  /** The generation of its last worker; null for a new session. */
  readonly from: Generation | null;
  /** The generation that it is for; null: the current generation of that time. */
  readonly to: Generation | null;
}

/** Number of histories above which those of ended connections are looked for. */
const MIN_GIVEN = 256;

export class Connections {
  readonly #records: SessionRecords;
  readonly #table: ConnectionTable;
  readonly #generations: Generations;
  readonly #counters: Counters;
  /** A descriptor of nothing, which revoked descriptors are replaced by. */
  readonly #nothing: number;
  readonly #host: ConnectionsHost;
  /** By slot. */
  readonly #given = new Map<number, Given>();
  #sweepAt = MIN_GIVEN;
  #unplaced: Unplaced[] = [];
  #surplus: Surplus[] = [];
  /** Some of the unplaced wait for a descriptor. */
  #lacksDescriptors = false;
  #isStopping = false;

  constructor(
    records: SessionRecords,
    table: ConnectionTable,
    generations: Generations,
    counters: Counters,
    nothing: number,
    host: ConnectionsHost,
  ) {
    this.#records = records;
    this.#table = table;
    this.#generations = generations;
    this.#counters = counters;
    this.#nothing = nothing;
    this.#host = host;
  }

  /** How many wait for a worker, or for a slot. */
  get waiting(): number {
    return this.#unplaced.length + this.#surplus.length;
  }

  /**
   * Takes a connection of which nothing has been read, and has it served once there is a slot and a worker for it.
   * @param listener index of the listening socket that it came to
   */
  add(duplicate: number, peer: PeerName, listener: number): void {
    const slot = this.#table.reserve();
    if (slot === -1) {
      this.#surplus.push({ duplicate, peer, listener });
      return;
    }
    this.#table.enterOwn(slot, duplicate, peer, listener);
    this.#begin(slot);
  }

  /** Takes a passed connection that has a slot. */
  addPassed(slot: number): void {
    if (!this.#table.takePassed(slot)) return;
    if (this.#host.isLetIn(this.#table.peerOf(slot))) this.#begin(slot);
    else this.#endConnection(slot);
  }

  #begin(slot: number): void {
    if (this.#isStopping) {
      this.#endConnection(slot);
      return;
    }
    this.#counters.count("connections");
    this.#place({ slot, resume: null, from: null, to: null, since: performance.now(), cost: 0 });
  }

  /** Slots may be free again. */
  addSurplus(): void {
    for (const { duplicate, listener, peer } of this.#surplus.splice(0)) this.add(duplicate, peer, listener);
  }

  /** From now on no session begins, a session that loses its worker ends, and sessions that wait for a worker end. */
  stop(): void {
    this.#isStopping = true;
    for (const { duplicate } of this.#surplus.splice(0)) end(duplicate);
    for (const { slot } of this.#unplaced.splice(0)) this.#endConnection(slot);
  }

  /** Gives a duplicate of a connection to a generation, and there to the worker that has the fewest. */
  #place(waiting: Unplaced): void {
    const { from, resume, slot, to } = waiting;
    try {
      const descriptor = this.#duplicate(slot);
      if (descriptor === null) {
        this.#lacksDescriptors = true;
        this.#unplaced.push(waiting);
        return;
      }
      const generation = to ?? (from === null ? this.#generations.forNew : this.#generations.current);
      const given = givenTo(generation, from, resume);
      if (generation?.place(slot, descriptor, this.#table.peerOf(slot), given) === true) {
        this.#remember(slot, { ...waiting, resume: given });
        return;
      }
      close(descriptor);
      if (this.#isStopping) {
        this.#endConnection(slot);
        return;
      }
      this.#unplaced.push(waiting);
      to?.revive();
    } catch (error) {
      this.#loseConnection(slot, toError(error).message);
    }
  }

  /** Makes a descriptor for a worker; null while no descriptor is left: the connection waits. */
  #duplicate(slot: number): number | null {
    try {
      return dup(this.#table.duplicateOf(slot));
    } catch (error) {
      if (codeOf(error) === "EMFILE") return null;
      throw error;
    }
  }

  #remember(slot: number, { cost, resume, since }: History): void {
    this.#given.set(slot, { use: this.#table.useOf(slot), cost, resume, since });
    if (this.#given.size < this.#sweepAt) return;
    for (const [of, { use }] of this.#given) if (use !== this.#table.useOf(of)) this.#given.delete(of);
    this.#sweepAt = Math.max(MIN_GIVEN, 2 * this.#given.size);
  }

  /** Null for a connection that its worker has accepted for itself. */
  #historyOf(slot: number): History | null {
    const given = this.#given.get(slot);
    return given?.use === this.#table.useOf(slot) ? given : null;
  }

  placeWaiting(): void {
    this.#lacksDescriptors = false;
    // The connection that has waited longest comes first: there may not be a place for all.
    for (const waiting of this.#unplaced.splice(0).sort((a, b) => a.since - b.since)) {
      this.#place(waiting.to?.hasEnded === true ? { ...waiting, to: null } : waiting);
    }
    this.#generations.dismissStandIn();
  }

  /**
   * A worker of an old generation has released a session between messages, for the generation that it knew to be current.
   * The current generation resumes it, or, if that is another one by now and does not suffice, the worker takes it back.
   */
  moveOn(slot: number, release: Release): void {
    const record = this.#records.read(slot);
    // Its first packets were too long to be kept: a worker gives up no such session.
    if (record.opening === null) {
      this.#endConnection(slot);
      release.done();
      return;
    }
    const before = this.#historyOf(slot);
    const resume = handOver(record, before?.resume?.skippedFilters ?? []);
    const history = { resume, since: performance.now(), cost: before?.cost ?? 0 };
    const wants = wantsFor(this.#generations.current!.summary, this.#startOf(slot));
    if (suffices(resume, wants, wants)) {
      this.#counters.count("sessionsMoved");
      this.#place({ ...history, slot, from: release.generation, to: null });
      release.done();
      return;
    }
    try {
      release.back(dup(this.#table.duplicateOf(slot)), this.#table.peerOf(slot), resume);
      this.#remember(slot, history);
    } catch (error) {
      this.#loseConnection(slot, toError(error).message);
      release.done();
    }
  }

  /**
   * Takes all connections of a worker. Its descriptors become descriptors of nothing: a thread that is ended still reads
   * from all sockets that its last poll found ready, and those bytes would be lost.
   * @returns their slots
   */
  revoke(row: number): number[] {
    // Connections that it passed, and could not post any more.
    for (const slot of this.#table.passedSlots()) this.addPassed(slot);
    const slots = this.#table.slotsOf(row).filter((slot) => this.#table.take(slot, row));
    const eventPoll = this.#table.eventPollOf(row);
    for (const slot of slots) {
      const descriptor = this.#table.descriptorOf(slot);
      // A worker may have closed it without having been able to post that. Then the number may be another file's by now.
      if (this.#records.isAdopted(slot) && isSameFile(descriptor, this.#table.duplicateOf(slot))) {
        replaceDescriptor(this.#nothing, descriptor, eventPoll);
      }
    }
    return slots;
  }

  /** Sessions have lost their worker: the mail servers get the replies that they wait for, and other workers resume the sessions. */
  recover(generation: Generation, { slots, ...loss }: Loss): void {
    for (const slot of slots) {
      try {
        this.#recoverOne(generation, slot, loss);
      } catch (error) {
        this.#loseConnection(slot, `its worker was lost, and it could not go on: ${toError(error).message}`);
      }
    }
  }

  #recoverOne(
    generation: Generation,
    slot: number,
    { busySlot, cause, since: silentSince }: Omit<Loss, "slots">,
  ): void {
    const since = Math.min(silentSince, performance.now());
    const before = this.#historyOf(slot);
    if (!this.#records.isAdopted(slot)) {
      close(this.#table.descriptorOf(slot));
      this.#continueSession(slot, before ?? { resume: null, since, cost: 0 }, generation);
      return;
    }
    const record = this.#records.read(slot);
    const isSuspect = busySlot === null ? record.call !== null : slot === busySlot;
    // Any session of the worker may hold the memory.
    const isCulprit = slot === busySlot && cause !== "memory";
    const cost = (record.isAnew || before === null ? 0 : before.cost) + (isCulprit ? 1 : 0);
    const recovery = recover(record, {
      cause,
      isSuspect,
      filters: generation.summary.filters.map((filter, index) => {
        const needs = generation.summary.all[index];
        // A filter that the session was negotiated without has no say in it: as if it observed.
        const isOut = needs !== undefined && !takesPart(needs, this.#startOf(slot));
        return isOut ? Object.assign({}, filter, { isObserved: true }) : filter;
      }),
      skippedFilters: before?.resume?.skippedFilters ?? [],
      isOffender: isCulprit && cost > MAX_COST,
    });
    for (const line of lossLines(record, recovery, isSuspect, {
      cause,
      cost,
      generation,
      isSure: busySlot !== null,
      peer: this.#table.peerOf(slot),
    })) {
      this.#host.log(line.level, line.text, line.fields);
    }
    for (const counter of countersOf(recovery)) this.#counters.count(counter);
    if (recovery.kind === "end" || !sendAll(this.#table.duplicateOf(slot), recovery.replies)) {
      this.#endConnection(slot);
      return;
    }
    const waitsSince = before === null || record.hasRead ? since : Math.min(before.since, since);
    // All that was read has been answered: the peer may only have waited for what is still unread.
    const isWaiting = isReadable(this.#table.duplicateOf(slot));
    const session = { resume: recovery.session, since: isWaiting ? waitsSince : performance.now(), cost };
    this.#continueSession(slot, session, generation);
  }

  /** Has a session resumed in its generation, or in the current one if its own is ending and the current one suffices. */
  #continueSession(slot: number, history: History, generation: Generation): void {
    if (this.#isStopping) {
      this.#endConnection(slot);
      return;
    }
    const { resume, since } = history;
    const { current, next } = this.#generations;
    const [before, after] = [generation, current].map((of) => of && wantsFor(of.summary, this.#startOf(slot)));
    const isServed = resume === null || (before != null && after != null && suffices(resume, before, after));
    // No session that began on new code goes on with old.
    const mayMove = generation !== next && isServed;
    const to = generation === current || mayMove ? null : generation;
    const waiting = { ...history, slot, from: generation, to };
    // If another worker were lost with it, its peer would give up.
    const mayWaitMs = LATEST_MS - generation.config.server.blockTimeoutMs - ANSWERED_MS;
    if (performance.now() - since > Math.max(UNPLACED_MS, mayWaitMs)) this.#unplaced.push(waiting);
    else this.#place(waiting);
  }

  /** What a session's part of the filters follows from. */
  #startOf(slot: number): SessionStart {
    const listener = this.#generations.listeningSockets[this.#table.listenerOf(slot)];
    return { listener: listener?.configured ?? null, draw: this.#table.drawOf(slot) };
  }

  /** The longest time that a peer has waited for a worker, in milliseconds; 0 if none waits. */
  waitedMs(now: number): number {
    return longestWait(this.#waiting(), now);
  }

  /** The unplaced connections whose peer has sent something: only they wait for a reply. */
  #waiting(): Unplaced[] {
    return this.#unplaced.filter(({ slot }) => isReadable(this.#table.duplicateOf(slot)));
  }

  /** Connections that have waited too long for a worker get the fallback, from the stand-in: mail servers have a timeout. */
  standIn(now: number): void {
    if (this.#lacksDescriptors) this.placeWaiting();
    const generations = this.#generations;
    const waiting = this.#waiting();
    const waitedMs = longestWait(waiting, now);
    // While workers are being lost it is started before it is needed: that takes a while on a busy machine.
    if (waitedMs > PREPARE_MS || generations.current?.isLosingWorkers === true) generations.prepareStandIn();
    else generations.dismissStandIn();
    const standIn = waitedMs > UNPLACED_MS ? generations.standIn() : null;
    if (standIn === null) return;
    const late = new Set(waiting.filter(({ since }) => now - since > UNPLACED_MS));
    this.#unplaced = this.#unplaced.filter((each) => !late.has(each));
    for (const each of late) this.#place({ ...each, to: standIn });
  }

  /** Ends a connection that cannot be served any more. */
  #loseConnection(slot: number, reason: string): void {
    const what = "connection closed";
    this.#host.log("error", `${this.#table.peerOf(slot)}: ${what}: ${reason}`, {}, what);
    this.#counters.count("sessionsLost");
    this.#endConnection(slot);
  }

  /** Ends a connection of the main thread for its peer, also if there are other descriptors of it. */
  #endConnection(slot: number): void {
    const duplicate = this.#table.duplicateOf(slot);
    if (!this.#table.leaveOwn(slot)) return;
    end(duplicate);
    this.#host.ended();
  }
}

function longestWait(waiting: readonly Unplaced[], now: number): number {
  return waiting.reduce((longest, { since }) => Math.max(longest, now - since), 0);
}

/** How a session is resumed in a generation, which may differ from its last. */
function givenTo(
  generation: Generation | null,
  from: Generation | null,
  resume: ResumedSession | null,
): ResumedSession | null {
  if (generation?.isStandIn === true) return forStandIn(resume);
  return from === null || from === generation ? resume : forOthers(resume);
}

/** Ends a connection for its peer, also if there are other descriptors of it. */
function end(duplicate: number): void {
  shutdown(duplicate, "both");
  close(duplicate);
}

/** @returns false if the peer is gone. Throws Error if the peer reads nothing, and earlier replies fill its buffer. */
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
