/**
 * The socket below a `MilterClient` of the soak. It keeps the last packets, sends all writes of a turn of the event loop in
 * a single write as mail servers do, and closes after a given number of bytes if asked to.
 */
import { COMMAND, nameOf, REPLY } from "../src/protocol/constants.ts";
import { EMPTY, excerpt } from "../src/protocol/bytes.ts";
import type { Transport } from "../src/testing/index.ts";

export type Target = { readonly unix: string } | { readonly hostname: string; readonly port: number };

/** Packets of a conversation that are kept to be shown: so many first and last packets. */
const KEPT_FIRST = 12;
const KEPT_LAST = 60;
const SHOWN_BYTES = 40;

/** A packet as it is kept: it is formatted only if it is shown. */
interface Noted {
  readonly at: number;
  readonly direction: ">" | "<";
  /** Of the whole packet; 0 for an event of the connection. */
  readonly length: number;
  readonly code: number;
  readonly start: Uint8Array;
  readonly event: string;
}

/** How long an orderly end may take before it is forced. */
const END_MS = 3000;

export class SoakTransport implements Transport {
  onData: (bytes: Uint8Array) => void = () => undefined;
  onClose: (error: Error | undefined) => void = () => undefined;
  /** It has gone away as it was told to: nothing that follows is the server's fault. */
  hasVanished = false;
  readonly #from = performance.now();
  readonly #first: Noted[] = [];
  #last: Noted[] = [];
  #socket: Bun.Socket | null = null;
  #queue: Uint8Array[] = [];
  #isScheduled = false;
  #isClosing = false;
  #isClosed = false;
  #left: number;
  readonly #how: "end" | "reset";
  #timer: Timer | undefined;

  private constructor(afterBytes: number, how: "end" | "reset") {
    this.#left = afterBytes;
    this.#how = how;
  }

  /** @param vanishing after how many bytes it goes away, and how */
  static async connect(
    target: Target,
    vanishing: { readonly afterBytes: number; readonly how: "end" | "reset" } | null = null,
  ): Promise<SoakTransport> {
    const transport = new SoakTransport(vanishing?.afterBytes ?? Number.POSITIVE_INFINITY, vanishing?.how ?? "end");
    transport.#socket = await Bun.connect({
      ...target,
      socket: {
        data: (_, bytes) => transport.#received(bytes),
        drain: () => transport.#flush(),
        close: (_, error) => transport.#ended(error),
        error: () => undefined,
      },
    } as Bun.TCPSocketConnectOptions<undefined>);
    return transport;
  }

  /** The first and the last packets, each on a line: `>` sent, `<` received. */
  get conversation(): string[] {
    const last = this.#last.slice(-KEPT_LAST);
    return [...this.#first.map(lineOf), ...(last.length < this.#last.length ? ["…"] : []), ...last.map(lineOf)];
  }

  /** The socket reads nothing from now on. */
  deafen(): void {
    this.#socket?.pause();
  }

  /** Closes as a process that is killed does. */
  destroy(): void {
    this.hasVanished = true;
    this.#queue = [];
    this.#socket?.terminate();
  }

  send(bytes: Uint8Array): void {
    if (this.#isClosing || this.#isClosed) return;
    this.#note(">", bytes);
    this.#queue.push(Buffer.from(bytes));
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#flush();
    });
  }

  close(): void {
    if (this.#isClosing || this.#isClosed) return;
    this.#isClosing = true;
    this.#timer = setTimeout(() => this.#socket?.terminate(), END_MS);
    this.#flush();
  }

  #flush(): void {
    const socket = this.#socket;
    if (socket === null || this.#isClosed) return;
    while (this.#queue.length > 0) {
      const bytes = this.#queue.length === 1 ? this.#queue[0]! : Buffer.concat(this.#queue);
      const allowed = bytes.subarray(0, this.#left);
      const taken = Math.max(0, socket.write(allowed));
      this.#left -= taken;
      if (this.#left === 0) {
        this.#vanish();
        return;
      }
      if (taken < bytes.length) {
        this.#queue = [bytes.subarray(taken)];
        return;
      }
      this.#queue = [];
    }
    if (this.#isClosing) socket.end();
  }

  #vanish(): void {
    this.hasVanished = true;
    this.#isClosing = true;
    this.#queue = [];
    this.#timer ??= setTimeout(() => this.#socket?.terminate(), END_MS);
    this.#event(">", `gone: ${this.#how}`);
    if (this.#how === "reset") this.#socket?.terminate();
    else this.#socket?.end();
  }

  #received(bytes: Uint8Array): void {
    this.#note("<", bytes);
    this.onData(bytes);
  }

  #ended(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#queue = [];
    clearTimeout(this.#timer);
    this.#event("<", "closed");
    this.onClose(error);
  }

  #note(direction: Noted["direction"], bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    for (let count = 0; at + 5 <= bytes.length && count < KEPT_LAST; count++) {
      const length = view.getUint32(at);
      const start = Buffer.from(bytes.subarray(at + 5, Math.min(at + 4 + length, at + 5 + SHOWN_BYTES)));
      this.#keep({ at: performance.now() - this.#from, direction, length, code: bytes[at + 4]!, start, event: "" });
      at += 4 + length;
    }
  }

  #event(direction: Noted["direction"], event: string): void {
    this.#keep({ at: performance.now() - this.#from, direction, length: 0, code: 0, start: EMPTY, event });
  }

  #keep(noted: Noted): void {
    if (this.#first.length < KEPT_FIRST) this.#first.push(noted);
    else this.#last.push(noted);
    if (this.#last.length >= 3 * KEPT_LAST) this.#last = this.#last.slice(-2 * KEPT_LAST);
  }
}

function lineOf({ at, code, direction, event, length, start }: Noted): string {
  const time = (at / 1000).toFixed(3);
  if (event !== "") return `${time} ${direction} (${event})`;
  const name = nameOf(direction === ">" ? COMMAND : REPLY, code);
  return `${time} ${direction} ${name}${length > 1 ? ` ${length - 1} bytes "${excerpt(start, 0, start.length)}"` : ""}`;
}
