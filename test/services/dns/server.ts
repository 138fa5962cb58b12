/** A name server for tests that answers as it is told: also late, cut, with a wrong id, for another question, or not at all. */
import dnsPacket, { type DecodedPacket, type Packet } from "dns-packet";

export interface TestAnswer {
  readonly answers?: readonly unknown[];
  readonly authorities?: readonly unknown[];
  readonly rcode?: number;
  /** Milliseconds until it is sent. */
  readonly delay?: number;
  /** By UDP it is cut. */
  readonly isCut?: boolean;
  readonly isSilent?: boolean;
  /** Sent before it, byte for byte. */
  readonly before?: (query: DecodedPacket) => readonly Uint8Array[];
  /** EDNS is not known: FORMERR. */
  readonly lacksEdns?: boolean;
}

export interface TestNameServer extends AsyncDisposable {
  readonly port: number;
  readonly address: "127.0.0.1";
  /** Packets and connections that asked something: `udp example.com TXT`. */
  readonly asked: string[];
}

export function encodeAnswer(
  query: DecodedPacket,
  { answers = [], authorities = [], rcode = 0, isCut = false }: TestAnswer,
): Buffer {
  return dnsPacket.encode({
    type: "response",
    id: query.id!,
    flags: (1 << 8) | (1 << 7) | rcode | (isCut ? 1 << 9 : 0),
    questions: query.questions!,
    answers: isCut ? [] : (answers as Packet["answers"])!,
    authorities: authorities as Packet["authorities"],
  } as Packet);
}

export async function startNameServer(
  answer: (name: string, type: string, how: "udp" | "tcp") => TestAnswer,
): Promise<TestNameServer> {
  const asked: string[] = [];
  const timers = new Set<ReturnType<typeof setTimeout>>();
  const serve = (bytes: Uint8Array, how: "udp" | "tcp", send: (bytes: Uint8Array) => void): void => {
    const query = dnsPacket.decode(Buffer.from(bytes));
    const [{ name, type }] = query.questions as [{ name: string; type: string }];
    asked.push(`${how} ${name} ${type}`);
    const how2 = answer(name, type, how);
    if (how2.isSilent === true) return;
    if (how2.lacksEdns === true && (query.additionals ?? []).length > 0) {
      send(encodeAnswer(query, { rcode: 1 }));
      return;
    }
    const reply = (): void => {
      for (const packet of how2.before?.(query) ?? []) send(packet);
      send(encodeAnswer(query, { ...how2, isCut: how2.isCut === true && how === "udp" }));
    };
    if (how2.delay === undefined) reply();
    else {
      const timer = setTimeout(() => {
        timers.delete(timer);
        reply();
      }, how2.delay);
      timers.add(timer);
    }
  };
  const tcp = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, bytes) {
        serve(bytes.subarray(2), "tcp", (reply) => {
          const framed = Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 0xff]), reply]);
          // In two pieces, cut within the length.
          socket.write(framed.subarray(0, 1));
          setTimeout(() => socket.write(framed.subarray(1)), 5);
        });
      },
    },
  });
  const udp = await Bun.udpSocket({
    hostname: "127.0.0.1",
    port: tcp.port,
    socket: {
      data: (socket, bytes, port, address) => serve(bytes, "udp", (reply) => socket.send(reply, port, address)),
    },
  });
  return {
    port: tcp.port,
    address: "127.0.0.1",
    asked,
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearTimeout(timer);
      udp.close();
      tcp.stop(true);
    },
  };
}
