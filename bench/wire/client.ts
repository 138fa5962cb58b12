/**
 * A connection of the load generator: plays the prepared writes of a Postfix, checks every reply, and measures its time.
 * Callbacks only: the generator must cost less than the server that it measures.
 */
import type { Socket } from "bun";
import { REPLY } from "../../src/protocol/constants.ts";
import { type Exchange, isPass, OPTNEG, type Traffic } from "../support/traffic.ts";
import type { Latencies } from "./latency.ts";
import type { LoadKind, LoadRequest } from "./messages.ts";

/** The parts that the connections of a generator share. */
export interface LoadHome {
  readonly request: LoadRequest;
  readonly latencies: Latencies;
  /** The writes for an answer to OPTNEG, for each mail: sessions begin and end alike. */
  traffic(answer: Uint8Array): readonly Traffic[];
  /** Which of the mails is next. */
  nextMail(): number;
  /** The connection has been taken, and negotiated: it is to be {@link LoadClient.start}ed, now or later. */
  negotiated(client: LoadClient): void;
  completed(): void;
  /** The connection is closed, after a QUIT. */
  closed(client: LoadClient): void;
  /** The connection waits for {@link LoadClient.begin}. */
  rests(client: LoadClient): void;
  failed(message: string): void;
}

const NOTHING: readonly Exchange[] = [];
const NO_MAIL: readonly Traffic[] = [];
/** About so many bytes of content are as much work for a server as a round trip. */
const ROUND_TRIP_BYTES = 4096;

export class LoadClient {
  readonly #home: LoadHome;
  readonly #kind: LoadKind;
  #socket: Socket | null = null;
  #traffic = NO_MAIL;
  #exchanges = NOTHING;
  #at = 0;
  #awaits: Exchange["awaits"] | "optneg" = "nothing";
  #changes = 0;
  #messages = 0;
  #rest: Buffer | null = null;
  /** When the write went out whose reply is awaited; of `visits`, when the connection was begun. */
  #since = 0;
  /** When the message was due whose first reply is to come; 0 if that is now. */
  #due = 0;
  /** The part of the last write that the socket has not taken yet. */
  #unsent: Uint8Array | null = null;
  #isQuitting = false;
  #mayAnswerQuit = false;

  private constructor(home: LoadHome) {
    this.#home = home;
    this.#kind = home.request.kind;
  }

  static open(home: LoadHome): LoadClient {
    const client = new LoadClient(home);
    client.#since = performance.now();
    Bun.connect({
      unix: home.request.socket,
      socket: {
        open: (socket) => client.#opened(socket),
        data: (_, chunk) => client.#data(chunk),
        drain: () => client.#drain(),
        close: () => client.#closed(),
        error: (_, error) => home.failed(String(error)),
      },
    }).catch((error: unknown) => home.failed(`cannot connect: ${String(error)}`));
    return client;
  }

  /** The share of the message at hand that has been sent; 0 before and behind the messages. */
  get progress(): number {
    if (this.#isQuitting || this.#exchanges === NOTHING || this.#exchanges === this.#traffic[0]!.start) return 0;
    let [all, begun] = [0, 0];
    this.#exchanges.forEach(({ bytes }, index) => {
      const weight = ROUND_TRIP_BYTES + bytes.length;
      all += weight;
      if (index < this.#at) begun += weight;
    });
    return (begun - (this.#unsent?.length ?? 0)) / all;
  }

  #opened(socket: Socket): void {
    this.#socket = socket;
    this.#awaits = "optneg";
    this.#write(OPTNEG);
  }

  #data(chunk: Buffer): void {
    let bytes = chunk;
    if (this.#rest !== null) {
      bytes = Buffer.concat([this.#rest, chunk]);
      this.#rest = null;
    }
    for (let at = 0; at < bytes.length;) {
      const end = bytes.length - at < 4 ? Number.POSITIVE_INFINITY : at + 4 + bytes.readUInt32BE(at);
      if (end > bytes.length) {
        this.#rest = Buffer.from(bytes.subarray(at));
        return;
      }
      this.#reply(bytes, at, end);
      at = end;
    }
  }

  #reply(bytes: Buffer, at: number, end: number): void {
    const code = bytes[at + 4]!;
    switch (this.#awaits) {
      case "optneg":
        this.#negotiated(bytes.subarray(at, end));
        return;
      case "eom":
        if (code === REPLY.PROGRESS) return;
        if (!isPass(code)) {
          this.#changes += 1;
          if (code === REPLY.ADDHEADER) return;
          break;
        }
        if (this.#changes !== this.#home.request.changes) {
          this.#home.failed(`${this.#changes} changes at the end of a message, expected ${this.#home.request.changes}`);
          return;
        }
        this.#changes = 0;
        this.#answered();
        return;
      case "body":
        if (code === REPLY.SKIP) {
          while (this.#exchanges[this.#at]?.awaits === "body") this.#at += 1;
          this.#answered();
          return;
        }
        if (code !== REPLY.CONTINUE) break;
        this.#answered();
        return;
      case "continue":
        if (code !== REPLY.CONTINUE) break;
        this.#answered();
        return;
      case "nothing":
        if (this.#mayAnswerQuit && code === REPLY.CONTINUE && end - at === 5) {
          this.#mayAnswerQuit = false;
          return;
        }
        break;
      default:
        this.#awaits satisfies never;
    }
    this.#home.failed(`reply "${String.fromCharCode(code)}" while awaiting ${this.#awaits}`);
  }

  #negotiated(answer: Uint8Array): void {
    this.#traffic = this.#home.traffic(answer);
    this.#awaits = "nothing";
    // At a pace it is about every wait of the mail server.
    if (this.#home.request.perSecond !== null) this.#home.latencies.add(performance.now() - this.#since);
    this.#home.negotiated(this);
  }

  start(): void {
    const { start, quit } = this.#traffic[0]!;
    if (this.#kind === "visits") {
      this.#quit(quit);
      return;
    }
    this.#exchanges = start;
    this.#at = 0;
    this.#go();
  }

  #answered(): void {
    this.#home.latencies.add(performance.now() - this.#since);
    this.#due = 0;
    this.#go();
  }

  /** Writes up to the next reply that has to be awaited. */
  #go(): void {
    for (;;) {
      const exchange = this.#exchanges[this.#at];
      if (exchange === undefined) {
        if (!this.#nextPart()) return;
        continue;
      }
      this.#at += 1;
      this.#awaits = exchange.awaits;
      this.#write(exchange.bytes);
      if (exchange.awaits !== "nothing" || this.#unsent !== null) return;
    }
  }

  /** The next message; false if there is none. */
  #nextPart(): boolean {
    const { request } = this.#home;
    const { start, quitAfterMail } = this.#traffic[0]!;
    this.#awaits = "nothing";
    if (this.#exchanges !== start) {
      this.#messages += 1;
      this.#home.completed();
    }
    if (this.#messages === request.messagesPerConnection) {
      this.#quit(quitAfterMail);
      return false;
    }
    if (this.#kind === "idle" || request.perSecond !== null) {
      this.#exchanges = NOTHING;
      this.#home.rests(this);
      return false;
    }
    this.#nextMessage();
    return true;
  }

  #nextMessage(): void {
    const { first, next } = this.#traffic[this.#home.nextMail()]!;
    this.#exchanges = this.#messages === 0 ? first : next;
    this.#at = 0;
  }

  /** The next message of a connection that rests. @param since when it was due, on the clock of `performance.now()` */
  begin(since: number): void {
    this.#nextMessage();
    this.#due = since;
    this.#go();
  }

  #quit(bytes: Uint8Array): void {
    this.#awaits = "nothing";
    this.#isQuitting = true;
    this.#mayAnswerQuit = this.#home.request.answersQuit;
    this.#write(bytes);
  }

  #write(bytes: Uint8Array): void {
    if (this.#kind !== "visits") this.#since = this.#due === 0 ? performance.now() : this.#due;
    this.#send(bytes);
  }

  /** A large message does not fit into the socket's buffer: the rest goes out as the server reads. */
  #send(bytes: Uint8Array): void {
    const taken = this.#socket!.write(bytes);
    if (taken < 0) this.#home.failed("the server closed the connection while it was written to");
    this.#unsent = taken === bytes.length ? null : bytes.subarray(Math.max(0, taken));
  }

  #drain(): void {
    if (this.#unsent === null) return;
    this.#send(this.#unsent);
    if (this.#unsent === null && this.#awaits === "nothing" && !this.#isQuitting) this.#go();
  }

  #closed(): void {
    if (!this.#isQuitting) {
      this.#home.failed(`the server closed the connection while ${this.#awaits} was awaited`);
      return;
    }
    if (this.#kind === "visits") {
      this.#home.latencies.add(performance.now() - this.#since);
      this.#home.completed();
    }
    this.#home.closed(this);
  }
}
