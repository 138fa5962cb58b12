/** What the load generator writes for mail of a given size. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { type MailShape, trafficFor } from "../../bench/support/traffic.ts";
import { OPTNEG } from "../server/wire.ts";

setDefaultTimeout(120_000);

/** The answer of a filter that has everything sent and answers all of it. */
const ANSWER_ALL = OPTNEG;

/** Packets by code, and the bytes of body in them. */
function contentOf(mail?: MailShape) {
  const bytes = Buffer.concat(trafficFor(ANSWER_ALL, mail).next.map((exchange) => exchange.bytes));
  const counts: Record<string, number> = {};
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 4 + bytes.readUInt32BE(at);
    const code = String.fromCharCode(bytes[at + 4]!);
    counts[code] = (counts[code] ?? 0) + 1;
    if (code === "B") chunks.push(bytes.subarray(at + 5, end));
    at = end;
  }
  const { A, M, R, T, L, N, B, E } = counts;
  return { counts: { A, M, R, T, L, N, B, E }, chunks };
}

test("without a size it is ordinary mail: one recipient, 12 headers, 2 KB", () => {
  const { counts, chunks } = contentOf();
  expect(counts).toEqual({ A: 1, M: 1, R: 1, T: 1, L: 12, N: 1, B: 1, E: 1 });
  expect(chunks[0]!.length).toBe(2048);
});

test("so many recipients and headers, and a body in Postfix's pieces that ends with a line break", () => {
  const { counts, chunks } = contentOf({ recipients: 30, headers: 100, bodyBytes: 200_000 });
  expect(counts).toEqual({ A: 1, M: 1, R: 30, T: 1, L: 100, N: 1, B: 4, E: 1 });
  expect(chunks.map(({ length }) => length)).toEqual([65_535, 65_535, 65_535, 200_000 - 3 * 65_535]);
  expect(chunks.at(-1)!.subarray(-2).toString()).toBe("\r\n");
});
