/** The socket transport, over a unix socket and over TCP, against a filter that is a plain socket. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { MilterClient } from "../../src/testing/client.ts";
import { connectTransport, type FilterAddress } from "../../src/testing/transport.ts";
import { CONTINUE, optneg, packet } from "./fake-filter.ts";
import { TEMP } from "../support/temp.ts";

setDefaultTimeout(120_000);

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).toReversed()) cleanup();
});

function folder(): string {
  const path = mkdtempSync(join(TEMP, "pmilter-testing-"));
  cleanups.push(() => rmSync(path, { recursive: true }));
  return path;
}

type Handlers = Bun.SocketHandler<undefined>;

function listenUnix(socket: Handlers): string {
  const path = join(folder(), "filter.sock");
  const listener = Bun.listen({ unix: path, socket });
  cleanups.push(() => listener.stop(true));
  return path;
}

function listenTcp(socket: Handlers): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket });
  cleanups.push(() => listener.stop(true));
  return listener.port;
}

/** Answers OPTNEG and everything else but MACRO, ABORT and QUIT, whatever the splits: packets are gathered first. */
function answering(): Handlers {
  let rest: Uint8Array = Buffer.alloc(0);
  return {
    data(socket, bytes) {
      const all = Buffer.concat([rest, bytes]);
      let at = 0;
      while (all.length - at >= 4 && all.length - at >= 4 + all.readUInt32BE(at)) {
        const code = String.fromCharCode(all[at + 4]!);
        at += 4 + all.readUInt32BE(at);
        if (code === "O") socket.write(optneg());
        else if (code === "E") socket.write(Buffer.concat([packet("h", "X\0y\0"), packet("a")]));
        else if (!"DAQ".includes(code)) socket.write(CONTINUE);
      }
      rest = all.subarray(at);
    },
  };
}

describe("MilterClient.connect", () => {
  const eml = `From: a@b\nTo: c@d\n\n${"x".repeat(300_000)}\n`;

  async function converse(address: FilterAddress): Promise<void> {
    const client = await MilterClient.connect(address, { as: "postfix" });
    const outcome = await client.send({ eml });
    expect(outcome).toMatchObject({ verdict: "accept", modifications: [{ kind: "addHeader", name: "X", value: "y" }] });
    await client.quit();
    expect(client.isClosed).toBe(true);
  }

  test("over a unix socket, by string, bare path and parts", async () => {
    const path = listenUnix(answering());
    await converse(`unix:${path}`);
    await converse(path);
    await converse({ kind: "unix", path });
  });

  test("over TCP, by string and parts", async () => {
    const port = listenTcp(answering());
    await converse(`inet:127.0.0.1:${port}`);
    await converse({ kind: "tcp", host: "127.0.0.1", port });
  });

  test("fails where nobody listens, naming the place", async () => {
    const path = join(folder(), "none.sock");
    const attempt = MilterClient.connect(path, { as: "postfix" });
    await expect(attempt).rejects.toMatchObject({ code: "PMILTER_ERR_CONNECT" });
    await expect(attempt).rejects.toThrow(path);
  });

  test("fails for text that is no address", async () => {
    await expect(MilterClient.connect("nonsense", { as: "postfix" })).rejects.toMatchObject({
      code: "PMILTER_ERR_ADDRESS",
    });
  });

  test("a filter that closes in the middle gives PMILTER_ERR_CLOSED", async () => {
    const path = listenUnix({ data: (socket) => void socket.end() });
    const client = await MilterClient.connect(path, { as: "postfix" });
    await expect(client.negotiate()).rejects.toMatchObject({ code: "PMILTER_ERR_CLOSED" });
    await client.quit();
  });
});

describe("Transport over a socket", () => {
  test("sends all bytes in order to a peer that reads late, and then closes", async () => {
    const arrived = Promise.withResolvers<Buffer>();
    const parts: Uint8Array[] = [];
    const accepted = Promise.withResolvers<Bun.Socket>();
    const path = listenUnix({
      open(socket) {
        socket.pause();
        accepted.resolve(socket);
      },
      data: (_socket, bytes) => void parts.push(Buffer.from(bytes)),
      close: () => arrived.resolve(Buffer.concat(parts)),
    });
    const transport = await connectTransport(path, 1000);
    const bytes = crypto.getRandomValues(Buffer.alloc(60_000));
    const sent = Buffer.alloc(0);
    const all: Uint8Array[] = [sent];
    for (let round = 0; round < 100; round++) {
      bytes[0] = round;
      all.push(Buffer.from(bytes));
      transport.send(bytes); // The same buffer again: what was not taken at once must have been copied.
    }
    transport.close();
    (await accepted.promise).resume();
    expect((await arrived.promise).equals(Buffer.concat(all))).toBe(true);
  });
});
