/** The reply writer: replies and changes into its buffer. A process of its own, see `cases.ts`. */
import { encodeReplyCode, PLAIN_REPLIES, ReplyWriter } from "../../src/protocol/encode.ts";
import { type Case, runCases } from "./cases.ts";

/** Replies that a read may collect before they leave. */
const REPLIES = 64;

const writer = new ReplyWriter(64 * 1024);
const refusal = encodeReplyCode("550 5.7.1 Not welcome here");
const body = [Buffer.alloc(2048, "x")];

function writes(name: string, write: () => void): Case {
  return {
    name: `writer, ${name}`,
    unit: "reply",
    count: REPLIES,
    run() {
      for (let index = 0; index < REPLIES; index++) write();
      writer.clear();
    },
  };
}

await runCases([
  writes("CONTINUE", () => writer.packet(PLAIN_REPLIES.CONTINUE)),
  writes("SMTP reply, encoded before", () => writer.packet(refusal)),
  writes("ADDHEADER", () => writer.addHeader("X-Pmilter", " Enable")),
  writes("INSHEADER", () => writer.insertHeader(0, "X-Pmilter", " Enable")),
  writes("ADDHEADER with UTF-8", () => writer.addHeader("X-Grüße", " schön, ja — sehr")),
  writes("REPLBODY of 2 KB", () => writer.replaceBody(body)),
]);
