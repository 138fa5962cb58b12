/** No descriptor and no memory is left over in the server, however connections end. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { ConnectionRoom, connectionsThatFit } from "../../src/server/listening/descriptors.ts";
import { startPmilter } from "../support/pmilter.ts";
import {
  ABORT,
  BODY,
  CONNECT,
  descriptorsAtRest,
  descriptorsSettle,
  EOM,
  HELO,
  MAIL,
  OPTNEG,
  packet,
  QUIT,
  RawClient,
  RCPT,
  residentBytes,
} from "./wire.ts";

setDefaultTimeout(120_000);

describe("connectionsThatFit", () => {
  test.each<[number, number | null, number]>([
    [10_000, 20_000, 9900],
    [100, 20_000, 100],
    [10_000, 1024, 412],
    [10_000, 100, 1],
    [10_000, null, 10_000],
  ])("of %d wanted with a limit of %p: %d", (wanted, limit, fit) => {
    expect(connectionsThatFit(wanted, limit)).toBe(fit);
  });
});

test("ConnectionRoom: bodies in the spool and lost workers take from it, and give back", () => {
  const room = new ConnectionRoom(100, 300);
  expect(room.connections).toBe(50);
  room.spooled = 10;
  expect(room.connections).toBe(45);
  room.keep(1, 20);
  expect(room.connections).toBe(35);
  room.giveBack(1);
  room.spooled = 0;
  expect(room.connections).toBe(50);
});

test.skipIf(!IS_LINUX)("bodies in the spool leave room for fewer connections until they end", async () => {
  await using server = await startPmilter({
    server: { workers: 1, spool: "." },
    config: '[[filter]]\npath = "filter.ts"',
    files: {
      "filter.ts":
        'import { defineFilter } from "pmilter";\nexport default defineFilter({ collectBody: true, eom() {} });\n',
    },
    descriptors: 220,
  });
  using clients = new DisposableStack();
  const connect = async () => {
    const client = clients.use(await RawClient.connect(server.addresses[0]!));
    expect(await client.ask(OPTNEG)).toBe("O");
    return client;
  };
  const chunk = packet("B", Buffer.alloc(60_000));
  const halves: RawClient[] = [];
  // Ten connections fit, and each two bodies take the place of one.
  for (let at = 0; at < 4; at++) {
    const client = await connect();
    await client.ask(CONNECT, HELO, MAIL, RCPT);
    for (let chunks = 0; chunks < 30; chunks++) await client.send(chunk);
    halves.push(client);
  }
  for (let at = 4; at < 8; at++) await connect();
  await server.log.next(
    /\[warn\]: 8 connections \(the limit of file descriptors, some of which large bodies take, .*\): further ones wait/,
  );
  using waits = await RawClient.connect(server.addresses[0]!);
  await waits.send(OPTNEG);
  for (const half of halves.slice(0, 2)) await half.send(ABORT);
  expect(await waits.codes(1)).toBe("O");
  for (const half of halves.slice(2)) await half.send(EOM);
  await server.log.next(/connections are accepted at once again/);
});

const FILTER = `import { defineFilter } from "pmilter";
export default defineFilter({ connect() {}, envfrom() {}, async envrcpt() {}, body() {}, eom() {} });
`;

const SESSION = [OPTNEG, CONNECT, HELO, MAIL, RCPT, BODY, EOM];

/** How a connection may end. */
const ENDINGS: readonly ((client: RawClient) => Promise<unknown>)[] = [
  async function quit(client) {
    expect(await client.ask(...SESSION)).toHaveLength(SESSION.length);
    await client.send(QUIT);
    await client.ended();
    client.end();
  },
  async function plainClose(client) {
    await client.ask(OPTNEG, CONNECT, MAIL);
    client.end();
    await client.ended();
  },
  async function resetWithUnreadReplies(client) {
    client.pause();
    await client.send(...SESSION);
  },
  async function resetWithoutAWord() {},
  async function halfAPacket(client) {
    await client.ask(OPTNEG);
    await client.send(BODY.subarray(0, 7));
    client.end();
    await client.ended();
  },
  async function garbage(client) {
    await client.send(OPTNEG, Buffer.from("GET / HTTP/1.1\r\n\r\n"));
    await client.ended();
    client.end();
  },
];

const BATCH = 100;

test.skipIf(!IS_LINUX)("10,000 connections, over unix and TCP, leave no descriptor and little memory", async () => {
  await using server = await startPmilter({
    listen: ["unix:pmilter.sock", "inet:127.0.0.1:0"],
    server: { workers: 2 },
    config: '[[filter]]\npath = "filter.ts"',
    files: { "filter.ts": FILTER },
  });
  const run = async (connections: number) => {
    for (let done = 0; done < connections; done += BATCH) {
      await Promise.all(
        Array.from({ length: BATCH }, async (_, index) => {
          using client = await RawClient.connect(server.addresses[(done / BATCH) % 2]!);
          await ENDINGS[index % ENDINGS.length]!(client);
        }),
      );
    }
  };
  const before = await descriptorsAtRest(server);
  await run(1000);
  await descriptorsSettle(server, before);
  const resident = residentBytes(server);
  await run(9000);
  await descriptorsSettle(server, before);
  expect(residentBytes(server) - resident).toBeLessThan(96 * 1024 * 1024);
  expect(await server.stop()).toBe(0);
});

describe.skipIf(!IS_LINUX).each(["unix:pmilter.sock", "inet:127.0.0.1:0"])("a peer that never closes, %s", (listen) => {
  test("a connection that the server ends takes no descriptor any longer", async () => {
    await using server = await startPmilter({
      listen,
      server: { workers: 2, timeout: 0.3, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "filter.ts"',
      files: { "filter.ts": FILTER },
    });
    const before = await descriptorsAtRest(server);
    using quit = await RawClient.connect(server.addresses[0]!);
    await quit.send(OPTNEG, QUIT);
    using broken = await RawClient.connect(server.addresses[0]!);
    await broken.send(OPTNEG, packetOfLengthZero());
    using idle = await RawClient.connect(server.addresses[0]!);
    await idle.send(OPTNEG);
    await Promise.all([quit.ended(), broken.ended(), idle.ended()]);
    await descriptorsSettle(server, before, 3000);
  });

  test("one that reads nothing is cut by server.timeout, and takes none either", async () => {
    await using server = await startPmilter({
      listen,
      server: { workers: 1, timeout: 0.3, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "filter.ts"',
      files: { "filter.ts": FILTER },
    });
    const before = await descriptorsAtRest(server);
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(OPTNEG, CONNECT, HELO, MAIL);
    client.pause();
    // As much as the server takes: then neither side reads.
    await client.stuff(RCPT, () => new Promise(setImmediate));
    await server.log.next(/nothing came for 0.3 s/);
    await descriptorsSettle(server, before, 3000);
  });
});

test.skipIf(!IS_LINUX)("a connection that server.allow refuses takes no descriptor", async () => {
  await using server = await startPmilter({
    listen: "inet:127.0.0.1:0",
    server: { workers: 1, allow: ["192.0.2.0/24"] },
  });
  const before = await descriptorsAtRest(server);
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ended();
  await descriptorsSettle(server, before, 3000);
});

function packetOfLengthZero(): Buffer {
  return Buffer.alloc(4);
}
