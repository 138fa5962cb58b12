/**
 * How the mail server's side reaches a filter: the small interface that `MilterClient` stands on, and its form over a
 * unix or TCP socket. It moves bytes and knows no packet.
 */
import { parseAddress } from "../config/address.ts";
import { ConversationError } from "./errors.ts";

/**
 * A duplex stream of bytes. Its user sets `onData` and `onClose` before anything can arrive; both may be called
 * from within `send` (a filter in memory answers at once).
 */
export interface Transport {
  /** Sends all of `bytes`, in order. They belong to the caller again when the call returns. A closed stream ignores it. */
  send(bytes: Uint8Array): void;
  /** Bytes from the filter, in any split; theirs until the callback returns. */
  onData: (bytes: Uint8Array) => void;
  /** The end, once, whichever side closed; with an error if it was not orderly. Nothing arrives after it. */
  onClose: (error: Error | undefined) => void;
  /** Ends the stream after all sent bytes. Calling it again does nothing. */
  close(): void;
}

/** Where a filter listens: a string as in `server.listen` (`unix:/path`, `inet:127.0.0.1:8891`, …), or its parts. */
export type FilterAddress =
  | string
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** How long `close` waits for a peer that does not read the queued bytes, or does not close its side. */
const CLOSE_FLUSH_MS = 1000;

/**
 * Connects to a filter.
 * @param timeoutMs for the connection to be made
 * @throws ConversationError PMILTER_ERR_CONNECT; AddressError PMILTER_ERR_ADDRESS
 */
export async function connectTransport(address: FilterAddress, timeoutMs: number): Promise<Transport> {
  const target = typeof address === "string" ? parseAddress(address) : address;
  if (target.kind === "fd") throw new ConversationError("PMILTER_ERR_CONNECT", "fd: addresses cannot be connected to");
  const name = target.kind === "unix" ? target.path : `${target.host} port ${target.port}`;
  const transport = new SocketTransport();
  const socket = transport.handlers;
  const opened =
    target.kind === "unix"
      ? Bun.connect({ unix: target.path, socket })
      : Bun.connect({ hostname: target.host, port: target.port, socket });
  let timer: Timer | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    transport.attach(await Promise.race([opened, tooLate]));
  } catch (cause) {
    opened.then(
      (late) => late.terminate(),
      () => undefined, // It failed late: the caller has been told.
    );
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ConversationError("PMILTER_ERR_CONNECT", `cannot connect to ${name}: ${reason}`, { cause });
  } finally {
    clearTimeout(timer);
  }
  return transport;
}

/** Bun's `write` may take only a part; the rest is queued here and goes on with `drain`. */
class SocketTransport implements Transport {
  onData: (bytes: Uint8Array) => void = () => undefined;
  onClose: (error: Error | undefined) => void = () => undefined;
  #socket: Bun.Socket | undefined;
  #queue: Uint8Array[] = [];
  #closing = false;
  #closed = false;
  #error: Error | undefined;
  #closeTimer: Timer | undefined;

  readonly handlers = {
    data: (_socket: Bun.Socket, bytes: Uint8Array): void => this.onData(bytes),
    drain: (): void => this.#drain(),
    error: (_socket: Bun.Socket, error: Error): void => {
      this.#error = error;
    },
    close: (_socket: Bun.Socket, error?: Error): void => {
      if (this.#closed) return;
      this.#closed = true;
      this.#queue = [];
      clearTimeout(this.#closeTimer);
      this.onClose(this.#error ?? error);
    },
  };

  attach(socket: Bun.Socket): void {
    this.#socket = socket;
  }

  send(bytes: Uint8Array): void {
    if (this.#closing || this.#closed) return;
    if (this.#queue.length > 0) {
      this.#queue.push(Buffer.from(bytes));
      return;
    }
    const taken = this.#write(bytes);
    if (taken < bytes.length) this.#queue.push(Buffer.from(bytes.subarray(taken)));
  }

  close(): void {
    if (this.#closing || this.#closed) return;
    this.#closing = true;
    this.#closeTimer = setTimeout(() => this.#socket?.terminate(), CLOSE_FLUSH_MS);
    if (this.#queue.length === 0) this.#socket?.end();
  }

  #drain(): void {
    while (this.#queue.length > 0) {
      const first = this.#queue[0]!;
      const taken = this.#write(first);
      // A peer that reads slowly is waited for, as long as it reads.
      if (taken > 0) this.#closeTimer?.refresh();
      if (taken < first.length) {
        this.#queue[0] = first.subarray(taken);
        return;
      }
      this.#queue.shift();
    }
    if (this.#closing) this.#socket?.end();
  }

  /** Bytes taken; a socket that is closing gives -1, and its `close` follows. */
  #write(bytes: Uint8Array): number {
    return Math.max(0, this.#socket?.write(bytes) ?? 0);
  }
}
