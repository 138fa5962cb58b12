/** What a worker does with a connection that it accepts: keeps it, passes it on, lets it wait, or refuses it. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { BlockList } from "node:net";
import { fstatSync, openSync } from "node:fs";
import type { ListenAddress } from "../../src/config/address.ts";
import { close } from "../../src/net/libc.ts";
import { ALL_SHARES, ConnectionTable } from "../../src/shared/connection-table.ts";
import { type SharedListener, openListener } from "../../src/server/listening/listener.ts";
import type { PassedConnection } from "../../src/shared/messages.ts";
import { Acceptor, type AcceptorHost, CHURN_SLACK } from "../../src/worker/acceptor.ts";
import type { Connection } from "../../src/worker/connection.ts";
import { Cleanup, openDescriptors, Peer } from "../server/sockets.ts";

setDefaultTimeout(120_000);

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const ROW = 0;
const OTHER_ROW = 1;

interface Kept {
  readonly slot: number;
  readonly peer: string;
  readonly socket: Bun.Socket<Connection>;
}

/** An acceptor on a listening socket of its own, and what it has done. */
class Bench {
  readonly table: ConnectionTable;
  readonly listener: SharedListener;
  readonly acceptor: Acceptor;
  readonly kept: Kept[] = [];
  readonly passed: PassedConnection[] = [];
  readonly log: string[] = [];
  readonly read: string[] = [];
  stops = 0;
  isCurrent = true;
  #wake = Promise.withResolvers<void>();

  private constructor(listener: SharedListener, slots: number, host: Partial<AcceptorHost>) {
    this.listener = listener;
    this.table = ConnectionTable.create(2, slots, 1);
    this.acceptor = new Acceptor(
      {
        row: ROW,
        table: this.table,
        listeningSockets: [{ ...listener.listeningSocket, index: 0, configured: "inet:127.0.0.1:0" }],
        allowed: null,
        lock() {},
        unlock() {},
        mayKeep: () => this.isCurrent,
        prepare: (slot) => expect(this.table.slotsOf(ROW)).not.toContain(slot),
        keep: (slot, peer, socket) => this.#note(() => this.kept.push({ slot, peer, socket })),
        pass: (passed) => this.#note(() => this.passed.push(passed)),
        listening() {},
        stopped: () => this.#note(() => (this.stops += 1)),
        log: (level, text) => this.#note(() => this.log.push(`${level}: ${text}`)),
        ...host,
      },
      { data: (_, chunk) => this.#note(() => this.read.push(chunk.toString())), close() {}, error() {} },
    );
    cleanup.add(() => {
      this.acceptor.pause();
      for (const { slot, socket } of this.kept) {
        socket.terminate();
        close(this.table.duplicateOf(slot));
      }
      for (const { duplicate } of this.passed) close(duplicate);
      listener.close({ unlink: true });
    });
  }

  static async open(slots = 8, host: Partial<AcceptorHost> = {}, address?: ListenAddress): Promise<Bench> {
    const listener = await openListener(address ?? { kind: "unix", path: `${cleanup.folder()}/s` }, {
      mode: 0o600,
      uid: null,
      gid: null,
      backlog: 64,
      onConnection: () => expect.unreachable("the listener itself accepts nothing"),
      onError: (error) => expect.unreachable(error.message),
    });
    listener.pause();
    const bench = new Bench(listener, slots, host);
    bench.listen();
    return bench;
  }

  listen(): void {
    this.acceptor.listen([ROW, OTHER_ROW]);
  }

  connect(): Promise<Peer> {
    return Peer.connect(this.listener.address as ListenAddress & { kind: "unix" | "tcp" }, cleanup);
  }

  /** One more that it keeps. */
  async keepOne(): Promise<void> {
    const { length } = this.kept;
    await this.connect();
    await this.until(() => this.kept.length > length);
  }

  /** One that it keeps, and that ends. */
  async visit(): Promise<void> {
    await this.keepOne();
    const { slot, socket } = this.kept.pop()!;
    close(this.table.duplicateOf(slot));
    this.table.leave(slot, ROW);
    this.acceptor.ended();
    socket.terminate();
  }

  /** The other worker has so many more. */
  fillOther(count: number): void {
    for (let index = 0; index < count; index++) this.table.enter(this.table.reserve(), OTHER_ROW, -1, -1, "", 0);
  }

  #note(step: () => unknown): void {
    step();
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.#wake.promise;
  }
}

const inode = (descriptor: number) => fstatSync(descriptor, { bigint: true }).ino;

describe("Acceptor", () => {
  test("keeps what it accepts: a slot, the descriptor that is read from, and a second one of the same socket", async () => {
    const bench = await Bench.open();
    const peer = await bench.connect();
    await bench.until(() => bench.kept.length === 1);
    const [kept] = bench.kept;
    const { table } = bench;
    expect(table.slotsOf(ROW)).toEqual([kept!.slot]);
    expect(table.peerOf(kept!.slot)).toMatch(/^unix:\//);
    expect(kept!.peer).toBe(table.peerOf(kept!.slot));
    const descriptor = table.descriptorOf(kept!.slot);
    expect(descriptor).not.toBe(table.duplicateOf(kept!.slot));
    expect(inode(descriptor)).toBe(inode(table.duplicateOf(kept!.slot)));
    peer.socket.write("hello");
    await bench.until(() => bench.read.length > 0);
    expect(bench.read).toEqual(["hello"]);
  });

  test("a TCP peer is known by its address", async () => {
    const bench = await Bench.open(8, {}, { kind: "tcp", host: "127.0.0.1", port: 0, family: 4 });
    const peer = await bench.connect();
    await bench.until(() => bench.kept.length === 1);
    expect(bench.kept[0]!.peer).toBe(`inet:127.0.0.1:${peer.socket.localPort}`);
  });

  test("once another generation is current, whose server.allow may be another, it refuses nobody itself", async () => {
    const allowed = new BlockList();
    allowed.addSubnet("192.0.2.0", 24, "ipv4");
    const bench = await Bench.open(8, { allowed }, { kind: "tcp", host: "127.0.0.1", port: 0, family: 4 });
    bench.isCurrent = false;
    await bench.connect();
    await bench.until(() => bench.passed.length + bench.log.length > 0);
    expect(bench.log).toEqual([]);
    expect(bench.passed).toMatchObject([{ slot: 0, peer: expect.stringMatching(/^inet:127/) }]);
  });

  test("who is not in server.allow is refused", async () => {
    const allowed = new BlockList();
    allowed.addSubnet("192.0.2.0", 24, "ipv4");
    const bench = await Bench.open(8, { allowed }, { kind: "tcp", host: "127.0.0.1", port: 0, family: 4 });
    const peer = await bench.connect();
    await peer.ended();
    expect(bench.log).toEqual([expect.stringMatching(/^warn: inet:127\.0\.0\.1:\d+: not in server.allow/)]);
    expect(bench.table.total).toBe(0);
  });

  test.each<[string, (bench: Bench) => void]>([
    ["of a generation that is not current any more", (bench) => (bench.isCurrent = false)],
    [
      "that is more than its share",
      (bench) => {
        // As if this worker had one more than the other.
        bench.table.enter(bench.table.reserve(), ROW, -1, -1, "", 0);
      },
    ],
  ])("passes on one %s: it has its slot, its peer notices nothing, nothing is read from it", async (_, arrange) => {
    const bench = await Bench.open();
    arrange(bench);
    const before = bench.table.total;
    const peer = await bench.connect();
    peer.socket.write("hello");
    await bench.until(() => bench.passed.length === 1);
    const [{ duplicate, slot }] = bench.passed as [PassedConnection];
    expect(bench.table.passedSlots()).toEqual([slot]);
    expect(bench.table.duplicateOf(slot)).toBe(duplicate);
    expect(bench.table.total).toBe(before + 1);
    const adopted = await Peer.connect({ kind: "adopt", fd: duplicate }, cleanup);
    bench.passed.length = 0;
    await adopted.until(({ received }) => received.toString() === "hello");
    expect(peer.events).toEqual([]);
    expect(bench.kept).toEqual([]);
  });

  test.each([
    { others: 0, most: CHURN_SLACK + 1 },
    { others: 2 * CHURN_SLACK, most: 4 * CHURN_SLACK + 1 },
  ])(
    "where connections end as fast as they come, it may have $most while the other has $others",
    async ({ others, most }) => {
      const bench = await Bench.open(128);
      bench.fillOther(others);
      for (let count = 1; count <= 2 * CHURN_SLACK; count++) await bench.visit();
      for (let count = 1; count <= most; count++) {
        for (let visit = 1; visit <= 4; visit++) await bench.visit();
        await bench.keepOne();
      }
      expect(bench.passed).toEqual([]);
      await bench.connect();
      await bench.until(() => bench.passed.length === 1);
      expect(bench.table.countOf(ROW)).toBe(most);
    },
  );

  test("where half of them have ended, it may not: those that come now may stay", async () => {
    const bench = await Bench.open(128);
    for (let count = 1; count <= 2 * CHURN_SLACK; count++) {
      bench.fillOther(1);
      await bench.keepOne();
      await bench.visit();
    }
    // A sixteenth more than the other, and one.
    for (let count = 1; count <= 3; count++) await bench.keepOne();
    await bench.connect();
    await bench.until(() => bench.passed.length === 1);
    expect(bench.table.countOf(ROW)).toBe(2 * CHURN_SLACK + 3);
  });

  test("while a generation begins, it passes on that one's share", async () => {
    const bench = await Bench.open(64);
    bench.fillOther(30);
    bench.table.passShares = ALL_SHARES / 4;
    const whose: string[] = [];
    for (let count = 1; count <= 12; count++) {
      const { length } = bench.passed;
      await bench.connect();
      await bench.until(() => bench.kept.length + bench.passed.length === count);
      whose.push(bench.passed.length > length ? "passed" : "kept");
    }
    const each = ["kept", "kept", "kept", "passed"];
    expect(whose).toEqual([...each, ...each, ...each]);
  });

  test("its share grows with what the others have", async () => {
    const bench = await Bench.open(64);
    bench.fillOther(16);
    for (let count = 1; count <= 18; count++) {
      await bench.connect();
      await bench.until(() => bench.kept.length === count);
    }
    await bench.connect();
    await bench.until(() => bench.passed.length === 1);
    expect(bench.table.countOf(ROW)).toBe(18);
  });

  test("with the last slot it ceases to listen, at once: who comes then waits unaccepted, and is served once it listens again", async () => {
    const bench = await Bench.open(4);
    bench.fillOther(2);
    const peers = await Promise.all(Array.from({ length: 20 }, () => bench.connect()));
    await bench.until(() => bench.stops === 1);
    expect(bench.kept).toHaveLength(2);
    expect(bench.passed).toEqual([]);
    expect(bench.table.isAwaited).toBe(true);
    for (const peer of peers) expect(peer.events).toEqual([]);
    const [first] = bench.kept.splice(0, 1) as [Kept];
    const duplicate = bench.table.duplicateOf(first.slot);
    expect(bench.table.leave(first.slot, ROW)).toBe(true);
    close(duplicate);
    first.socket.terminate();
    bench.listen();
    await bench.until(() => bench.stops === 2);
    expect(bench.kept).toHaveLength(2);
    expect(bench.passed).toEqual([]);
  });

  test("full before it has accepted: it passes that one on without a slot, and ceases to listen", async () => {
    const bench = await Bench.open(1);
    bench.fillOther(1);
    await Promise.all([bench.connect(), bench.connect()]);
    await bench.until(() => bench.stops === 1);
    expect(bench.passed).toMatchObject([{ slot: -1 }]);
  });

  test("while hardly any descriptors are left it reads nothing from what it has accepted, and takes it afterwards", async () => {
    const bench = await Bench.open();
    bench.table.isStarved = true;
    const peer = await bench.connect();
    peer.socket.write("hello");
    // That nothing happens has no event.
    await Bun.sleep(50);
    expect([bench.kept, bench.passed, bench.read]).toEqual([[], [], []]);
    expect(peer.events).toEqual([]);
    bench.table.isStarved = false;
    bench.listen();
    expect(bench.kept).toHaveLength(1);
    await bench.until(() => bench.read.length > 0);
    expect(bench.read).toEqual(["hello"]);
  });

  test("what waits when it ends goes to others", async () => {
    const bench = await Bench.open();
    bench.table.isStarved = true;
    await bench.connect();
    await Bun.sleep(50);
    bench.table.isStarved = false;
    bench.isCurrent = false;
    bench.acceptor.close();
    expect(bench.passed).toHaveLength(1);
  });

  test("what it accepts by is in the connection table while it listens", async () => {
    const bench = await Bench.open();
    const { listeningSocket } = bench.listener;
    const [descriptor, ...rest] = bench.table.listeningOf(ROW);
    expect(rest).toEqual([]);
    expect(descriptor).not.toBe(listeningSocket.descriptor);
    expect(bench.listener.isOwn(descriptor!)).toBe(true);
    // Told once more, it goes on.
    bench.listen();
    expect(bench.table.listeningOf(ROW)).toEqual([descriptor!]);
    bench.acceptor.pause();
    expect(bench.table.listeningOf(ROW)).toEqual([]);
    expect(() => fstatSync(descriptor!)).toThrow("EBADF");
  });

  test("a listening socket that cannot be used is told of, and nothing of it stays open", async () => {
    const file = openSync("/dev/null", "r");
    cleanup.add(() => close(file));
    const listeningSocket = {
      descriptor: file,
      name: "nowhere",
      isUnix: true,
      backlog: 1,
      index: 0,
      configured: "unix:nowhere",
    };
    const before = openDescriptors();
    const bench = await Bench.open(8, { listeningSockets: [listeningSocket] });
    await bench.until(() => bench.log.length > 0 && bench.stops > 0);
    expect(bench.log).toEqual([expect.stringMatching(/^error: a worker cannot accept connections: /)]);
    expect(bench.table.listeningOf(ROW)).toEqual([]);
    // Those of its listener.
    expect(openDescriptors() - before).toBeLessThanOrEqual(1);
  });
});
