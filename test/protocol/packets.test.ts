/** The walk over packets: against a reader that is as simple as it can be, in any range. */
import { expect, test } from "bun:test";
import { PacketWalk } from "../../src/protocol/packets.ts";
import { cmd } from "./wire.ts";

const PACKETS = [cmd.macro("C", { j: "mx" }), cmd.connect(), cmd.helo(), cmd.eom()];
const ALL = Buffer.concat(PACKETS);

function walked(walk: PacketWalk, bytes: Uint8Array): string[] {
  const found: string[] = [];
  while (walk.next()) {
    const payload = Buffer.from(bytes.subarray(walk.start, walk.end)).toString("latin1");
    found.push(String.fromCharCode(walk.code) + payload);
  }
  return found;
}

const textOf = (packet: Buffer) => packet.toString("latin1", 4);

test("it gives each whole packet, and stops in front of a partial one, wherever that is cut", () => {
  for (let to = 0; to <= ALL.length; to++) {
    const walk = new PacketWalk().over(ALL, 0, to);
    const ends = PACKETS.map((_, index) => Buffer.concat(PACKETS.slice(0, index + 1)).length);
    const whole = ends.filter((end) => end <= to);
    expect(walked(walk, ALL)).toEqual(PACKETS.slice(0, whole.length).map(textOf));
    expect(walk.at).toBe(whole.at(-1) ?? 0);
  }
});

test("it can be used for a further range, which begins anywhere", () => {
  const walk = new PacketWalk(ALL);
  expect(walked(walk, ALL)).toHaveLength(PACKETS.length);
  const padded = Buffer.concat([Buffer.from("xxx"), ALL, Buffer.from("yyyyyy")]);
  expect(walked(walk.over(padded, 3, 3 + ALL.length), padded)).toEqual(PACKETS.map(textOf));
});

test("no bytes hold no packet", () => {
  expect(new PacketWalk().next()).toBe(false);
});
