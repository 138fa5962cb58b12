/** Compressed bytes, unpacked as far as the caller asks: the sizes that an archive states are not believed. */
import type { Transform } from "node:stream";

/** The first `most` bytes of the content; bytes in front of an error count. Null if there are none but an error. */
export async function inflate(stream: Transform, data: Uint8Array, most: number): Promise<Uint8Array | null> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    stream.end(data);
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      length += chunk.length;
      if (length >= most) break;
    }
  } catch {
    // zlib's error: the data is broken here.
    if (length === 0) return null;
  } finally {
    stream.destroy();
  }
  return Buffer.concat(chunks).subarray(0, most);
}
