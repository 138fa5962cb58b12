/**
 * Makes a failing input smaller: whole units are cut first (packets by their length fields, or lines), then runs of
 * bytes, each as long as the input goes on failing. Simple on purpose: the result is read by people, not the least there is.
 */
import type { Target } from "./target.ts";

/**
 * @param fails whether an input shows the fault
 * @param deadline on the clock of `performance.now()`
 */
export async function shrink(
  input: Uint8Array,
  unit: Target["unit"],
  fails: (input: Uint8Array) => Promise<boolean>,
  deadline: number,
): Promise<Uint8Array> {
  let pieces: readonly Uint8Array[] = unit === "packet" ? packetPieces(input) : linePieces(input);
  pieces = await without(pieces, fails, deadline);
  const bytes = Array.from(Buffer.concat(pieces), (byte) => Buffer.of(byte));
  return Buffer.concat(await without(bytes, fails, deadline));
}

/** Cuts runs of pieces, half of them at first, then ever shorter ones, until no single one can be missed. */
async function without(
  all: readonly Uint8Array[],
  fails: (input: Uint8Array) => Promise<boolean>,
  deadline: number,
): Promise<readonly Uint8Array[]> {
  let pieces = all;
  for (let size = Math.max(1, pieces.length >> 1); ;) {
    let hasCut = false;
    for (let at = 0; at < pieces.length;) {
      if (performance.now() > deadline) return pieces;
      const rest = [...pieces.slice(0, at), ...pieces.slice(at + size)];
      if (await fails(Buffer.concat(rest))) {
        pieces = rest;
        hasCut = true;
      } else at += size;
    }
    if (size > 1) size >>= 1;
    else if (!hasCut) return pieces;
  }
}

/** Packets as their length fields have them; what is no whole packet at the end is one piece. */
export function packetPieces(input: Uint8Array): Uint8Array[] {
  const bytes = Buffer.from(input);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 4 <= bytes.length ? at + 4 + bytes.readUInt32BE(at) : bytes.length;
    pieces.push(bytes.subarray(at, Math.min(end, bytes.length)));
    at = end;
  }
  return pieces;
}

function linePieces(input: Uint8Array): Uint8Array[] {
  return Buffer.from(input)
    .toString("latin1")
    .split(/(?<=\n)/)
    .map((line) => Buffer.from(line, "latin1"));
}
