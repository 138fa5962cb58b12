/** A large body in pieces: the worker's other sessions are served between them. */

const LF = 0x0a;
const PIECE_BYTES = 1024 * 1024;

/**
 * Pieces of about 1 MB, each but the last of whole lines. A body of one piece is given at once.
 * @param signal of the call: the memory of a body is given back when its message is over
 */
export async function* piecesOf(body: Uint8Array, signal: AbortSignal): AsyncGenerator<Buffer> {
  const buffer = Buffer.from(body.buffer, body.byteOffset, body.length);
  for (let start = 0; start < buffer.length;) {
    if (start > 0) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      signal.throwIfAborted();
    }
    const end = pieceEnd(buffer, start);
    yield buffer.subarray(start, end);
    start = end;
  }
}

function pieceEnd(buffer: Buffer, start: number): number {
  if (buffer.length - start <= PIECE_BYTES) return buffer.length;
  const last = buffer.lastIndexOf(LF, start + PIECE_BYTES - 1);
  if (last > start) return last + 1;
  const next = buffer.indexOf(LF, start);
  return next === -1 ? buffer.length : next + 1;
}
