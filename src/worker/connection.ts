/**
 * One mail server connection in a worker: socket to conversation and back. It owns the write queue and the idle clock, and
 * says when the session is recorded. The meaning of packets is not known here.
 */
import type { LogLevel } from "../admin/log-level.ts";
import type { WorkerCounter } from "../counters.ts";
import type { Chain, ChainFilter } from "../handler/chain.ts";
import { Conversation, type ConversationHost } from "../handler/conversation.ts";
import type { ChainNeeds } from "../handler/needs.ts";
import type { RunningOutcomes } from "../handler/outcomes.ts";
import type { Services } from "../handler/services.ts";
import type { Spool } from "../handler/message/spool.ts";
import type { Report } from "../handler/report.ts";
import { describeThrown } from "../handler/site.ts";
import { excerpt } from "../protocol/bytes.ts";
import { COMMAND, nameOf, REPLY } from "../protocol/constants.ts";
import { suffices, type Wants } from "../protocol/negotiate.ts";
import type { ReplyWriter } from "../protocol/encode.ts";
import { ProtocolError } from "../protocol/errors.ts";
import { PacketWalk } from "../protocol/packets.ts";
import type { EventPhase, PacketTap } from "../protocol/session.ts";
import type { PeerName } from "../net/peer.ts";
import type { ResumedSession } from "../shared/messages.ts";
import type { SessionRecords } from "../shared/session-records.ts";
import type { WorkerRows } from "../shared/worker-rows.ts";
import { RECORDED, Recorder } from "./recorder.ts";
import { type WritableSocket, WriteQueue, type Written } from "./write-queue.ts";

/** All that connections share in their worker. */
export interface ConnectionHome {
  /** The worker's row in {@link WorkerRows}. */
  readonly row: number;
  /** The chain for the session of a slot. */
  chainOf(slot: number): Chain;
  /** What the session of a slot would want of another generation. */
  wantsFor(needs: ChainNeeds, slot: number): Wants;
  /** Serves one connection at a time: it is empty whenever a socket callback begins. */
  readonly writer: ReplyWriter;
  readonly workerRows: WorkerRows;
  readonly records: SessionRecords;
  readonly reportsAccepted: boolean;
  readonly outcomes: RunningOutcomes;
  /** Whether lines of a level are written. */
  logs(level: LogLevel): boolean;
  /** Sessions are made up: no mail is at stake. */
  readonly isTrial: boolean;
  /** DNS and store. */
  readonly services: Services;
  /** Null if no filter collects bodies. */
  readonly spool: Spool | null;
  /** Whether each packet is traced. */
  readonly tracesPackets: boolean;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
  report(report: Report): void;
  /** @param of the kind, for lines that may come in great numbers */
  log(level: LogLevel, text: string, of?: string): void;
  /** The connection is closed on this side. */
  closed(connection: Connection): void;
  /** The needs of the generation that is to resume the sessions of this one; null while this one keeps them. */
  releaseFor: ChainNeeds | null;
  /** The worker is a stand-in: it keeps a session until it has read from it. */
  readonly isStandIn: boolean;
  /** The connection is closed on this side, and its session goes on in another worker. */
  released(connection: Connection): void;
}

/** The kind of the log line of a mistake in this code. */
export const INTERNAL_ERROR = "internal error, connection closed";
/** The socket is paused while a handler is awaited, or replies wait, and more bytes than this are unread. */
const MAX_UNREAD_BYTES = 64 * 1024;

/** Replies are written at the latest when there are so many bytes of them, however much of a read is left. */
const MAX_REPLY_BYTES = 256 * 1024;

/**
 * How long a connection works at a time, in milliseconds. Then the other connections have their turn, and the worker beats:
 * a handler may be slow, and a read may bring thousands of packets.
 */
const TURN_MS = 20;
/** Number of events before the clock is first read in a turn. */
const FIRST_LOOK = 4;
/** Number of events before it is read again, as long as no millisecond has passed; else it is read after each event. */
const QUICK_EVENTS = 16;

type Life =
  /** Packets are worked on as they are read. */
  | "serving"
  /** Its turn is over: the rest of its packets is worked on after the turns of the other connections. */
  | "yielding"
  /** Nothing more is read; once the replies have left, the socket is ended. */
  | "ending"
  /** The session goes on in another worker: nothing is read or sent here. */
  | "released"
  /** The socket is gone, and the slot was given back. */
  | "closed";

/** Where a connection may go on from each state of its life. */
const NEXT: Readonly<Record<Life, readonly Life[]>> = {
  serving: ["yielding", "ending", "released", "closed"],
  yielding: ["serving", "ending", "released", "closed"],
  ending: ["ending", "closed"],
  // `shutdown` would reach the peer through every descriptor of the connection, also the other worker's.
  released: ["closed"],
  closed: [],
};

/** The socket of a connection, as far as it is used here; see Bun's `Socket`. */
export interface MailSocket extends WritableSocket {
  pause(): void;
  resume(): void;
  shutdown(): void;
  end(): void;
  terminate(): void;
}

export class Connection implements ConversationHost, PacketTap {
  readonly slot: number;
  readonly #home: ConnectionHome;
  readonly #peer: PeerName;
  readonly #chain: Chain;
  readonly #conversation: Conversation;
  readonly #recorder: Recorder;
  #socket: MailSocket | null = null;
  /** Replies that the socket did not take at once. */
  #unsent: WriteQueue | null = null;
  /** More of them are written in the next turn of the event loop. */
  #isSendDue = false;
  #isPaused = false;
  #life: Life = "serving";
  #turnSince = 0;
  #events = 0;
  #lookAfter = 0;
  #lookedAt = 0;
  #hasHadItsTurn = false;
  /** When the peer last sent something, or an awaited handler was through; on the home's clock. */
  #lastActive: number;
  readonly reportsAccepted: boolean;
  readonly isTrial: boolean;
  readonly services: Services;

  /** @param resume the session as another worker left it, null for a new session */
  constructor(home: ConnectionHome, slot: number, peer: PeerName, resume: ResumedSession | null = null) {
    this.#home = home;
    this.slot = slot;
    this.#peer = peer;
    this.reportsAccepted = home.reportsAccepted;
    this.isTrial = home.isTrial;
    this.services = home.services;
    this.#lastActive = home.now();
    this.#chain = home.chainOf(slot);
    this.#conversation = new Conversation(this.#chain, home.writer, this);
    this.#recorder = new Recorder(home.records, slot, this.#conversation);
    const { session } = this.#conversation;
    session.tap = this;
    if (!home.tracesPackets) session.tapped = RECORDED;
    if (resume === null) return;
    this.#conversation.resume(resume, resume.skippedFilters);
    this.#recorder.resumed(resume);
  }

  /** No message is open, and no handler or reply is under way. */
  get isBetweenMessages(): boolean {
    return this.#conversation.isBetweenMessages && this.#unsent === null;
  }

  /** Packets are read, and worked on now or later. */
  get #isOpen(): boolean {
    return this.#life === "serving" || this.#life === "yielding";
  }

  get #isClosed(): boolean {
    return this.#life === "closed";
  }

  #mayBecome(life: Life): boolean {
    return NEXT[this.#life].includes(life);
  }

  /** @returns false if its life does not go there from where it stands: then nothing has changed */
  #become(life: Life): boolean {
    if (!this.#mayBecome(life)) return false;
    this.#life = life;
    return true;
  }

  // Socket callbacks.

  opened(socket: MailSocket): void {
    this.#socket = socket;
    if (this.#life === "ending") {
      this.#end();
      return;
    }
    try {
      // The opening of a resumed session is replayed before anything is read.
      this.#work();
    } catch (error) {
      this.failed(error);
    }
  }

  /** A read. Its memory becomes the framer's, which frees it. */
  data(chunk: Uint8Array): void {
    if (!this.#isOpen) return;
    try {
      this.#read(chunk);
    } catch (error) {
      this.failed(error);
    }
  }

  #read(chunk: Uint8Array): void {
    const now = this.#home.now();
    this.#lastActive = now;
    const { session } = this.#conversation;
    session.push(chunk);
    this.#recorder.read();
    // On record first: if the connection was taken from this worker meanwhile, this read is not lost.
    this.#stopIfClaimed();
    if (this.#conversation.isWaiting || this.#unsent !== null || this.#life === "yielding") {
      if (session.framer.restBytes > MAX_UNREAD_BYTES) this.#pause();
      this.#conversation.foresee(this.#isPaused);
      return;
    }
    this.#work(now);
  }

  /** The socket takes more. */
  drained(): void {
    if (this.#unsent === null || this.#socket === null) return;
    try {
      this.#sendRest(this.#socket, this.#unsent);
    } catch (error) {
      this.failed(error);
    }
  }

  #sendRest(socket: MailSocket, unsent: WriteQueue): void {
    const { row, workerRows } = this.#home;
    if (!workerRows.lock(row)) workerRows.park(row);
    let written: Written;
    try {
      written = unsent.write(socket);
      if (written === "all") {
        this.#unsent = null;
        this.#recorder.sent();
      }
    } finally {
      workerRows.unlock(row);
    }
    if (written === "gone") {
      this.#lost();
      return;
    }
    if (written === "turn") this.#sendInNextTurn();
    if (this.#unsent !== null) return;
    if (this.#life === "ending") {
      this.#end();
      return;
    }
    if (!this.#conversation.isWaiting && this.#life === "serving") this.#work();
  }

  #sendInNextTurn(): void {
    if (this.#isSendDue) return;
    this.#isSendDue = true;
    setImmediate(() => {
      this.#isSendDue = false;
      this.drained();
    });
  }

  #dropUnsent(): void {
    this.#unsent?.drop();
    this.#unsent = null;
  }

  /** The peer is gone, or an error ended the connection. */
  disconnected(): void {
    if (this.#isClosed) return;
    const isReleased = this.#life === "released";
    try {
      // The peer may be there still, and the descriptor be taken from this worker.
      this.#stopIfClaimed();
      if (isReleased) return;
      this.#recorder.over();
      this.#dropUnsent();
      this.#conversation.hangUp();
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#life = "closed";
      this.#home.workerRows.leave(this.#home.row);
      // Whatever went wrong: the slot and the duplicate have to be given back.
      try {
        // It may hold a body, which is given back then.
        this.#home.writer.clear();
      } catch (error) {
        this.#complain(error);
      }
      if (isReleased) this.#home.released(this);
      else this.#home.closed(this);
    }
  }

  /** Lets another worker resume the session, if it is between messages and nothing of it is under way here. */
  release(): void {
    const { session } = this.#conversation;
    const { releaseFor } = this.#home;
    if (releaseFor === null || this.#socket === null || !this.#isOpen) return;
    if (this.#home.isStandIn && !this.#recorder.hasRead) return;
    if (!this.isBetweenMessages || session.framer.hasRest || !session.mayMove) return;
    const wants = this.#home.wantsFor(releaseFor, this.slot);
    if (!suffices(session.options, this.#chain.wants, wants) || !this.#recorder.mayResume) return;
    this.#become("released");
    // Nothing is read from now on, so nothing can be lost. The duplicate keeps the connection open for the peer.
    this.#socket.pause();
    this.#socket.end();
  }

  /** Cuts the connection if nothing came for so long, while no handler is awaited. */
  cutIdle(timeoutMs: number): void {
    if (this.#conversation.isWaiting || this.#home.now() - this.#lastActive <= timeoutMs) return;
    this.cut(`nothing came for ${timeoutMs / 1000} s (server.timeout)`);
  }

  /** Ends the connection from this side, whatever it is doing. */
  cut(reason: string): void {
    if (!this.#mayBecome("ending")) return;
    this.#home.log("notice", `${this.#peer}: ${reason}, connection closed`, `${reason}, connection closed`);
    this.#hangUp();
  }

  // For the conversation: see `ConversationHost`.

  resume(): void {
    this.#home.workerRows.leave(this.#home.row);
    if (this.#isClosed) {
      // An `abort` or `close` handler of a connection that is gone.
      this.#conversation.pump();
      this.#home.writer.clear();
      return;
    }
    this.#lastActive = this.#home.now();
    // The awaited reply leaves before another handler may block: the record in shared memory owes it no more.
    this.#settle();
    if (!this.#isClosed && this.#unsent === null) this.#work();
  }

  flush(): void {
    if (!this.#home.writer.isEmpty) this.#settle();
  }

  /** Sends the replies, and records the session as it is then. The lock keeps the main thread from claiming it in between. */
  #settle(): void {
    const { row, workerRows, writer } = this.#home;
    if (this.#isClosed) {
      writer.clear();
      return;
    }
    if (!workerRows.lock(row)) workerRows.park(row);
    let isGone: boolean;
    try {
      isGone = !writer.isEmpty && !this.#write();
      this.#recorder.settled(this.#unsent !== null);
    } finally {
      // If the lock stayed, the main thread could never claim this worker's connections.
      workerRows.unlock(row);
    }
    if (isGone) this.#lost();
  }

  /** @returns false if the peer is gone */
  #write(): boolean {
    const { writer } = this.#home;
    if (this.#home.tracesPackets) this.#traceReplies(writer.copy());
    const socket = this.#socket;
    if (socket !== null) {
      if (this.#unsent !== null) this.#unsent.take(writer);
      else if (!this.#writeAtOnce(socket, writer)) return false;
    }
    writer.clear();
    return true;
  }

  /** Nothing waits that has to leave before. @returns false if the peer is gone */
  #writeAtOnce(socket: MailSocket, writer: ReplyWriter): boolean {
    if (!writer.hasHeld) {
      const taken = socket.write(writer.buffer, 0, writer.length);
      if (taken >= 0 && taken < writer.length) {
        this.#unsent = new WriteQueue();
        this.#unsent.take(writer, taken);
      }
      return taken >= 0;
    }
    const queue = new WriteQueue();
    queue.take(writer);
    this.#unsent = queue;
    const written = queue.write(socket);
    if (written === "all") this.#unsent = null;
    if (written === "turn") this.#sendInNextTurn();
    return written !== "gone";
  }

  get isTurnOver(): boolean {
    this.#events += 1;
    if (this.#events === this.#lookAfter) this.#lookAtClock();
    return this.#hasHadItsTurn || this.#unsent !== null || this.#home.writer.length > MAX_REPLY_BYTES;
  }

  #lookAtClock(): void {
    const now = this.#home.now();
    this.#lookAfter = this.#events + (now === this.#lookedAt ? QUICK_EVENTS : 1);
    this.#lookedAt = now;
    this.#hasHadItsTurn = now - this.#turnSince >= TURN_MS;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  }

  now(): number {
    return this.#home.now();
  }

  get spool(): Spool | null {
    return this.#home.spool;
  }

  get arrivedAt(): number {
    return this.#lastActive;
  }

  get outcomes(): RunningOutcomes {
    return this.#home.outcomes;
  }

  logs(level: LogLevel): boolean {
    return this.#home.logs(level);
  }

  report(report: Report): void {
    this.#home.report(report);
  }

  count(counter: WorkerCounter): void {
    this.#home.workerRows.count(this.#home.row, counter);
  }

  calling(phase: EventPhase, filter: ChainFilter): void {
    // A closed connection has given its slot back.
    if (this.#isClosed) return;
    const { row, workerRows } = this.#home;
    this.#recorder.calling(phase, filter);
    workerRows.enter(row, this.slot);
  }

  suspended(alreadyMs: number | null): void {
    const { row, workerRows } = this.#home;
    if (alreadyMs !== null && !this.#isClosed) this.#recorder.waiting(alreadyMs);
    workerRows.leave(row);
  }

  #stopIfClaimed(): void {
    const { row, workerRows } = this.#home;
    if (workerRows.isClaimed(row)) workerRows.park(row);
  }

  /** Works on what was read until bytes are missing, a handler is awaited, or the replies do not leave. */
  #work(now = this.#home.now()): void {
    const conversation = this.#conversation;
    let problem: unknown = null;
    let isInterrupted = false;
    this.#turnSince = now;
    this.#lookedAt = now;
    this.#events = 0;
    this.#lookAfter = FIRST_LOOK;
    this.#hasHadItsTurn = false;
    try {
      // The replies to one read leave in pieces; if the peer does not take them, the work stops.
      while (!isInterrupted && conversation.pump() && this.#unsent === null) {
        this.flush();
        isInterrupted = this.#hasHadItsTurn;
      }
    } catch (error) {
      problem = error;
    }
    this.#home.workerRows.leave(this.#home.row);
    const { isWaiting } = conversation;
    this.#settle();
    if (this.#isClosed) return;
    if (isInterrupted) {
      this.#letOthersWork();
      return;
    }
    if (isWaiting) conversation.foresee(this.#isPaused);
    if (problem !== null) {
      this.failed(problem);
      return;
    }
    if (conversation.isOver) {
      this.#become("ending");
      if (this.#unsent === null) this.#end();
      return;
    }
    if (this.#isPaused && !isWaiting && this.#unsent === null) this.#unpause();
    if (this.#home.releaseFor !== null) this.release();
  }

  #letOthersWork(): void {
    if (!this.#become("yielding")) return;
    setImmediate(() => {
      if (this.#life !== "yielding") return;
      this.#become("serving");
      if (this.#unsent !== null) return;
      try {
        this.#work();
      } catch (error) {
        this.failed(error);
      }
    });
  }

  /** A write has shown that the peer is gone. A paused socket gets no event of that. */
  #lost(): void {
    const socket = this.#socket;
    this.disconnected();
    socket?.terminate();
  }

  /**
   * The peer broke the protocol, or we made a mistake: the mail server applies its own policy to this connection. No
   * other connection is concerned. An error in here must not keep the connection from being ended.
   */
  failed(problem: unknown): void {
    try {
      this.#complain(problem);
    } catch {
      // It throws when it is looked at: a Proxy of a handler's.
      this.#complain(new Error("a value that cannot be shown"));
    }
    if (this.#isClosed) {
      // An `abort` or `close` handler of a connection that is gone.
      this.#home.writer.clear();
      return;
    }
    this.#hangUp();
  }

  #complain(problem: unknown): void {
    if (problem instanceof ProtocolError) {
      this.count("protocolErrors");
      const { code, message } = problem;
      const text = `${this.#peer}: ${message} (${code}), connection closed`;
      this.#home.log("notice", text, `the mail server broke the protocol (${code})`);
      return;
    }
    this.count("internalErrors");
    const stack = problem instanceof Error ? problem.stack : describeThrown(problem);
    this.#home.log("error", `${this.#peer}: ${INTERNAL_ERROR}: ${stack}`, INTERNAL_ERROR);
  }

  #hangUp(): void {
    try {
      this.#dropUnsent();
      this.#recorder.over();
      this.#conversation.hangUp();
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#home.workerRows.leave(this.#home.row);
      try {
        // It may hold a body, which is given back then.
        this.#home.writer.clear();
      } catch (error) {
        this.#complain(error);
      }
      this.#end();
    }
  }

  /** Ends the connection for its peer. There is a duplicate of the descriptor, so closing alone would leave the peer waiting. */
  #end(): void {
    if (!this.#become("ending")) return;
    const socket = this.#socket;
    try {
      this.#recorder.over();
      socket?.shutdown();
      socket?.end();
    } catch (error) {
      this.#complain(error);
      socket?.terminate();
    }
  }

  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#socket?.pause();
  }

  #unpause(): void {
    this.#isPaused = false;
    this.#conversation.caughtUp();
    this.#socket?.resume();
  }

  /** See `PacketTap`. */
  seen(code: number, bytes: Uint8Array, start: number, end: number): void {
    if (this.#home.tracesPackets) {
      this.#home.log(
        "debug",
        `${this.#peer} > ${nameOf(COMMAND, code)} ${end - start} bytes "${excerpt(bytes, start, end)}"`,
      );
    }
    this.#recorder.seen(code, bytes, start, end);
    // No other worker could answer it, so it leaves before a handler runs.
    if (code === COMMAND.OPTNEG) this.flush();
  }

  #traceReplies(bytes: Uint8Array): void {
    for (const replies = new PacketWalk(bytes); replies.next();) {
      const { code, end, start } = replies;
      const payload = excerpt(bytes, start, end);
      this.#home.log("debug", `${this.#peer} < ${nameOf(REPLY, code)} ${end - start} bytes "${payload}"`);
    }
  }
}
