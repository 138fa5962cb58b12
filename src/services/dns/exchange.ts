/**
 * One question to one name server: a packet by UDP, or by TCP if the answer does not fit (RFC 1035 4.2, RFC 7766). Each
 * question has a socket of its own, so that its port is as random as its id (RFC 5452 4).
 */
import { randomInt } from "node:crypto";
import type { FailureCode } from "../../dns/answer.ts";
import { type NameServer, nameOfServer } from "../../dns/servers.ts";
import { reason } from "../../errors.ts";
import { decodeReply, encodeQuery, type Question, type Reply, UnreadableReply } from "./wire.ts";

/** The server gave no answer that can be used. */
export class ExchangeError extends Error {
  override readonly name = "ExchangeError";
  readonly code: FailureCode;

  constructor(code: FailureCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface ExchangeOptions {
  /** Aborts when nobody waits any more. */
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  /** What is left of it for this server. */
  readonly leftMs: number;
  /** Called for each packet that is no answer to the question. */
  stray(): void;
}

/** Packets that are no answer: with more, somebody guesses ids, and TCP is asked, where that is of no use (RFC 5452 9.3). */
const MAX_STRAY = 20;

/**
 * Asks one server, once by UDP, and by TCP if the answer was cut.
 * @throws ExchangeError if there is no answer in time, or no connection; the signal's reason if that aborts
 */
export async function exchange(server: NameServer, question: Question, options: ExchangeOptions): Promise<Reply> {
  options.signal.throwIfAborted();
  const deadline = performance.now() + Math.min(options.timeoutMs, options.leftMs);
  const ask = (transport: Transport, hasEdns: boolean): Promise<Reply | null> =>
    new Pending(server, question, options, deadline).run(transport, hasEdns);
  let hasEdns = true;
  let reply = await ask(byUdp, hasEdns);
  if (reply !== null && isWithoutEdns(reply)) {
    hasEdns = false;
    reply = await ask(byUdp, hasEdns);
  }
  if (reply !== null && !reply.isCut) return reply;
  reply = (await ask(byTcp, hasEdns))!;
  if (hasEdns && isWithoutEdns(reply)) reply = (await ask(byTcp, false))!;
  if (reply.isCut) throw new ExchangeError("EBADRESP", `${nameOfServer(server)}: the answer by TCP is cut`);
  return reply;
}

/** Servers that do not know EDNS (RFC 6891 7), or another version of it. */
function isWithoutEdns({ rcode }: Reply): boolean {
  return rcode === "FORMERR" || rcode === "NOTIMP" || rcode === "RCODE16";
}

/** @returns a function that closes the socket */
type Transport = (server: NameServer, query: Uint8Array, pending: Pending) => Promise<() => void>;

/** An answer that is waited for. */
class Pending {
  readonly #server: NameServer;
  readonly #question: Question;
  readonly #options: ExchangeOptions;
  readonly #deadline: number;
  readonly #id = randomInt(0x10000);
  readonly #answer = Promise.withResolvers<Reply | null>();
  #strays = 0;
  isOver = false;

  constructor(server: NameServer, question: Question, options: ExchangeOptions, deadline: number) {
    this.#server = server;
    this.#question = question;
    this.#options = options;
    this.#deadline = deadline;
  }

  /** @returns null if TCP is to be asked instead */
  async run(transport: Transport, hasEdns: boolean): Promise<Reply | null> {
    const { signal, timeoutMs } = this.#options;
    const query = encodeQuery(this.#id, this.#question, hasEdns);
    const timer = setTimeout(
      () => this.fail("ETIMEOUT", `no answer in ${timeoutMs} ms`),
      Math.max(0, this.#deadline - performance.now()),
    );
    const abort = (): void => {
      this.isOver = true;
      this.#answer.reject(signal.reason);
    };
    signal.addEventListener("abort", abort);
    let close: (() => void) | null = null;
    void transport(this.#server, query, this).then(
      (opened) => {
        // It was over before the socket was open.
        if (this.isOver) opened();
        else close = opened;
      },
      (error: unknown) => this.failBy(error),
    );
    try {
      return await this.#answer.promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      (close as (() => void) | null)?.();
    }
  }

  /** Takes bytes that may be the answer; false if they are not. */
  take(bytes: Uint8Array): boolean {
    if (this.isOver) return true;
    try {
      const reply = decodeReply(bytes, this.#id, this.#question);
      if (reply === null) return false;
      this.isOver = true;
      this.#answer.resolve(reply);
    } catch (error) {
      if (!(error instanceof UnreadableReply)) throw error;
      this.fail("EBADRESP", `the answer cannot be read: ${error.message}`);
    }
    return true;
  }

  /** A packet that is no answer: anybody may send one to the port. */
  stray(): void {
    if (this.isOver) return;
    this.#options.stray();
    this.#strays += 1;
    if (this.#strays <= MAX_STRAY) return;
    this.isOver = true;
    this.#answer.resolve(null);
  }

  fail(code: FailureCode, why: string): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#answer.reject(new ExchangeError(code, `${nameOfServer(this.#server)}: ${why}`));
  }

  failBy(error: unknown): void {
    this.fail("ECONNREFUSED", reason(error));
  }
}

async function byUdp(server: NameServer, query: Uint8Array, pending: Pending): Promise<() => void> {
  const socket = await Bun.udpSocket({
    // Connected: the system drops what other addresses send, and tells of a closed port.
    connect: { hostname: server.address, port: server.port },
    socket: {
      data(_socket, bytes) {
        if (!pending.take(bytes)) pending.stray();
      },
      // Bun gives the error as the first argument.
      error: (error: unknown) => pending.failBy(error),
    },
  });
  if (!socket.send(query)) pending.fail("ECONNREFUSED", "the packet could not be sent");
  return () => socket.close();
}

/** Bytes in front of a message by TCP: its length. */
const LENGTH_BYTES = 2;

async function byTcp(server: NameServer, query: Uint8Array, pending: Pending): Promise<() => void> {
  const framed = new Uint8Array(query.length + LENGTH_BYTES);
  framed.set([query.length >> 8, query.length & 0xff]);
  framed.set(query, LENGTH_BYTES);
  const message = new TcpMessage();
  const socket = await Bun.connect({
    hostname: server.address,
    port: server.port,
    socket: {
      data(_socket, bytes) {
        const whole = message.add(bytes);
        if (whole !== null && !pending.take(whole)) pending.fail("EBADRESP", "an answer to another question, by TCP");
      },
      close: () => pending.fail("EBADRESP", "the connection was closed before the answer"),
      error: (_socket, error) => pending.failBy(error),
      connectError: (_socket, error) => pending.failBy(error),
    },
  });
  // A query of a few hundred bytes fits into any socket's buffer.
  if (socket.write(framed) !== framed.length) pending.fail("ECONNREFUSED", "the question could not be sent");
  return () => socket.terminate();
}

/** The first message of a connection, however its bytes are cut; at most 64 KB are kept. */
class TcpMessage {
  #head = new Uint8Array(0);
  #body: Uint8Array | null = null;
  #has = 0;

  /** @returns the message once it is whole, and then again with all further bytes */
  add(bytes: Uint8Array): Uint8Array | null {
    let rest = bytes;
    if (this.#body === null) {
      const missing = LENGTH_BYTES - this.#head.length;
      this.#head = Uint8Array.from([...this.#head, ...rest.subarray(0, missing)]);
      rest = rest.subarray(missing);
      if (this.#head.length < LENGTH_BYTES) return null;
      this.#body = new Uint8Array((this.#head[0]! << 8) | this.#head[1]!);
    }
    const taken = rest.subarray(0, this.#body.length - this.#has);
    this.#body.set(taken, this.#has);
    this.#has += taken.length;
    return this.#has === this.#body.length ? this.#body : null;
  }
}
