/** A name server for tests that answers as it is told: also late, cut, with a wrong id, for another question, or not at all. */
import dnsPacket, { type DecodedPacket, type Packet } from "dns-packet";

export interface TestAnswer {
  readonly answers?: readonly unknown[];
  readonly authorities?: readonly unknown[];
  readonly rcode?: number;
  /** Default true: it asks other servers. */
  readonly isRecursive?: boolean;
  /** Milliseconds until it is sent. */
  readonly delay?: number;
  /** By UDP it is cut. */
  readonly isCut?: boolean;
  readonly isSilent?: boolean;
  /** Sent before it, byte for byte. */
  readonly before?: (query: DecodedPacket) => readonly Uint8Array[];
  /** Sent by TCP in its place, byte for byte, with the length in front; then the connection is closed if that is said. */
  readonly tcp?: { readonly pieces: readonly Uint8Array[]; readonly closes?: boolean };
  /** EDNS is not known: FORMERR. */
  readonly lacksEdns?: boolean;
}

export interface Asker {
  readonly how: "udp" | "tcp";
  readonly address: string;
  readonly port: number;
  readonly query: DecodedPacket;
}

export interface TestNameServer extends AsyncDisposable {
  readonly port: number;
  readonly address: "127.0.0.1";
  /** Packets and connections that asked something: `udp example.com TXT`. */
  readonly asked: string[];
  /** Ends it before its time. */
  stop(): void;
}

export function encodeAnswer(
  query: DecodedPacket,
  { answers = [], authorities = [], rcode = 0, isCut = false, isRecursive = true }: TestAnswer,
): Buffer {
  return dnsPacket.encode({
    type: "response",
    id: query.id!,
    flags: (1 << 8) | (isRecursive ? 1 << 7 : 0) | rcode | (isCut ? 1 << 9 : 0),
    questions: query.questions!,
    answers: isCut ? [] : (answers as Packet["answers"])!,
    authorities: authorities as Packet["authorities"],
  } as Packet);
}

/** @param port default: a free one */
export async function startNameServer(
  answer: (name: string, type: string, asker: Asker) => TestAnswer,
  port = 0,
): Promise<TestNameServer> {
  const asked: string[] = [];
  const timers = new Set<ReturnType<typeof setTimeout>>();
  const later = (ms: number, run: () => void): void => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      run();
    }, ms);
    timers.add(timer);
  };
  const serve = (bytes: Uint8Array, asker: Omit<Asker, "query">, send: (bytes: Uint8Array) => void): TestAnswer => {
    const query = dnsPacket.decode(Buffer.from(bytes));
    const [{ name, type }] = query.questions as [{ name: string; type: string }];
    asked.push(`${asker.how} ${name} ${type}`);
    const told = answer(name, type, { ...asker, query });
    if (told.isSilent === true || (asker.how === "tcp" && told.tcp !== undefined)) return told;
    if (told.lacksEdns === true && (query.additionals ?? []).length > 0) {
      send(encodeAnswer(query, { rcode: 1 }));
      return told;
    }
    const reply = (): void => {
      for (const packet of told.before?.(query) ?? []) send(packet);
      send(encodeAnswer(query, { ...told, isCut: told.isCut === true && asker.how === "udp" }));
    };
    if (told.delay === undefined) reply();
    else later(told.delay, reply);
    return told;
  };
  const tcp = Bun.listen({
    hostname: "127.0.0.1",
    port,
    socket: {
      data(socket, bytes) {
        const asker = { how: "tcp", address: socket.remoteAddress, port: 0 } as const;
        const told = serve(bytes.subarray(2), asker, (reply) => {
          const framed = Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 0xff]), reply]);
          // In two pieces, cut within the length.
          socket.write(framed.subarray(0, 1));
          later(5, () => socket.write(framed.subarray(1)));
        });
        const pieces = [...(told.tcp?.pieces ?? [])];
        const next = (): void => {
          const piece = pieces.shift();
          if (piece === undefined) {
            if (told.tcp?.closes === true) socket.end();
            return;
          }
          socket.write(piece);
          later(2, next);
        };
        if (told.tcp !== undefined) next();
      },
    },
  });
  const udp = await Bun.udpSocket({
    hostname: "127.0.0.1",
    port: tcp.port,
    socket: {
      data(socket, bytes, from, address) {
        serve(bytes, { how: "udp", address, port: from }, (reply) => socket.send(reply, from, address));
      },
    },
  });
  const stop = (): void => {
    for (const timer of timers) clearTimeout(timer);
    if (!udp.closed) udp.close();
    tcp.stop(true);
  };
  return {
    port: tcp.port,
    address: "127.0.0.1",
    asked,
    stop,
    async [Symbol.asyncDispose]() {
      stop();
    },
  };
}
