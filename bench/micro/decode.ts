/**
 * Decoding: the headers of a message, taken as bytes and left so until someone reads them (lazy, as the server does), and
 * made strings at once (eager). A process of its own, see `cases.ts`.
 */
import { ReceivedMessage } from "../../src/handler/message/received.ts";
import { COMMAND } from "../../src/protocol/constants.ts";
import { type Case, runCases } from "./cases.ts";
import { payloadsOf } from "./sample.ts";

const headers = payloadsOf(COMMAND.HEADER);
/** The same in an old charset: bytes that are not UTF-8. */
const latin1 = headers.map((header) => {
  const bytes = Buffer.from(header);
  for (let at = bytes.indexOf(0) + 1; at < bytes.length - 1; at += 10) bytes[at] = 0xe9;
  return bytes;
});

function decode(name: string, source: readonly Uint8Array[], read: (message: ReceivedMessage) => number): Case {
  // The session has looked for the ends of both strings by then.
  const parts = source.map((bytes) => {
    const nameLength = bytes.indexOf(0);
    return { bytes, nameLength, valueLength: bytes.indexOf(0, nameLength + 1) - nameLength - 1 };
  });
  const take = () => {
    const message = new ReceivedMessage();
    for (const { bytes, nameLength, valueLength } of parts) {
      message.takeHeader(bytes, 0, nameLength, valueLength, false);
    }
    return read(message);
  };
  const expected = take();
  return {
    name: `decode, ${source.length} headers, ${name}`,
    unit: "packet",
    count: source.length,
    run() {
      if (take() !== expected) throw new Error("the headers are not those of the first time");
    },
  };
}

function readOne(message: ReceivedMessage): number {
  return message.headerValue(message.headerCount - 1).length;
}

function readAll(message: ReceivedMessage): number {
  let length = 0;
  for (let at = 0; at < message.headerCount; at++) {
    length += message.headerName(at).length + message.headerValue(at).length;
  }
  return length;
}

await runCases([
  decode("lazy, none read", headers, (message) => message.headerCount),
  decode("lazy, one value read", headers, readOne),
  decode("eager, all read", headers, readAll),
  decode("eager, not UTF-8", latin1, readAll),
]);
