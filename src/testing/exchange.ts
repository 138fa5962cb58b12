/**
 * Packets out, replies in, over a transport: the wait for a reply with its timeout, and the rule that nothing comes
 * unasked. It knows neither phases nor habits; `client.ts` decides what to send and which reply is right.
 */
import type { CommandWriter } from "../protocol/commands.ts";
import { nameOf, REPLY } from "../protocol/constants.ts";
import { ProtocolError } from "../protocol/errors.ts";
import { Framer } from "../protocol/framer.ts";
import { decodeReply, type Reply } from "../protocol/replies.ts";
import { ConversationError } from "./errors.ts";
import type { Transport } from "./transport.ts";

/** Larger replies than any filter sends: libmilter refuses to send a payload above 65535. */
const MAX_REPLY_PACKET_BYTES = 1 << 20;

interface Waiter {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

/** A milter connection, seen from the mail server. After its first failure every call throws that failure. */
export class Exchange {
  readonly #transport: Transport;
  readonly #timeoutMs: number;
  readonly #framer = new Framer(MAX_REPLY_PACKET_BYTES);
  #inbox: Reply[] = [];
  #waiter: Waiter | undefined;
  #isAwaiting = false;
  #failure: Error | undefined;
  #isReported = false;
  #closed = Promise.withResolvers<void>();
  #isClosed = false;

  constructor(transport: Transport, timeoutMs: number) {
    this.#transport = transport;
    this.#timeoutMs = timeoutMs;
    transport.onData = (bytes) => this.#receive(bytes);
    transport.onClose = (error) => this.#end(error);
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** True once something broke the conversation. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** @throws the failure that broke the conversation, if there is any */
  checkFailure(): void {
    if (this.#failure !== undefined) throw this.#reported(this.#failure);
  }

  /** As `checkFailure`, for a failure that no call has thrown yet. */
  checkUnreported(): void {
    if (!this.#isReported) this.checkFailure();
  }

  /** @throws the failure that broke the conversation, or PMILTER_ERR_CLOSED: nothing can be sent any more */
  check(phase: string): void {
    this.checkFailure();
    if (!this.#isClosed) return;
    const message = `${phase}: the filter has closed the connection, expected it to be open`;
    throw this.#reported(this.#fail(new ConversationError("PMILTER_ERR_CLOSED", message)));
  }

  /** Sends the written packets in a single write, and clears the writer. */
  flush(writer: CommandWriter): void {
    if (writer.length === 0) return;
    this.#transport.send(writer.buffer.subarray(0, writer.length));
    writer.clear();
  }

  /** Sends the written packets; from now on a reply is due, until `settle`. */
  ask(writer: CommandWriter): void {
    this.#isAwaiting = true;
    this.flush(writer);
  }

  /**
   * The next reply. Each call has the whole timeout, so PROGRESS restarts it.
   * @param phase and `expected` are for the error message
   */
  async next(phase: string, expected: string): Promise<Reply> {
    const first = this.#inbox.shift();
    if (first !== undefined) return first;
    this.checkFailure();
    if (this.#isClosed) throw this.#reported(this.#fail(closedWhile(phase, expected)));
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#waiter = { resolve, reject };
    const timer = setTimeout(() => {
      const what = `${phase}: no reply within ${this.#timeoutMs} ms, expected ${expected}`;
      this.#fail(new ConversationError("PMILTER_ERR_TIMEOUT", what));
    }, this.#timeoutMs);
    try {
      return await promise;
    } catch (error) {
      this.#isReported = true;
      if (error instanceof ConversationError && error.code === "PMILTER_ERR_CLOSED") {
        this.#failure = closedWhile(phase, expected, error.cause);
        throw this.#failure;
      }
      if (error instanceof ProtocolError) {
        this.#failure = new ProtocolError(error.code, `${phase}: ${error.message}; expected ${expected}`);
        throw this.#failure;
      }
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * The reply is complete. @throws ProtocolError PMILTER_ERR_REPLY if the filter sent more than was asked for
   */
  settle(phase: string): void {
    this.#isAwaiting = false;
    this.checkFailure();
    const extra = this.#inbox.shift();
    if (extra !== undefined) throw this.violation(`${phase}: a further reply (${extra.kind}) after the final one`);
  }

  /** Ends the conversation because the filter broke the protocol; returns the error to throw. */
  violation(message: string): Error {
    return this.#reported(this.#fail(new ProtocolError("PMILTER_ERR_REPLY", message)));
  }

  /** Closes the transport and waits until it is closed, at most for the timeout. */
  async close(): Promise<void> {
    this.#transport.close();
    if (this.#isClosed) return;
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, this.#timeoutMs);
    await Promise.race([this.#closed.promise, late.promise]);
    clearTimeout(timer);
  }

  #receive(bytes: Uint8Array): void {
    if (this.#failure !== undefined) return;
    try {
      this.#framer.push(bytes);
      while (this.#framer.next()) {
        if (!this.#isAwaiting) {
          const name = nameOf(REPLY, this.#framer.code);
          throw new ProtocolError("PMILTER_ERR_REPLY", `reply ${name} that nothing waits for`);
        }
        const reply = decodeReply(this.#framer.code, this.#framer.bytes, this.#framer.start, this.#framer.end);
        this.#deliver(reply.kind === "replaceBody" ? { ...reply, chunk: Buffer.from(reply.chunk) } : reply);
      }
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #deliver(reply: Reply): void {
    const waiter = this.#waiter;
    if (waiter === undefined) {
      this.#inbox.push(reply);
    } else {
      this.#waiter = undefined;
      waiter.resolve(reply);
    }
  }

  #reported(failure: Error): Error {
    this.#isReported = true;
    return failure;
  }

  #fail(error: Error): Error {
    this.#failure ??= error;
    this.#isAwaiting = false;
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.reject(this.#failure);
    this.#transport.close();
    return this.#failure;
  }

  #end(cause: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closed.resolve();
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.reject(new ConversationError("PMILTER_ERR_CLOSED", "closed", { cause }));
  }
}

function closedWhile(phase: string, expected: string, cause?: unknown): ConversationError {
  const message = `${phase}: the filter closed the connection, expected ${expected}`;
  return new ConversationError("PMILTER_ERR_CLOSED", message, { cause });
}
