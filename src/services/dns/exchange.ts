/**
 * One question to one name server: a packet by UDP, or by TCP if the answer does not fit (RFC 1035 4.2, RFC 7766). Each
 * question has a socket of its own, so that its port is as random as its id (RFC 5452 4).
 */
import { randomInt } from "node:crypto";
import type { DecodedPacket, Packet } from "dns-packet";
import { type NameServer, nameOfServer } from "../../dns/servers.ts";
import { reason } from "../../errors.ts";

/** What is asked; the name as the DNS has it: ASCII, without a dot at its end. */
export interface Question {
  readonly name: string;
  readonly type: string;
}

/** An answer as far as it concerns the question. */
export type Reply = DecodedPacket & { readonly rcode: string };

/** The server gave no answer that can be used. */
export class ExchangeError extends Error {
  override readonly name = "ExchangeError";
}

export interface ExchangeOptions {
  /** Aborts when nobody waits any more. */
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

/** Bytes of an answer by UDP: no network cuts such a packet (RFC 9715). */
const UDP_BYTES = 1232;
const AD = 1 << 5;
const RD = 1 << 8;
const TC = 1 << 9;

type DnsPacket = typeof import("dns-packet");
let loaded: DnsPacket | null = null;

/** The library is loaded at the first question. */
function dnsPacket(): DnsPacket {
  return (loaded ??= require("dns-packet") as DnsPacket);
}

/**
 * Asks one server, once by UDP, and by TCP if the answer was cut.
 * @throws ExchangeError if there is no answer in time, or no connection; the signal's reason if that aborts
 */
export async function exchange(
  server: NameServer,
  question: Question,
  { signal, timeoutMs }: ExchangeOptions,
): Promise<Reply> {
  signal.throwIfAborted();
  const deadline = performance.now() + timeoutMs;
  const first = await ask(askByUdp, server, question, true, deadline, timeoutMs, signal);
  // Servers that do not know EDNS (RFC 6891 7).
  const reply =
    first.rcode === "FORMERR" || first.rcode === "NOTIMP"
      ? await ask(askByUdp, server, question, false, deadline, timeoutMs, signal)
      : first;
  if ((reply.flags! & TC) === 0) return reply;
  return ask(askByTcp, server, question, true, deadline, timeoutMs, signal);
}

type Transport = (server: NameServer, query: Uint8Array, pending: Pending) => Promise<() => void>;

/** An answer that is waited for. */
interface Pending {
  /** Bytes that may be the answer; true if they are. */
  take(bytes: Uint8Array): boolean;
  fail(why: string): void;
  readonly isOver: boolean;
}

async function ask(
  transport: Transport,
  server: NameServer,
  question: Question,
  hasEdns: boolean,
  deadline: number,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Reply> {
  const id = randomInt(0x10000);
  const query = dnsPacket().encode(queryOf(id, question, hasEdns));
  const { promise, resolve, reject } = Promise.withResolvers<Reply>();
  let isOver = false;
  const end = (): void => {
    isOver = true;
  };
  const fail = (why: string): void => {
    end();
    reject(new ExchangeError(`${nameOfServer(server)}: ${why}`));
  };
  const pending: Pending = {
    take(bytes) {
      const reply = replyIn(bytes, id, question);
      if (reply === null) return false;
      end();
      resolve(reply);
      return true;
    },
    fail,
    get isOver() {
      return isOver;
    },
  };
  const timer = setTimeout(() => fail(`no answer in ${timeoutMs} ms`), Math.max(0, deadline - performance.now()));
  const abort = (): void => {
    end();
    reject(signal.reason);
  };
  signal.addEventListener("abort", abort);
  let close: (() => void) | null = null;
  try {
    const opening = transport(server, query, pending).then(
      (opened) => {
        // It was over before the socket was open.
        if (isOver) opened();
        else close = opened;
      },
      (error: unknown) => fail(reason(error)),
    );
    const reply = await promise;
    void opening;
    return reply;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    (close as (() => void) | null)?.();
  }
}

function queryOf(id: number, { name, type }: Question, hasEdns: boolean): Packet {
  return {
    type: "query",
    id,
    // AD asks for what the server knows of DNSSEC; it is not relied on.
    flags: RD | AD,
    questions: [{ name, type: type as "A", class: "IN" }],
    ...(hasEdns && {
      additionals: [
        {
          type: "OPT" as const,
          name: "." as const,
          udpPayloadSize: UDP_BYTES,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0,
          flag_do: false,
          options: [],
        },
      ],
    }),
  };
}

/** The answer to a question; null for any other bytes, which are ignored: anybody may send a packet to the port. */
export function replyIn(bytes: Uint8Array, id: number, { name, type }: Question): Reply | null {
  let packet: DecodedPacket;
  try {
    packet = dnsPacket().decode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch {
    return null;
  }
  const reply = packet as Reply;
  if (reply.id !== id || reply.type !== "response") return null;
  const [question, ...others] = reply.questions ?? [];
  // Some servers leave the question out of an error.
  if (question === undefined) return reply.rcode === "NOERROR" || reply.rcode === "NXDOMAIN" ? null : reply;
  const isSame =
    others.length === 0 &&
    question.type === type &&
    question.class === "IN" &&
    question.name.toLowerCase() === name.toLowerCase();
  return isSame ? reply : null;
}

async function askByUdp(server: NameServer, query: Uint8Array, pending: Pending): Promise<() => void> {
  const socket = await Bun.udpSocket({
    // Connected: the system drops what other addresses send, and tells of a closed port.
    connect: { hostname: server.address, port: server.port },
    socket: {
      data: (_socket, bytes) => void (pending.isOver || pending.take(bytes)),
      // Bun gives the error as the first argument.
      error: (error: unknown) => pending.fail(reason(error)),
    },
  });
  if (!socket.send(query)) pending.fail("the packet could not be sent");
  return () => socket.close();
}

/** A longer answer is not read. */
const MAX_TCP_BYTES = 0xffff;

async function askByTcp(server: NameServer, query: Uint8Array, pending: Pending): Promise<() => void> {
  const framed = new Uint8Array(query.length + 2);
  framed.set([query.length >> 8, query.length & 0xff]);
  framed.set(query, 2);
  let got = Buffer.alloc(0);
  const socket = await Bun.connect({
    hostname: server.address,
    port: server.port,
    socket: {
      data(_socket, bytes) {
        if (pending.isOver) return;
        got = Buffer.concat([got, bytes]);
        if (got.length > MAX_TCP_BYTES + 2) return pending.fail("more than one answer");
        if (got.length < 2) return;
        const length = got.readUInt16BE(0);
        if (got.length < length + 2) return;
        if (!pending.take(got.subarray(2, length + 2))) pending.fail("an answer to another question, by TCP");
      },
      close: () => void (pending.isOver || pending.fail("the connection was closed before the answer")),
      error: (_socket, error) => pending.fail(reason(error)),
      connectError: (_socket, error) => pending.fail(reason(error)),
    },
  });
  // A query of a few hundred bytes fits into any socket's buffer.
  if (socket.write(framed) !== framed.length) pending.fail("the question could not be sent");
  return () => socket.terminate();
}
