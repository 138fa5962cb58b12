/** Bytes with the methods of Buffer, and as text with a character for each byte. */

export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function latin1(bytes: Uint8Array): string {
  return bufferOf(bytes).toString("latin1");
}
