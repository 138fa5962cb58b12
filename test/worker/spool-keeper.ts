/** A worker that keeps bytes of bodies past their messages, and is then left with bodies that have not ended. */
import type { SpoolLine } from "../../src/shared/spool-messages.ts";
import { WorkerSpool } from "../../src/worker/spool.ts";

declare const self: {
  postMessage(message: unknown): void;
  onmessage: (event: { readonly data: { readonly line: SpoolLine } }) => void;
};

const PIECE = Buffer.alloc(1024 * 1024, "w");
const kept: Uint8Array[] = [];

self.onmessage = async ({ data: { line } }) => {
  const spool = new WorkerSpool(() => spool.connect(line));
  for (let message = 0; message < 12; message++) {
    const body = spool.begin();
    for (let at = 0; at < 3; at++) body.append(PIECE, 0, PIECE.length);
    const { bytes } = await body.map();
    kept.push(bytes, bytes.subarray(5, 100), Buffer.from(bytes.buffer, 1024 * 1024, 500), new Uint8Array(bytes.buffer));
    body.end();
    // Garbage, for the collector to run at its own times.
    for (let at = 0; at < 200; at++) Buffer.allocUnsafeSlow(100_000).fill(1);
    await Bun.sleep(0);
  }
  const read = kept.flatMap((view) => [view.length, view[0] ?? -1, view[100] ?? -1]);
  const mapped = spool.begin();
  mapped.append(PIECE, 0, PIECE.length);
  kept.push((await mapped.map()).bytes);
  const half = spool.begin();
  half.append(PIECE, 0, PIECE.length);
  self.postMessage(read);
};
