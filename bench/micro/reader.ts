/** The packet reader: a stream of mail, cut into reads of several sizes. A process of its own, see `cases.ts`. */
import { Framer } from "../../src/protocol/framer.ts";
import { type Case, runCases } from "./cases.ts";
import { mailTraffic } from "./sample.ts";

const CHUNK_BYTES = [1, 16, 256, 4096, 65_536, 262_144];
const STREAM_BYTES = 262_144;

const { next } = mailTraffic("ten");
const message = Buffer.concat(next.map(({ bytes }) => bytes));
const copies = Math.ceil(STREAM_BYTES / message.length);
const stream = Buffer.concat(Array.from({ length: copies }, () => message));

function reader(chunkBytes: number, source: Buffer): Case {
  const chunks: Buffer[] = [];
  for (let at = 0; at < source.length; at += chunkBytes) chunks.push(source.subarray(at, at + chunkBytes));
  const framer = new Framer(1024 * 1024);
  const read = () => {
    let packets = 0;
    for (const chunk of chunks) {
      framer.push(chunk);
      while (framer.next()) packets += 1;
    }
    return packets;
  };
  const count = read();
  return {
    name: `reader, reads of ${chunkBytes.toLocaleString("en-US")} bytes`,
    unit: "packet",
    count,
    run() {
      if (read() !== count) throw new Error("the reader lost packets");
    },
  };
}

await runCases(CHUNK_BYTES.map((chunkBytes) => reader(chunkBytes, chunkBytes < 256 ? message : stream)));
