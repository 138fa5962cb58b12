/**
 * The limit: a Bun process with a single thread that frames packets and replies as a given negotiation demands: CONTINUE to
 * everything and an added header at the end of a message. It reads no payload. A single file on purpose, without a line of
 * the server's code.
 *
 * Arguments: the socket's path, and the OPTNEG answer to give, a whole packet in hex.
 */
import { renameSync } from "node:fs";

const [path, hex] = process.argv.slice(2);
if (path === undefined || hex === undefined) {
  console.error("usage: bun bench/peers/bare.ts SOCKET ANSWER");
  process.exit(2);
}

const answer = Buffer.from(hex, "hex");
const protocol = answer.readUInt32BE(13);
const hasHeader = (protocol & 0x100000) !== 0;
const CONTINUE = Buffer.from("\0\0\0\x01c", "latin1");
const added = `hX-Pmilter\0${hasHeader ? " " : ""}Enable\0`;
const END = Buffer.concat([Buffer.from([0, 0, 0, added.length]), Buffer.from(added), CONTINUE]);

/** By command byte: C H M R T L N B, each with its no-reply flag. */
const replies: (Buffer | undefined)[] = new Array(256).fill(undefined);
for (const [command, noReply] of Object.entries({
  C: 0x1000,
  H: 0x2000,
  M: 0x4000,
  R: 0x8000,
  T: 0x10000,
  L: 0x80,
  N: 0x40000,
  B: 0x80000,
})) {
  if ((protocol & noReply) === 0) replies[command.charCodeAt(0)] = CONTINUE;
}
replies[0x45] = END;
replies[0x4f] = answer;
const QUIT = 0x51;

const out = Buffer.alloc(256 * 1024);

// The path appears once the socket listens: between binding and listening it would refuse connections.
const temporary = `${path}.new`;
Bun.listen<{ rest: Buffer | null }>({
  unix: temporary,
  socket: {
    open(socket) {
      socket.data = { rest: null };
    },
    data(socket, chunk) {
      const { rest } = socket.data;
      const bytes = rest === null ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      let used = 0;
      let isOver = false;
      while (bytes.length - at > 4) {
        const end = at + 4 + bytes.readUInt32BE(at);
        if (end > bytes.length) break;
        const code = bytes[at + 4]!;
        const reply = replies[code];
        if (reply !== undefined) {
          out.set(reply, used);
          used += reply.length;
        }
        isOver = code === QUIT;
        at = end;
      }
      socket.data.rest = at === bytes.length ? null : Buffer.from(bytes.subarray(at));
      if (used > 0) socket.write(out, 0, used);
      if (isOver) socket.end();
    },
  },
});
renameSync(temporary, path);

process.on("disconnect", () => process.exit(0));
process.send?.("ready");
