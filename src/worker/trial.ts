/**
 * Sessions whose packets come from the main thread by messages instead of a socket: for a trial of a configuration. The
 * connection is that of a worker that serves, with its session record, so a trial that loses its worker is recovered by the
 * server's rules.
 */
import { type Chain, Chains } from "../handler/chain.ts";
import type { SessionStart } from "../handler/conditions.ts";
import type { Services } from "../handler/services.ts";
import type { Stopwatch } from "../handler/filter-times.ts";
import { RunningOutcomes } from "../handler/outcomes.ts";
import { heapBytes } from "../memory.ts";
import { ReplyWriter } from "../protocol/encode.ts";
import type { FromWorker, ResumedSession } from "../shared/messages.ts";
import type { SessionRecords } from "../shared/session-records.ts";
import { BEAT_MS, type WorkerRows } from "../shared/worker-rows.ts";
import { Connection, type ConnectionHome, type MailSocket } from "./connection.ts";

/** The row and the slot of a trial: there are no others. */
const ROW = 0;
const SLOT = 0;
/** How long the end of a session waits for calls of `outcome`, beyond their own time. */
const OUTCOMES_MORE_MS = 1000;

export interface TrialParts {
  /** The folder of the configuration. */
  readonly folder: string;
  readonly chain: Chain;
  /** What each session begins with. */
  readonly start: SessionStart;
  readonly stopwatch: Stopwatch;
  readonly workerRows: WorkerRows;
  readonly records: SessionRecords;
  readonly services: Services;
  post(message: FromWorker): void;
}

export class Trial {
  readonly folder: string;
  readonly chain: Chain;
  readonly #records: SessionRecords;
  readonly #home: ConnectionHome;
  readonly #post: TrialParts["post"];
  readonly #stopwatch: Stopwatch;
  readonly #beat: ReturnType<typeof setInterval>;
  #socket: MessageSocket | null = null;

  constructor({ chain, folder, post, records, services, start, stopwatch, workerRows }: TrialParts) {
    const ofSession = new Chains(chain).for(start);
    this.folder = folder;
    this.chain = chain;
    this.#records = records;
    this.#post = post;
    this.#stopwatch = stopwatch;
    const outcomes = new RunningOutcomes();
    this.#home = {
      row: ROW,
      chainOf: () => ofSession,
      wantsFor: () => ofSession.wants,
      writer: new ReplyWriter(),
      workerRows,
      records,
      services,
      spool: null,
      reportsAccepted: false,
      logs: () => true,
      isTrial: true,
      tracesPackets: false,
      now: () => performance.now(),
      report: (report) => post({ kind: "report", report }),
      log: (level, text, of) => post({ kind: "log", level, text, fields: {}, of }),
      outcomes,
      closed: () => {
        this.#socket = null;
        // What calls of `outcome` report belongs to the session.
        void outcomes.finish(chain.policy.handlerTimeoutMs + OUTCOMES_MORE_MS).then(() => {
          post({ kind: "hungUp", times: stopwatch.take() });
          stopwatch.forget();
        });
      },
      releaseFor: null,
      isStandIn: false,
      released() {},
    };
    const beat = () => workerRows.beat(ROW, heapBytes());
    beat();
    this.#beat = setInterval(beat, BEAT_MS);
  }

  /** A session begins. @param resume the session as another worker left it, null for a new session */
  open(resume: ResumedSession | null): void {
    this.#records.adopt(SLOT);
    const connection = new Connection(this.#home, SLOT, "pmilter try", resume);
    this.#socket = new MessageSocket(connection, this.#post, () => {
      this.#post({ kind: "took", times: this.#stopwatch.take() });
    });
    connection.opened(this.#socket);
  }

  /** The mail server has sent bytes. */
  read(bytes: Uint8Array): void {
    this.#socket?.receive(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }

  /** The mail server has closed the connection. */
  hangUp(): void {
    this.#socket?.terminate();
  }

  /** No session follows. */
  end(): void {
    clearInterval(this.#beat);
  }
}

/** The socket of a connection whose peer is reached by messages. It takes all bytes at once. */
class MessageSocket implements MailSocket {
  readonly #connection: Connection;
  readonly #post: TrialParts["post"];
  readonly #taking: () => void;
  /** What came while it was paused; null while it is not. */
  #held: Buffer[] | null = null;
  #isClosed = false;

  /** @param taking called before the bytes of a message are worked on */
  constructor(connection: Connection, post: TrialParts["post"], taking: () => void) {
    this.#connection = connection;
    this.#post = post;
    this.#taking = taking;
  }

  receive(bytes: Buffer): void {
    if (this.#held !== null) {
      this.#held.push(bytes);
      return;
    }
    this.#taking();
    this.#connection.data(bytes);
  }

  write(bytes: Uint8Array, from: number, length: number): number {
    this.#post({ kind: "written", bytes: new Uint8Array(bytes.subarray(from, from + length)) });
    return length;
  }

  pause(): void {
    this.#held ??= [];
  }

  resume(): void {
    const held = this.#held ?? [];
    this.#held = null;
    // As bytes of a socket they come from the event loop, and none of them pass those that come later.
    queueMicrotask(() => {
      for (const bytes of held) this.receive(bytes);
    });
  }

  shutdown(): void {}

  end(): void {
    this.terminate();
  }

  terminate(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    queueMicrotask(() => this.#connection.disconnected());
  }
}
