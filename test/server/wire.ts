/**
 * A mail server by hand, for tests of the running server: packets written and read independently of `src/protocol`,
 * any bytes in any order, a reader that can be slow. It has no habits; `MilterClient` has.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { parseAddress } from "../../src/config/address.ts";
import type { Pmilter } from "../support/pmilter.ts";
import { PATIENCE_MS, waitFor } from "../support/temp.ts";

/** A packet: its length, the code, and the payload. */
export function packet(code: string, payload: string | Uint8Array = ""): Buffer {
  const bytes = Buffer.from(payload);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length + 1);
  head.write(code, 4, "latin1");
  return Buffer.concat([head, bytes]);
}

export function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32BE(value, 4 * index));
  return bytes;
}

/** Leading space, and nothing that would switch an event or its reply off: so each command is answered. */
const ANSWER_ALL = 0x100000;
export const OPTNEG = packet("O", words(6, 0x1ff, ANSWER_ALL));
/** The commands of content, and the flags that say they need no reply: their verdicts may be given at the end. */
const CONTENT = { L: 0x80, N: 0x40000, B: 0x80000 } as const;
export const OPTNEG_DEFER = packet("O", words(6, 0x1ff, ANSWER_ALL | CONTENT.L | CONTENT.N | CONTENT.B));
/** For what is to be the same with deferral and without. */
export const OFFERS = [OPTNEG, OPTNEG_DEFER] as const;
export const CONNECT = packet("C", "mx.example.net\x004\x9c\x40192.0.2.7\0");
export const HELO = packet("H", "mx.example.net\0");
export const MAIL = packet("M", "<from@example.com>\0");
export const RCPT = packet("R", "<to@example.com>\0");
export const DATA = packet("T");
export const HEADER = packet("L", "Subject\0 Hello\0");
export const EOH = packet("N");
export const BODY = packet("B", "Hello\r\n");
export const EOM = packet("E");
export const ABORT = packet("A");
export const QUIT = packet("Q");
/** A command that every server here answers, whatever went before. */
export const UNKNOWN = packet("U", "WHO\0");

export interface Reply {
  readonly code: string;
  readonly payload: Buffer;
}

export class RawClient implements Disposable {
  /** All replies so far; `reply` gives them one by one. */
  readonly replies: Reply[] = [];
  /** Bytes received. */
  received = 0;
  /** The server has ended the connection, orderly or not. */
  isEnded = false;
  isReset = false;
  #taken = 0;
  /** Commands of content that get no reply, as it was negotiated. */
  #silent = "";
  #rest = Buffer.alloc(0);
  #socket!: Bun.Socket;
  #wake = Promise.withResolvers<void>();

  /** @param address as the server told it; a client that ends only when it is told to */
  static async connect(address: string): Promise<RawClient> {
    const target = parseAddress(address);
    if (target.kind === "fd") throw new Error("fd: addresses cannot be connected to");
    const client = new RawClient();
    const notice = () => {
      client.#wake.resolve();
      client.#wake = Promise.withResolvers();
    };
    const end = () => {
      client.isEnded = true;
      notice();
    };
    client.#socket = await Bun.connect({
      ...(target.kind === "unix" ? { unix: target.path } : { hostname: target.host, port: target.port }),
      allowHalfOpen: true,
      socket: {
        data(_, chunk) {
          client.#take(chunk);
          notice();
        },
        drain: notice,
        end,
        close: end,
        error() {
          client.isReset = true;
          end();
        },
      },
    } as Bun.TCPSocketConnectOptions<undefined>);
    return client;
  }

  /** Sends all; settles when the kernel has taken them, or the connection is gone. */
  async send(...packets: readonly Uint8Array[]): Promise<void> {
    const bytes = packets.length === 1 ? packets[0]! : Buffer.concat(packets);
    for (let sent = 0; sent < bytes.length && !this.isEnded;) {
      const taken = this.#socket.write(bytes, sent, bytes.length - sent);
      if (taken < 0) return;
      sent += taken;
      if (sent < bytes.length) await this.#wake.promise;
    }
  }

  /** Writes what the socket takes at once; gives the number of bytes. */
  write(bytes: Uint8Array): number {
    return Math.max(0, this.#socket.write(bytes));
  }

  /**
   * Writes copies of a packet, one behind the other, until the socket has taken nothing for some turns, or `maxBytes`.
   * @param turn settles when the server may have read some more
   * @returns the bytes written; the last packet may be cut
   */
  async stuff(packet: Uint8Array, turn: () => Promise<unknown>, maxBytes = 256 * 2 ** 20): Promise<number> {
    const packets = Buffer.concat(Array.from({ length: 10_000 }, () => packet));
    let sent = 0;
    for (let full = 0; full < 50 && sent < maxBytes;) {
      const taken = this.write(packets.subarray(sent % packet.length));
      sent += taken;
      full = taken === 0 ? full + 1 : 0;
      if (taken === 0) await turn();
    }
    return sent;
  }

  /** The next reply. */
  async reply(timeoutMs = PATIENCE_MS): Promise<Reply> {
    await this.#until(() => this.replies.length > this.#taken, "a reply", timeoutMs);
    const reply = this.replies[this.#taken];
    if (reply === undefined) throw new Error("the server ended the connection, expected a reply");
    this.#taken += 1;
    return reply;
  }

  /** The codes of the next replies, such as `Occ`. */
  async codes(count: number): Promise<string> {
    let codes = "";
    while (codes.length < count) codes += (await this.reply()).code;
    return codes;
  }

  /** Sends packets and gives the codes of their replies: one for each, but none for content that was to be without. */
  async ask(...packets: readonly Uint8Array[]): Promise<string> {
    await this.send(...packets);
    let codes = "";
    for (const { 4: code } of packets) {
      if (!this.#silent.includes(String.fromCharCode(code!))) codes += (await this.reply()).code;
    }
    return codes;
  }

  /** Settles when something happens to the connection: a read, room to write, its end. */
  event(): Promise<void> {
    return this.#wake.promise;
  }

  /** Settles when the server has ended the connection. */
  async ended(timeoutMs = PATIENCE_MS): Promise<void> {
    await this.#until(() => this.isEnded, "the end of the connection", timeoutMs);
  }

  /** Reads no more, so that the server's replies pile up. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends this side, orderly. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once; what is unread makes it a reset. */
  [Symbol.dispose](): void {
    this.#socket.terminate();
  }

  async #until(condition: () => boolean, what: string, timeoutMs: number): Promise<void> {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    }, timeoutMs);
    try {
      while (!condition() && !this.isEnded) {
        if (isLate) throw new Error(`timed out after ${timeoutMs} ms waiting for ${what}`);
        await this.#wake.promise;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #negotiated(answer: Buffer): void {
    const flags = answer.readUInt32BE(8);
    this.#silent = Object.entries(CONTENT)
      .filter(([, flag]) => (flags & flag) !== 0)
      .map(([code]) => code)
      .join("");
  }

  #take(chunk: Uint8Array): void {
    this.received += chunk.length;
    this.#rest = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    while (this.#rest.length - at >= 5) {
      const length = this.#rest.readUInt32BE(at);
      if (this.#rest.length - at < 4 + length) break;
      const code = String.fromCharCode(this.#rest[at + 4]!);
      const payload = this.#rest.subarray(at + 5, at + 4 + length);
      this.replies.push({ code, payload });
      if (code === "O") this.#negotiated(payload);
      at += 4 + length;
    }
    this.#rest = this.#rest.subarray(at);
  }
}

/** As many the server keeps back for a worker's start, all duplicates of one socket; meanwhile they are gone. */
const SPARE = 32;

/** Descriptors that the server has open, besides those that it keeps back. */
export function descriptorsOf(server: Pmilter): number {
  const folder = `/proc/${server.process.pid}/fd`;
  const names = readdirSync(folder);
  const duplicates = new Map<string, number>();
  for (const name of names) {
    const socket = targetOf(`${folder}/${name}`);
    if (socket?.startsWith("socket:")) duplicates.set(socket, (duplicates.get(socket) ?? 0) + 1);
  }
  return names.length - (Math.max(0, ...duplicates.values()) >= SPARE ? SPARE : 0);
}

function targetOf(link: string): string | null {
  try {
    return readlinkSync(link);
  } catch {
    // Closed since the folder was read.
    return null;
  }
}

/** Looks, and time between them, that have to find the same. */
const LOOKS_AT_REST = 10;
const LOOK_MS = 100;

/** Descriptors that the server has open once its threads have started: one that watches files opens its own a moment later. */
export async function descriptorsAtRest(server: Pmilter): Promise<number> {
  let count = descriptorsOf(server);
  for (let same = 0; same < LOOKS_AT_REST;) {
    await Bun.sleep(LOOK_MS);
    const now = descriptorsOf(server);
    same = now === count ? same + 1 : 0;
    count = now;
  }
  return count;
}

/** Waits until the server has this many descriptors open. */
export async function descriptorsSettle(server: Pmilter, expected: number, timeoutMs = PATIENCE_MS): Promise<void> {
  let count = 0;
  try {
    await waitFor(() => (count = descriptorsOf(server)) === expected, { what: "descriptors", timeoutMs });
  } catch {
    throw new Error(`the server has ${count} descriptors open, expected ${expected}`);
  }
}

/** Resident memory of the server, in bytes. */
export function residentBytes(server: Pmilter): number {
  const status = readFileSync(`/proc/${server.process.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) * 1024;
}
