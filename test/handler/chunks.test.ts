/** What a `body` handler is given: a view of the read, which stays right for as long as the handler is awaited. */
import { expect, test } from "bun:test";
import { cmd } from "../protocol/wire.ts";
import { Line, settled } from "./harness.ts";

const LARGE = "0123456789abcdef".repeat(4000);

test("a handler sees the read itself, or a copy of a small piece, as a plain Uint8Array", () => {
  const chunks: Uint8Array[] = [];
  const line = Line.to([{ body: (_, chunk) => void chunks.push(chunk) }]);
  line.send(cmd.mail("<a@c.test>"));
  const read = new Uint8Array(Buffer.concat([cmd.body(LARGE), cmd.body("more")]));
  const { buffer } = read;
  const { session } = line.conversation;
  session.push(read);
  line.conversation.pump();
  expect(chunks.map(({ constructor }) => constructor)).toEqual([Uint8Array, Uint8Array]);
  expect(chunks.map((chunk) => chunk.buffer === buffer)).toEqual([true, false]);
  expect(Buffer.from(chunks[1]!).toString()).toBe("more");
});

test("an awaited handler's chunk stays as it was, whatever is read meanwhile and afterwards", async () => {
  const chunks: Uint8Array[] = [];
  const waiting: (() => void)[] = [];
  const line = Line.to([
    {
      body: async (_, chunk) => {
        await new Promise<void>((resolve) => waiting.push(resolve));
        chunks.push(chunk);
      },
    },
  ]);
  line.send(cmd.mail("<a@c.test>"));
  const bodies = ["first ", "second ", "third "].map((word) => word + LARGE);
  // The second one lies in two reads.
  const stream = Buffer.concat(bodies.map((body) => cmd.body(body)));
  for (const piece of [stream.subarray(0, 90_000), stream.subarray(90_000)]) line.send(piece);
  for (let count = 1; count <= bodies.length; count++) {
    waiting.pop()!();
    await settled();
  }
  expect(chunks.map((chunk) => Buffer.from(chunk).toString())).toEqual(bodies);
});
