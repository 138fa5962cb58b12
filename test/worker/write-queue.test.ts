/** Replies that a socket has not taken: their order, what a turn of the event loop writes, and what is kept meanwhile. */
import { describe, expect, test } from "bun:test";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { WriteQueue } from "../../src/worker/write-queue.ts";
import { packet, packetsOf } from "../protocol/wire.ts";

const TURN_BYTES = 256 * 1024;
const MiB = 1024 * 1024;

/** A socket that takes what the test says, of each write. */
class Socket {
  readonly out: Buffer[] = [];
  readonly memory = new Set<ArrayBufferLike>();
  takes: (length: number) => number = (length) => length;

  write(bytes: Uint8Array, from: number, length: number): number {
    this.memory.add(bytes.buffer);
    const taken = this.takes(length);
    this.out.push(Buffer.from(bytes.subarray(from, from + Math.max(0, taken))));
    return taken;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.out);
  }
}

/** A queue of a header, a body, another header, another body, and the final reply. */
function filled() {
  const released: string[] = [];
  const bodies = { a: Buffer.alloc(2 * MiB, "a"), b: Buffer.alloc(1 * MiB + 1, "b") };
  const writer = new ReplyWriter();
  const held = (name: "a" | "b") =>
    writer.heldBody({
      pieces: [bodies[name].subarray(0, 70_000), bodies[name].subarray(70_000)],
      release: () => void released.push(name),
    });
  writer.addHeader("X-One", " 1");
  held("a");
  writer.addHeader("X-Two", " 2");
  held("b");
  writer.packet(packet("c"));
  const all = Buffer.from(writer.copy());
  const queue = new WriteQueue();
  queue.take(writer);
  // The writer is another connection's from now on.
  writer.clear();
  writer.packet(packet("r"));
  return { queue, released, all };
}

describe("what a connection has still to send", () => {
  test("leaves in order, a quarter of a megabyte in a turn, and a body is released with its last byte", () => {
    const { all, queue, released } = filled();
    expect(
      packetsOf(all)
        .map((text) => text[0])
        .join(""),
    ).toBe(`h${"b".repeat(33)}h${"b".repeat(17)}c`);
    const socket = new Socket();
    const turns: string[] = [];
    for (let last = ""; last !== "all"; turns.push(last)) {
      const before = socket.bytes.length;
      last = queue.write(socket);
      expect(socket.bytes.length - before).toBeLessThanOrEqual(TURN_BYTES);
    }
    expect(turns).toEqual([...Array.from({ length: Math.floor(all.length / TURN_BYTES) }, () => "turn"), "all"]);
    expect(socket.bytes.equals(all)).toBe(true);
    expect(released).toEqual(["a", "b"]);
  });

  test("the packets of bodies are made in one buffer, however large the bodies are", () => {
    const [first, second] = [filled(), filled()];
    const socket = new Socket();
    while (first.queue.write(socket) !== "all");
    while (second.queue.write(socket) !== "all");
    const large = [...socket.memory].filter(({ byteLength }) => byteLength > 10_000);
    expect(large.map(({ byteLength }) => byteLength)).toEqual([TURN_BYTES]);
  });

  test("waits for the socket where that takes only a part, or nothing, and goes on with the next byte", () => {
    const { all, queue, released } = filled();
    const socket = new Socket();
    let call = 0;
    socket.takes = (length) => (call++ % 3 === 0 ? 0 : Math.min(length, 1 + (call % 7) * 9999));
    const seen = new Set<string>();
    for (let last = ""; last !== "all"; seen.add(last)) last = queue.write(socket);
    expect([...seen].toSorted()).toEqual(["all", "socket"]);
    expect(socket.bytes.equals(all)).toBe(true);
    expect(released).toEqual(["a", "b"]);
  });

  test("says that the peer is gone; what is dropped is released once", () => {
    const { queue, released } = filled();
    const socket = new Socket();
    expect(queue.write(socket)).toBe("turn");
    socket.takes = () => -1;
    expect(queue.write(socket)).toBe("gone");
    expect(released).toEqual([]);
    queue.drop();
    queue.drop();
    expect(released).toEqual(["a", "b"]);
  });

  test("takes what is to leave behind, without the bytes that have left", () => {
    const writer = new ReplyWriter();
    const queue = new WriteQueue();
    const socket = new Socket();
    writer.packet(packet("c"));
    queue.take(writer, 2);
    writer.clear();
    writer.heldBody({ pieces: [Buffer.from("body")], release() {} });
    writer.packet(packet("c"));
    queue.take(writer);
    expect(queue.write(socket)).toBe("all");
    expect(socket.bytes).toEqual(Buffer.concat([packet("c").subarray(2), packet("b", "body"), packet("c")]));
  });
});
